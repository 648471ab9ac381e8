//! What a drill changes at a running balancer, and how it is told that the change is in effect:
//! files are replaced in one step each, then a program says when it is done, or handshakes show
//! it. Called by `drill`.

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
        Change { files: Vec::new(), effect }
    }

    /// Makes the change, and waits until it is in effect. Gives what was told of it.
    pub(super) fn make(&self) -> Result<String, String> {
        for (path, content) in &self.files {
            replace(path, content)
                .map_err(|error| format!("cannot replace {}: {error}", path.display()))?;
        }
        match &self.effect {
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
