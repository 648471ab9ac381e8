//! The new process' side of an upgrade: takes what the serving one hands over, says when it could
//! serve and when it does. Called by `server::serve`; what it took is used by control.

use std::collections::BTreeMap;
use std::env;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use weir_core::control::{Bound, MemberName, Verdict};
use weir_core::net::{Place, sys};
use weir_health::{Ejection, Past};

use super::flows::Parcel;
use super::wire::{Channel, Checked, Ejected, Manifest, Message, PROTOCOL};

/// Set for a process that takes over: standard input is where it is handed everything.
pub const VARIABLE: &str = "WEIR_TAKES_OVER";
/// Its value.
pub const VALUE: &str = "stdin";
/// How long the serving process may take for the first message.
const MANIFEST_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take for the last ones: it only waits for its shards.
const PARTING_LIMIT: Duration = Duration::from_secs(30);

/// The listening sockets of one place.
#[derive(Debug)]
pub struct Group {
    /// Its listener's id, where the file asks for any free port.
    pub free_port_of: Option<String>,
    /// Each with the shard that had it.
    pub sockets: Vec<(usize, OwnedFd)>,
}

/// A process that is to take over.
#[derive(Debug)]
pub struct Heir {
    channel: Channel,
    stderr: OwnedFd,
    /// What the file said of the admin listener, with its socket.
    pub admin: Option<(SocketAddr, TcpListener)>,
    /// The listening sockets.
    pub groups: BTreeMap<Place, Group>,
    /// All else.
    pub manifest: Manifest,
}

/// What is handed over while the former process serves, and when it does no more.
#[derive(Debug)]
pub enum Handed {
    /// What is bound, or was bound since.
    Bound(Bound),
    /// All else; nothing comes after it.
    Last(Legacy),
}

/// What was handed over last.
#[derive(Debug, Default)]
pub struct Legacy {
    /// The health of members.
    pub health: Vec<Verdict>,
    /// What else their checks have come to.
    pub past: Vec<(MemberName, Past)>,
    /// Members that are left out, or were lately.
    pub ejections: Vec<(MemberName, Ejection)>,
    /// UDP flows; doors are named as the former process counts them.
    pub flows: Vec<Parcel>,
}

impl Heir {
    /// Takes over what there is, when this process was started for that.
    ///
    /// # Errors
    /// Nobody hands over anything, or another version does in another way.
    pub fn take() -> Result<Option<Heir>> {
        if env::var_os(VARIABLE).is_none_or(|value| value != VALUE) {
            return Ok(None);
        }
        let socket = sys::take_stdin().context("standard input")?;
        let mut channel = Channel::over(UnixStream::from(socket));
        channel.set_limit(MANIFEST_LIMIT).context(format!(
            "{VARIABLE} is set, but standard input is no socket; it is for `weir upgrade` alone"
        ))?;
        let (message, rights) = channel.recv().context("nothing is handed over")?;
        let Message::Manifest(manifest) = message else { bail!("no manifest is handed over") };
        Heir::new(channel, *manifest, rights).map(Some)
    }

    fn new(channel: Channel, manifest: Manifest, rights: Vec<OwnedFd>) -> Result<Heir> {
        if manifest.protocol != PROTOCOL {
            bail!(
                "the running process hands over in another way (protocol {}, here {PROTOCOL}): \
                 stop it and start this version",
                manifest.protocol
            );
        }
        let mut rights = rights.into_iter();
        let missing = || anyhow!("descriptors are missing in what is handed over");
        let stderr = rights.next().ok_or_else(missing)?;
        let admin = match manifest.admin {
            Some(asked) => Some((asked, TcpListener::from(rights.next().ok_or_else(missing)?))),
            None => None,
        };
        let mut groups = BTreeMap::new();
        for doors in &manifest.doors {
            let sockets = doors.shards.iter().map(|shard| {
                let socket = rights.next().ok_or_else(missing)?;
                Ok((*shard, socket))
            });
            let (sockets, free_port_of) =
                (sockets.collect::<Result<_>>()?, doors.free_port_of.clone());
            groups.insert(doors.door.into(), Group { free_port_of, sockets });
        }
        Ok(Heir { channel, stderr, admin, groups, manifest })
    }

    /// The health of members when it was started.
    pub fn health(&self) -> Vec<Verdict> {
        self.manifest.health.iter().filter_map(|health| health.verdict()).collect()
    }

    /// Session ticket keys, by their context.
    pub fn ticket_keys(&self) -> BTreeMap<[u8; 32], Vec<u8>> {
        let keys = self.manifest.tickets.iter();
        keys.filter_map(|(context, keys)| Some((context.as_slice().try_into().ok()?, keys.clone())))
            .collect()
    }

    /// For control, which says when this process could serve.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn waiting(&self) -> Result<Waiting> {
        Ok(Waiting { channel: self.channel.try_clone()? })
    }

    /// This process serves by these doors of the former one, which may go now.
    ///
    /// # Errors
    /// That one has gone already, which doesn't matter any more; standard error can't be had.
    pub fn serves(mut self, taken: &[Place]) -> Result<()> {
        let taken = taken.iter().map(|place| (*place).into()).collect();
        let told = self.channel.send(&Message::Serving { taken }, &[]);
        // What it prints goes by way of the former process until now; also where that has just
        // ended, and nobody reads it there.
        sys::replace_stderr(&self.stderr).context("standard error")?;
        told.context("the former process")
    }
}

/// Waits for the last things that are handed over.
#[derive(Debug)]
pub struct Waiting {
    channel: Channel,
}

impl Waiting {
    /// Says that this process could serve, and go on with the UDP flows that came by the doors
    /// `flows_of`, of these listeners; `tell` gets the rest, from another thread, or hears at last
    /// that the former process serves on.
    ///
    /// # Errors
    /// The former process is gone; the thread can't be made.
    pub fn prepared(
        self,
        flows_of: Vec<(SocketAddr, String)>,
        tell: impl Fn(Result<Handed>) + Send + 'static,
    ) -> Result<()> {
        let mut channel = self.channel;
        channel.send(&Message::Prepared { flows_of }, &[]).context("the former process")?;
        channel.set_limit(PARTING_LIMIT)?;
        let run = move || {
            let last = read(channel, &tell).context("the former process serves on");
            tell(last.map(Handed::Last));
        };
        std::thread::Builder::new().name("weir-heir".into()).spawn(run).context("thread")?;
        Ok(())
    }
}

/// What comes last; what comes before is told at once, so that it is done by then.
fn read(mut channel: Channel, tell: &impl Fn(Result<Handed>)) -> Result<Legacy> {
    let mut legacy = Legacy::default();
    loop {
        let (message, rights) = channel.recv()?;
        match message {
            Message::Bindings(bindings) => {
                bindings.bound().into_iter().for_each(|bound| tell(Ok(Handed::Bound(bound))));
            }
            Message::Flows(flows) => {
                let unclear = || anyhow!("it hands over flows that can't be understood");
                legacy.flows.push(flows.parcel(rights).ok_or_else(unclear)?);
            }
            Message::Go { health, past, ejections } => {
                legacy.past = past.iter().filter_map(Checked::past).collect();
                legacy.ejections = ejections.iter().filter_map(Ejected::ejection).collect();
                legacy.health = health.iter().filter_map(|health| health.verdict()).collect();
                return Ok(legacy);
            }
            _ => bail!("it speaks another language"),
        }
    }
}
