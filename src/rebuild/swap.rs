//! Renames: the new content takes the place of the old, and can be killed between any two of them and done again. All
//! directories are guarded meanwhile. Called by [`super::perform`] and by the recovery.

use super::journal::{Journal, Move};
use super::room;
use crate::error::{Error, Result};
use crate::fsm::types::OldData;
use crate::pg::{control, files};
use rustix::fs::Access;
use std::path::{Path, PathBuf};

const NEW: &str = "rebuild-new";
const OLD: &str = "rebuild-old-";
const UP: &str = "rebuild-up";

/// Where the new data directory is staged.
pub fn staging(data: &Path) -> PathBuf {
    suffixed(data, ".rebuild-new")
}

/// Where the old one is put.
pub fn old(data: &Path, stamp: &str) -> PathBuf {
    suffixed(data, &format!(".old-{stamp}"))
}

/// The old ones that are kept beside it.
pub fn old_data(data: &Path) -> Vec<PathBuf> {
    let begin = suffixed(data, ".old-");
    let begin = begin.file_name().unwrap_or_default().as_encoded_bytes();
    let mut beside = data.parent().map(files::entries).unwrap_or_default();
    beside.retain(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(begin)));
    beside
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(suffix);
    path.with_file_name(name)
}

/// Whether a directory is there with something in it. What the controller itself writes there to look at the disk does not
/// count.
pub fn has_content(dir: &Path) -> Result<bool> {
    match std::fs::read_dir(dir) {
        Ok(entries) => {
            let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
            let names: std::io::Result<Vec<_>> = names.collect();
            let names = names.map_err(|e| Error::io("read directory", dir, e))?;
            Ok(names.iter().any(|name| !name.to_string_lossy().starts_with("pgsql_tmp")))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io("open directory", dir, e)),
    }
}

/// Why a directory cannot be renamed; `None` where it can, or where it is missing and can be made.
pub fn fixed(dir: &Path) -> Option<String> {
    let parent = dir.parent().unwrap_or(Path::new("/"));
    if rustix::fs::access(parent, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        return Some(format!("the directory \"{}\" cannot be written to", parent.display()));
    }
    if room::is_mount_point(dir) {
        return Some(format!("\"{}\" is a mount point", dir.display()));
    }
    room::mounted_in(dir).map(|point| format!("a file system is mounted in it, on \"{}\"", point.display()))
}

/// Whether the file system cannot rename this directory: it is in the lower layer of an overlay file system. Asks by a rename
/// that fails in any case, because there is a directory with the new name that is not empty.
///
/// # Errors
/// The other directory cannot be created or removed.
pub fn is_in_lower_layer(dir: &Path) -> Result<bool> {
    const OVERLAYFS: rustix::fs::FsWord = 0x794c_7630;
    if !rustix::fs::statfs(dir).is_ok_and(|found| found.f_type == OVERLAYFS) {
        return Ok(false);
    }
    let other = suffixed(dir, ".rebuild-test");
    let inside = other.join("not-empty");
    std::fs::create_dir_all(&inside).map_err(|e| Error::io("create directory", &inside, e))?;
    let refused = std::fs::rename(dir, &other).err().map(|e| e.kind());
    files::remove(&other)?;
    Ok(refused == Some(std::io::ErrorKind::CrossesDevices))
}

/// How the content of a directory outside of the data directory is replaced. Beside it, by renaming it whole, where that
/// can be done and nothing else lies in it; else inside of it. `major`: it is a tablespace.
pub fn plan(link: &Path, at: &Path, stamp: &str, major: Option<u32>) -> Result<Move> {
    let alone = !at.exists() || entries(at)?.iter().all(|name| is_ours(name, major));
    let beside = alone && fixed(at).is_none();
    let (staged, old) = if beside {
        (suffixed(at, &format!(".{NEW}")), suffixed(at, &format!(".old-{stamp}")))
    } else {
        (at.join(NEW), at.join(format!("{OLD}{stamp}")))
    };
    Ok(Move { link: link.to_path_buf(), at: at.to_path_buf(), staged, old, was_there: at.exists() })
}

