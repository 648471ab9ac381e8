//! Whose address members see of a client of a listener of Layer 4, and how they are told it.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::model::{self, Balancer, Fallback};

/// What a listener passes on of its clients' addresses (C7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passthrough {
    way: Way,
    /// Networks of the members that see the client; empty = all do.
    near: Arc<[IpNet]>,
}

/// How members learn of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Way {
    /// They see the balancer's own address (R5.2-1, R9.1-1).
    #[default]
    Own,
    /// They see the client's (R9.1-5).
    Client,
    /// They are told by the PROXY protocol, since the host can't do better.
    Header,
}

impl Passthrough {
    /// That of `listener`, on `balancer`.
    pub(super) fn of(listener: &model::Listener, balancer: Option<&Balancer>) -> Passthrough {
        if !listener.transparent_client_ip_enable || listener.protocol.is_l7() {
            return Passthrough::default();
        }
        let way = match listener.fallback {
            None => Way::Client,
            Some(Fallback::ProxyProtocol) => Way::Header,
            Some(Fallback::None | Fallback::Error) => Way::Own,
        };
        let near = balancer.map(|balancer| balancer.network.as_slice().into());
        Passthrough { way, near: near.unwrap_or_default() }
    }

    /// Does this member see the client's own address? One outside the balancer's network does not
    /// (R2.1-15): its answers would not come by here.
    #[must_use]
    pub fn keeps_client(&self, member: IpAddr) -> bool {
        let is_near = || self.near.is_empty() || self.near.iter().any(|net| net.contains(&member));
        self.way == Way::Client && is_near()
    }

    /// Are members told by the PROXY protocol, also where their pool does not ask for it?
    #[must_use]
    pub fn tells_client(&self) -> bool {
        self.way == Way::Header
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;

    /// R2.1-15, C7: only members of the balancer's network see the client.
    #[test]
    fn members_elsewhere_see_the_balancer() {
        let listener = model::Listener {
            protocol: Protocol::Tcp,
            transparent_client_ip_enable: true,
            ..model::Listener::default()
        };
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let network = vec!["10.1.0.0/16".parse().unwrap(), "fd01::/64".parse().unwrap()];
        let walled = Balancer { network, ..Balancer::default() };
        let kept = Passthrough::of(&listener, Some(&walled));
        assert!(kept.keeps_client(ip("10.1.2.3")) && kept.keeps_client(ip("fd01::5")));
        assert!(!kept.keeps_client(ip("10.2.0.1")) && !kept.keeps_client(ip("fd02::5")));
        assert!(Passthrough::of(&listener, Some(&Balancer::default())).keeps_client(ip("1.1.1.1")));
        for (fallback, told) in [(Fallback::ProxyProtocol, true), (Fallback::None, false)] {
            let listener = model::Listener { fallback: Some(fallback), ..listener.clone() };
            let other = Passthrough::of(&listener, Some(&walled));
            assert!(!other.keeps_client(ip("10.1.2.3")));
            assert_eq!(other.tells_client(), told);
        }
        let layer7 = model::Listener { protocol: Protocol::Http, ..listener };
        assert_eq!(Passthrough::of(&layer7, Some(&walled)), Passthrough::default());
    }
}
