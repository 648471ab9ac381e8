//! Pure: cookies in heads: the values of one name in a request's Cookie fields, and what a
//! response's Set-Cookie sets. Lenient as servers are (RFC 6265, 5.4 and 4.2): what is no pair is
//! passed over, and the value is every byte up to the next semicolon, without the space around it.

/// The values of the cookie called `name` in one Cookie field, in their order. Names are compared
/// byte by byte: they are case-sensitive.
pub(crate) fn values<'a>(field: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    field.split(|&b| b == b';').filter_map(move |pair| value_of(pair, name))
}

/// The value that one Set-Cookie field gives the cookie called `name`.
#[allow(dead_code, reason = "stickiness, which is being built, uses it")]
pub(crate) fn set_value<'a>(field: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    value_of(field.split(|&b| b == b';').next()?, name)
}

fn value_of<'a>(pair: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let pair = pair.trim_ascii_start();
    let rest = pair.strip_prefix(name)?.trim_ascii_start();
    rest.strip_prefix(b"=").map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all<'a>(field: &'a str, name: &'a str) -> Vec<&'a str> {
        values(field.as_bytes(), name.as_bytes()).map(|v| std::str::from_utf8(v).unwrap()).collect()
    }

    #[test]
    fn values_of_a_name() {
        for (field, found) in [
            ("name=abcd", &["abcd"][..]),
            ("a=1; name=abcd; b=2", &["abcd"]),
            ("a=1;name=abcd;b=2", &["abcd"]),
            (" name = abcd ;", &["abcd"]),
            ("name=a=b==", &["a=b=="]),
            ("name=\"a b\"", &["\"a b\""]),
            ("name=", &[""]),
            ("name=1; name=2", &["1", "2"]),
            ("Name=1; xname=2; namex=3; name; =name; ;", &[]),
            ("a=name=1", &[]),
            ("", &[]),
        ] {
            assert_eq!(all(field, "name"), found, "{field}");
        }
    }

    #[test]
    fn what_is_set() {
        let set = |field: &'static str| set_value(field.as_bytes(), b"sid");
        assert_eq!(set("sid=1; Path=/; HttpOnly"), Some(&b"1"[..]));
        assert_eq!(set("sid=; Max-Age=0"), Some(&b""[..]));
        assert_eq!(set("other=1; sid=2"), None);
        assert_eq!(set(""), None);
    }

    proptest! {
        /// A pair is found among any others, with its very value.
        #[test]
        fn a_pair_is_found_anywhere(
            before in "([a-m]{1,4}=[ -:<-~]{0,6}; ?){0,3}",
            value in "[!-:<-~]{0,20}",
            after in "(; ?[a-m]{1,4}=[ -:<-~]{0,6}){0,3}",
        ) {
            let field = format!("{before}name={value}{after}");
            prop_assert_eq!(all(&field, "name"), [value.as_str()]);
        }

        /// Any bytes: no panic, and what is found is a part without a semicolon.
        #[test]
        fn any_bytes(field: Vec<u8>, name in "[a-z]{0,3}") {
            for value in values(&field, name.as_bytes()) {
                prop_assert!(!value.contains(&b';'));
            }
            set_value(&field, name.as_bytes());
        }
    }
}
