//! What only this machine can tell about a sound file: cores, addresses, rights and folders. Owns
//! the questions that `weir check` asks without starting anything, and the form of what was found:
//! each with its place in the file and its cure.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Error;
use weir_core::config::Places;
use weir_core::model::{Config, ListenerLog, LogTarget, Runtime};
use weir_core::net::{self, BindError, Place, Transport, sys};

use crate::remote::desk;

/// What this machine can't do of a file.
#[derive(Debug, Default)]
pub struct Unfit {
    list: Vec<Trouble>,
    /// Only this machine is at fault: the file may be for another one.
    asked_here: bool,
}

/// One thing that it can't do.
#[derive(Debug)]
pub struct Trouble {
    /// The key that asks for it, such as `listener[0].protocol_port`.
    key: String,
    /// `FILE:LINE:COLUMN`, once it is known.
    place: Option<String>,
    what: String,
    /// Empty where `what` says it.
    cure: String,
}

impl Trouble {
    /// Something that `key` asks for, and what to do about it.
    pub fn new(key: impl Into<String>, what: impl Into<String>, cure: impl Into<String>) -> Self {
        Trouble { key: key.into(), place: None, what: what.into(), cure: cure.into() }
    }
}

impl Unfit {
    /// The troubles; `Ok` without any.
    ///
    /// # Errors
    /// All of them at once.
    pub fn none_of(list: Vec<Trouble>) -> Result<(), Unfit> {
        if list.is_empty() { Ok(()) } else { Err(Unfit { list, asked_here: false }) }
    }

    /// One whose words have the cure, too.
    pub fn of(key: &str, what: &Error) -> Unfit {
        let list = vec![Trouble::new(key, format!("{what:#}"), "")];
        Unfit { list, asked_here: false }
    }

    /// Several in one.
    pub fn all(several: impl Iterator<Item = Unfit>) -> Unfit {
        Unfit { list: several.flat_map(|one| one.list).collect(), asked_here: false }
    }

    /// The same with the places of the file.
    pub fn placed(mut self, places: &Places) -> Unfit {
        for trouble in &mut self.list {
            trouble.place = places.of(&trouble.key).map(str::to_owned);
        }
        self
    }

    /// Has it said that `--elsewhere` asks for none of it.
    pub fn asked_here(mut self) -> Unfit {
        self.asked_here = true;
        self
    }
}

impl fmt::Display for Unfit {
    /// `FILE:LINE:COLUMN: key: message`, and below it the cure.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, trouble) in self.list.iter().enumerate() {
            let line_end = if index == 0 { "" } else { "\n" };
            write!(f, "{line_end}{trouble}")?;
        }
        if self.asked_here {
            let (count, s) = (self.list.len(), if self.list.len() == 1 { "" } else { "s" });
            write!(f, "\n{count} error{s} on this machine; --elsewhere checks a file for another")?;
        }
        Ok(())
    }
}

impl fmt::Display for Trouble {
    /// Without a line end behind it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Trouble { key, place, what, cure } = self;
        if let Some(place) = place {
            write!(f, "{place}: ")?;
        }
        write!(f, "{key}: {what}")?;
        match cure.as_str() {
            "" => Ok(()),
            cure => write!(f, "\n  help: {cure}"),
        }
    }
}

impl std::error::Error for Unfit {}

/// An address that could not be bound, with the place of the listener that wants it.
pub fn place_bind_error(error: Error, config: &Config, places: &Places) -> Error {
    let Some(bind) = error.downcast_ref::<BindError>() else { return error };
    let index = config.listeners.iter().position(|one| one.name == bind.listener);
    let trouble = bind_trouble(config, index, bind);
    Unfit { list: vec![trouble], asked_here: false }.placed(places).into()
}

