//! Pure: what an origin is, what it speaks, how long it takes and how it fails. Read by `cli` and
//! `origin`.

use std::net::SocketAddr;
use std::time::Duration;

use crate::origin_tls::OriginTls;
use crate::seed::Rng;
use crate::units;

/// How long an origin takes to answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delay {
    /// As fast as it can.
    #[default]
    None,
    /// Always so long (exact deadlines, not wheel ticks).
    Fixed(Duration),
    /// Between these two, evenly; drawn from the origin's seed.
    Uniform(Duration, Duration),
    /// The first, and the second with so many chances in a million.
    Bimodal(Duration, Duration, u32),
}

impl Delay {
    /// Reads `5ms`, `1ms-10ms`, or `1ms,100ms@5%`.
    ///
    /// # Errors
    /// A message with cause and cure.
    pub fn parse(text: &str) -> Result<Delay, String> {
        if let Some((usual, seldom)) = text.split_once(',') {
            let wrong = || format!("`{text}`: write it like 1ms,100ms@5%");
            let (seldom, share) = seldom.split_once('@').ok_or_else(wrong)?;
            let share = share.strip_suffix('%').and_then(|share| share.parse::<f64>().ok());
            let share = share.filter(|share| (0.0..=100.0).contains(share)).ok_or_else(wrong)?;
            let (usual, seldom) = (units::parse_duration(usual)?, units::parse_duration(seldom)?);
            return Ok(Delay::Bimodal(usual, seldom, (share * 1e4).round() as u32));
        }
        let Some((low, high)) = text.split_once('-') else {
            return Ok(match units::parse_duration(text)? {
                Duration::ZERO => Delay::None,
                delay => Delay::Fixed(delay),
            });
        };
        let (low, high) = (units::parse_duration(low)?, units::parse_duration(high)?);
        if low > high {
            return Err(format!("`{text}`: the shorter delay comes first"));
        }
        Ok(Delay::Uniform(low, high))
    }

    pub(crate) fn draw(self, rng: &mut Rng) -> Duration {
        let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        match self {
            Delay::None => Duration::ZERO,
            Delay::Fixed(delay) => delay,
            Delay::Uniform(low, high) => Duration::from_nanos(rng.between(nanos(low), nanos(high))),
            Delay::Bimodal(usual, seldom, chance) => {
                if rng.between(1, 1_000_000) <= u64::from(chance) { seldom } else { usual }
            }
        }
    }
}

/// What an origin speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/1.1, WebSocket where it is asked for (messages come back), and HTTP/2 if it is to be.
    #[default]
    Http,
    /// Bytes over TCP come back.
    Echo,
    /// Bytes over TCP are thrown away.
    Sink,
    /// Bytes are sent over TCP for as long as somebody takes them.
    Source,
    /// Datagrams come back, with the origin's name in those of loadgen.
    Udp,
}

/// What an origin is and how it answers. One of HTTP: any method, any path, HTTP/1.1 with
/// keep-alive and pipelining; request bodies are read and thrown away; each answer carries
/// `X-Origin: name`.
#[derive(Clone, Debug, PartialEq)]
pub struct OriginSpec {
    /// Value of the X-Origin field; letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// Where it listens; port 0 = any free one.
    pub listen: SocketAddr,
    /// Bytes of each answer's body.
    pub body_size: u64,
    /// Time between a whole request and its answer.
    pub delay: Delay,
    /// Status of its answers, 200–599.
    pub status: u16,
    /// Share of requests that are answered with 500 instead, 0–1.
    pub error_rate: f64,
    /// Share of requests whose connection is reset instead, 0–1.
    pub reset_rate: f64,
    /// Bodies come at this speed; 0 = as fast as they can.
    pub bytes_per_second: u64,
    /// What it speaks.
    pub speaks: Speaks,
    /// Inside TLS.
    pub tls: Option<OriginTls>,
    /// HTTP/2, too: with whom agrees on it inside TLS, and with whom begins so otherwise.
    pub http2: bool,
    /// Seed of delays and errors.
    pub seed: u64,
}

impl OriginSpec {
    /// A fast origin on a free port of 127.0.0.1 that answers 200 with 128 bytes.
    pub fn new(name: &str) -> OriginSpec {
        OriginSpec {
            name: name.to_string(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            body_size: 128,
            delay: Delay::None,
            status: 200,
            error_rate: 0.0,
            reset_rate: 0.0,
            bytes_per_second: 0,
            speaks: Speaks::Http,
            tls: None,
            http2: false,
            seed: 1,
        }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// A message with cause and cure.
    pub fn check(&self) -> Result<(), String> {
        let odd = |c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c));
        if self.name.is_empty() || self.name.chars().any(odd) {
            return Err(format!("`{}`: a name has letters, digits, - _ .", self.name));
        }
        if !(200..=599).contains(&self.status) {
            return Err(format!("status {} is not between 200 and 599", self.status));
        }
        for (what, rate) in [("error", self.error_rate), ("reset", self.reset_rate)] {
            if !(0.0..=1.0).contains(&rate) {
                return Err(format!("{what} rate {rate} is not between 0 and 1"));
            }
        }
        if self.tls.is_some() && self.speaks == Speaks::Udp {
            return Err("datagrams have no TLS".to_string());
        }
        if self.http2 && self.speaks != Speaks::Http {
            return Err("HTTP/2 is for origins that speak HTTP".to_string());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_read_and_drawn() {
        let ms = Duration::from_millis;
        assert_eq!(Delay::parse("0ms"), Ok(Delay::None));
        assert_eq!(Delay::parse("5ms"), Ok(Delay::Fixed(ms(5))));
        assert_eq!(Delay::parse("1ms-10ms"), Ok(Delay::Uniform(ms(1), ms(10))));
        assert!(Delay::parse("10ms-1ms").unwrap_err().contains("first"));
        let two = Delay::Bimodal(ms(1), ms(9), 250_000);
        assert_eq!(Delay::parse("1ms,9ms@25%"), Ok(two));
        assert!(Delay::parse("x").is_err() && Delay::parse("1ms,2ms").is_err());
        let mut rng = Rng::new(3, 0);
        let drawn: Vec<_> =
            (0..1000).map(|_| Delay::Uniform(ms(1), ms(10)).draw(&mut rng)).collect();
        assert!(drawn.iter().all(|d| (ms(1)..=ms(10)).contains(d)));
        let mean = drawn.iter().sum::<Duration>() / 1000;
        assert!((ms(5)..ms(6)).contains(&mean), "{mean:?}");
        let long = (0..1000).filter(|_| two.draw(&mut rng) == ms(9)).count();
        assert!((200..300).contains(&long), "{long}");
    }

    #[test]
    fn specs_out_of_range_are_refused() {
        let wrong = |change: fn(&mut OriginSpec)| {
            let mut spec = OriginSpec::new("a");
            change(&mut spec);
            spec.check().unwrap_err()
        };
        assert!(OriginSpec::new("a").check().is_ok());
        assert!(wrong(|s| s.name = "a\r\nb".into()).contains("name"));
        assert!(wrong(|s| (s.http2, s.speaks) = (true, Speaks::Echo)).contains("HTTP/2"));
        assert!(wrong(|s| s.status = 101).contains("status"));
        assert!(wrong(|s| s.error_rate = 1.5).contains("error rate"));
        assert!(wrong(|s| s.error_rate = f64::NAN).contains("error rate"));
    }
}
