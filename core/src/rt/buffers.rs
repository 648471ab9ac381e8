//! Receive buffers: provided-buffer rings that the kernel picks from, and the leases through which
//! received bytes are lent out. One group the kernel never sees: what came in several leases and
//! must lie in one piece is gathered in it. Owns the memory; `stream::recv` decides which group a
//! receive uses.
//!
//! A group reserves address space for its largest size but touches only what is used: free buffers
//! are a stack, and only as many are published to the kernel as [`Demand`] says. So memory follows
//! the load and stays bounded by the group's size.

use std::io;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::demand::Demand;
use super::ring::Ring;
use super::shard;
use crate::limits;

/// A group's number, as the kernel knows it.
pub(super) const SMALL: u16 = 0;
pub(super) const LARGE: u16 = 1;
pub(super) const DATAGRAMS: u16 = 2;
pub(super) const RECORDS: u16 = 3;
/// The group of a lease without a buffer.
const NO_GROUP: u16 = u16::MAX;

/// Published buffers that no starved stream has been sent for in this turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    pub(super) small: u16,
    pub(super) large: u16,
}

impl Left {
    pub(super) fn is_empty(self) -> bool {
        self.small == 0 && self.large == 0
    }

    /// Takes one, of group `wanted` if there is one, else of the other; returns its group.
    pub(super) fn take(&mut self, wanted: u16) -> u16 {
        let large = if wanted == LARGE { self.large > 0 } else { self.small == 0 };
        let (group, count) =
            if large { (LARGE, &mut self.large) } else { (SMALL, &mut self.small) };
        *count = count.saturating_sub(1);
        group
    }
}

/// One group of equal buffers. Four per shard.
#[derive(Debug)]
pub(super) struct BufferGroup {
    id: u16,
    size: usize,
    memory: Mapping,
    ring: Mapping,
    ring_entries: u16,
    tail: u16,
    free: Vec<u16>,
    /// Buffers never used so far start here; they have no memory yet.
    untouched: u16,
    total: u16,
    published: u16,
    demand: Demand,
    lent: usize,
}

