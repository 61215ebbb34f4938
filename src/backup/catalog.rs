//! The backups of a destination. Reads and removes; makes none.

use super::destination::Destination;
use crate::error::{Error, Result};
use crate::fsm::types::Lsn;
use crate::pg::files;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The file whose presence makes a directory a backup.
const DESCRIPTION: &str = "backup.json";

/// A backup that is complete and verified, as `backup.json` describes it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Backup {
    /// The name of its directory: when it began, UTC.
    pub name: String,
    /// The identifier of the server that made it.
    pub server: String,
    /// Its cluster, in decimal digits, as PostgreSQL writes it.
    pub system_identifier: String,
    /// PostgreSQL's major version.
    pub major_version: u32,
    /// When it began, ms since 1970.
    pub begun_ms: u64,
    /// When it was complete, ms since 1970. It cannot be recovered to an earlier time.
    pub ended_ms: u64,
    /// When it was verified last, ms since 1970.
    pub verified_ms: u64,
    /// The timeline on which it was made.
    pub timeline: u32,
    /// Where its recovery begins.
    pub start: String,
    /// From where on it is consistent.
    pub end: String,
    /// The size of a WAL segment, bytes.
    pub segment_size: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// The tablespaces outside of the data directory.
    pub tablespaces: Vec<Tablespace>,
    /// The full backup that an incremental one is restored with; `None` of a full backup.
    #[serde(default)]
    pub full: Option<String>,
}

/// A tablespace of a backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tablespace {
    /// Its OID.
    pub oid: String,
    /// Its directory on the server.
    pub location: PathBuf,
}

impl Backup {
    /// Where its recovery begins; 0 if its description is damaged.
    pub fn start(&self) -> Lsn {
        self.start.parse().unwrap_or(Lsn(0))
    }

    /// From where on it is consistent.
    pub fn end(&self) -> Lsn {
        self.end.parse().unwrap_or(Lsn(0))
    }
}

/// What a destination holds.
#[derive(Clone, Debug)]
pub struct Catalog {
    destination: Destination,
    /// The complete backups, the oldest first.
    pub backups: Vec<Backup>,
    /// Directories of backups that were interrupted.
    pub incomplete: Vec<PathBuf>,
    /// Backups whose description cannot be read, or whose full backup is missing, and why.
    pub damaged: Vec<(PathBuf, Error)>,
}

impl Catalog {
    /// Reads the descriptions of all backups.
    ///
    /// # Errors
    /// The destination does not exist or cannot be read.
    pub fn read(destination: &Destination) -> Result<Catalog> {
        destination.check_exists()?;
        let mut catalog =
            Catalog { destination: destination.clone(), backups: vec![], incomplete: vec![], damaged: vec![] };
        for path in files::entries(destination.path()) {
            if !is_name(&path) {
                continue;
            }
            let file = path.join(DESCRIPTION);
            match std::fs::read_to_string(&file) {
                Ok(text) => match serde_json::from_str(&text) {
                    Ok(backup) => catalog.backups.push(backup),
                    Err(cause) => catalog.damaged.push((path, Error::io("understand file", &file, cause))),
                },
                Err(cause) if cause.kind() == ErrorKind::NotFound => catalog.incomplete.push(path),
                Err(cause) => catalog.damaged.push((path, Error::io("read file", &file, cause))),
            }
        }
        catalog.set_aside_orphans();
        Ok(catalog)
    }

    /// An incremental backup without its full backup cannot be restored.
    fn set_aside_orphans(&mut self) {
        let names: Vec<String> = self.backups.iter().map(|backup| backup.name.clone()).collect();
        let orphaned = |backup: &mut Backup| backup.full.as_ref().is_some_and(|full| !names.contains(full));
        for backup in self.backups.extract_if(.., orphaned).collect::<Vec<_>>() {
            let full = backup.full.clone().unwrap_or_default();
            self.damaged
                .push((self.dir(&backup), Error::new(format!("full backup \"{full}\", which it needs, is missing"))));
        }
    }

    /// The full backup that this one is restored with; `None` of a full backup.
    ///
    /// # Errors
    /// It is missing.
    pub fn full_of(&self, backup: &Backup) -> Result<Option<&Backup>> {
        backup.full.as_ref().map(|full| self.find(full)).transpose()
    }

    /// Without the backups that this server has made, and without damaged ones, of which that is not known.
    pub(super) fn without(&self, server: &str) -> Catalog {
        let mut others = Catalog { damaged: vec![], ..self.clone() };
        others.backups.retain(|backup| backup.server != server);
        others
    }

