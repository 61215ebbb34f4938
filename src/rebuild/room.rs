//! Whether there is room: what would be written where, against what is free there.

use super::Room;
use crate::error::{Error, Result};
use crate::pg::bounded::Cancel;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Bytes that are to be written below a path, which need not be there yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Need {
    /// Where.
    pub path: PathBuf,
    /// How many.
    pub bytes: u64,
    /// Bytes that are freed there before.
    pub freed: u64,
    /// More may be needed: how many bytes are written shows only later.
    pub at_least: bool,
}

impl Need {
    /// Nothing is freed.
    pub fn new(path: impl Into<PathBuf>, bytes: u64) -> Need {
        Need { path: path.into(), bytes, freed: 0, at_least: false }
    }

    /// The same if more may be needed.
    pub fn at_least(path: impl Into<PathBuf>, bytes: u64) -> Need {
        Need { at_least: true, ..Need::new(path, bytes) }
    }
}

/// What is needed and free on each filesystem: a tenth more than the bytes, so that it is not full afterwards.
///
/// # Errors
/// A filesystem cannot be asked.
pub fn rooms(needs: &[Need]) -> Result<Vec<Room>> {
    let mut rooms: Vec<(u64, Room)> = Vec::new();
    for need in needs {
        let there = existing(&need.path);
        let device = there.metadata().map_err(|cause| Error::io("stat directory", there, cause))?.dev();
        let bytes = if need.at_least { need.bytes } else { need.bytes.saturating_add(need.bytes / 10) };
        match rooms.iter_mut().find(|(known, _)| *known == device) {
            Some((_, room)) => {
                room.needed = room.needed.saturating_add(bytes);
                room.at_least |= need.at_least;
                room.free = room.free.saturating_add(need.freed);
            }
            None => {
                let stat = rustix::fs::statvfs(there)
                    .map_err(|cause| Error::io("read the free space of", there, std::io::Error::from(cause)))?;
                let free = stat.f_bavail.saturating_mul(stat.f_frsize).saturating_add(need.freed);
                let (path, at_least) = (there.to_owned(), need.at_least);
                rooms.push((device, Room { path, needed: bytes, at_least, free }));
            }
        }
    }
    Ok(rooms.into_iter().map(|(_, room)| room).collect())
}

/// The path, or what is there of it.
pub fn existing(path: &Path) -> &Path {
    path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"))
}

/// Bytes on disk of a directory with all that is in it; symbolic links are not followed. What cannot be read counts as
/// nothing.
///
/// # Errors
/// It was cancelled.
pub fn used(path: &Path, cancel: &Cancel) -> Result<u64> {
    let mut bytes = 0;
    each_file(path, cancel, |_, meta| {
        bytes += meta.blocks() * 512;
        true
    })?;
    Ok(bytes)
}

/// A file below a data directory, its `pg_wal` and its tablespaces that this user cannot write, if there is one; but for
/// these, by their path in the data directory.
///
/// # Errors
/// It was cancelled.
pub fn read_only(data: &Path, but: &BTreeSet<PathBuf>, cancel: &Cancel) -> Result<Option<PathBuf>> {
    let links = std::fs::read_dir(data.join("pg_tblspc")).into_iter().flatten().flatten().map(|entry| entry.path());
    let roots = [data.to_owned(), data.join("pg_wal")].into_iter().chain(links);
    for root in roots {
        let Ok(root) = root.canonicalize() else { continue };
        let mut found = None;
        each_file(&root, cancel, |path, _| {
            let writable = rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
                || path.strip_prefix(data).is_ok_and(|inside| but.contains(inside));
            if !writable {
                found = Some(path.to_owned());
            }
            writable
        })?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn each_file(root: &Path, cancel: &Cancel, mut each: impl FnMut(&Path, &std::fs::Metadata) -> bool) -> Result<()> {
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        cancel.check()?;
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                open.push(entry.path());
            }
            if !meta.is_symlink() && !each(&entry.path(), &meta) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// What lets this user create a data directory in a directory.
pub fn fix_of_parent(parent: &Path, user: &str) -> String {
    match (parent == Path::new("/"), parent.exists()) {
        (true, _) => {
            "move the data directory into a directory that this user can write to, and correct db_instance".into()
        }
        (false, true) => format!("as root: chown {user} \"{}\"", parent.display()),
        (false, false) => format!("as root: install -d -o {user} -m 755 \"{}\"", parent.display()),
    }
}

/// Whether a filesystem is mounted on exactly this directory, so that it cannot be renamed.
pub fn is_mount_point(dir: &Path) -> bool {
    mount_points().iter().any(|point| point == dir)
}

/// Where in this directory a filesystem is mounted: it would not go with it where that is renamed, and come back in the next one.
pub fn mounted_in(dir: &Path) -> Option<PathBuf> {
    mount_points().into_iter().find(|point| point != dir && point.starts_with(dir))
}

/// Where the file system is mounted that contains this path.
pub fn mount_point(path: &Path) -> PathBuf {
    let points = mount_points().into_iter().filter(|point| path.starts_with(point));
    points.max_by_key(|point| point.components().count()).unwrap_or_else(|| PathBuf::from("/"))
}

fn mount_points() -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let unescape = |word: &str| word.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\");
    mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(|point| PathBuf::from(unescape(point))).collect()
}

/// Bytes for people: `512 MB`, `1.5 GB`.
pub fn human(bytes: u64) -> String {
    let units = ["bytes", "kB", "MB", "GB", "TB", "PB"];
    let mut unit = 0;
    let mut value = bytes as f64;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit > 0 && value < 10.0 { format!("{value:.1} {}", units[unit]) } else { format!("{value:.0} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn bytes_for_people() {
        let check = |bytes: u64, expected: &str| assert_eq!(human(bytes), expected);
        check(0, "0 bytes");
        check(1023, "1023 bytes");
        check(1536, "1.5 kB");
        check(512 << 20, "512 MB");
        check(u64::MAX, "16384 PB");
    }

    #[test]
    fn needs_on_one_filesystem_are_one_room() {
        let dir = tempfile::tempdir().unwrap();
        let needs = [Need::new(dir.path().join("a/b"), 1000), Need { freed: 5, ..Need::new(dir.path(), 10) }];
        let rooms = rooms(&needs).unwrap();
        assert_eq!((rooms.len(), rooms[0].needed, rooms[0].path.as_path()), (1, 1111, dir.path()));
        assert!(rooms[0].free > 5);
        assert!(is_mount_point(Path::new("/proc")) && !is_mount_point(dir.path()));
        assert!(mounted_in(Path::new("/")).is_some() && mounted_in(dir.path()).is_none());
    }

    #[test]
    fn walks_do_not_follow_links() {
        let dir = tempfile::tempdir().unwrap();
        let never = Cancel::never();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        std::fs::write(dir.path().join("a/f"), vec![1; 100_000]).unwrap();
        symlink("/usr", dir.path().join("link")).unwrap();
        let bytes = used(dir.path(), &never).unwrap();
        assert!((100_000..200_000).contains(&bytes), "{bytes}");
        let none = BTreeSet::new();
        assert_eq!(read_only(dir.path(), &none, &never), Ok(None));
        std::fs::set_permissions(dir.path().join("a/f"), std::fs::Permissions::from_mode(0o400)).unwrap();
        let expected = (!rustix::process::geteuid().is_root()).then(|| dir.path().join("a/f"));
        assert_eq!(read_only(dir.path(), &none, &never), Ok(expected));
        assert_eq!(read_only(dir.path(), &BTreeSet::from(["a/f".into()]), &never), Ok(None));
    }
}
