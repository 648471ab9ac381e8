//! Names of hosts as certificates and clients write them, in one form: lower case, ASCII, no dot
//! at the end.

/// The longest name of a host, in bytes (RFC 1035 section 2.3.4).
pub(super) const MAX_NAME: usize = 253;

/// A name in that form; labels outside ASCII become A-labels (RFC 5890). `None` when it can't be a
/// name. The first label may be `*`.
#[must_use]
pub fn ascii(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let (star, rest) = match name.strip_prefix("*.") {
        Some(rest) => ("*.", rest),
        None => ("", name),
    };
    // IDNA would refuse an underscore, which names of services have.
    let rest = match rest.is_ascii() {
        true => rest.to_ascii_lowercase(),
        false => idna::domain_to_ascii(rest).ok()?,
    };
    let label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(allowed)
    };
    let fits = star.len() + rest.len() <= MAX_NAME && rest.split('.').all(label);
    fits.then(|| format!("{star}{rest}"))
}

/// Does a name of a certificate stand for this one? `*` stands for one label (RFC 9525 section
/// 6.3, R12.2-3). Both normalised.
#[must_use]
pub fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(suffix) if !name.starts_with("*.") => {
            name.split_once('.').is_some_and(|(_, rest)| rest == suffix)
        }
        _ => pattern == name,
    }
}

/// Would the pattern stand for the name if `*` stood for more labels than one?
pub(super) fn covers_deeper(pattern: &str, name: &str) -> bool {
    let suffix = pattern.strip_prefix('*');
    suffix.is_some_and(|suffix| name.ends_with(suffix)) && !covers(pattern, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_form() {
        for (name, form) in [
            ("Example.COM", Some("example.com")),
            ("example.com.", Some("example.com")),
            ("*.Example.com", Some("*.example.com")),
            ("bücher.example", Some("xn--bcher-kva.example")),
            ("*.Bücher.example", Some("*.xn--bcher-kva.example")),
            ("_dmarc.example.com", Some("_dmarc.example.com")),
            ("", None),
            (".", None),
            ("*", None),
            ("*.", None),
            ("a..b", None),
            ("f*.example.com", None),
            ("*.*.example.com", None),
            ("a b", None),
        ] {
            assert_eq!(ascii(name).as_deref(), form, "{name}");
        }
        assert_eq!(ascii(&format!("{}.com", "a".repeat(64))), None);
        assert_eq!(ascii(&"a.".repeat(128)), None);
    }

    #[test]
    fn a_star_is_one_label() {
        assert!(covers("*.example.com", "a.example.com"));
        assert!(covers("*.example.com", "*.example.com"));
        for other in ["example.com", "a.b.example.com", "*.b.example.com", "aexample.com"] {
            assert!(!covers("*.example.com", other), "{other}");
        }
        assert!(covers_deeper("*.example.com", "a.b.example.com"));
        assert!(!covers_deeper("*.example.com", "a.example.com"));
        assert!(!covers_deeper("*.example.com", "example.com"));
    }
}
