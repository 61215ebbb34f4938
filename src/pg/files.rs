//! Durable changes of small files: replace-and-rename with fsync of the file and its directory. Each call may hang on a
//! dying disk; the runner makes them on threads that it can abandon. One edit at a time in the whole process, so that
//! one that was abandoned never overtakes a later one.

use crate::error::{Error, Result};
use rustix::fs::{Access, Mode};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// The longest file that is edited, in bytes.
const MAX_LENGTH: u64 = 16 << 20;

/// How long an edit waits for the one before it. Waiting without a limit would let an abandoned edit come last.
const TURN: Duration = Duration::from_millis(500);

static ONE_EDIT: Mutex<()> = Mutex::new(());

/// The file that the edit under way replaces, and its new text.
static UNDER_WAY: Mutex<Option<(PathBuf, Vec<u8>)>> = Mutex::new(None);

fn under_way() -> MutexGuard<'static, Option<(PathBuf, Vec<u8>)>> {
    UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The text that the edit under way writes to this file, maybe long after its caller has given it up.
pub fn pending(path: &Path) -> Option<Vec<u8>> {
    let target = std::fs::canonicalize(path).ok()?;
    under_way().as_ref().filter(|(file, _)| *file == target).map(|(_, text)| text.clone())
}

fn turn() -> Option<MutexGuard<'static, ()>> {
    let end = Instant::now() + TURN;
    loop {
        match ONE_EDIT.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(guard)) => return Some(guard.into_inner()),
            Err(TryLockError::WouldBlock) if Instant::now() < end => std::thread::sleep(Duration::from_millis(2)),
            Err(TryLockError::WouldBlock) => return None,
        }
    }
}

/// Edits a file in place: reads it, and where `edit` changes it, replaces it by rename. Mode and owner stay, a symbolic
/// link stays a link. On return the file and its directory entry are durable, changed or not. Returns whether it changed.
pub fn edit(path: &Path, edit: impl Fn(&[u8]) -> Result<Vec<u8>>) -> Result<bool> {
    edit_if(path, || true, edit)
}

/// The same, unless `wanted` returns false once [`pending`] returns the new text: then the file stays as it is.
pub fn edit_if(
    path: &Path,
    wanted: impl FnOnce() -> bool,
    edit: impl FnOnce(&[u8]) -> Result<Vec<u8>>,
) -> Result<bool> {
    edit_by(path, wanted, edit, |target, _, new, old| replace_writable(target, new, old))
}

/// The same without a new file, and so on a full file system too: `edit` changes single bytes and no length. Each byte is
/// written by itself, the last one first.
pub fn overwrite_if(
    path: &Path,
    wanted: impl FnOnce() -> bool,
    edit: impl FnOnce(&[u8]) -> Result<Vec<u8>>,
) -> Result<bool> {
    edit_by(path, wanted, edit, |target, text, new, _| {
        let failed = |e: std::io::Error| Error::io("write file", target, e);
        let file = OpenOptions::new().write(true).open(target).map_err(failed)?;
        for at in (0..new.len()).rev().filter(|at| text.get(*at) != new.get(*at)) {
            file.write_all_at(&new[at..=at], at as u64).map_err(failed)?;
        }
        sync_unchanged(&file, target)
    })
}

fn edit_by(
    path: &Path,
    wanted: impl FnOnce() -> bool,
    edit: impl FnOnce(&[u8]) -> Result<Vec<u8>>,
    put: impl FnOnce(&Path, &[u8], &[u8], &std::fs::Metadata) -> Result<()>,
) -> Result<bool> {
    let _one = turn().ok_or_else(|| {
        Error::new(format!("could not edit file \"{}\": an earlier edit hangs", path.display()))
            .hint("The disk does not respond.")
    })?;
    let target = std::fs::canonicalize(path).map_err(|e| Error::io("open file", path, e))?;
    let mut file = File::open(&target).map_err(|e| Error::io("open file", &target, e))?;
    let old = file.metadata().map_err(|e| Error::io("stat file", &target, e))?;
    let mut text = Vec::new();
    (&mut file).take(MAX_LENGTH + 1).read_to_end(&mut text).map_err(|e| Error::io("read file", &target, e))?;
    if text.len() as u64 > MAX_LENGTH {
        return Err(Error::io("edit file", &target, "it is larger than 16 MiB"));
    }
    let new = edit(&text)?;
    *under_way() = Some((target.clone(), new.clone()));
    let changed = wanted() && new != text;
    let done = if changed { put(&target, &text, &new, &old) } else { sync_unchanged(&file, &target) };
    *under_way() = None;
    done.map(|()| changed)
}

