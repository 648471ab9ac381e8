//! Pure: what one shard counts about the measured window. One per shard; merged by `report` at
//! the end.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weir_core::time::clock::Mono;

use crate::hist::Hist;
use crate::limits::{MAX_IDS, MAX_MEMBERS, MAX_SLICES, MEMBER_HISTS};
use crate::noted::{Name, ServerTiming};

/// How a request can fail. All but the last two leave it without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum ErrorClass {
    /// No connection: refused, unreachable, timed out, or out of client ports.
    Connect = 0,
    /// No whole answer within the time limit.
    Timeout = 1,
    /// Reset or closed before the answer was whole.
    Reset = 2,
    /// What came is not a valid response.
    BadResponse = 3,
    /// No TLS connection: the handshake failed.
    Tls = 4,
    /// A whole answer with a status other than 2xx, or than those expected.
    Status = 5,
    /// A whole answer without the text that was expected in it, or with other bytes than were sent.
    Check = 6,
}

impl ErrorClass {
    /// How many there are.
    pub const COUNT: usize = 7;
    /// All of them, in the order of their numbers.
    pub const ALL: [ErrorClass; Self::COUNT] = [
        Self::Connect,
        Self::Timeout,
        Self::Reset,
        Self::BadResponse,
        Self::Tls,
        Self::Status,
        Self::Check,
    ];

    /// There is an answer.
    pub const fn is_answered(self) -> bool {
        matches!(self, ErrorClass::Status | ErrorClass::Check)
    }

    /// The key in JSON and in `--fail-if`.
    pub const fn key(self) -> &'static str {
        match self {
            ErrorClass::Connect => "connect",
            ErrorClass::Timeout => "timeout",
            ErrorClass::Reset => "reset",
            ErrorClass::BadResponse => "bad_response",
            ErrorClass::Tls => "tls",
            ErrorClass::Status => "status",
            ErrorClass::Check => "check",
        }
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}

/// Numbers of errors by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errors {
    /// All classes.
    pub total: u64,
    /// [`ErrorClass::Connect`].
    pub connect: u64,
    /// [`ErrorClass::Timeout`].
    pub timeout: u64,
    /// [`ErrorClass::Reset`].
    pub reset: u64,
    /// [`ErrorClass::BadResponse`].
    pub bad_response: u64,
    /// [`ErrorClass::Tls`].
    #[serde(default)]
    pub tls: u64,
    /// [`ErrorClass::Status`].
    pub status: u64,
    /// [`ErrorClass::Check`].
    #[serde(default)]
    pub check: u64,
}

impl Errors {
    /// The number of one class.
    pub fn of(&self, class: ErrorClass) -> u64 {
        match class {
            ErrorClass::Connect => self.connect,
            ErrorClass::Timeout => self.timeout,
            ErrorClass::Reset => self.reset,
            ErrorClass::BadResponse => self.bad_response,
            ErrorClass::Tls => self.tls,
            ErrorClass::Status => self.status,
            ErrorClass::Check => self.check,
        }
    }

    /// Requests that got no answer.
    pub fn unanswered(&self) -> u64 {
        self.total - self.status - self.check
    }
}

impl From<[u64; ErrorClass::COUNT]> for Errors {
    fn from(n: [u64; ErrorClass::COUNT]) -> Errors {
        let [connect, timeout, reset, bad_response, tls, status, check] = n;
        Errors { total: n.iter().sum(), connect, timeout, reset, bad_response, tls, status, check }
    }
}

/// A whole answer, measured.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// What is wrong with it.
    pub(crate) fault: Option<ErrorClass>,
    /// From here its latency counts: when it was due, or begun.
    pub(crate) start: Mono,
    /// When the request was really begun.
    pub(crate) begun: Mono,
    /// When there was a connection to send it on.
    pub(crate) ready: Mono,
    /// When all of it was handed to the kernel.
    pub(crate) handed: Mono,
    /// First byte of the response.
    pub(crate) first_byte: Mono,
    /// Last byte of the response.
    pub(crate) done: Mono,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Who answered, where the answer tells.
    pub(crate) member: Name,
    /// Another one than the slot's answer before.
    pub(crate) moved: bool,
    /// One that was sent later came back earlier (datagrams).
    pub(crate) overtaken: bool,
    /// What the balancer told.
    pub(crate) timing: ServerTiming,
    /// The number in its X-Request-ID, from 1; 0 = it had none.
    pub(crate) id: u64,
}

