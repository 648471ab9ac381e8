//! Pure: what a client's certificate says, as the text that members get in headers. The forms are
//! those of nginx's `$ssl_client_*`, so that programs behind either read the same; the fingerprint
//! is SHA-256. Everything is printable ASCII, whatever the certificate holds. Knows no header:
//! `tls::Facts` makes one a connection, l7 writes it.

use aws_lc_rs::digest::{SHA256, digest};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use super::der::{element, hex};

/// A client's certificate as text. What can't be read of it is empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PeerCertificate {
    /// All of it: PEM, its bytes percent-encoded where they are not unreserved (RFC 3986, 2.3).
    pub pem: Box<str>,
    /// The distinguished name (RFC 2253), as `openssl x509 -nameopt RFC2253` has it.
    pub subject: Box<str>,
    /// The issuer's, likewise.
    pub issuer: Box<str>,
    /// Hexadecimal in capitals, whole bytes.
    pub serial: Box<str>,
    /// SHA-256 of its DER form, hexadecimal in small letters.
    pub fingerprint: Box<str>,
    /// Until when it is valid: `Nov  6 08:49:37 2027 GMT`.
    pub end: Box<str>,
}

impl PeerCertificate {
    /// What this certificate, which the handshake has verified, says.
    #[must_use]
    pub fn read(der: &[u8]) -> PeerCertificate {
        let (pem, fingerprint) = (escaped_pem(der).into(), hex(digest(&SHA256, der).as_ref()));
        let told = PeerCertificate { pem, fingerprint: fingerprint.into(), ..Self::default() };
        let Ok((_, parsed)) = X509Certificate::from_der(der) else { return told };
        PeerCertificate {
            subject: name(parsed.subject().as_raw()).unwrap_or_default().into(),
            issuer: name(parsed.issuer().as_raw()).unwrap_or_default().into(),
            serial: number(parsed.raw_serial()).into(),
            end: time(parsed.validity().not_after).into(),
            ..told
        }
    }
}

/// Base64 characters of a line of PEM.
const LINE: usize = 64;

fn escaped_pem(der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(der.len() * 3 / 2 + 128);
    out.push_str("-----BEGIN%20CERTIFICATE-----");
    for (at, group) in der.chunks(3).enumerate() {
        if at % (LINE / 4) == 0 {
            out.push_str("%0A");
        }
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            match digit {
                _ if place > group.len() => out.push_str("%3D"),
                b'+' => out.push_str("%2B"),
                b'/' => out.push_str("%2F"),
                digit => out.push(char::from(digit)),
            }
        }
    }
    out.push_str("%0A-----END%20CERTIFICATE-----%0A");
    out
}

/// An INTEGER's content in hexadecimal.
fn number(content: &[u8]) -> String {
    let negative = content.first().is_some_and(|first| first & 0x80 != 0);
    let mut bytes = content.to_vec();
    if negative {
        // No CA may issue one; still it must not look like another number.
        let mut carry = true;
        for byte in bytes.iter_mut().rev() {
            (*byte, carry) = (!*byte).overflowing_add(u8::from(carry));
        }
    }
    let zeros = bytes.iter().take(bytes.len().saturating_sub(1)).take_while(|b| **b == 0).count();
    let digits = hex(&bytes[zeros..]).to_ascii_uppercase();
    if negative { format!("-{digits}") } else { digits }
}

fn time(time: ASN1Time) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let time = time.to_datetime();
    let month = MONTHS[usize::from(u8::from(time.month()) - 1)];
    let [day, hour, minute, second] = [time.day(), time.hour(), time.minute(), time.second()];
    format!("{month} {day:>2} {hour:02}:{minute:02}:{second:02} {} GMT", time.year())
}

/// A Name: SEQUENCE OF SET OF SEQUENCE { type, value }, the last set first (RFC 2253, 2.1).
fn name(der: &[u8]) -> Option<String> {
    let (_, mut sets, _) = element(der)?;
    let mut parts = Vec::new();
    while !sets.is_empty() {
        let (_, mut set, rest) = element(sets)?;
        let mut separator = ',';
        while !set.is_empty() {
            let (_, pair, others) = element(set)?;
            let (_, kind, value) = element(pair)?;
            parts.push((separator, attribute(kind, value)?));
            (set, separator) = (others, '+');
        }
        sets = rest;
    }
    let mut out = String::new();
    // A separator belongs before what it was read with, so behind it when all is turned round.
    let mut before = None;
    for (separator, part) in parts.iter().rev() {
        out.extend(before);
        out.push_str(part);
        before = Some(*separator);
    }
    Some(out)
}

