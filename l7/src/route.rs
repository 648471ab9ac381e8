//! Where a request goes: the listener's default pool (forwarding policies join with their issue)
//! and in it the member whose turn it is.

use std::rc::Rc;

use weir_core::table::{Member, Nobody, Pool};

use crate::error::Error;

/// The member for the next request to `pool`; `None` stands for a listener without one.
#[inline]
pub(crate) fn pick(pool: Option<&Pool>) -> Result<Rc<Member>, Error> {
    let pool = pool.ok_or(Error::NoPool)?;
    pool.pick().map_err(|nobody| match nobody {
        Nobody::NoMember => Error::NoMember,
        Nobody::NoneUsable => Error::NoUsableMember,
    })
}
