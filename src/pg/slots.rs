//! Replication slots of an instance that is down, read from `pg_replslot`.
//!
//! A server that becomes a standby keeps the slots of its time as the primary. No client advances them there, so they keep
//! WAL until the disk is full. They are removed before the server starts as a standby. PostgreSQL restores its slots from
//! `pg_replslot/NAME/state` when it starts, so a slot whose directory is gone is gone. Called by the runner, and by a rebuild
//! that copies: PostgreSQL's programs copy no slots, and `pg_rewind` removes those of its target without a message.
//!
//! The layout of the `state` file is `ReplicationSlotOnDisk` in `src/backend/replication/slot.c` of PostgreSQL. The fields
//! up to `restart_lsn` are the same in versions 12 to 18; `synced` exists since version 17.

use super::{Place, files, process};
use crate::error::{Error, Result};
use crate::fsm::event::ControlState;
use crate::fsm::types::Lsn;
use std::path::{Path, PathBuf};

const MAGIC: u32 = 0x0105_1CA1;

/// The versions of the file whose layout is known: those of PostgreSQL 12 to 18.
const VERSIONS: std::ops::RangeInclusive<u32> = 2..=5;

/// The version that has `synced`, and the length of its data.
const WITH_SYNCED: (u32, u32) = (5, 184);

/// Where the data begins in the file, and where its fields are in the data.
const DATA: usize = 16;
const PERSISTENCY: usize = 68;
const RESTART_LSN: usize = 80;
const SYNCED: usize = 177;

/// What is done with a slot of a server that becomes a standby.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Slot {
    /// A slot of the server's time as the primary, and the oldest WAL that it keeps, if it keeps any.
    Leftover(Option<Lsn>),
    /// It stays: PostgreSQL maintains it on a standby (`synced`), or removes it by itself (not persistent).
    Stays,
}

/// A slot that was removed, and how many bytes of WAL it kept; `None` where it kept none, or that is not known.
pub type Removed = (String, Option<u64>);

/// Whether this directory starts as a standby and ran as a primary the last time. The slots that a user has made on a
/// standby are in a directory that ran as a standby; they stay.
pub fn becomes_standby(standby_signal: bool, state: ControlState) -> bool {
    standby_signal && !matches!(state, ControlState::ShutDownInRecovery | ControlState::InArchiveRecovery)
}

/// Removes the slots of the server's time as the primary. `end` is the end of its WAL, as far as it is known. Calls
/// `report` for each slot that is removed, or could not be.
///
/// # Errors
/// The directory of the slots cannot be read, or a process of the instance runs.
pub fn remove_leftovers(place: &Place, end: Lsn, mut report: impl FnMut(Result<Removed>)) -> Result<()> {
    for (path, slot) in leftovers(place, end)? {
        match slot {
            Ok(_) if !process::scan(&place.data)?.is_empty() => {
                return Err(Error::new("could not remove replication slots: the instance is running"));
            }
            Ok(slot) => report(remove(&path).map(|()| slot)),
            Err(error) => report(Err(error)),
        }
    }
    Ok(())
}

/// The slots that PostgreSQL neither maintains on a standby nor removes by itself, with their directories. `end` is as for
/// [`remove_leftovers`].
///
/// # Errors
/// The directory of the slots cannot be read.
pub fn leftovers(place: &Place, end: Lsn) -> Result<Vec<(PathBuf, Result<Removed>)>> {
    let home = place.data.join("pg_replslot");
    let entries = std::fs::read_dir(&home).map_err(|cause| Error::io("open directory", &home, cause))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|cause| Error::io("read directory", &home, cause))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // PostgreSQL itself removes the directories of this name when it starts.
        let is_directory = path.symlink_metadata().is_ok_and(|found| found.is_dir());
        if !is_directory || name.ends_with(".tmp") {
            continue;
        }
        let slot = match read(&path.join("state"), place.major) {
            Ok(Slot::Stays) => continue,
            Ok(Slot::Leftover(from)) => Ok((name, from.map(|from| end.0.saturating_sub(from.0)))),
            Err(error) => Err(error),
        };
        found.push((path, slot));
    }
    Ok(found)
}

/// The slots that keep WAL, whatever their kind, and the oldest WAL that each keeps; the oldest first. A file that cannot be
/// read is left out.
pub fn restart_positions(data: &Path) -> Vec<(String, Lsn)> {
    let entries = std::fs::read_dir(data.join("pg_replslot")).into_iter().flatten().flatten();
    let of = |entry: std::fs::DirEntry| {
        let bytes = std::fs::read(entry.path().join("state")).ok()?;
        check(&bytes).ok()?;
        Some((entry.file_name().to_string_lossy().into_owned(), restart_lsn(&bytes)?))
    };
    let mut found: Vec<_> = entries.filter_map(of).collect();
    found.sort_by_key(|(_, from)| *from);
    found
}

/// As PostgreSQL does: after the rename the slot is gone, and what is left is removed now or at the next start.
fn remove(slot: &Path) -> Result<()> {
    let mut name = slot.as_os_str().to_owned();
    name.push(".tmp");
    let aside = PathBuf::from(name);
    files::remove(&aside)?;
    files::rename(slot, &aside)?;
    files::remove(&aside)
}

fn read(state: &Path, major: u32) -> Result<Slot> {
    let bytes = std::fs::read(state).map_err(|cause| Error::io("read file", state, cause))?;
    parse(&bytes, major).map_err(|why| {
        Error::new(format!("could not read replication slot file \"{}\": {why}", state.display()))
            .hint("The slot is not removed. Drop it with pg_drop_replication_slot() if no client uses it.")
    })
}

fn number(bytes: &[u8], at: usize) -> std::result::Result<u32, &'static str> {
    let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
    four.map(u32::from_ne_bytes).ok_or("it is too short")
}

