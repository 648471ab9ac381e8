//! Certificates that change while they are served: their files are watched, and read again, apart
//! from control, when something happens to them or another configuration names others. What is
//! sound takes effect at once for new connections; what is not leaves the one before in place, and
//! is told once (R12.4-1).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use weir_core::cert::{self, Material, Reading, TicketFile, TicketReading};
use weir_core::model::{Certificate, Config, Pem};
use weir_core::time::clock::{self, Mono};

use super::control::{Control, Event};
use crate::watch::Watcher;

/// How long after an OCSP response's end it is looked at again.
const LATE: Duration = Duration::from_secs(1);

/// What control knows about files of certificates.
#[derive(Default)]
pub(super) struct Keeper {
    watcher: Option<Watcher>,
    /// inotify can't be had, which was told.
    gave_up: bool,
    /// They are being read.
    reading: bool,
    /// Something happened meanwhile.
    again: bool,
    /// When the first OCSP response ends, so that it is not stapled any longer.
    due: Option<Mono>,
    /// Certificates whose files can't be used as they are, and what was told about them.
    stale: BTreeMap<String, String>,
}

/// The files of all certificates, as they are now.
#[derive(Debug)]
pub struct Found {
    /// For which configuration.
    config: Arc<Config>,
    /// By the index of its certificates.
    readings: Vec<Reading>,
    /// Files of session ticket keys.
    tickets: Vec<(PathBuf, TicketReading)>,
    /// What can't be watched.
    troubles: Vec<String>,
}

impl Control {
    /// Has the certificates' files watched, and read again.
    pub(super) fn look_at_certificates(&mut self) {
        if self.keeper.reading {
            self.keeper.again = true;
            return;
        }
        let named = all_files(&self.config).next().is_some();
        if !named && self.keeper.watcher.is_none() {
            return;
        }
        if self.keeper.watcher.is_none() && !self.keeper.gave_up {
            let sender = self.sender.clone();
            // Lost only when control has so much to do that it is told by the next change.
            let watcher = Watcher::start(move || drop(sender.try_send(Event::FilesChanged)));
            match watcher {
                Ok(watcher) => self.keeper.watcher = Some(watcher),
                Err(e) => {
                    tracing::warn!("certificates are read again at a reload only: {e:#}");
                    self.keeper.gave_up = true;
                }
            }
        }
        let Some(watcher) = self.keeper.watcher.clone() else { return };
        match self.read_apart(watcher) {
            Ok(()) => self.keeper.reading = true,
            Err(e) => tracing::error!("certificates are not read again: {e:#}"),
        }
    }

    fn read_apart(&self, watcher: Watcher) -> Result<()> {
        let (config, sender) = (Arc::clone(&self.config), self.sender.clone());
        let work = move || {
            // First: what changes while they are read is told, and read then.
            let troubles = watcher.set(all_files(&config));
            let now = clock::wall();
            let read = |one: &Certificate| {
                // Control waits for this message: it must come, whatever happens in here.
                let read = std::panic::catch_unwind(|| cert::read(one, now));
                read.unwrap_or_default()
            };
            let readings = config.certificates.iter().map(read).collect();
            let tickets = ticket_files(&config);
            let tickets = tickets.map(|path| (path.clone(), cert::read_tickets(path))).collect();
            let found = Found { config, readings, tickets, troubles };
            // Lost only when the process ends.
            let _unheard = sender.try_send(Event::CertificatesRead(Box::new(found)));
        };
        std::thread::Builder::new().name("weir-certs".into()).spawn(work).context("thread")?;
        Ok(())
    }

    /// Puts into effect what has changed.
    pub(super) fn take_certificates(&mut self, found: Found) {
        self.keeper.reading = false;
        for trouble in &found.troubles {
            tracing::warn!("changes of certificates are not noticed: {trouble}");
        }
        let outdated = !Arc::ptr_eq(&found.config, &self.config);
        if std::mem::take(&mut self.keeper.again) || outdated {
            return self.look_at_certificates();
        }
        // A reload may bring others, or fail; when it has ended everything is read again.
        if self.staged.is_some() {
            self.keeper.again = true;
            return;
        }
        let mut next = self.certificates.clone();
        let mut changed = Vec::new();
        for (index, (one, reading)) in
            found.config.certificates.iter().zip(found.readings).enumerate()
        {
            let Some(slot) = next.certificates.get_mut(index) else { continue };
            let Some(material) = self.judge(one, reading, slot.as_ref()) else { continue };
            *slot = Some(material);
            changed.push(one.name.as_str());
        }
        for (path, reading) in &found.tickets {
            if let Some(keys) = self.judge_tickets(path, reading, next.tickets.get(path)) {
                next.tickets.insert(path.clone(), keys);
                changed.push("ticket_keys");
            }
        }
        if !changed.is_empty() {
            self.certificates = next;
            self.put_certificates_into_effect(&changed);
        }
        self.show_certificates();
    }

    /// What is to be shown instead of `former`; tells what is wrong with the files, once.
    fn judge(
        &mut self,
        one: &Certificate,
        reading: Reading,
        former: Option<&Material>,
    ) -> Option<Material> {
        let name = &one.name;
        let Some(material) = reading.material else {
            let wrong =
                reading.errors.into_iter().map(|note| format!("{} ({})", note.what, note.cure));
            let mut wrong = wrong.collect::<Vec<_>>().join("; ");
            if wrong.is_empty() {
                wrong += "a defect: their reader panicked";
            }
            if self.keeper.stale.get(name) != Some(&wrong) {
                tracing::error!("certificate {name}: stays as it was: {wrong}");
                self.keeper.stale.insert(name.clone(), wrong);
            }
            return None;
        };
        if self.keeper.stale.remove(name).is_some() {
            tracing::info!("certificate {name}: its files are in order again");
        }
        if former == Some(&material) {
            return None;
        }
        for note in reading.warnings {
            tracing::warn!("certificate {name}: {} ({})", note.what, note.cure);
        }
        Some(material)
    }

