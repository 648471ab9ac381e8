//! Where a request goes: the listener's default pool (forwarding policies join with their issue)
//! and in it the member that its algorithm chooses.

use weir_core::pool::Ask;
use weir_core::table::{Held, Nobody, Pool};

use crate::error::Error;

/// The member for the next request to `pool`; `None` stands for a listener without one.
#[inline]
pub(crate) fn pick(pool: Option<&Pool>, ask: Ask<'_>) -> Result<Held, Error> {
    let pool = pool.ok_or(Error::NoPool)?;
    pool.pick(ask).map_err(|nobody| match nobody {
        Nobody::NoMember => Error::NoMember,
        Nobody::NoneUsable => Error::NoUsableMember,
    })
}
