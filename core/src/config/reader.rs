//! Reads typed values out of one parsed table, driven by the rows of `keys`.
//!
//! Owns the errors that a single key can have: unknown, not supported yet, missing, of the wrong
//! type, out of range. Every getter reports what it finds and goes on with `None`. Doesn't compare
//! keys with each other: `read` and `rules` do.

use std::ops::Range;
use std::time::Duration;

use ipnet::IpNet;
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::keys::{self, Key, Kind, Preset, Section, Stage};
use super::problem::{Finding, Findings, Placed, Span, quoted, shown};
use super::suggest::{ending, nearest};
use super::values::{self, Fault};

/// A value with its place inside its file.
pub(super) type Found<'t, 'i> = &'t Spanned<DeValue<'i>>;

/// One table of a file, with the section that it is.
#[derive(Clone, Debug)]
pub(super) struct Table<'t, 'i> {
    section: &'static str,
    /// Path from the root, such as `listener[1]`; empty for the root.
    pub path: String,
    /// Where the table begins: its header, or its braces.
    pub span: Span,
    file: usize,
    entries: &'t DeTable<'i>,
}

impl<'t, 'i> Table<'t, 'i> {
    /// The root of the file with that number.
    pub(super) fn root(entries: &'t DeTable<'i>, file: usize) -> Self {
        Self { section: "", path: String::new(), span: Span::new(file, 0..0), file, entries }
    }

    /// The path of a key of this table.
    pub(super) fn at(&self, key: &str) -> String {
        match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }

    /// The place of a range of this table's file.
    pub(super) fn place(&self, range: Range<usize>) -> Span {
        Span::new(self.file, range)
    }

    /// The place of a key's value, else of the table.
    pub(super) fn span_of(&self, key: &str) -> Span {
        self.entries.get(key).map_or(self.span, |value| self.place(value.span()))
    }

    /// The place of a key itself, else of the table.
    pub(super) fn key_span(&self, key: &str) -> Span {
        self.entries.get_key_value(key).map_or(self.span, |(key, _)| self.place(key.span()))
    }

    /// Is the key there, right or wrong?
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// A table that is an element of a key's list.
    pub(super) fn element_table(
        &self,
        row: &'static Key,
        path: String,
        value: Found<'t, 'i>,
    ) -> Option<Table<'t, 'i>> {
        let entries = value.get_ref().as_table()?;
        let section = keys::section(&join(row.section, row.name))?.name;
        Some(Table { section, path, span: self.place(value.span()), file: self.file, entries })
    }

    /// The value of a key as it stands.
    pub(super) fn raw(&self, key: &str) -> Option<Found<'t, 'i>> {
        self.entries.get(key)
    }

