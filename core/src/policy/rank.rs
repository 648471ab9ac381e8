//! The order in which policies are tried (interface, section 2).

use super::action::Action;
use crate::model::Compare;

/// The rank of one way in which a policy may match; the lowest wins. Fields in the order in which
/// they decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Not a redirect to a listener; that goes before all.
    pub(super) late: bool,
    /// The user's; without one: behind all that have one.
    pub(super) priority: u16,
    /// How exactly the host is named.
    pub(super) host: u16,
    /// How the path is compared.
    pub(super) kind: u8,
    /// `u16::MAX` less the length of the path's value: the longer goes first.
    pub(super) path: u16,
    /// Place in the file, among the policies of the listener.
    pub(super) order: u32,
}

/// A host that is named in full.
pub(super) const HOST_EXACT: u16 = 0;
/// No host is named.
pub(super) const HOST_NONE: u16 = u16::MAX;
/// No path is named.
pub(super) const PATH_NONE: (u8, u16) = (3, u16::MAX);

/// `host` of a wildcard whose suffix has `length` bytes.
pub(super) fn host_wildcard(length: usize) -> u16 {
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    HOST_NONE.saturating_sub(1).saturating_sub(length).max(HOST_EXACT + 1)
}

/// `kind` and `path` of a path's value of `length` bytes.
pub(super) fn path(compare: Compare, length: usize) -> (u8, u16) {
    let kind = match compare {
        Compare::EqualTo => 0,
        Compare::StartsWith => 1,
        Compare::Regex => 2,
    };
    (kind, u16::MAX - u16::try_from(length).unwrap_or(u16::MAX))
}

/// What no host and no path decides.
pub(super) fn base(action: &Action, priority: Option<u16>, order: u32) -> Rank {
    let to_listener = matches!(action, Action::Redirect(redirect) if redirect.to_listener());
    let (kind, path) = PATH_NONE;
    Rank {
        late: !to_listener,
        priority: priority.unwrap_or(u16::MAX),
        host: HOST_NONE,
        kind,
        path,
        order,
    }
}
