//! The way of log lines off the shards: each shard fills blocks of whole lines and hands them over
//! by queues that nobody ever waits at; one writer a target empties them. When all blocks of a
//! shard are under way, because the target is slow, full or stalled, its lines are dropped and
//! counted.
//!
//! Owns blocks, queues and counts. What a line says is for `weir-l7`, files are for the server.

use std::sync::{Arc, OnceLock};
use std::thread::Thread;

use crossbeam::queue::ArrayQueue;

use crate::counter::Counter;
use crate::limits::{LOG_BLOCK, LOG_BLOCKS, LOG_LINE};

/// What one target of a log is to write: a pipe a shard, and what became of it.
#[derive(Debug)]
pub struct Spool {
    pipes: Vec<Arc<Pipe>>,
    /// Lines that were written. The writer is the only one who counts here.
    pub written: Counter,
    /// Lines that the writer could not write: a full disk, a reader that has gone.
    pub lost: Counter,
}

/// One shard's way to one target. The shard appends, the writer takes; both at once.
#[derive(Debug)]
pub struct Pipe {
    /// The block that is being filled, but while a line is appended. The writer takes it away when
    /// it comes by, so that no line is old.
    current: ArrayQueue<Block>,
    full: ArrayQueue<Block>,
    free: ArrayQueue<Block>,
    /// Blocks that exist.
    made: Counter,
    /// Blocks that were begun.
    begun: Counter,
    dropped: Counter,
    writer: OnceLock<Thread>,
}

/// Some whole lines of one shard.
#[derive(Debug)]
pub struct Block {
    number: u64,
    /// How many lines.
    pub lines: u64,
    /// The lines, each with its line break.
    pub text: Vec<u8>,
}

impl Spool {
    /// Pipes of `shards` shards; nothing is allocated before lines come.
    #[must_use]
    pub fn new(shards: usize) -> Spool {
        Spool {
            pipes: (0..shards).map(|_| Arc::new(Pipe::new())).collect(),
            written: Counter::default(),
            lost: Counter::default(),
        }
    }

    /// The pipe of a shard.
    #[must_use]
    pub fn pipe(&self, shard: usize) -> Option<&Arc<Pipe>> {
        self.pipes.get(shard)
    }

    /// All pipes.
    #[must_use]
    pub fn pipes(&self) -> &[Arc<Pipe>] {
        &self.pipes
    }

    /// Names the thread that is to be woken when a block is full. Once.
    pub fn wake_with(&self, writer: &Thread) {
        for pipe in &self.pipes {
            let _set_once = pipe.writer.set(writer.clone());
        }
    }

    /// Lines that no file has: dropped on the shards, or not taken by the target.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.pipes.iter().map(|pipe| pipe.dropped.get()).sum::<u64>() + self.lost.get()
    }
}

impl Pipe {
    fn new() -> Pipe {
        Pipe {
            current: ArrayQueue::new(1),
            full: ArrayQueue::new(LOG_BLOCKS),
            free: ArrayQueue::new(LOG_BLOCKS),
            made: Counter::default(),
            begun: Counter::default(),
            dropped: Counter::default(),
            writer: OnceLock::new(),
        }
    }

