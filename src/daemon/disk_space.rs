//! Measures the free space of a directory for the disk probe: how much is left, how fast it shrinks, and what uses it.
//!
//! It decides nothing. The disk probe calls it on the thread of the directory, since any of these calls may hang.
//!
//! A directory is full if an unprivileged user cannot write there what PostgreSQL writes next (a WAL segment in `pg_wal`, else
//! [`NEEDED`]), or if the probe's own write failed for that reason. It is nearly full if less than 5 percent of the file system
//! and less than 10 GiB are free, if less than twice what the next write needs is free, or if at most twice as much as that is
//! free and the file system will be full within an hour at the rate of the last minutes.

use super::{disk_probe, reserve, spawn};
use crate::error::Result;
use crate::fsm::types::Lsn;
use crate::messages::{self, Tell};
use crate::pg::{conf, slots};
use crate::rebuild::{human, mount_point, old_data};
use crate::shared::Shared;
use crate::status::{Directory, Level, Space};
use std::collections::VecDeque;
use std::fs::{self, DirEntry};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The space that a write to a directory other than `pg_wal` needs, bytes: PostgreSQL extends a file by up to 512 kB at once.
const NEEDED: u64 = 1 << 20;

/// The size of a WAL segment unless `pg_wal` shows another one, bytes.
const SEGMENT: u64 = 16 << 20;

/// Free space that is enough on a file system of any size, bytes.
const PLENTY: u64 = 10 << 30;

/// The time over which the rate is measured: at least, at most, and between two samples.
const RATE_LEAST: Duration = Duration::from_secs(120);
const RATE_MOST: Duration = Duration::from_secs(600);
const RATE_STEP: Duration = Duration::from_secs(5);

/// Full within this time at the present rate: nearly full.
const SOON_SECONDS: u64 = 3600;

/// The time between two looks at the directory of an arbiter.
const INTERVAL: Duration = Duration::from_secs(1);

/// The time between two looks at the consumers.
const CONSUMERS: Duration = Duration::from_secs(10);

/// What the disk probe has found last, for `mc_ctl status`.
pub type Board = Shared<Vec<Space>>;

/// Measures the directory of an arbiter on a thread of its own, as long as the process lives.
///
/// # Errors
/// The thread cannot be started.
pub fn watch(directory: PathBuf, board: Board) -> Result<()> {
    spawn("disk", move || {
        let mut gauge = Gauge::new(Directory::Management, None);
        let file = directory.join(disk_probe::file_name(&directory));
        let mut before = Level::Normal;
        loop {
            let refused = disk_probe::try_write(&file).as_ref().is_err_and(disk_probe::is_full);
            let found = gauge.look(&directory, refused);
            if let Some(space) = &found {
                tell(std::mem::replace(&mut before, space.state), space);
            }
            board.write(found.into_iter().collect());
            std::thread::sleep(INTERVAL);
        }
    })?;
    Ok(())
}

/// Logs that a directory has become full, or nearly full, or that it has free space again.
pub fn tell(before: Level, space: &Space) {
    let (path, place) = (space.path.clone(), space.directory.to_string());
    match (before, space.state) {
        (before, now) if before == now => {}
        (_, Level::Full) => messages::tell(&Tell::Full { what: space.sentence() }),
        (Level::Full, _) => messages::tell(&Tell::NotFull { path, place }),
        (_, Level::NearlyFull) => messages::tell(&Tell::NearlyFull { what: space.sentence() }),
        (_, Level::Normal) => messages::tell(&Tell::EnoughSpace { path, place }),
    }
}

/// Measures one directory.
pub struct Gauge {
    directory: Directory,
    data: Option<PathBuf>,
    /// When, and how much was free.
    samples: VecDeque<(Instant, u64)>,
    level: Level,
    /// When the consumers were looked for, and what was found.
    consumers: Option<(Instant, String)>,
    segment: Option<u64>,
}

