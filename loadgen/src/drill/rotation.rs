//! A certificate that takes another one's place: where the new pair comes from, and how it is told
//! that the balancer shows it. Called by `cli`, and by `change` in a drill.

use std::fs;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::Poll;

use weir_core::cert::{self, Identity};
use weir_core::rt::{self, ConnectOptions, ShardConfig, TcpStream};
use weir_core::time::clock::mono;
use weir_core::tls::{self, Client, Trust};

use super::change::{Change, Effect, Program, Replacement, Way};
use crate::limits;
use crate::origin_tls::identity;
use crate::plan::TlsOptions;
use crate::target::Target;

/// The files of a certificate.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The chain, leaf first; PEM.
    pub certificate: PathBuf,
    /// The leaf's key; PEM.
    pub private_key: PathBuf,
}

/// A pair as it stands in files, and what it says.
#[derive(Clone, Debug)]
pub struct Content {
    certificate: Vec<u8>,
    private_key: Vec<u8>,
    identity: Arc<Identity>,
}

impl Pair {
    /// Reads it.
    ///
    /// # Errors
    /// It can't be read, or does not hold together; with the cure.
    pub fn read(&self) -> Result<Content, String> {
        let identity = identity(&self.certificate, &self.private_key)?;
        let read =
            |path: &Path| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
        let (certificate, private_key) = (read(&self.certificate)?, read(&self.private_key)?);
        Ok(Content { certificate, private_key, identity })
    }
}

