//! Finds certificates by the name that a client asks for.

use std::collections::HashMap;

use super::names::MAX_NAME;
use crate::model::SniMatch;

/// Places of a list of certificates, by the names that they serve.
#[derive(Debug, Default)]
pub struct Index {
    exact: HashMap<Box<str>, Vec<usize>>,
    /// By what stands behind `*.`.
    wild: HashMap<Box<str>, Vec<usize>>,
    mode: SniMatch,
}

impl Index {
    /// The index of certificates with these names, normalised.
    pub fn new<'a, N>(certificates: impl IntoIterator<Item = N>, mode: SniMatch) -> Index
    where
        N: IntoIterator<Item = &'a String>,
    {
        let mut index = Index { mode, ..Index::default() };
        for (place, names) in certificates.into_iter().enumerate() {
            for name in names {
                let (map, key) = match name.strip_prefix("*.") {
                    Some(suffix) => (&mut index.wild, suffix),
                    None => (&mut index.exact, name.as_str()),
                };
                let places = map.entry(key.into()).or_default();
                if places.last() != Some(&place) {
                    places.push(place);
                }
            }
        }
        index
    }

    /// The certificates for a name, in the order of the list; none = the default one serves it. An
    /// exact name goes before a wildcard, a longer suffix before a shorter one (R12.2-4). Takes any
    /// case, and a dot at the end. Allocates nothing.
    #[must_use]
    pub fn find(&self, name: &str) -> &[usize] {
        let name = name.strip_suffix('.').unwrap_or(name);
        let mut buffer = [0; MAX_NAME];
        let Some(lower) = buffer.get_mut(..name.len()) else { return &[] };
        lower.copy_from_slice(name.as_bytes());
        lower.make_ascii_lowercase();
        let Ok(name) = std::str::from_utf8(lower) else { return &[] };
        if let Some(places) = self.exact.get(name) {
            return places;
        }
        let mut rest = name;
        while let Some((label, suffix)) = rest.split_once('.') {
            if let (Some(places), false) = (self.wild.get(suffix), label.is_empty()) {
                return places;
            }
            if self.mode == SniMatch::Wildcard {
                break;
            }
            rest = suffix;
        }
        &[]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(certificates: &[&[&str]], mode: SniMatch) -> Index {
        let names = |list: &&[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        let lists: Vec<Vec<String>> = certificates.iter().map(names).collect();
        Index::new(&lists, mode)
    }

    /// R12.2-4: table 12-1.
    #[test]
    fn table_12_1() {
        let list: &[&[&str]] = &[&["*.example.com"]];
        let standard = index(list, SniMatch::Wildcard);
        let suffix = index(list, SniMatch::LongestSuffix);
        for (name, by_standard, by_suffix) in [
            ("abc.example.com", true, true),
            ("sport.example.com", true, true),
            ("good.example.com", true, true),
            ("mycalc.good.example.com", false, true),
            ("example.com", false, false),
            (".example.com", false, false),
            ("example.org", false, false),
            ("com", false, false),
            ("", false, false),
        ] {
            assert_eq!(!standard.find(name).is_empty(), by_standard, "{name}");
            assert_eq!(!suffix.find(name).is_empty(), by_suffix, "{name}");
        }
    }

    /// R12.2-2, R12.2-3, R12.2-4: exact before wildcard, the longest suffix first.
    #[test]
    fn the_closest_name_wins() {
        let list: &[&[&str]] = &[
            &["*.example.com"],
            &["*.good.example.com"],
            &["a.example.com", "a.example.com", "*.a.example.com"],
            &["a.example.com"],
        ];
        for mode in [SniMatch::Wildcard, SniMatch::LongestSuffix] {
            let index = index(list, mode);
            assert_eq!(index.find("a.example.com"), [2, 3]);
            assert_eq!(index.find("x.good.example.com"), [1]);
            assert_eq!(index.find("A.Example.Com."), [2, 3], "case and dot at the end");
            assert_eq!(index.find("B.EXAMPLE.com"), [0]);
        }
        let suffix = index(list, SniMatch::LongestSuffix);
        assert_eq!(suffix.find("x.y.good.example.com"), [1]);
        assert_eq!(suffix.find("x.y.other.example.com"), [0]);
        assert_eq!(suffix.find("x.y.a.example.com"), [2]);
        assert_eq!(index(list, SniMatch::Wildcard).find("x.y.good.example.com"), [0; 0]);
    }

    #[test]
    fn names_that_are_too_long_find_nothing() {
        let index = index(&[&["*.example.com"]], SniMatch::LongestSuffix);
        assert_eq!(index.find(&format!("{}.example.com", "a".repeat(250))), [0; 0]);
        assert_eq!(index.find("bücher.example.com"), [0]);
    }
}
