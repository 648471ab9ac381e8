//! A pool's stickiness as the data path needs it: built once with a state, shared by all shards.

use std::sync::Arc;
use std::time::Duration;

use super::{Member, Pool};
use crate::model::{self, Id, PersistenceKind};
use crate::pool::sticky::{Bindings, Key, Secret};

/// How sessions are told: by a cookie, or by the client's address (Layer 4).
#[derive(Clone, Debug)]
pub struct Stickiness {
    /// Name of the cookie; empty = there is none, the client's address tells the session.
    pub cookie: Box<str>,
    /// The pool's key.
    pub key: Key,
    /// How long a binding lasts from its last use.
    pub timeout: Duration,
    /// Who knows the member.
    pub by: By,
    /// Ids of the members, in their order.
    pub ids: Box<[Id]>,
    /// What stands for a member in cookies or bindings, sorted, with its position.
    places: Box<[(u64, usize)]>,
}

/// Who knows the member of a session.
#[derive(Clone, Debug)]
pub enum By {
    /// Weir's own cookie: its value says which member.
    Balancer,
    /// A table: of what stands for an application's cookie, or for an address.
    Table(Arc<Bindings>),
}

impl Stickiness {
    /// What `pool` asks for; bindings of its `former` self go on.
    pub(super) fn of(
        pool: &model::Pool,
        members: &[Member],
        former: Option<&Arc<Pool>>,
        secret: &Secret,
    ) -> Option<Arc<Stickiness>> {
        let wanted = pool.persistence.as_ref()?;
        let former = former.and_then(|former| former.stickiness.as_ref());
        let (cookie, by) = match &wanted.kind {
            PersistenceKind::SourceIp => ("", By::follow("", former)),
            PersistenceKind::HttpCookie if wanted.cookie_name.is_empty() => {
                (DEFAULT_COOKIE, By::Balancer)
            }
            PersistenceKind::HttpCookie => (wanted.cookie_name.as_str(), By::Balancer),
            PersistenceKind::AppCookie(name) => (name.as_str(), By::follow(name, former)),
        };
        let key = secret.key(pool.id);
        let place = |(at, member): (usize, &Member)| match by {
            By::Balancer => (key.alias(member.id), at),
            By::Table(_) => (member.handle.number(), at),
        };
        let mut places: Box<[(u64, usize)]> = members.iter().enumerate().map(place).collect();
        places.sort_unstable();
        Some(Arc::new(Stickiness {
            cookie: cookie.into(),
            key,
            timeout: wanted.timeout,
            by,
            ids: members.iter().map(|member| member.id).collect(),
            places,
        }))
    }

    /// The position of the member that `mark` stands for: its alias, or the number in a binding.
    #[must_use]
    pub fn place(&self, mark: u64) -> Option<usize> {
        let at = self.places.binary_search_by_key(&mark, |&(mark, _)| mark).ok()?;
        self.places.get(at).map(|&(_, place)| place)
    }
}

/// Name of the cookie where the file gives none (R11.4-3).
const DEFAULT_COOKIE: &str = "LBSTICKY";

impl By {
    /// The application's cookie of this name, or none, with the bindings that there are.
    fn follow(name: &str, former: Option<&Arc<Stickiness>>) -> By {
        match former {
            Some(former) if &*former.cookie == name => match &former.by {
                By::Table(bindings) => By::Table(Arc::clone(bindings)),
                By::Balancer => By::Table(Arc::default()),
            },
            _ => By::Table(Arc::default()),
        }
    }
}

/// Equal when the next one can stand for the former: bindings are no setting.
impl PartialEq for Stickiness {
    fn eq(&self, other: &Stickiness) -> bool {
        let bindings = match (&self.by, &other.by) {
            (By::Balancer, By::Balancer) => true,
            (By::Table(a), By::Table(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        bindings
            && (&self.cookie, &self.key, self.timeout) == (&other.cookie, &other.key, other.timeout)
            && (&self.ids, &self.places) == (&other.ids, &other.places)
    }
}

impl Eq for Stickiness {}
