//! The WAL archive of one server. A file is durable in it before PostgreSQL learns that it is archived, and never replaced.

use super::destination::Destination;
use super::segment;
use crate::error::{Error, Result};
use crate::pg::files;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// How many bytes of two files are compared at once.
const BLOCK: usize = 256 << 10;

/// What became of a file that was to be archived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stored {
    /// It is in the archive now.
    New,
    /// A file with the same name and contents was there.
    Already,
}

/// The archive below a destination.
#[derive(Clone, Debug)]
pub struct Archive {
    destination: Destination,
    dir: PathBuf,
}

impl Archive {
    /// The archive of this destination. Its directory is made when the first file is stored.
    pub fn new(destination: Destination) -> Archive {
        let dir = destination.path().join("archived_wal");
        Archive { destination, dir }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Stores `from` under this name. On return the copy is durable.
    ///
    /// # Errors
    /// The name is none that PostgreSQL archives, the file is damaged or of another cluster, a different file has this name, or
    /// the copy cannot be written. The archive is as before.
    pub fn store(&self, from: &Path, name: &str) -> Result<Stored> {
        check_name(name)?;
        if segment::holds_wal(name) {
            self.destination.claim(segment::first_page(from)?.system)?;
        } else {
            self.destination.check_exists()?;
        }
        self.make_dir()?;
        let target = self.dir.join(name);
        if target.symlink_metadata().is_ok() {
            return self.compare(from, &target);
        }
        let new = self.dir.join(format!(".{name}.{}.new", std::process::id()));
        self.remove_abandoned(name);
        let written = copy(from, &new).and_then(|()| publish(&new, &target));
        let _ = std::fs::remove_file(&new);
        match written {
            Ok(true) => files::sync_dir(&self.dir).map(|()| Stored::New),
            // Another process has stored it meanwhile.
            Ok(false) => self.compare(from, &target),
            Err(error) => Err(error),
        }
    }

    /// Copies the file of this name to `to`; false if the archive does not have it.
    ///
    /// # Errors
    /// The name is none that PostgreSQL requests, the archived file is damaged, or the copy cannot be written. Nothing is at `to`
    /// then.
    pub fn fetch(&self, name: &str, to: &Path) -> Result<bool> {
        check_name(name)?;
        let from = self.dir.join(name);
        if from.symlink_metadata().is_err_and(|cause| cause.kind() == ErrorKind::NotFound) {
            self.destination.check_exists()?;
            return Ok(false);
        }
        deliver(name, to, |new| copy(&from, new))?;
        Ok(true)
    }

    /// Opens the file of this name; `None` if the archive does not have it.
    ///
    /// # Errors
    /// The name is none that PostgreSQL requests, or the file cannot be opened.
    pub fn open(&self, name: &str) -> Result<Option<File>> {
        check_name(name)?;
        let path = self.dir.join(name);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(Error::io("open file", &path, cause)),
        }
    }

    /// The names of the files in the archive, in order.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn names(&self) -> Result<Vec<String>> {
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(cause) => return Err(Error::io("read directory", &self.dir, cause)),
        };
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.retain(|name| segment::is_name(name));
        names.sort();
        Ok(names)
    }

    fn make_dir(&self) -> Result<()> {
        if self.dir.is_dir() {
            return Ok(());
        }
        super::destination::make_private_dir(&self.dir)?;
        files::sync_parent(&self.dir)
    }

    /// Copies of this file that an interrupted process has left. PostgreSQL archives one file at a time.
    fn remove_abandoned(&self, name: &str) {
        let prefix = format!(".{name}.");
        for path in files::entries(&self.dir) {
            let entry = path.file_name().unwrap_or_default().to_string_lossy();
            if entry.starts_with(&prefix) && entry.ends_with(".new") {
                let _ = std::fs::remove_file(&path);
            }
        }
    }

    /// The same name again: a success if the contents are the same, once they are durable.
    fn compare(&self, from: &Path, target: &Path) -> Result<Stored> {
        if !same(from, target)? {
            return Err(Error::new(format!(
                "file \"{}\" differs from \"{}\", which has the same name",
                from.display(),
                target.display()
            ))
            .hint(
                "The archive never replaces a file. Two clusters that archive to one directory, or a data directory that was \
                 restored to an earlier state, are the usual reasons. Compare both files with pg_waldump. If the archived file \
                 is not needed, rename it.",
            ));
        }
        let file = File::open(target).map_err(|cause| Error::io("open file", target, cause))?;
        file.sync_all().map_err(|cause| Error::io("fsync file", target, cause))?;
        files::sync_dir(&self.dir)?;
        Ok(Stored::Already)
    }
}

/// Gives PostgreSQL a file that `make` writes, once it is whole and what its name says.
///
/// # Errors
/// The file cannot be written, or is damaged. Nothing is at `to` then.
pub fn deliver(name: &str, to: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut new = to.to_owned().into_os_string();
    new.push(".new");
    let new = PathBuf::from(new);
    let made = make(&new).and_then(|()| {
        if segment::holds_wal(name) {
            segment::first_page(&new)?;
        }
        std::fs::rename(&new, to).map_err(|cause| Error::io("rename file", &new, cause))
    });
    made.inspect_err(|_| {
        let _ = std::fs::remove_file(&new);
    })
}

fn check_name(name: &str) -> Result<()> {
    if segment::is_name(name) {
        return Ok(());
    }
    Err(Error::new(format!("\"{name}\" is not the name of a WAL file"))
        .hint("PostgreSQL passes the name as %f: archive_command = 'mc_ctl archive-wal -M DIR \"%p\" \"%f\"'"))
}

