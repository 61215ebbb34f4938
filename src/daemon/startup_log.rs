//! Bounds the file in the run-time directory to which `pg_ctl start` sends the standard error of the instance, unless there is
//! another place for it (`log_file`), which logrotate(8) bounds.
//!
//! With `logging_collector = off`, the default, that is PostgreSQL's whole log for as long as the instance lives. The file
//! cannot be exchanged, since the instance holds it open. But `pg_ctl` opens it for appending, so it can be emptied: what is
//! written next begins at its start. Its end is copied to an older file before. Lines that are written between the copy and
//! the emptying are lost; so are some if the disk has no space for the copy, as the bound matters more.

use super::spawn;
use crate::error::{Error, Result};
use crate::messages::{self, Tell};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the file may become, in bytes; the older file is as long at most.
const LIMIT: u64 = 10 << 20;

/// How often its length is checked.
const INTERVAL: Duration = Duration::from_secs(1);

/// Starts the thread that keeps the file below its limit. It lives as long as the process.
///
/// # Errors
/// The system refuses another thread.
pub fn watch(path: PathBuf) -> Result<()> {
    let watch = move || {
        let mut reported = false;
        loop {
            let rotated = rotate(&path, LIMIT);
            if let Err(error) = &rotated
                && !reported
            {
                messages::tell(&Tell::Warning(error.clone()));
            }
            reported = rotated.is_err();
            std::thread::sleep(INTERVAL);
        }
    };
    spawn("startup log", watch).map(drop)
}

/// Empties the file where it is longer than `limit`, after its last `limit` bytes were copied to the older file.
///
/// # Errors
/// The file could not be emptied. An older file that could not be written is none.
fn rotate(path: &Path, limit: u64) -> Result<()> {
    let length = path.metadata().map_or(0, |found| found.len());
    if length <= limit {
        return Ok(());
    }
    let older = path.with_extension("log.1");
    let copied = copy_end(path, &older, length.saturating_sub(limit), limit);
    if let Err(cause) = copied {
        let _ = std::fs::remove_file(&older);
        messages::tell(&Tell::Warning(Error::io("copy the end of the log to file", &older, cause)));
    }
    let emptied = OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(0));
    emptied.map_err(|cause| Error::io("truncate file", path, cause))
}

fn copy_end(path: &Path, older: &Path, from: u64, limit: u64) -> std::io::Result<()> {
    let mut log = File::open(path)?;
    log.seek(SeekFrom::Start(from))?;
    // First: the space of the one before may be needed.
    let _ = std::fs::remove_file(older);
    let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(older)?;
    std::io::copy(&mut log.take(limit), &mut copy).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_log_that_is_held_open_is_bounded_and_its_end_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("startup.log");
        let older = dir.path().join("startup.log.1");
        rotate(&path, 100).unwrap();
        let mut log = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        log.write_all(&[b'a'; 100]).unwrap();
        rotate(&path, 100).unwrap();
        assert!(!older.exists());
        log.write_all(&[b'b'; 30]).unwrap();
        rotate(&path, 100).unwrap();
        let expected = [vec![b'a'; 70], vec![b'b'; 30]].concat();
        assert_eq!(std::fs::read(&older).unwrap(), expected);
        log.write_all(&[b'c'; 120]).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), [b'c'; 120]);
        rotate(&path, 100).unwrap();
        assert_eq!(std::fs::read(&older).unwrap(), [b'c'; 100]);
        // The bound holds also where nothing can be copied.
        std::fs::remove_file(&older).unwrap();
        std::fs::create_dir(&older).unwrap();
        log.write_all(&[b'd'; 120]).unwrap();
        rotate(&path, 100).unwrap();
        assert_eq!(path.metadata().unwrap().len(), 0);
    }
}
