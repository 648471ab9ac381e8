//! Pure: the requests of a run: what each is like, how often it comes, which answer is right, and
//! its bytes. Made by `cli` (URLs, `--templates`) and by `plan`, sent by `client`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::h2::hpack;
use crate::record::ErrorClass;
use crate::search::Needle;
use crate::target::Target;

/// One kind of request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// How often it comes, beside the others; 1–1,000,000.
    pub weight: u32,
    /// Method.
    pub method: String,
    /// Request target in origin form.
    pub path: String,
    /// Header fields besides Host and Content-Length, in order.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
    /// Which answer is right.
    pub expect: Expect,
}

/// Which answer is right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expect {
    /// Statuses; empty = 200–299.
    pub statuses: Vec<u16>,
    /// A text that the body has to hold.
    pub contains: Option<Needle>,
}

impl Expect {
    /// What is wrong with an answer; `found`: the text was in it.
    pub fn fault(&self, status: u16, found: bool) -> Option<ErrorClass> {
        let good = match self.statuses.as_slice() {
            [] => (200..300).contains(&status),
            statuses => statuses.contains(&status),
        };
        match (good, self.contains.is_some() && !found) {
            (false, _) => Some(ErrorClass::Status),
            (true, true) => Some(ErrorClass::Check),
            (true, false) => None,
        }
    }
}

/// One kind of request in bytes. Shared by all connections of a run.
#[derive(Debug)]
pub(crate) struct Request {
    /// Everything before the empty line.
    pub(crate) fields: Vec<u8>,
    /// The whole head.
    pub(crate) head: Vec<u8>,
    /// The variant that says `Connection: close`.
    pub(crate) last_head: Vec<u8>,
    /// The header block of HTTP/2.
    pub(crate) block: Vec<u8>,
    pub(crate) body: Vec<u8>,
    /// Its method is HEAD.
    pub(crate) is_head: bool,
    pub(crate) expect: Expect,
}

pub(crate) const CLOSE: &[u8] = b"Connection: close\r\n";

impl Request {
    pub(crate) fn new(template: &Template, target: &Target) -> Request {
        let authority = &target.authority;
        let Template { method, path, headers, body, .. } = template;
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str(&format!("Host: {authority}\r\n"));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || matches!(method.as_str(), "POST" | "PUT" | "PATCH") {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        let fields = head.into_bytes();
        Request {
            head: [&fields[..], b"\r\n"].concat(),
            last_head: [&fields[..], CLOSE, b"\r\n"].concat(),
            fields,
            block: block(template, target),
            body: body.clone(),
            is_head: method == "HEAD",
            expect: template.expect.clone(),
        }
    }
}

/// RFC 9113, 8.3.1.
fn block(template: &Template, target: &Target) -> Vec<u8> {
    let Template { method, path, headers, body, .. } = template;
    let host = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
    let authority = host.map_or(&target.authority, |(_, value)| value);
    let mut out = Vec::new();
    hpack::write(&mut out, ":method", method);
    hpack::write(&mut out, ":scheme", target.scheme.name());
    hpack::write(&mut out, ":authority", authority);
    hpack::write(&mut out, ":path", path);
    for (name, value) in headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host")) {
        hpack::write(&mut out, &name.to_ascii_lowercase(), value);
    }
    if !body.is_empty() || matches!(method.as_str(), "POST" | "PUT" | "PATCH") {
        hpack::write(&mut out, "content-length", &body.len().to_string());
    }
    out
}

/// One entry of a `--templates` file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    weight: Option<u32>,
    method: Option<String>,
    path: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<String>,
    body_file: Option<String>,
    #[serde(default)]
    status: Vec<u16>,
    contains: Option<String>,
}

/// Reads a `--templates` file: a JSON array. `read_file` reads a `body_file`.
///
/// # Errors
/// A message that names the fault, and the entry by its number from 1.
pub fn parse(
    text: &str,
    read_file: impl Fn(&str) -> Result<Vec<u8>, String>,
) -> Result<Vec<Template>, String> {
    let entries: Vec<Entry> = serde_json::from_str(text)
        .map_err(|error| format!("{error}; it is a JSON array of {{\"path\": …}}"))?;
    let read = |(number, entry): (usize, Entry)| {
        template(entry, &read_file).map_err(|why| format!("entry {number}: {why}"))
    };
    (1..).zip(entries).map(read).collect()
}

fn template(
    entry: Entry,
    read_file: impl Fn(&str) -> Result<Vec<u8>, String>,
) -> Result<Template, String> {
    let body = match (entry.body, entry.body_file) {
        (Some(_), Some(_)) => return Err("body and body_file exclude each other".to_string()),
        (Some(text), None) => text.into_bytes(),
        (None, Some(path)) => read_file(&path)?,
        (None, None) => Vec::new(),
    };
    let method = if body.is_empty() { "GET" } else { "POST" };
    Ok(Template {
        weight: entry.weight.unwrap_or(1),
        method: entry.method.unwrap_or_else(|| method.to_string()),
        path: entry.path,
        headers: entry.headers.into_iter().collect(),
        body,
        expect: Expect {
            statuses: entry.status,
            contains: entry.contains.map(|text| Needle::new(text.as_bytes())),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_file(path: &str) -> Result<Vec<u8>, String> {
        Ok(path.as_bytes().to_vec())
    }

    #[test]
    fn the_bytes_of_a_request() {
        let mut template = Template {
            weight: 1,
            method: "GET".into(),
            path: "/x?y".into(),
            headers: Vec::new(),
            body: Vec::new(),
            expect: Expect::default(),
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let request = Request::new(&template, &Target::parse("h:1").unwrap());
        assert_eq!(text(&request.head), "GET /x?y HTTP/1.1\r\nHost: h:1\r\n\r\n");
        template.headers = vec![("host".into(), "h".into()), ("A".into(), "b c".into())];
        template.body = b"body".to_vec();
        template.method = "POST".into();
        let request = Request::new(&template, &Target::parse("h:1").unwrap());
        let expected = "POST /x?y HTTP/1.1\r\nhost: h\r\nA: b c\r\nContent-Length: 4\r\n\
            Connection: close\r\n\r\n";
        assert_eq!(text(&request.last_head), expected);
    }

    #[test]
    fn right_and_wrong_answers() {
        let mut expect = Expect::default();
        assert_eq!(expect.fault(204, false), None);
        assert_eq!(expect.fault(304, false), Some(ErrorClass::Status));
        expect.statuses = vec![304];
        expect.contains = Some(Needle::new(b"x"));
        assert_eq!(expect.fault(304, true), None);
        assert_eq!(expect.fault(304, false), Some(ErrorClass::Check));
        assert_eq!(expect.fault(200, true), Some(ErrorClass::Status));
    }

    #[test]
    fn files_of_templates() {
        let text = r#"[{"path": "/a", "weight": 3, "headers": {"A": "b"}},
            {"path": "/b", "body_file": "f", "status": [201], "contains": "ok"}]"#;
        let all = parse(text, no_file).unwrap();
        assert_eq!((all[0].weight, all[0].method.as_str()), (3, "GET"));
        assert_eq!((all[1].weight, all[1].method.as_str()), (1, "POST"));
        assert_eq!(all[1].body, b"f");
        for (text, part) in [
            ("{}", "JSON array"),
            (r#"[{"path": "/", "wieght": 1}]"#, "wieght"),
            (r#"[{"path": "/", "body": "x", "body_file": "y"}]"#, "entry 1"),
        ] {
            let why = parse(text, no_file).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
    }
}
