//! What a drill changes at a running balancer, and how it is told that the change is in effect:
//! files are replaced in one step each, and what stood there is kept beside until it is back; then
//! a program says when it is done, or handshakes show it. Called by `drill`.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::rotation::Sight;

/// Files that are replaced, and what shows that the balancer follows.
#[derive(Clone, Debug)]
pub struct Change {
    /// In the order in which they are replaced.
    pub files: Vec<Replacement>,
    /// What is waited for.
    pub effect: Effect,
    /// Whether the files change, or get back what they held.
    pub way: Way,
}

/// A file that is replaced. What somebody else wrote into it meanwhile is not: neither `from` nor
/// `to`.
#[derive(Clone, Debug)]
pub struct Replacement {
    /// Where it is; what a link leads to is replaced, not the link.
    pub path: PathBuf,
    /// What it holds now.
    pub from: Vec<u8>,
    /// What it is to hold.
    pub to: Vec<u8>,
}

/// Which way a change goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// What the files held is kept beside them.
    Forth,
    /// What was kept stands in its place again, and is not kept any more.
    Back,
}

/// How a change takes effect.
#[derive(Clone, Debug)]
pub enum Effect {
    /// A program brings it about; it is in effect when that ends well.
    Program(Program),
    /// The balancer sees it by itself; it is in effect when handshakes show it.
    Sight(Sight),
}

/// A program and its arguments.
#[derive(Clone, Debug)]
pub struct Program {
    /// By its path, or by a name that is looked up.
    pub path: PathBuf,
    /// As they are; no shell reads them.
    pub args: Vec<OsString>,
}

impl Change {
    /// Nothing but `effect`.
    pub fn by(effect: Effect) -> Change {
        Change { files: Vec::new(), effect, way: Way::Forth }
    }

    /// An error when a drill that was not undone has left something beside one of the files.
    pub(super) fn look_for_left(&self) -> Result<(), String> {
        let left = |file: &&Replacement| {
            let former = fs::read(place_of_former(&file.path));
            former.is_ok_and(|held| held != file.from)
        };
        match self.files.iter().find(left) {
            Some(file) => Err(left_over(&place_of_former(&file.path), &file.path)),
            None => Ok(()),
        }
    }

    /// Keeps what the files hold, if that is still what they are to be changed from. On an error
    /// nothing was changed, and nothing is kept.
    pub(super) fn prepare(&self) -> Result<(), String> {
        if self.way == Way::Back {
            return Ok(());
        }
        if let Some(other) = self.files.iter().find(|file| !file.holds(&file.from)) {
            let path = other.path.display();
            return Err(format!(
                "{path} has changed since the drill was planned; it is left alone"
            ));
        }
        self.files.iter().try_for_each(|file| keep(&file.path)).inspect_err(|_| {
            // One that can't be removed is taken over by the next drill: the file holds the same.
            let _ = self.files.iter().try_for_each(|file| forget(&file.path, &file.from));
        })
    }

    /// Makes the change, and waits until it is in effect, or until `stop` is set. Gives what was
    /// told of it. What goes forth has to be prepared.
    pub(super) fn make(&self, stop: &Arc<AtomicBool>) -> Result<String, String> {
        match self.way {
            Way::Forth => {
                self.files.iter().try_for_each(|file| replaced(&file.path, &file.to))?;
                self.effect.wait(stop)
            }
            Way::Back => {
                self.look_for_others()?;
                // One that can't be put back does not keep the others from it.
                let back = self.files.iter().filter(|file| !file.holds(&file.to));
                let back = back.map(|file| put_back(&file.path, &file.to));
                let wrong: Vec<String> = back.filter_map(Result::err).collect();
                let done = match wrong.is_empty() {
                    true => self.effect.wait(stop),
                    false => Err(wrong.join("; ")),
                };
                // Only now: whoever ends the program meanwhile is told of what was kept.
                self.files.iter().try_for_each(|file| forget(&file.path, &file.to))?;
                match (done, &self.effect) {
                    // The files are as before; only that the balancer sees it was not waited for.
                    (Err(_), Effect::Sight(_)) if wrong.is_empty() && stop.load(Relaxed) => {
                        Ok("put back".to_string())
                    }
                    (done, _) => done,
                }
            }
        }
    }

