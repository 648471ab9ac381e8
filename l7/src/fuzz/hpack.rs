//! Target: header compression (RFC 7541).

use std::collections::VecDeque;

use super::{Outcome, promise};
use crate::h2::hpack::table::STATIC;
use crate::h2::hpack::{DEFAULT_TABLE, Decoder, ENTRY_OVERHEAD, Encoder, huffman};

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// Two blocks of one connection, of which the first is as long as the first byte says.
///
/// # Errors
/// A plain reader has to read the same; what was read, written anew in blocks of its own, has to be
/// read as the same once more, by both.
pub fn hpack(data: &[u8]) -> Outcome {
    let Some((&first, data)) = data.split_first() else { return Ok(false) };
    let blocks = data.split_at(usize::from(first).min(data.len()));
    let (mut ours, mut plain) = (Decoder::new(), Plain::new());
    let mut all = Fields::new();
    for block in [blocks.0, blocks.1] {
        let (read, wanted) = (read(&mut ours, block), plain.read(block));
        promise(read.is_some() == wanted.is_some(), "only one of two readers takes it", block)?;
        let Some((fields, valid)) = read else { return Ok(false) };
        promise(Some(&fields) == wanted.as_ref(), "the plain reader reads something else", block)?;
        all.extend(fields.into_iter().zip(valid).filter(|(_, valid)| *valid).map(|(f, _)| f));
    }
    write_again(&all, first)?;
    Ok(true)
}

/// Each field three times over, so that tables come to be used, while the peer changes its size.
fn write_again(fields: &Fields, seed: u8) -> Result<(), String> {
    let mut encoder = Encoder::new();
    let (mut ours, mut plain) = (Decoder::new(), Plain::new());
    for (round, size) in [4_096, u32::from(seed) * 20, 4_096].into_iter().enumerate() {
        if round > 0 {
            encoder.allow(size);
        }
        let mut out = Vec::new();
        encoder.begin(&mut out);
        fields.iter().for_each(|(name, value)| encoder.field(name, value, &mut out));
        let again = read(&mut ours, &out).ok_or("what was written is refused")?.0;
        promise(again == *fields, "written anew it differs", &out)?;
        let again = plain.read(&out);
        promise(again.as_ref() == Some(fields), "the plain reader is told something else", &out)?;
    }
    Ok(())
}

/// Fields, and whether each is valid.
fn read(decoder: &mut Decoder, block: &[u8]) -> Option<(Fields, Vec<bool>)> {
    let (mut fields, mut valid, mut out) = (Fields::new(), Vec::new(), Vec::new());
    let each = |out: &mut Vec<u8>, line: crate::h2::hpack::Line| {
        let text = |range: std::ops::Range<usize>| out.get(range).unwrap_or_default().to_vec();
        fields.push((text(line.name), text(line.value)));
        valid.push(line.valid);
        out.clear();
        Ok(())
    };
    decoder.decode(block, &mut out, each).ok()?;
    Some((fields, valid))
}

/// A decoder as the RFC describes it, without haste.
struct Plain {
    /// The newest entry is the first.
    table: VecDeque<(Vec<u8>, Vec<u8>)>,
    max: usize,
}

impl Plain {
    fn new() -> Plain {
        Plain { table: VecDeque::new(), max: DEFAULT_TABLE }
    }

    fn read(&mut self, block: &[u8]) -> Option<Fields> {
        let (mut fields, mut rest) = (Fields::new(), block);
        while let Some(&first) = rest.first() {
            let (bits, keep) = match first.leading_zeros() {
                0 => {
                    fields.push(self.entry(integer(&mut rest, 7)?)?);
                    continue;
                }
                1 => (6, true),
                2 => {
                    let max = integer(&mut rest, 5)?;
                    if max > DEFAULT_TABLE || !fields.is_empty() {
                        return None;
                    }
                    self.max = max;
                    self.evict(0);
                    continue;
                }
                _ => (4, false),
            };
            let name = match integer(&mut rest, bits)? {
                0 => string(&mut rest)?,
                index => self.entry(index)?.0,
            };
            let field = (name, string(&mut rest)?);
            if keep {
                let size = field.0.len() + field.1.len() + ENTRY_OVERHEAD;
                self.evict(size);
                if size <= self.max {
                    self.table.push_front(field.clone());
                }
            }
            fields.push(field);
        }
        Some(fields)
    }

    fn entry(&self, index: usize) -> Option<(Vec<u8>, Vec<u8>)> {
        let place = index.checked_sub(1)?;
        match STATIC.get(place) {
            Some((name, value)) => Some((name.to_vec(), value.to_vec())),
            None => self.table.get(place - STATIC.len()).cloned(),
        }
    }

    /// Makes room for so many bytes.
    fn evict(&mut self, more: usize) {
        let size = |(name, value): &(Vec<u8>, Vec<u8>)| name.len() + value.len() + ENTRY_OVERHEAD;
        while self.table.iter().map(size).sum::<usize>() + more > self.max {
            if self.table.pop_back().is_none() {
                return;
            }
        }
    }
}

/// An integer, of four more octets at most.
fn integer(rest: &mut &[u8], bits: u32) -> Option<usize> {
    let mut next = || {
        let (&byte, behind) = rest.split_first()?;
        *rest = behind;
        Some(byte)
    };
    let most = (1usize << bits) - 1;
    let mut number = usize::from(next()?) & most;
    if number < most {
        return Some(number);
    }
    for octet in 0..4 {
        let byte = next()?;
        number += usize::from(byte % 128) * 128usize.pow(octet);
        if byte < 128 {
            return Some(number);
        }
    }
    None
}

/// A string, of which each has one form only in Huffman's code.
fn string(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let coded = *rest.first()? >= 128;
    let len = integer(rest, 7)?;
    let (text, behind) = rest.split_at_checked(len)?;
    *rest = behind;
    if !coded {
        return Some(text.to_vec());
    }
    let (mut out, mut again) = (Vec::new(), Vec::new());
    huffman::decode(text, &mut out)?;
    huffman::encode(out.iter().copied(), &mut again);
    (again == text).then_some(out)
}
