//! A backup that is copied from the other server: the list of its files, and a new backup of the same name. The caller transfers
//! the contents.

use super::catalog::{Backup, Catalog};
use super::destination::{Destination, Lock, make_private_dir};
use super::make::verify;
use crate::error::{Error, Result};
use crate::fsm::types::SystemId;
use crate::pg::bounded::Cancel;
use crate::pg::{Place, files};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

/// A file or directory of a backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Its path in the directory of the backup.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
}

/// What an entry is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Kind {
    /// A directory with this mode.
    Directory(u32),
    /// A file with this mode, and its bytes.
    File(u32, u64),
    /// A symbolic link to this path in the directory of the backup.
    Link(PathBuf),
}

/// What the directory of a backup contains, each directory before its entries.
///
/// # Errors
/// It cannot be read.
pub fn entries(dir: &Path) -> Result<Vec<Entry>> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        let read = std::fs::read_dir(&next).map_err(|cause| Error::io("open directory", &next, cause))?;
        for entry in read {
            let at = entry.map_err(|cause| Error::io("read directory", &next, cause))?.path();
            let meta = at.symlink_metadata().map_err(|cause| Error::io("stat file", &at, cause))?;
            let mode = meta.permissions().mode() & 0o777;
            let path = at.strip_prefix(dir).unwrap_or(&at).to_owned();
            let kind = if meta.is_dir() {
                open.push(at);
                Kind::Directory(mode)
            } else if meta.is_symlink() {
                let to = std::fs::read_link(&at).map_err(|cause| Error::io("read symbolic link", &at, cause))?;
                Kind::Link(to.strip_prefix(dir).map(Path::to_owned).unwrap_or(to))
            } else {
                Kind::File(mode, meta.len())
            };
            if !Catalog::is_description(&path) {
                found.push(Entry { path, kind });
            }
        }
    }
    Ok(found)
}

/// Opens a file of the backup in this directory.
///
/// # Errors
/// There is none with this path, or it cannot be opened.
pub fn open(dir: &Path, path: &Path) -> Result<File> {
    let at = dir.join(path);
    let inside = is_inside(path) && at.canonicalize().ok() == dir.canonicalize().ok().map(|dir| dir.join(path));
    if !inside {
        return Err(Error::new(format!("\"{}\" is not a file of the backup", path.display())));
    }
    File::open(&at).map_err(|cause| Error::io("open file", &at, cause))
}

/// Whether a path of the other server's leads to no place outside.
fn is_inside(path: &Path) -> bool {
    path.components().next().is_some() && path.components().all(|part| matches!(part, Component::Normal(_)))
}

/// Makes a backup of the other server's, of which this is the content, a backup of this destination: copies, verifies and
/// describes it. `full`: the full backup of an incremental one, which is here. `fetch` writes the contents of a file. What an
/// interrupted copy has left is continued.
///
/// # Errors
/// A file cannot be copied or written, the copy is damaged and is removed, or it was cancelled.
pub fn receive(
    (destination, _lock): (&Destination, &Lock),
    place: &Place,
    backup: &Backup,
    content: &[Entry],
    fetch: &mut dyn FnMut(&Path, u64, &mut File) -> Result<()>,
    cancel: &Cancel,
) -> Result<()> {
    let system = backup.system_identifier.parse().map(SystemId);
    destination.claim(system.map_err(|_| Error::new("the description of the backup is damaged"))?)?;
    let catalog = Catalog::read(destination)?;
    let dir = catalog.dir(backup);
    if !dir.exists() {
        make_private_dir(&dir)?;
    }
    for Entry { path, kind } in content {
        cancel.check()?;
        let to = dir.join(path);
        if !is_inside(path) {
            return Err(Error::new(format!("the other server has sent a wrong path, \"{}\"", path.display())));
        }
        match kind {
            Kind::Directory(_) if to.is_dir() => {}
            Kind::Directory(mode) => {
                let made = DirBuilder::new().mode(*mode | 0o700).create(&to);
                made.map_err(|cause| Error::io("create directory", &to, cause))?;
            }
            Kind::Link(inside) if is_inside(inside) => {
                files::remove(&to)?;
                let made = symlink(dir.join(inside), &to);
                made.map_err(|cause| Error::io("create symbolic link", &to, cause))?;
            }
            Kind::Link(outside) => {
                let what = format!("\"{}\" of the backup is a link to \"{}\"", path.display(), outside.display());
                return Err(Error::new(what));
            }
            Kind::File(_, bytes)
                if to.symlink_metadata().is_ok_and(|there| there.is_file() && there.len() == *bytes) => {}
            Kind::File(mode, bytes) => {
                files::remove(&to)?;
                let created = OpenOptions::new().write(true).create_new(true).mode(*mode & 0o700 | 0o600).open(&to);
                let mut file = created.map_err(|cause| Error::io("create file", &to, cause))?;
                fetch(path, *bytes, &mut file)?;
            }
        }
    }
    let full = catalog.full_of(backup)?.map(|full| catalog.dir(full));
    if let Err(damaged) = verify(place, &dir, full.as_deref(), cancel) {
        cancel.check()?;
        files::remove(&dir)?;
        return Err(damaged);
    }
    let opened = File::open(&dir).map_err(|cause| Error::io("open directory", &dir, cause))?;
    let synchronized = rustix::fs::syncfs(&opened).map_err(std::io::Error::from);
    synchronized.map_err(|cause| Error::io("synchronize the file system of", &dir, cause))?;
    catalog.describe(backup)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_the_backup_are_read() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("20261130T121500Z");
        std::fs::create_dir_all(dir.join("data/base")).unwrap();
        std::fs::create_dir_all(dir.join("tablespaces/1")).unwrap();
        std::fs::create_dir_all(dir.join("data/pg_tblspc")).unwrap();
        std::fs::write(dir.join("data/base/1"), "one").unwrap();
        std::fs::write(dir.join("backup.json"), "{}").unwrap();
        std::fs::write(root.path().join("secret"), "secret").unwrap();
        symlink(dir.join("tablespaces/1"), dir.join("data/pg_tblspc/1")).unwrap();
        symlink(root.path(), dir.join("data/out")).unwrap();
        let found = entries(&dir).unwrap();
        let kind =
            |path: &str| found.iter().find(|entry| entry.path == Path::new(path)).map(|entry| entry.kind.clone());
        assert!(matches!(kind("data/base/1"), Some(Kind::File(_, 3))));
        assert_eq!(kind("data/pg_tblspc/1"), Some(Kind::Link("tablespaces/1".into())));
        assert_eq!((kind("data/out"), kind("backup.json")), (Some(Kind::Link(root.path().into())), None));
        assert!(open(&dir, Path::new("data/base/1")).is_ok());
        for wrong in ["../secret", "/etc/passwd", "data/out/secret", "data/../../secret", ""] {
            assert!(open(&dir, Path::new(wrong)).is_err(), "{wrong}");
        }
    }
}