impl BufferGroup {
    /// Reserves memory and registers the group with `ring`.
    pub(super) fn new(ring: &Ring, id: u16, shape: &limits::BufferShape) -> io::Result<Self> {
        let group = BufferGroup::own(id, shape)?;
        let address = group.ring.start.as_ptr() as u64;
        // SAFETY: the mapping has room for `ring_entries` entries, is page-aligned and zeroed, and
        // outlives the ring: the shard drops the ring first.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(address, group.ring_entries, id, 0)
        }?;
        Ok(group)
    }

    /// Reserves memory of our own, of which the kernel is told nothing.
    pub(super) fn own(id: u16, shape: &limits::BufferShape) -> io::Result<Self> {
        let entries = usize::from(shape.published_most.max(1));
        Ok(BufferGroup {
            id,
            size: shape.size,
            memory: Mapping::new(shape.size * usize::from(shape.total))?,
            ring: Mapping::new(size_of::<BufRingEntry>() * entries)?,
            ring_entries: shape.published_most,
            tail: 0,
            free: Vec::new(),
            untouched: 0,
            total: shape.total,
            published: 0,
            demand: Demand::new(shape),
            lent: 0,
        })
    }

    /// Lends a buffer out that holds nothing yet; `None` when all are.
    fn lend_blank(&mut self) -> Option<Lease> {
        let buffer = self.take_free()?;
        self.lent += 1;
        Some(Lease { data: self.address(buffer), len: 0, buffer, group: self.id })
    }

    /// Takes received bytes out of the kernel's hands.
    pub(super) fn lend(&mut self, buffer: u16, len: usize) -> Lease {
        debug_assert!(len <= self.size && buffer < self.total);
        self.published = self.published.saturating_sub(1);
        self.lent += 1;
        let data = self.address(buffer);
        Lease { data, len: len as u32, buffer, group: self.id }
    }

    /// A buffer that the kernel consumed without data in it.
    pub(super) fn unused(&mut self, buffer: u16) {
        self.published = self.published.saturating_sub(1);
        self.free.push(buffer);
    }

    /// The kernel found no buffer: publish more from now on.
    pub(super) fn ran_out(&mut self) {
        self.demand.ran_out();
    }

    /// Publishes free buffers, once a turn; the kernel may use them at once.
    pub(super) fn refill(&mut self) {
        let target = self.demand.target(self.published);
        let before = self.tail;
        while self.published < target {
            let Some(buffer) = self.take_free() else { break };
            self.write_entry(buffer);
            self.published += 1;
        }
        self.demand.given(self.published);
        if self.tail != before {
            self.publish_tail();
        }
    }

    /// Buffers that the kernel can use now.
    pub(super) fn published(&self) -> u16 {
        self.published
    }

    /// True when the kernel has a buffer, or can be given one.
    pub(super) fn has_any(&self) -> bool {
        self.published > 0 || !self.free.is_empty() || self.untouched < self.total
    }

    /// Buffers lent out.
    pub(super) fn lent(&self) -> usize {
        self.lent
    }

    /// Keeps the memory for good; for the end of a shard with leases still out.
    pub(super) fn leak(self) {
        let mut group = ManuallyDrop::new(self);
        group.free = Vec::new();
    }

    fn give_back(&mut self, buffer: u16) {
        self.lent -= 1;
        self.free.push(buffer);
    }

    fn take_free(&mut self) -> Option<u16> {
        if let Some(buffer) = self.free.pop() {
            return Some(buffer);
        }
        let buffer = self.untouched;
        (buffer < self.total).then(|| {
            self.untouched += 1;
            buffer
        })
    }

    fn address(&self, buffer: u16) -> NonNull<u8> {
        // SAFETY: `buffer < total`, so the offset lies inside the mapping.
        unsafe { self.memory.start.add(usize::from(buffer) * self.size) }
    }

    fn write_entry(&mut self, buffer: u16) {
        let index = usize::from(self.tail & (self.ring_entries - 1));
        let address = self.address(buffer);
        // SAFETY: `index < ring_entries`; the kernel reads entries only up to the published tail,
        // and at most `ring_entries` are published, so it is not reading this one. The entry's last
        // field overlaps the tail only in entry 0, and the setters below leave that field alone.
        let entry = unsafe { &mut *self.ring.start.cast::<BufRingEntry>().add(index).as_ptr() };
        entry.set_addr(address.as_ptr() as u64);
        entry.set_len(self.size as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish_tail(&self) {
        // SAFETY: the ring mapping starts with an initialised entry; the tail is an aligned u16 in
        // it, which the kernel only reads.
        let tail = unsafe {
            let tail = BufRingEntry::tail(self.ring.start.cast::<BufRingEntry>().as_ptr());
            AtomicU16::from_ptr(tail.cast_mut())
        };
        tail.store(self.tail, Ordering::Release);
    }
}

/// Anonymous memory, zeroed, page-aligned, without a reservation of swap.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(len: usize) -> io::Result<Mapping> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh anonymous mapping touches no existing memory.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, rights, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(start.cast())
            .map(|start| Mapping { start, len })
            .ok_or_else(|| io::Error::other("mmap gave the null page"))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing refers to it any more (see `BufferGroup::leak`).
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Received bytes, in a buffer on loan from the shard. Dropping it gives the buffer back.
///
/// Never empty when a stream hands it out, and then at most [`limits::LARGE_LEASE`] bytes. Not
/// `Send`.
#[derive(Debug)]
pub struct Lease {
    data: NonNull<u8>,
    len: u32,
    buffer: u16,
    group: u16,
}

impl Lease {
    /// No bytes, and no buffer behind them: what an empty datagram carries.
    pub(super) fn empty() -> Lease {
        Lease { data: NonNull::dangling(), len: 0, buffer: 0, group: NO_GROUP }
    }

    /// An empty lease that a whole TLS record can be gathered in ([`Lease::push`]); `None` when the
    /// shard's room for that is used up.
    pub fn gather() -> Option<Lease> {
        shard::with(|shard| {
            let lease = shard.group(RECORDS).borrow_mut().lend_blank()?;
            shard.stats.leases.rise();
            Some(lease)
        })
    }

    /// Appends as much of `bytes` as the buffer has room for; returns how many that were.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        if self.group == NO_GROUP {
            return 0;
        }
        let room = shard::try_with(|shard| {
            let group = shard.group(self.group).borrow();
            let end = group.address(self.buffer).as_ptr() as usize + group.size;
            end - self.data.as_ptr() as usize - self.len()
        });
        let taken = room.unwrap_or_default().min(bytes.len());
        // SAFETY: behind the lease's bytes its buffer has `room` more, of which nobody else has a
        // reference; `bytes` lie elsewhere, since this lease is borrowed mutably.
        unsafe {
            let end = self.data.as_ptr().add(self.len());
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), end, taken);
        }
        self.len += taken as u32;
        taken
    }

    /// Drops the first `n` bytes, or all when there are fewer.
    pub fn advance(&mut self, n: usize) {
        let n = n.min(self.len());
        // SAFETY: `n <= len`, so the pointer stays inside the buffer or one behind its end.
        self.data = unsafe { self.data.add(n) };
        self.len -= n as u32;
    }

    /// Keeps the first `n` bytes only.
    pub fn truncate(&mut self, n: usize) {
        self.len = self.len.min(u32::try_from(n).unwrap_or(u32::MAX));
    }
}

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the buffer holds `len` received bytes; it is neither published nor lent to anyone
        // else until the lease is dropped, and its memory outlives the lease.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len as usize) }
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` is the only way to the bytes.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.len as usize) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.group == NO_GROUP {
            return;
        }
        shard::try_with(|shard| {
            shard.stats.leases.fall();
            shard.group(self.group).borrow_mut().give_back(self.buffer);
        });
    }
}
