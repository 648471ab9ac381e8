//! Where a request goes: to the pool of the policy that it meets, else to the listener's default
//! pool, and in it to the member that its algorithm chooses; or nowhere, when a policy has Weir
//! answer.

use std::net::IpAddr;
use std::rc::Rc;

use weir_core::pool::Ask;
use weir_core::table::{Held, Nobody, Pool, Way};

use crate::client::Client;
use crate::error::Error;
use crate::message::Request;
use crate::policy::{self, Own};

/// Where a request goes.
pub(crate) enum Route {
    /// To a member of this pool; `None` = there is no pool for it.
    Pool(Option<Rc<Pool>>),
    /// Weir answers.
    Own(Own),
}

/// The route of `request`, whose client has this `address`. Errors: a redirect that can't be
/// written.
#[inline]
pub(crate) fn route(
    client: &Client,
    request: &Request<'_>,
    address: IpAddr,
) -> Result<Route, Error> {
    let site = client.site();
    let Some(routes) = site.routes() else { return Ok(Route::Pool(site.pool())) };
    let scratch = &mut *client.service().scratch.borrow_mut();
    match policy::find(&routes, request, address, scratch) {
        None => Ok(Route::Pool(site.pool())),
        Some(Way::Pool(pool)) => Ok(Route::Pool(pool)),
        Some(Way::Fixed(fixed)) => Ok(Route::Own(Own::fixed(fixed, request.facts.is_head))),
        Some(Way::Redirect(redirect)) => {
            Own::redirect(redirect, &policy::asked_url(request, client.site().is_tls()))
                .map(Route::Own)
        }
    }
}

/// The member for the next request to `pool`; `None` stands for a request without one.
#[inline]
pub(crate) fn pick(pool: Option<&Pool>, ask: Ask<'_>) -> Result<Held, Error> {
    let pool = pool.ok_or(Error::NoPool)?;
    pool.pick(ask).map_err(|nobody| match nobody {
        Nobody::NoMember => Error::NoMember,
        Nobody::NoneUsable => Error::NoUsableMember,
    })
}
