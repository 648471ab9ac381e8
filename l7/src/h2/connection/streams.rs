//! Pure: the streams of a connection: a slab of those that are alive, and a bounded memory of those
//! that have ended (RFC 9113, 5.1).

use crate::limits::H2_ENDED;

/// Names a stream as long as it is alive; afterwards it is of no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamRef {
    place: u16,
    id: u32,
}

impl StreamRef {
    /// Its place, below the most streams that may be alive; that of another stream later on.
    pub(crate) fn place(self) -> usize {
        usize::from(self.place)
    }

    /// Its number.
    pub(crate) fn id(self) -> u32 {
        self.id
    }
}

/// How far the peer's side has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receiving {
    /// A response is awaited.
    Head,
    /// Body, or trailers.
    Body,
    Ended,
}

/// How far our side has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    Head,
    Body,
    Ended,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    pub(super) receiving: Receiving,
    pub(super) sending: Sending,
    /// Bytes that we may send; negative after the peer has made its windows smaller (6.9.2).
    pub(super) send_window: i64,
    /// Bytes that the peer may send.
    pub(super) receive_window: u32,
    /// Bytes that were handed out and have not gone on.
    pub(super) held: u32,
    /// Bytes that have gone on and the peer has not been told of.
    pub(super) credit: u32,
    /// Bytes of the body to come, if Content-Length said.
    pub(super) expected: Option<u64>,
    /// Our request was HEAD: the response has a length and no body.
    pub(super) to_head: bool,
    /// There is body to send.
    pub(super) wants: bool,
}

/// What is known of a stream that is not alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Past {
    /// Both sides had ended, or the peer gave it up.
    Closed,
    /// We gave it up: the peer may not know yet.
    GivenUp,
    /// Not known any more, or never used.
    Unknown,
}

/// A stream that has ended.
#[derive(Clone, Copy, Debug)]
struct Ended {
    id: u32,
    /// We gave it up.
    given_up: bool,
    /// Bytes of body that the peer may have sent before it heard of the end.
    window: u32,
}

#[derive(Debug)]
pub(super) struct Streams {
    /// The number of the stream in each place; zero: it is free.
    ids: Vec<u32>,
    slots: Vec<Stream>,
    alive: usize,
    /// The last ones that ended, `next` being the oldest once it is full.
    ended: Vec<Ended>,
    next: usize,
    /// Where the next turn to send begins.
    turn: usize,
}

impl Streams {
    pub(super) const fn new() -> Streams {
        Streams {
            ids: Vec::new(),
            slots: Vec::new(),
            alive: 0,
            ended: Vec::new(),
            next: 0,
            turn: 0,
        }
    }

    pub(super) fn alive(&self) -> usize {
        self.alive
    }

    /// A fresh stream, of which the peer's half is at `receiving`, with the windows to send and to
    /// receive.
    pub(super) fn open(
        &mut self,
        id: u32,
        receiving: Receiving,
        [window, receive_window]: [u32; 2],
    ) -> StreamRef {
        let stream = Stream {
            receiving,
            sending: Sending::Head,
            send_window: i64::from(window),
            receive_window,
            held: 0,
            credit: 0,
            expected: None,
            to_head: false,
            wants: false,
        };
        let free = self.ids.iter().position(|&id| id == 0);
        let place = free.unwrap_or(self.ids.len());
        match (self.ids.get_mut(place), self.slots.get_mut(place)) {
            (Some(its_id), Some(slot)) => (*its_id, *slot) = (id, stream),
            _ => {
                self.ids.push(id);
                self.slots.push(stream);
            }
        }
        self.alive += 1;
        // There are never more than a few hundred places.
        StreamRef { place: place as u16, id }
    }

    /// The living stream with this number.
    #[inline]
    pub(super) fn find(&self, id: u32) -> Option<StreamRef> {
        let place = self.ids.iter().position(|&its_id| its_id == id)?;
        (id != 0).then_some(StreamRef { place: place as u16, id })
    }

    #[inline]
    pub(super) fn get(&self, stream: StreamRef) -> Option<&Stream> {
        let alive = self.ids.get(stream.place()) == Some(&stream.id);
        self.slots.get(stream.place()).filter(|_| alive)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, stream: StreamRef) -> Option<&mut Stream> {
        let alive = self.ids.get(stream.place()) == Some(&stream.id);
        self.slots.get_mut(stream.place()).filter(|_| alive)
    }

    /// All that are alive.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (StreamRef, &mut Stream)> {
        let places = self.ids.iter().zip(&mut self.slots).enumerate();
        places
            .filter(|(_, (id, _))| **id != 0)
            .map(|(place, (&id, stream))| (StreamRef { place: place as u16, id }, stream))
    }

    /// Ends a stream; returns what it was.
    pub(super) fn close(&mut self, stream: StreamRef, given_up: bool) -> Option<Stream> {
        let was = *self.get(stream)?;
        if let Some(id) = self.ids.get_mut(stream.place()) {
            *id = 0;
        }
        self.alive -= 1;
        self.remember(stream.id, given_up, was.receive_window);
        Some(was)
    }

    /// Remembers one that has ended, or was refused, and the window that it had.
    pub(super) fn remember(&mut self, id: u32, given_up: bool, window: u32) {
        let entry = Ended { id, given_up, window };
        match self.ended.get_mut(self.next) {
            Some(place) => *place = entry,
            None => self.ended.push(entry),
        }
        self.next = (self.next + 1) % H2_ENDED;
    }

    /// What is known of a stream that is not alive.
    pub(super) fn past(&self, id: u32) -> Past {
        match self.ended.iter().find(|entry| entry.id == id) {
            Some(entry) if entry.given_up => Past::GivenUp,
            Some(_) => Past::Closed,
            None => Past::Unknown,
        }
    }

    /// Takes late body off the window of one that has ended; false: it is more than that.
    pub(super) fn take_late(&mut self, id: u32, bytes: u32) -> bool {
        let Some(entry) = self.ended.iter_mut().find(|entry| entry.id == id) else { return true };
        let left = entry.window.checked_sub(bytes);
        entry.window = left.unwrap_or_default();
        left.is_some()
    }

    /// The stream whose turn it is among those with body to send and a window for it.
    #[inline]
    pub(super) fn next_sender(&mut self) -> Option<(StreamRef, i64)> {
        let places = self.ids.len();
        let order = (self.turn..places).chain(0..self.turn.min(places));
        for place in order {
            let (Some(&id), Some(stream)) = (self.ids.get(place), self.slots.get(place)) else {
                continue;
            };
            if id != 0 && stream.wants && stream.send_window > 0 {
                self.turn = place + 1;
                return Some((StreamRef { place: place as u16, id }, stream.send_window));
            }
        }
        None
    }
}