/// What came of datagrams besides answers and errors, of those that were sent in the measured
/// window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Datagrams {
    /// Sent in the measured window.
    pub sent: u64,
    /// Came back after one that was sent later.
    pub reordered: u64,
    /// Came back more than once.
    pub doubled: u64,
    /// Came back after the time limit, when they counted as lost already.
    pub late: u64,
    /// Arrived in the window and were none of this run.
    pub strange: u64,
    /// Dropped by our own kernel instead of sent; counted as lost.
    pub not_sent: u64,
    /// Came, and were dropped by our own kernel because our receive buffer was full; counted as
    /// lost.
    #[serde(default)]
    pub missed: u64,
}

/// Length of a [`Slice`].
pub const SLICE: Duration = Duration::from_millis(10);

/// What ended in ten milliseconds of the measured window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// Right answers.
    pub good: u32,
    /// Requests without one.
    pub bad: u32,
    /// loadgen itself did not run in it, or not in time: a request went out that was due before it.
    pub stalled: bool,
}

/// Answers of one member.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) name: Name,
    pub(crate) answers: u64,
    /// Sum of their total latencies.
    pub(crate) time: Duration,
    /// Their total latencies; `None` beyond the first [`MEMBER_HISTS`] members, of which each shard
    /// has to have met it early enough.
    pub(crate) spread: Option<Box<Hist>>,
}

/// The measured window of one shard.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// TCP handshakes.
    pub(crate) connect: Hist,
    /// TLS handshakes.
    pub(crate) tls: Hist,
    /// From the ready connection until the request was handed to the kernel.
    pub(crate) handed: Hist,
    /// From the start of the request to the first byte of its answer.
    pub(crate) first_byte: Hist,
    /// From the first byte of the answer to the last.
    pub(crate) body: Hist,
    /// From the start to the last byte.
    pub(crate) total: Hist,
    /// From the sending to the last byte: uncorrected, at a constant rate only.
    pub(crate) service: Hist,
    /// How late loadgen itself sent a request for which a connection was free, at a constant rate
    /// only.
    pub(crate) lateness: Hist,
    /// The balancer's way to a connection to the member, by Server-Timing.
    pub(crate) member_connect: Hist,
    /// The same until the head of the member's answer.
    pub(crate) member_header: Hist,
    pub(crate) members: Vec<Tally>,
    /// Answers by another member than the slot's answer before.
    pub(crate) moved: u64,
    /// TLS sessions that were resumed.
    pub(crate) resumed: u64,
    /// Connections by version of TLS and cipher suite; few.
    pub(crate) agreed: Vec<((&'static str, &'static str), u64)>,
    pub(crate) datagrams: Datagrams,
    /// Beginning of the first slice; `None` = there are none.
    pub(crate) sliced_from: Option<Mono>,
    pub(crate) slices: Vec<Slice>,
    /// Connects that found no free port, and no free descriptor.
    pub(crate) out_of_ports: u64,
    pub(crate) out_of_files: u64,
    /// SYNs of connections that were opened at last which were sent again, in the warm-up, too.
    pub(crate) syns_again: u64,
    /// Number and total latency of requests that carried an id; a ring.
    pub(crate) ids: Ring,
    pub(crate) answers: u64,
    pub(crate) errors: [u64; ErrorClass::COUNT],
    /// The first cause of each class, in words.
    pub(crate) causes: [Option<String>; ErrorClass::COUNT],
    /// Answers by status, index status − 100.
    pub(crate) statuses: Vec<u64>,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Connections opened inside the window.
    pub(crate) connections: u64,
    /// End of the last request that counted.
    pub(crate) last: Mono,
}

const STATUSES: usize = 500;

