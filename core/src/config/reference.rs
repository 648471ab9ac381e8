//! Pure: prints the reference of all keys as Markdown, which is committed as
//! `docs/configuration.md` and compared with this by a test.

use super::keys::{self, Effect, Key, Kind, Preset, SECTIONS, Section, Stage};
use super::values::in_units;

const INTRODUCTION: &str = "\
# Configuration reference

<!-- Generated from core/src/config/keys by a test; run it with WEIR_BLESS=1 to write it anew. -->

Weir reads a TOML file and what it includes, 16 MiB together at most. `weir check --config FILE`
reports every mistake at once, each as `FILE:LINE:COLUMN: key: message [rule]` with an excerpt and
a cure. Unknown keys are errors. `examples/` has files to start from; the rules named here are rows
of `docs/requirements.md`.

- **Ids.** Without `id` an object's id is UUIDv5 of kind, balancer and name: the same after every
  reload and on every node. Pools and members belong to no balancer; a member's name counts
  together with its pool's.
- **Names** have 1 to 255 characters, none of them a control character.
- **Addresses** are IP addresses; names are not looked up.
- **Networks** are written as 10.0.0.0/8, without bits beyond the length; an address stands for
  itself alone.
- **Times.** Each key takes one form only, which its type says: *whole seconds* or *whole minutes*
  are bare numbers (`keepalive_timeout = 60`), a *string with a unit* has one of us, ms, s, m, h
  (`spin = \"50us\"`).
- **Ranges** include both bounds.
- **Protocols** says which listeners or pools (in `healthmonitor`: which kinds of check) have the
  key; with others it may only say its default.
- **Supported** says what this version honours. The rest is read and checked in the same way; a
  value other than the default is then refused with \"not supported yet\", so that nothing is
  ignored.
- **Effect** says when a change takes effect: *reload*; *new object* (at a reload, as the old
  object's end and a new one's beginning); *restart* (`weir upgrade` or a new start).

";

/// The reference page of the configuration format, in Markdown.
#[must_use]
pub fn reference_markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    for section in SECTIONS {
        page += &section_markdown(section);
    }
    page
}

fn section_markdown(section: &Section) -> String {
    let title = match section.name {
        "" => "Top of the file".to_owned(),
        _ => format!("`{}`", title_of(section)),
    };
    let mut text = format!("## {title}\n\n{}\n\n", section.doc);
    let part = part_of(section);
    if let Some(part) = part {
        text += &format!("**Not supported yet**: comes with {part}.\n\n");
    }
    text += "| Key | Type | Range | Default | Protocols | Effect | Rule | Supported | Meaning |\n";
    text += "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";
    for key in keys::all().filter(|key| key.section == section.name) {
        let protocols = if key.protocols.is_empty() { "all" } else { key.protocols };
        let cells = [
            format!("`{}`", key.name),
            type_of(&key.kind),
            range_of(&key.kind),
            default_of(&key.preset),
            protocols.to_owned(),
            effect_of(key.effect).to_owned(),
            dash(key.row),
            supported(key, part),
            key.doc.to_owned(),
        ];
        text += &row(&cells);
    }
    text + "\n"
}

/// The heading of a section as it stands in a file; one that is a key's table as that key.
fn title_of(section: &Section) -> String {
    let key = section.name.rsplit_once('.').and_then(|(above, name)| keys::find(above, name));
    match (key, section.name.split_once('.')) {
        (Some(key), Some((above, _))) => {
            let above = keys::section(above).map_or_else(String::new, Section::heading);
            match section.repeats {
                true => format!("{above} {} = [{{ … }}]", key.name),
                false => format!("{above} {} = {{ … }}", key.name),
            }
        }
        _ => section.heading(),
    }
}

/// The part of Weir that brings a whole section; `None` where the section is honoured.
fn part_of(section: &Section) -> Option<&'static str> {
    if let Stage::Later(part) = section.stage {
        return Some(part);
    }
    let (above, name) = section.name.rsplit_once('.')?;
    match keys::find(above, name).map(|key| key.stage) {
        Some(Stage::Later(part)) => Some(part),
        _ => part_of(keys::section(above)?),
    }
}

fn supported(key: &Key, part: Option<&str>) -> String {
    let later = match key.stage {
        Stage::Later(part) => Some(part),
        Stage::Now => part,
    };
    match (later, key.kind) {
        (Some(part), _) => format!("not yet: {part}"),
        (None, Kind::Choice(_, [])) => "yes".to_owned(),
        (None, Kind::Choice(_, later)) => {
            let words: Vec<_> =
                later.iter().map(|(word, part)| format!("`\"{word}\"` ({part})")).collect();
            format!("yes; not yet: {}", words.join(", "))
        }
        (None, _) => "yes".to_owned(),
    }
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
        Kind::Minutes(..) => "whole minutes".to_owned(),
        Kind::Duration(..) => "string with a unit".to_owned(),
        Kind::Bool => "boolean".to_owned(),
        Kind::Name | Kind::Choice(..) => "string".to_owned(),
        Kind::Uuid => "string (UUID)".to_owned(),
        Kind::Reference(kind) => format!("name of a `[[{kind}]]`"),
        Kind::References(kind) => format!("list of names of `[[{kind}]]`"),
        Kind::Addresses => "list of addresses".to_owned(),
        Kind::Networks => "list of networks".to_owned(),
        Kind::Table => "table, below".to_owned(),
        Kind::Tables => "list of tables, below".to_owned(),
        Kind::Shape(shape, _) => (*shape).to_owned(),
    }
}

fn range_of(kind: &Kind) -> String {
    match kind {
        Kind::Integer(low, high) | Kind::Seconds(low, high) | Kind::Minutes(low, high)
            if low == high =>
        {
            low.to_string()
        }
        Kind::Integer(low, high) | Kind::Seconds(low, high) | Kind::Minutes(low, high) => {
            format!("{low}–{high}")
        }
        Kind::Duration(low, high) => format!("{}–{}", in_units(*low), in_units(*high)),
        Kind::Bool => "true, false".to_owned(),
        Kind::Choice(now, later) => {
            let all: Vec<_> =
                now.iter().copied().chain(later.iter().map(|(word, _)| *word)).collect();
            words(&all)
        }
        Kind::Addresses => "IP addresses, none twice".to_owned(),
        Kind::Networks => "CIDR, or an address".to_owned(),
        Kind::Shape(_, range) => dash(range),
        Kind::Name => "1–255 characters".to_owned(),
        Kind::Uuid | Kind::Reference(_) | Kind::References(_) | Kind::Table | Kind::Tables => {
            dash("")
        }
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
