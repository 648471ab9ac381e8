//! Tells when files change, by inotify: a thread that sleeps in the kernel until one does. Watches
//! folders, since files are replaced by renames, of a folder far above too, and by links that lead
//! elsewhere (certbot, Kubernetes). Knows nothing of what is in them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use inotify::{EventMask, Events, Inotify, WatchDescriptor, WatchMask, Watches};
use weir_core::time::clock;

/// How long nothing may change before it is told: who replaces several files does it in a row …
const QUIET: Duration = Duration::from_millis(50);
/// … but after this long it is told in any case.
const LONGEST: Duration = Duration::from_millis(500);
/// Bytes of events that are read at once; the longest event has some 270.
const BUFFER: usize = 4_096;
/// Links that one path may lead over, as in the kernel.
const MAX_LINKS: usize = 40;

/// Names that matter, by the folder that they stand in.
type Wanted = HashMap<WatchDescriptor, BTreeSet<OsString>>;

/// A running watch.
#[derive(Clone)]
pub struct Watcher {
    watches: Watches,
    wanted: Arc<Mutex<Wanted>>,
}

impl Watcher {
    /// Starts the thread, which calls `changed` after each change.
    ///
    /// # Errors
    /// No inotify, or no thread, can be had.
    pub fn start(changed: impl Fn() + Send + 'static) -> Result<Watcher> {
        let inotify = Inotify::init().context("inotify")?;
        let watcher = Watcher { watches: inotify.watches(), wanted: Arc::default() };
        let wanted = Arc::clone(&watcher.wanted);
        thread::Builder::new()
            .name("weir-watch".into())
            .spawn(move || watch(inotify, &wanted, &changed))
            .context("the thread that watches files")?;
        Ok(watcher)
    }

    /// From now on these files are watched and no others. Asks the file system where they lie; to
    /// be called anew after each change. What happens later is told; returns what can't be watched.
    pub fn set<'a>(&self, files: impl IntoIterator<Item = &'a Path>) -> Vec<String> {
        let (mut watches, mut troubles) = (self.watches.clone(), Vec::new());
        // Held meanwhile, so that no event is looked at before its name is known.
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Wanted::new();
        let mut folders: BTreeMap<PathBuf, (Way, BTreeSet<OsString>)> = BTreeMap::new();
        for (folder, name, way) in files.into_iter().flat_map(places) {
            let (mine, names) = folders.entry(folder).or_default();
            *mine = way.max(*mine);
            names.insert(name);
        }
        for (folder, (way, names)) in folders {
            match watches.add(&folder, way.mask()) {
                Ok(folder) => next.entry(folder).or_default().extend(names),
                // Folders that one may only pass through can't be watched, and hardly change.
                Err(e) if way == Way::Through && e.kind() == ErrorKind::PermissionDenied => {}
                Err(e) => troubles.push(format!("{}: {e}", folder.display())),
            }
        }
        for former in std::mem::replace(&mut *wanted, next).into_keys() {
            if !wanted.contains_key(&former) {
                // Its folder may be gone, and the watch with it.
                let _gone = watches.remove(former);
            }
        }
        troubles
    }
}

fn watch(mut inotify: Inotify, wanted: &Mutex<Wanted>, changed: &impl Fn()) {
    let mut buffer = [0; BUFFER];
    loop {
        match inotify.read_events_blocking(&mut buffer) {
            Ok(events) => {
                if !matters(events, wanted) {
                    continue;
                }
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return tracing::error!("files are not watched any more: {e}"),
        }
        let until = clock::mono().plus(LONGEST);
        loop {
            thread::park_timeout(QUIET);
            if !drain(&mut inotify, &mut buffer, wanted) || until.since(clock::mono()).is_zero() {
                break;
            }
        }
        changed();
    }
}

/// Takes the events that are there; did one of them matter?
fn drain(inotify: &mut Inotify, buffer: &mut [u8], wanted: &Mutex<Wanted>) -> bool {
    let mut one = false;
    while let Ok(events) = inotify.read_events(buffer) {
        one |= matters(events, wanted);
    }
    one
}

fn matters(events: Events<'_>, wanted: &Mutex<Wanted>) -> bool {
    let wanted = wanted.lock().unwrap_or_else(PoisonError::into_inner);
    let mut one = false;
    for event in events {
        let named = |name: &OsStr| wanted.get(&event.wd).is_some_and(|names| names.contains(name));
        // An event without a name is the folder's own. When events were lost any may have been.
        one |= match event.name {
            Some(name) => named(name),
            None => wanted.contains_key(&event.wd) || event.mask.contains(EventMask::Q_OVERFLOW),
        };
    }
    one
}

/// How a path leads by a name in a folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// Through a folder; nothing else that happens in the outer one matters, and much may.
    #[default]
    Through,
    /// To the file, over a link, or nowhere so far.
    To,
}

impl Way {
    fn mask(self) -> WatchMask {
        let replaced = WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::ONLYDIR;
        match self {
            Way::Through => replaced,
            Way::To => {
                replaced
                    | WatchMask::CLOSE_WRITE
                    | WatchMask::ATTRIB
                    | WatchMask::DELETE_SELF
                    | WatchMask::MOVE_SELF
            }
        }
    }
}

