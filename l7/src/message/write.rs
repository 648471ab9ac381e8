//! Pure: writing heads anew, and numbers without the formatting machinery. A field line that
//! already has the form that would be written is taken over together with its neighbours in one
//! copy.

use std::ops::Range;

use super::fields::Field;

/// Appends `number` in decimal.
#[inline]
pub(crate) fn append_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends `number` in lower-case hexadecimal.
#[inline]
pub(crate) fn append_hex(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0u8; 16];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Writes the field lines of a head.
pub(super) struct Lines<'a> {
    raw: &'a [u8],
    out: &'a mut Vec<u8>,
    /// Bytes of `raw` that stand to be copied as they are.
    run: Range<usize>,
}

impl<'a> Lines<'a> {
    /// A writer of lines of `raw` to `out`; the first `start` bytes of `raw` are already in the
    /// form that is to be written (zero: none are).
    pub(super) fn new(raw: &'a [u8], out: &'a mut Vec<u8>, start: usize) -> Lines<'a> {
        Lines { raw, out, run: 0..start }
    }

    /// Forwards one field: `name: value`, with one space and CR LF.
    #[inline]
    pub(super) fn forward(&mut self, field: &Field) {
        let (name, value) = (field.name, field.value);
        // The form to be written has ": " in front of the value and CR LF right behind it. The
        // colon always follows the name, and the LF the CR: checked when parsed.
        let same = value.start() == name.end() + 2
            && self.raw.get(name.end() + 1) == Some(&b' ')
            && self.raw.get(value.end()) == Some(&b'\r');
        if !same {
            self.flush();
            self.write(name.get(self.raw), value.get(self.raw));
        } else if self.run.end == name.start() {
            self.run.end = value.end() + 2;
        } else {
            self.flush();
            self.run = name.start()..value.end() + 2;
        }
    }

    /// Writes a field of our own in this place.
    pub(super) fn write(&mut self, name: &[u8], value: &[u8]) {
        self.flush();
        self.out.extend_from_slice(name);
        self.out.extend_from_slice(b": ");
        self.out.extend_from_slice(value);
        self.out.extend_from_slice(b"\r\n");
    }

    /// Writes what still stands to be copied and gives the buffer back.
    pub(super) fn finish(mut self) -> &'a mut Vec<u8> {
        self.flush();
        self.out
    }

    fn flush(&mut self) {
        self.out.extend_from_slice(self.raw.get(self.run.clone()).unwrap_or_default());
        self.run = 0..0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_as_the_library_writes_them(number: u64) {
            let mut out = Vec::new();
            append_decimal(&mut out, number);
            out.push(b' ');
            append_hex(&mut out, number);
            prop_assert_eq!(out, format!("{number} {number:x}").into_bytes());
        }
    }

    #[test]
    fn small_numbers() {
        let mut out = Vec::new();
        append_decimal(&mut out, 0);
        append_hex(&mut out, 0);
        append_hex(&mut out, u64::MAX);
        assert_eq!(out, b"00ffffffffffffffff");
    }
}
