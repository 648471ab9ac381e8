//! A certificate: what an HTTPS listener shows, or what it trusts.

use std::fmt;
use std::path::PathBuf;

use super::Id;

/// A server certificate with its key, or a CA bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Identity.
    pub id: Id,
    /// The user's name.
    pub name: String,
    /// What it is for.
    pub kind: CertificateKind,
    /// The chain, leaf first (R12.3-5), or the bundle.
    pub certificate: Pem,
    /// Always there for a server certificate, never for a CA bundle.
    pub private_key: Option<Pem>,
    /// Names that it serves; empty = those inside.
    pub domain: Vec<String>,
    /// File of the response to staple.
    pub ocsp_response: Option<PathBuf>,
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CertificateKind {
    /// A listener shows it.
    #[default]
    Server,
    /// Client certificates, or those of members, must chain to it.
    Client,
}

/// PEM, or where it stands.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// A file; relative paths were joined to the folder of the file that names it.
    File(PathBuf),
    /// The text itself.
    Text(String),
}

impl fmt::Debug for Pem {
    /// Shows a path, never the text: it may be a private key.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pem::File(path) => formatter.debug_tuple("File").field(path).finish(),
            Pem::Text(_) => formatter.write_str("Text(…)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Pem;

    #[test]
    fn keys_do_not_reach_a_log() {
        assert_eq!(format!("{:?}", Pem::Text("secret".to_owned())), "Text(…)");
    }
}