    /// Reports an error at a key of this table.
    pub(super) fn error<'f>(
        &self,
        key: &str,
        what: impl Into<String>,
        findings: &'f mut Findings,
    ) -> &'f mut Finding {
        findings.error(self.span_of(key), self.at(key), what)
    }

    /// Reports keys that nobody knows.
    pub(super) fn check_keys(&self, findings: &mut Findings) {
        for key in self.entries.keys() {
            let name = key.get_ref().as_ref();
            let known = keys::find(self.section, name).is_some()
                || keys::section(&join(self.section, name)).is_some();
            if !known {
                self.unknown(self.place(key.span()), name, findings);
            }
        }
    }

    /// Reports keys that an object of this protocol doesn't have, unless they say the default or
    /// turn off what it doesn't have.
    pub(super) fn check_protocol(&self, protocol: &str, noun: &str, findings: &mut Findings) {
        for (key, value) in self.entries {
            let name = key.get_ref().as_ref();
            let Some(row) = keys::find(self.section, name) else { continue };
            let off = value.get_ref().as_bool() == Some(false) && row.kind != Kind::Bool;
            if row.serves(protocol) || off || is_default(row, value.get_ref()) {
                continue;
            }
            let what = format!("is a key of {}, not of {protocol}", row.protocols);
            let help = match row.row {
                // R12.3-1 wants both cures.
                "R6.2-2" => {
                    "make an HTTPS listener for it, or install it on the members".to_owned()
                }
                _ => format!("take it out, or give the {noun} another protocol"),
            };
            findings.error(self.place(key.span()), self.at(name), what).row(row.rule()).help(help);
        }
    }

    fn unknown(&self, span: Span, name: &str, findings: &mut Findings) {
        if findings.is_full() {
            findings.error(span, "", "unknown key");
            return;
        }
        let near = nearest(name, keys::words_of(self.section))
            .or_else(|| ending(name, keys::words_of(self.section)));
        let elsewhere = keys::all().find(|key| key.name == name);
        let heading = keys::section(self.section).map_or_else(String::new, Section::heading);
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
            findings.error(self.place(key.span()), self.at(name), what).help(help);
        }
        let tables = self.tables_in(section, name, value);
        if let Stage::Later(part) = section.stage {
            for table in &tables {
                let what = format!("{heading} {}", later(part));
                findings
                    .error(table.span, table.path.clone(), what)
                    .help("take it out; what stands in it is checked all the same");
            }
        }
        for table in &tables {
            table.check_keys(findings);
        }
        tables
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
                .error(self.place(element.span()), format!("{}[{index}]", self.at(name)), what)
                .help(format!("write {heading} tables, or a list of {{ key = value, … }}"));
        }
    }

    fn tables_in(
        &self,
        section: &'static Section,
        name: &str,
        value: Found<'t, 'i>,
    ) -> Vec<Table<'t, 'i>> {
        let table = |path: String, value: Found<'t, 'i>| {
            let entries = value.get_ref().as_table()?;
            let span = self.place(value.span());
            Some(Table { section: section.name, path, span, file: self.file, entries })
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

    /// A key's row and value; reports it missing if its row says that it must be there.
    fn given(&self, name: &str, findings: &mut Findings) -> Option<(&'static Key, Found<'t, 'i>)> {
        let row = keys::find(self.section, name);
        debug_assert!(row.is_some(), "no row for {name} in [{}]", self.section);
        let row = row?;
        let found = self.entries.get(name);
        if found.is_none() && row.preset == Preset::Required {
            self.missing(name, row.doc, findings).row(row.rule());
        }
        found.map(|value| (row, value))
    }

    /// Reports a key that must be there.
    pub(super) fn missing<'f>(
        &self,
        name: &str,
        doc: &str,
        findings: &'f mut Findings,
    ) -> &'f mut Finding {
        findings
            .error(self.span, self.at(name), "is missing")
            .help(format!("add `{name} = …`: {doc}"))
    }

    /// Reports a sound value that this version can't honour.
    fn accept(&self, row: &'static Key, value: Found<'t, 'i>, findings: &mut Findings) {
        let Stage::Later(part) = row.stage else { return };
        if is_default(row, value.get_ref()) {
            return;
        }
        let what = format!("{} {}", describe(value), later(part));
        let help = match row.preset {
            Preset::Text(text) => format!("take it out, or write the default, {text}"),
            Preset::Number(number) => format!("take it out, or write the default, {number}"),
            _ => "take it out".to_owned(),
        };
        findings
            .error(self.place(value.span()), self.at(row.name), what)
            .row(row.rule())
            .help(help);
    }

    /// A whole number in the row's range.
    pub(super) fn number<T: TryFrom<u64>>(&self, name: &str, findings: &mut Findings) -> Option<T> {
        let (row, value) = self.given(name, findings)?;
        let (low, high, unit) = match row.kind {
            Kind::Integer(low, high) => (low, high, ""),
            Kind::Seconds(low, high) => (low, high, " s"),
            Kind::Minutes(low, high) => (low, high, " min"),
            _ => return None,
        };
        let number = self.whole(row, value, (low, high), unit, findings)?;
        self.accept(row, value, findings);
        T::try_from(number).ok()
    }

    /// A whole number of seconds in the row's range.
    pub(super) fn seconds(&self, name: &str, findings: &mut Findings) -> Option<Duration> {
        self.number(name, findings).map(Duration::from_secs)
    }

    /// A whole number in a range that depends on more than the key.
    pub(super) fn number_in(
        &self,
        name: &str,
        range: (u64, u64),
        unit: &str,
        findings: &mut Findings,
    ) -> Option<u64> {
        let (row, value) = self.given(name, findings)?;
        let number = self.whole(row, value, range, unit, findings)?;
        self.accept(row, value, findings);
        Some(number)
    }

    fn whole(
        &self,
        row: &'static Key,
        value: Found<'t, 'i>,
        (low, high): (u64, u64),
        unit: &str,
        findings: &mut Findings,
    ) -> Option<u64> {
        let DeValue::Integer(number) = value.get_ref() else {
            let unit = match unit.trim() {
                "s" => " of seconds",
                "min" => " of minutes",
                _ => "",
            };
            let help =
                format!("write a bare whole number{unit} from {low} to {high}, without quotes");
            self.wrong_type(row, value, "a whole number", findings).help(help);
            return None;
        };
        let number = read_integer(number).filter(|number| (low..=high).contains(number));
        if number.is_none() {
            let what = format!("{} is out of range: {low} to {high}{unit}", describe(value));
            let help = match low == high {
                true => format!("write {low}, the only value that this version takes"),
                false => format!("write a whole number from {low} to {high}, bounds included"),
            };
            findings
                .error(self.place(value.span()), self.at(row.name), what)
                .row(row.rule())
                .help(help);
        }
        number
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, name: &str, findings: &mut Findings) -> Option<bool> {
        let (row, value) = self.given(name, findings)?;
        let DeValue::Boolean(flag) = value.get_ref() else {
            let help = "write true or false, without quotes";
            self.wrong_type(row, value, "true or false", findings).help(help);
            return None;
        };
        self.accept(row, value, findings);
        Some(*flag)
    }

    /// A time with a unit, in the row's range.
    pub(super) fn duration(&self, name: &str, findings: &mut Findings) -> Option<Duration> {
        let row = keys::find(self.section, name)?;
        let Kind::Duration(low, high) = row.kind else { return None };
        self.text(name, findings, |text| values::duration(text, low, high))
    }

    /// A string, turned into a typed value.
    pub(super) fn text<T>(
        &self,
        name: &str,
        findings: &mut Findings,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<T> {
        self.placed(name, findings, parse).map(|placed| placed.value)
    }

    /// A string, turned into a typed value, with its place.
    pub(super) fn placed<T>(
        &self,
        name: &str,
        findings: &mut Findings,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<Placed<T>> {
        let (row, value) = self.given(name, findings)?;
        let parsed = self.element(row, self.at(name), value, findings, parse)?;
        self.accept(row, value, findings);
        Some(parsed)
    }

    /// A name of another object.
    pub(super) fn reference(&self, name: &str, findings: &mut Findings) -> Option<Placed<String>> {
        self.placed(name, findings, values::name)
    }

    /// A string at hand (an element of a list, say) with its path and its key's row.
    pub(super) fn element<T>(
        &self,
        row: &'static Key,
        path: String,
        value: Found<'t, 'i>,
        findings: &mut Findings,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<Placed<T>> {
        let DeValue::String(text) = value.get_ref() else {
            let what = format!("{} is not a string", describe(value));
            let help = format!("write a string: {} = \"…\"", row.name);
            findings.error(self.place(value.span()), path, what).row(row.rule()).help(help);
            return None;
        };
        match parse(text) {
            Ok(parsed) => Some(Placed { value: parsed, span: self.place(value.span()) }),
            Err(fault) => {
                // A secret must not come back in a message.
                let what = match text.contains("-----BEGIN") {
                    true => format!("the text {}", fault.what),
                    false => format!("{} {}", quoted(text), fault.what),
                };
                let rule = fault.row.or(row.rule());
                findings.error(self.place(value.span()), path, what).row(rule).help(fault.cure);
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
    ) -> Option<Vec<Placed<T>>> {
        let (row, value) = self.given(name, findings)?;
        let path = self.at(name);
        let DeValue::Array(list) = value.get_ref() else {
            let one = self.element(row, path, value, findings, parse)?;
            self.accept(row, value, findings);
            return Some(vec![one]);
        };
        let mut texts = Vec::with_capacity(list.len());
        for (index, element) in list.iter().enumerate() {
            let path = format!("{path}[{index}]");
            texts.extend(self.element(row, path, element, findings, &parse));
        }
        if texts.len() == list.len() {
            self.accept(row, value, findings);
        }
        Some(texts)
    }

    /// A list of networks, in which no address stands twice.
    pub(super) fn networks(&self, name: &str, findings: &mut Findings) -> Option<Vec<IpNet>> {
        let list = self.texts(name, findings, values::network)?;
        Some(list.into_iter().map(|placed| placed.value).collect())
    }

    /// The table of a key, its unknown keys reported.
    pub(super) fn table(&self, name: &str, findings: &mut Findings) -> Option<Table<'t, 'i>> {
        let (row, value) = self.given(name, findings)?;
        let tables = self.tables(name, findings);
        if !tables.is_empty() {
            self.accept(row, value, findings);
        }
        tables.into_iter().next()
    }

    /// One of the row's words. `None` when it is wrong or absent.
    pub(super) fn choice(&self, name: &str, findings: &mut Findings) -> Option<&'static str> {
        let (row, value) = self.given(name, findings)?;
        let Kind::Choice(now, later_words) = row.kind else { return None };
        let DeValue::String(text) = value.get_ref() else {
            let help = format!("write one of {}", words(now));
            self.wrong_type(row, value, "a string", findings).help(help);
            return None;
        };
        if let Some(word) = now.iter().find(|word| *word == text) {
            self.accept(row, value, findings);
            return Some(word);
        }
        if let Some((word, part)) = later_words.iter().find(|(word, _)| word == text) {
            let what = format!("{} {}", quoted(text), later(part));
            let help = format!("this version takes {}", words(now));
            findings
                .error(self.place(value.span()), self.at(name), what)
                .row(row.rule())
                .help(help);
            return Some(word);
        }
        let all: Vec<_> =
            now.iter().copied().chain(later_words.iter().map(|(word, _)| *word)).collect();
        let help = nearest(text, all.iter().copied()).map_or_else(
            || format!("write one of {}", words(&all)),
            |near| format!("did you mean \"{near}\"?"),
        );
        let what = format!("{} is not one of its values", quoted(text));
        findings.error(self.place(value.span()), self.at(name), what).row(row.rule()).help(help);
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
        findings.error(self.place(value.span()), self.at(row.name), what).row(row.rule())
    }

    /// A value of several types, by a reader of its own; the later check as for all others.
    pub(super) fn special<T>(
        &self,
        name: &str,
        findings: &mut Findings,
        read: impl FnOnce(&'static Key, Found<'t, 'i>, &mut Findings) -> Option<T>,
    ) -> Option<T> {
        let (row, value) = self.given(name, findings)?;
        let read = read(row, value, findings)?;
        self.accept(row, value, findings);
        Some(read)
    }
}

/// Puts a value that was read where the default stands.
pub(super) fn put<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

pub(super) fn later(part: &str) -> String {
    format!("is not supported yet: it comes with {part}")
}

/// Does a value say what holds without it?
fn is_default(row: &Key, value: &DeValue<'_>) -> bool {
    let text = match (row.preset, value) {
        (Preset::Number(default), DeValue::Integer(number)) => {
            return read_integer(number) == Some(default);
        }
        (Preset::Text(text), _) => text,
        _ => return false,
    };
    match (row.kind, value) {
        (Kind::Table, DeValue::Table(entries)) => {
            let section = join(row.section, row.name);
            entries.iter().all(|(key, value)| {
                keys::find(&section, key.get_ref())
                    .is_some_and(|row| is_default(row, value.get_ref()))
            })
        }
        (Kind::Duration(low, high), DeValue::String(written)) => {
            let written = values::duration(written, low, high);
            written.is_ok() && written == values::duration(text.trim_matches('"'), low, high)
        }
        _ => DeValue::parse(text).is_ok_and(|default| same(default.get_ref(), value)),
    }
}

fn same(a: &DeValue<'_>, b: &DeValue<'_>) -> bool {
    match (a, b) {
        (DeValue::String(a), DeValue::String(b)) => a == b,
        (DeValue::Boolean(a), DeValue::Boolean(b)) => a == b,
        (DeValue::Integer(a), DeValue::Integer(b)) => {
            read_integer(a).is_some_and(|a| Some(a) == read_integer(b))
        }
        (DeValue::Array(a), DeValue::Array(b)) => {
            a.len() == b.len()
                && a.iter().zip(b.iter()).all(|(a, b)| same(a.get_ref(), b.get_ref()))
        }
        (DeValue::Table(a), DeValue::Table(b)) => a.is_empty() && b.is_empty(),
        _ => false,
    }
}

fn join(section: &str, name: &str) -> String {
    match section {
        "" => name.to_owned(),
        _ => format!("{section}.{name}"),
    }
}

/// Words in quotes, by comma.
pub(super) fn words(list: &[&str]) -> String {
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