    /// An error when somebody else has changed one of the files. They belong together, like a
    /// certificate and its key: then none is put back.
    fn look_for_others(&self) -> Result<(), String> {
        let ours = |file: &Replacement| file.holds(&file.from) || file.holds(&file.to);
        let others = self.files.iter().filter(|file| !ours(file));
        let others: Vec<String> = others.map(|file| file.path.display().to_string()).collect();
        if others.is_empty() {
            return Ok(());
        }
        let kept = self.files.iter().map(|file| place_of_former(&file.path));
        let kept = kept.filter(|former| former.exists());
        let kept: Vec<String> = kept.map(|former| former.display().to_string()).collect();
        Err(format!(
            "somebody else has changed {} meanwhile, so nothing was put back; what stood there \
             before the drill is in {}: move it back, or remove it",
            others.join(", "),
            kept.join(", ")
        ))
    }

    /// Where the files' former content stands while the change is made, with what to do about it;
    /// `None` when no file changes.
    pub(super) fn kept_as(&self) -> Option<String> {
        let kept = self.files.iter().map(|file| place_of_former(&file.path).display().to_string());
        let names = kept.collect::<Vec<_>>().join(", ");
        (!names.is_empty())
            .then(|| format!("move what was there before back by hand, from {names}"))
    }
}

impl Replacement {
    fn holds(&self, content: &[u8]) -> bool {
        fs::read(&self.path).is_ok_and(|held| held == content)
    }
}

impl Effect {
    fn wait(&self, stop: &Arc<AtomicBool>) -> Result<String, String> {
        match self {
            Effect::Program(program) => program.run(),
            Effect::Sight(sight) => sight.wait(stop),
        }
    }
}

impl Program {
    /// Runs it to its end; gives the last line of its output.
    ///
    /// # Errors
    /// It can't be started, or ends with another code than 0; with its own words.
    pub(super) fn run(&self) -> Result<String, String> {
        let mut command = Command::new(&self.path);
        let output = command.args(&self.args).stdin(Stdio::null()).output();
        let output = output.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                format!("cannot run {self}: there is no such program; name Weir's by --weir PATH")
            }
            _ => format!("cannot run {self}: {error}"),
        })?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_string();
        match output.status.success() {
            true => Ok(text(&output.stdout).lines().last().unwrap_or_default().to_string()),
            false => {
                let words = text(&output.stderr);
                Err(format!("`{self}` ended with {}: {words}", output.status))
            }
        }
    }
}

impl std::fmt::Display for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.path.display().fmt(f)?;
        self.args.iter().try_for_each(|arg| write!(f, " {}", Path::new(arg).display()))
    }
}

/// Where the former content of a file is kept; beside what a link leads to, as [`replace`] works.
fn place_of_former(path: &Path) -> PathBuf {
    // A file that is gone is no link any more.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".before-drill");
    path.with_file_name(name)
}

/// Keeps what a file holds beside it: however this program ends, it isn't lost. By a hard link,
/// with the same mode and owner; [`replace`] does not write into the former file.
fn keep(path: &Path) -> Result<(), String> {
    let told = |error: io::Error| format!("cannot keep a copy of {}: {error}", path.display());
    let former = place_of_former(path);
    match fs::canonicalize(path).and_then(|path| fs::hard_link(path, &former)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let same = fs::read(&former).map_err(told)? == fs::read(path).map_err(told)?;
            if same { Ok(()) } else { Err(left_over(&former, path)) }
        }
        linked => linked.map_err(told),
    }
}

fn left_over(former: &Path, path: &Path) -> String {
    format!(
        "{} is left of a drill that was not undone: move it to {}, or remove it",
        former.display(),
        path.display()
    )
}

