//! Which policies come into question for a host and a path, without a look at the others.
//!
//! Hosts are found by hash: the name in full, then each wildcard suffix, then what names no host.
//! Under each of these stands a *bucket*: the paths named there in order of their bytes, and an
//! ordered rest (expressions, no path). One binary search finds the path itself and all named
//! beginnings of it: the greatest named path that is not behind the request's either begins it, or
//! shares with it every named beginning, and each knows the next shorter one. The search runs over
//! the eight bytes behind what all paths of the bucket begin with, which stand close together, so
//! that it seldom misses the cache; whole paths are compared only where those are the same.

use std::collections::{BTreeMap, HashMap};

use super::rank::Rank;

/// No pattern, no beginning.
const NONE: u32 = u32::MAX;

/// One way in which a policy may match: its rank tells which policy it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) rank: Rank,
    pattern: u32,
}

impl Entry {
    pub(super) fn new(rank: Rank, pattern: Option<u32>) -> Entry {
        Entry { rank, pattern: pattern.unwrap_or(NONE) }
    }

    /// The expression that the path has to match.
    pub(super) fn pattern(&self) -> Option<usize> {
        (self.pattern != NONE).then_some(self.pattern as usize)
    }
}

/// A host as a policy names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Host {
    Exact(Vec<u8>),
    /// Its suffix, the dot included.
    Wildcard(Vec<u8>),
    Any,
}

/// A path as a policy names it, normal.
#[derive(Clone, Debug)]
pub(super) enum Path {
    Exact(Vec<u8>),
    Prefix(Vec<u8>),
    /// An expression, or none.
    Rest,
}

type Hosts = HashMap<Box<[u8]>, u32, ahash::RandomState>;

/// The finished tables: flat, so that ten thousand policies take few allocations and little room.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Index {
    exact: Hosts,
    wildcards: Hosts,
    /// Bytes of the longest wildcard.
    longest: usize,
    any: Option<u32>,
    buckets: Box<[Bucket]>,
    paths: Box<[Named]>,
    /// Beside `paths`: see [`key`].
    keys: Box<[u64]>,
    entries: Box<[Entry]>,
}

/// A part of a flat table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn of<T>(self, table: &[T]) -> &[T] {
        table.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bucket {
    paths: Span,
    /// Bytes that all of the paths begin with.
    common: u32,
    rest: Span,
}

/// A path that is named.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    text: Box<[u8]>,
    exact: Span,
    prefix: Span,
    /// Place, in its bucket, of the longest other path that begins this one.
    shorter: u32,
}

impl Index {
    /// Offers the entries that come into question, list by list; within a list the best comes
    /// first. `look` is called with each list and counts what it looks at itself; what finding
    /// them takes (hashes, comparisons) is added to `looked`.
    pub(super) fn lists<'s>(
        &'s self,
        host: &[u8],
        path: &[u8],
        looked: &mut u32,
        look: &mut dyn FnMut(&'s [Entry]),
    ) {
        let exact = (!host.is_empty() && !self.exact.is_empty()).then(|| {
            *looked += 1;
            self.exact.get(host)
        });
        if let Some(&bucket) = exact.flatten() {
            self.bucket(bucket, path, looked, look);
        }
        if self.longest > 0 {
            let from = host.len().saturating_sub(self.longest).max(1);
            for at in from..host.len() {
                let Some(suffix) = host.get(at..).filter(|rest| rest.first() == Some(&b'.')) else {
                    continue;
                };
                *looked += 1;
                if let Some(&bucket) = self.wildcards.get(suffix) {
                    self.bucket(bucket, path, looked, look);
                }
            }
        }
        if let Some(bucket) = self.any {
            self.bucket(bucket, path, looked, look);
        }
    }

    fn bucket<'s>(
        &'s self,
        bucket: u32,
        path: &[u8],
        looked: &mut u32,
        look: &mut dyn FnMut(&'s [Entry]),
    ) {
        let Some(bucket) = self.buckets.get(bucket as usize) else { return };
        let paths = bucket.paths.of(&self.paths);
        let keys = bucket.paths.of(&self.keys);
        let behind = behind(paths, keys, bucket.common as usize, path, looked);
        let mut at = behind.checked_sub(1);
        if let Some(named) = at.and_then(|at| paths.get(at)).filter(|named| *named.text == *path) {
            look(named.exact.of(&self.entries));
        }
        while let Some(named) = at.and_then(|at| paths.get(at)) {
            *looked += 1;
            if path.starts_with(&named.text) {
                look(named.prefix.of(&self.entries));
            }
            at = (named.shorter != NONE).then_some(named.shorter as usize);
        }
        look(bucket.rest.of(&self.entries));
    }
}

