//! Reads the files that a `[[certificate]]` names: plain files of bounded size.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::limits::MAX_PEM_BYTES;
use crate::model::Pem;

/// What a file, or the text in the configuration itself, says.
pub(super) struct Text {
    pub bytes: Vec<u8>,
    /// Users beside owner and group may open the file.
    pub open_to_others: bool,
}

/// Reads it; an error says what is wrong in words that go on from the file's name.
pub(super) fn text(pem: &Pem) -> Result<Text, String> {
    match pem {
        Pem::Text(text) => Ok(Text { bytes: text.clone().into_bytes(), open_to_others: false }),
        Pem::File(path) => read(path).map_err(|error| format!("{} {error}", path.display())),
    }
}

/// Reads a file of at most [`MAX_PEM_BYTES`].
pub(super) fn read(path: &Path) -> Result<Text, String> {
    open(path).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => format!("is larger than {} KiB", MAX_PEM_BYTES >> 10),
        _ => format!("can't be read: {error}"),
    })
}

fn open(path: &Path) -> io::Result<Text> {
    // Before it is opened: a pipe would wait for its other end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    let file = File::open(path)?;
    let open_to_others = file.metadata()?.permissions().mode() & 0o007 != 0;
    let mut bytes = Vec::new();
    file.take(MAX_PEM_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_PEM_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(Text { bytes, open_to_others })
}
