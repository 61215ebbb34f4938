//! WAL that a rebuild has copied, and that this server's archive does not have. PostgreSQL treats it as archived, because the primary
//! archives it too. If the primary is lost before it has done so, no archive contains the WAL.

use crate::error::{Error, Result};
use crate::pg::{Place, commands, conf, files};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a segment may take to be read.
const LIMIT: Duration = Duration::from_secs(30);

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
    mark_newest(place, (&wal, &status), archive)?;
    files::sync_dir(&status)
}

/// `pg_basebackup` marks a segment as archived when it receives its end, and a walreceiver has it archived then. If the copy ends
/// just before the end of a segment, neither does.
fn mark_newest(place: &Place, (wal, status): (&Path, &Path), archive: &Path) -> Result<()> {
    let Some(newest) = files::entries(wal).into_iter().rfind(|path| is_segment(path)) else { return Ok(()) };
    let name = newest.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let marked = ["done", "ready"].iter().any(|mark| status.join(format!("{name}.{mark}")).exists());
    match !marked && !archive.join(&name).exists() && is_complete(place, &newest) {
        true => files::touch(&status.join(format!("{name}.ready"))),
        false => Ok(()),
    }
}

fn is_segment(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    name.len() == 24 && name.iter().all(u8::is_ascii_hexdigit)
}

/// Whether its WAL is valid up to its end, which the instance then does not change. `pg_waldump` reads every record, and prints few
/// of this resource manager.
fn is_complete(place: &Place, segment: &PathBuf) -> bool {
    let args: [OsString; 3] = ["-r".into(), "CommitTs".into(), segment.into()];
    commands::program(place, "pg_waldump", args).run(LIMIT, None).is_ok()
}
