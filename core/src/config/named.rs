//! Files that the configuration names beside itself: certificates, keys, OCSP answers. Looks only
//! whether they can be read, so that this is found with all other mistakes and not by the first
//! handshake; what is in them is read by who uses it. Called for configurations that come from
//! files.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::problem::Findings;
use super::read::Document;
use crate::model::Pem;

/// Reports each file that this process can't read, at the key that names it.
pub(super) fn check(document: &Document<'_, '_>, findings: &mut Findings) {
    for text in &document.certificates {
        let (table, object) = (&text.head.table, &text.object);
        let files = [
            ("certificate", file(Some(&object.certificate))),
            ("private_key", file(object.private_key.as_ref())),
            ("ocsp_response", object.ocsp_response.as_deref()),
        ];
        for (key, path) in files {
            let Some((path, error)) = path.and_then(|p| Some((p, readable(p).err()?))) else {
                continue;
            };
            let what = format!("{} can't be read: {error}", path.display());
            findings
                .error(table.span_of(key), table.at(key), what)
                .help("name a file that this user may read");
        }
    }
}

fn file(pem: Option<&Pem>) -> Option<&Path> {
    match pem {
        Some(Pem::File(path)) => Some(path),
        Some(Pem::Text(_)) | None => None,
    }
}

/// Opens a plain file; a pipe would wait for its other end.
fn readable(path: &Path) -> io::Result<()> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    File::open(path).map(drop)
}
