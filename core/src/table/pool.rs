//! A pool as the data path reads it: its members, and what chooses among them.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::{Held, Member};
use crate::control::{self, Connections, Stickiness};
use crate::limits::MAX_ATTEMPTS;
use crate::model::{Algorithm, CidSlice, ConnectionDrain, Handle, ProxyHeader, SlowStart};
use crate::net::source::Sources;
use crate::pool::{Ask, Candidate, Picker, ramp, sticky};
use crate::time::clock::Mono;

/// A pool on one shard.
#[derive(Debug)]
pub struct Pool {
    handle: Handle,
    seed: u64,
    name: RefCell<Rc<str>>,
    label: RefCell<Rc<str>>,
    algorithm: Cell<Algorithm>,
    stickiness: RefCell<Option<Arc<Stickiness>>>,
    connections: RefCell<Option<Arc<Connections>>>,
    cid_slice: Cell<Option<CidSlice>>,
    slow_start: Cell<Option<SlowStart>>,
    drain: Cell<ConnectionDrain>,
    proxy_header: Cell<ProxyHeader>,
    /// With fewer members that are well all of them get traffic.
    least: Cell<usize>,
    serves_all: Cell<bool>,
    sources: RefCell<Sources>,
    members: RefCell<Vec<Rc<Member>>>,
    picker: RefCell<Picker>,
}

/// Why there is no member for a request (C18).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nobody {
    /// The pool is empty: somebody has configured it so.
    NoMember,
    /// It has members, and none of them is usable.
    NoneUsable,
}

impl Pool {
    pub(super) fn new(handle: Handle, seed: u64) -> Pool {
        let algorithm = Algorithm::RoundRobin;
        Pool {
            handle,
            seed,
            name: RefCell::new("".into()),
            label: RefCell::new("".into()),
            algorithm: Cell::new(algorithm),
            stickiness: RefCell::default(),
            connections: RefCell::default(),
            cid_slice: Cell::new(None),
            slow_start: Cell::new(None),
            drain: Cell::default(),
            proxy_header: Cell::default(),
            least: Cell::new(0),
            serves_all: Cell::new(false),
            sources: RefCell::default(),
            members: RefCell::default(),
            picker: RefCell::new(Picker::new(algorithm, seed, None)),
        }
    }

    /// May this address of ours still be used towards its members?
    pub fn allows_source(&self, own: IpAddr) -> bool {
        self.sources.borrow().allows(own)
    }

    pub(super) fn set(&self, settings: &control::Pool, members: Vec<Rc<Member>>) {
        self.sources.replace(Sources::new(Arc::clone(&settings.sources)));
        self.name.replace(settings.name.as_str().into());
        self.label.replace(format!("pool_{}", settings.id).into());
        self.algorithm.set(settings.algorithm);
        self.stickiness.replace(settings.stickiness.clone());
        self.cid_slice.set(settings.connections.as_ref().map(|known| known.slice));
        self.connections.replace(settings.connections.clone());
        self.slow_start.set(settings.slow_start);
        self.drain.set(settings.drain);
        self.proxy_header.set(settings.proxy_header);
        self.least.set(usize::from(settings.minimum_healthy));
        self.members.replace(members);
        let ring = settings.ring.as_ref().map(Arc::clone);
        self.picker.borrow_mut().change(settings.algorithm, self.seed, ring);
    }

    /// Looks whether there are too few members that are well, so that all get traffic (C18). `true`
    /// when that has changed.
    pub(super) fn count_well(&self) -> bool {
        let members = self.members.borrow();
        let well = members.iter().filter(|member| member.is_well()).count();
        let serves_all = well < self.least.get();
        members.iter().for_each(|member| member.set_forced(serves_all));
        self.serves_all.replace(serves_all) != serves_all
    }

    /// To be called when members, their weights, or which of them are usable has changed, and from
    /// time to time while it says so: `true` as long as a member is still growing to its weight.
    pub(super) fn refresh(&self, now: Mono) -> bool {
        let mut growing = false;
        let weight = |member: &Member| match self.slow_start.get() {
            _ if !member.is_usable() => 0,
            None => u32::from(member.weight()),
            Some(SlowStart { duration }) => {
                let since = member.joined().map(|joined| now.since(joined));
                match since {
                    Some(since) if since >= duration => member.set_joined(None),
                    Some(_) => growing = true,
                    None => {}
                }
                ramp::weight(member.weight(), since, duration)
            }
        };
        let mut weight = weight;
        let candidate = |member: &Rc<Member>| Candidate {
            key: member.handle.number(),
            weight: weight(member),
            load: Arc::clone(&member.load),
        };
        let candidates = self.members.borrow().iter().map(candidate).collect();
        self.picker.borrow_mut().set(candidates);
        growing
    }

    /// Its settings and members in words; equal where the files are.
    pub(super) fn describe(&self) -> String {
        let member = |m: &Rc<Member>| format!("{} {} weight {}", m.name(), m.address, m.weight());
        let members: Vec<String> = self.members.borrow().iter().map(member).collect();
        let sticky = self.stickiness();
        let sticky = sticky.as_ref().map(|sticky| (&sticky.cookie, sticky.timeout, &sticky.ids));
        format!(
            "pool {}: {}, {:?}, slow_start {:?}, stickiness {sticky:?}, from {}: {}",
            self.name(),
            self.algorithm().name(),
            self.cid_slice(),
            self.slow_start.get(),
            self.sources.borrow(),
            members.join(", ")
        )
    }

