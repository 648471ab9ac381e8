//! A member as the data path reads it.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::outcomes::Outcomes;
use crate::control;
use crate::model::{Handle, Id, PoolProtocol};
use crate::net::source::Sources;
use crate::obs::MemberCounters;
use crate::pool::Load;
use crate::time::clock::Mono;
use crate::tls::Bond;

/// A member of a pool on one shard.
#[derive(Debug)]
pub struct Member {
    /// Which member it is.
    pub handle: Handle,
    /// Where it listens.
    pub address: SocketAddr,
    /// The same as text, for Host.
    pub host: Box<str>,
    /// What this shard counts for it.
    pub counters: Arc<MemberCounters>,
    /// What it has to do, on all shards together.
    pub load: Arc<Load>,
    /// Anchor of the idle connections that the protocol code keeps to it.
    pub keep: Keep,
    id: Cell<Id>,
    name: RefCell<Rc<str>>,
    label: RefCell<Rc<str>>,
    weight: Cell<u8>,
    up: Cell<bool>,
    ejected: Cell<bool>,
    /// Its pool has too few members that are well, so that all get traffic.
    forced: Cell<bool>,
    gone: Cell<bool>,
    outcomes: Outcomes,
    /// When it joined or came back, while slow start counts that.
    joined: Cell<Option<Mono>>,
    bond: RefCell<Option<Rc<Bond>>>,
    shared: Cell<bool>,
    sources: RefCell<Rc<Sources>>,
}

/// What the keeper of idle connections remembers at the member itself, so that it needs no look-up.
#[derive(Debug)]
pub struct Keep {
    /// The newest one's slot; [`Keep::NONE`] = there is none.
    pub newest: Cell<u32>,
    /// How many there are.
    pub count: Cell<u32>,
}

impl Keep {
    /// No slot.
    pub const NONE: u32 = u32::MAX;
}

impl Member {
    /// A member that is up and has weight 0 until it is told otherwise.
    pub(super) fn new(
        handle: Handle,
        address: SocketAddr,
        counters: Arc<MemberCounters>,
        load: Arc<Load>,
        outcomes: Outcomes,
    ) -> Member {
        Member {
            handle,
            address,
            host: address.to_string().into_boxed_str(),
            counters,
            load,
            keep: Keep { newest: Cell::new(Keep::NONE), count: Cell::new(0) },
            id: Cell::new(Id::nil()),
            name: RefCell::new("".into()),
            label: RefCell::new("".into()),
            weight: Cell::new(0),
            up: Cell::new(true),
            ejected: Cell::new(false),
            forced: Cell::new(false),
            outcomes,
            gone: Cell::new(false),
            joined: Cell::new(None),
            bond: RefCell::default(),
            shared: Cell::new(false),
            sources: RefCell::default(),
        }
    }

    /// Takes over what may change of it and of its pool. `true` when connections that there are
    /// come from addresses that may be used no more.
    pub(super) fn set(&self, settings: &control::Member, pool: &control::Pool) -> bool {
        let trust = pool.trust.as_ref();
        self.shared.set(pool.protocol == PoolProtocol::Grpc);
        self.id.set(settings.id);
        self.name.replace(settings.name.as_str().into());
        self.label.replace(format!("member_{}", settings.id).into());
        self.weight.set(settings.weight);
        self.outcomes.set_limit(pool.outliers.map_or(0, |rules| rules.consecutive_failures));
        let mut bond = self.bond.borrow_mut();
        if bond.as_ref().map(|bond| &bond.trust) != trust {
            *bond = trust.map(|trust| Rc::new(Bond::new(trust.clone())));
        }
        let mut sources = self.sources.borrow_mut();
        let others = !sources.is(&pool.sources);
        if others {
            *sources = Rc::new(Sources::new(Arc::clone(&pool.sources)));
        }
        others
    }

    /// Our own addresses towards it; the same object as long as they are the same.
    pub fn sources(&self) -> Rc<Sources> {
        Rc::clone(&self.sources.borrow())
    }

    /// Returns what it was.
    pub(super) fn set_up(&self, up: bool) -> bool {
        self.up.replace(up)
    }

    /// Returns what it was. Who comes back is as good as new.
    pub(super) fn set_ejected(&self, out: bool) -> bool {
        if !out {
            self.outcomes.forget();
        }
        self.ejected.replace(out)
    }

    pub(super) fn set_forced(&self, forced: bool) {
        self.forced.set(forced);
    }

    /// Might it get requests, as far as it itself goes?
    pub(super) fn is_well(&self) -> bool {
        self.up.get() && !self.ejected.get() && self.weight.get() > 0
    }

    /// A request had its whole answer, or a connection came about.
    #[inline]
    pub fn succeeded(&self) {
        self.outcomes.forget();
    }

    /// It has failed what a client asked, and not this host.
    pub fn failed(&self, now: Mono) {
        self.outcomes.failed(now);
    }

    pub(super) fn joined(&self) -> Option<Mono> {
        self.joined.get()
    }

    pub(super) fn set_joined(&self, when: Option<Mono>) {
        self.joined.set(when);
    }

    pub(super) fn set_gone(&self) {
        self.gone.set(true);
    }

    /// May it get new requests? Not with weight 0 (R2.1-4), not once it was removed, and, unless
    /// its pool has too few others, not while its checks find it down (R8.1-1) or it is left out.
    #[inline]
    pub fn is_usable(&self) -> bool {
        let fit = self.up.get() && !self.ejected.get() || self.forced.get();
        fit && self.weight.get() > 0 && !self.gone.get()
    }

    /// Was it removed, or has it weight 0? What it has may end; a tunnel may stay until it is
    /// quiet (C12).
    pub fn is_leaving(&self) -> bool {
        self.weight.get() == 0 || self.gone.get()
    }

    /// How it is spoken to inside TLS; `None` = in clear text.
    pub fn bond(&self) -> Option<Rc<Bond>> {
        self.bond.borrow().clone()
    }

    /// Does it speak HTTP/2, so that requests share connections to it?
    #[inline]
    pub fn is_shared(&self) -> bool {
        self.shared.get()
    }

    /// Identity towards users.
    #[inline]
    pub fn id(&self) -> Id {
        self.id.get()
    }

    /// The user's name for it.
    pub fn name(&self) -> Rc<str> {
        Rc::clone(&self.name.borrow())
    }

    /// `member_` and its id, as the access log has it.
    pub fn label(&self) -> Rc<str> {
        Rc::clone(&self.label.borrow())
    }

    /// 0–100.
    pub fn weight(&self) -> u8 {
        self.weight.get()
    }

    /// May flows that it has go on? Not while its checks find it down, unless its pool has too few
    /// others.
    pub fn may_go_on(&self) -> bool {
        self.up.get() || self.forced.get()
    }
}

/// A member that was picked for a request: it counts as the member's load as long as this lives.
#[derive(Debug)]
pub struct Held(Rc<Member>);

impl Held {
    /// The load has been raised already.
    pub(super) fn new(member: Rc<Member>) -> Held {
        Held(member)
    }

    /// Holds a member that was picked in another process, whose connection this one goes on with:
    /// whether it may get anything new doesn't matter.
    #[must_use]
    pub fn again(member: &Rc<Member>) -> Held {
        member.load.rise();
        Held(Rc::clone(member))
    }

    /// The member.
    #[inline]
    pub fn member(&self) -> &Rc<Member> {
        &self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.load.fall();
    }
}