/// The last [`MAX_IDS`] requests with an id, and how long each took.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    pub(crate) entries: Vec<(u64, Duration)>,
    next: usize,
}

impl Ring {
    fn push(&mut self, id: u64, took: Duration) {
        if self.entries.len() < MAX_IDS {
            self.entries.push((id, took));
        } else {
            self.entries[self.next] = (id, took);
            self.next = (self.next + 1) % MAX_IDS;
        }
    }

    fn merge(&mut self, other: Ring) {
        other.entries.into_iter().for_each(|(id, took)| self.push(id, took));
    }
}

impl Recorder {
    pub(crate) fn new() -> Result<Recorder, hdrhistogram::CreationError> {
        Ok(Recorder {
            connect: Hist::new()?,
            tls: Hist::new()?,
            handed: Hist::new()?,
            first_byte: Hist::new()?,
            body: Hist::new()?,
            total: Hist::new()?,
            service: Hist::new()?,
            lateness: Hist::new()?,
            member_connect: Hist::new()?,
            member_header: Hist::new()?,
            members: Vec::new(),
            moved: 0,
            resumed: 0,
            agreed: Vec::new(),
            datagrams: Datagrams::default(),
            sliced_from: None,
            slices: Vec::new(),
            out_of_ports: 0,
            syns_again: 0,
            out_of_files: 0,
            ids: Ring::default(),
            answers: 0,
            errors: [0; ErrorClass::COUNT],
            causes: Default::default(),
            statuses: vec![0; STATUSES],
            sent: 0,
            received: 0,
            connections: 0,
            last: Mono::default(),
        })
    }

    pub(crate) fn answer(&mut self, answer: &Answer, constant_rate: bool) {
        self.answers += 1;
        let total = answer.done.since(answer.start);
        self.handed.record(answer.handed.since(answer.ready));
        self.first_byte.record(answer.first_byte.since(answer.start));
        self.body.record(answer.done.since(answer.first_byte));
        self.total.record(total);
        if let Some(spread) = self.tally(answer.member, 1, total) {
            spread.iter_mut().for_each(|spread| spread.record(total));
        }
        self.moved += u64::from(answer.moved);
        self.datagrams.reordered += u64::from(answer.overtaken);
        answer.timing.connect.into_iter().for_each(|took| self.member_connect.record(took));
        answer.timing.header.into_iter().for_each(|took| self.member_header.record(took));
        if answer.id > 0 {
            self.ids.push(answer.id, total);
        }
        if constant_rate {
            self.service.record(answer.done.since(answer.begun));
        }
        if let Some(n) = self.statuses.get_mut(usize::from(answer.status).wrapping_sub(100)) {
            *n += 1;
        }
        self.sent += answer.sent;
        self.received += answer.received;
        self.last = self.last.max(answer.done);
        if answer.fault.is_none() {
            self.slice(answer.done, true);
        }
        if let Some(fault) = answer.fault {
            self.error(fault, answer.done);
            self.cause(fault, || match fault {
                ErrorClass::Status => format!("status {}", answer.status),
                _ => "the answer is not the one that was expected".to_string(),
            });
        }
    }

    /// Counts answers of a member; of nobody when the name is empty.
    fn tally(
        &mut self,
        name: Name,
        answers: u64,
        time: Duration,
    ) -> Option<&mut Option<Box<Hist>>> {
        if name.is_empty() {
            return None;
        }
        let full = self.members.len() >= MAX_MEMBERS;
        let place = self.members.iter().position(|tally| tally.name == name);
        let place = place.unwrap_or(if full { MAX_MEMBERS - 1 } else { self.members.len() });
        if place == self.members.len() {
            let spread = (place < MEMBER_HISTS).then(|| Hist::new().ok().map(Box::new)).flatten();
            self.members.push(Tally { name, answers: 0, time: Duration::ZERO, spread });
        }
        let tally = &mut self.members[place];
        tally.answers += answers;
        tally.time += time;
        Some(&mut tally.spread)
    }