    /// Which pool it is.
    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// The user's name for it.
    pub fn name(&self) -> Rc<str> {
        Rc::clone(&self.name.borrow())
    }

    /// `pool_` and its id, as the access log has it.
    pub fn label(&self) -> Rc<str> {
        Rc::clone(&self.label.borrow())
    }

    /// How members are chosen.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm.get()
    }

    /// How long flows of a member that leaves may run (R7.14-4).
    pub fn drain(&self) -> ConnectionDrain {
        self.drain.get()
    }

    /// The PROXY header that connections to members begin with (R9.1-16).
    pub fn proxy_header(&self) -> ProxyHeader {
        self.proxy_header.get()
    }

    /// Are sessions sent to the same member always (R6.1-1)?
    pub fn is_sticky(&self) -> bool {
        self.stickiness.borrow().is_some()
    }

    /// How sessions are told; `None` = they aren't, or not by a cookie.
    #[inline]
    pub fn stickiness(&self) -> Option<Arc<Stickiness>> {
        self.stickiness.borrow().clone()
    }

    /// What of a connection id tells the connection, where members speak QUIC.
    #[inline]
    pub fn cid_slice(&self) -> Option<CidSlice> {
        self.cid_slice.get()
    }

    /// Whose the connections are, where members speak QUIC.
    pub fn connections(&self) -> Option<Arc<Connections>> {
        self.connections.borrow().clone()
    }

    /// The member that a session is bound to by `mark` (see [`Stickiness::place`]), if it is still
    /// there and may get requests (C12).
    pub fn bound(&self, stickiness: &Stickiness, mark: u64) -> Option<Held> {
        self.hold(stickiness.place(mark)?)
    }

    /// The member for a session that nobody has bound yet: the same on every shard.
    pub fn prefer(&self, stickiness: &Stickiness, session: u64) -> Option<Held> {
        self.prefer_among(stickiness, session, |_| true)
    }

    /// As [`Pool::prefer`], among the members that `fit`.
    pub fn prefer_among(
        &self,
        stickiness: &Stickiness,
        session: u64,
        fit: impl Fn(&Member) -> bool,
    ) -> Option<Held> {
        let place = {
            let members = self.members.borrow();
            let weight = |member: &Rc<Member>| match member.is_usable() && fit(member) {
                true => member.weight(),
                false => 0,
            };
            let weights = members.iter().map(weight);
            sticky::prefer(session, stickiness.ids.iter().copied().zip(weights))
        };
        self.hold(place?)
    }

    /// The member at this position with its load raised, if it may get requests.
    pub fn hold(&self, place: usize) -> Option<Held> {
        let members = self.members.borrow();
        let member = members.get(place).filter(|member| member.is_usable())?;
        member.load.rise();
        Some(Held::new(Rc::clone(member)))
    }

    /// Its members, in file order.
    pub fn members(&self) -> Vec<Rc<Member>> {
        self.members.borrow().clone()
    }

    /// The member for a request.
    ///
    /// # Errors
    /// [`Nobody`], with which of C18's two reasons.
    #[inline]
    pub fn pick(&self, ask: Ask<'_>) -> Result<Held, Nobody> {
        let members = self.members.borrow();
        let at = self.picker.borrow_mut().pick(ask);
        match at.and_then(|at| members.get(at)) {
            Some(member) => Ok(Held::new(Rc::clone(member))),
            None if members.is_empty() => Err(Nobody::NoMember),
            None => Err(Nobody::NoneUsable),
        }
    }
    /// The member for one more attempt of a request, chosen by the same algorithm among those that
    /// were not `tried` (at most [`MAX_ATTEMPTS`]; who has left the pool meanwhile doesn't matter).
    ///
    /// # Errors
    /// As [`Pool::pick`]; [`Nobody::NoneUsable`] when all were tried.
    pub fn pick_other(
        &self,
        hash: u64,
        tried: impl Iterator<Item = Handle>,
    ) -> Result<Held, Nobody> {
        let mut places = [0; MAX_ATTEMPTS];
        let mut count = 0;
        {
            let members = self.members.borrow();
            let place = |handle| members.iter().position(|member| member.handle == handle);
            for (entry, at) in places.iter_mut().zip(tried.filter_map(place)) {
                *entry = at;
                count += 1;
            }
        }
        self.pick(Ask { hash, tried: places.get(..count).unwrap_or_default() })
    }

    /// As [`Pool::pick_other`] at Layer 4, where a client reaches members of its own address family
    /// only (R3.17-3).
    ///
    /// # Errors
    /// As [`Pool::pick_other`]; [`Nobody::NoneUsable`] also without a member of that family.
    pub fn pick_family(
        &self,
        hash: u64,
        ipv6: bool,
        tried: impl Iterator<Item = Handle> + Clone,
    ) -> Result<Held, Nobody> {
        let foreign = |member: &Rc<Member>| member.address.is_ipv6() != ipv6;
        if !self.members.borrow().iter().any(foreign) {
            return self.pick_other(hash, tried);
        }
        let out = |(at, member): (usize, &Rc<Member>)| {
            (foreign(member) || tried.clone().any(|handle| handle == member.handle)).then_some(at)
        };
        let places: Vec<usize> = self.members.borrow().iter().enumerate().filter_map(out).collect();
        self.pick(Ask { hash, tried: &places })
    }
}