/// A folder that only this user can read; gone with what is in it when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Folder> {
        let now = mono().nanos();
        let path = std::env::temp_dir().join(format!("loadgen-{}-{now}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left of it is harmless: a certificate that nobody was shown.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Has the CA in the folder `authority` issue a certificate for the names of the pair in `place`,
/// and for `name`, which may be an address, by `weir gencert`.
///
/// # Errors
/// There is no CA, or the program can't do it; with the cure.
pub(crate) fn issue(
    weir: &Path,
    authority: &Path,
    place: &Pair,
    name: &str,
) -> Result<Content, String> {
    let present = place.read()?;
    let folder = Folder::new().map_err(|error| format!("no folder for a certificate: {error}"))?;
    for file in ["ca.pem", "ca.key"] {
        // Made absolute, since the link stands elsewhere.
        let linked = fs::canonicalize(authority.join(file))
            .and_then(|source| symlink(source, folder.0.join(file)));
        linked.map_err(|error| {
            format!(
                "{}: {error}; name the folder of a CA that can issue (ca.pem, ca.key) by \
                 --authority, or a pair by --new-certificate and --new-private-key",
                authority.join(file).display()
            )
        })?;
    }
    let args = ["gencert".into(), "server".into(), "--dir".into(), folder.0.clone().into()];
    let mut names = present.identity.names.clone();
    if !names.iter().any(|known| known == name) {
        names.push(name.to_string());
    }
    let names = names.into_iter().map(Into::into);
    let args = args.into_iter().chain(["--".into()]).chain(names).collect();
    Program { path: weir.to_path_buf(), args }.run()?;
    let issued = |kind: &str| {
        let mut paths = fs::read_dir(&folder.0).ok()?.flatten().map(|entry| entry.path());
        let is_it = |path: &PathBuf| {
            let of_ca = path.file_stem().is_some_and(|stem| stem == "ca");
            !of_ca && path.extension().is_some_and(|extension| extension == kind)
        };
        paths.find(is_it)
    };
    let files = issued("pem").zip(issued("key"));
    let (certificate, private_key) =
        files.ok_or_else(|| format!("{} made no certificate", weir.display()))?;
    Pair { certificate, private_key }.read()
}

/// The change that puts `new` in the place of a pair which `target` shows, and the one that puts
/// the former back.
///
/// # Errors
/// The target is not inside TLS, or the new certificate is not for it; with the cure.
pub(crate) fn changes(
    place: &Pair,
    new: Content,
    target: &Target,
    options: &TlsOptions,
) -> Result<(Change, Change), String> {
    if !target.scheme.is_secure() {
        return Err(format!("`{}` shows no certificate: rotate-cert is for TLS", target.url));
    }
    let former = place.read()?;
    if former.certificate == new.certificate {
        return Err("the new certificate is the present one".to_string());
    }
    let file = |path: &Path, from: &[u8], to: &[u8]| Replacement {
        path: path.to_path_buf(),
        from: from.to_vec(),
        to: to.to_vec(),
    };
    let change = |from: &Content, to: &Content, way: Way| {
        let effect = Effect::Sight(Sight::new(&to.identity, target, options)?);
        // The key first: until both are there, the pair is not sound and the former one is shown.
        let files = vec![
            file(&place.private_key, &from.private_key, &to.private_key),
            file(&place.certificate, &from.certificate, &to.certificate),
        ];
        Ok::<_, String>(Change { files, effect, way })
    };
    Ok((change(&former, &new, Way::Forth)?, change(&new, &former, Way::Back)?))
}

/// Why a handshake does not show the certificate that it is to show.
const ANOTHER: &str = "another one is shown";

/// What handshakes are to show.
#[derive(Clone, Debug)]
pub struct Sight {
    client: Client,
    addr: SocketAddr,
    serial: String,
}

impl Sight {
    fn new(identity: &Identity, target: &Target, options: &TlsOptions) -> Result<Sight, String> {
        let name = options.name(target);
        let fits = |pattern: &String| cert::covers(pattern, name);
        // Which addresses it is for is not among its names; and who takes any certificate, takes
        // one for other names.
        let told = name.parse::<IpAddr>().is_err() && !options.insecure;
        if told && !identity.names.iter().any(fits) {
            let names = identity.names.join(", ");
            return Err(format!(
                "a certificate is for {names}, and not for `{name}`: give one of its names by \
                 --server-name"
            ));
        }
        let leaf = identity.certified.cert.first().ok_or("there is no certificate")?;
        let trust = Trust::exactly(leaf.clone(), name)
            .map_err(|error| format!("a certificate can't be told from others: {error}"))?;
        let addr = target.resolve()?;
        let client = trust.once(name, addr.ip());
        Ok(Sight { client, addr, serial: identity.serial.clone() })
    }

    /// Shakes hands until this certificate, and no other one, is shown.
    ///
    /// # Errors
    /// It is not, for too long, with the cure; or `stop` was set before it was.
    pub(super) fn wait(&self, stop: &Arc<AtomicBool>) -> Result<String, String> {
        let config = ShardConfig { name: "loadgen-sight".to_string(), ..ShardConfig::default() };
        let (sight, flag) = (self.clone(), Arc::clone(stop));
        let shard = rt::start_shard(config, move || async move { sight.look_until(&flag).await });
        let seen = shard.and_then(|shard| shard.join()).map_err(|error| error.to_string())?;
        let serial = &self.serial;
        match seen {
            Some(Ok(())) => Ok(format!("the certificate {serial} is shown")),
            Some(Err(why)) => Err(format!(
                "the certificate {serial} is not shown after {} s: {why}; are these the files of \
                 the listener, and does it read them anew when they change?",
                limits::ROTATION_LIMIT.as_secs()
            )),
            None => Err(format!("stopped before the certificate {serial} was seen")),
        }
    }

    /// An error when another certificate is shown now. A target that can't be asked is the run's
    /// to tell of.
    pub(super) fn look_now(&self) -> Result<(), String> {
        let config = ShardConfig { name: "loadgen-sight".to_string(), ..ShardConfig::default() };
        let sight = self.clone();
        let shard = rt::start_shard(config, move || async move {
            rt::timeout(limits::SIGHT_LIMIT, sight.shake_hands()).await
        });
        let seen = shard.and_then(|shard| shard.join()).map_err(|error| error.to_string())?;
        match seen {
            Ok(Err(why)) if why == ANOTHER => Err(format!(
                "{} shows another certificate than the one given, {}: --certificate and \
                 --private-key are the files of its listener",
                self.addr, self.serial
            )),
            _ => Ok(()),
        }
    }

    /// What came of looking; `None` when it was stopped.
    async fn look_until(&self, stop: &AtomicBool) -> Option<Result<(), String>> {
        let mut stopped = pin!(async {
            while !stop.load(Relaxed) {
                rt::sleep(limits::TICK).await;
            }
        });
        let mut look = pin!(self.look());
        poll_fn(|cx| match stopped.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => look.as_mut().poll(cx).map(Some),
        })
        .await
    }

    async fn look(&self) -> Result<(), String> {
        let until = mono().plus(limits::ROTATION_LIMIT);
        let mut seen = 0;
        while seen < limits::ROTATION_SIGHTS {
            let shaken = rt::timeout(limits::SIGHT_LIMIT, self.shake_hands()).await;
            match shaken.unwrap_or_else(|rt::Elapsed| Err("no handshake in time".to_string())) {
                Ok(()) => seen += 1,
                Err(why) if mono() >= until => return Err(why),
                Err(_) => {
                    seen = 0;
                    rt::sleep(limits::TICK).await;
                }
            }
        }
        Ok(())
    }

    async fn shake_hands(&self) -> Result<(), String> {
        let tcp = TcpStream::connect(self.addr, &ConnectOptions::default()).await;
        let tcp = tcp.map_err(|error| error.to_string())?;
        let shaken = Box::pin(tls::connect(tcp, &self.client)).await;
        let stream = shaken.map_err(|failure| match failure {
            tls::Failure::CertificateInvalid => ANOTHER.to_string(),
            failure => failure.reason().to_string(),
        })?;
        if stream.say_end() {
            // The handshake has shown what there is to see.
            let _ = stream.flush().await;
        }
        Ok(())
    }
}