fn sync_unchanged(file: &File, target: &Path) -> Result<()> {
    file.sync_all().map_err(|e| Error::io("fsync file", target, e))?;
    sync_parent(target)
}

fn replace_writable(target: &Path, new: &[u8], old: &std::fs::Metadata) -> Result<()> {
    rustix::fs::access(target, Access::WRITE_OK).map_err(|e| {
        Error::io("write file", target, std::io::Error::from(e))
            .hint("The file must be writable by the instance administrator user.")
    })?;
    replace(target, new, Some(old))
}

/// Writes a file whole: a new one beside it, fsync, rename, fsync of the directory. With `old`, the new file gets that
/// file's mode and owner; else its mode is 0600.
pub fn replace(target: &Path, text: &[u8], old: Option<&std::fs::Metadata>) -> Result<()> {
    put_new(target, |new| write_new(new, text, 0o600, old))
}

/// The same for a file with this mode.
pub fn create(target: &Path, text: &[u8], mode: u32) -> Result<()> {
    put_new(target, |new| write_new(new, text, mode, None))
}

/// Writes a short text over that of a file, durably and within its blocks, so that this succeeds on a full file system. A crash
/// can leave the begin of the new text followed by the end of the old one.
pub fn write_over(target: &Path, text: &[u8]) -> Result<()> {
    let failed = |e: std::io::Error| Error::io("write file", target, e);
    let file = OpenOptions::new().write(true).open(target).map_err(failed)?;
    file.write_all_at(text, 0).map_err(failed)?;
    file.set_len(text.len() as u64).map_err(failed)?;
    sync_unchanged(&file, target)
}

/// Whether the file system has no space for a file with this text beside that file.
pub fn lacks_space(target: &Path, text: &[u8]) -> bool {
    let new = beside(target);
    let written = File::create(&new).and_then(|mut file| file.write_all(text).and_then(|()| file.sync_all()));
    // Best effort: the next edit of the file removes it.
    let _ = std::fs::remove_file(&new);
    written.is_err_and(|e| matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
}

fn put_new(target: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let new = beside(target);
    let written = write(&new);
    let renamed = written.and_then(|()| {
        std::fs::rename(&new, target).map_err(|e| {
            Error::new(format!("could not rename file \"{}\" to \"{}\": {e}", new.display(), target.display()))
        })
    });
    if renamed.is_err() {
        // Best effort: the error that is reported is the first one.
        let _ = std::fs::remove_file(&new);
    }
    renamed?;
    sync_parent(target)
}

fn write_new(new: &Path, text: &[u8], mode: u32, old: Option<&std::fs::Metadata>) -> Result<()> {
    let _ = std::fs::remove_file(new);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(new).map_err(|e| Error::io("create file", new, e))?;
    file.write_all(text).map_err(|e| Error::io("write file", new, e))?;
    match old {
        Some(old) => keep_owner(&file, new, old)?,
        None => set_mode(&file, new, mode)?,
    }
    file.sync_all().map_err(|e| Error::io("fsync file", new, e))
}

fn keep_owner(file: &File, new: &Path, old: &std::fs::Metadata) -> Result<()> {
    let now = file.metadata().map_err(|e| Error::io("stat file", new, e))?;
    if (now.uid(), now.gid()) != (old.uid(), old.gid()) {
        let (uid, gid) = (rustix::process::Uid::from_raw(old.uid()), rustix::process::Gid::from_raw(old.gid()));
        let uid = (now.uid() != old.uid()).then_some(uid);
        rustix::fs::fchown(file, uid, Some(gid)).map_err(|e| {
            Error::io("keep the owner of file", new, std::io::Error::from(e))
                .hint("The configuration file must belong to the instance administrator user.")
        })?;
    }
    set_mode(file, new, old.mode() & 0o7777)
}

fn set_mode(file: &File, new: &Path, mode: u32) -> Result<()> {
    rustix::fs::fchmod(file, Mode::from_raw_mode(mode))
        .map_err(|e| Error::io("set the mode of file", new, std::io::Error::from(e)))
}

/// Makes sure that an empty file is there, durably.
pub fn touch(path: &Path) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path).map_err(|e| Error::io("create file", path, e))?;
    file.sync_all().map_err(|e| Error::io("fsync file", path, e))?;
    sync_parent(path)
}

