//! Pure: "did you mean". Owns the measure of likeness; knows no key.

use super::bounds::MAX_QUOTED_CHARS;

/// The candidate that the user most likely meant; `None` if none is near.
///
/// Near is a third of the word's length in edits, `-` counting as `_` and case not at all.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    if word.chars().count() > MAX_QUOTED_CHARS {
        return None; // the distance is quadratic, and no key is that long
    }
    let word = fold(word);
    let length = word.chars().count();
    let allowed = (length / 3).max(1);
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= 4 * MAX_QUOTED_CHARS)
        // A difference in length is a distance, and quickly seen.
        .filter(|candidate| candidate.chars().count().abs_diff(length) <= allowed)
        .map(|candidate| (strsim::damerau_levenshtein(&word, &fold(candidate)), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The only candidate that the word is the end of, as `port` is that of `protocol_port`.
pub(super) fn ending<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let end = format!("_{}", fold(word));
    let mut found = candidates.into_iter().filter(|candidate| candidate.ends_with(&end));
    found.next().filter(|_| !word.is_empty() && found.next().is_none())
}

fn fold(word: &str) -> String {
    word.to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::{ending, nearest};

    #[test]
    fn typing_slips_are_found() {
        let keys = ["member_timeout", "client_timeout", "name", "id"];
        assert_eq!(nearest("member_timout", keys), Some("member_timeout"));
        assert_eq!(nearest("Client-Timeout", keys), Some("client_timeout"));
        assert_eq!(nearest("nmae", keys), Some("name"));
    }

    #[test]
    fn half_a_key_is_known_by_its_end() {
        let keys = ["protocol_port", "default_pool", "client_timeout", "member_timeout"];
        assert_eq!(ending("port", keys), Some("protocol_port"));
        assert_eq!(ending("Pool", keys), Some("default_pool"));
        assert_eq!(
            (ending("timeout", keys), ending("", keys), ending("ort", keys)),
            (None, None, None)
        );
    }

    #[test]
    fn strangers_are_not() {
        assert_eq!(nearest("banana", ["member_timeout", "name"]), None);
        assert_eq!(nearest(&"n".repeat(1_000_000), ["name"]), None);
        assert_eq!(nearest("", ["member_timeout"]), None);
    }
}
