//! The validated configuration. Owns the objects that the data path reads; built only by
//! `config`, whose construction proves the rules, and never changed in place.

mod id;
mod objects;

pub use id::derive_id;
pub use objects::{
    Admin, Balancer, Config, CoreChoice, DEFAULT_BALANCER, Flavor, Id, Listener, Member, Pool,
    Runtime,
};