impl Gauge {
    /// Of `directory`, of the instance in `data`; an arbiter has none.
    pub fn new(directory: Directory, data: Option<PathBuf>) -> Gauge {
        Gauge { directory, data, samples: VecDeque::new(), level: Level::Normal, consumers: None, segment: None }
    }

    /// Looks at `path`; `None` if the system does not report its space. `refused`: a write there failed for lack of space.
    pub fn look(&mut self, path: &Path, refused: bool) -> Option<Space> {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let found = rustix::fs::statvfs(&path).ok()?;
        let size = found.f_blocks.saturating_mul(found.f_frsize);
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        // A file system that does not count its blocks reports zeroes.
        if size == 0 {
            return None;
        }
        let is_wal = self.directory == Directory::TranLog;
        if is_wal && self.segment.is_none() {
            self.segment = segments(&path).first().map(|(_, entry)| entry.metadata().map_or(SEGMENT, |m| m.len()));
        }
        let needed = if is_wal { self.segment.unwrap_or(SEGMENT) } else { NEEDED };
        let seconds_left = self.seconds_left(Instant::now(), free.saturating_sub(needed), free);
        self.level = level(Measured { size, free, needed, seconds_left, refused }, self.level);
        let wal = if is_wal && self.level == Level::Full { segments(&path) } else { Vec::new() };
        let last = wal.iter().map(|(number, _)| number.saturating_add(1).saturating_mul(needed)).max();
        Some(Space {
            directory: self.directory.clone(),
            mount_point: mount_point(&path).display().to_string(),
            consumers: self.consumers(&path),
            path: path.display().to_string(),
            size_bytes: size,
            free_bytes: free,
            state: self.level,
            seconds_left,
            wal_end: last.map(Lsn),
            needed_bytes: needed,
            reserve_bytes: match self.directory {
                Directory::Management => fs::metadata(path.join(reserve::NAME)).ok().map(|found| found.len()),
                _ => None,
            },
        })
    }

    /// How many seconds until `left` bytes are used, at the rate of the last minutes.
    fn seconds_left(&mut self, now: Instant, left: u64, free: u64) -> Option<u64> {
        if self.samples.back().is_none_or(|(at, _)| now.duration_since(*at) >= RATE_STEP) {
            self.samples.push_back((now, free));
        }
        while self.samples.front().is_some_and(|(at, _)| now.duration_since(*at) > RATE_MOST) {
            self.samples.pop_front();
        }
        let (began, before) = self.samples.front()?;
        let time = now.duration_since(*began);
        let used = before.saturating_sub(free);
        if time < RATE_LEAST || used == 0 {
            return None;
        }
        Some((u128::from(left) * u128::from(time.as_secs()) / u128::from(used)).try_into().unwrap_or(u64::MAX))
    }

    /// What uses the file system, as far as it belongs to the instance or the controller.
    fn consumers(&mut self, path: &Path) -> String {
        if self.level == Level::Normal {
            self.consumers = None;
            return String::new();
        }
        if self.consumers.as_ref().is_none_or(|(at, _)| at.elapsed() >= CONSUMERS) {
            self.consumers = Some((Instant::now(), consumers(path, self.data.as_deref(), &self.directory)));
        }
        self.consumers.as_ref().map(|(_, found)| found.clone()).unwrap_or_default()
    }
}

/// The measurements of a file system.
#[derive(Clone, Copy)]
struct Measured {
    size: u64,
    free: u64,
    needed: u64,
    seconds_left: Option<u64>,
    refused: bool,
}

/// The rule. What was not normal needs a quarter more to be normal again, so that it does not change at each look.
fn level(of: Measured, before: Level) -> Level {
    let Measured { size, free, needed, seconds_left, refused } = of;
    if refused || free < needed {
        return Level::Full;
    }
    let limit = (size / 20).min(PLENTY).max(needed.saturating_mul(2));
    let limit = if before == Level::Normal { limit } else { limit / 4 * 5 };
    let soon = seconds_left.is_some_and(|seconds| seconds < SOON_SECONDS) && free < limit.saturating_mul(2);
    if free < limit || soon { Level::NearlyFull } else { Level::Normal }
}

