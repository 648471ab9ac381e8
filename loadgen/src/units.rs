//! Pure: how numbers with units are read from the command line and written for people.

use std::time::Duration;

use crate::limits;

/// Reads a duration with its unit: `10s`, `1.5s`, `250ms`, `20us` or `20µs`, `500ns`, `2m`, `1h`.
///
/// # Errors
/// A message that says what is wrong and what is expected; also above [`limits::MAX_DURATION`].
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let value: f64 = number
        .parse()
        .map_err(|_| format!("`{text}` is not a duration: write a number and a unit, like 10s"))?;
    let scale = match unit.trim() {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "" => return Err(format!("`{text}` lacks a unit: write {text}s or {text}ms")),
        other => return Err(format!("unknown unit `{other}` in `{text}`: use ns us ms s m h")),
    };
    let seconds = value * scale;
    if seconds > limits::MAX_DURATION.as_secs_f64() {
        return Err(format!("`{text}` is too long: at most {}", time(limits::MAX_DURATION)));
    }
    // Whole nanoseconds by rounding, so that 20ms is exactly 20,000,000 ns.
    Ok(Duration::from_nanos((seconds * 1e9).round() as u64))
}

/// Reads a size in bytes: `128`, `4k`, `1M`, `2G`, also `KiB`, `MiB`, `GiB` (all powers of 1024).
///
/// # Errors
/// A message that says what is expected.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let wrong = || format!("`{text}` is not a size: write bytes, or a number with k, M or G");
    let value: u64 = number.parse().map_err(|_| wrong())?;
    let shift = match unit.trim_end_matches("iB").trim_end_matches('B') {
        "" => 0,
        "k" | "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return Err(wrong()),
    };
    value.checked_mul(1 << shift).ok_or_else(wrong)
}

/// Reads a number: `128`, `10k`, `1.5M`; k is a thousand, M a million.
///
/// # Errors
/// A message that says what is expected; also for what is no whole number.
pub fn parse_count(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a number like 5000, 10k or 1M");
    let (digits, scale) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 3),
        None => text.strip_suffix('M').map_or((text, 0), |digits| (digits, 6)),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let odd = |text: &str| text.bytes().any(|byte| !byte.is_ascii_digit());
    if whole.is_empty() || odd(whole) || odd(part) || digits.ends_with('.') || part.len() > scale {
        return Err(wrong());
    }
    // The decimals move in front of the point, and zeros after them.
    format!("{whole}{part:0<scale$}").parse().map_err(|_| wrong())
}

/// Reads a list of cores: `0-3,8`. The order is kept, doubles are an error.
///
/// # Errors
/// A message that names the faulty part.
pub fn parse_cores(text: &str) -> Result<Vec<usize>, String> {
    let mut cores = Vec::new();
    for part in text.split(',') {
        let wrong = || format!("`{part}` in `{text}` is not a core or a range like 0-3");
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let low: usize = low.trim().parse().map_err(|_| wrong())?;
        let high: usize = high.trim().parse().map_err(|_| wrong())?;
        if low > high || high - low >= limits::MAX_SHARDS {
            return Err(wrong());
        }
        for core in low..=high {
            if cores.contains(&core) {
                return Err(format!("core {core} is named twice in `{text}`"));
            }
            cores.push(core);
        }
    }
    Ok(cores)
}

/// A time for people, three digits and a fitting unit: `17.3 µs`, `1.25 ms`, `10.0 s`.
pub fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        0.0 => "0 µs".to_string(),
        s if s < 0.999_5e-6 => format!("{:.0} ns", s * 1e9),
        s if s < 0.999_5e-3 => format!("{} µs", three_digits(s * 1e6)),
        s if s < 0.999_5 => format!("{} ms", three_digits(s * 1e3)),
        s if s < 599.5 => format!("{} s", three_digits(s)),
        s => format!("{:.0} min", s / 60.0),
    }
}

