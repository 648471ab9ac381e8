//! Pure: the static table (RFC 7541, appendix A) and a dynamic one (2.3.2, 4), whose entries lie in
//! one piece of memory, so that a name or a value is always one slice.

use std::collections::VecDeque;

/// What the size of an entry counts beside its bytes (RFC 7541, 4.1).
pub(crate) const ENTRY_OVERHEAD: usize = 32;

/// Names and values of the static table; its indices begin at 1.
#[rustfmt::skip]
pub(crate) const STATIC: [(&[u8], &[u8]); 61] = [
    (b":authority", b""), (b":method", b"GET"), (b":method", b"POST"), (b":path", b"/"),
    (b":path", b"/index.html"), (b":scheme", b"http"), (b":scheme", b"https"),
    (b":status", b"200"), (b":status", b"204"), (b":status", b"206"), (b":status", b"304"),
    (b":status", b"400"), (b":status", b"404"), (b":status", b"500"), (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"), (b"accept-language", b""), (b"accept-ranges", b""),
    (b"accept", b""), (b"access-control-allow-origin", b""), (b"age", b""), (b"allow", b""),
    (b"authorization", b""), (b"cache-control", b""), (b"content-disposition", b""),
    (b"content-encoding", b""), (b"content-language", b""), (b"content-length", b""),
    (b"content-location", b""), (b"content-range", b""), (b"content-type", b""), (b"cookie", b""),
    (b"date", b""), (b"etag", b""), (b"expect", b""), (b"expires", b""), (b"from", b""),
    (b"host", b""), (b"if-match", b""), (b"if-modified-since", b""), (b"if-none-match", b""),
    (b"if-range", b""), (b"if-unmodified-since", b""), (b"last-modified", b""), (b"link", b""),
    (b"location", b""), (b"max-forwards", b""), (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""), (b"range", b""), (b"referer", b""), (b"refresh", b""),
    (b"retry-after", b""), (b"server", b""), (b"set-cookie", b""),
    (b"strict-transport-security", b""), (b"transfer-encoding", b""), (b"user-agent", b""),
    (b"vary", b""), (b"via", b""), (b"www-authenticate", b""),
];

/// A dynamic table.
#[derive(Debug)]
pub(super) struct Table {
    /// Bytes of the entries, in their order; those before the oldest entry are waste.
    bytes: Vec<u8>,
    /// The newest entry is the last.
    entries: VecDeque<Entry>,
    /// Size as RFC 7541, 4.1 counts it.
    size: usize,
    max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    at: u32,
    name: u32,
    value: u32,
    /// Name and value hold only bytes that a field may have.
    valid: bool,
}

impl Entry {
    fn size(self) -> usize {
        self.name as usize + self.value as usize + ENTRY_OVERHEAD
    }
}

impl Table {
    /// An empty table of `max` bytes at most; takes memory only as it fills.
    pub(super) const fn new(max: usize) -> Table {
        Table { bytes: Vec::new(), entries: VecDeque::new(), size: 0, max }
    }

    /// Bytes at most.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// Entries.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entry `index` behind the newest, and whether its bytes are valid.
    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<(&[u8], &[u8], bool)> {
        let place = self.entries.len().checked_sub(index + 1)?;
        let entry = self.entries.get(place)?;
        let from = self.bytes.get(entry.at as usize..)?;
        let (name, rest) = from.split_at_checked(entry.name as usize)?;
        Some((name, rest.get(..entry.value as usize)?, entry.valid))
    }

    /// Bytes at most from now on; evicts what is too much.
    pub(super) fn resize(&mut self, max: usize) {
        self.max = max;
        self.evict(max);
        if max == 0 {
            self.bytes = Vec::new();
        }
    }

    /// Adds an entry, evicting old ones; one larger than the table leaves it empty (4.4).
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8], valid: bool) {
        let len = name.len() + value.len();
        let size = len + ENTRY_OVERHEAD;
        if size > self.max {
            return self.evict(0);
        }
        self.evict(self.max - size);
        self.make_room(len);
        let at = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        let entry =
            Entry { at: at as u32, name: name.len() as u32, value: value.len() as u32, valid };
        self.entries.push_back(entry);
        self.size += size;
    }

    /// Drops the waste once the bytes would be twice what the table holds: more than half of them
    /// are waste then, so that each byte is moved once at most.
    fn make_room(&mut self, len: usize) {
        if self.bytes.len() + len <= 2 * self.max {
            return;
        }
        let waste = self.entries.front().map_or(self.bytes.len(), |entry| entry.at as usize);
        self.bytes.drain(..waste);
        self.entries.iter_mut().for_each(|entry| entry.at -= waste as u32);
    }

    fn evict(&mut self, max: usize) {
        while self.size > max {
            let Some(entry) = self.entries.pop_front() else { return };
            self.size -= entry.size();
        }
        if self.entries.is_empty() {
            self.bytes.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(table: &Table, index: usize) -> Option<String> {
        let (name, value, _) = table.get(index)?;
        Some(format!("{}={}", name.escape_ascii(), value.escape_ascii()))
    }

    /// RFC 7541, 4.4: the oldest go first; what is larger than the table empties it.
    #[test]
    fn eviction() {
        let mut table = Table::new(100);
        table.insert(b"a", b"1", true);
        table.insert(b"b", b"2", false);
        assert_eq!(text(&table, 0).unwrap(), "b=2");
        assert_eq!(text(&table, 1).unwrap(), "a=1");
        assert!(!table.get(0).unwrap().2 && table.get(1).unwrap().2);
        table.insert(b"c", b"3", true);
        assert_eq!((table.len(), text(&table, 2)), (2, None));
        assert_eq!(text(&table, 1).unwrap(), "b=2");
        table.resize(67);
        assert_eq!((table.len(), text(&table, 0).unwrap()), (1, "c=3".to_owned()));
        table.insert(b"d", &[b'4'; 35], true);
        assert_eq!((table.len(), table.size), (0, 0));
        table.resize(0);
        table.insert(b"", b"", true);
        assert_eq!(table.len(), 0);
    }

    /// However many entries pass, the memory stays within twice the table.
    #[test]
    fn memory_is_bounded() {
        let mut table = Table::new(4_096);
        for round in 0..20_000usize {
            let value = round.to_string().repeat(round % 300);
            table.insert(b"name", value.as_bytes(), true);
            assert!(table.bytes.capacity() <= 8_192 && table.size <= 4_096);
            assert_eq!(table.get(0).unwrap().1, value.as_bytes());
        }
        assert!(table.get(table.len()).is_none());
    }
}
