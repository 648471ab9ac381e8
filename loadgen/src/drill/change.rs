//! What a drill changes at a running balancer, and how it is told that the change is in effect:
//! files are replaced in one step each, and what stood there is kept beside until it is back; then
//! a program says when it is done, or handshakes show it. Called by `drill`.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::rotation::Sight;

/// Files that are replaced, and what shows that the balancer follows.
#[derive(Clone, Debug)]
pub struct Change {
    /// Files and what they are to hold, in the order in which they are replaced.
    pub files: Vec<(PathBuf, Vec<u8>)>,
    /// What is waited for.
    pub effect: Effect,
    /// Whether the files change, or get back what they held.
    pub way: Way,
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

    /// Makes the change, and waits until it is in effect. Gives what was told of it.
    pub(super) fn make(&self) -> Result<String, String> {
        match self.way {
            Way::Forth => {
                self.files.iter().try_for_each(|(path, _)| keep(path))?;
                self.files.iter().try_for_each(|(path, content)| replaced(path, content))?;
                self.effect.wait()
            }
            Way::Back => {
                // One that can't be put back does not keep the others from it.
                let back = self.files.iter().map(|(path, content)| put_back(path, content));
                let wrong: Vec<String> = back.filter_map(Result::err).collect();
                let done =
                    if wrong.is_empty() { self.effect.wait() } else { Err(wrong.join("; ")) };
                // Only now: whoever ends the program meanwhile is told of what was kept.
                self.files.iter().try_for_each(|(path, content)| forget(path, content))?;
                done
            }
        }
    }

    /// Where the files' former content stands while the change is made, with what to do about it;
    /// `None` when no file changes.
    pub(super) fn kept_as(&self) -> Option<String> {
        let kept = self.files.iter().filter_map(|(path, _)| place_of_former(path).ok());
        let kept: Vec<String> = kept.map(|path| path.display().to_string()).collect();
        let names = kept.join(", ");
        (!kept.is_empty()).then(|| format!("move what was there before back by hand, from {names}"))
    }
}

impl Effect {
    fn wait(&self) -> Result<String, String> {
        match self {
            Effect::Program(program) => program.run(),
            Effect::Sight(sight) => sight.wait(),
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
        let output = output.map_err(|error| format!("cannot run {self}: {error}"))?;
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
fn place_of_former(path: &Path) -> io::Result<PathBuf> {
    let path = fs::canonicalize(path)?;
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".before-drill");
    Ok(path.with_file_name(name))
}

/// Keeps what a file holds beside it: however this program ends, it isn't lost. By a hard link,
/// with the same mode and owner; [`replace`] does not write into the former file.
fn keep(path: &Path) -> Result<(), String> {
    let told = |error: io::Error| format!("cannot keep a copy of {}: {error}", path.display());
    let former = place_of_former(path).map_err(told)?;
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
        Ok(former) if former.exists() => format!("{why}; move {} there", former.display()),
        _ => why,
    })
}

/// Removes what [`keep`] made, where that and the file itself hold what they should.
fn forget(path: &Path, content: &[u8]) -> Result<(), String> {
    let holds = |path: &Path| fs::read(path).is_ok_and(|held| held == content);
    match place_of_former(path) {
        Ok(former) if holds(&former) && holds(path) => fs::remove_file(&former)
            .map_err(|error| format!("cannot remove {}: {error}", former.display())),
        _ => Ok(()),
    }
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

    #[test]
    fn what_stood_there_is_kept_until_it_is_back() {
        let folder = tempfile::tempdir().unwrap();
        let [key, chain] = ["key", "chain"].map(|name| folder.path().join(name));
        let former = folder.path().join("key.before-drill");
        let change = |way: Way, key_text: &str, chain_text: &str| Change {
            files: vec![(key.clone(), key_text.into()), (chain.clone(), chain_text.into())],
            effect: Effect::Program(Program { path: "true".into(), args: Vec::new() }),
            way,
        };
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        fs::write(&key, "k1").unwrap();
        fs::write(&chain, "c1").unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        let forth = change(Way::Forth, "k2", "c2");
        forth.make().unwrap();
        assert_eq!([&key, &chain, &former].map(|path| read(path)), ["k2", "c2", "k1"]);
        assert_eq!(fs::metadata(&former).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(forth.kept_as().unwrap().contains("key.before-drill"));
        // What an interrupted drill left is not written over, nor removed by another drill's undo.
        let why = change(Way::Forth, "k3", "c3").make().unwrap_err();
        assert!(why.contains("key.before-drill is left"), "{why}");
        change(Way::Back, "k2", "c2").make().unwrap();
        assert_eq!([&key, &chain, &former].map(|path| read(path)), ["k2", "c2", "k1"]);
        // One that can't be put back does not keep the other from it.
        fs::remove_file(&key).unwrap();
        let back = change(Way::Back, "k1", "c1");
        let why = back.make().unwrap_err();
        assert!(why.contains("cannot replace") && why.contains("/key"), "{why}");
        assert_eq!([&chain, &former].map(|path| read(path)), ["c1", "k1"]);
        fs::write(&key, "k2").unwrap();
        back.make().unwrap();
        assert_eq!(read(&key), "k1");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left");
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
        assert!(none.run().unwrap_err().contains("cannot run /no/such/program x"));
    }
}
