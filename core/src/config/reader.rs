//! Reads typed values out of one parsed table, driven by the rows of `keys`.
//!
//! Owns the errors that a single key can have: unknown, not supported yet, missing, of the wrong
//! type, out of range. Every getter reports what it finds and goes on with `None`. Doesn't compare
//! keys with each other: `document` and `resolve` do.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::keys::{self, Key, Kind, Preset, Stage};
use super::problem::{Finding, Findings, quoted, shown};
use super::suggest::nearest;
use super::values::Fault;

/// A value with its place.
pub(super) type Found<'t, 'i> = &'t Spanned<DeValue<'i>>;

/// One table of the file, with the section that it is.
#[derive(Clone, Debug)]
pub(super) struct Table<'t, 'i> {
    section: &'static str,
    /// Path from the root, such as `listener[1]`; empty for the root.
    pub path: String,
    /// Where the table begins: its header, or its braces.
    pub span: Range<usize>,
    entries: &'t DeTable<'i>,
}

impl<'t, 'i> Table<'t, 'i> {
    /// The root of a document.
    pub(super) fn root(entries: &'t DeTable<'i>) -> Self {
        Self { section: "", path: String::new(), span: 0..0, entries }
    }

    /// A section that the file doesn't have: every key has its default.
    pub(super) fn absent(section: &'static str, empty: &'t DeTable<'i>) -> Self {
        Self { section, path: section.to_owned(), span: 0..0, entries: empty }
    }

    /// The path of a key of this table.
    pub(super) fn at(&self, key: &str) -> String {
        match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }

    /// Reports keys that nobody knows, and those that this version can't honour.
    pub(super) fn check_keys(&self, findings: &mut Findings) {
        for (key, value) in self.entries {
            let name = key.get_ref().as_ref();
            if let Some(row) = keys::find(self.section, name) {
                if row.stage == Stage::Later {
                    let what = "is not supported yet";
                    later(findings.error(key.span(), self.at(name), what), row.rule());
                }
            } else if let Some(section) = keys::section(&join(self.section, name)) {
                if section.stage == Stage::Later {
                    self.refuse_section(section, key, value, findings);
                }
            } else {
                self.unknown(key.span(), name, findings);
            }
        }
    }

    /// Refuses a section of a later version, once for each time it stands in the file, and still
    /// names the keys in it that no version knows.
    fn refuse_section(
        &self,
        section: &'static keys::Section,
        key: &Spanned<impl AsRef<str>>,
        value: Found<'t, 'i>,
        findings: &mut Findings,
    ) {
        let name = key.get_ref().as_ref();
        let what = format!("{} is not supported yet", section.heading());
        let tables = self.tables_in(section, name, value);
        if tables.is_empty() {
            later(findings.error(key.span(), self.at(name), what.clone()), None);
        }
        for table in tables {
            later(findings.error(table.span.clone(), table.path.clone(), what.clone()), None);
            for key in table.entries.keys() {
                let word = key.get_ref().as_ref();
                if !keys::words_of(section.name).any(|known| known == word) {
                    table.unknown(key.span(), word, findings);
                }
            }
        }
    }

