//! What a run was asked, where and when, so that its report tells how to repeat it. Reads the
//! kernel's names of this host, and this process's command line. Called by `engine`.

use std::fs;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use weir_core::model::TlsVersion;
use weir_core::time::clock;

use crate::plan::{Exchange, Plan};

/// What a run was asked besides what the report has elsewhere, and where it ran; times are seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// When it began, RFC 3339, UTC.
    pub started: String,
    /// Name of this host.
    pub host: String,
    /// Release of its kernel.
    pub kernel: String,
    /// Name of its processor.
    pub processor: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// This process's command line; what header fields of a login say is left out.
    pub command: Vec<String>,
    /// Requests under way at once on a connection.
    pub in_flight: usize,
    /// Time limit of a request.
    pub timeout: f64,
    /// How long an idle shard polls.
    pub spin: f64,
    /// Kinds of requests.
    pub kinds: usize,
    /// Bytes of the bodies of all kinds.
    pub body: u64,
    /// What tcp, tls, udp, ws and wss do; absent for HTTP.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exchange: Option<String>,
    /// Bytes of their messages.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size: Option<u64>,
    /// Our own addresses; empty = the kernel's choice.
    pub sources: Vec<IpAddr>,
    /// Cookies are kept.
    pub sticky: bool,
    /// How TLS was done; absent without TLS.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tls: Option<TlsSetting>,
}

/// How TLS was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsSetting {
    /// Whom certificates were verified by: a file, `system`, or `nobody`.
    pub trust: String,
    /// The name that was asked for.
    pub server_name: String,
    /// Sessions were resumed.
    pub resume: bool,
    /// The only version that was offered; absent = all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub version: Option<String>,
    /// The only cipher suites that were offered; empty = all.
    #[serde(default)]
    pub ciphers: Vec<String>,
}

impl Setting {
    /// Of a run of `plan` that begins now.
    pub(crate) fn of(plan: &Plan) -> Setting {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_string();
        let kinds = plan.requests();
        let messages = !plan.target.scheme.is_http();
        Setting {
            started: rfc3339(clock::wall()),
            host: read("/proc/sys/kernel/hostname"),
            kernel: read("/proc/sys/kernel/osrelease"),
            processor: processor(&read("/proc/cpuinfo")),
            cores: crate::cpu::allowed_cores().len(),
            command: without_secrets(std::env::args_os().map(|a| a.to_string_lossy().into_owned())),
            in_flight: plan.in_flight(),
            timeout: plan.timeout.as_secs_f64(),
            spin: plan.spin.as_secs_f64(),
            kinds: kinds.len(),
            body: kinds.iter().map(|kind| kind.body.len() as u64).sum(),
            exchange: messages.then(|| exchange(plan.exchange).to_string()),
            size: messages.then_some(plan.size),
            sources: plan.sources.clone(),
            sticky: plan.sticky,
            tls: plan.target.scheme.is_secure().then(|| TlsSetting::of(plan)),
        }
    }
}

impl TlsSetting {
    fn of(plan: &Plan) -> TlsSetting {
        let trust = match (plan.tls.insecure, &plan.tls.ca) {
            (true, _) => "nobody".to_string(),
            (false, Some(path)) => path.display().to_string(),
            (false, None) => "system".to_string(),
        };
        let version = plan.tls.offer.only.map(|version| match version {
            TlsVersion::Tls12 => "TLSv1.2",
            TlsVersion::Tls13 => "TLSv1.3",
        });
        TlsSetting {
            trust,
            server_name: plan.tls.name(&plan.target).to_string(),
            resume: plan.tls.resume,
            version: version.map(str::to_string),
            ciphers: plan.tls.offer.ciphers.clone(),
        }
    }
}

fn exchange(exchange: Exchange) -> &'static str {
    match exchange {
        Exchange::Echo => "echo",
        Exchange::Connect => "connect",
        Exchange::Upload => "upload",
        Exchange::Download => "download",
    }
}

/// Header fields whose values nobody is to read in a report.
const SECRETS: [&str; 4] = ["authorization", "cookie", "proxy-authorization", "x-api-key"];

/// The words of a command line; what [`SECRETS`] say is replaced.
fn without_secrets(words: impl Iterator<Item = String>) -> Vec<String> {
    let mask = |word: String| {
        let Some((name, _)) = word.split_once(':') else { return word };
        let bare = name.trim_start_matches("--header=").trim_start_matches("-H");
        let secret = SECRETS.iter().any(|known| bare.trim().eq_ignore_ascii_case(known));
        if secret { format!("{name}: …") } else { word }
    };
    words.map(mask).collect()
}

/// `model name : …` of the first processor; empty where the kernel gives none.
fn processor(cpuinfo: &str) -> String {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(':')).map_or("", |(_, name)| name.trim()).to_string()
}

/// A date and time of day, UTC, whole seconds (RFC 3339, 5.6).
fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    // Counted in years that begin in March, so that the day of a leap year is the last one.
    let shifted = day + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * month + 2) / 5 + 1, (month + 2) % 12 + 1);
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::target::Target;

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn a_login_is_not_told() {
        let words = ["loadgen", "http://h:1/", "-H", "Authorization: Bearer x", "-HCookie: a=b"];
        let words = words.into_iter().chain(["--header=X-Api-Key:k", "-H", "Accept: y"]);
        let told = without_secrets(words.map(str::to_string)).join(" ");
        for secret in ["Bearer", "a=b", ":k"] {
            assert!(!told.contains(secret), "{told}");
        }
        assert!(told.contains("http://h:1/ -H Authorization: … -HCookie: …"), "{told}");
        assert!(told.ends_with("-H Accept: y"), "{told}");
    }

    #[test]
    fn a_run_and_its_host() {
        let plan = Plan::new(Target::parse("tls://h:1").unwrap());
        let setting = Setting::of(&plan);
        assert!(!setting.kernel.is_empty() && setting.cores > 0 && !setting.command.is_empty());
        assert_eq!((setting.exchange.as_deref(), setting.size), (Some("echo"), Some(64)));
        let tls = setting.tls.unwrap();
        assert_eq!((tls.trust.as_str(), tls.server_name.as_str()), ("system", "h"));
        let plain = Setting::of(&Plan::new(Target::parse("http://h/").unwrap()));
        assert_eq!((plain.exchange, plain.size, plain.tls), (None, None, None));
        assert_eq!(processor("processor: 0\nmodel name\t: A B\nmodel name\t: C\n"), "A B");
    }
}
