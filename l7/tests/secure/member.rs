//! Members inside TLS: rustls on plain threads.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::{HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection, StreamOwned};
use weir_core::cert::{Authorities, Material, Store};
use weir_core::model;

use crate::support::SOON;

/// A chain of one, and its key.
pub struct Shown {
    pub certificate: CertificateDer<'static>,
    key: KeyPair,
}

/// Who signs.
pub struct Authority {
    pub certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

fn params(name: &str, names: &[&str], until: i32) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_after = date_time_ymd(until, 1, 1);
    params
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = params(name, &[], 2_100);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Authority { certificate, issuer: Issuer::new(params, key) }
    }

    /// Valid until the end of the year before `until`.
    pub fn sign(&self, names: &[&str], until: i32) -> Shown {
        let key = KeyPair::generate().unwrap();
        let certificate = params("member", names, until).signed_by(&key, &self.issuer).unwrap();
        Shown { certificate: certificate.der().clone(), key }
    }
}

/// Signed by itself.
pub fn own(names: &[&str], until: i32) -> Shown {
    let key = KeyPair::generate().unwrap();
    let certificate = params(&format!("own {until}"), names, until).self_signed(&key).unwrap();
    Shown { certificate: certificate.der().clone(), key }
}

/// What a configuration's first certificate, a CA bundle, holds.
pub fn store(roots: &[&CertificateDer<'static>]) -> Store {
    let roots = roots.iter().map(|&root| root.clone()).collect();
    let (id, name) = (model::Id::nil(), "ca".to_owned());
    let bundle = Authorities { id, name, roots, not_after: i64::MAX, digest: [0; 32] };
    Store { certificates: vec![Some(Material::Client(Arc::new(bundle)))], ..Store::default() }
}

/// What a member shakes hands by.
pub fn config(shown: &Shown) -> ServerConfig {
    config_of(shown, rustls::ALL_VERSIONS)
}

pub fn config_of(
    shown: &Shown,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ServerConfig {
    config_wanting(shown, versions, rustls::server::WebPkiClientVerifier::no_client_auth())
}

/// With what clients have to show.
pub fn config_wanting(
    shown: &Shown,
    versions: &[&'static rustls::SupportedProtocolVersion],
    wanted: Arc<dyn ClientCertVerifier>,
) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::Pkcs8(shown.key.serialize_der().into());
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_client_cert_verifier(wanted)
        .with_single_cert(vec![shown.certificate.clone()], key)
        .unwrap()
}

/// A handshake as a member saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub name: Option<String>,
    pub resumed: bool,
    pub version: ProtocolVersion,
}

/// A member inside TLS that answers with what it was asked.
pub struct Secure {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

pub type Tls = StreamOwned<ServerConnection, TcpStream>;

impl Secure {
    /// Answers each request with 200; its body is the request's line and body.
    pub fn start(config: ServerConfig) -> Secure {
        Secure::with(config, |mut stream| {
            while let Some((line, body)) = request(&mut stream) {
                let len = line.len() + body.len();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n");
                let answer = [head.as_bytes(), line.as_bytes(), &body].concat();
                if stream.write_all(&answer).is_err() {
                    return;
                }
            }
        })
    }

    /// With what it does on each connection.
    pub fn with(config: ServerConfig, script: impl Fn(Tls) + Send + Sync + 'static) -> Secure {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (stopped, told) = (Arc::clone(&stop), Arc::clone(&seen));
        let (config, script) = (Arc::new(config), Arc::new(script));
        let thread = thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let (config, script) = (Arc::clone(&config), Arc::clone(&script));
                let told: Arc<Mutex<Vec<Seen>>> = Arc::clone(&told);
                thread::spawn(move || {
                    if let Some(stream) = shake(stream, config) {
                        told.lock().unwrap().push(seen_by(&stream.conn));
                        script(stream);
                    }
                });
            }
        });
        Secure { address, seen, stop, thread: Some(thread) }
    }

    /// The handshakes that ended well.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn seen_by(conn: &ServerConnection) -> Seen {
    Seen {
        name: conn.server_name().map(str::to_owned),
        resumed: conn.handshake_kind() == Some(HandshakeKind::Resumed),
        version: conn.protocol_version().unwrap(),
    }
}

/// Shakes hands; `None` when that fails.
pub fn shake(mut stream: TcpStream, config: Arc<ServerConfig>) -> Option<Tls> {
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_write_timeout(Some(SOON)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut conn = ServerConnection::new(config).unwrap();
    while conn.is_handshaking() {
        conn.complete_io(&mut stream).ok()?;
    }
    Some(StreamOwned::new(conn, stream))
}

/// Speaks the little of HTTP/2 that answers each request without a body by 204.
pub fn answer_streams(mut stream: Tls) {
    const SETTINGS: u8 = 4;
    const HEADERS: u8 = 1;
    let answer = |stream: &mut Tls| -> std::io::Result<()> {
        stream.read_exact(&mut [0; 24])?;
        stream.write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0])?;
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head)?;
            let mut payload = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
            stream.read_exact(&mut payload)?;
            match head {
                [_, _, _, SETTINGS, 0, ..] => {
                    stream.write_all(&[0, 0, 0, SETTINGS, 1, 0, 0, 0, 0])?
                }
                // One byte: status 204, of the static table.
                [_, _, _, HEADERS, _, a, b, c, d] => {
                    stream.write_all(&[0, 0, 1, HEADERS, 5, a, b, c, d, 0x89])?;
                }
                _ => {}
            }
        }
    };
    let _gone = answer(&mut stream);
}

/// The line and the body of the next request, which tells its length if it has a body.
pub fn request(stream: &mut Tls) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        more(stream, &mut bytes)?;
    };
    let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
    let length = text.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let length: usize = length.map_or(0, |length| length.parse().unwrap());
    while bytes.len() < head + length {
        more(stream, &mut bytes)?;
    }
    Some((text.lines().next().unwrap().to_owned(), bytes.split_off(head)))
}

fn more(stream: &mut Tls, bytes: &mut Vec<u8>) -> Option<()> {
    let mut piece = [0; 16_384];
    match stream.read(&mut piece) {
        Ok(n) if n > 0 => bytes.extend_from_slice(&piece[..n]),
        _ => return None,
    }
    Some(())
}
