//! What all connections of a run share: the requests' bytes, addresses, trust and limits. Made by
//! `engine` from the plan; read by `client` and its kin.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, UNIX_EPOCH};

use weir_core::time::clock;
use weir_core::tls::Trust;

use crate::plan::{Exchange, Plan};
use crate::secure::{self, Secure};
use crate::seed::Rng;
use crate::target::Scheme;
use crate::template::Request;

/// Read by all shards, changed by nobody.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) addr: SocketAddr,
    pub(crate) scheme: Scheme,
    host: String,
    /// Host and port as the URL has them.
    pub(crate) authority: String,
    pub(crate) path: String,
    pub(crate) fields: Vec<(String, String)>,
    requests: Vec<Request>,
    /// Sums of the weights up to each request.
    sums: Vec<u64>,
    /// Requests a connection carries; `None` = any number.
    pub(crate) per_connection: Option<u64>,
    /// Requests under way at once on a connection.
    pub(crate) in_flight: usize,
    /// HTTP/2 is spoken.
    pub(crate) http2: bool,
    pub(crate) timeout: Duration,
    trust: Option<Trust>,
    pub(crate) resume: bool,
    sources: Vec<IpAddr>,
    pub(crate) member_field: String,
    pub(crate) sticky: bool,
    /// First half of the ids, different in every run; `None` = no ids.
    pub(crate) ids: Option<u64>,
    /// Tells this run's datagrams from those of other runs.
    pub(crate) run: u64,
    pub(crate) exchange: Exchange,
    pub(crate) size: u64,
}

impl Wire {
    /// Reads the CA file, if there is one.
    ///
    /// # Errors
    /// A message with cause and cure, about TLS.
    pub(crate) fn new(plan: &Plan, addr: SocketAddr) -> Result<Wire, String> {
        let Plan { target, tls, .. } = plan;
        // Whoever knows HTTP/1.1 alone is to say so in words of HTTP, not of TLS.
        let alpn: &[&[u8]] = match target.scheme {
            Scheme::Tls => &[],
            _ if plan.http2 => &[b"h2", b"http/1.1"],
            _ => &[b"http/1.1"],
        };
        let is_secure = target.scheme.is_secure();
        let trust = is_secure.then(|| secure::trust(tls, alpn));
        let templates = plan.requests();
        let mut sum = 0;
        let sums = templates.iter().map(|template| {
            sum += u64::from(template.weight);
            sum
        });
        Ok(Wire {
            addr,
            scheme: target.scheme,
            host: target.host().to_string(),
            authority: target.authority.clone(),
            path: target.path.clone(),
            fields: plan.headers.clone(),
            sums: sums.collect(),
            requests: templates.iter().map(|t| Request::new(t, target)).collect(),
            per_connection: plan.per_connection(),
            in_flight: plan.in_flight(),
            http2: plan.http2,
            timeout: plan.timeout,
            trust: trust.transpose()?,
            resume: tls.resume,
            sources: plan.sources.clone(),
            member_field: plan.member_field.clone(),
            sticky: plan.sticky,
            ids: plan.ids.then(nonce),
            run: nonce(),
            exchange: plan.exchange,
            size: plan.size,
        })
    }

    /// The next request, by chance where there are several kinds.
    pub(crate) fn choose(&self, rng: &mut Rng) -> Option<&Request> {
        let all = *self.sums.last()?;
        let place = match self.sums.len() {
            1 => 0,
            _ => {
                let drawn = rng.between(1, all);
                self.sums.partition_point(|&sum| sum < drawn)
            }
        };
        self.requests.get(place)
    }

    /// Our address of connection slot `slot`.
    pub(crate) fn source(&self, slot: usize) -> Option<SocketAddr> {
        let ip = self.sources.get(slot.checked_rem(self.sources.len())?)?;
        Some(SocketAddr::new(*ip, 0))
    }

    /// A shard's side of TLS.
    pub(crate) fn secure(&self) -> Option<Secure> {
        let trust = self.trust.as_ref()?;
        Some(Secure::new(trust, self.resume, &self.host, self.addr.ip()))
    }
}

/// Tells this run's ids from those of other runs.
fn nonce() -> u64 {
    let since = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    Rng::new(since.as_nanos() as u64, u64::from(std::process::id())).next_u64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Target;
    use crate::template::{Expect, Template};

    #[test]
    fn requests_come_by_weight() {
        let addr: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let mut plan = Plan::new(Target::from(addr));
        let template = |path: &str, weight| Template {
            weight,
            method: "GET".into(),
            path: path.into(),
            headers: Vec::new(),
            body: Vec::new(),
            expect: Expect::default(),
        };
        plan.templates = vec![template("/a", 1), template("/b", 3)];
        plan.sources = vec!["127.0.0.2".parse().unwrap(), "127.0.0.3".parse().unwrap()];
        let wire = Wire::new(&plan, addr).unwrap();
        let mut rng = Rng::new(1, 1);
        let often = (0..4000).filter(|_| wire.choose(&mut rng).unwrap().head[5] == b'b').count();
        assert!((2900..3100).contains(&often), "{often}");
        assert_eq!(wire.source(3).unwrap().to_string(), "127.0.0.3:0");
        assert!(wire.secure().is_none());
        plan.sources.clear();
        assert_eq!(Wire::new(&plan, addr).unwrap().source(3), None);
        plan.target = Target::parse("https://127.0.0.1:1").unwrap();
        plan.tls.ca = Some("no such file".into());
        assert!(Wire::new(&plan, addr).unwrap_err().contains("--ca"));
    }
}