fn replaced(path: &Path, content: &[u8]) -> Result<(), String> {
    replace(path, content).map_err(|error| format!("cannot replace {}: {error}", path.display()))
}

fn put_back(path: &Path, content: &[u8]) -> Result<(), String> {
    replaced(path, content).map_err(|why| match place_of_former(path) {
        former if former.exists() => format!("{why}; move {} there", former.display()),
        _ => why,
    })
}

/// Removes what [`keep`] made, where that and the file itself hold what they should.
fn forget(path: &Path, content: &[u8]) -> Result<(), String> {
    let holds = |path: &Path| fs::read(path).is_ok_and(|held| held == content);
    let former = place_of_former(path);
    if !(holds(&former) && holds(path)) {
        return Ok(());
    }
    fs::remove_file(&former).map_err(|error| format!("cannot remove {}: {error}", former.display()))
}

/// Puts `content` in the place of a file, in one step: whoever reads it finds the former content or
/// the new one. Mode and owner stay; what a link leads to is replaced, not the link.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let former = fs::metadata(&path)?;
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".drill-{}", std::process::id()));
    let draft = path.with_file_name(name);
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&draft)?;
    let written = file.write_all(content).and_then(|()| {
        let made = file.metadata()?;
        if (made.uid(), made.gid()) != (former.uid(), former.gid()) {
            chown(&draft, Some(former.uid()), Some(former.gid()))?;
        }
        file.set_permissions(former.permissions())?;
        fs::rename(&draft, &path)
    });
    written.inspect_err(|_| {
        // The draft is of no use; that it can't be removed says less than why there is one.
        let _ = fs::remove_file(&draft);
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_replaced_file_keeps_its_mode_and_its_link() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&path, &link).unwrap();
        replace(&link, b"new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no draft is left");
        assert!(replace(&folder.path().join("c"), b"").is_err());
    }

    /// A key and its chain, which change together.
    struct Pair {
        folder: tempfile::TempDir,
        key: PathBuf,
        chain: PathBuf,
    }

    impl Pair {
        fn new() -> Pair {
            let folder = tempfile::tempdir().unwrap();
            let [key, chain] = ["key", "chain"].map(|name| folder.path().join(name));
            fs::write(&key, "k1").unwrap();
            fs::write(&chain, "c1").unwrap();
            Pair { folder, key, chain }
        }

        /// From the pair with one number to that with another.
        fn change(&self, way: Way, from: u8, to: u8) -> Change {
            let content = |kind: char, n: u8| format!("{kind}{n}").into_bytes();
            let file = |path: &Path, kind: char| Replacement {
                path: path.to_path_buf(),
                from: content(kind, from),
                to: content(kind, to),
            };
            Change {
                files: vec![file(&self.key, 'k'), file(&self.chain, 'c')],
                effect: Effect::Program(Program { path: "true".into(), args: Vec::new() }),
                way,
            }
        }

        fn former(&self) -> PathBuf {
            self.folder.path().join("key.before-drill")
        }

        fn holds(&self) -> [String; 2] {
            [&self.key, &self.chain].map(|path| read(path))
        }

        fn file_count(&self) -> usize {
            fs::read_dir(self.folder.path()).unwrap().count()
        }
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    fn done(change: &Change) -> Result<String, String> {
        change.prepare().and_then(|()| change.make(&Arc::default()))
    }

    #[test]
    fn what_stood_there_is_kept_until_it_is_back() {
        let pair = Pair::new();
        fs::set_permissions(&pair.key, fs::Permissions::from_mode(0o600)).unwrap();
        let forth = pair.change(Way::Forth, 1, 2);
        done(&forth).unwrap();
        assert_eq!(
            (pair.holds(), read(&pair.former())),
            (["k2", "c2"].map(Into::into), "k1".into())
        );
        assert_eq!(fs::metadata(pair.former()).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(forth.kept_as().unwrap().contains("key.before-drill"));
        // What an interrupted drill left is not written over, nor removed by another drill's undo.
        let why = done(&pair.change(Way::Forth, 2, 3)).unwrap_err();
        assert!(why.contains("key.before-drill is left"), "{why}");
        done(&pair.change(Way::Back, 3, 2)).unwrap();
        assert_eq!(
            (pair.holds(), read(&pair.former())),
            (["k2", "c2"].map(Into::into), "k1".into())
        );
        done(&pair.change(Way::Back, 2, 1)).unwrap();
        assert_eq!(pair.holds(), ["k1", "c1"]);
        assert_eq!(pair.file_count(), 2, "nothing else is left");
    }

    #[test]
    fn one_that_can_not_be_put_back_does_not_keep_the_other_from_it() {
        let pair = Pair::new();
        done(&pair.change(Way::Forth, 1, 2)).unwrap();
        let back = pair.change(Way::Back, 2, 1);
        // Nobody can make the draft of the key there.
        let draft = pair.folder.path().join(format!(".key.drill-{}", std::process::id()));
        fs::create_dir(&draft).unwrap();
        let why = done(&back).unwrap_err();
        assert!(why.contains("cannot replace") && why.contains("/key"), "{why}");
        assert_eq!(
            (pair.holds(), read(&pair.former())),
            (["k2", "c1"].map(Into::into), "k1".into())
        );
        fs::remove_dir(&draft).unwrap();
        done(&back).unwrap();
        assert_eq!((pair.holds(), pair.file_count()), (["k1", "c1"].map(Into::into), 2));
    }

    #[test]
    fn what_somebody_else_wrote_meanwhile_stays() {
        let pair = Pair::new();
        let forth = pair.change(Way::Forth, 1, 2);
        done(&forth).unwrap();
        fs::write(&pair.chain, "of somebody").unwrap();
        let back = pair.change(Way::Back, 2, 1);
        let why = done(&back).unwrap_err();
        for part in ["somebody else has changed", "/chain meanwhile", "key.before-drill"] {
            assert!(why.contains(part), "{part} in {why}");
        }
        assert_eq!(pair.holds(), ["k2", "of somebody"], "a key without its chain is worth nothing");
        assert_eq!((read(&pair.former()), pair.file_count()), ("k1".into(), 4));
        fs::remove_file(&pair.chain).unwrap();
        let why = done(&back).unwrap_err();
        assert!(why.contains("chain.before-drill"), "{why}");
        // Nor is it replaced in the first place.
        let other = Pair::new();
        fs::write(&other.chain, "of somebody").unwrap();
        let why = done(&other.change(Way::Forth, 1, 2)).unwrap_err();
        assert!(why.contains("/chain has changed since"), "{why}");
        assert_eq!((other.holds(), other.file_count()), (["k1", "of somebody"].map(Into::into), 2));
    }

    #[test]
    fn what_can_not_be_kept_whole_is_not_kept() {
        let pair = Pair::new();
        fs::write(pair.folder.path().join("chain.before-drill"), "left").unwrap();
        let why = done(&pair.change(Way::Forth, 1, 2)).unwrap_err();
        assert!(why.contains("chain.before-drill is left"), "{why}");
        assert_eq!((pair.holds(), pair.file_count()), (["k1", "c1"].map(Into::into), 3));
    }

    #[test]
    fn programs_tell_what_came_of_them() {
        let shell = |script: &str| {
            let args = ["-c", script].map(OsString::from).to_vec();
            Program { path: "sh".into(), args }.run()
        };
        assert_eq!(shell("echo a; echo b"), Ok("b".to_string()));
        let why = shell("echo the cause >&2; exit 7").unwrap_err();
        assert!(why.contains("exit 7") && why.ends_with("the cause"), "{why}");
        let none = Program { path: "/no/such/program".into(), args: vec!["x".into()] };
        let why = none.run().unwrap_err();
        assert!(why.contains("cannot run /no/such/program x") && why.contains("--weir"), "{why}");
    }
}