/// How many of `paths` are not greater than `path`.
fn behind(paths: &[Named], keys: &[u64], common: usize, path: &[u8], looked: &mut u32) -> usize {
    let Some(first) = paths.first() else { return 0 };
    let common = first.text.get(..common).unwrap_or_default();
    *looked += 1;
    let Some(rest) = path.strip_prefix(common) else {
        return if path < common { 0 } else { paths.len() };
    };
    let wanted = key(rest);
    let start = keys.partition_point(|key| {
        *looked += 1;
        *key < wanted
    });
    // Few are the same, as a rule: looked for from here in growing steps.
    let mut most = 1;
    while keys.get(start + most - 1) == Some(&wanted) {
        *looked += 1;
        most *= 2;
    }
    let same = keys.get(start..keys.len().min(start + most)).unwrap_or_default();
    let same = same.partition_point(|key| *key == wanted);
    let alike = paths.get(start..start + same).unwrap_or_default();
    start
        + alike.partition_point(|named| {
            *looked += 1;
            *named.text <= *path
        })
}

/// The first eight bytes, in the order of the bytes.
fn key(bytes: &[u8]) -> u64 {
    bytes.iter().chain(std::iter::repeat(&0)).take(8).fold(0, |k, &b| k << 8 | u64::from(b))
}

/// Collects entries for an [`Index`].
#[derive(Debug, Default)]
pub(super) struct Builder {
    buckets: BTreeMap<Host, Collected>,
}

#[derive(Debug, Default)]
struct Collected {
    /// By path: those for the path itself, and those for all that it begins.
    paths: BTreeMap<Vec<u8>, (Vec<Entry>, Vec<Entry>)>,
    rest: Vec<Entry>,
}

impl Builder {
    pub(super) fn add(&mut self, host: Host, path: Path, entry: Entry) {
        let bucket = self.buckets.entry(host).or_default();
        match path {
            Path::Exact(text) => bucket.paths.entry(text).or_default().0.push(entry),
            Path::Prefix(text) => bucket.paths.entry(text).or_default().1.push(entry),
            Path::Rest => bucket.rest.push(entry),
        }
    }

    pub(super) fn finish(self) -> Index {
        // Keys are the configuration's, not a client's: nobody gains by colliding.
        let hosts = || Hosts::with_hasher(ahash::RandomState::with_seeds(1, 2, 3, 4));
        let (mut exact, mut wildcards, mut any) = (hosts(), hosts(), None);
        let (mut buckets, mut paths, mut entries) = (Vec::new(), Vec::new(), Vec::new());
        for (host, collected) in self.buckets {
            let number = place(buckets.len());
            match host {
                Host::Exact(name) => {
                    exact.insert(name.into(), number);
                }
                Host::Wildcard(suffix) => {
                    wildcards.insert(suffix.into(), number);
                }
                Host::Any => any = Some(number),
            }
            buckets.push(collected.finish(&mut paths, &mut entries));
        }
        let mut keys = Vec::with_capacity(paths.len());
        for bucket in &buckets {
            let rest = |named: &Named| key(named.text.get(bucket.common as usize..).unwrap_or(&[]));
            keys.extend(bucket.paths.of(&paths).iter().map(rest));
        }
        exact.shrink_to_fit();
        wildcards.shrink_to_fit();
        Index {
            longest: wildcards.keys().map(|suffix| suffix.len()).max().unwrap_or(0),
            exact,
            wildcards,
            any,
            buckets: buckets.into(),
            paths: paths.into(),
            keys: keys.into(),
            entries: entries.into(),
        }
    }
}

impl Collected {
    fn finish(self, paths: &mut Vec<Named>, entries: &mut Vec<Entry>) -> Bucket {
        let first = paths.len();
        // The named paths that begin the present one, shortest first.
        let mut open: Vec<usize> = Vec::new();
        for (at, (text, (exact, prefix))) in self.paths.into_iter().enumerate() {
            let begins = |&shorter: &usize| {
                paths.get(first + shorter).is_some_and(|named| text.starts_with(&named.text))
            };
            while open.last().is_some_and(|last| !begins(last)) {
                open.pop();
            }
            let shorter = open.last().map_or(NONE, |&last| place(last));
            if !prefix.is_empty() {
                open.push(at);
            }
            let (exact, prefix) = (append(entries, exact), append(entries, prefix));
            paths.push(Named { text: text.into(), exact, prefix, shorter });
        }
        let named = Span { start: place(first), end: place(paths.len()) };
        // In order: what the first and the last begin with, all do.
        let (first, last) = (paths.get(first), paths.last());
        let common = first.zip(last).map_or(0, |(first, last)| {
            first.text.iter().zip(&last.text).take_while(|(a, b)| a == b).count()
        });
        Bucket { paths: named, common: place(common), rest: append(entries, self.rest) }
    }
}

/// Appends a list, best first.
fn append(entries: &mut Vec<Entry>, mut list: Vec<Entry>) -> Span {
    let start = place(entries.len());
    list.sort_unstable();
    entries.append(&mut list);
    Span { start, end: place(entries.len()) }
}

/// A place in a table. Tables stay far below the bound: what a file may hold is limited.
fn place(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(NONE)
}
