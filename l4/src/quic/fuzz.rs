//! Fuzz target: QUIC datagrams. Called by `tests/fuzz.rs` and by cargo-fuzz.

use weir_core::model::CidSlice;

use super::{Aim, Packet, aim, parse};

/// The first packet's header. `true`: it is QUIC of some version.
///
/// # Errors
/// What is read must be pieces of the input at their places, must not depend on what follows the
/// header, and must lead a packet to the id that was learnt from a member's.
pub fn quic_datagram(data: &[u8]) -> Result<bool, String> {
    let promise = |holds: bool, what: &str| match holds {
        true => Ok(()),
        false => Err(format!("{what}: {}", data.escape_ascii())),
    };
    let Some(packet) = parse(data) else {
        promise(data.first().is_none_or(|first| first & 0x80 != 0), "a short header was refused")?;
        return Ok(false);
    };
    if let Packet::Long { destination, source, .. } = packet {
        let len = 7 + destination.len() + source.len();
        let head = data.get(..len).unwrap_or_default();
        promise(parse(head) == Some(packet), "depends on what follows")?;
        promise(parse(head.get(..len - 1).unwrap_or_default()).is_none(), "read beyond its end")?;
        promise(data.get(6..6 + destination.len()) == Some(destination), "not its destination")?;
        promise(head.ends_with(source), "not its source")?;
    }
    for slice in [(3, 1), (20, 0), (1, 19), (8, 0)] {
        let slice = CidSlice { len: slice.0, offset: slice.1 };
        let end = usize::from(slice.len + slice.offset);
        let _any = aim(&packet, slice);
        let Packet::Long { source, .. } = packet else { continue };
        let Some(part) = packet.issued(slice) else { continue };
        if source.len() >= end {
            let short = [&[0x40], source, b"sealed"].concat();
            let answer = parse(&short).map(|packet| aim(&packet, slice));
            promise(answer == Some(Aim::Part(part)), "an id that was learnt is not found")?;
        }
    }
    Ok(true)
}
