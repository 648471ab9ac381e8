//! The flags of a plain run, and of two sides in turn, and what they mean as a [`Plan`].

use clap::Args;

use super::load::{JudgeArgs, LoadArgs, Paced, ReportArgs, WaitArgs, WatchArgs, conditions};
use super::values::{Rate, parse_number, parse_rate};
use crate::plan::Plan;
use crate::verdict::FailIf;

/// Flags of a run.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// How many requests.
    #[command(flatten)]
    pub pace: PaceArgs,
    /// The load.
    #[command(flatten)]
    pub load: LoadArgs,
    /// When it begins.
    #[command(flatten)]
    pub wait: WaitArgs,
    /// Whom to watch.
    #[command(flatten)]
    pub watch: WatchArgs,
    /// The other side.
    #[command(flatten)]
    pub sides: SidesArgs,
    /// Where the report goes.
    #[command(flatten)]
    pub report: ReportArgs,
    /// The exit code.
    #[command(flatten)]
    pub judge: JudgeArgs,
}

/// Flags about how many requests there are.
#[derive(Debug, Args)]
#[command(next_help_heading = "Load")]
pub struct PaceArgs {
    /// Requests a second, each due at its exact time; latencies count from then (open loop). 10k
    /// is 10000; 1000..5000: changing in a line over the measured window
    #[arg(long, short = 'r', value_name = "N", value_parser = parse_rate)]
    pub rate: Option<Rate>,
    /// Measure so many requests instead of a time
    #[arg(long, short = 'n', value_name = "N", conflicts_with = "duration")]
    #[arg(value_parser = parse_number)]
    pub requests: Option<u64>,
}

/// Flags about two sides in turn.
#[derive(Debug, Args)]
#[command(next_help_heading = "Two sides in turn")]
pub struct SidesArgs {
    /// Load this URL in turn with the other one, and tell what the balancer adds
    #[arg(long, value_name = "URL", conflicts_with_all = ["csv", "html"])]
    pub direct: Option<String>,
    /// Rounds of both sides, with --direct
    #[arg(long, value_name = "N", default_value_t = 5, requires = "direct")]
    pub rounds: usize,
}