/// `type=value`; a type or value without a form as text is written by its bytes.
fn attribute(kind: &[u8], value: &[u8]) -> Option<String> {
    let (tag, content, _) = element(value)?;
    let dump = || format!("#{}", hex(value).to_ascii_uppercase());
    Some(match short_name(kind) {
        Some(short) => format!("{short}={}", text(tag, content).map_or_else(dump, escaped)),
        None => format!("{}={}", dotted(kind), dump()),
    })
}

/// OpenSSL's short names.
fn short_name(kind: &[u8]) -> Option<&'static str> {
    Some(match kind {
        [0x55, 4, last] => match last {
            3 => "CN",
            4 => "SN",
            5 => "serialNumber",
            6 => "C",
            7 => "L",
            8 => "ST",
            9 => "street",
            10 => "O",
            11 => "OU",
            12 => "title",
            13 => "description",
            15 => "businessCategory",
            17 => "postalCode",
            20 => "telephoneNumber",
            41 => "name",
            42 => "GN",
            43 => "initials",
            44 => "generationQualifier",
            45 => "x500UniqueIdentifier",
            46 => "dnQualifier",
            65 => "pseudonym",
            97 => "organizationIdentifier",
            _ => return None,
        },
        b"\x09\x92\x26\x89\x93\xf2\x2c\x64\x01\x01" => "UID",
        b"\x09\x92\x26\x89\x93\xf2\x2c\x64\x01\x19" => "DC",
        b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x01" => "emailAddress",
        b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x02" => "unstructuredName",
        b"\x2b\x06\x01\x04\x01\x82\x37\x3c\x02\x01\x01" => "jurisdictionL",
        b"\x2b\x06\x01\x04\x01\x82\x37\x3c\x02\x01\x02" => "jurisdictionST",
        b"\x2b\x06\x01\x04\x01\x82\x37\x3c\x02\x01\x03" => "jurisdictionC",
        _ => return None,
    })
}

/// An OBJECT IDENTIFIER's content (X.690, 8.19).
fn dotted(kind: &[u8]) -> String {
    let mut out = String::new();
    let mut arc: u128 = 0;
    for byte in kind {
        arc = arc << 7 | u128::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        if out.is_empty() {
            let first = (arc / 40).min(2);
            out = format!("{first}.{}", arc - 40 * first);
        } else {
            out.push_str(&format!(".{arc}"));
        }
        arc = 0;
    }
    out
}

/// A string type's content as text; `None` for other types, and for what breaks its type's rules.
fn text(tag: u8, content: &[u8]) -> Option<String> {
    match tag {
        // UTF8String.
        12 => str::from_utf8(content).ok().map(str::to_owned),
        // Numeric-, Printable-, Teletex-, IA5- and VisibleString.
        18..=20 | 22 | 26 => Some(content.iter().map(|byte| char::from(*byte)).collect()),
        // UniversalString, BMPString.
        28 => wide(content.as_chunks::<4>(), |bytes| u32::from_be_bytes(*bytes)),
        30 => wide(content.as_chunks::<2>(), |bytes| u16::from_be_bytes(*bytes).into()),
        _ => None,
    }
}

fn wide<const N: usize>(
    (units, rest): (&[[u8; N]], &[u8]),
    code: impl Fn(&[u8; N]) -> u32,
) -> Option<String> {
    rest.is_empty().then(|| units.iter().map(|unit| char::from_u32(code(unit))).collect())?
}

