//! WAL that a rebuild has copied, and that this server's archive does not have. PostgreSQL treats it as archived, because the primary
//! archives it too. If the primary is lost before it has done so, no archive contains the WAL.

use crate::error::{Error, Result};
use crate::pg::{Place, conf, files};
use std::path::Path;

/// Has the instance archive this WAL again, if it archives while it is a standby. Its `archive_command` must accept a file that is
/// archived already, as PostgreSQL requires it with `archive_mode = always`. The instance must be down.
///
/// # Errors
/// A file cannot be renamed.
pub fn archive_again(place: &Place, archive: &Path) -> Result<()> {
    if conf::effective("archive_mode", &place.config_file, &place.data).as_deref() != Some("always") {
        return Ok(());
    }
    let wal = place.data.join("pg_wal");
    let status = wal.join("archive_status");
    for done in files::entries(&status) {
        let name = done.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(name) = name.strip_suffix(".done") else { continue };
        if wal.join(name).exists() && !archive.join(name).exists() {
            let ready = status.join(format!("{name}.ready"));
            std::fs::rename(&done, &ready).map_err(|cause| Error::io("rename file", &done, cause))?;
        }
    }
    files::sync_dir(&status)
}