/// Copies a file to a new one, durably.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut source = File::open(from).map_err(|cause| Error::io("open file", from, cause))?;
    let _ = std::fs::remove_file(to);
    let mut options = OpenOptions::new();
    let created = options.write(true).create_new(true).mode(0o600).open(to);
    let mut target = created.map_err(|cause| Error::io("create file", to, cause))?;
    let failed = |what| move |cause: std::io::Error| Error::io(what, to, cause);
    std::io::copy(&mut source, &mut target).map_err(failed("write file"))?;
    target.sync_all().map_err(failed("fsync file"))
}

/// Gives a new file its name; false if another file has it.
fn publish(new: &Path, target: &Path) -> Result<bool> {
    match std::fs::hard_link(new, target) {
        Ok(()) => Ok(true),
        Err(cause) if cause.kind() == ErrorKind::AlreadyExists => Ok(false),
        // A file system without hard links.
        Err(_) if target.symlink_metadata().is_err() => {
            let renamed = std::fs::rename(new, target);
            renamed.map(|()| true).map_err(|cause| Error::io("rename file", new, cause))
        }
        Err(cause) => Err(Error::io("link file", new, cause)),
    }
}

fn same(one: &Path, other: &Path) -> Result<bool> {
    let open = |path: &Path| File::open(path).map_err(|cause| Error::io("open file", path, cause));
    let (mut a, mut b) = (open(one)?, open(other)?);
    let (mut first, mut second) = (vec![0; BLOCK], vec![0; BLOCK]);
    loop {
        let read = fill(&mut a, &mut first).map_err(|cause| Error::io("read file", one, cause))?;
        let also = fill(&mut b, &mut second).map_err(|cause| Error::io("read file", other, cause))?;
        if first[..read] != second[..also] {
            return Ok(false);
        }
        if read == 0 {
            return Ok(true);
        }
    }
}

fn fill(file: &mut File, block: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match file.read(&mut block[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "000000010000000000000002";

    /// A segment of 1 MB of the cluster with this system identifier.
    fn segment(system: u64, filler: u8) -> Vec<u8> {
        let mut bytes = vec![filler; 1 << 20];
        bytes[2..4].copy_from_slice(&2_u16.to_ne_bytes());
        bytes[24..32].copy_from_slice(&system.to_ne_bytes());
        bytes[32..36].copy_from_slice(&(1_u32 << 20).to_ne_bytes());
        bytes
    }

    /// A destination, and a file to archive.
    fn place() -> (tempfile::TempDir, Archive, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let destination = dir.path().join("backup");
        super::super::destination::make_private_dir(&destination).unwrap();
        let from = dir.path().join("segment");
        std::fs::write(&from, segment(7, 1)).unwrap();
        (dir, Archive::new(Destination::new(destination)), from)
    }

    #[test]
    fn a_file_is_never_replaced() {
        let (dir, archive, from) = place();
        std::fs::create_dir(archive.dir()).unwrap();
        std::fs::write(archive.dir().join(format!(".{NAME}.1.new")), "left by a process that was killed").unwrap();
        assert_eq!(archive.store(&from, NAME), Ok(Stored::New));
        assert_eq!(archive.store(&from, NAME), Ok(Stored::Already));
        assert_eq!(files::entries(archive.dir()).len(), 1);
        std::fs::write(&from, segment(7, 2)).unwrap();
        let refused = archive.store(&from, NAME).unwrap_err();
        let archived = archive.dir().join(NAME);
        for path in [&from, &archived] {
            assert!(refused.message.contains(path.to_str().unwrap()), "{refused}");
        }
        assert_eq!(std::fs::read(archived).unwrap(), segment(7, 1));
        let to = dir.path().join("copy");
        assert_eq!(archive.fetch(NAME, &to), Ok(true));
        assert_eq!(std::fs::read(&to).unwrap(), segment(7, 1));
        assert_eq!(archive.fetch("000000010000000000000003", &to), Ok(false));
        assert_eq!(archive.names().unwrap(), [NAME]);
    }

    #[test]
    fn what_is_refused() {
        let (dir, archive, from) = place();
        let refused = |from: &Path, name: &str| archive.store(from, name).unwrap_err().message;
        assert!(refused(&from, "postgresql.conf").contains("not the name of a WAL file"));
        let short = dir.path().join("short");
        std::fs::write(&short, &segment(7, 1)[..4096]).unwrap();
        assert!(refused(&short, NAME).contains("instead of the 1048576 in its header"));
        std::fs::write(&short, vec![0; 1 << 20]).unwrap();
        assert!(refused(&short, NAME).contains("no valid header"));
        assert!(archive.names().unwrap().is_empty());

        archive.store(&from, NAME).unwrap();
        let other = dir.path().join("other");
        std::fs::write(&other, segment(8, 1)).unwrap();
        assert!(refused(&other, "000000010000000000000003").contains("belongs to another cluster"));
        std::fs::write(archive.dir().join(NAME), "damaged").unwrap();
        assert!(archive.fetch(NAME, &dir.path().join("copy")).unwrap_err().message.contains("is not a WAL segment"));

        // A destination whose file system is not mounted, or that holds something else.
        let missing = Archive::new(Destination::new(dir.path().join("missing")));
        assert!(missing.store(&from, NAME).unwrap_err().hint.contains("Mount its file system"));
        assert!(missing.fetch(NAME, &dir.path().join("copy")).is_err());
        let used = dir.path().join("used");
        super::super::destination::make_private_dir(&used).unwrap();
        std::fs::write(used.join("letters"), "").unwrap();
        let used = Archive::new(Destination::new(used));
        assert!(used.store(&from, NAME).unwrap_err().message.contains("is not empty and holds no backups"));
    }
}
