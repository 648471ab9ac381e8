//! The conditions that the index doesn't answer, tried one after the other on the policies that it
//! leaves.

use std::net::IpAddr;

use ipnet::IpNet;

use super::normal::{argument, path, path_prefix, written, written_host};
use super::pattern::Pattern;
use super::view::RequestView;
use crate::model::{Compare, Rule, RuleKind};

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Test {
    what: What,
    values: Values,
    invert: bool,
}

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Host,
    Path,
    Method,
    Header(Box<[u8]>),
    Argument(Box<[u8]>),
    Cookie(Box<[u8]>),
    Source,
}

/// Any of them.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Values {
    Equal(Box<[Box<[u8]>]>),
    Prefix(Box<[Box<[u8]>]>),
    Regex(Box<[Pattern]>),
    Networks(Box<[IpNet]>),
}

impl Test {
    /// # Errors
    /// A value that doesn't compile. A checked configuration has none.
    pub(super) fn new(rule: &Rule) -> Result<Test, String> {
        Ok(Test { what: What::of(&rule.kind), values: Values::of(rule)?, invert: rule.invert })
    }

    /// Does the condition hold? `buffer` is used for what has to be decoded.
    pub(super) fn holds(&self, view: &RequestView<'_>, buffer: &mut Vec<u8>) -> bool {
        let found = match &self.what {
            What::Host => self.values.any_host(view.host),
            What::Path => self.values.any(view.path),
            What::Method => self.values.any(view.method),
            What::Header(name) => view.fields.any(name, &mut |value| self.values.any(value)),
            What::Argument(name) => self.any_argument(name, view.query, buffer),
            What::Cookie(name) => view.fields.any_cookie(name, &mut |v| self.values.any(v)),
            What::Source => self.values.contains(view.source),
        };
        found != self.invert
    }

    fn any_argument(&self, name: &[u8], query: &[u8], buffer: &mut Vec<u8>) -> bool {
        query.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()).any(|pair| {
            let equals = pair.iter().position(|&byte| byte == b'=').unwrap_or(pair.len());
            let (key, value) = pair.split_at(equals);
            if !argument(key).eq(name.iter().copied()) {
                return false;
            }
            buffer.clear();
            buffer.extend(argument(value.get(1..).unwrap_or_default()));
            self.values.any(buffer)
        })
    }
}

impl What {
    fn of(kind: &RuleKind) -> What {
        let bytes = |text: &String| text.as_bytes().into();
        match kind {
            RuleKind::HostName => What::Host,
            RuleKind::Path => What::Path,
            RuleKind::Method => What::Method,
            RuleKind::Header(name) => What::Header(bytes(name)),
            RuleKind::QueryString(name) => What::Argument(bytes(name)),
            RuleKind::Cookie(name) => What::Cookie(bytes(name)),
            RuleKind::SourceIp => What::Source,
        }
    }
}

impl Values {
    fn of(rule: &Rule) -> Result<Values, String> {
        let all = |convert: &dyn Fn(&String) -> Vec<u8>| -> Box<[Box<[u8]>]> {
            rule.values.iter().map(|value| convert(value).into_boxed_slice()).collect()
        };
        match (&rule.kind, rule.compare) {
            (RuleKind::SourceIp, _) => {
                let network = |text: &String| text.parse::<IpNet>().map_err(|e| e.to_string());
                rule.values.iter().map(network).collect::<Result<_, _>>().map(Values::Networks)
            }
            (RuleKind::HostName, _) => Ok(Values::Equal(all(&|text| written_host(text)))),
            (_, Compare::Regex) => {
                let patterns = rule.values.iter().map(|text| Pattern::new(text));
                patterns.collect::<Result<_, _>>().map(Values::Regex)
            }
            (RuleKind::Path, compare) => {
                let values = all(&|text| path_value(text, compare));
                Ok(if compare == Compare::EqualTo {
                    Values::Equal(values)
                } else {
                    Values::Prefix(values)
                })
            }
            (_, Compare::EqualTo) => Ok(Values::Equal(all(&|text| text.clone().into_bytes()))),
            (_, Compare::StartsWith) => Ok(Values::Prefix(all(&|text| text.clone().into_bytes()))),
        }
    }

    fn any(&self, bytes: &[u8]) -> bool {
        match self {
            Values::Equal(values) => values.iter().any(|value| **value == *bytes),
            Values::Prefix(values) => values.iter().any(|value| bytes.starts_with(value)),
            Values::Regex(patterns) => patterns.iter().any(|pattern| pattern.is_match(bytes)),
            Values::Networks(_) => false,
        }
    }

