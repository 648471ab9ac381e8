//! Pure: what one shard counts about the measured window. One per shard; merged by `report` at
//! the end.

use std::fmt;

use serde::{Deserialize, Serialize};
use weir_core::time::clock::Mono;

use crate::hist::Hist;

/// How a request can fail. The first four leave it without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum ErrorClass {
    /// No connection: refused, unreachable, timed out, or out of client ports.
    Connect = 0,
    /// No whole answer within the time limit.
    Timeout = 1,
    /// Reset or closed before the answer was whole.
    Reset = 2,
    /// What came is not a valid HTTP/1 response.
    BadResponse = 3,
    /// A whole answer with a status other than 2xx.
    Status = 4,
}

impl ErrorClass {
    /// How many there are.
    pub const COUNT: usize = 5;
    /// All of them, in the order of their numbers.
    pub const ALL: [ErrorClass; Self::COUNT] =
        [Self::Connect, Self::Timeout, Self::Reset, Self::BadResponse, Self::Status];

    /// The key in JSON and in `--fail-if`.
    pub const fn key(self) -> &'static str {
        match self {
            ErrorClass::Connect => "connect",
            ErrorClass::Timeout => "timeout",
            ErrorClass::Reset => "reset",
            ErrorClass::BadResponse => "bad_response",
            ErrorClass::Status => "status",
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
    /// [`ErrorClass::Status`].
    pub status: u64,
}

impl Errors {
    /// The number of one class.
    pub fn of(&self, class: ErrorClass) -> u64 {
        match class {
            ErrorClass::Connect => self.connect,
            ErrorClass::Timeout => self.timeout,
            ErrorClass::Reset => self.reset,
            ErrorClass::BadResponse => self.bad_response,
            ErrorClass::Status => self.status,
        }
    }

    /// Requests that got no answer.
    pub fn unanswered(&self) -> u64 {
        self.total - self.status
    }
}

impl From<[u64; ErrorClass::COUNT]> for Errors {
    fn from(n: [u64; ErrorClass::COUNT]) -> Errors {
        let [connect, timeout, reset, bad_response, status] = n;
        Errors { total: n.iter().sum(), connect, timeout, reset, bad_response, status }
    }
}

/// A whole answer, measured.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// From here its latency counts: when it was due, or begun.
    pub(crate) start: Mono,
    /// When the request was really begun.
    pub(crate) begun: Mono,
    /// First byte of the response.
    pub(crate) first_byte: Mono,
    /// Last byte of the response.
    pub(crate) done: Mono,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// The measured window of one shard.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// TCP handshakes.
    pub(crate) connect: Hist,
    /// From the start of the request to the first byte of its answer.
    pub(crate) first_byte: Hist,
    /// From the start to the last byte.
    pub(crate) total: Hist,
    /// From the sending to the last byte: uncorrected, at a constant rate only.
    pub(crate) service: Hist,
    /// How late loadgen itself sent a request for which a connection was free, at a constant rate
    /// only.
    pub(crate) lateness: Hist,
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

impl Recorder {
    pub(crate) fn new() -> Result<Recorder, hdrhistogram::CreationError> {
        Ok(Recorder {
            connect: Hist::new()?,
            first_byte: Hist::new()?,
            total: Hist::new()?,
            service: Hist::new()?,
            lateness: Hist::new()?,
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
        self.first_byte.record(answer.first_byte.since(answer.start));
        self.total.record(answer.done.since(answer.start));
        if constant_rate {
            self.service.record(answer.done.since(answer.begun));
        }
        if let Some(n) = self.statuses.get_mut(usize::from(answer.status).wrapping_sub(100)) {
            *n += 1;
        }
        self.sent += answer.sent;
        self.received += answer.received;
        self.last = self.last.max(answer.done);
        if !(200..300).contains(&answer.status) {
            self.error(ErrorClass::Status, answer.done);
            self.cause(ErrorClass::Status, || format!("status {}", answer.status));
        }
    }

    pub(crate) fn error(&mut self, class: ErrorClass, at: Mono) {
        self.errors[class as usize] += 1;
        self.last = self.last.max(at);
    }

    /// Keeps the first cause of a class; also of errors that don't count.
    pub(crate) fn cause(&mut self, class: ErrorClass, cause: impl FnOnce() -> String) {
        self.causes[class as usize].get_or_insert_with(cause);
    }

    pub(crate) fn merge(&mut self, other: Recorder) {
        self.connect.merge(&other.connect);
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

    fn answer(status: u16, millis: u64) -> Answer {
        let at = |ms: u64| Mono::from_nanos(ms * 1_000_000);
        Answer {
            status,
            start: at(10),
            begun: at(11),
            first_byte: at(10 + millis),
            done: at(12 + millis),
            sent: 5,
            received: 7,
        }
    }

    #[test]
    fn classes_and_keys_agree() {
        let errors = Errors::from([1, 2, 3, 4, 5]);
        for (n, class) in ErrorClass::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, n);
            assert_eq!(errors.of(class), n as u64 + 1);
            let json = serde_json::to_value(errors).unwrap();
            assert_eq!(json[class.key()], n as u64 + 1);
        }
        assert_eq!((errors.total, errors.unanswered()), (15, 10));
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
    }
}