    fn unknown(&self, span: Range<usize>, name: &str, findings: &mut Findings) {
        let near = nearest(name, keys::words_of(self.section));
        let elsewhere = keys::KEYS.iter().find(|key| key.name == name);
        let heading = keys::section(self.section).map_or_else(String::new, |here| here.heading());
        let help = match (near, elsewhere.and_then(|key| keys::section(key.section))) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, Some(section)) => {
                format!("`{name}` is a key of {}, not of {heading}", section.heading())
            }
            (None, None) => format!("docs/configuration.md lists the keys of {heading}"),
        };
        let shown = if name.is_empty() { "\"\"".to_owned() } else { shown(name) };
        findings.error(span, self.at(&shown), "unknown key").help(help);
    }

    /// The tables of a section right below this one; its wrong types are reported, and what still
    /// can be read is returned, so that the mistakes inside are found in the same run.
    pub(super) fn tables(&self, name: &str, findings: &mut Findings) -> Vec<Table<'t, 'i>> {
        let Some((key, value)) = self.entries.get_key_value(name) else { return Vec::new() };
        let Some(section) = keys::section(&join(self.section, name)) else { return Vec::new() };
        let heading = section.heading();
        let wrong = match value.get_ref() {
            DeValue::Table(_) => section.repeats,
            DeValue::Array(list) if section.repeats => {
                self.report_strangers(name, list.iter(), &heading, findings);
                false
            }
            _ => true,
        };
        if wrong {
            let what = format!("is {}, not {heading}", describe(value));
            let help = format!("begin the section with {heading}");
            findings.error(key.span(), self.at(name), what).help(help);
        }
        self.tables_in(section, name, value)
    }

    fn report_strangers<'a>(
        &self,
        name: &str,
        list: impl Iterator<Item = &'a Spanned<DeValue<'a>>>,
        heading: &str,
        findings: &mut Findings,
    ) {
        for (index, element) in
            list.enumerate().filter(|(_, element)| !element.get_ref().is_table())
        {
            let what = format!("is {}, not a table", describe(element));
            findings
                .error(element.span(), format!("{}[{index}]", self.at(name)), what)
                .help(format!("write {heading} tables, or a list of {{ key = value, … }}"));
        }
    }

    fn tables_in(
        &self,
        section: &'static keys::Section,
        name: &str,
        value: Found<'t, 'i>,
    ) -> Vec<Table<'t, 'i>> {
        let table = |path: String, value: Found<'t, 'i>| {
            let entries = value.get_ref().as_table()?;
            Some(Table { section: section.name, path, span: value.span(), entries })
        };
        let path = self.at(name);
        match value.get_ref() {
            DeValue::Array(list) => list
                .iter()
                .enumerate()
                .filter_map(|(index, element)| table(format!("{path}[{index}]"), element))
                .collect(),
            _ if section.repeats => table(format!("{path}[0]"), value).into_iter().collect(),
            _ => table(path, value).into_iter().collect(),
        }
    }

    /// The value of a key; reports it missing if its row says that it must be there.
    pub(super) fn value(&self, name: &str, findings: &mut Findings) -> Option<Found<'t, 'i>> {
        let found = self.entries.get(name);
        if found.is_none()
            && let Some(row) = self.row(name)
            && row.preset == Preset::Required
        {
            findings
                .error(self.span.clone(), self.at(name), "is missing")
                .row(row.rule())
                .help(format!("add `{name} = …`: {}", row.doc));
        }
        found
    }

    /// The row of a key that the reader asks for.
    fn row(&self, name: &str) -> Option<&'static Key> {
        let row = keys::find(self.section, name);
        debug_assert!(row.is_some(), "no row for {name} in [{}]", self.section);
        row
    }

    /// A whole number in the row's range; the row's default when absent. `None` when it is wrong,
    /// or absent without a default.
    pub(super) fn number(&self, name: &str, findings: &mut Findings) -> Option<Spanned<u64>> {
        let row = self.row(name)?;
        let Some(value) = self.value(name, findings) else {
            let Preset::Number(default) = row.preset else { return None };
            return Some(Spanned::new(self.span.clone(), default));
        };
        let (Kind::Integer(low, high) | Kind::Seconds(low, high)) = row.kind else { return None };
        let unit = if matches!(row.kind, Kind::Seconds(..)) { " s" } else { "" };
        let DeValue::Integer(number) = value.get_ref() else {
            let help = format!("write a bare whole number from {low} to {high}");
            self.wrong_type(row, value, "a whole number", findings).help(help);
            return None;
        };
        match read_integer(number).filter(|number| (low..=high).contains(number)) {
            Some(number) => Some(Spanned::new(value.span(), number)),
            None => {
                let what = format!("{} is out of range: {low} to {high}{unit}", describe(value));
                let help = match low == high {
                    true => format!("write {low}, the only value that this version takes"),
                    false => format!("write a whole number from {low} to {high}, bounds included"),
                };
                findings.error(value.span(), self.at(name), what).row(row.rule()).help(help);
                None
            }
        }
    }

    /// A string, turned into a typed value.
    pub(super) fn text<T>(
        &self,
        name: &str,
        findings: &mut Findings,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<Spanned<T>> {
        let row = self.row(name)?;
        let value = self.value(name, findings)?;
        self.text_of(row, self.at(name), value, findings, parse)
    }

    /// As [`Table::text`], of a value at hand (an element of a list, say) with its path.
    pub(super) fn text_of<T>(
        &self,
        row: &'static Key,
        path: String,
        value: Found<'t, 'i>,
        findings: &mut Findings,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<Spanned<T>> {
        let DeValue::String(text) = value.get_ref() else {
            let help = format!("write a string: {} = \"…\"", row.name);
            self.wrong_type(row, value, "a string", findings).help(help);
            return None;
        };
        match parse(text) {
            Ok(parsed) => Some(Spanned::new(value.span(), parsed)),
            Err(fault) => {
                let what = format!("{} {}", quoted(text), fault.what);
                let rule = fault.row.or(row.rule());
                findings.error(value.span(), path, what).row(rule).help(fault.cure);
                None
            }
        }
    }

    /// A string or a list of strings, each turned into a typed value; `None` when absent.
    pub(super) fn texts<T>(
        &self,
        name: &str,
        findings: &mut Findings,
        parse: impl Fn(&str) -> Result<T, Fault>,
    ) -> Option<Vec<Spanned<T>>> {
        let row = self.row(name)?;
        let value = self.value(name, findings)?;
        let path = self.at(name);
        let DeValue::Array(list) = value.get_ref() else {
            let one = self.text_of(row, path, value, findings, parse);
            return Some(one.into_iter().collect());
        };
        if list.is_empty() {
            findings
                .error(value.span(), path, "is an empty list")
                .row(row.rule())
                .help("name at least one, or leave the key out");
            return Some(Vec::new());
        }
        let mut texts = Vec::new();
        for (index, element) in list.iter().enumerate() {
            let path = format!("{path}[{index}]");
            texts.extend(self.text_of(row, path, element, findings, &parse));
        }
        Some(texts)
    }

    /// One of the row's words. `None` when it is wrong, of a later version, or absent.
    pub(super) fn choice(
        &self,
        name: &str,
        findings: &mut Findings,
    ) -> Option<Spanned<&'static str>> {
        let row = self.row(name)?;
        let Kind::Choice(now, later_words) = row.kind else { return None };
        let value = self.value(name, findings)?;
        let DeValue::String(text) = value.get_ref() else {
            let help = format!("write one of {}", words(now));
            self.wrong_type(row, value, "a string", findings).help(help);
            return None;
        };
        if let Some(word) = now.iter().find(|word| *word == text) {
            return Some(Spanned::new(value.span(), word));
        }
        if later_words.iter().any(|word| word == text) {
            let what = format!("{} is not supported yet", quoted(text));
            let help = format!("this version takes {}", words(now));
            findings.error(value.span(), self.at(name), what).row(row.rule()).help(help);
            return None;
        }
        let near = nearest(text, now.iter().chain(later_words).copied());
        let help = near.map_or_else(
            || format!("write one of {}", words(now)),
            |near| format!("did you mean \"{near}\"?"),
        );
        let what = format!("{} is not one of its values", quoted(text));
        findings.error(value.span(), self.at(name), what).row(row.rule()).help(help);
        None
    }

    /// Reports a value of the wrong type.
    pub(super) fn wrong_type<'f>(
        &self,
        row: &'static Key,
        value: Found<'t, 'i>,
        wanted: &str,
        findings: &'f mut Findings,
    ) -> &'f mut Finding {
        let what = format!("{} is not {wanted}", describe(value));
        findings.error(value.span(), self.at(row.name), what).row(row.rule())
    }
}

fn later(finding: &mut Finding, row: Option<&'static str>) {
    finding.row(row).help("take it out: the format has it, this version does not do it");
}

fn join(section: &str, name: &str) -> String {
    match section {
        "" => name.to_owned(),
        _ => format!("{section}.{name}"),
    }
}

fn words(list: &[&str]) -> String {
    list.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}

/// The number, `None` if it is negative or beyond 64 bits.
pub(super) fn read_integer(number: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// A value in the words of an error: scalars as they are, the rest by its type.
pub(super) fn describe(value: Found<'_, '_>) -> String {
    match value.get_ref() {
        DeValue::String(text) => quoted(text),
        DeValue::Integer(number) => shown(&number.to_string()),
        DeValue::Float(number) => shown(&number.to_string()),
        DeValue::Boolean(boolean) => boolean.to_string(),
        DeValue::Datetime(datetime) => datetime.to_string(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
