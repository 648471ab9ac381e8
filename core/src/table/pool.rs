//! A pool as the data path reads it: its members, and whose turn it is.

use std::cell::RefCell;
use std::rc::Rc;

use super::Member;
use crate::control;
use crate::model::Handle;
use crate::pool::Wrr;

/// A pool on one shard.
#[derive(Debug)]
pub struct Pool {
    handle: Handle,
    seed: u64,
    name: RefCell<Rc<str>>,
    members: RefCell<Vec<Rc<Member>>>,
    turns: RefCell<Wrr>,
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
        let turns = RefCell::new(Wrr::new(&[], 0));
        let name = RefCell::new("".into());
        Pool { handle, seed, name, members: RefCell::default(), turns }
    }

    pub(super) fn set(&self, settings: &control::Pool, members: Vec<Rc<Member>>) {
        self.name.replace(settings.name.as_str().into());
        self.members.replace(members);
        self.refresh();
    }

    /// To be called when the usable members or their weights have changed.
    pub(super) fn refresh(&self) {
        let weight = |m: &Rc<Member>| if m.is_usable() { m.weight() } else { 0 };
        let weights: Vec<u8> = self.members.borrow().iter().map(weight).collect();
        self.turns.replace(Wrr::new(&weights, self.seed));
    }

    /// Which pool it is.
    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// The user's name for it.
    pub fn name(&self) -> Rc<str> {
        Rc::clone(&self.name.borrow())
    }

    /// Its members, in file order.
    pub fn members(&self) -> Vec<Rc<Member>> {
        self.members.borrow().clone()
    }

    /// The member for the next request.
    ///
    /// # Errors
    /// [`Nobody`], with which of C18's two reasons.
    #[inline]
    pub fn pick(&self) -> Result<Rc<Member>, Nobody> {
        let members = self.members.borrow();
        let turn = self.turns.borrow_mut().pick();
        match turn.and_then(|index| members.get(index)) {
            Some(member) => Ok(Rc::clone(member)),
            None if members.is_empty() => Err(Nobody::NoMember),
            None => Err(Nobody::NoneUsable),
        }
    }
}