    /// Counts connections by what their handshakes agreed on.
    pub(crate) fn agreed(&mut self, what: (&'static str, &'static str), connections: u64) {
        match self.agreed.iter_mut().find(|(known, _)| *known == what) {
            Some((_, count)) => *count += connections,
            None => self.agreed.push((what, connections)),
        }
    }

    pub(crate) fn error(&mut self, class: ErrorClass, at: Mono) {
        self.errors[class as usize] += 1;
        self.slice(at, false);
        self.last = self.last.max(at);
    }

    fn slice(&mut self, at: Mono, good: bool) {
        let Some(slice) = self.sliced_from.and_then(|from| self.slice_at(from, at)) else { return };
        let count = if good { &mut slice.good } else { &mut slice.bad };
        *count = count.saturating_add(1);
    }

    fn slice_at(&mut self, from: Mono, at: Mono) -> Option<&mut Slice> {
        let place = (at.since(from).as_nanos() / SLICE.as_nanos()) as usize;
        if place >= MAX_SLICES {
            return None;
        }
        if place >= self.slices.len() {
            self.slices.resize(place + 1, Slice::default());
        }
        self.slices.get_mut(place)
    }

    /// A request goes out `now` although it was `due` before, and nothing else was in its way.
    pub(crate) fn sent_late(&mut self, due: Mono, now: Mono) {
        self.lateness.record(now.since(due));
        let Some(from) = self.sliced_from else { return };
        let mut at = due.max(from);
        while at.plus(SLICE) <= now {
            let Some(slice) = self.slice_at(from, at) else { return };
            slice.stalled = true;
            at = at.plus(SLICE);
        }
    }

    /// Notes what the kernel had none of when a request failed.
    pub(crate) fn shortage(&mut self, errno: Option<i32>) {
        match errno {
            Some(libc::EADDRNOTAVAIL) => self.out_of_ports += 1,
            Some(libc::EMFILE | libc::ENFILE) => self.out_of_files += 1,
            _ => {}
        }
    }

    /// Keeps the first cause of a class; also of errors that don't count.
    pub(crate) fn cause(&mut self, class: ErrorClass, cause: impl FnOnce() -> String) {
        self.causes[class as usize].get_or_insert_with(cause);
    }

