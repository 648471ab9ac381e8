//! One row per key of a configuration file: the single source of what the reader accepts, of the
//! error it gives, and of `docs/configuration.md`.
//!
//! Owns names, types, defaults, ranges and documentation. Doesn't read anything: `reader` does,
//! driven by these rows; `reference` prints them. What the format has and this version can't
//! honour stands here too, as [`Stage::Later`]: it is read and checked like the rest, and refused
//! by name where it is used.

mod back;
mod front;
mod policy;
mod process;
mod sections;

use std::collections::HashMap;
use std::sync::LazyLock;

pub(super) use sections::SECTIONS;

/// Does this version honour a key, or only know it?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Honoured.
    Now,
    /// Part of the format; a value other than the default is refused as "not supported yet". Says
    /// which part of Weir brings it.
    Later(&'static str),
}

/// When a change of the value takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// At the next reload.
    Reload,
    /// At the next reload; the old object is deleted and a new one made (the value is immutable).
    Replace,
    /// When the binary is replaced or started anew.
    Upgrade,
}

/// The type of a value, with what bounds it. Bounds are inclusive (R6.7-10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A whole number.
    Integer(u64, u64),
    /// A whole number of seconds.
    Seconds(u64, u64),
    /// A whole number of minutes.
    Minutes(u64, u64),
    /// A string with a unit, between these numbers of microseconds.
    Duration(u64, u64),
    /// `true` or `false`.
    Bool,
    /// A string that names an object: 1–255 characters, none of them a control character.
    Name,
    /// A UUID as a string.
    Uuid,
    /// The name of an object of the given kind.
    Reference(&'static str),
    /// A list of such names.
    References(&'static str),
    /// One of some words: those honoured now, and those that come later, each with its part.
    Choice(&'static [&'static str], &'static [(&'static str, &'static str)]),
    /// A list of IP addresses.
    Addresses,
    /// A list of networks, or addresses.
    Networks,
    /// A table, whose keys are a section of their own.
    Table,
    /// A list of tables, whose keys are a section of their own.
    Tables,
    /// Any other type, told as text: type, then range.
    Shape(&'static str, &'static str),
}

/// What holds when the key is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Preset {
    /// The key must be given.
    Required,
    /// A number.
    Number(u64),
    /// TOML text of the value.
    Text(&'static str),
    /// No value; the sentence says what that means.
    Absent(&'static str),
}

/// One key of one section.
#[derive(Debug)]
pub(super) struct Key {
    /// Name of the section, as in [`Section::name`].
    pub section: &'static str,
    /// The key itself.
    pub name: &'static str,
    /// Type and range.
    pub kind: Kind,
    /// Default.
    pub preset: Preset,
    /// Listener, pool or check protocols that have the key, by ", "; empty = all.
    pub protocols: &'static str,
    /// When a change takes effect.
    pub effect: Effect,
    /// Requirement row that states it; empty = the format's own.
    pub row: &'static str,
    /// Honoured or only known.
    pub stage: Stage,
    /// One sentence of documentation.
    pub doc: &'static str,
}

impl Key {
    /// The requirement row, if one states this key.
    pub(super) fn rule(&self) -> Option<&'static str> {
        (!self.row.is_empty()).then_some(self.row)
    }

    /// Does an object of this protocol have the key?
    pub(super) fn serves(&self, protocol: &str) -> bool {
        self.protocols.is_empty() || self.protocols.split(", ").any(|word| word == protocol)
    }
}

/// One table of the file.
#[derive(Debug)]
pub(super) struct Section {
    /// Dotted name without brackets; the root is "".
    pub name: &'static str,
    /// Written `[[name]]`, any number of times.
    pub repeats: bool,
    /// Honoured, or refused wherever it stands.
    pub stage: Stage,
    /// What the section is for.
    pub doc: &'static str,
}

impl Section {
    /// The name as it stands in a file: `[[listener]]`, `[runtime]`, "the top of the file".
    pub(super) fn heading(&self) -> String {
        match (self.name, self.repeats) {
            ("", _) => "the top of the file".to_owned(),
            (name, true) => format!("[[{name}]]"),
            (name, false) => format!("[{name}]"),
        }
    }
}

/// Every key of the format, in the order in which the reference lists them.
pub(super) fn all() -> impl Iterator<Item = &'static Key> {
    [process::KEYS, front::KEYS, back::KEYS, policy::KEYS].into_iter().flatten()
}

