//! Which program takes over where none is named: the one under the name by which this one was
//! started. A package that brings a new version replaces the file, or turns a link to it, so the
//! name is kept and looked up anew. Called once, when the process starts.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// The path by which this program was started, absolute.
///
/// # Errors
/// /proc is not there.
pub fn started_as() -> std::io::Result<PathBuf> {
    let real = env::current_exe()?;
    let named = env::args_os().next().map(PathBuf::from);
    let found = named.and_then(|name| find(&name, &search_path()));
    // A name that leads elsewhere is none to rely on.
    let is_it = |path: &PathBuf| fs::canonicalize(path).is_ok_and(|path| path == real);
    Ok(found.filter(is_it).unwrap_or(real))
}

fn search_path() -> Vec<PathBuf> {
    env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default()
}

/// As a shell does: a name with a slash is a path, another one stands in one of `folders`.
fn find(name: &Path, folders: &[PathBuf]) -> Option<PathBuf> {
    if name.components().count() > 1 {
        return std::path::absolute(name).ok();
    }
    folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_as_a_shell_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prog");
        fs::write(&path, "").unwrap();
        let folders = [PathBuf::from("/nonexistent"), folder.path().to_owned()];
        assert_eq!(find(Path::new("prog"), &folders), Some(path.clone()));
        assert_eq!(find(&path, &[]), Some(path));
        assert_eq!(find(Path::new("nothing"), &folders), None);
        assert!(find(Path::new("./prog"), &[]).unwrap().is_absolute());
    }

    #[test]
    fn this_program_has_a_path() {
        assert!(started_as().unwrap().is_file());
    }
}