/// The WAL segment files in a directory, with their numbers.
fn segments(wal: &Path) -> Vec<(u64, DirEntry)> {
    let mut found: Vec<(String, DirEntry)> = entries(wal)
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry))
        .filter(|(name, _)| name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .collect();
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    let size = found.first().and_then(|(_, entry)| entry.metadata().ok()).map_or(SEGMENT, |m| m.len()).max(1);
    let in_a_file = ((1_u64 << 32) / size).max(1);
    let number = |name: &str| {
        let part = |at: usize| u64::from_str_radix(name.get(at..at + 8).unwrap_or_default(), 16).unwrap_or(0);
        part(8).saturating_mul(in_a_file).saturating_add(part(16))
    };
    found.into_iter().map(|(name, entry)| (number(&name), entry)).collect()
}

fn entries(directory: &Path) -> impl Iterator<Item = DirEntry> {
    fs::read_dir(directory).into_iter().flatten().flatten()
}

/// The bytes that the files of a directory take, and those of the directories in it.
fn used(directory: &Path, depth: u32) -> u64 {
    let of = |entry: DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() && depth > 0 => used(&entry.path(), depth - 1),
        Ok(found) if found.is_file() => found.blocks().saturating_mul(512),
        _ => 0,
    };
    entries(directory).map(of).fold(0, u64::saturating_add)
}

fn consumers(path: &Path, data: Option<&Path>, directory: &Directory) -> String {
    let device = |path: &Path| fs::metadata(path).ok().map(|found| found.dev());
    let here = |other: &Path| device(other).is_some() && device(other) == device(path);
    let mut found: Vec<(u64, String)> = Vec::new();
    if *directory == Directory::Management {
        let used = used(path, 3);
        found.push((used, format!("the management directory uses {}", human(used))));
    }
    if let Some(data) = data {
        of_instance(data, here, &mut found);
    }
    found.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    found.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("; ")
}

/// What an instance uses of the file system that `here` recognises.
fn of_instance(data: &Path, here: impl Fn(&Path) -> bool, found: &mut Vec<(u64, String)>) {
    let wal = data.join("pg_wal");
    if here(&wal) {
        found.push(of_wal(&wal, data));
    }
    found.extend(kept(data, &here).map(|text| (u64::MAX, text)));
    let log = conf::effective("log_directory", &data.join("postgresql.conf"), data).unwrap_or_else(|| "log".into());
    for (what, place) in [
        (format!("log directory \"{log}\""), data.join(&log)),
        ("temporary files in base/pgsql_tmp".into(), data.join("base/pgsql_tmp")),
    ] {
        let bytes = if here(&place) { used(&place, 0) } else { 0 };
        if bytes > 0 {
            found.push((bytes, format!("{what}: {}", human(bytes))));
        }
    }
}

/// The data directories that rebuilds have kept beside this one. Their sizes are not known without reading all of them.
fn kept(data: &Path, here: impl Fn(&Path) -> bool) -> Option<String> {
    let found: Vec<_> = old_data(data).into_iter().filter(|path| here(path)).collect();
    let shown: Vec<String> = found.iter().take(3).map(|path| format!("\"{}\"", path.display())).collect();
    let more = found.len().checked_sub(4).map(|more| format!(" and {} more", more + 1)).unwrap_or_default();
    let text =
        format!("data directories that rebuilds have kept: {}{more} (remove them if not needed)", shown.join(", "));
    (!found.is_empty()).then_some(text)
}

