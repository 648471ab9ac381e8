//! A group of client addresses, for access control.

use ipnet::IpNet;

use super::Id;

/// Addresses and networks that listeners let in or keep out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpGroup {
    /// Identity.
    pub id: Id,
    /// The user's name.
    pub name: String,
    /// In file order, none twice; may be empty.
    pub entries: Vec<IpGroupEntry>,
}

/// One entry of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpGroupEntry {
    /// The network, without bits beyond its length; an address alone has the full length.
    pub network: IpNet,
    /// The user's note.
    pub description: String,
}
