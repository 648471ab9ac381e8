//! Pure: the cookies of one connection slot, which plays one client (`--sticky`). Used by `client`.

use crate::limits::MAX_COOKIES;

/// Cookies by name; an empty value takes one away.
#[derive(Debug, Default)]
pub(crate) struct Jar {
    cookies: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Jar {
    /// Takes what answers set: `name=value` lines.
    pub(crate) fn take(&mut self, lines: &[u8]) {
        for line in lines.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
            let Some(at) = line.iter().position(|&b| b == b'=') else { continue };
            let (name, value) = (&line[..at], &line[at + 1..]);
            self.cookies.retain(|(known, _)| known != name);
            if !value.is_empty() && self.cookies.len() < MAX_COOKIES {
                self.cookies.push((name.to_vec(), value.to_vec()));
            }
        }
    }

    /// Appends the Cookie field, if there is a cookie.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        if !self.cookies.is_empty() {
            out.extend_from_slice(b"Cookie: ");
            out.extend_from_slice(&self.value());
            out.extend_from_slice(b"\r\n");
        }
    }

    /// The field's value; empty without a cookie.
    pub(crate) fn value(&self) -> Vec<u8> {
        let pair = |(name, value): &(Vec<u8>, Vec<u8>)| [name, &b"="[..], value].concat();
        self.cookies.iter().map(pair).collect::<Vec<_>>().join(&b"; "[..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_replace_and_end() {
        let mut jar = Jar::default();
        let text = |jar: &Jar| {
            let mut out = Vec::new();
            jar.write(&mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(&jar), "");
        jar.take(b"a=1\nb=2\nodd\n");
        jar.take(b"a=3\n");
        assert_eq!(text(&jar), "Cookie: b=2; a=3\r\n");
        jar.take(b"b=\n");
        assert_eq!(text(&jar), "Cookie: a=3\r\n");
        for n in 0..100 {
            jar.take(format!("c{n}=x\n").as_bytes());
        }
        assert_eq!(jar.cookies.len(), MAX_COOKIES);
    }
}
