//! The step that every client connection takes first, whatever its protocol: access control and
//! limits. What is let in holds a [`Ticket`] as long as it lives.

use std::net::IpAddr;
use std::rc::Rc;

use super::Site;
use crate::acl::{Claim, Refusal, Share, Sources};
use crate::control::Access;
use crate::model::Protocol;
use crate::time::clock::Mono;

/// A connection that was let in: it counts as open at its listener and in the process until this is
/// dropped.
#[derive(Debug)]
pub struct Ticket {
    site: Rc<Site>,
    source: Claim,
}

impl Site {
    /// Lets a connection from `peer` in, or says why not; counts either. A white or black list is
    /// asked first, then the limits of process, listener, address and rate.
    ///
    /// # Errors
    /// The reason; the connection is then to be reset (C19).
    pub fn admit(self: &Rc<Self>, peer: IpAddr, now: Mono) -> Result<Ticket, Refusal> {
        self.counted(self.try_admit(peer, now, None), now)
    }

    /// The same, but where only process or listener are full `end_one` is asked to end a connection
    /// that has the least need of its place; `false` = there is none such.
    ///
    /// # Errors
    /// As [`Site::admit`]; what is refused is then to be dropped.
    pub fn admit_in_turn(
        self: &Rc<Self>,
        peer: IpAddr,
        now: Mono,
        end_one: &dyn Fn() -> bool,
    ) -> Result<Ticket, Refusal> {
        self.counted(self.try_admit(peer, now, Some(end_one)), now)
    }

    /// Lets in a connection that another process had let in, whose place this one takes: it counts
    /// as open, and nothing refuses it. It has been counted where it began.
    #[must_use]
    pub fn readmit(self: &Rc<Self>, peer: IpAddr) -> Ticket {
        let _unlimited = self.house.open.rise(0) && self.gate.open.rise(0);
        self.counters.active_connections.rise();
        let mut ticket = Ticket { site: Rc::clone(self), source: Claim::NONE };
        if self.access.borrow().caps.per_source > 0 {
            // Only the most that can be counted keeps it from counting.
            let _uncounted = ticket.claim(peer, Sources::MOST);
        }
        ticket
    }

    fn counted(&self, ticket: Result<Ticket, Refusal>, now: Mono) -> Result<Ticket, Refusal> {
        ticket.inspect_err(|&refusal| {
            self.counters.refused.count(refusal);
            if refusal == Refusal::Process {
                self.tell_full(now);
            }
        })
    }

    /// Says now and then that the process is full.
    #[cold]
    fn tell_full(&self, now: Mono) {
        if let Some(refused) = self.house.turned_away(now) {
            let (were, limit) = (if refused == 1 { "was" } else { "were" }, self.house.limit());
            tracing::warn!(
                "{refused} connections {were} refused (process_limit) since this was said last: \
                 {limit} are open, as many as the process may have. Raise [runtime] \
                 max_connections; where that is 0, the limit of descriptors (LimitNOFILE=)"
            );
        }
    }

    fn try_admit(
        self: &Rc<Self>,
        peer: IpAddr,
        now: Mono,
        end_one: Option<&dyn Fn() -> bool>,
    ) -> Result<Ticket, Refusal> {
        let access = self.access.borrow();
        match &access.proxies {
            None => self.check_list(peer)?,
            Some(proxies) if !proxies.contains(peer) => return Err(Refusal::ProxyUntrusted),
            // Whom it speaks for is judged when that is known.
            Some(_) => {}
        }
        let mut ticket = match (self.enter(access.caps.connections), end_one) {
            (Err(full), Some(end_one)) => {
                // Whom another limit keeps out takes nobody's place.
                self.check_others(&access, peer, now)?;
                if !end_one() {
                    return Err(full);
                }
                self.enter(access.caps.connections)?
            }
            (ticket, _) => ticket?,
        };
        if access.proxies.is_none() {
            ticket.claim(peer, access.caps.per_source)?;
        }
        if access.caps.rate > 0 && !self.gate.bucket.take(access.caps.rate, now) {
            return Err(Refusal::Rate);
        }
        self.counters.connections.add(1);
        Ok(ticket)
    }