/// Looks for the addresses, the rights for ports, the log files and the `run_dir` that a file asks
/// for. Nothing is made, and whether a port is free is not asked.
///
/// # Errors
/// All that this machine, or this user, doesn't have.
pub fn look(config: &Config) -> Result<(), Unfit> {
    let mut troubles = addresses(config);
    troubles.extend(logs(config));
    let run_dir = &config.runtime.run_dir;
    // Without the one that nobody asked for the process runs all the same.
    if *run_dir != Runtime::default().run_dir
        && let Err(e) = may_make(run_dir)
    {
        let what = format!("{} can't be used: {e}", run_dir.display());
        troubles.push(Trouble::new("runtime.run_dir", what, desk::CURE));
    }
    Unfit::none_of(troubles)
}

fn addresses(config: &Config) -> Vec<Trouble> {
    let mut troubles = Vec::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        let vips = config.balancers.get(listener.balancer).map_or(&[][..], |b| &b.vip_address);
        let transport = if listener.protocol.is_udp() { Transport::Udp } else { Transport::Tcp };
        let first = listener.port_ranges.iter().map(|range| range.first).min();
        let port = first.unwrap_or(listener.protocol_port);
        let has_v4 = vips.iter().any(|vip| vip.is_ipv4() && vip.is_unspecified());
        for vip in vips.iter().filter(|vip| !(has_v4 && vip.is_ipv6() && vip.is_unspecified())) {
            let place = Place { transport, address: SocketAddr::new(*vip, port) };
            if let Err(e) = net::could_bind(&listener.name, place) {
                troubles.push(bind_trouble(config, Some(index), &e));
            }
        }
    }
    if let Some(admin) = &config.admin {
        let place = Place { transport: Transport::Tcp, address: admin.listen };
        let asked = net::could_bind("admin", place);
        troubles.extend(asked.err().map(|e| bind_trouble(config, None, &e)));
    }
    troubles
}

/// `None` is the admin listener. An address is the balancer's, a port the listener's.
fn bind_trouble(config: &Config, index: Option<usize>, error: &BindError) -> Trouble {
    let listener = index.and_then(|index| Some((index, config.listeners.get(index)?)));
    let foreign =
        matches!(error.source.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT));
    let key = match listener {
        Some((_, listener)) if foreign => {
            format!("loadbalancer[{}].vip_address", listener.balancer)
        }
        Some((index, listener)) if listener.port_ranges.is_empty() => {
            format!("listener[{index}].protocol_port")
        }
        Some((index, _)) => format!("listener[{index}].port_ranges"),
        None => "admin.listen".to_owned(),
    };
    Trouble::new(key, error.to_string(), "")
}

fn logs(config: &Config) -> Vec<Trouble> {
    let shared = config.access_log.as_ref().map(|log| &log.target);
    let own = config.listeners.iter().enumerate().filter_map(|(index, listener)| {
        let ListenerLog::Own(log) = &listener.access_log else { return None };
        Some((format!("listener[{index}].access_log"), &log.target))
    });
    let process = [
        ("log.path", Some(&config.log.target)),
        ("access_log.path", shared),
        ("connection_log.path", config.connection_log.as_ref()),
    ];
    let process = process.into_iter().filter_map(|(key, log)| Some((key.to_owned(), log?)));
    let refused = |(key, target): (String, &LogTarget)| {
        let LogTarget::File(path) = target else { return None };
        let error = may_append(path).err()?;
        let what = format!("{} can't be written: {error}", path.display());
        let cure = "its folder must exist and be writable for this process' user (in a systemd \
                    unit: LogsDirectory=weir)";
        Some(Trouble::new(key, what, cure))
    };
    process.chain(own).filter_map(refused).collect()
}

/// Could lines be appended to this file? It is neither made nor opened.
fn may_append(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        return Err(std::io::ErrorKind::IsADirectory.into());
    }
    if path.exists() {
        return sys::may_write(path);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    is_folder(folder.unwrap_or(Path::new(".")))
}

/// Could this folder be used, or made with those above it?
fn may_make(folder: &Path) -> std::io::Result<()> {
    let there: PathBuf = folder.ancestors().find(|one| one.exists()).unwrap_or(folder).into();
    is_folder(&there)
}

fn is_folder(folder: &Path) -> std::io::Result<()> {
    if !std::fs::metadata(folder)?.is_dir() {
        return Err(std::io::ErrorKind::NotADirectory.into());
    }
    sys::may_write(folder)
}
