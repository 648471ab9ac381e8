//! A listener's access log as the data path reads it: the way to the writer, and the texts that
//! are the same in each line.

use std::sync::Arc;

use crate::control;
use crate::model::{AccessLog, AccessLogFormat, LogTarget, derive_id};
use crate::obs::{Board, Pipe};

/// Where a listener's requests are logged on one shard, and how.
#[derive(Debug)]
pub struct SiteLog {
    /// Takes the lines.
    pub pipe: Arc<Pipe>,
    /// Their form.
    pub format: AccessLogFormat,
    /// Number of the shard.
    pub shard: usize,
    /// Id of the log itself, as text.
    pub topic: Box<str>,
    /// `loadbalancer_` and the balancer's id.
    pub balancer: Box<str>,
    /// The user's name for the balancer.
    pub balancer_name: Box<str>,
    /// The listener's id, as text.
    pub listener: Box<str>,
    /// The user's name for the listener.
    pub listener_name: Box<str>,
}

impl SiteLog {
    /// The log of a listener on a shard; `None` without one, or when the board has no spool for it.
    #[must_use]
    pub fn of(listener: &control::Listener, board: &Board, shard: usize) -> Option<SiteLog> {
        let AccessLog { target, format } = listener.log.access.as_ref()?;
        Some(SiteLog {
            pipe: Arc::clone(board.spool(target)?.pipe(shard)?),
            format: *format,
            shard,
            topic: topic(target).into(),
            balancer: format!("loadbalancer_{}", listener.log.balancer).into(),
            balancer_name: listener.balancer.as_str().into(),
            listener: listener.id.to_string().into(),
            listener_name: listener.name.as_str().into(),
        })
    }
}

/// The id of a log: the same for the same target.
fn topic(target: &LogTarget) -> String {
    let path = match target {
        LogTarget::Standard => "-".into(),
        LogTarget::File(path) => path.to_string_lossy(),
    };
    derive_id("access_log", "", &path).to_string()
}
