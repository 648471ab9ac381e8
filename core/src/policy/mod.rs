//! Forwarding policies, compiled: which policy a request of a listener meets, and what that does.
//!
//! [`Router::new`] turns the model's policies of one listener into tables, once, on the control
//! thread; shards share the result. [`Router::find`] looks a request up in it. All pure: no socket,
//! no clock; a look-up takes no lock and allocates nothing. What a protocol knows of a request
//! comes as a [`RequestView`] with host and path in the form that [`normal`] gives them. Which
//! members a pool has is `pool`'s and `table`'s concern.

mod action;
mod index;
pub mod normal;
mod pattern;
mod rank;
mod redirect;
mod router;
mod rule;
mod template;
mod view;

pub use action::{Action, Fixed};
pub use pattern::Pattern;
pub use redirect::{AskedUrl, Redirect, Scheme, Unwritable};
pub use router::{Policy, Resolve, Router, Share};
pub use template::is_template;
pub use view::{Fields, RequestView};