/// RFC 2253, 2.4, with every byte outside printable ASCII in hexadecimal.
fn escaped(value: String) -> String {
    let last = value.len().saturating_sub(1);
    let mut out = String::with_capacity(value.len());
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => out.extend(['\\', byte.into()]),
            b'#' if at == 0 => out.push_str("\\#"),
            b' ' if at == 0 || at == last => out.push_str("\\ "),
            b' '..=b'~' => out.push(byte.into()),
            _ => out.push_str(&format!("\\{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        [&[tag, content.len() as u8], content].concat()
    }

    /// Type, tag and value of an attribute.
    type Pair<'a> = (&'a [u8], u8, &'a [u8]);

    fn named(sets: &[&[Pair<'_>]]) -> Option<String> {
        let pair =
            |(kind, tag, value): &Pair<'_>| tlv(0x30, &[tlv(6, kind), tlv(*tag, value)].concat());
        let set = |set: &&[Pair<'_>]| tlv(0x31, &set.iter().map(pair).collect::<Vec<_>>().concat());
        name(&tlv(0x30, &sets.iter().map(set).collect::<Vec<_>>().concat()))
    }

    const CN: &[u8] = &[0x55, 4, 3];
    const O: &[u8] = &[0x55, 4, 10];

    /// As `openssl x509 -nameopt RFC2253` writes such names.
    #[test]
    fn names_are_written_as_rfc_2253_says() {
        let one = |tag, value: &[u8]| named(&[&[(CN, tag, value)]]).unwrap();
        for (tag, value, wanted) in [
            (12, &b"alice"[..], "CN=alice"),
            (12, b" #a, b+\"c\"\\<d>;= ", "CN=\\ #a\\, b\\+\\\"c\\\"\\\\\\<d\\>\\;=\\ "),
            (19, b"#", "CN=\\#"),
            (12, "Bücher".as_bytes(), "CN=B\\C3\\BCcher"),
            (20, b"B\xfccher", "CN=B\\C3\\BCcher"),
            (30, b"\x00B\x00\xfc", "CN=B\\C3\\BC"),
            (28, b"\x00\x01\xf6\x00", "CN=\\F0\\9F\\98\\80"),
            (12, b"a\r\nX-Admin: 1\0\x7f", "CN=a\\0D\\0AX-Admin: 1\\00\\7F"),
            (12, b"", "CN="),
            // No text, or none of its type.
            (12, b"\xff", "CN=#0C01FF"),
            (30, b"\xd8\x00", "CN=#1E02D800"),
            (30, b"\x00", "CN=#1E0100"),
            (4, b"\x01", "CN=#040101"),
        ] {
            assert_eq!(one(tag, value), wanted, "{tag} {value:?}");
        }
        let sets: &[&[Pair<'_>]] = &[
            &[(O, 12, b"o")],
            &[(CN, 12, b"b"), (O, 12, b"c")],
            &[(&[0x2a, 3, 0x86, 0x48], 12, b"u")],
        ];
        assert_eq!(named(sets).unwrap(), "1.2.3.840=#0C0175,O=c+CN=b,O=o");
        assert_eq!((named(&[]), name(&[0x30, 5, 0x31])), (Some(String::new()), None));
    }

    #[test]
    fn numbers_and_base64() {
        for (content, wanted) in [
            (&[0][..], "00"),
            (&[0, 0xff], "FF"),
            (&[0xff], "-01"),
            (&[0xff, 0], "-0100"),
            (&[0x0a, 0xbc], "0ABC"),
            (&[], ""),
        ] {
            assert_eq!(number(content), wanted, "{content:?}");
        }
        let body = |der: &[u8]| {
            let pem = escaped_pem(der);
            let body = pem.strip_prefix("-----BEGIN%20CERTIFICATE-----%0A").unwrap();
            body.strip_suffix("%0A-----END%20CERTIFICATE-----%0A").unwrap().to_owned()
        };
        assert_eq!(body(b"\xfb\xff"), "%2B%2F8%3D");
        assert_eq!(body(b"f"), "Zg%3D%3D");
        assert_eq!(body(&[0; 49]), format!("{}%0AAA%3D%3D", "A".repeat(64)));
    }

    proptest! {
        /// Whatever stands in it, the text is fit for a header, and nothing panics.
        #[test]
        fn all_is_printable(der: Vec<u8>, value: Vec<u8>, tag: u8, kind: Vec<u8>) {
            let told = PeerCertificate::read(&der);
            let (kind, value) = (&kind[..kind.len().min(9)], &value[..value.len().min(90)]);
            let whole = named(&[&[(kind, tag, value)]]);
            let texts = [&told.pem, &told.subject, &told.issuer, &told.serial, &told.end];
            let printable = |text: &str| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
            prop_assert!(texts.into_iter().all(|text| printable(text)));
            prop_assert!(whole.is_some_and(|whole| printable(&whole)));
        }
    }
}
