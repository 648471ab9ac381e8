//! Target: chunked bodies.

use weir_core::limits::MAX_CHUNK_LINE;

use super::reference::{Chunks, chunks};
use super::{Outcome, promise};
use crate::body::{BadBody, Decoder, Frame, Framing};
use crate::limits::MAX_TRAILER_BYTES;

/// A chunked body behind a first byte that says how it is cut into pieces.
///
/// # Errors
/// Data, end and refusal must be the same however the bytes are cut, and what the reference reader
/// finds; the data, framed anew, must decode to itself.
pub fn chunked(data: &[u8]) -> Outcome {
    let Some((&seed, input)) = data.split_first() else { return Ok(false) };
    if input.len() > MAX_TRAILER_BYTES as usize {
        return Ok(false);
    }
    let whole = decode(&[input]);
    promise(decode(&cut(input, seed)) == whole, "depends on how it is cut", input)?;
    let wanted = chunks(input, MAX_CHUNK_LINE);
    let agrees = match &wanted {
        Chunks::Whole(data, used) => whole == Ok((data.clone(), Some(*used))),
        Chunks::Malformed => whole == Err(BadBody::Malformed),
        // What comes may be refused before its line has ended.
        Chunks::Incomplete => !matches!(whole, Ok((_, Some(_)))),
    };
    promise(agrees, "the reference reader reads something else", input)?;
    let Chunks::Whole(data, _) = wanted else { return Ok(false) };
    let mut framed = Vec::new();
    let mut frame = Frame::Chunked { open: false };
    for piece in cut(&data, seed).into_iter().filter(|piece| !piece.is_empty()) {
        frame.begin(&mut framed, piece.len());
        framed.extend_from_slice(piece);
    }
    framed.extend_from_slice(frame.end());
    let again = chunks(&framed, MAX_CHUNK_LINE) == Chunks::Whole(data, framed.len());
    promise(again, "framed anew it differs", &framed)?;
    Ok(true)
}

/// The data of `pieces`, and where behind them the body ended, if it has.
fn decode(pieces: &[&[u8]]) -> Result<(Vec<u8>, Option<usize>), BadBody> {
    let mut decoder = Decoder::new(Framing::Chunked, u64::MAX);
    let (mut data, mut used) = (Vec::new(), 0);
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() && !decoder.ended() {
            let step = decoder.step(rest)?;
            data.extend_from_slice(rest.get(step.skip..step.skip + step.data).unwrap_or_default());
            rest = rest.get(step.skip + step.data..).unwrap_or_default();
            used += step.skip + step.data;
        }
    }
    Ok((data, decoder.ended().then_some(used)))
}

/// Pieces of one to some bytes, chosen by `seed`; 0 = each byte alone.
fn cut(input: &[u8], seed: u8) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let (mut rest, mut state) = (input, u32::from(seed));
    while !rest.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(u32::from(seed));
        let (piece, more) = rest.split_at((1 + (state >> 24) as usize % 40).min(rest.len()));
        pieces.push(piece);
        rest = more;
    }
    pieces
}
