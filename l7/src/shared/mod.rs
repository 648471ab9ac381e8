//! Members that speak HTTP/2: many requests share few connections. `link` is a connection with its
//! task, `streams` what the protocol (`h2`) and its requests have to say to each other, `lane` one
//! request, which the exchange takes for a connection of its own, `check` the question whether a
//! member is well. This file keeps the links of a shard.

mod check;
mod lane;
mod link;
mod streams;

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::time::Duration;

use weir_core::model::{Handle, TcpKeepalive};
use weir_core::rt;
use weir_core::table::Member;

use crate::error::Error;
use crate::limits::MAX_LINKS_PER_MEMBER;
use crate::upstream::{self, Connecting, Connection, Fit, Secured};

pub use check::{GrpcAnswer, ask_grpc};
pub(crate) use lane::Lane;
use link::Link;

/// The shared connections of one shard.
#[derive(Debug, Default)]
pub(crate) struct Links {
    of_members: RefCell<HashMap<Handle, Vec<Rc<Link>>>>,
    /// Itself, for the tasks.
    me: Weak<Links>,
}

/// What a new connection needs.
pub(crate) struct Terms {
    /// Time to connect, the handshake of TLS included.
    pub(crate) limit: Duration,
    /// How long it is kept when nobody asks.
    pub(crate) patience: Duration,
    pub(crate) keepalive: TcpKeepalive,
}

impl Links {
    /// None yet.
    pub(crate) fn new() -> Rc<Links> {
        Rc::new_cyclic(|me| Links { of_members: RefCell::default(), me: Weak::clone(me) })
    }

    /// A stream to `member` for a request that asks for `host`: on a connection that is there, or
    /// on one that is opened for it, and for those that come meanwhile.
    pub(crate) fn connect(&self, member: Rc<Member>, host: &str, terms: &Terms) -> Connecting {
        let link = self.link(&member, host, terms);
        link.patience.set(terms.patience);
        let inner = Rc::default();
        link.enter(Rc::clone(&inner));
        let lane = Lane { inner, link };
        Box::pin(async move {
            poll_fn(|cx| lane.link.poll_open(cx)).await?;
            Ok(Connection::shared(lane, member))
        })
    }

    /// Is there an open connection to `member` with room for one more request for `host`?
    pub(crate) fn has_room(&self, member: &Member, host: &str) -> bool {
        self.find(member, host).is_some_and(|link| link.is_open())
    }

    fn find(&self, member: &Member, host: &str) -> Option<Rc<Link>> {
        let links = self.of_members.borrow();
        let bond = member.bond();
        let fits = |link: &&Rc<Link>| {
            let fit = Secured::fit(link.secured.as_ref(), bond.as_ref(), host);
            matches!(fit, Fit::Yes) && link.has_room()
        };
        links.get(&member.handle)?.iter().find(fits).cloned()
    }

    fn link(&self, member: &Rc<Member>, host: &str, terms: &Terms) -> Rc<Link> {
        if let Some(link) = self.find(member, host) {
            return link;
        }
        let secured = member.bond().map(|bond| Secured::new(bond, host));
        let link = Link::new(Rc::clone(member), secured);
        let mut links = self.of_members.borrow_mut();
        let list = links.entry(member.handle).or_default();
        if list.len() >= MAX_LINKS_PER_MEMBER
            && let Some(oldest) = list.iter().find(|link| link.is_idle())
        {
            // Kept for hosts that nobody asks for any more, they would be without number.
            oldest.leave();
        }
        list.push(Rc::clone(&link));
        drop(links);
        let task = live(Rc::clone(&link), Weak::clone(&self.me), terms.limit, terms.keepalive);
        link.task.set(Some(rt::spawn(task)));
        link
    }

    /// Has all connections to `member` end once nobody uses them.
    pub(crate) fn clear(&self, member: &Member) {
        let links = self.of_members.borrow();
        links.get(&member.handle).into_iter().flatten().for_each(|link| link.leave());
    }

    fn remove(&self, link: &Rc<Link>) {
        let mut links = self.of_members.borrow_mut();
        if let Some(list) = links.get_mut(&link.member.handle) {
            list.retain(|other| !Rc::ptr_eq(other, link));
            if list.is_empty() {
                links.remove(&link.member.handle);
            }
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        for link in self.of_members.take().into_values().flatten() {
            if let Some(task) = link.task.take() {
                task.abort();
            }
            link.end(Error::MemberClosed);
        }
    }
}

/// The life of a connection.
async fn live(link: Rc<Link>, links: Weak<Links>, limit: Duration, keepalive: TcpKeepalive) {
    let member = Rc::clone(&link.member);
    let opened = upstream::open(&member, link.secured.as_ref(), limit, keepalive).await;
    let end = match opened {
        Ok(stream) => {
            let _open = upstream::Counted::new(&member);
            link.run(&stream).await
        }
        Err(error) => {
            upstream::count_failure(&member, error);
            error
        }
    };
    if let Some(links) = links.upgrade() {
        links.remove(&link);
    }
    link.end(end);
}