    /// Would the limits of address and rate let a connection in? Takes nothing from them.
    fn check_others(&self, access: &Access, peer: IpAddr, now: Mono) -> Result<(), Refusal> {
        let (per_source, rate) = (access.caps.per_source, access.caps.rate);
        if per_source > 0
            && let Some(sources) = self.gate.sources()
        {
            sources.leave(sources.enter(peer, per_source).ok_or(Refusal::Source)?);
        }
        if rate > 0 && !self.gate.bucket.holds(rate, now) { Err(Refusal::Rate) } else { Ok(()) }
    }

    /// The shard to which a connection that this one has just accepted is to be handed over, since
    /// it has too many; it counts as on its way there. `None` = it is to be served here.
    #[inline]
    pub fn other_taker(&self) -> Option<usize> {
        // Other shards may know no more of a listener that was deleted.
        let taker = || self.house.spread.reserve(self.shard, &self.shards.borrow());
        if self.is_gone() { None } else { taker() }
    }

    /// Where this shard counts its connections; none of UDP, whose flows stay where they come in.
    fn share(&self) -> Option<&Share> {
        match self.protocol() {
            Protocol::Udp => None,
            _ => self.house.spread.share(self.shard),
        }
    }

    /// Does a connection begin with a PROXY header? Then [`Ticket::identify`] follows.
    #[inline]
    pub fn expects_proxy_header(&self) -> bool {
        self.access.borrow().proxies.is_some()
    }

    fn check_list(&self, client: IpAddr) -> Result<(), Refusal> {
        let denied = |access: &Access| access.list.as_ref().is_some_and(|l| !l.allows(client));
        if denied(&self.access.borrow()) { Err(Refusal::AclDenied) } else { Ok(()) }
    }

    /// Counts a connection as open, if process and listener have room for it.
    fn enter(self: &Rc<Self>, limit: u32) -> Result<Ticket, Refusal> {
        if !self.house.open.rise(self.house.limit()) {
            return Err(Refusal::Process);
        }
        if !self.gate.open.rise(limit) {
            self.house.open.fall();
            return Err(Refusal::Connections);
        }
        self.counters.active_connections.rise();
        if let Some(share) = self.share() {
            share.open.rise();
        }
        Ok(Ticket { site: Rc::clone(self), source: Claim::NONE })
    }
}

impl Ticket {
    /// The listener that let it in.
    #[inline]
    #[must_use]
    pub fn site(&self) -> &Rc<Site> {
        &self.site
    }

    /// The client that a PROXY header names: the list and the limit of its address apply to it.
    ///
    /// # Errors
    /// The reason, counted; the connection is then to be reset.
    pub fn identify(&mut self, client: IpAddr) -> Result<(), Refusal> {
        let per_source = self.site.access.borrow().caps.per_source;
        let checked = self.site.check_list(client).and_then(|()| self.claim(client, per_source));
        checked.map_err(|refusal| self.refuse(refusal))
    }

    /// Counts a connection as refused after all; gives the reason back.
    pub fn refuse(&self, refusal: Refusal) -> Refusal {
        self.site.counters.refused.count(refusal);
        refusal
    }