/// What is in a directory, in the order of the names' bytes; nothing where it cannot be read.
pub fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
    found.sort();
    found
}

/// Whether two files or directories are on one file system. What is still to be made will be on that of its directory.
pub fn same_filesystem(one: &Path, other: &Path) -> bool {
    let device = |path: &Path| path.ancestors().find_map(|path| rustix::fs::stat(path).ok()).map(|stat| stat.st_dev);
    device(one).is_some_and(|own| Some(own) == device(other))
}

/// Makes a directory entry durable.
pub fn sync_parent(path: &Path) -> Result<()> {
    sync_dir(path.parent().unwrap_or(Path::new("/")))
}

/// Makes the entries of a directory durable.
pub fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| Error::io("fsync directory", dir, e))
}

/// Renames a file or directory, durably. Nothing may be at its new name but an empty directory.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(|e| {
        let (from, to) = (from.display(), to.display());
        let error = Error::new(format!("could not rename \"{from}\" to \"{to}\": {e}"));
        match e.kind() {
            // Of a directory in the lower layer of an overlay file system.
            ErrorKind::CrossesDevices => error.hint(format!(
                "The file system cannot rename this directory. Run \"mv {from} {to}\", which copies it, then run the command again."
            )),
            _ => error,
        }
    })?;
    sync_parent(to)?;
    if from.parent() == to.parent() { Ok(()) } else { sync_parent(from) }
}

/// Removes a file, a symbolic link (not what it points to), or a directory with all that is in it, durably. Nothing need be
/// there.
pub fn remove(path: &Path) -> Result<()> {
    let missing = |e: &std::io::Error| e.kind() == ErrorKind::NotFound;
    let removed = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Ok(()) => sync_parent(path),
        Err(e) if missing(&e) => Ok(()),
        Err(e) => Err(Error::io("remove", path, e)),
    }
}

/// Lets a symbolic link point to `target`, durably, in one step.
pub fn relink(link: &Path, target: &Path) -> Result<()> {
    let new = beside(link);
    let _ = std::fs::remove_file(&new);
    std::os::unix::fs::symlink(target, &new).map_err(|e| Error::io("create symbolic link", &new, e))?;
    rename(&new, link)
}

/// The name of the new file while it is written. It does not end in `.conf`, so that no `include_dir` reads it.
fn beside(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_os_string();
    name.push(".mc_new");
    target.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn shout(text: &[u8]) -> Result<Vec<u8>> {
        Ok(text.to_ascii_uppercase())
    }

    /// One test: edits exclude each other in the whole process.
    #[test]
    fn edits_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        std::fs::write(&real, "abc").unwrap();
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o640)).unwrap();
        symlink("real", &link).unwrap();
        assert_eq!(edit(&link, shout), Ok(true));
        assert_eq!(edit(&link, shout), Ok(false));
        assert_eq!(std::fs::read(&real).unwrap(), b"ABC");
        assert!(link.is_symlink());
        assert_eq!(real.metadata().unwrap().mode() & 0o7777, 0o640);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);

        let inode = real.metadata().unwrap().ino();
        assert_eq!(overwrite_if(&link, || true, |_| Ok(b"AXY".to_vec())), Ok(true));
        assert_eq!(overwrite_if(&link, || false, |_| Ok(b"ABC".to_vec())), Ok(false));
        assert_eq!((std::fs::read(&real).unwrap(), real.metadata().unwrap().ino()), (b"AXY".to_vec(), inode));

        let error = edit(&dir.path().join("none"), shout).unwrap_err();
        assert!(error.message.starts_with("could not open file"), "{error}");

        touch(&dir.path().join("signal")).unwrap();
        assert_eq!(std::fs::read(dir.path().join("signal")).unwrap(), b"");
        let _held = ONE_EDIT.lock().unwrap();
        assert!(edit(&real, shout).unwrap_err().message.contains("an earlier edit hangs"));
    }
}
