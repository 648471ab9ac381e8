//! The way of control's orders to a shard. None is lost: what a full mailbox does not take waits
//! here, in order, one of a kind, until it is delivered. Owned by [`super::Shard`]; the `fleet` has
//! it delivered again.

use std::mem::{Discriminant, discriminant};

use weir_core::rt::Sender;

/// Orders on their way.
#[derive(Debug)]
pub(super) struct Post<T> {
    mailbox: Sender<T>,
    /// One of a kind, so no more than there are kinds; the oldest first.
    waiting: Vec<(Discriminant<T>, T)>,
}

/// The shard is gone: nobody takes orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl<T: Send> Post<T> {
    /// By this mailbox.
    pub(super) fn by(mailbox: Sender<T>) -> Post<T> {
        Post { mailbox, waiting: Vec::new() }
    }

    /// Gives an order; behind those that wait, and in the place of one of its kind.
    ///
    /// # Errors
    /// The shard is gone.
    pub(super) fn give(&mut self, order: T) -> Result<(), Gone> {
        let kind = discriminant(&order);
        self.waiting.retain(|(other, _)| *other != kind);
        self.waiting.push((kind, order));
        self.deliver();
        if self.mailbox.is_closed() { Err(Gone) } else { Ok(()) }
    }

    /// Asks something that may go unheard: when there is no room, it is.
    ///
    /// # Errors
    /// Gives it back.
    pub(super) fn ask(&self, question: T) -> Result<(), T> {
        match self.waiting.is_empty() {
            true => self.mailbox.try_send(question),
            false => Err(question),
        }
    }

    /// Delivers what waits, as far as there is room. Returns whether some is left.
    pub(super) fn deliver(&mut self) -> bool {
        if self.mailbox.is_closed() {
            self.waiting.clear();
        }
        let mut left = Vec::new();
        for (kind, order) in self.waiting.drain(..) {
            // One that follows must not come before it.
            let undelivered = match left.is_empty() {
                true => self.mailbox.try_send(order).err(),
                false => Some(order),
            };
            left.extend(undelivered.map(|order| (kind, order)));
        }
        self.waiting = left;
        !self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use weir_core::rt::{self, Receiver};

    use super::*;

    #[derive(Debug, PartialEq)]
    enum Order {
        Hold(u8),
        GoOn,
        Stop,
        Show,
    }
    use Order::{GoOn, Hold, Show, Stop};

    /// All that is in the mailbox.
    fn heard(receiver: &mut Receiver<Order>) -> Vec<Order> {
        let mut heard = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(order)) = pin!(receiver.recv()).poll(&mut context) {
            heard.push(order);
        }
        heard
    }

    /// A shard that is busy for long hears everything in the end, in the order in which it was
    /// given; only of two orders of one kind that it has heard neither of, the later one alone.
    #[test]
    fn no_order_is_lost() {
        let (sender, mut shard) = rt::mailbox(2);
        let mut post = Post::by(sender);
        while post.ask(Show).is_ok() {}
        for order in [Hold(1), GoOn, Hold(2), Stop] {
            post.give(order).unwrap();
        }
        assert!(post.deliver(), "there is no room");
        assert_eq!(heard(&mut shard), [Show, Show]);
        assert_eq!(post.ask(Show), Err(Show), "nothing overtakes");
        assert!(post.deliver());
        assert_eq!(heard(&mut shard), [GoOn, Hold(2)]);
        assert!(!post.deliver());
        assert_eq!(heard(&mut shard), [Stop]);
        assert_eq!(post.ask(Show), Ok(()));
    }

    /// What waits is bounded, and goes with the shard.
    #[test]
    fn who_is_gone_gets_nothing() {
        let (sender, shard) = rt::mailbox(1);
        let mut post = Post::by(sender);
        for n in 0..100 {
            post.give(Hold(n)).unwrap();
            post.give(GoOn).unwrap();
        }
        assert_eq!(post.waiting.len(), 2);
        drop(shard);
        assert_eq!(post.give(Stop), Err(Gone));
        assert!(!post.deliver() && post.waiting.is_empty());
    }
}
