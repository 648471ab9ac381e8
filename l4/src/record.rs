//! One line of the connection log: a JSON object when a connection or flow has ended, with the
//! names of the access log where it says the same. Pure but for the wall clock.

use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use weir_core::net::relay::Moved;
use weir_core::obs::{Ending, Sticky};
use weir_core::table::{Member, Pool, SiteLog};
use weir_core::time::clock;

/// Packets that a connection or flow has exchanged with its client. Of UDP: datagrams that were
/// forwarded, whole. Of TCP: segments of the client's connection, those without data and those sent
/// again included; modulo 2^32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packets {
    /// From the client.
    pub received: u64,
    /// To the client.
    pub sent: u64,
}

/// What a line says.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    pub(crate) log: &'a SiteLog,
    /// The client: the peer, or whom its PROXY header names.
    pub(crate) source: SocketAddr,
    /// The last one that was chosen.
    pub(crate) member: Option<&'a Member>,
    pub(crate) pool: Option<&'a Pool>,
    pub(crate) moved: Moved,
    /// `None` = the kernel did not say.
    pub(crate) packets: Option<Packets>,
    pub(crate) duration: Duration,
    /// `None` = there was never a connection to a member.
    pub(crate) connect_time: Option<Duration>,
    /// Of the client's connection, in microseconds.
    pub(crate) rtt_us: Option<u32>,
    pub(crate) attempts: usize,
    pub(crate) sticky: Sticky,
    pub(crate) ending: Ending,
}

impl Record<'_> {
    /// Appends the line with its line break.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let (log, moved) = (self.log, self.moved);
        let wall = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        let member = |text: fn(&Member) -> String| self.member.map(text);
        let pool = |text: fn(&Pool) -> String| self.pool.map(text);
        let mut object = Object { out, empty: true };
        object.bare("msec", seconds(wall));
        object.text("remote_addr", Some(&self.source.ip().to_string()));
        object.bare("remote_port", self.source.port());
        object.text("lb_name", Some(&log.balancer));
        object.text("lb_usr_name", Some(&log.balancer_name));
        object.text("listener_id", Some(&log.listener));
        object.text("listener_usr_name", Some(&log.listener_name));
        object.text("pool_name", pool(|pool| pool.label().to_string()).as_deref());
        object.text("pool_usr_name", pool(|pool| pool.name().to_string()).as_deref());
        object.text("member_name", member(|member| member.label().to_string()).as_deref());
        object.text("member_usr_name", member(|member| member.name().to_string()).as_deref());
        object.text("upstream_addr", member(|member| member.host.to_string()).as_deref());
        object.bare("bytes_received", moved.from_client);
        object.bare("bytes_sent", moved.to_client);
        object.bare("upstream_bytes_received", moved.from_member);
        object.bare("upstream_bytes_sent", moved.to_member);
        object.or_null("packets_received", self.packets.map(|packets| packets.received));
        object.or_null("packets_sent", self.packets.map(|packets| packets.sent));
        object.bare("duration", seconds(self.duration));
        object.or_null("upstream_connect_time", self.connect_time.map(seconds));
        object.or_null("tcpinfo_rtt", self.rtt_us);
        object.bare("attempts", self.attempts);
        object.text("sticky", Some(self.sticky.name()));
        object.text("ended", Some(self.ending.name()));
        object.bare("shard", log.shard);
        out.extend_from_slice(b"}\n");
    }
}

/// An object in the making.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl Object<'_> {
    fn key(&mut self, name: &str) {
        self.out.extend_from_slice(if std::mem::take(&mut self.empty) { b"{\"" } else { b",\"" });
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn bare(&mut self, name: &str, value: impl std::fmt::Display) {
        self.key(name);
        self.out.extend_from_slice(value.to_string().as_bytes());
    }

    fn or_null(&mut self, name: &str, value: Option<impl std::fmt::Display>) {
        match value {
            Some(value) => self.bare(name, value),
            None => self.bare(name, "null"),
        }
    }

    /// A text; `null` for none.
    fn text(&mut self, name: &str, text: Option<&str>) {
        let Some(text) = text else { return self.bare(name, "null") };
        self.key(name);
        self.out.push(b'"');
        for char in text.chars() {
            match char {
                '"' | '\\' => self.out.extend_from_slice(&[b'\\', char as u8]),
                // Names hold none; should one, the line stays a line.
                _ if char.is_control() => self.out.push(b'?'),
                _ => self.out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        self.out.push(b'"');
    }
}

fn seconds(time: Duration) -> impl std::fmt::Display {
    format!("{}.{:06}", time.as_secs(), time.subsec_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped_and_times_have_six_decimals() {
        let mut out = Vec::new();
        let mut object = Object { out: &mut out, empty: true };
        object.text("a", Some("x\"y\\z\u{1}ä"));
        object.text("b", None);
        object.bare("c", seconds(Duration::from_micros(1_000_020)));
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"a\":\"x\\\"y\\\\z?ä\",\"b\":null,\"c\":1.000020"
        );
    }
}
