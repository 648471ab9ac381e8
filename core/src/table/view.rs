//! The replica itself, and how it follows the desired state.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::outcomes::{Ear, Outcomes};
use super::{Member, Pool, Routes, Site, SiteLog, Suspect};
use crate::control::{self, Change, Diff};
use crate::model::{Handle, TcpKeepalive};
use crate::obs::Board;
use crate::time::clock::Mono;

/// One shard's listeners, pools and members.
#[derive(Debug)]
pub struct View {
    shard: usize,
    seed: u64,
    version: Cell<u64>,
    keepalive: Cell<TcpKeepalive>,
    tables: RefCell<Tables>,
    /// Who hears of members that fail too often.
    ear: Rc<Ear>,
    /// Pools with members that grow to their weights.
    growing: RefCell<Vec<Rc<Pool>>>,
}

#[derive(Debug, Default)]
struct Tables {
    sites: HashMap<Handle, Rc<Site>>,
    pools: HashMap<Handle, Rc<Pool>>,
    members: HashMap<Handle, (Rc<Pool>, Rc<Member>)>,
}

/// What comes with a diff.
struct News<'a> {
    board: &'a Board,
    /// When slow starts begin that begin now.
    joining: Option<Mono>,
}

impl Tables {
    /// Forgets a pool that no listener uses any more; returns its members. Connections that came by
    /// a removed listener keep it as it is now, with the health that was last known: nobody probes
    /// its members for them, and a file may do with it what it likes (R6.3-2, C37).
    fn let_go(&mut self, pool: Handle) -> Vec<Rc<Member>> {
        let members = self.pools.remove(&pool).map(|pool| pool.members()).unwrap_or_default();
        for member in &members {
            self.members.remove(&member.handle);
        }
        members
    }
}

impl View {
    /// An empty view, version 0. `seed` sets where the choices of this shard begin; give each shard
    /// its own.
    pub fn new(shard: usize, seed: u64) -> View {
        View {
            shard,
            seed,
            version: Cell::new(0),
            keepalive: Cell::default(),
            tables: RefCell::default(),
            ear: Rc::default(),
            growing: RefCell::default(),
        }
    }

    /// Has somebody told of members that fail too often in a row (see [`Member::failed`]): at most
    /// once a second and member.
    pub fn on_suspects(&self, tell: impl Fn(Suspect) + 'static) {
        self.ear.set(Box::new(tell));
    }

    /// The version of the state that it shows.
    pub fn version(&self) -> u64 {
        self.version.get()
    }

    /// TCP keep-alive of both sides (R11.1-2).
    pub fn keepalive(&self) -> TcpKeepalive {
        self.keepalive.get()
    }

    /// A listener, if it is there.
    pub fn site(&self, handle: Handle) -> Option<Rc<Site>> {
        self.tables.borrow().sites.get(&handle).cloned()
    }

    /// The configuration part in words, sorted: equal on two shards, or processes, that follow the
    /// same file. Handles, health and positions are left out.
    pub fn describe(&self) -> Vec<String> {
        let tables = self.tables.borrow();
        let mut lines: Vec<String> = tables.sites.values().map(|site| site.describe()).collect();
        lines.extend(tables.pools.values().map(|pool| pool.describe()));
        lines.sort();
        lines
    }

    /// Follows the state; the counters of new objects come from `board`. Returns the members whose
    /// idle connections are to be closed: those that may not be used any more (C38), those of pools
    /// that only connections by removed listeners still use, and those that we have other addresses
    /// towards. Pools that no listener uses are
    /// not kept here.
    ///
    /// Objects that stay are changed in place; who holds one sees the change at once. With
    /// `settled` members that join or come back begin their slow start at `now`; those that a
    /// process starts with don't.
    pub fn apply(&self, diff: &Diff, board: &Board, now: Mono, settled: bool) -> Vec<Rc<Member>> {
        let joining = settled.then_some(now);
        let tables = &mut *self.tables.borrow_mut();
        let (mut touched, mut left) = (Vec::new(), Vec::new());
        for change in &diff.changes {
            match change {
                Change::Pool(handle, pool) if pool.attached => {
                    let news = News { board, joining };
                    left.extend(self.put_pool(tables, *handle, pool, &news, &mut touched));
                }
                Change::Pool(handle, _) | Change::DropPool(handle) => {
                    left.extend(tables.let_go(*handle));
                }
                Change::Health { member, up } => {
                    if let Some((pool, member)) = tables.members.get(member) {
                        if !member.set_up(*up) && *up {
                            member.set_joined(joining);
                        }
                        touched.push((Rc::clone(pool), Rc::clone(member)));
                    }
                }
                Change::Ejected { member, out } => {
                    if let Some((pool, member)) = tables.members.get(member) {
                        if member.set_ejected(*out) && !*out {
                            member.set_joined(joining);
                        }
                        touched.push((Rc::clone(pool), Rc::clone(member)));
                    }
                }
                Change::Listener(handle, listener) => {
                    self.put_listener(tables, *handle, listener, board);
                }
                Change::Keepalive(times) => self.keepalive.set(*times),
                Change::DropListener(handle) => {
                    if let Some(site) = tables.sites.remove(handle) {
                        site.set_gone();
                    }
                }
            }
        }
        self.version.set(diff.to);
        left.extend(self.refresh(touched, now));
        left
    }

