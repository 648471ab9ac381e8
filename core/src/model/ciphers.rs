//! Pure: the policies that `tls_ciphers_policy` names, as the ELB has them: versions and suites.
//! Suites are told by OpenSSL's names, in the order in which the server prefers them.

/// A version of TLS that can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// A policy that can be served, though perhaps not each of its suites.
#[derive(Debug, PartialEq, Eq)]
pub struct CipherPolicy {
    /// Its name in a file.
    pub name: &'static str,
    /// The versions that it offers.
    pub versions: &'static [TlsVersion],
    /// The suites that it lists.
    suites: &'static [&'static [&'static str]],
}

/// A policy of the ELB that promises what can't be served.
#[derive(Debug, PartialEq, Eq)]
pub struct RefusedPolicy {
    /// Its name.
    pub name: &'static str,
    /// The oldest version that it promises.
    pub promises: &'static str,
    /// The one that comes nearest to it.
    pub nearest: &'static str,
}

/// Names of the policies that can be served, the default first.
pub const CIPHER_POLICIES: [&str; 5] =
    [DEFAULT_POLICY, "tls-1-2-fs", "tls-1-2", "tls-1-2-strict", "tls-1-2-strict-no-cbc"];
/// What holds when a listener names none.
pub const DEFAULT_POLICY: &str = "tls-1-2-fs-with-1-3";

const OF_1_3: &[&str] = &[
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_CCM_SHA256",
    "TLS_AES_128_CCM_8_SHA256",
];
const GCM: &[&str] = &[
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
];
const GCM_NO_CBC: &[&str] = &[
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES128-GCM-SHA256",
];
const RSA_GCM: &[&str] = &["AES128-GCM-SHA256", "AES256-GCM-SHA384"];
const CBC: &[&str] = &[
    "ECDHE-ECDSA-AES128-SHA256",
    "ECDHE-RSA-AES128-SHA256",
    "ECDHE-ECDSA-AES256-SHA384",
    "ECDHE-RSA-AES256-SHA384",
];
const RSA_CBC: &[&str] = &["AES128-SHA256", "AES256-SHA256"];
const SHA1: &[&str] = &[
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-RSA-AES256-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "AES128-SHA",
    "AES256-SHA",
];

use TlsVersion::{Tls12, Tls13};

const SERVED: [CipherPolicy; 5] = [
    CipherPolicy { name: DEFAULT_POLICY, versions: &[Tls12, Tls13], suites: &[OF_1_3, GCM, CBC] },
    CipherPolicy { name: "tls-1-2-fs", versions: &[Tls12], suites: &[GCM, CBC] },
    CipherPolicy {
        name: "tls-1-2",
        versions: &[Tls12],
        suites: &[GCM, RSA_GCM, CBC, RSA_CBC, SHA1],
    },
    CipherPolicy {
        name: "tls-1-2-strict",
        versions: &[Tls12],
        suites: &[GCM, RSA_GCM, CBC, RSA_CBC],
    },
    CipherPolicy { name: "tls-1-2-strict-no-cbc", versions: &[Tls12], suites: &[GCM_NO_CBC] },
];

const REFUSED: [RefusedPolicy; 5] = [
    RefusedPolicy { name: "tls-1-0", promises: "TLS 1.0", nearest: "tls-1-2" },
    RefusedPolicy { name: "tls-1-1", promises: "TLS 1.1", nearest: "tls-1-2" },
    RefusedPolicy { name: "tls-1-0-inherit", promises: "TLS 1.0", nearest: "tls-1-2" },
    RefusedPolicy { name: "tls-1-0-with-1-3", promises: "TLS 1.0", nearest: DEFAULT_POLICY },
    RefusedPolicy { name: "hybrid-policy-1-0", promises: "TLS 1.1", nearest: "tls-1-2" },
];

impl CipherPolicy {
    /// The policy of that name, if it can be served.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static CipherPolicy> {
        SERVED.iter().find(|policy| policy.name == name)
    }

    /// Its suites, those of TLS 1.3 first, each version's in order of preference.
    pub fn suites(&self) -> impl Iterator<Item = &'static str> {
        self.suites.iter().copied().flatten().copied()
    }

    /// Those of its suites that there is nobody to do: without forward secrecy, with CBC or CCM.
    pub fn left_out(&self) -> impl Iterator<Item = &'static str> {
        self.suites().filter(|suite| !is_served(suite))
    }
}

impl RefusedPolicy {
    /// The policy of that name, if it is one of the ELB's that can't be served.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static RefusedPolicy> {
        REFUSED.iter().find(|policy| policy.name == name)
    }
}

/// Can this suite be served? Those with ephemeral keys and an AEAD can.
#[must_use]
pub fn is_served(suite: &str) -> bool {
    let aead = suite.contains("-GCM-") || suite.contains("_GCM_") || suite.contains("CHACHA20");
    aead && (suite.starts_with("TLS_") || suite.starts_with("ECDHE-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_served_policy_has_a_suite_for_each_version() {
        for policy in &SERVED {
            for version in policy.versions {
                let of_1_3 = *version == Tls13;
                let fits = |suite: &str| is_served(suite) && suite.starts_with("TLS_") == of_1_3;
                assert!(policy.suites().any(fits), "{} {version:?}", policy.name);
            }
            let wants_1_3 = policy.suites().any(|suite| suite.starts_with("TLS_"));
            assert_eq!(wants_1_3, policy.versions.contains(&Tls13), "{}", policy.name);
        }
    }

    #[test]
    fn refused_policies_lead_to_served_ones() {
        for policy in &REFUSED {
            assert!(CipherPolicy::find(policy.name).is_none());
            assert!(CipherPolicy::find(policy.nearest).is_some());
        }
        assert_eq!(RefusedPolicy::find("tls-1-1").map(|policy| policy.nearest), Some("tls-1-2"));
        assert_eq!(SERVED.each_ref().map(|policy| policy.name), CIPHER_POLICIES);
    }

    #[test]
    fn what_is_left_out() {
        let left = |name| CipherPolicy::find(name).map(|policy| policy.left_out().count());
        assert_eq!(left("tls-1-2-strict-no-cbc"), Some(0));
        assert_eq!(left(DEFAULT_POLICY), Some(6));
        assert_eq!(left("tls-1-2"), Some(14));
        assert!(is_served("ECDHE-RSA-CHACHA20-POLY1305") && !is_served("AES128-GCM-SHA256"));
    }
}