    /// Counts the connection as one of this address.
    fn claim(&mut self, client: IpAddr, limit: u32) -> Result<(), Refusal> {
        if limit > 0
            && let Some(sources) = self.site.gate.sources()
        {
            self.source = sources.enter(client, limit).ok_or(Refusal::Source)?;
        }
        Ok(())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.source != Claim::NONE
            && let Some(sources) = self.site.gate.sources()
        {
            sources.leave(self.source);
        }
        self.site.gate.open.fall();
        self.site.house.open.fall();
        self.site.counters.active_connections.fall();
        if let Some(share) = self.site.share() {
            share.open.fall();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::time::Duration;

    use super::*;
    use crate::control::State;
    use crate::model::{self, AccessControl, AccessKind, Config, Handles, IpGroup, IpGroupEntry};
    use crate::obs::Board;
    use crate::table::View;

    /// Two shards' sites of one listener.
    struct Scene {
        state: State,
        board: Board,
        handles: Handles,
        views: [View; 2],
        now: Mono,
    }

    impl Scene {
        fn new(listener: model::Listener) -> Scene {
            let mut scene = Scene {
                state: State::default(),
                board: Board::default(),
                handles: Handles::default(),
                views: [View::new(0, 1), View::new(1, 2)],
                now: Mono::from_nanos(1 << 40),
            };
            scene.load(listener);
            scene
        }

        fn load(&mut self, listener: model::Listener) {
            let entry = |text: &str| IpGroupEntry {
                network: text.parse().unwrap(),
                description: String::new(),
            };
            let group = |name: &str, entries| IpGroup {
                id: model::derive_id("ipgroup", "", name),
                name: name.into(),
                entries,
            };
            let config = Config {
                balancers: vec![model::Balancer::default()],
                listeners: vec![listener],
                ipgroups: vec![
                    group("a", vec![entry("10.0.0.0/8")]),
                    group("b", vec![entry("fd00::/8"), entry("192.168.0.1/32")]),
                ],
                ..Config::default()
            };
            let next = self.state.next(&config, &|_| vec![0, 1], &mut self.handles);
            let listeners: Vec<_> = next.listeners().map(|(handle, _)| handle).collect();
            self.board = self.board.next(2, listeners.iter().copied(), std::iter::empty());
            listeners.iter().for_each(|&handle| self.board.gate(handle).prepare_sources());
            let diff = self.state.diff(&next);
            for view in &self.views {
                view.apply(&diff, &self.board, self.now, true);
            }
            self.state = next;
        }

        fn site(&self, shard: usize) -> Rc<Site> {
            let handle = self.state.listeners().next().unwrap().0;
            self.views[shard].site(handle).unwrap()
        }

        fn admit(&self, shard: usize, peer: &str) -> Result<Ticket, Refusal> {
            self.site(shard).admit(peer.parse().unwrap(), self.now)
        }

        fn refused(&self, refusal: Refusal) -> u64 {
            (0..2).map(|shard| self.site(shard).counters.refused.get(refusal)).sum()
        }
    }

    fn with(change: impl FnOnce(&mut model::Listener)) -> model::Listener {
        let mut listener = model::Listener { name: "web".into(), ..model::Listener::default() };
        change(&mut listener);
        listener
    }

    fn listed(kind: AccessKind, groups: &[usize]) -> model::Listener {
        let groups = groups.to_vec();
        with(|l| l.ipgroup = Some(AccessControl { groups, kind, enable: true }))
    }

    /// R7.13-1, R5.14-1: several groups, both kinds, live.
    #[test]
    fn lists_are_asked_and_change_at_once() {
        let mut scene = Scene::new(listed(AccessKind::White, &[0, 1]));
        for inside in ["10.9.9.9", "::ffff:10.1.1.1", "fd12::1", "192.168.0.1"] {
            assert!(scene.admit(0, inside).is_ok(), "{inside}");
        }
        for outside in ["11.0.0.1", "::1", "192.168.0.2"] {
            assert_eq!(scene.admit(1, outside).unwrap_err(), Refusal::AclDenied, "{outside}");
        }
        assert_eq!(scene.refused(Refusal::AclDenied), 3);
        let kept = scene.admit(0, "10.0.0.1").unwrap();
        scene.load(listed(AccessKind::Black, &[0]));
        assert_eq!(scene.admit(0, "10.0.0.1").unwrap_err(), Refusal::AclDenied);
        assert!(scene.admit(0, "11.0.0.1").is_ok());
        assert_eq!(kept.site().gate.open.get(), 1, "who was let in stays");
        scene.load(with(|l| {
            let kind = AccessKind::White;
            l.ipgroup = Some(AccessControl { groups: vec![0], kind, enable: false });
        }));
        assert!(scene.admit(0, "11.0.0.1").is_ok(), "switched off");
    }

    /// With PROXY headers the list and the limit of a source go by the client that is named, the
    /// peer only has to be believed.
    #[test]
    fn named_clients_are_judged_like_peers() {
        let mut listener = listed(AccessKind::White, &[0]);
        listener.proxy_protocol.accept = true;
        listener.proxy_protocol.from = vec!["192.168.7.0/24".parse().unwrap()];
        listener.connections_per_source = 1;
        let scene = Scene::new(listener);
        assert!(scene.site(0).expects_proxy_header());
        assert_eq!(scene.admit(0, "10.0.0.1").unwrap_err(), Refusal::ProxyUntrusted);
        let mut first = scene.admit(0, "192.168.7.1").unwrap();
        assert_eq!(first.identify("10.0.0.1".parse().unwrap()), Ok(()));
        let mut second = scene.admit(1, "::ffff:192.168.7.1").unwrap();
        let refused = |ticket: &mut Ticket, client: &str| ticket.identify(client.parse().unwrap());
        assert_eq!(refused(&mut second, "10.0.0.1"), Err(Refusal::Source));
        assert_eq!(refused(&mut second, "11.0.0.1"), Err(Refusal::AclDenied));
        assert_eq!(refused(&mut second, "10.0.0.2"), Ok(()));
        let counted = [Refusal::ProxyUntrusted, Refusal::Source, Refusal::AclDenied];
        assert_eq!(counted.map(|refusal| scene.refused(refusal)), [1; 3]);
    }

    #[test]
    fn limits_hold_over_all_shards() {
        let scene = Scene::new(with(|l| {
            l.connection = 3;
            l.connections_per_source = 2;
        }));
        let first = scene.admit(0, "10.0.0.1").unwrap();
        let _second = scene.admit(1, "10.0.0.1").unwrap();
        assert_eq!(scene.admit(0, "10.0.0.1").unwrap_err(), Refusal::Source);
        let _third = scene.admit(1, "10.0.0.2").unwrap();
        assert_eq!(scene.admit(1, "10.0.0.3").unwrap_err(), Refusal::Connections);
        drop(first);
        assert!(scene.admit(1, "10.0.0.1").is_ok());
        assert_eq!((scene.refused(Refusal::Source), scene.refused(Refusal::Connections)), (1, 1));
        assert_eq!(scene.site(0).house.open.get(), 2);
    }

    /// Who is full asks for a place, but for none that another limit would leave empty.
    #[test]
    fn a_place_is_asked_for_in_vain_by_nobody() {
        let scene = Scene::new(with(|l| {
            (l.connection, l.connections_per_source, l.cps) = (3, 2, 4);
        }));
        let held = RefCell::new(Vec::new());
        let ended = Cell::new(0);
        let end_one = || {
            ended.set(ended.get() + 1);
            held.borrow_mut().pop().is_some()
        };
        let enter = |peer: &str| {
            let ticket = scene.site(0).admit_in_turn(peer.parse().unwrap(), scene.now, &end_one)?;
            held.borrow_mut().push(ticket);
            Ok(())
        };
        for peer in ["10.0.0.1", "10.0.0.1", "10.0.0.2"] {
            assert_eq!(enter(peer), Ok(()));
        }
        assert_eq!((enter("10.0.0.1"), ended.get()), (Err(Refusal::Source), 0));
        assert_eq!((enter("10.0.0.3"), ended.get()), (Ok(()), 1));
        assert_eq!((enter("10.0.0.4"), ended.get()), (Err(Refusal::Rate), 1));
        assert_eq!(scene.site(0).house.open.get(), 3);
        assert_eq!((scene.refused(Refusal::Source), scene.refused(Refusal::Rate)), (1, 1));
        assert_eq!(scene.refused(Refusal::Connections), 0);
    }

    /// A connection counts on the shard that serves it as long as it is open, a flow on none.
    #[test]
    fn who_has_too_many_hands_over() {
        let mut scene = Scene::new(with(|_| {}));
        scene.board.house().spread.prepare(2);
        let spread = |scene: &Scene| {
            let spread = &scene.board.house().spread;
            [0, 1].map(|shard| spread.share(shard).unwrap().open.get())
        };
        let kept: Vec<_> = (0..3).map(|_| scene.admit(0, "10.0.0.1").unwrap()).collect();
        assert_eq!((spread(&scene), scene.site(0).other_taker()), ([3, 0], None), "off");
        scene.board.house().spread.set_bound(50);
        assert_eq!(scene.site(1).other_taker(), None, "it has fewer");
        let old = scene.site(0);
        assert_eq!(old.other_taker(), Some(1));
        scene.board.house().spread.share(1).unwrap().arrived();
        drop(kept);
        assert_eq!(spread(&scene), [0, 0]);
        scene.load(with(|l| {
            (l.id, l.protocol) = (model::Id::from_u128(9), model::Protocol::Udp);
        }));
        let _flows: Vec<_> = (0..3).map(|_| scene.admit(0, "10.0.0.1").unwrap()).collect();
        assert_eq!(spread(&scene), [0, 0]);
        scene.board.house().spread.share(0).unwrap().open.rise();
        scene.board.house().spread.share(0).unwrap().open.rise();
        assert!(old.is_gone() && old.other_taker().is_none(), "deleted: who knows it there?");
    }

    #[test]
    fn the_rate_and_the_house() {
        let mut scene = Scene::new(with(|l| l.cps = 4));
        let burst = (0..10).filter(|n| scene.admit(n % 2, "10.0.0.1").is_ok()).count();
        assert_eq!((burst, scene.refused(Refusal::Rate)), (4, 6));
        assert_eq!(scene.site(0).gate.open.get(), 0, "what is refused counts nowhere");
        scene.now = scene.now.plus(Duration::from_secs(1));
        scene.board.house().set_limit(2);
        let kept: Vec<_> = (0..4).filter_map(|n| scene.admit(n % 2, "10.0.0.1").ok()).collect();
        assert_eq!((kept.len(), scene.refused(Refusal::Process)), (2, 2));
        drop(kept);
        assert!(scene.admit(0, "10.0.0.1").is_ok());
    }

    /// Sets are made once: listeners of the same groups share one, and so do versions.
    #[test]
    fn equal_lists_are_one_copy() {
        let one = listed(AccessKind::White, &[0, 1]);
        let mut two = listed(AccessKind::Black, &[1, 0]);
        (two.name, two.id) = ("two".into(), model::Id::from_u128(2));
        let set = |state: &State, at: usize| {
            let listener = state.listeners().nth(at).unwrap().1;
            std::sync::Arc::as_ptr(&listener.access.list.as_ref().unwrap().set)
        };
        let entry = IpGroupEntry { network: "10.0.0.0/8".parse().unwrap(), description: "".into() };
        let group = IpGroup { id: model::Id::nil(), name: "g".into(), entries: vec![entry] };
        let mut config = Config {
            listeners: vec![one, two],
            ipgroups: vec![group.clone(), IpGroup { name: "h".into(), ..group }],
            ..Config::default()
        };
        let mut handles = Handles::default();
        let first = State::default().next(&config, &|_| vec![0], &mut handles);
        assert_eq!(set(&first, 0), set(&first, 1));
        config.listeners[0].cps = 9;
        let second = first.next(&config, &|_| vec![0], &mut handles);
        assert_eq!((set(&second, 0), set(&second, 1)), (set(&first, 0), set(&first, 1)));
    }
}