/// `pg_wal`, and what keeps it from being smaller.
fn of_wal(wal: &Path, data: &Path) -> (u64, String) {
    let segments = segments(wal);
    let bytes = used(wal, 1);
    let mut text = format!("pg_wal: {} in {} WAL segments", human(bytes), segments.len());
    let size = segments.first().and_then(|(_, entry)| entry.metadata().ok()).map_or(SEGMENT, |m| m.len()).max(1);
    for (name, from) in slots::restart_positions(data) {
        let kept = segments.iter().filter(|(number, _)| *number >= from.0 / size).count();
        text += &format!(", replication slot \"{name}\" retains WAL from {from} ({kept} segments)");
    }
    let ready = entries(&wal.join("archive_status"))
        .filter(|entry| entry.file_name().as_encoded_bytes().ends_with(b".ready"))
        .count();
    if ready > 0 {
        text += &format!(", {ready} WAL files are not archived yet");
    }
    (bytes, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_follows_the_rule() {
        const MIB: u64 = 1 << 20;
        let of = |size, free| Measured {
            size: size * MIB,
            free: free * MIB,
            needed: MIB,
            seconds_left: None,
            refused: false,
        };
        assert_eq!(level(of(1000, 60), Level::Normal), Level::Normal);
        assert_eq!(level(of(1000, 49), Level::Normal), Level::NearlyFull);
        assert_eq!(level(of(1000, 60), Level::NearlyFull), Level::NearlyFull, "a quarter more is needed");
        assert_eq!(level(of(1000, 63), Level::Full), Level::Normal);
        assert_eq!(level(of(1000, 0), Level::Normal), Level::Full);
        assert_eq!(level(Measured { refused: true, ..of(1000, 500) }, Level::Normal), Level::Full);
        let soon = Measured { seconds_left: Some(3599), ..of(1000, 99) };
        assert_eq!(level(soon, Level::Normal), Level::NearlyFull);
        assert_eq!(level(Measured { free: 101 * MIB, ..soon }, Level::Normal), Level::Normal);
        // 5 percent of a large file system is plenty.
        assert_eq!(level(of(1 << 24, 11 << 10), Level::Normal), Level::Normal);
        let wal = Measured { needed: 16 * MIB, ..of(64, 31) };
        assert_eq!(level(wal, Level::Normal), Level::NearlyFull);
        assert_eq!(level(Measured { free: 15 * MIB, ..wal }, Level::Normal), Level::Full);
    }

    #[test]
    fn the_rate_is_measured_over_minutes() {
        let mut gauge = Gauge::new(Directory::Data, None);
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(gauge.seconds_left(at(0), 1000, 1000), None);
        assert_eq!(gauge.seconds_left(at(60), 900, 900), None, "too short");
        assert_eq!(gauge.seconds_left(at(200), 800, 800), Some(800));
        assert_eq!(gauge.seconds_left(at(300), 1000, 1000), None, "it does not shrink");
        // The oldest samples are forgotten.
        assert_eq!(gauge.seconds_left(at(790), 500, 500), Some(500 * 590 / 300));
    }

    #[test]
    fn kept_data_directories_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let text = |name: &str| {
            fs::create_dir(dir.path().join(name)).unwrap();
            consumers(&data, Some(&data), &Directory::Data)
        };
        assert_eq!(text("data"), text("data2.old-1"));
        let first = dir.path().join("data.old-1").display().to_string();
        let shown = text("data.old-1");
        assert!(
            shown.starts_with(&format!("data directories that rebuilds have kept: \"{first}\" (remove")),
            "{shown}"
        );
        ["data.old-2", "data.old-3", "data.old-4"].iter().for_each(|name| drop(text(name)));
        assert!(text("data.old-5").contains("data.old-3\" and 2 more (remove"));
    }

    #[test]
    fn segments_are_numbered_over_all_timelines() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["000000010000000000000003", "000000020000000100000000", "00000002.history", "xlogtemp.1"] {
            let file = fs::File::create(dir.path().join(name)).unwrap();
            file.set_len(SEGMENT).unwrap();
        }
        let numbers: Vec<u64> = segments(dir.path()).into_iter().map(|(number, _)| number).collect();
        assert_eq!(numbers, [3, 256]);
    }
}