/// The row of a key, `None` if the section has no such key.
pub(super) fn find(section: &str, name: &str) -> Option<&'static Key> {
    static INDEX: LazyLock<HashMap<&str, HashMap<&str, &Key>>> = LazyLock::new(|| {
        let mut index: HashMap<&str, HashMap<&str, &Key>> = HashMap::new();
        for key in all() {
            index.entry(key.section).or_default().insert(key.name, key);
        }
        index
    });
    INDEX.get(section)?.get(name).copied()
}

/// The section of that name, `None` if there is none.
pub(super) fn section(name: &str) -> Option<&'static Section> {
    SECTIONS.iter().find(|section| section.name == name)
}

/// Every word that may stand as a key in a section: its keys and the sections right below it.
pub(super) fn words_of(section: &'static str) -> impl Iterator<Item = &'static str> {
    let keys = all().filter(move |key| key.section == section).map(|key| key.name);
    keys.chain(SECTIONS.iter().filter_map(move |below| child_name(section, below.name)))
}

/// `"members"` for `("pool", "pool.members")`; `None` unless right below `parent`.
fn child_name(parent: &str, name: &'static str) -> Option<&'static str> {
    let rest = match parent {
        "" => name,
        _ => name.strip_prefix(parent)?.strip_prefix('.')?,
    };
    (!rest.is_empty() && !rest.contains('.')).then_some(rest)
}

/// Keeps a row on two lines: name, kind, default, protocols, effect, requirement row, stage, then
/// the documentation. Every field becomes one of [`Key`].
macro_rules! keys {
    ($([$section:literal] $(
        $name:literal: $kind:expr, $preset:expr, $protocols:expr, $effect:ident,
            $row:literal, $stage:expr,
            $doc:expr;
    )*)*) => {
        /// The rows.
        pub(super) const KEYS: &[Key] = &[$($(Key {
            section: $section, name: $name, kind: $kind, preset: $preset, protocols: $protocols,
            effect: $effect, row: $row, stage: $stage, doc: $doc,
        },)*)*];
    };
}
use keys;

/// Protocols of a row: all of them.
const ALL: &str = "";
/// Protocols of a row: those of Layer 4.
const L4: &str = "TCP, UDP";
/// Protocols of a row: those of Layer 7.
const L7: &str = "HTTP, HTTPS";
const NONE: Preset = Preset::Absent("none");
const EMPTY: Preset = Preset::Text("\"\"");
const NO_ENTRY: Preset = Preset::Text("[]");
const YES: Preset = Preset::Text("true");
const NO: Preset = Preset::Text("false");
const ID: Preset = Preset::Absent("derived");
const ID_DOC: &str = "Identity; without one it is UUIDv5 of kind, balancer and name, \
    the same after every reload and on every node.";

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn rows_are_unique_and_belong_to_a_section() {
        let mut seen = HashSet::new();
        for key in all() {
            assert!(section(key.section).is_some(), "{key:?}");
            assert!(seen.insert((key.section, key.name)), "twice: {key:?}");
            assert!(key.doc.ends_with(['.', '?']), "{key:?}");
            if matches!(key.kind, Kind::Table | Kind::Tables) {
                let below = section(&format!("{}.{}", key.section, key.name));
                let repeats = below.map(|section| section.repeats);
                assert_eq!(repeats, Some(key.kind == Kind::Tables), "{key:?}");
            }
        }
    }

    #[test]
    fn defaults_lie_in_their_ranges() {
        for key in all() {
            if let (
                Kind::Integer(low, high) | Kind::Seconds(low, high) | Kind::Minutes(low, high),
                Preset::Number(default),
            ) = (key.kind, key.preset)
            {
                assert!((low..=high).contains(&default), "{key:?}");
            }
            if let (Kind::Choice(now, _), Preset::Text(text)) = (key.kind, key.preset) {
                assert!(now.contains(&text.trim_matches('"')), "{key:?}");
            }
        }
    }

    #[test]
    fn words_are_the_keys_and_the_sections_right_below() {
        let root: Vec<_> = words_of("").collect();
        assert!(root.contains(&"version") && root.contains(&"listener"));
        assert!(!root.contains(&"members") && !root.contains(&"pool.members"));
        assert!(words_of("pool").any(|word| word == "members"));
    }
}
