//! The turn: run what is runnable, enter the kernel once, hand out what came back. Owns the loop
//! and its bounds; what an operation's completion means is the business of the object it belongs
//! to.

use std::time::Duration;

use io_uring::{opcode, types};

use super::buffers::{DATAGRAMS, LARGE, Left, SMALL};
use super::ops::Op;
use super::ring::{Completion, Wait};
use super::shard::Shard;
use super::task::TaskHandle;
use crate::limits;
use crate::time::clock::{self, Mono};

/// How long a shard turns.
#[derive(Clone, Copy)]
enum Until {
    /// Until this task has ended.
    Ends(TaskHandle),
    /// Its caller decides; no turn sleeps beyond this point.
    Time(Mono),
}

/// Whole microseconds.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Shard {
    /// Turns until the task `main` has ended.
    pub(super) fn drive(&self, main: TaskHandle) {
        self.arm_wake();
        let mut completions = Vec::with_capacity(limits::COMPLETION_ENTRIES as usize);
        while self.tasks.is_alive(main) {
            self.turn(&mut completions, Until::Ends(main));
        }
    }

    /// Ends whatever is left: drops the tasks, cancels the operations, waits for their completions,
    /// for a bounded time.
    pub(super) fn end(&self) {
        self.stats.task_panics.add(self.tasks.clear());
        let give_up = self.clock().plus(Duration::from_millis(limits::TEARDOWN_MS));
        let mut completions = Vec::new();
        self.starved.borrow_mut().clear();
        self.starved_sockets.borrow_mut().clear();
        while self.ops.borrow().live() > 0 && self.clock() < give_up {
            let ids: Vec<_> = self.ops.borrow().ids().collect();
            for id in ids {
                self.cancel(id);
            }
            self.turn(&mut completions, Until::Time(give_up));
        }
        // The closes that the last completions asked for.
        self.ring.borrow_mut().enter(None);
    }

    fn turn(&self, completions: &mut Vec<Completion>, until: Until) {
        self.stats.turns.add(1);
        self.stats.task_panics.add(self.tasks.run());
        self.timers.start_fresh(self.now(), clock::mono);
        self.feed_receives();
        if let Some(faults) = &self.faults
            && faults.strikes(faults.plan().cancel)
        {
            self.cancel_something();
        }
        // Before the sleep, so that a sleeping shard's gauge is right.
        self.stats.operations.set(self.ops.borrow().live() as u64);
        let wait = self.wait(until);
        self.stats.sleeps.add(u64::from(wait.is_some()));
        let asleep = wait.is_some().then(clock::mono);
        if let Some(asleep) = asleep {
            self.stats.spun_us.add(micros(self.spin.ends(false, asleep)));
        }
        self.ring.borrow_mut().enter(wait);
        self.inbox.awake();
        let now = self.clock();
        if let Some(asleep) = asleep {
            self.stats.slept_us.add(micros(now.since(asleep)));
        }
        self.ring.borrow_mut().reap(completions);
        // Before the completions are handled, which may queue operations of the next turn.
        let settled = self.ring.borrow_mut().is_settled();
        let had_news = !completions.is_empty();
        for completion in completions.drain(..) {
            self.complete(completion);
        }
        if settled {
            self.settle_quiet_sends();
            self.settle_quiet_datagrams();
        }
        self.timers.advance(now);
        while let Some(task) = self.inbox.next() {
            self.tasks.make_runnable(task);
        }
        if had_news || self.tasks.has_runnable() {
            self.stats.spun_us.add(micros(self.spin.ends(true, now)));
        }
    }

    /// How long this turn may sleep; `None` when there is work, or nothing to wait for any more, or
    /// when it shall only look. While the shard looks (polls), other threads need not wake it: each
    /// turn takes their wake-ups, the timers and what the kernel has.
    fn wait(&self, until: Until) -> Option<Wait> {
        let end = match until {
            Until::Ends(main) if !self.tasks.is_alive(main) => return None,
            Until::Ends(_) => None,
            Until::Time(end) => Some(end),
        };
        if self.tasks.has_runnable() || self.quiet_send_awaited() {
            return None;
        }
        let polls = matches!(until, Until::Ends(_)) && self.spin.polls(clock::mono);
        if polls || !self.inbox.may_sleep() {
            return None;
        }
        let timer = self.timers.next();
        let Some(next) = timer.min(end).or(timer).or(end) else { return Some(Wait::Forever) };
        let left = next.since(clock::mono());
        (!left.is_zero()).then_some(Wait::AtMost(left))
    }

    fn complete(&self, completion: Completion) {
        let Some((id, mut op)) = self.ops.borrow_mut().take(completion.user_data) else { return };
        let last = !completion.more();
        match &mut op {
            Op::Recv(stream) => stream.recv_completed(self, &completion, last),
            Op::Send(stream) => stream.send_completed(self, &completion),
            Op::Accept(listener) => listener.accept_completed(self, &completion, last),
            Op::Connect(connecting) => connecting.completed(&completion),
            Op::Poll(polling) => polling.completed(&completion),
            Op::RecvFrom(socket) => socket.recv_completed(self, &completion, last),
            Op::SendTo(posted) => posted.completed(self, &completion),
            Op::Wake if self.tasks.live() > 0 => self.arm_wake(),
            Op::Wake | Op::Busy => {}
        }
        let mut ops = self.ops.borrow_mut();
        if last {
            ops.free(id);
            drop(ops);
            drop(op);
        } else {
            ops.put_back(id, op);
        }
    }

    /// The kernel has seen all sends of this turn, and those that are still here have not failed:
    /// they are done.
    fn settle_quiet_sends(&self) {
        let mut sends = self.quiet_sends.take();
        for (id, stream) in sends.drain(..) {
            let op = self.ops.borrow_mut().take(id.user_data());
            if op.is_some() {
                stream.send_settled(self);
                self.ops.borrow_mut().free(id);
            }
        }
        self.quiet_sends.replace(sends);
    }

    /// The same for datagrams, which the kernel has taken or refused by now.
    fn settle_quiet_datagrams(&self) {
        let mut sends = self.quiet_datagrams.take();
        for (id, _) in sends.drain(..) {
            let op = self.ops.borrow_mut().take(id.user_data());
            if let Some((_, Op::SendTo(posted))) = op {
                self.ops.borrow_mut().free(id);
                posted.settled(self);
            }
        }
        self.quiet_datagrams.replace(sends);
    }

    /// True when somebody waits for a send that will not end a sleep, or for the lease in it.
    fn quiet_send_awaited(&self) -> bool {
        let sends = self.quiet_sends.borrow();
        let starved = !self.starved.borrow().is_empty();
        sends.iter().any(|(_, stream)| starved || stream.send_awaited())
            || self.quiet_datagram_awaited()
    }

    /// The same for datagrams: a buffer in one is needed, or a socket closes behind it.
    fn quiet_datagram_awaited(&self) -> bool {
        let sends = self.quiet_datagrams.borrow();
        let starved = !self.starved_sockets.borrow().is_empty();
        sends.iter().any(|(_, socket)| starved || socket.is_closing())
    }

    /// Keeps a read of the inbox's eventfd in flight.
    fn arm_wake(&self) {
        let count = self.wake_count.as_ptr().cast::<u8>();
        let fd = types::Fd(self.inbox.event_fd());
        // SAFETY: the eight bytes are boxed in the shard, which waits for its operations before it
        // goes (or leaks them), and nobody else uses them.
        unsafe { self.submit(Op::Wake, || opcode::Read::new(fd, count, 8).build()) };
    }

    /// Publishes receive buffers, then gives the streams that went without another try: no more of
    /// them than there are buffers, so that a shortage never becomes a busy loop.
    fn feed_receives(&self) {
        if let Some(faults) = &self.faults
            && faults.strikes(faults.plan().starve)
        {
            return;
        }
        for group in self.groups() {
            group.borrow_mut().refill();
        }
        self.feed_sockets();
        if self.starved.borrow().is_empty() {
            return;
        }
        let mut left = Left {
            small: self.group(SMALL).borrow().published(),
            large: match self.features.large_leases {
                true => self.group(LARGE).borrow().published(),
                false => 0,
            },
        };
        let mut starved = self.starved.take();
        let mut asked = 0;
        for stream in &starved {
            if left.is_empty() {
                break;
            }
            // One that wants no bytes any more must not use up the try of another.
            stream.feed(self, &mut left);
            asked += 1;
        }
        starved.drain(..asked);
        self.starved.replace(starved);
    }

    /// The same for UDP sockets, which have buffers of their own.
    fn feed_sockets(&self) {
        if self.starved_sockets.borrow().is_empty() {
            return;
        }
        let left = usize::from(self.group(DATAGRAMS).borrow().published());
        let mut starved = self.starved_sockets.take();
        for socket in starved.drain(..left.min(starved.len())) {
            socket.feed(self);
        }
        starved.append(&mut self.starved_sockets.borrow_mut());
        self.starved_sockets.replace(starved);
    }

    /// A fault on demand: the kernel ends a random operation.
    fn cancel_something(&self) {
        let Some(faults) = &self.faults else { return };
        let ops = self.ops.borrow();
        let count = ops.ids().count() as u64;
        let pick = ops.ids().nth(faults.below(count) as usize);
        let pick = pick.filter(|id| ops.may_be_cancelled(*id));
        drop(ops);
        if let Some(id) = pick {
            self.cancel(id);
        }
    }
}