/// Whether the file is complete and its format is known; its version and the length of its data.
fn check(bytes: &[u8]) -> std::result::Result<(u32, u32), &'static str> {
    let number = |at| number(bytes, at);
    let (magic, checksum, version, length) = (number(0)?, number(4)?, number(8)?, number(12)?);
    if magic != MAGIC || !VERSIONS.contains(&version) {
        return Err("its format is not known");
    }
    let end = DATA + length as usize;
    if bytes.len() < end || end < DATA + RESTART_LSN + 8 {
        return Err("it is too short");
    }
    if crc32c(&bytes[8..end]) != checksum {
        return Err("its checksum is wrong");
    }
    Ok((version, length))
}

fn restart_lsn(bytes: &[u8]) -> Option<Lsn> {
    let lsn = bytes[DATA + RESTART_LSN..][..8].try_into().map(u64::from_ne_bytes).unwrap_or_default();
    (lsn != 0).then_some(Lsn(lsn))
}

fn parse(bytes: &[u8], major: u32) -> std::result::Result<Slot, &'static str> {
    let (version, length) = check(bytes)?;
    if number(bytes, DATA + PERSISTENCY)? != 0 {
        return Ok(Slot::Stays);
    }
    if major >= 17 {
        if (version, length) != WITH_SYNCED {
            return Err("its format is not known");
        }
        if bytes[DATA + SYNCED] != 0 {
            return Ok(Slot::Stays);
        }
    }
    Ok(Slot::Leftover(restart_lsn(bytes)))
}

/// CRC-32C, as PostgreSQL computes it over its files.
fn crc32c(bytes: &[u8]) -> u32 {
    let bit = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| bit(crc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `state` file.
    fn state(version: u32, length: u32, edit: impl Fn(&mut [u8])) -> Vec<u8> {
        let mut bytes = vec![0; DATA + length as usize];
        bytes[..4].copy_from_slice(&MAGIC.to_ne_bytes());
        bytes[8..12].copy_from_slice(&version.to_ne_bytes());
        bytes[12..16].copy_from_slice(&length.to_ne_bytes());
        bytes[DATA + RESTART_LSN..][..8].copy_from_slice(&0x0300_0028_u64.to_ne_bytes());
        edit(&mut bytes[DATA..]);
        let checksum = crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&checksum.to_ne_bytes());
        bytes
    }

    #[test]
    fn checksum_is_that_of_the_standard() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn states_are_read() {
        let leftover = Ok(Slot::Leftover(Some(Lsn(0x0300_0028))));
        for (major, version, length) in [(12, 2, 168), (15, 3, 184), (16, 3, 184), (17, 5, 184), (18, 5, 184)] {
            let bytes = state(version, length, |_| ());
            assert_eq!(parse(&bytes, major), leftover, "{major}");
            let temporary = state(version, length, |data| data[PERSISTENCY] = 2);
            assert_eq!(parse(&temporary, major), Ok(Slot::Stays), "{major}");
            let unused = state(version, length, |data| data[RESTART_LSN..][..8].fill(0));
            assert_eq!(parse(&unused, major), Ok(Slot::Leftover(None)), "{major}");
            for end in 0..bytes.len() {
                assert!(parse(&bytes[..end], major).is_err(), "{major}, {end}");
            }
        }
        let synced = state(5, 184, |data| data[SYNCED] = 1);
        assert_eq!(parse(&synced, 17), Ok(Slot::Stays));
        assert_eq!(parse(&synced, 18), Ok(Slot::Stays));
        // Where it is not known whether a slot is synchronized, it stays.
        assert!(parse(&state(5, 192, |_| ()), 18).is_err());
        assert!(parse(&state(6, 184, |_| ()), 18).is_err());
        let mut damaged = state(5, 184, |_| ());
        damaged[40] ^= 1;
        assert_eq!(parse(&damaged, 17), Err("its checksum is wrong"));
    }

    #[test]
    fn leftovers_are_removed_and_all_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let slots = dir.path().join("pg_replslot");
        let make = |name: &str, text: &[u8]| {
            std::fs::create_dir_all(slots.join(name)).unwrap();
            std::fs::write(slots.join(name).join("state"), text).unwrap();
        };
        make("old", &state(5, 184, |_| ()));
        make("old.tmp", b"of an earlier removal");
        make("synced", &state(5, 184, |data| data[SYNCED] = 1));
        make("damaged", b"junk");
        std::os::unix::fs::symlink("old", slots.join("link")).unwrap();
        let place = Place {
            data: dir.path().to_owned(),
            config_file: PathBuf::new(),
            bin_dir: PathBuf::new(),
            major: 17,
            log_file: PathBuf::new(),
            startup_log: PathBuf::new(),
        };
        let (mut removed, mut failed) = (Vec::new(), Vec::new());
        let end = Lsn(0x0500_0028);
        remove_leftovers(&place, end, |slot| match slot {
            Ok(slot) => removed.push(slot),
            Err(error) => failed.push(error.message),
        })
        .unwrap();
        assert_eq!(removed, [("old".to_owned(), Some(32 << 20))]);
        assert!(failed.len() == 1 && failed[0].contains("damaged"), "{failed:?}");
        let left: Vec<_> = files::entries(&slots).iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(left, ["damaged", "link", "synced"]);
    }

    #[test]
    fn a_restart_of_a_standby_removes_nothing() {
        for state in [ControlState::ShutDown, ControlState::InProduction, ControlState::Other] {
            assert!(becomes_standby(true, state) && !becomes_standby(false, state));
        }
        for state in [ControlState::ShutDownInRecovery, ControlState::InArchiveRecovery] {
            assert!(!becomes_standby(true, state) && !becomes_standby(false, state));
        }
    }
}