impl RunArgs {
    /// The plan that the flags ask for, and the conditions of failure. Reads the body file.
    ///
    /// # Errors
    /// One message with cause and cure; the exit code is 2.
    pub fn plan(self) -> Result<(Plan, Vec<FailIf>), String> {
        let (mut load, mut fail_if) = (self.load, self.judge.fail_if);
        conditions(&mut load.urls, &mut fail_if)?;
        let PaceArgs { rate, requests } = self.pace;
        let plan = load.plan(Paced { rate, requests, pids: self.watch.pids })?;
        Ok((plan, fail_if))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::*;
    use crate::cli::Cli;
    use crate::cpu;
    use crate::plan::{CpuOf, Length, Reuse};

    fn plan(args: &[&str]) -> Result<(Plan, Vec<FailIf>), String> {
        let all = ["loadgen"].iter().chain(args);
        Cli::try_parse_from(all).map_err(|error| error.to_string())?.run.plan()
    }

    #[test]
    fn the_flags_of_the_interface() {
        let core = cpu::allowed_cores()[0].to_string();
        let me = std::process::id().to_string();
        let (plan, fail_if) = plan(&[
            "http://127.0.0.1:81/x",
            "--connections",
            "7",
            "--requests",
            "100",
            "--rate",
            "50",
            "--cores",
            &core,
            "--requests-per-connection",
            "3",
            "--header",
            "A: b:c",
            "--warmup",
            "0s",
            "--seed",
            "9",
            "--json",
            "-",
            "--pid",
            &me,
            "--fail-if",
            "errors>0",
            "p99>20ms",
        ])
        .unwrap();
        assert_eq!((plan.connections, plan.rate, plan.seed), (7, Some(50), 9));
        assert_eq!(plan.length, Length::Requests(100));
        assert_eq!(plan.reuse, Reuse::Requests(3));
        assert_eq!(plan.headers, [("A".to_string(), "b:c".to_string())]);
        assert_eq!(plan.warmup, Duration::ZERO);
        assert_eq!(plan.cores.len(), 1);
        assert_eq!(plan.cpu_of, CpuOf::Processes(vec![std::process::id()]));
        assert_eq!(fail_if.len(), 2);
    }

    #[test]
    fn defaults() {
        let (plan, fail_if) = plan(&["127.0.0.1:81"]).unwrap();
        assert_eq!(plan.length, Length::Duration(Duration::from_secs(10)));
        assert_eq!((plan.connections, plan.reuse, plan.rate), (64, Reuse::KeepAlive, None));
        assert_eq!(plan.warmup, Duration::from_secs(1));
        assert_eq!(plan.cores, cpu::allowed_cores());
        assert!(fail_if.is_empty());
        assert_eq!(self::plan(&["x", "--close"]).unwrap().0.reuse, Reuse::Requests(1));
        let many = self::plan(&["x", "--rate", "10k", "-c", "1.5k", "-n", "2M"]).unwrap().0;
        assert_eq!((many.rate, many.connections), (Some(10_000), 1_500));
        assert_eq!(many.length, Length::Requests(2_000_000));
        let changing = self::plan(&["x", "--rate", "10..30"]).unwrap().0;
        assert_eq!((changing.rate, changing.rate_to), (Some(10), Some(30)));
        assert_eq!(changing.mean_rate(), Some(20));
    }

    #[test]
    fn bad_command_lines_are_refused() {
        for (args, part) in [
            (&[][..], "no URL"),
            (&["a", "b"], "another place"),
            (&["99999999999*a"], "number"),
            (&["tcp://a:1", "--exchange", "x"], "upload or download"),
            (&["a", "--templates", "/does/not/exist"], "--templates"),
            (&["a", "--expect-weights", "a"], "NAME=WEIGHT"),
            (&["a", "--ca", "x", "--insecure"], "cannot be used with"),
            (&["a", "--duration", "1s", "--requests", "1"], "cannot be used with"),
            (&["a", "--close", "--requests-per-connection", "2"], "cannot be used with"),
            (&["a", "--duration", "10"], "unit"),
            (&["a", "--cores", "99999"], "not among those allowed"),
            (&["a", "--fail-if", "p98>1ms"], "unknown metric"),
            (&["a", "--fail-if", "errors>0", "p98>1ms"], "unknown metric"),
            (&["tcp://a:1", "--http2"], "for http and https"),
            (&["a", "--streams", "2"], "--http2"),
            (&["a", "--http2", "--streams", "1001"], "1–1,000 streams"),
            (&["a", "--admin", "gopher://x"], "unknown scheme"),
            (&["a", "--connections", "0"], "connections"),
            (&["a", "--rate", "0"], "rate"),
            (&["a", "--rate", "5.."], "1000..5000"),
            (&["a", "--rate", "1..5", "-n", "9"], "duration"),
            (&["a", "--pid", "4294967295"], "no such process"),
            (&["a", "--body", "/does/not/exist"], "--body"),
            (&["a", "--header", "x"], "Name: value"),
            (&["a", "--nonsense"], "--nonsense"),
            (&["a", "--serve-delay", "1ms"], "--serve"),
            (&["a", "--serve-error-rate", "0.1"], "--serve"),
            (&["a", "--serve-core", "0"], "--serve"),
            (&["a", "--direct", "b", "--html", "x"], "cannot be used with"),
        ] {
            let message = plan(args).unwrap_err();
            assert!(message.contains(part), "{args:?}: {message}");
        }
    }

    #[test]
    fn several_urls_and_a_file_of_requests() {
        let (plan, _) = plan(&["3*h/a", "http://h/b", "--header", "A: b"]).unwrap();
        let kinds: Vec<_> = plan.templates.iter().map(|t| (t.path.as_str(), t.weight)).collect();
        assert_eq!(kinds, [("/a", 3), ("/b", 1)]);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("b"), "body").unwrap();
        let file = folder.path().join("t.json");
        std::fs::write(&file, r#"[{"path": "/x", "body_file": "b", "headers": {"C": "d"}}]"#)
            .unwrap();
        let file = file.to_str().unwrap();
        let (plan, _) = self::plan(&["h", "--header", "A: b", "--templates", file]).unwrap();
        assert_eq!(plan.templates[0].body, b"body");
        assert_eq!(plan.templates[0].headers.len(), 2);
    }
}