    fn any_host(&self, host: &[u8]) -> bool {
        let Values::Equal(values) = self else { return false };
        values.iter().any(|value| match &**value {
            [b'*', suffix @ ..] => host.len() > suffix.len() && host.ends_with(suffix),
            value => value == host,
        })
    }

    fn contains(&self, address: IpAddr) -> bool {
        let Values::Networks(networks) = self else { return false };
        let address = address.to_canonical();
        networks.iter().any(|network| network.contains(&address))
    }
}

/// A path of the configuration in the form in which requests' paths are compared. For `Regex` there
/// is none.
pub(super) fn path_value(text: &str, compare: Compare) -> Vec<u8> {
    let raw = written(text);
    if compare == Compare::EqualTo {
        let mut buffer = Vec::new();
        return path(&raw, &mut buffer).to_vec();
    }
    path_prefix(&raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Lines(&'static [(&'static str, &'static str)]);

    impl crate::policy::Fields for Lines {
        fn any(&self, name: &[u8], test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
            self.0.iter().filter(|(key, _)| key.as_bytes() == name).any(|(_, v)| test(v.as_bytes()))
        }

        fn any_cookie(&self, name: &[u8], test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
            self.any(&[b"cookie:", name].concat(), test)
        }
    }

    /// Every rule type and comparison of R10.5-3 against one request.
    #[test]
    fn each_kind() {
        use Compare::{EqualTo, Regex, StartsWith};
        use RuleKind::{Cookie, Header, HostName, Method, Path, QueryString, SourceIp};
        let fields = Lines(&[
            ("x-team", "red"),
            ("x-team", "blue"),
            ("cookie:a", "1"),
            ("cookie:b", "two=2"),
            ("cookie:d", "\"q\""),
        ]);
        let view = RequestView {
            method: b"GET",
            host: b"a.example.com",
            path: b"/api/x",
            query: b"q=a+b%21&&e&r=1&r=2&k%65y=v",
            source: "::ffff:10.1.2.3".parse().unwrap(),
            fields: &fields,
        };
        let cases: &[(RuleKind, Compare, &[&str], bool)] = &[
            (HostName, EqualTo, &["x", "a.example.com"], true),
            (HostName, EqualTo, &["*.example.com"], true),
            (HostName, EqualTo, &["*.com"], true),
            (HostName, EqualTo, &["*.a.example.com", "example.com"], false),
            (Path, EqualTo, &["/api/x"], true),
            (Path, EqualTo, &["/%61pi/./x"], true),
            (Path, EqualTo, &["/api"], false),
            (Path, StartsWith, &["/b", "/ap"], true),
            (Path, Regex, &["x$"], true),
            (Path, Regex, &["^x"], false),
            (Method, EqualTo, &["POST", "GET"], true),
            (Method, EqualTo, &["POST"], false),
            (Header("x-team".into()), EqualTo, &["blue"], true),
            (Header("x-team".into()), EqualTo, &["red, blue"], false),
            (Header("x-team".into()), StartsWith, &["bl"], true),
            (Header("x-team".into()), Regex, &["^r.d$"], true),
            (Header("x-other".into()), Regex, &[""], false),
            (QueryString("q".into()), EqualTo, &["a b!"], true),
            (QueryString("e".into()), EqualTo, &[""], true),
            (QueryString("r".into()), EqualTo, &["2"], true),
            (QueryString("key".into()), StartsWith, &["v"], true),
            (QueryString("q".into()), EqualTo, &["a+b!"], false),
            (Cookie("a".into()), EqualTo, &["1"], true),
            (Cookie("b".into()), EqualTo, &["two=2"], true),
            (Cookie("d".into()), Regex, &["q"], true),
            (Cookie("c".into()), StartsWith, &[""], false),
            (Cookie("A".into()), EqualTo, &["1"], false),
            (SourceIp, EqualTo, &["10.0.0.0/8"], true),
            (SourceIp, EqualTo, &["::/0", "11.0.0.0/8"], false),
        ];
        let mut buffer = Vec::new();
        for (kind, compare, values, holds) in cases {
            for invert in [false, true] {
                let (kind, compare) = (kind.clone(), *compare);
                let values = values.iter().map(|&value| value.into()).collect();
                let rule = Rule { kind, compare, values, invert };
                let test = Test::new(&rule).unwrap();
                assert_eq!(test.holds(&view, &mut buffer), *holds != invert, "{rule:?}");
            }
        }
    }
}