    /// The session ticket keys that a file has now, if they are others and sound.
    fn judge_tickets(
        &mut self,
        path: &Path,
        reading: &TicketReading,
        former: Option<&Arc<TicketFile>>,
    ) -> Option<Arc<TicketFile>> {
        let name = format!("ticket_keys {}", path.display());
        match &reading.keys {
            Ok(keys) => {
                if self.keeper.stale.remove(&name).is_some() {
                    tracing::info!("{name}: is in order again");
                }
                (former != Some(keys)).then(|| Arc::clone(keys))
            }
            Err((what, cure)) => {
                let wrong = format!("{what} ({cure})");
                if self.keeper.stale.get(&name) != Some(&wrong) {
                    tracing::error!("{name}: the keys stay as they were: {wrong}");
                    self.keeper.stale.insert(name, wrong);
                }
                None
            }
        }
    }

    fn put_certificates_into_effect(&mut self, changed: &[&str]) {
        let (config, plan) = (Arc::clone(&self.config), self.plan.clone());
        let next = self.next_state(&config, &self.certificates.clone(), &plan);
        let lines = self.fleet.state().describe(&next);
        for line in &lines {
            tracing::info!("certificates changed: {line}");
        }
        if lines.is_empty() {
            tracing::info!("certificates changed: {}; no listener shows them", changed.join(", "));
        }
        if !self.fleet.state().diff(&next).changes.is_empty() {
            let next = next.following(self.fleet.state());
            self.publish(next, Vec::new());
        }
    }

    /// When the first of the responses ends that are stapled now.
    fn first_end(&self) -> Option<Mono> {
        let untils = self.certificates.certificates.iter().flatten().filter_map(|one| match one {
            Material::Server(identity) => identity.ocsp_until,
            Material::Client(_) => None,
        });
        Some(clock::mono().plus(first_left(untils, clock::wall())? + LATE))
    }

    /// Another configuration has come: what was told about the former one's is over.
    pub(super) fn begin_certificates(&mut self) {
        self.keeper.stale.clear();
        self.show_certificates();
        self.look_at_certificates();
    }

    /// A reload has ended: what happened meanwhile is looked at now.
    pub(super) fn look_again(&mut self) {
        if self.keeper.again && !self.keeper.reading {
            self.keeper.again = false;
            self.look_at_certificates();
        }
    }

    /// How long until something is due without a file having changed.
    pub(super) fn certificates_left(&self, now: Mono) -> Duration {
        self.keeper.due.map_or(Duration::MAX, |due| due.since(now))
    }

    /// Looks at what is due.
    pub(super) fn look_if_due(&mut self, now: Mono) {
        if self.keeper.due.is_some_and(|due| due <= now) {
            self.keeper.due = None;
            self.look_at_certificates();
        }
    }

    fn show_certificates(&mut self) {
        self.keeper.due = self.first_end();
        let named = self.config.certificates.iter().zip(&self.certificates.certificates);
        let rows = named.filter_map(|(one, material)| {
            let stale = self.keeper.stale.contains_key(&one.name);
            Some((one.name.clone(), material.as_ref()?.not_after(), stale))
        });
        self.book.certificates(rows.collect());
    }
}

/// How long until the first of these ends, in seconds since 1970. What has ended is left out: it
/// belongs to files that can't be read any more, and looking every second makes none readable.
fn first_left(untils: impl Iterator<Item = i64>, now: SystemTime) -> Option<Duration> {
    let end = |until| UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(until).ok()?));
    untils.filter_map(|until| end(until)?.duration_since(now).ok()).min()
}

/// The files of session ticket keys that a configuration names.
fn ticket_files(config: &Config) -> impl Iterator<Item = &PathBuf> {
    config.listeners.iter().filter_map(|listener| listener.tls.as_ref()?.ticket_keys.as_ref())
}

/// All files that are watched.
fn all_files(config: &Config) -> impl Iterator<Item = &Path> {
    let certificates = config.certificates.iter().flat_map(files);
    certificates.chain(ticket_files(config).map(PathBuf::as_path))
}

/// The files that a certificate names.
fn files(one: &Certificate) -> impl Iterator<Item = &Path> {
    fn path(pem: &Pem) -> Option<&Path> {
        match pem {
            Pem::File(path) => Some(path),
            Pem::Text(_) => None,
        }
    }
    let key = one.private_key.as_ref().and_then(path);
    [path(&one.certificate), key, one.ocsp_response.as_deref()].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_to_end_is_waited_for() {
        let left = |untils: &[i64]| {
            let now = UNIX_EPOCH + Duration::from_secs(1_000);
            first_left(untils.iter().copied(), now).map(|left| left.as_secs())
        };
        assert_eq!(left(&[3_000, 1_500]), Some(500));
        assert_eq!(left(&[999, 1_500]), Some(500), "one has ended");
        assert_eq!((left(&[]), left(&[999]), left(&[-1])), (None, None, None));
        assert_eq!(left(&[253_402_300_799]), Some(253_402_299_799));
    }
}
