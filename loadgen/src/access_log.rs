//! Requests found again in the balancer's access log (Weir's form "json") by their ids, so that
//! each latency splits into network, balancer and member. Called by `engine` after a run.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weir_core::time::clock::mono;

use crate::admin::pause;
use crate::hist::{Hist, Summary};
use crate::limits;

/// What the log tells of the requests that were found in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogView {
    /// The file.
    pub path: PathBuf,
    /// Requests of ours that it should hold.
    pub asked: u64,
    /// Those found.
    pub joined: u64,
    /// From the request's first byte at the balancer until its answer was handed to the kernel.
    pub request_time: Option<Summary>,
    /// Sum over the attempts: until there was a connection to the member.
    pub upstream_connect_time: Option<Summary>,
    /// Until the head of the last attempt's answer was there.
    pub upstream_header_time: Option<Summary>,
    /// Sum over the attempts: until the member's answer was there.
    pub upstream_response_time: Option<Summary>,
    /// `request_time` less the waits for client and members.
    pub proxy_time: Option<Summary>,
    /// Latency as loadgen saw it, less `request_time`: the network, both kernels' queues, and at a
    /// constant rate the wait for a free connection.
    pub network: Option<Summary>,
}

/// What of a line matters.
#[derive(Debug, Deserialize)]
struct Line {
    request_id: String,
    request_time: f64,
    #[serde(default)]
    upstream_connect_time: Vec<Option<f64>>,
    #[serde(default)]
    upstream_header_time: Vec<Option<f64>>,
    #[serde(default)]
    upstream_response_time: Vec<Option<f64>>,
    proxy_time: Option<f64>,
}

/// Where the log ends before the run.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    start: u64,
}

impl Place {
    /// Opens the log and notes its end.
    ///
    /// # Errors
    /// A message with cause and cure.
    pub(crate) fn note(path: &Path) -> Result<Place, String> {
        let size = std::fs::metadata(path).map(|facts| facts.len());
        let start = size.map_err(|error| {
            format!("--access-log {}: {error}; it is `path` of [access_log]", path.display())
        })?;
        Ok(Place { path: path.to_path_buf(), start })
    }

    /// Looks for the requests; waits a moment for lines that are still being written. `nonce` is
    /// the first half of the ids.
    ///
    /// # Errors
    /// A message with cause and cure.
    pub(crate) fn join(&self, nonce: u64, ids: &[(u64, Duration)]) -> Result<LogView, String> {
        let told = |error: std::io::Error| format!("--access-log {}: {error}", self.path.display());
        let mut file = BufReader::new(File::open(&self.path).map_err(told)?);
        file.seek(SeekFrom::Start(self.start)).map_err(told)?;
        let mut join = Join::new(nonce, ids)?;
        let until = mono().plus(limits::LOG_LIMIT);
        let mut line = String::new();
        while !join.left.is_empty() {
            if file.read_line(&mut line).map_err(told)? > 0 && line.ends_with('\n') {
                join.take(&line);
                line.clear();
            } else if mono() >= until {
                break;
            } else {
                pause(limits::TICK);
            }
        }
        Ok(join.view(self.path.clone(), ids.len() as u64))
    }
}

struct Join {
    prefix: String,
    left: HashMap<u64, Duration>,
    joined: u64,
    request: Hist,
    connect: Hist,
    header: Hist,
    response: Hist,
    proxy: Hist,
    network: Hist,
}

impl Join {
    fn new(nonce: u64, ids: &[(u64, Duration)]) -> Result<Join, String> {
        let hist = || Hist::new().map_err(|error| error.to_string());
        Ok(Join {
            prefix: format!("{nonce:016x}"),
            left: ids.iter().copied().collect(),
            joined: 0,
            request: hist()?,
            connect: hist()?,
            header: hist()?,
            response: hist()?,
            proxy: hist()?,
            network: hist()?,
        })
    }

    fn take(&mut self, line: &str) {
        let Ok(line) = serde_json::from_str::<Line>(line) else { return };
        let Some(id) = line.request_id.strip_prefix(&self.prefix) else { return };
        let Some(id) = u64::from_str_radix(id, 16).ok() else { return };
        let Some(total) = self.left.remove(&id) else { return };
        let time = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let sum = |times: &[Option<f64>]| times.iter().flatten().copied().reduce(|a, b| a + b);
        self.joined += 1;
        let request = time(line.request_time);
        self.request.record(request);
        self.network.record(total.saturating_sub(request));
        for (hist, value) in [
            (&mut self.connect, sum(&line.upstream_connect_time)),
            (&mut self.header, line.upstream_header_time.last().copied().flatten()),
            (&mut self.response, sum(&line.upstream_response_time)),
            (&mut self.proxy, line.proxy_time),
        ] {
            value.into_iter().for_each(|seconds| hist.record(time(seconds)));
        }
    }

    fn view(self, path: PathBuf, asked: u64) -> LogView {
        LogView {
            path,
            asked,
            joined: self.joined,
            request_time: self.request.summary(),
            upstream_connect_time: self.connect.summary(),
            upstream_header_time: self.header.summary(),
            upstream_response_time: self.response.summary(),
            proxy_time: self.proxy.summary(),
            network: self.network.summary(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn requests_are_found_by_their_ids() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "an older line").unwrap();
        let place = Place::note(file.path()).unwrap();
        let ms = Duration::from_millis;
        let line = |id: &str| {
            format!(
                r#"{{"request_id":"{id}","request_time":0.010,"upstream_connect_time":[null,0.002],
                "upstream_header_time":[null,0.006],"upstream_response_time":[0.001,0.007],
                "proxy_time":0.0005,"status":200}}"#
            )
            .replace('\n', "")
        };
        writeln!(file, "{}", line("00000000000000070000000000000001")).unwrap();
        writeln!(file, "{}\nodd", line("00000000000000080000000000000002")).unwrap();
        let view = place.join(7, &[(1, ms(12)), (2, ms(9))]).unwrap();
        assert_eq!((view.asked, view.joined), (2, 1));
        let p50 = |summary: Option<Summary>| (summary.unwrap().p50 * 1e4).round() / 10.0;
        assert_eq!(p50(view.request_time), 10.0);
        assert_eq!(p50(view.network), 2.0);
        assert_eq!(p50(view.upstream_response_time), 8.0);
        assert_eq!(p50(view.upstream_header_time), 6.0);
        assert!(Place::note(Path::new("/no/such/log")).unwrap_err().contains("[access_log]"));
    }
}