/// The directories that are renamed when the content is replaced.
pub fn renamed(change: &Move, major: u32) -> Result<Vec<PathBuf>> {
    let at = &change.at;
    if !at.exists() || change.staged.parent() != Some(at) {
        return Ok(vec![at.clone()]);
    }
    let ours = entries(at)?.into_iter().filter(|name| is_ours(name, major_of(change, major)));
    Ok(ours.map(|name| at.join(name)).filter(|path| path.is_dir() && !path.is_symlink()).collect())
}

/// Whether the files of an instance of this version lie in a directory, which need not be there.
pub fn has_files_of_an_instance(at: &Path, major: u32) -> Result<bool> {
    let begin = format!("PG_{major}_");
    Ok(at.exists() && entries(at)?.iter().any(|name| name.starts_with(&begin)))
}

/// Whether an entry of a directory outside is the instance's: such a directory may hold more, an archive for one.
fn is_ours(name: &str, major: Option<u32>) -> bool {
    let ours = major.map_or_else(|| is_wal(name), |major| name.starts_with(&format!("PG_{major}_")));
    name.starts_with("pgsql_tmp") || ours
}

/// Whether PostgreSQL gives an entry of `pg_wal` such a name.
fn is_wal(name: &str) -> bool {
    let segment = name.as_bytes().get(..24).is_some_and(|name| name.iter().all(u8::is_ascii_hexdigit));
    let begins = ["xlogtemp.", "RECOVERYXLOG", "RECOVERYHISTORY"].iter().any(|begin| name.starts_with(begin));
    segment || begins || name.ends_with(".history") || matches!(name, "archive_status" | "summaries")
}

fn entries(dir: &Path) -> Result<Vec<String>> {
    let read = std::fs::read_dir(dir).map_err(|e| Error::io("open directory", dir, e))?;
    let names: std::io::Result<Vec<_>> = read.map(|entry| entry.map(|entry| entry.file_name())).collect();
    let names = names.map_err(|e| Error::io("read directory", dir, e))?;
    Ok(names.into_iter().map(|name| name.to_string_lossy().into_owned()).collect())
}

fn major_of(change: &Move, major: u32) -> Option<u32> {
    change.link.starts_with("pg_tblspc").then_some(major)
}

/// Removes what is staged.
pub fn unstage(journal: &Journal) -> Result<()> {
    for staged in journal.moves.iter().map(|change| &change.staged).chain([&journal.staging]) {
        files::remove(staged)?;
    }
    Ok(())
}

/// Deletes the content of the data directory, where the operator wants that first: all but `PG_VERSION`, which guards it,
/// and the links to what lies outside, of which the content goes as well.
pub fn empty(data: &Path, moves: &[Move], major: u32) -> Result<()> {
    for change in moves.iter().filter(|change| change.at.exists()) {
        for name in entries(&change.at)?.iter().filter(|name| is_ours(name, major_of(change, major))) {
            files::remove(&change.at.join(name))?;
        }
    }
    let linked = |name: &str| moves.iter().any(|change| change.link.starts_with(name));
    for name in entries(data)?.iter().filter(|name| *name != "PG_VERSION" && !linked(name)) {
        files::remove(&data.join(name))?;
    }
    Ok(())
}

