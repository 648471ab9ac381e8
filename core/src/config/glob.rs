//! Files by a pattern: `*` stands for any characters of a name, `?` for one. Names that begin with
//! a dot are matched only by a pattern that does too. Called for `include`.

use std::collections::BTreeSet;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Does the text have a character that stands for others?
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// Existing files and folders that match a pattern, relative to `folder`, in order.
///
/// # Errors
/// A folder on the way can't be read; one that does not exist matches nothing.
pub(super) fn expand(folder: &Path, pattern: &str) -> io::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::from([folder.to_owned()]);
    for component in Path::new(pattern).components() {
        let Component::Normal(name) = component else {
            found = found.into_iter().map(|path| path.join(component)).collect();
            continue;
        };
        let name = name.to_string_lossy();
        if !is_pattern(&name) {
            let name: &str = &name;
            found = found.into_iter().map(|path| path.join(name)).collect();
            continue;
        }
        let mut next = BTreeSet::new();
        for path in found {
            next.extend(matches_in(&path, &name)?);
        }
        found = next;
    }
    found.retain(|path| path.exists());
    Ok(found)
}

fn matches_in(folder: &Path, pattern: &str) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry?;
        if matches(pattern, &entry.file_name().to_string_lossy()) {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

/// Does a name match? The time is bounded by the product of the two lengths: on a mismatch only the
/// last `*` is tried anew.
fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut read) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(char) = name.get(read) {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(wanted) if *wanted == '?' || wanted == char => {
                at += 1;
                read += 1;
            }
            _ => {
                let Some((star_at, star_read)) = star else { return false };
                star = Some((star_at, star_read + 1));
                at = star_at + 1;
                read = star_read + 1;
            }
        }
    }
    pattern.iter().skip(at).all(|char| *char == '*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns() {
        for (pattern, name) in [
            ("*.toml", "a.toml"),
            ("*", "x"),
            ("a*b*c", "aXbYbZc"),
            ("?.toml", "é.toml"),
            ("**", "ab"),
            (".*", ".x"),
            ("a*", "a"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("*.toml", "a.toml~"), ("*.toml", ".a.toml"), ("?", ""), ("a*b", "ac"), ("a", "ab")]
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        assert!(!matches(&"*a".repeat(50), &"a".repeat(49)));
    }
}
