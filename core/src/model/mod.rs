//! The validated configuration. Owns the objects that the data path reads; built only by
//! `config`, whose construction proves the rules, and never changed in place.

mod objects;

pub use objects::{
    Admin, Balancer, Config, CoreChoice, Flavor, Id, Listener, Member, Pool, Runtime,
};