    /// Has `write` append one line, its line break included and at most [`LOG_LINE`] bytes long; or
    /// drops it when there is no room. Never waits. Owning shard only.
    pub fn line(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(mut block) = self.current.pop().or_else(|| self.begin()) else {
            return self.dropped.add(1);
        };
        write(&mut block.text);
        block.lines += 1;
        if block.text.len() < LOG_BLOCK {
            // Only this shard puts blocks here, one at a time.
            let _always_room = self.current.push(block);
            return;
        }
        // There are no more blocks than places.
        let _always_room = self.full.push(block);
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    /// An empty block: a used one, a new one, or none.
    fn begin(&self) -> Option<Block> {
        let number = self.begun.get();
        let block = match self.free.pop() {
            Some(block) => Block { number, ..block },
            None if self.made.get() < LOG_BLOCKS as u64 => {
                self.made.add(1);
                Block { number, lines: 0, text: Vec::with_capacity(LOG_BLOCK + LOG_LINE) }
            }
            None => return None,
        };
        self.begun.add(1);
        Some(block)
    }

    /// Takes all lines that are here, in order, behind what `blocks` has. Writer only.
    pub fn take(&self, blocks: &mut Vec<Block>) {
        let before = blocks.len();
        // The one in work first: all that the shard began before it are in the queue by now. Those
        // that it began since then may be there as well; hence the sorting.
        blocks.extend(self.current.pop());
        while let Some(block) = self.full.pop() {
            blocks.push(block);
        }
        if let Some(new) = blocks.get_mut(before..) {
            new.sort_unstable_by_key(|block| block.number);
        }
    }

    /// Gives a block back for use. Writer only.
    pub fn give_back(&self, mut block: Block) {
        block.text.clear();
        block.lines = 0;
        // There are no more blocks than places.
        let _always_room = self.free.push(block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(pipe: &Pipe, text: &str) {
        pipe.line(|out| out.extend_from_slice(text.as_bytes()));
    }

    fn taken(pipe: &Pipe) -> Vec<u8> {
        let mut blocks = Vec::new();
        pipe.take(&mut blocks);
        let text = blocks.iter().flat_map(|block| block.text.clone()).collect();
        blocks.into_iter().for_each(|block| pipe.give_back(block));
        text
    }

    #[test]
    fn lines_come_out_as_they_went_in() {
        let spool = Spool::new(2);
        let pipe = spool.pipe(1).unwrap();
        assert!(taken(pipe).is_empty());
        let mut expected = Vec::new();
        for round in 0..10 {
            for at in 0..10_000 {
                let line = format!("{round} {at}\n");
                expected.extend_from_slice(line.as_bytes());
                append(pipe, &line);
            }
            assert!(taken(pipe) == expected, "round {round}");
            expected.clear();
        }
        assert_eq!(spool.dropped(), 0);
    }

    #[test]
    fn what_has_no_room_is_dropped_and_counted() {
        let spool = Spool::new(1);
        let pipe = spool.pipe(0).unwrap();
        let line = "x".repeat(999) + "\n";
        let room = LOG_BLOCKS * LOG_BLOCK.div_ceil(1_000);
        (0..room + 7).for_each(|_| append(pipe, &line));
        assert_eq!(spool.dropped(), 7);
        let mut blocks = Vec::new();
        pipe.take(&mut blocks);
        assert_eq!(blocks.iter().map(|block| block.lines).sum::<u64>(), room as u64);
        // While the writer holds them there is still no room.
        append(pipe, &line);
        assert_eq!(spool.dropped(), 8);
        blocks.into_iter().for_each(|block| pipe.give_back(block));
        append(pipe, &line);
        assert_eq!(spool.dropped(), 8);
        assert_eq!(taken(pipe).len(), 1_000);
    }

    /// A writer that takes all the time, and a shard that never stops: every line comes out once,
    /// in order, whole, unless it is counted as dropped.
    #[test]
    fn a_writer_and_a_shard_at_once() {
        const LINES: u64 = 200_000;
        let spool = Arc::new(Spool::new(1));
        let ended = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (theirs, end) = (Arc::clone(&spool), Arc::clone(&ended));
        let reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            loop {
                let last = end.load(std::sync::atomic::Ordering::Acquire);
                text.extend(taken(theirs.pipe(0).unwrap()));
                if last {
                    return String::from_utf8(text).unwrap();
                }
                std::thread::yield_now();
            }
        });
        (0..LINES).for_each(|at| append(spool.pipe(0).unwrap(), &format!("{at}\n")));
        ended.store(true, std::sync::atomic::Ordering::Release);
        let text = reader.join().unwrap();
        let numbers: Vec<u64> = text.lines().map(|line| line.parse().unwrap()).collect();
        assert!(numbers.is_sorted());
        assert_eq!(numbers.len() as u64 + spool.dropped(), LINES);
    }
}