/// Where a path's meaning can change: the folders on the way to it, of its links too, each with the
/// name that is looked up there. Of a path that leads nowhere, up to where it ends.
fn places(path: &Path) -> Vec<(PathBuf, OsString, Way)> {
    let mut places = Vec::new();
    let Ok(path) = std::path::absolute(path) else { return places };
    let mut at = PathBuf::from("/");
    let mut rest = reversed(&path);
    let mut links = 0;
    while let Some(part) = rest.pop() {
        let name = match Path::new(&part).components().next() {
            Some(Component::Normal(name)) => name.to_owned(),
            Some(Component::RootDir) => {
                at = PathBuf::from("/");
                continue;
            }
            Some(Component::ParentDir) => {
                at.pop();
                continue;
            }
            _ => continue,
        };
        let next = at.join(&name);
        match next.symlink_metadata().and_then(|data| link(&next, data.is_symlink())) {
            Ok(Some(target)) => {
                places.push((at.clone(), name, Way::To));
                links += 1;
                if links > MAX_LINKS {
                    break;
                }
                rest.extend(reversed(&target));
            }
            Ok(None) if !rest.is_empty() => {
                places.push((std::mem::replace(&mut at, next), name, Way::Through));
            }
            Ok(None) | Err(_) => {
                places.push((at, name, Way::To));
                break;
            }
        }
    }
    places
}

fn link(path: &Path, is_link: bool) -> io::Result<Option<PathBuf>> {
    is_link.then(|| std::fs::read_link(path)).transpose()
}

/// The parts of a path, the last first.
fn reversed(path: &Path) -> Vec<OsString> {
    path.components().rev().map(|part| part.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn watched(files: &[&Path]) -> (Watcher, Receiver<()>) {
        let (sender, changes) = channel();
        let told = move || {
            let _test_is_over = sender.send(());
        };
        let watcher = Watcher::start(told).unwrap();
        assert_eq!(watcher.set(files.iter().copied()), Vec::<String>::new());
        (watcher, changes)
    }

    #[test]
    fn links_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        for version in ["1", "2"] {
            fs::create_dir(base.join(version)).unwrap();
            fs::write(base.join(version).join("tls.crt"), version).unwrap();
        }
        symlink("1", base.join("..data")).unwrap();
        symlink("..data/tls.crt", base.join("tls.crt")).unwrap();
        let found = |path: &str| -> Vec<_> {
            let inside = |(at, ..): &(PathBuf, OsString, Way)| at.starts_with(&base);
            places(&base.join(path)).into_iter().filter(inside).collect()
        };
        let expected = [
            (&base, "tls.crt", Way::To),
            (&base, "..data", Way::To),
            (&base, "1", Way::Through),
            (&base.join("1"), "tls.crt", Way::To),
        ];
        assert_eq!(
            found("tls.crt"),
            expected.map(|(at, name, way)| (at.clone(), name.into(), way))
        );
        assert_eq!(found("none/file"), [(base.clone(), "none".into(), Way::To)]);
        symlink("b", base.join("a")).unwrap();
        symlink("a", base.join("b")).unwrap();
        assert_eq!(found("a").len(), MAX_LINKS + 1, "a loop ends");
        assert_eq!(places(Path::new("/none"))[0], ("/".into(), "none".into(), Way::To));
    }

    /// As Kubernetes does it: one link leads to another folder, by a rename.
    #[test]
    fn a_link_that_leads_elsewhere_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path();
        for version in ["1", "2"] {
            fs::create_dir(base.join(version)).unwrap();
            fs::write(base.join(version).join("tls.crt"), version).unwrap();
        }
        symlink("1", base.join("..data")).unwrap();
        symlink("..data/tls.crt", base.join("tls.crt")).unwrap();
        let file = base.join("tls.crt");
        let (watcher, changes) = watched(&[&file]);
        symlink("2", base.join("..new")).unwrap();
        fs::rename(base.join("..new"), base.join("..data")).unwrap();
        changes.recv_timeout(LIMIT).unwrap();
        watcher.set([file.as_path()]);
        fs::write(base.join("2/tls.crt"), "3").unwrap();
        changes.recv_timeout(LIMIT).unwrap();
    }

    #[test]
    fn writes_renames_and_new_folders_are_told_and_other_files_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path();
        let file = base.join("sub/a.pem");
        fs::create_dir(base.join("sub")).unwrap();
        let (watcher, changes) = watched(&[&file]);
        fs::write(base.join("sub/other"), "x").unwrap();
        assert!(changes.recv_timeout(QUIET * 3).is_err());
        fs::write(&file, "1").unwrap();
        changes.recv_timeout(LIMIT).unwrap();
        fs::write(base.join("sub/new"), "2").unwrap();
        fs::rename(base.join("sub/new"), &file).unwrap();
        changes.recv_timeout(LIMIT).unwrap();
        fs::rename(base.join("sub"), base.join("old")).unwrap();
        changes.recv_timeout(LIMIT).unwrap();
        watcher.set([file.as_path()]);
        fs::rename(base.join("old"), base.join("sub")).unwrap();
        changes.recv_timeout(LIMIT).unwrap();
        // What is not wanted any more makes nobody wake; then it is wanted again.
        watcher.set([]);
        fs::write(&file, "3").unwrap();
        watcher.set([file.as_path()]);
        fs::write(&file, "4").unwrap();
        changes.recv_timeout(LIMIT).unwrap();
    }

    /// A whole tree is exchanged by renames: nothing happens in the file's own folder.
    #[test]
    fn a_folder_far_above_that_is_replaced_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path();
        for tree in ["live", "next"] {
            fs::create_dir_all(base.join(tree).join("site/rsa")).unwrap();
            fs::write(base.join(tree).join("site/rsa/tls.crt"), tree).unwrap();
        }
        let file = base.join("live/site/rsa/tls.crt");
        let (watcher, changes) = watched(&[&file]);
        fs::rename(base.join("live"), base.join("old")).unwrap();
        fs::rename(base.join("next"), base.join("live")).unwrap();
        changes.recv_timeout(LIMIT).unwrap();
        assert_eq!(watcher.set([file.as_path()]), Vec::<String>::new());
        fs::write(&file, "3").unwrap();
        changes.recv_timeout(LIMIT).unwrap();
    }
}
