//! What a listener's requests leave behind: its access log, resolved, and the headers that tell
//! times.

use crate::model::{self, AccessLog, AccessLogFormat, Config, Id, ListenerLog};

/// Log settings of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Where its requests, or at Layer 4 its connections, are logged, and how; `None` = nowhere
    /// (R13.1-1).
    pub access: Option<AccessLog>,
    /// Id of its balancer, which lines name.
    pub balancer: Id,
    /// Answers tell their times (`server_timing`).
    pub server_timing: bool,
}

impl Log {
    /// Only HTTP and HTTPS listeners have an access log (R13.1-3); the others have the connection
    /// log, always as json.
    pub(super) fn of(listener: &model::Listener, config: &Config) -> Log {
        let access = match &listener.access_log {
            _ if !listener.protocol.is_l7() => {
                let target = config.connection_log.clone();
                target.map(|target| AccessLog { target, format: AccessLogFormat::Json })
            }
            ListenerLog::Off => None,
            ListenerLog::Shared => config.access_log.clone(),
            ListenerLog::Own(own) => Some(own.clone()),
        };
        let balancer = config.balancers.get(listener.balancer);
        Log {
            access,
            balancer: balancer.map(|balancer| balancer.id).unwrap_or_default(),
            server_timing: listener.server_timing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{LogTarget, Protocol};

    fn log(path: &str) -> AccessLog {
        AccessLog { target: LogTarget::File(path.into()), format: AccessLogFormat::Elb }
    }

    /// R13.1-1, R13.1-3: off until set, a listener's own before the shared one, Layer 7 only.
    #[test]
    fn which_log_a_listener_has() {
        let of = |protocol, own: &ListenerLog, shared: Option<&str>| {
            let access_log = own.clone();
            let listener = model::Listener { protocol, access_log, ..model::Listener::default() };
            let config = Config { access_log: shared.map(log), ..Config::default() };
            Log::of(&listener, &config).access
        };
        let http = Protocol::Http;
        assert_eq!(of(http, &ListenerLog::Shared, None), None);
        assert_eq!(of(http, &ListenerLog::Shared, Some("a")), Some(log("a")));
        assert_eq!(of(http, &ListenerLog::Off, Some("a")), None);
        assert_eq!(of(http, &ListenerLog::Own(log("b")), Some("a")), Some(log("b")));
        assert_eq!(of(Protocol::Tcp, &ListenerLog::Shared, Some("a")), None);
        let target = LogTarget::File("c".into());
        let config = Config { connection_log: Some(target.clone()), ..Config::default() };
        let at = |protocol| {
            Log::of(&model::Listener { protocol, ..model::Listener::default() }, &config).access
        };
        let json = AccessLog { target, format: AccessLogFormat::Json };
        assert_eq!((at(Protocol::Tcp), at(Protocol::Http)), (Some(json), None));
    }
}