    /// The newest full backup.
    pub fn newest_full(&self) -> Option<&Backup> {
        self.backups.iter().rfind(|backup| backup.full.is_none())
    }

    /// The backup with this name.
    ///
    /// # Errors
    /// There is none.
    pub fn find(&self, name: &str) -> Result<&Backup> {
        self.backups.iter().find(|backup| backup.name == name).ok_or_else(|| {
            let path = self.destination.path().display();
            Error::new(format!("there is no complete backup \"{name}\" in \"{path}\""))
                .hint("\"mc_ctl backup --list\" shows the backups.")
        })
    }

    /// The directory of a backup.
    pub fn dir(&self, backup: &Backup) -> PathBuf {
        self.destination.path().join(&backup.name)
    }

    /// Whether a file of a backup makes it one.
    pub(super) fn is_description(path: &Path) -> bool {
        path == Path::new(DESCRIPTION)
    }

    /// The directory of the complete backup with this name; `None` if there is none.
    pub fn dir_of(destination: &Destination, name: &str) -> Option<PathBuf> {
        let dir = destination.path().join(name);
        (is_name(Path::new(name)) && !name.contains('/') && dir.join(DESCRIPTION).exists()).then_some(dir)
    }

    /// A name for a backup that begins at this time, and its directory.
    pub(super) fn new_name(&self, stamp: &str) -> String {
        let taken = |name: &str| self.destination.path().join(name).symlink_metadata().is_ok();
        let numbered = (2..).map(|number| format!("{stamp}-{number}"));
        std::iter::once(stamp.to_owned()).chain(numbered).find(|name| !taken(name)).unwrap_or_default()
    }

    /// Writes the description, which makes the directory a backup, or renews it.
    pub(super) fn describe(&self, backup: &Backup) -> Result<()> {
        let text = serde_json::to_string_pretty(backup).unwrap_or_default() + "\n";
        files::replace(&self.dir(backup).join(DESCRIPTION), text.as_bytes(), None)?;
        files::sync_dir(self.destination.path())
    }

    /// Why the backup with this name cannot be restored; `None` if it is complete or there is none.
    pub fn damage(&self, name: &str) -> Option<&Error> {
        self.damaged.iter().find(|(path, _)| path.file_name() == Some(name.as_ref())).map(|(_, why)| why)
    }

    /// Removes a backup, complete or damaged. Interrupted, it leaves a directory that is no backup any more.
    ///
    /// # Errors
    /// An incremental backup needs it, or a file cannot be removed.
    pub fn remove(&mut self, name: &str) -> Result<()> {
        let dir = match self.damage(name) {
            Some(_) => self.destination.path().join(name),
            None => self.dir(self.find(name)?),
        };
        if let Some(needs) = self.backups.iter().find(|backup| backup.full.as_deref() == Some(name)) {
            return Err(Error::new(format!("incremental backup \"{}\" needs backup \"{name}\"", needs.name))
                .hint(format!("First remove it: \"mc_ctl backup --delete {}\".", needs.name)));
        }
        files::remove(&dir.join(DESCRIPTION))?;
        self.backups.retain(|backup| backup.name != name);
        self.damaged.retain(|(path, _)| *path != dir);
        remove_tree(&dir)
    }

    /// Removes what interrupted backups have left. The destination must be locked.
    pub(super) fn remove_incomplete(&mut self) -> Result<usize> {
        let incomplete = std::mem::take(&mut self.incomplete);
        incomplete.iter().try_for_each(|dir| remove_tree(dir))?;
        Ok(incomplete.len())
    }
}

fn remove_tree(dir: &Path) -> Result<()> {
    std::fs::remove_dir_all(dir).map_err(|cause| Error::io("remove directory", dir, cause))
}

/// `20261130T121500Z`, or the same with a number.
fn is_name(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (stamp, number) = name.split_once('-').unwrap_or((&name, "1"));
    let shape: String = stamp.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape == "00000000T000000Z" && number.bytes().all(|byte| byte.is_ascii_digit()) && !number.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, expected) in [
            ("20261130T121500Z", true),
            ("20261130T121500Z-2", true),
            ("20261130T121500Z-", false),
            ("20261130T121500Z.old", false),
            ("archived_wal", false),
            ("lost+found", false),
        ] {
            assert_eq!(is_name(&Path::new("/backup").join(name)), expected, "{name}");
        }
    }
}
