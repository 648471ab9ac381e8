//! Pure: prints the reference of all keys as Markdown, which is committed as
//! `docs/configuration.md` and compared with this by a test.

use super::keys::{self, Effect, KEYS, Key, Kind, Preset, SECTIONS, Section, Stage};

const INTRODUCTION: &str = "\
# Configuration reference

<!-- Generated from core/src/config/keys by a test; run it with WEIR_BLESS=1 to write it anew. -->

Weir reads one TOML file of at most 16 MiB. `weir check --config FILE` reports every mistake in it
at once, each as `FILE:LINE:COLUMN: key: message [rule]` with an excerpt and a cure. Unknown keys
are errors. `examples/` has files to start from; the rules named here are rows of
`docs/requirements.md`.

- **Ids.** Without `id` an object's id is UUIDv5 of kind, balancer and name: the same after every
  reload and on every node. Pools and members belong to no balancer; a member's name counts
  together with its pool's.
- **Names** have 1 to 255 characters, none of them a control character.
- **Addresses** are IP addresses; names are not looked up.
- **Ranges** include both bounds.
- **Effect** says when a change takes effect: *reload*; *new object* (at a reload, as the old
  object's end and a new one's beginning); *restart* (`weir upgrade` or a new start).

";

const LATER: &str = "\
## Known, not supported yet

The format names these keys and sections; this version refuses them with \"not supported yet\".

";

/// The reference page of the configuration format, in Markdown.
#[must_use]
pub fn reference_markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    for section in SECTIONS.iter().filter(|section| section.stage == Stage::Now) {
        page += &section_markdown(section);
    }
    page += LATER;
    page += "| Key | Type | Range | Default | Rule | Meaning |\n";
    page += "| --- | --- | --- | --- | --- | --- |\n";
    for key in KEYS.iter().filter(|key| key.stage == Stage::Later) {
        page += &later_row(key);
    }
    page += &later_words();
    page
}

fn section_markdown(section: &Section) -> String {
    let title = match section.name {
        "" => "Top of the file".to_owned(),
        _ => format!("`{}`", section.heading()),
    };
    let mut text = format!("## {title}\n\n{}\n\n", section.doc);
    text += "| Key | Type | Range | Default | Protocols | Effect | Rule | Meaning |\n";
    text += "| --- | --- | --- | --- | --- | --- | --- | --- |\n";
    let here = |key: &&Key| key.section == section.name && key.stage == Stage::Now;
    for key in KEYS.iter().filter(here) {
        let protocols = if key.protocols.is_empty() { "all" } else { key.protocols };
        let cells = [
            format!("`{}`", key.name),
            type_of(&key.kind),
            range_of(&key.kind),
            default_of(&key.preset),
            protocols.to_owned(),
            effect_of(key.effect).to_owned(),
            dash(key.row),
            key.doc.to_owned(),
        ];
        text += &row(&cells);
    }
    text + "\n"
}

fn later_row(key: &Key) -> String {
    let place = keys::section(key.section).map_or_else(String::new, Section::heading);
    let place = if key.section.is_empty() { String::new() } else { format!("{place} ") };
    row(&[
        format!("`{place}{}`", key.name),
        type_of(&key.kind),
        range_of(&key.kind),
        default_of(&key.preset),
        dash(key.row),
        key.doc.to_owned(),
    ])
}

/// Values that a supported key can't take yet.
fn later_words() -> String {
    let mut text = "\nValues of supported keys that are not supported yet:\n\n".to_owned();
    for key in KEYS.iter().filter(|key| key.stage == Stage::Now) {
        if let Kind::Choice(_, later) = key.kind
            && !later.is_empty()
        {
            let heading = keys::section(key.section).map_or_else(String::new, Section::heading);
            text += &format!("- `{heading} {}`: {}\n", key.name, words(later));
        }
    }
    text
}

fn row(cells: &[String]) -> String {
    let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |\n", cells.join(" | "))
}

fn dash(text: &str) -> String {
    if text.is_empty() { "–".to_owned() } else { text.to_owned() }
}

fn words(list: &[&str]) -> String {
    list.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", ")
}

fn type_of(kind: &Kind) -> String {
    match kind {
        Kind::Integer(..) => "integer".to_owned(),
        Kind::Seconds(..) => "whole seconds".to_owned(),
        Kind::Name | Kind::Choice(..) => "string".to_owned(),
        Kind::Uuid => "string (UUID)".to_owned(),
        Kind::Reference(kind) => format!("name of a `[[{kind}]]`"),
        Kind::Shape(shape, _) => (*shape).to_owned(),
    }
}

fn range_of(kind: &Kind) -> String {
    match kind {
        Kind::Integer(low, high) | Kind::Seconds(low, high) if low == high => low.to_string(),
        Kind::Integer(low, high) | Kind::Seconds(low, high) => format!("{low}–{high}"),
        Kind::Choice(now, later) => words(if now.is_empty() { later } else { now }),
        Kind::Shape(_, range) => dash(range),
        Kind::Name => "1–255 characters".to_owned(),
        Kind::Uuid | Kind::Reference(_) => dash(""),
    }
}

fn default_of(preset: &Preset) -> String {
    match preset {
        Preset::Required => "**required**".to_owned(),
        Preset::Number(number) => format!("`{number}`"),
        Preset::Text(text) => format!("`{text}`"),
        Preset::Absent(meaning) => (*meaning).to_owned(),
    }
}

fn effect_of(effect: Effect) -> &'static str {
    match effect {
        Effect::Reload => "reload",
        Effect::Replace => "new object",
        Effect::Upgrade => "restart",
    }
}
