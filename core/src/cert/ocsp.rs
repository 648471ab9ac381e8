//! OCSP responses (RFC 6960): is a file's response about this certificate, and until when does it
//! hold?

use aws_lc_rs::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};

use super::chain::{Facts, facts, is_signed};
use super::der::{self, element, signed};

/// What a response says about a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub status: Status,
    /// Seconds since 1970; `None` = newer ones may be had at any time.
    pub until: Option<i64>,
}

/// The status of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Good,
    Revoked,
    Unknown,
}

const SEQUENCE: u8 = 0x30;
const TIME: u8 = 0x18;
/// A constructed element with the tag `[0]`.
const FIRST: u8 = 0xa0;
/// id-sha1 and id-sha256, as they stand in an AlgorithmIdentifier.
const SHA1_ID: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
const SHA256_ID: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];

/// What `response` says about `leaf`. With its issuer's facts the signature is checked.
///
/// # Errors
/// What is wrong with it, in words that go on from the file's name.
pub(super) fn answer(
    response: &[u8],
    leaf: &Facts,
    issuer: Option<&Facts>,
) -> Result<Answer, &'static str> {
    let body = basic(response).ok_or("is no OCSP response, or one that reports a failure")?;
    if let Some(issuer) = issuer
        && !is_authentic(body, issuer)
    {
        return Err("is not signed by the issuer of the certificate");
    }
    single(body, leaf).ok_or("is not about this certificate")
}

/// The BasicOCSPResponse inside a successful OCSPResponse.
fn basic(response: &[u8]) -> Option<&[u8]> {
    let inside = tagged(response, SEQUENCE)?.0;
    let (_, status, rest) = element(inside)?;
    if status != [0] {
        return None;
    }
    let bytes = tagged(rest, FIRST)?.0;
    let (_kind, rest) = tagged(tagged(bytes, SEQUENCE)?.0, 0x06)?;
    Some(tagged(rest, 0x04)?.0)
}

/// Did the issuer sign it, or somebody whom the issuer certified for that?
fn is_authentic(body: &[u8], issuer: &Facts) -> bool {
    let Some(response) = signed(body) else { return false };
    let by = |spki: &[u8]| is_signed(&response, spki).unwrap_or(true);
    if by(&issuer.spki) {
        return true;
    }
    let delegate = delegate(body);
    delegate.is_some_and(|certificate| {
        let certified = signed(certificate).and_then(|one| is_signed(&one, &issuer.spki));
        let parsed = facts(certificate);
        certified == Some(true) && parsed.is_some_and(|facts| facts.for_ocsp && by(&facts.spki))
    })
}

/// The first certificate that a response brings along.
fn delegate(body: &[u8]) -> Option<&[u8]> {
    let (_, inside, _) = element(body)?;
    let rest = (0..3).try_fold(inside, |rest, _| element(rest).map(|(_, _, rest)| rest))?;
    let list = tagged(tagged(rest, FIRST)?.0, SEQUENCE)?.0;
    let (_, _, rest) = element(list)?;
    list.get(..list.len() - rest.len())
}

/// The answer about one certificate.
fn single(body: &[u8], leaf: &Facts) -> Option<Answer> {
    let mut rest = signed(body).and_then(|one| tagged(one.body, SEQUENCE))?.0;
    // Version and responder, of which the former may be absent; then the time of making.
    loop {
        let (tag, _, after) = element(rest)?;
        rest = after;
        if tag == TIME {
            break;
        }
    }
    let mut list = tagged(rest, SEQUENCE)?.0;
    while !list.is_empty() {
        let (one, after) = tagged(list, SEQUENCE)?;
        list = after;
        let (id, rest) = tagged(one, SEQUENCE)?;
        if is_about(id, leaf)? {
            return status(rest);
        }
    }
    None
}

/// Does a CertID name this certificate: by its serial number and its issuer's name?
fn is_about(id: &[u8], leaf: &Facts) -> Option<bool> {
    let (algorithm, rest) = tagged(id, SEQUENCE)?;
    let (name, rest) = tagged(rest, 0x04)?;
    let (_key, rest) = tagged(rest, 0x04)?;
    let (serial, _) = tagged(rest, 0x02)?;
    let algorithm: &'static Algorithm = match tagged(algorithm, 0x06)?.0 {
        SHA1_ID => &SHA1_FOR_LEGACY_USE_ONLY,
        SHA256_ID => &SHA256,
        _ => return Some(false),
    };
    let same = digest(algorithm, &leaf.issuer).as_ref() == name;
    Some(same && der::hex(serial) == leaf.serial)
}

fn status(rest: &[u8]) -> Option<Answer> {
    let (tag, _, rest) = element(rest)?;
    let status = match tag & 0x1f {
        0 => Status::Good,
        1 => Status::Revoked,
        _ => Status::Unknown,
    };
    let (_this, rest) = tagged(rest, TIME)?;
    let until = match element(rest) {
        Some((FIRST, inside, _)) => Some(seconds(tagged(inside, TIME)?.0)?),
        _ => None,
    };
    Some(Answer { status, until })
}

/// The content of an element with this tag, and what follows.
fn tagged(der: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    element(der).filter(|(tag, ..)| *tag == wanted).map(|(_, content, rest)| (content, rest))
}

/// `YYYYMMDDHHMMSSZ` in seconds since 1970.
fn seconds(time: &[u8]) -> Option<i64> {
    let digits = time.strip_suffix(b"Z").filter(|digits| digits.len() == 14)?;
    let number = |from: usize, to: usize| -> Option<i64> {
        std::str::from_utf8(digits.get(from..to)?).ok()?.parse::<u32>().ok().map(i64::from)
    };
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years that begin in March: the leap day is their last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    let clock = number(8, 10)? * 3_600 + number(10, 12)? * 60 + number(12, 14)?;
    Some((days - 719_468) * 86_400 + clock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(seconds(b"19700101000000Z"), Some(0));
        assert_eq!(seconds(b"20000229120000Z"), Some(951_825_600));
        assert_eq!(seconds(b"20261126122401Z"), Some(1_795_695_841));
        for bad in [&b"19700101000000"[..], b"1970010100000Z", b"19701301000000Z", b"", b"Z"] {
            assert_eq!(seconds(bad), None);
        }
    }

    #[test]
    fn garbage_is_no_response() {
        for bad in [&[][..], &[0x30, 0x03, 0x0a, 1, 6], &[0x30, 0x03, 0x0a, 1, 0], b"-----BEGIN"] {
            assert_eq!(basic(bad), None);
        }
    }
}
