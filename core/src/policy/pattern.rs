//! A regular expression as policies use it: yes or no, for bytes. Compiled whole into a table when
//! the configuration is read, so that a search needs no memory of its own: all shards share it, no
//! lock, no cache, a step a byte. The price is a bound on what an expression may ask for.

use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;
use regex_automata::{Input, MatchKind};

use crate::limits::{MAX_PATTERN_BYTES, MAX_PATTERN_WORK};

/// A compiled expression.
#[derive(Clone)]
pub struct Pattern {
    text: Box<str>,
    table: dense::DFA<Vec<u32>>,
}

impl Pattern {
    /// Compiles `text`: the syntax of the crate `regex` for bytes, with classes such as `\w` and
    /// the flag `i` meaning ASCII. It is looked for anywhere, unless `^` and `$` say otherwise.
    ///
    /// # Errors
    /// What is wrong with it, in words; also when its table has more than [`MAX_PATTERN_BYTES`].
    pub fn new(text: &str) -> Result<Pattern, String> {
        let config = dense::Config::new()
            .start_kind(StartKind::Unanchored)
            .match_kind(MatchKind::All)
            .dfa_size_limit(Some(MAX_PATTERN_BYTES))
            .determinize_size_limit(Some(MAX_PATTERN_WORK));
        let bytes = thompson::Config::new().utf8(false).nfa_size_limit(Some(MAX_PATTERN_WORK));
        let table = dense::Builder::new()
            .configure(config)
            .syntax(syntax::Config::new().unicode(false).utf8(false))
            .thompson(bytes)
            .build(text)
            .map_err(|error| reason(&error))?;
        Ok(Pattern { text: text.into(), table })
    }

    /// Is it found in `bytes`?
    #[inline]
    #[must_use]
    pub fn is_match(&self, bytes: &[u8]) -> bool {
        let input = Input::new(bytes).earliest(true);
        // No byte makes such a table give up: that is for Unicode word boundaries.
        matches!(self.table.try_search_fwd(&input), Ok(Some(_)))
    }

    /// Bytes of the text.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.text.len()
    }
}

/// The innermost message; that of a parser is its last line.
fn reason(error: &dense::BuildError) -> String {
    let mut innermost: &dyn std::error::Error = error;
    let mut large = error.is_size_limit_exceeded();
    while let Some(source) = innermost.source() {
        innermost = source;
        let early = innermost.downcast_ref::<thompson::BuildError>();
        large |= early.is_some_and(|error| error.size_limit().is_some());
    }
    if large {
        return "takes too much memory when it is compiled".to_owned();
    }
    let text = innermost.to_string();
    let line = text.lines().last().unwrap_or_default();
    format!("is no regular expression: {}", line.trim_start_matches("error: "))
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl std::fmt::Debug for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pattern({:?})", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_anywhere_unless_anchored() {
        let found = |text: &str, bytes: &[u8]| Pattern::new(text).unwrap().is_match(bytes);
        assert!(found("b+", b"abbc") && !found("^b+", b"abbc") && found("^ab+c$", b"abbc"));
        assert!(found("", b"") && found("x?", b"y"));
        assert!(found(r"(?i)\.(JPG|png)$", b"/a.jpg") && !found(r"\.jpg$", b"/a.JPG"));
        assert!(found(r"^/v\d{1,3}/\w+$", b"/v12/a_b") && !found(r"^/v\d{1,3}/", b"/v1234/"));
        assert!(found("\u{fc}", "x\u{fc}".as_bytes()) && found(r"\xff", b"\xff"));
        assert!(found(r"\bapi\b", b"/api/") && !found(r"\bapi\b", b"/apis/"));
    }

    /// Bad and greedy expressions are refused with a reason, before they cost anything.
    #[test]
    fn refused() {
        for bad in ["(", "[z-a]", "*", r"\p{Greek}", "a{2,1}"] {
            let why = Pattern::new(bad).unwrap_err();
            assert!(why.starts_with("is no regular expression: "), "{bad}: {why}");
            assert!(!why.contains('\n') && why.len() > 30, "{bad}: {why}");
        }
        for greedy in ["[ab]*a[ab]{20}", "a{60000}", "(a{500}){500}", "(.{1,500}x){3}y"] {
            let why = Pattern::new(greedy).unwrap_err();
            assert!(why.contains("too much memory"), "{greedy}: {why}");
        }
    }
}