    /// Goes on with slow starts; `true` as long as some are under way.
    pub fn step(&self, now: Mono) -> bool {
        let mut growing = self.growing.borrow_mut();
        growing.retain(|pool| pool.refresh(now));
        !growing.is_empty()
    }

    /// Lets each touched pool know once, and returns the members that are not usable.
    fn refresh(&self, mut touched: Vec<(Rc<Pool>, Rc<Member>)>, now: Mono) -> Vec<Rc<Member>> {
        touched.sort_by_key(|(pool, _)| pool.handle());
        let mut growing = self.growing.borrow_mut();
        let mut others = Vec::new();
        for group in touched.chunk_by(|(a, _), (b, _)| a.handle() == b.handle()) {
            let Some((pool, _)) = group.first() else { continue };
            if pool.count_well() {
                others.extend(pool.members());
            }
            let known = || growing.iter().any(|other| other.handle() == pool.handle());
            if pool.refresh(now) && !known() {
                growing.push(Rc::clone(pool));
            }
        }
        let members = touched.into_iter().map(|(_, member)| member).chain(others);
        members.filter(|member| !member.is_usable()).collect()
    }

    /// Returns the members to which connections come from addresses of ours that are none now.
    fn put_pool(
        &self,
        tables: &mut Tables,
        handle: Handle,
        settings: &control::Pool,
        news: &News<'_>,
        touched: &mut Vec<(Rc<Pool>, Rc<Member>)>,
    ) -> Vec<Rc<Member>> {
        let seed = self.seed.wrapping_add(handle.number());
        let pool = tables.pools.entry(handle).or_insert_with(|| Rc::new(Pool::new(handle, seed)));
        let pool = Rc::clone(pool);
        let stay: HashSet<Handle> = settings.members.iter().map(|member| member.handle).collect();
        for former in pool.members() {
            if !stay.contains(&former.handle) {
                former.set_gone();
                tables.members.remove(&former.handle);
                touched.push((Rc::clone(&pool), former));
            }
        }
        let mut members = Vec::with_capacity(settings.members.len());
        let mut outdated = Vec::new();
        for member in &settings.members {
            let counters = || news.board.member(member.handle).get(self.shard).cloned();
            let fresh = || {
                let (counters, load) =
                    (counters().unwrap_or_default(), news.board.load(member.handle));
                let (handle, address) = (member.handle, member.address);
                let outcomes = Outcomes::new(pool.handle(), handle, Rc::clone(&self.ear));
                let fresh = Member::new(handle, address, counters, load, outcomes);
                fresh.set_joined(news.joining);
                (Rc::clone(&pool), Rc::new(fresh))
            };
            let (_, kept) = tables.members.entry(member.handle).or_insert_with(fresh);
            if kept.set(member, settings) {
                outdated.push(Rc::clone(kept));
            }
            touched.push((Rc::clone(&pool), Rc::clone(kept)));
            members.push(Rc::clone(kept));
        }
        pool.set(settings, members);
        outdated
    }

    fn put_listener(
        &self,
        tables: &mut Tables,
        handle: Handle,
        settings: &control::Listener,
        board: &Board,
    ) {
        let counters = || board.listener(handle).get(self.shard).cloned().unwrap_or_default();
        let site = tables
            .sites
            .entry(handle)
            .or_insert_with(|| Rc::new(Site::new(handle, self.shard, counters(), board)));
        site.set(settings, settings.pool.and_then(|pool| tables.pools.get(&pool).cloned()));
        site.set_log(SiteLog::of(settings, board, self.shard));
        let former = site.routes();
        let pool = |pool| tables.pools.get(&pool).cloned();
        let seed = self.seed.wrapping_add(handle.number());
        site.set_routes(Routes::next(former, settings.routes.table(), &pool, seed));
    }
}