/// The same for a number of seconds. An infinite one is of a request that got no answer; a negative
/// or odd one shows as a dash.
pub fn seconds(value: f64) -> String {
    if value == f64::INFINITY {
        return "no answer".to_string();
    }
    Duration::try_from_secs_f64(value).map_or_else(|_| "–".to_string(), time)
}

/// A count with thousands separated: `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate for people: whole numbers from 100 up, three digits below.
pub fn rate(per_second: f64) -> String {
    if per_second >= 99.95 {
        count(per_second.round() as u64)
    } else {
        three_digits(per_second.max(0.0))
    }
}

/// Bytes for people, in powers of 1024: `512 B`, `1.25 MiB`.
pub fn bytes(n: f64) -> String {
    let mut value = n.max(0.0);
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 999.5 {
            return if unit == "B" {
                format!("{value:.0} B")
            } else {
                format!("{} {unit}", three_digits(value))
            };
        }
        value /= 1024.0;
    }
    format!("{} TiB", three_digits(value))
}

/// A part of a whole as a percentage with up to two decimals: `45.1 %`.
pub fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "0 %".to_string();
    }
    let percent = part as f64 * 100.0 / whole as f64;
    match percent {
        0.0 => "0 %".to_string(),
        p if p < 0.01 => "<0.01 %".to_string(),
        p if p < 1.0 => format!("{p:.2} %"),
        p => format!("{p:.1} %"),
    }
}

fn three_digits(value: f64) -> String {
    match value {
        v if v < 9.995 => format!("{v:.2}"),
        v if v < 99.95 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_unit() {
        for (text, nanos) in [
            ("10s", 10_000_000_000),
            ("1.5s", 1_500_000_000),
            ("250ms", 250_000_000),
            ("20us", 20_000),
            ("20µs", 20_000),
            ("7ns", 7),
            ("2m", 120_000_000_000),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
        for text in ["", "s", "10", "ten", "-1s", "10x", "1e3s", "1.2.3s", "99999999h", "∞s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, n) in [("0", 0), ("128", 128), ("4k", 4096), ("1MiB", 1 << 20), ("2G", 2 << 30)]
        {
            assert_eq!(parse_size(text), Ok(n), "{text}");
        }
        for text in ["", "k", "-1", "4x", "99999999999G", "1.5M"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn counts_are_decimal() {
        for (text, n) in [("0", 0), ("5000", 5000), ("10k", 10_000), ("1.5M", 1_500_000)] {
            assert_eq!(parse_count(text), Ok(n), "{text}");
        }
        for text in
            ["", "k", "1.5", "-1", "1.", ".5k", "1e3", "4G", "1.2345k", "+5", "99999999999999M"]
        {
            assert!(parse_count(text).is_err(), "{text}");
        }
    }

    #[test]
    fn core_lists() {
        assert_eq!(parse_cores("0-2,8"), Ok(vec![0, 1, 2, 8]));
        assert_eq!(parse_cores("5"), Ok(vec![5]));
        for text in ["", "a", "3-1", "0,0", "1-", "0-999999999"] {
            assert!(parse_cores(text).is_err(), "{text}");
        }
    }

    #[test]
    fn people_read_three_digits() {
        let ns = |n| time(Duration::from_nanos(n));
        assert_eq!(ns(0), "0 µs");
        assert_eq!(ns(800), "800 ns");
        assert_eq!(ns(17_300), "17.3 µs");
        assert_eq!(ns(999_600), "1.00 ms");
        assert_eq!(ns(1_250_000), "1.25 ms");
        assert_eq!(ns(10_000_000_000), "10.0 s");
        assert_eq!(seconds(f64::NAN), "–");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(12), "12");
        assert_eq!(rate(123_456.4), "123,456");
        assert_eq!(rate(3.25), "3.25");
        assert_eq!(bytes(512.0), "512 B");
        assert_eq!(bytes(1.25 * 1024.0 * 1024.0), "1.25 MiB");
        assert_eq!(share(1, 3), "33.3 %");
        assert_eq!(share(0, 0), "0 %");
    }
}
