//! Runs every fuzz target over its kept inputs and over seeded mutations of them. `fuzz/README.md`
//! says how to add a target. What fails names the input; `WEIR_SEED=n` begins with another seed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

/// Says whether an input was accepted, or which promise was broken.
type Target = fn(&[u8]) -> Result<bool, String>;

/// Every target by name: of its corpus, and of its cargo-fuzz file.
const TARGETS: &[(&str, Target)] = &[
    ("request_head", weir_l7::fuzz::request_head),
    ("response_head", weir_l7::fuzz::response_head),
    ("chunked", weir_l7::fuzz::chunked),
    ("frames", weir_l7::fuzz::frames),
    ("hpack", weir_l7::fuzz::hpack),
    ("policy_match", weir_l7::fuzz::policy_match),
    ("cookies", weir_l7::fuzz::cookies),
    ("proxy_header", weir_core::proxy::proxy_header),
    ("quic_datagram", weir_l4::quic::quic_datagram),
];

/// Bytes that mean something to one parser or another.
const SHARP: &[u8] = b"\r\n\0 \t:;,=\"\\/?#@%-_0159afxX*.[]\x0b\x0c\x1b\x7f\x80\xff";
/// Pieces that do.
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\r\n\r\n",
    b"\n\n",
    b"\r\n ",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"GET / HTTP/1.1\r\n",
    b"Host: b\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Content_Length: 7\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"chunked",
    b"gzip, ",
    b"Connection: close, host\r\n",
    b"Expect: 100-continue\r\n",
    b"X-Forwarded-For: 1.2.3.4\r\n",
    b"0\r\n\r\n",
    b"5\r\n",
    b";a=\"b\"",
    b"Trailer: X\r\n",
    b"http://h",
    b"PROXY TCP4 ",
    b"PROXY TCP6 ::1 ",
    b" 1.2.3.4",
    b"\r\n\r\n\0\r\nQUIT\n\x21",
    b"\x11\0\x0c",
    b"\x03\0\x04",
    b"Set-Cookie: a=b\r\n",
    b"/../",
    b"%2e%2E",
    b"/api",
    b"a.shop.t",
    b"; LBSTICKY=",
];
/// Pieces that do in HTTP/2.
const FRAMES: &[&[u8]] = &[
    b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\x09",
    b"\0\0\x04\x08\0\0\0\0\x01\0\0\x01\0",
    b"\0\0\x04\x03\0\0\0\0\x03\0\0\0\x08",
    b"\0\0\x03\0\x01\0\0\0\x01abc",
    b"\0\0\x04\x01\x05\0\0\0\x07\x82\x84\x87\x41",
    b"\x82\x84\x87\x41\x01a",
    b"\x40\x01a\x82\x1c\x7f",
    b"\xbe\xbf",
    b"\x3f\xe1\x1f",
];
/// Longest input that mutations make.
const LONGEST: usize = 2_000;

/// Pieces that mean something to this target.
fn words(name: &str) -> &'static [&'static [u8]] {
    if matches!(name, "frames" | "hpack") { FRAMES } else { WORDS }
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name)
}

/// The kept inputs of a target, in the order of their names.
fn kept(name: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder(name)).unwrap_or_else(|e| panic!("corpus of {name}: {e}"));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: PathBuf| (path.display().to_string(), fs::read(&path).unwrap());
    paths.into_iter().map(read).collect()
}

/// A small generator (SplitMix64): reproducible variety is all that is needed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// One to three changes of one of the inputs.
    fn mutated(&mut self, inputs: &[(String, Vec<u8>)], words: &[&[u8]]) -> Vec<u8> {
        let mut data = inputs[self.below(inputs.len())].1.clone();
        for _ in 0..=self.below(3) {
            let at = self.below(data.len() + 1);
            let end = at + self.below((data.len() - at + 1).min(40));
            match self.below(7) {
                0 if at < data.len() => data[at] = self.of(SHARP),
                1 if at < data.len() => data[at] ^= 1 << self.below(8),
                2 => data.insert(at, self.of(SHARP)),
                3 => drop(data.drain(at..end)),
                4 => drop(data.splice(at..at, self.of(words).iter().copied())),
                5 => {
                    let again = data[at..end].to_vec();
                    data.splice(at..at, again);
                }
                _ => {
                    let other = &inputs[self.below(inputs.len())].1;
                    data.truncate(at);
                    data.extend_from_slice(&other[self.below(other.len())..]);
                }
            }
        }
        data.truncate(LONGEST);
        data
    }
}

/// Mutations a target: a hundred times as many in `tests/soak`.
fn rounds() -> usize {
    let full = std::env::var_os("WEIR_COUNTS").is_some_and(|v| v == "full");
    if full { 2_000_000 } else { 20_000 }
}

fn seed() -> u64 {
    std::env::var("WEIR_SEED").map_or(1, |seed| seed.parse().unwrap())
}

/// The first mutation for which the target breaks a promise, and which; else how many inputs were
/// accepted and how many were not.
fn run(
    target: impl Fn(&[u8]) -> Result<bool, String>,
    inputs: &[(String, Vec<u8>)],
    words: &[&[u8]],
    rounds: usize,
) -> Result<[usize; 2], (Vec<u8>, String)> {
    let mut chance = Chance(seed());
    let mut counts = [0, 0];
    for _ in 0..rounds {
        let data = chance.mutated(inputs, words);
        match target(&data) {
            Ok(accepted) => counts[usize::from(!accepted)] += 1,
            Err(broken) => return Err((data, broken)),
        }
    }
    Ok(counts)
}

#[test]
fn kept_inputs_keep_their_promises() {
    for (name, target) in TARGETS {
        for (path, data) in kept(name) {
            target(&data).unwrap_or_else(|broken| panic!("{path}: {broken}"));
        }
    }
}

#[test]
fn mutated_inputs_keep_their_promises() {
    for (name, target) in TARGETS {
        match run(target, &kept(name), words(name), rounds()) {
            Ok([accepted, refused]) => {
                // Neither a target that takes everything nor one that takes nothing shows much.
                assert!(accepted.min(refused) > rounds() / 50, "{name}: {accepted}, {refused}");
            }
            Err((data, broken)) => panic!(
                "{name}: {broken}\nfor {}\nmend it and keep it: fuzz/README.md",
                data.escape_ascii()
            ),
        }
    }
}

/// A mistake like those of real parsers is found in the everyday number of rounds.
#[test]
fn planted_mistakes_are_found() {
    let has = |data: &[u8], word: &[u8]| data.windows(word.len()).any(|part| part == word);
    let takes_both = |data: &[u8]| {
        let both =
            has(data, b"Content-Length: ") && has(data, b"\r\nTransfer-Encoding: chunked\r\n");
        let folded = has(data, b"\r\n \r\n\r\n");
        if both && folded { Err("planted".to_owned()) } else { Ok(true) }
    };
    let found = run(takes_both, &kept("request_head"), WORDS, 20_000);
    assert!(found.is_err(), "not found");
}

/// Corpus, table and cargo-fuzz have the same targets.
#[test]
fn every_target_is_everywhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let names = |folder: &str| {
        let entries = fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        let mut names: Vec<String> =
            entries.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    let mut table: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    table.sort_unstable();
    assert_eq!(names("corpus"), table);
    assert_eq!(names("fuzz_targets"), table);
    for name in table {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} in fuzz/Cargo.toml");
        assert!(kept(name).len() >= 5, "{name}: too few kept inputs");
    }
}
