//! Where a request goes: the listener's default pool (forwarding policies join with their issue)
//! and in it the member whose turn it is.

use std::cell::RefCell;
use std::rc::Rc;

use weir_core::pool::Wrr;

use crate::error::Error;
use crate::upstream::Member;

/// One pool as this shard sees it.
#[derive(Debug)]
pub(crate) struct Pool {
    /// Its members, in file order.
    pub(crate) members: Vec<Rc<Member>>,
    /// Whose turn it is.
    pub(crate) turns: RefCell<Wrr>,
}

/// The member for the next request to `pool`; `None` stands for a listener without one.
#[inline]
pub(crate) fn pick(pool: Option<&Pool>) -> Result<&Rc<Member>, Error> {
    let pool = pool.ok_or(Error::NoPool)?;
    if pool.members.is_empty() {
        return Err(Error::NoMember);
    }
    let turn = pool.turns.borrow_mut().pick();
    turn.and_then(|index| pool.members.get(index)).ok_or(Error::NoUsableMember)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(weights: &[u8]) -> Pool {
        let address = "127.0.0.1:1".parse().unwrap();
        let members =
            weights.iter().map(|_| Rc::new(Member::new(address, Default::default()))).collect();
        Pool { members, turns: RefCell::new(Wrr::new(weights, 0)) }
    }

    /// R2.3-404 and C18.
    #[test]
    fn reasons_not_to_pick() {
        let status = |pool: Option<&Pool>| pick(pool).map(|_| ()).map_err(|e| e.verdict().status);
        assert_eq!(status(None), Err(404));
        assert_eq!(status(Some(&pool(&[]))), Err(502));
        assert_eq!(status(Some(&pool(&[0, 0]))), Err(503));
        assert_eq!(status(Some(&pool(&[0, 1]))), Ok(()));
    }
}