    pub(crate) fn merge(&mut self, other: Recorder) {
        self.connect.merge(&other.connect);
        self.tls.merge(&other.tls);
        self.handed.merge(&other.handed);
        self.body.merge(&other.body);
        self.member_connect.merge(&other.member_connect);
        self.member_header.merge(&other.member_header);
        for tally in other.members {
            let Some(spread) = self.tally(tally.name, tally.answers, tally.time) else { continue };
            match (&mut *spread, tally.spread) {
                (Some(mine), Some(theirs)) => mine.merge(&theirs),
                // A part of the answers would be shown as all.
                _ => *spread = None,
            }
        }
        self.moved += other.moved;
        self.resumed += other.resumed;
        other.agreed.into_iter().for_each(|(what, connections)| self.agreed(what, connections));
        self.ids.merge(other.ids);
        self.out_of_ports += other.out_of_ports;
        self.syns_again += other.syns_again;
        self.sliced_from = self.sliced_from.or(other.sliced_from);
        if self.slices.len() < other.slices.len() {
            self.slices.resize(other.slices.len(), Slice::default());
        }
        for (mine, theirs) in self.slices.iter_mut().zip(other.slices) {
            mine.good = mine.good.saturating_add(theirs.good);
            mine.bad = mine.bad.saturating_add(theirs.bad);
            mine.stalled |= theirs.stalled;
        }
        self.out_of_files += other.out_of_files;
        let (mine, theirs) = (&mut self.datagrams, other.datagrams);
        mine.sent += theirs.sent;
        mine.reordered += theirs.reordered;
        mine.doubled += theirs.doubled;
        mine.late += theirs.late;
        mine.strange += theirs.strange;
        mine.not_sent += theirs.not_sent;
        mine.missed += theirs.missed;
        self.first_byte.merge(&other.first_byte);
        self.total.merge(&other.total);
        self.service.merge(&other.service);
        self.lateness.merge(&other.lateness);
        self.answers += other.answers;
        for (mine, theirs) in self.errors.iter_mut().zip(other.errors) {
            *mine += theirs;
        }
        for (mine, theirs) in self.causes.iter_mut().zip(other.causes) {
            *mine = mine.take().or(theirs);
        }
        for (mine, theirs) in self.statuses.iter_mut().zip(other.statuses) {
            *mine += theirs;
        }
        self.sent += other.sent;
        self.received += other.received;
        self.connections += other.connections;
        self.last = self.last.max(other.last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 10 ms slices from 1 s on; a request of 1.005 s leaves at 1.031 s.
    #[test]
    fn who_sends_late_marks_what_was_slept_through() {
        let at = |ms: u64| Mono::from_nanos(ms * 1_000_000);
        let mut recorder = Recorder::new().unwrap();
        recorder.sent_late(at(1_005), at(1_031));
        assert!(recorder.slices.is_empty(), "nobody asked for slices");
        recorder.sliced_from = Some(at(1_000));
        // What is late by less than a slice is in its latency, and no stall.
        recorder.sent_late(at(1_005), at(1_014));
        assert!(recorder.slices.is_empty());
        // Due before the window.
        recorder.sent_late(at(990), at(1_011));
        recorder.sent_late(at(1_015), at(1_041));
        recorder.error(ErrorClass::Reset, at(1_050));
        let mut other = Recorder::new().unwrap();
        other.sliced_from = recorder.sliced_from;
        other.sent_late(at(1_060), at(1_075));
        recorder.merge(other);
        let stalled: Vec<bool> = recorder.slices.iter().map(|slice| slice.stalled).collect();
        assert_eq!(stalled, [true, true, true, false, false, false, true]);
        assert_eq!(recorder.slices[5].bad, 1);
        assert_eq!(recorder.lateness.summary().unwrap().count, 5);
    }

    fn answer(status: u16, millis: u64) -> Answer {
        let at = |ms: u64| Mono::from_nanos(ms * 1_000_000);
        Answer {
            status,
            fault: (status != 200).then_some(ErrorClass::Status),
            member: Name::new(b"m"),
            start: at(10),
            begun: at(11),
            first_byte: at(10 + millis),
            done: at(12 + millis),
            sent: 5,
            received: 7,
            ..Answer::default()
        }
    }

    #[test]
    fn classes_and_keys_agree() {
        let errors = Errors::from([1, 2, 3, 4, 5, 6, 7]);
        for (n, class) in ErrorClass::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, n);
            assert_eq!(errors.of(class), n as u64 + 1);
            let json = serde_json::to_value(errors).unwrap();
            assert_eq!(json[class.key()], n as u64 + 1);
        }
        assert_eq!((errors.total, errors.unanswered()), (28, 15));
    }

    #[test]
    fn shards_add_up() {
        let (mut a, mut b) = (Recorder::new().unwrap(), Recorder::new().unwrap());
        a.answer(&answer(200, 1), false);
        b.answer(&answer(404, 3), true);
        b.error(ErrorClass::Reset, Mono::from_nanos(1 << 40));
        b.cause(ErrorClass::Reset, || "gone".to_string());
        a.merge(b);
        assert_eq!((a.answers, a.sent, a.received), (2, 10, 14));
        assert_eq!(Errors::from(a.errors).total, 2);
        assert_eq!((a.statuses[100], a.statuses[304]), (1, 1));
        assert_eq!(a.causes[ErrorClass::Status as usize].as_deref(), Some("status 404"));
        assert_eq!(a.causes[ErrorClass::Reset as usize].as_deref(), Some("gone"));
        assert_eq!((a.total.count(), a.service.count()), (2, 1));
        assert_eq!(a.last, Mono::from_nanos(1 << 40));
        assert_eq!(a.total.quantile(1.0).as_millis(), 5);
        assert_eq!((a.members.len(), a.members[0].answers), (1, 2));
        assert_eq!(a.members[0].time.as_millis(), 8);
    }
}
