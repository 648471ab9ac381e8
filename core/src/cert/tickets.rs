//! A file of session ticket keys, which several nodes share: what stands in it, and what is wrong
//! with it. What the keys are used for is `tls`'s.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};

use super::file;
use crate::limits::MAX_TICKET_KEYS;

const CURE: &str = "write one key a line: openssl rand -hex 48";

/// The keys of a `ticket_keys` file.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketFile {
    /// 48 or 80 bytes each; the first one seals, all open.
    pub keys: Vec<Vec<u8>>,
    /// SHA-256 of all of them.
    pub digest: [u8; 32],
}

impl fmt::Debug for TicketFile {
    /// Says how many; never a key.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, ..] = self.digest;
        write!(formatter, "{} ticket keys {a:02x}{b:02x}", self.keys.len())
    }
}

/// What reading a file came to.
#[derive(Clone, Debug)]
pub struct TicketReading {
    /// The keys; or what is wrong, and how to mend it.
    pub keys: Result<Arc<TicketFile>, (String, String)>,
    /// What is doubtful, and how to mend it.
    pub warning: Option<(String, String)>,
}

/// Reads a file of ticket keys.
#[must_use]
pub fn read_tickets(path: &Path) -> TicketReading {
    let shown = path.display();
    let text = match file::read(path) {
        Ok(text) => text,
        Err(error) => {
            let cure = "give the path of a readable file".to_owned();
            return TicketReading { keys: Err((format!("{shown} {error}"), cure)), warning: None };
        }
    };
    let warning = text
        .open_to_others
        .then(|| (format!("{shown} can be read by everybody"), format!("chmod o= {shown}")));
    let keys = parse(&text.bytes).map(Arc::new);
    let keys = keys.map_err(|wrong| (format!("{shown} {wrong}"), CURE.to_owned()));
    TicketReading { keys, warning }
}

/// Never quotes the text: it is secret.
fn parse(bytes: &[u8]) -> Result<TicketFile, String> {
    let mut keys: Vec<Vec<u8>> = Vec::new();
    for (number, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let number = number + 1;
        let key = key(line).ok_or_else(|| {
            format!("line {number}: no key of 48 or 80 bytes in hexadecimal or base64")
        })?;
        if keys.contains(&key) {
            return Err(format!("line {number}: the key stands there twice"));
        }
        if keys.len() == MAX_TICKET_KEYS {
            return Err(format!("has more than {MAX_TICKET_KEYS} keys"));
        }
        keys.push(key);
    }
    if keys.is_empty() {
        return Err("holds no key".to_owned());
    }
    let mut digest_of = [0; 32];
    digest_of.copy_from_slice(digest(&SHA256, &keys.concat()).as_ref());
    // Without their lengths two lists could look alike only if they were as good as equal.
    Ok(TicketFile { keys, digest: digest_of })
}

fn key(line: &[u8]) -> Option<Vec<u8>> {
    match line.len() {
        96 | 160 => line
            .chunks_exact(2)
            .map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?))
            .collect(),
        64 | 108 => base64(line).filter(|key| matches!(key.len(), 48 | 80)),
        _ => None,
    }
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// Plain base64 (RFC 4648 section 4), its length a multiple of four.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let end = text.iter().rposition(|&byte| byte != b'=')? + 1;
    if text.len() - end > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for group in text[..end].chunks(4) {
        let mut bits = 0;
        for &letter in group {
            bits = bits << 6 | u32::from(sextet(letter)?);
        }
        bits <<= 6 * (4 - group.len());
        bytes.extend_from_slice(bits.to_be_bytes().get(1..group.len())?);
    }
    Some(bytes)
}

fn sextet(letter: u8) -> Option<u8> {
    match letter {
        b'A'..=b'Z' => Some(letter - b'A'),
        b'a'..=b'z' => Some(letter - b'a' + 26),
        b'0'..=b'9' => Some(letter - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\
        202122232425262728292a2b2c2d2e2f";
    /// The same 48 bytes.
    const BASE64: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4v";

    fn wrong(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn both_spellings_and_lengths() {
        let file = parse(format!("# first seals\n\n{HEX}\r\n{}\n", "Ab".repeat(80)).as_bytes());
        let keys = file.unwrap().keys;
        assert_eq!(keys[0], (0..48).collect::<Vec<u8>>());
        assert_eq!(keys[1], [0xab; 80]);
        assert_eq!(parse(BASE64.as_bytes()).unwrap().keys[0], keys[0]);
        let long = format!("{}8=", "/".repeat(106));
        assert_eq!(parse(long.as_bytes()).unwrap().keys[0], [0xff; 80]);
    }

    #[test]
    fn mistakes_are_told_without_the_text() {
        assert_eq!(wrong("# nothing\n"), "holds no key");
        assert!(wrong(&format!("{HEX}\n{BASE64}")).contains("line 2: the key stands there twice"));
        for text in [&HEX[1..], &HEX.replace('f', "g"), &BASE64.replace('A', "="), "secret"] {
            let told = wrong(text);
            assert!(told.contains("line 1: no key of 48 or 80") && !told.contains("secret"));
        }
        let many: String = (0..=MAX_TICKET_KEYS).map(|n| format!("{n:096x}\n")).collect();
        assert_eq!(wrong(&many), "has more than 16 keys");
        assert_eq!(format!("{:?}", parse(HEX.as_bytes()).unwrap()).split(' ').count(), 4);
    }
}
