//! How the connections of a QUIC pool are told, as the data path needs it: built once with a state,
//! shared by all shards.

use std::fmt;
use std::sync::Arc;

use super::{Member, Pool};
use crate::model::{self, CidSlice, Handle, PoolProtocol};
use crate::pool::sticky::{Bindings, Key, Secret};

/// Which member the connections of a QUIC pool belong to, by a slice of the ids that the members
/// have issued.
pub struct Connections {
    /// What of an id tells the connection.
    pub slice: CidSlice,
    key: Key,
    bindings: Arc<Bindings>,
    /// What stands for a member in bindings, sorted, with its position in the pool.
    places: Box<[(u64, usize)]>,
}

impl Connections {
    /// Those of `pool`; `None` when it is no QUIC pool. Bindings of its `former` self go on.
    pub(super) fn of(
        pool: &model::Pool,
        members: &[Member],
        former: Option<&Arc<Pool>>,
        secret: &Secret,
    ) -> Option<Arc<Connections>> {
        if pool.protocol != PoolProtocol::Quic {
            return None;
        }
        let former = former.and_then(|former| former.connections.as_ref());
        let bindings = former.map(|former| Arc::clone(&former.bindings)).unwrap_or_default();
        let place =
            |(at, member): (usize, &Member)| (u64::from(Connections::mark(member.handle)), at);
        let mut places: Box<[(u64, usize)]> = members.iter().enumerate().map(place).collect();
        places.sort_unstable();
        let key = secret.key(pool.id);
        Some(Arc::new(Connections { slice: pool.cid_slice, key, bindings, places }))
    }

    /// What is bound.
    pub(super) fn bindings(&self) -> &Bindings {
        &self.bindings
    }

    /// Tells the members of a process apart, never 0: handles count up from 1.
    #[must_use]
    pub fn mark(member: Handle) -> u32 {
        member.number() as u32
    }

    /// What stands for the connections whose ids have this part; never 0.
    #[must_use]
    pub fn session(&self, part: &[u8]) -> u64 {
        self.key.session(part)
    }

    /// What a session is bound to at `now`, in seconds of the turn's clock: a member's mark.
    #[must_use]
    pub fn find(&self, session: u64, now: u32) -> Option<u32> {
        self.bindings.find(session, now)
    }

    /// Binds a session to `member` until `end`.
    pub fn bind(&self, session: u64, member: Handle, end: u32, now: u32) {
        self.bindings.bind(session, Connections::mark(member), end, now);
    }

    /// The position of the member that a mark stands for.
    #[must_use]
    pub fn place(&self, mark: u32) -> Option<usize> {
        let at = self.places.binary_search_by_key(&u64::from(mark), |&(mark, _)| mark).ok()?;
        self.places.get(at).map(|&(_, place)| place)
    }
}

/// Equal when the next one can stand for the former: bindings are no setting.
impl PartialEq for Connections {
    fn eq(&self, other: &Connections) -> bool {
        Arc::ptr_eq(&self.bindings, &other.bindings)
            && (self.slice, &self.key, &self.places) == (other.slice, &other.key, &other.places)
    }
}

impl Eq for Connections {}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connections({:?})", self.slice)
    }
}
