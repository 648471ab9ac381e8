//! The little of DER that the parser's types don't give: the raw pieces that a signature is over.

/// A certificate's raw pieces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signed<'a> {
    /// What is signed.
    pub body: &'a [u8],
    /// The inside of the signature's AlgorithmIdentifier.
    pub algorithm: &'a [u8],
    /// The signature itself.
    pub signature: &'a [u8],
}

/// Splits what is signed (RFC 5280 section 4.1: a certificate; RFC 6960: an OCSP response).
pub(super) fn signed(der: &[u8]) -> Option<Signed<'_>> {
    let (_, inside, _) = element(der)?;
    let (_, _, rest) = element(inside)?;
    let body = inside.get(..inside.len() - rest.len())?;
    let (_, algorithm, rest) = element(rest)?;
    let (_, bits, _) = element(rest)?;
    Some(Signed { body, algorithm, signature: whole_bytes(bits)? })
}

/// The inside of the AlgorithmIdentifier and the key of a SubjectPublicKeyInfo.
pub(super) fn public_key(spki: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_, inside, _) = element(spki)?;
    let (_, algorithm, rest) = element(inside)?;
    let (_, bits, _) = element(rest)?;
    Some((algorithm, whole_bytes(bits)?))
}

/// Tag, content and what follows of the first element; `None` where there is none.
pub(super) fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// In hexadecimal, as serial numbers are shown.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The content of a BIT STRING of whole bytes.
fn whole_bytes(bits: &[u8]) -> Option<&[u8]> {
    bits.split_first().filter(|(unused, _)| **unused == 0).map(|(_, bytes)| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_checked() {
        assert_eq!(element(&[4, 1, 7, 9]), Some((4, &[7][..], &[9][..])));
        assert_eq!(element(&[4, 0x81, 1, 7]), Some((4, &[7][..], &[][..])));
        for bad in [&[][..], &[4], &[4, 2, 7], &[4, 0x80, 7], &[4, 0x85, 0, 0, 0, 0, 0], &[4, 0x82]]
        {
            assert_eq!(element(bad), None, "{bad:?}");
        }
        assert_eq!(whole_bytes(&[0, 1]), Some(&[1][..]));
        assert_eq!((whole_bytes(&[1, 1]), whole_bytes(&[])), (None, None));
    }
}
