//! What the members of a pool have to show inside TLS, built once from its settings.

use std::sync::Arc;

use super::Pool;
use crate::cert::{Authorities, Store};
use crate::model::{self, MonitorKind, PoolProtocol};
use crate::tls::Trust;

/// What requests to a pool's members, and checks of them, need for TLS; `None` = clear text.
#[derive(Clone, Debug, Default)]
pub(super) struct Trusts {
    pub requests: Option<Trust>,
    pub checks: Option<Trust>,
}

impl Trusts {
    /// Of `pool`, whose CA bundle is in `store`; the `former` ones where nothing about them is new.
    ///
    /// # Errors
    /// What is wrong with the bundle or the name, which the reader of files refuses.
    pub(super) fn of(
        pool: &model::Pool,
        store: &Store,
        former: Option<&Arc<Pool>>,
    ) -> Result<Trusts, rustls::Error> {
        let settings = pool.tls.clone().unwrap_or_default();
        let roots = match settings.verify {
            true => Some(bundle(settings.ca, store)?),
            false => None,
        };
        let make = |protocol: &[u8], former: Option<&Trust>| -> Result<_, rustls::Error> {
            let trust = Trust::new(roots.clone(), &settings.server_name, &[protocol])?;
            Ok(Some(former.filter(|former| **former == trust).cloned().unwrap_or(trust)))
        };
        let requests = former.and_then(|former| former.trust.as_ref());
        let requests = match pool.protocol {
            PoolProtocol::Grpc if pool.tls.is_some() => make(b"h2", requests)?,
            PoolProtocol::Https => make(b"http/1.1", requests)?,
            _ => None,
        };
        let checks = former.and_then(|former| former.check_trust.as_ref());
        let checks = match pool.monitor.as_ref().map(|monitor| &monitor.kind) {
            Some(MonitorKind::Https { .. }) => make(b"http/1.1", checks)?,
            Some(MonitorKind::Grpc { .. }) if pool.tls.is_some() => make(b"h2", checks)?,
            _ => None,
        };
        Ok(Trusts { requests, checks })
    }
}

/// The bundle with this index, else the host's.
fn bundle(ca: Option<usize>, store: &Store) -> Result<Arc<Authorities>, rustls::Error> {
    let found = match ca {
        Some(index) => store.authorities(index),
        None => store.system.as_ref(),
    };
    found.cloned().ok_or_else(|| rustls::Error::General("there is no CA bundle".to_owned()))
}