/// Refuses where new content is neither where it was staged nor surely in its place: it was removed, or its filesystem is not
/// mounted. What lies in its place is then the old content.
fn check_staged(journal: &Journal) -> Result<()> {
    let gone = |staged: &Path, at: &Path, old: &Path, was_there: bool| {
        let up = staged.parent() == Some(at) && at.join(UP).exists();
        !(staged.exists() || up || at.exists() && (old.exists() || !was_there))
    };
    let moves = journal.moves.iter().map(|change| (&*change.staged, &*change.at, &*change.old, change.was_there));
    let whole = [(&*journal.staging, &*journal.data, &*journal.old, journal.existed)];
    match moves.chain(whole).find(|(staged, at, old, was_there)| gone(staged, at, old, *was_there)) {
        None => Ok(()),
        Some((staged, ..)) => Err(Error::new(format!("the new copy in \"{}\" is missing", staged.display())).hint(
            "Mount its file system. If the copy was removed, remove the journal, \"rebuild.json\" or \"recover.json\", in the \
             run-time directory, and run the command again to make another copy.",
        )),
    }
}

/// Puts the new content in the place of the old.
pub fn run(journal: &Journal, major: u32) -> Result<()> {
    if journal.swapped {
        return Ok(());
    }
    check_staged(journal)?;
    let Journal { data, staging, .. } = journal;
    let new = if staging.exists() { staging } else { data };
    for change in &journal.moves {
        match change.staged.parent() == Some(&change.at) {
            true => move_inside(change, major_of(change, major))?,
            false => move_beside(&change.staged, &change.at, &change.old)?,
        }
        // Not where the primary has dropped the tablespace meanwhile.
        if new.join(&change.link).is_symlink() {
            files::relink(&new.join(&change.link), &change.at)?;
        }
    }
    move_beside(staging, data, &journal.old)?;
    for change in &journal.moves {
        let link = journal.old.join(&change.link);
        if link.is_symlink() && change.old.exists() {
            files::relink(&link, &change.old)?;
        }
    }
    Ok(())
}

fn move_beside(staged: &Path, at: &Path, old: &Path) -> Result<()> {
    if !staged.exists() {
        return Ok(());
    }
    if at.exists() {
        if old.exists() {
            return Err(Error::new(format!("both \"{}\" and \"{}\" exist", at.display(), old.display()))
                .hint("One of them was created while the rebuild was interrupted: remove it."));
        }
        files::rename(at, old)?;
    }
    files::rename(staged, at)
}

/// The same for the entries of a directory that stays where it is.
fn move_inside(change: &Move, major: Option<u32>) -> Result<()> {
    let up = change.at.join(UP);
    if change.staged.exists() {
        std::fs::create_dir_all(&change.old).map_err(|e| Error::io("create directory", &change.old, e))?;
        for name in entries(&change.at)?.iter().filter(|name| is_ours(name, major)) {
            files::rename(&change.at.join(name), &change.old.join(name))?;
        }
        // From here on what has no other name is the new content.
        files::rename(&change.staged, &up)?;
    }
    if up.exists() {
        for name in entries(&up)? {
            files::rename(&up.join(&name), &change.at.join(&name))?;
        }
        files::remove(&up)?;
    }
    Ok(())
}

/// What becomes of the old content once the new one is in its place.
pub fn settle_old(journal: &Journal, major: u32) -> Result<()> {
    if !journal.existed || journal.old_data == OldData::Delete {
        remove_old(journal)?;
    } else if !journal.ruined && journal.old.exists() {
        control::unguard(&journal.old, major)?;
    }
    Ok(())
}

/// Removes what was replaced: all of it where that was ordered, and else what is empty.
fn remove_old(journal: &Journal) -> Result<()> {
    let ordered = journal.existed && journal.old_data == OldData::Delete;
    for old in journal.moves.iter().map(|change| &change.old).chain([&journal.old]) {
        if ordered || !has_content(old)? {
            files::remove(old)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_an_instances() {
        for name in
            ["000000010000000000000003", "00000002.history", "000000010000000000000003.partial", "archive_status"]
        {
            assert!(is_ours(name, None), "{name}");
        }
        for name in ["archive", "lost+found", "rebuild-new", "rebuild-up", "rebuild-old-x", "PG_15_202209061"] {
            assert!(!is_ours(name, None), "{name}");
        }
        assert!(is_ours("PG_15_202209061", Some(15)) && !is_ours("PG_16_202307071", Some(15)));
    }
}
