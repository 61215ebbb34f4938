//! Directories outside of the data directory that are not this instance's alone. A rebuild would overwrite, move away or delete
//! in them what may be the only copy of another instance's data, above all of the primary's where both servers are one host.

use super::swap;
use crate::error::{Error, Result};
use crate::pg::process;
use std::path::{Path, PathBuf};

/// Refuses where another instance that runs on this host keeps data in the data directory, in a directory that it links to, or
/// in one of `more`.
///
/// # Errors
/// So it is, or the processes cannot be listed.
pub fn refuse(data: &Path, more: &[PathBuf]) -> Result<()> {
    let mut spaces = linked(data);
    spaces.extend(more.iter().map(|dir| process::home(dir)));
    // What lies in these is moved or deleted whatever it is; in a tablespace's directory there may be more.
    let whole = [data.to_owned(), process::home(&data.join("pg_wal"))];
    for other in process::others(data)? {
        let mut theirs = linked(&other);
        theirs.push(other.clone());
        let common = |dir: &&PathBuf| spaces.contains(dir) || whole.iter().any(|whole| dir.starts_with(whole));
        if let Some(dir) = theirs.iter().find(common) {
            return Err(Error::new(format!(
                "directory \"{}\" is in use by the instance of \"{}\", which runs on this host",
                dir.display(),
                other.display()
            ))
            .hint("Two instances on one host require separate directories for tablespaces and for pg_wal."));
        }
    }
    Ok(())
}

/// Refuses a directory to which no link of the data directory leads, and in which the files of some instance lie.
///
/// # Errors
/// So it is, or it cannot be read.
pub fn refuse_strange(location: &Path, major: u32) -> Result<()> {
    if !swap::has_files_of_an_instance(location, major)? {
        return Ok(());
    }
    Err(Error::new(format!(
        "directory \"{}\" of a tablespace contains files of an instance, and the data directory has no link to it",
        location.display()
    ))
    .hint("They may belong to another instance, or to the primary if it is on the same host. Remove them if they are not needed."))
}

/// Where `pg_wal` and the tablespaces of a data directory really lie, where that is outside of it.
fn linked(data: &Path) -> Vec<PathBuf> {
    let spaces = std::fs::read_dir(data.join("pg_tblspc")).into_iter().flatten().flatten().map(|entry| entry.path());
    let links = spaces.chain([data.join("pg_wal")]).filter(|path| path.is_symlink());
    links.filter_map(|link| link.canonicalize().ok()).filter(|at| !at.starts_with(data)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_an_instance_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let space = dir.path().join("space");
        assert_eq!(refuse_strange(&space, 15), Ok(()));
        std::fs::create_dir_all(space.join("lost+found")).unwrap();
        assert_eq!(refuse_strange(&space, 15), Ok(()));
        std::fs::create_dir(space.join("PG_15_202209061")).unwrap();
        assert!(refuse_strange(&space, 15).is_err() && refuse_strange(&space, 16).is_ok());
    }
}
