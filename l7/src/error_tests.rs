//! Table 2-1 as a test: every error with its status, who is to blame, whether it may be tried
//! again, and the row that says so. An error that is missing here does not compile.

use super::Retry::{Always, Never, Unanswered, Unbound};
use super::Side::{Client, Internal, Member};
use super::*;

/// Writes the table twice: as a list, and as a match that the compiler checks to be whole.
macro_rules! table {
    ($($error:pat, $sample:expr, $side:ident, $status:literal, $retry:ident, $row:literal;)*) => {
        const TABLE: &[(Error, Side, u16, Retry, &str)] =
            &[$(($sample, $side, $status, $retry, $row)),*];

        const fn row(error: Error) -> &'static str {
            match error { $($error => $row,)* }
        }
    };
}

const REFUSED: ErrorKind = ErrorKind::ConnectionRefused;
const RESET: ErrorKind = ErrorKind::ConnectionReset;

table! {
    Error::Syntax, Error::Syntax, Client, 400, Never, "R2.3-400a";
    Error::LineEnd, Error::LineEnd, Client, 400, Never, "R2.3-400a";
    Error::Version, Error::Version, Client, 400, Never, "R2.3-400a";
    Error::Target, Error::Target, Client, 400, Never, "R2.3-400a";
    Error::Host, Error::Host, Client, 400, Never, "R2.3-400a";
    Error::Length, Error::Length, Client, 400, Never, "R2.3-400a";
    Error::LengthAndCoding, Error::LengthAndCoding, Client, 400, Never, "R2.3-400a";
    Error::Coding, Error::Coding, Client, 400, Never, "R2.3-400a";
    Error::Expectation, Error::Expectation, Client, 400, Never, "R2.3-400a";
    Error::Chunk, Error::Chunk, Client, 400, Never, "R2.3-400a";
    Error::PlainHttp, Error::PlainHttp, Client, 400, Never, "R2.3-400b";
    Error::BodyCut, Error::BodyCut, Client, 499, Never, "R14.3-2";
    Error::HeadTooLarge, Error::HeadTooLarge, Client, 400, Never, "R2.3-400c";
    Error::TooManyFields, Error::TooManyFields, Client, 400, Never, "R2.3-400c";
    Error::HeadTimeout, Error::HeadTimeout, Client, 408, Never, "R2.3-408";
    Error::BodyTimeout, Error::BodyTimeout, Client, 408, Never, "R2.3-408";
    Error::BodyTooLarge, Error::BodyTooLarge, Client, 413, Never, "R2.3-413";
    Error::UriTooLong, Error::UriTooLong, Client, 414, Never, "R2.3-414";
    Error::ClientGone, Error::ClientGone, Client, 499, Never, "R2.3-499";
    Error::ClientStalled, Error::ClientStalled, Client, 499, Never, "R2.3-499";
    Error::Connect, Error::Connect, Client, 501, Never, "R2.3-501a";
    Error::UnknownCoding, Error::UnknownCoding, Client, 501, Never, "R2.3-501b";
    Error::NoPool, Error::NoPool, Internal, 404, Never, "R2.3-404";
    Error::NoMember, Error::NoMember, Internal, 502, Never, "C18";
    Error::NoUsableMember, Error::NoUsableMember, Internal, 503, Never, "C18, R2.3-503";
    Error::ConnectFailed(_), Error::ConnectFailed(REFUSED), Member, 502, Always,
        "R2.3-502a, R2.3-502d";
    Error::Shortage(_), Error::Shortage(Shortage::Ports), Internal, 502, Always, "R2.3-502d";
    Error::ConnectTimeout, Error::ConnectTimeout, Member, 504, Always, "R2.3-504a, R2.3-504c";
    Error::MemberTls(_), Error::MemberTls(Failure::PlainHttp), Member, 502, Always, "R12.3-6";
    Error::MemberReset(_), Error::MemberReset(RESET), Member, 502, Unanswered, "R2.3-502b";
    Error::MemberRefused, Error::MemberRefused, Member, 502, Always, "R2.3-502b";
    Error::MemberLeft, Error::MemberLeft, Member, 502, Always, "R2.3-502b";
    Error::MemberClosed, Error::MemberClosed, Member, 502, Unanswered, "R2.3-502b";
    Error::BadAnswer, Error::BadAnswer, Member, 502, Never, "R2.3-502c";
    Error::AnswerTimeout, Error::AnswerTimeout, Member, 504, Unbound, "R2.3-504b";
}

#[test]
fn table_2_1() {
    for &(error, side, status, retry, wanted) in TABLE {
        let verdict = error.verdict();
        assert_eq!((verdict.side, verdict.status, verdict.retry), (side, status, retry), "{error}");
        assert_eq!(row(error), wanted, "{error}");
        assert!(!verdict.reason.is_empty() && verdict.reason.is_ascii(), "{error}");
    }
}

/// Requirements 18: the codes that Weir itself may produce, each by some error; 401, 403 and 500
/// come from members only.
#[test]
fn own_codes_only() {
    let mut codes: Vec<u16> = TABLE.iter().map(|&(_, _, status, ..)| status).collect();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes, [400, 404, 408, 413, 414, 499, 501, 502, 503, 504]);
    for &(error, ..) in TABLE {
        let verdict = error.verdict();
        // What this host lacks towards one member it may have towards another.
        let elsewhere = verdict.side == Member || matches!(error, Error::Shortage(_));
        assert!(elsewhere || verdict.retry == Never, "{error}");
    }
}

/// What counts against a member in `outlier_detection`: what it, or the way to it, failed. Not what
/// this host lacks, not what clients do, not how members of HTTP/2 end connections.
#[test]
fn members_are_blamed_for_their_own_failures() {
    for &(error, side, ..) in TABLE {
        let blamed = side == Member && !matches!(error, Error::MemberRefused | Error::MemberLeft);
        assert_eq!(error.is_about_member(), blamed, "{error}");
    }
    for own in [ErrorKind::AddrNotAvailable, ErrorKind::OutOfMemory, ErrorKind::PermissionDenied] {
        assert!(!Error::ConnectFailed(own).is_about_member(), "{own}");
    }
    // EMFILE has no kind of its own.
    let no_descriptor = std::io::Error::from_raw_os_error(24).kind();
    assert!(!Error::ConnectFailed(no_descriptor).is_about_member());
}
