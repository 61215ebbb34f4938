//! The WAL that lies in a `pg_wal`: which segments are what their names say, and what is in them, as `pg_waldump` tells it.

use super::program;
use crate::error::{Error, Result};
use crate::fsm::types::{Lsn, SystemId, Timeline};
use crate::pg::bounded::Cancel;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long `pg_waldump` may write nothing: a segment that is read from a slow disk.
const SILENCE: Duration = Duration::from_secs(120);

/// The `pg_wal` of a data directory.
#[derive(Clone, Debug)]
pub struct Wal {
    /// The directory.
    pub dir: PathBuf,
    /// The directory of `pg_waldump`.
    pub bin_dir: PathBuf,
    /// Bytes of a segment.
    pub size: u64,
    /// Whose it is.
    pub system: SystemId,
}

/// A part of the WAL: of one timeline, from here to there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// Timeline.
    pub timeline: Timeline,
    /// Its begin.
    pub from: Lsn,
    /// Its end, where the timeline was left there.
    pub to: Option<Lsn>,
}

/// The record of a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Commit<'a> {
    /// Where it begins.
    pub at: Lsn,
    /// The transaction.
    pub xid: Option<u64>,
    /// When it was committed, such as `2026-11-23 10:00:00.123456 UTC`.
    pub time: &'a str,
}

/// What a segment's file holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Segment {
    /// There is no file, or it contains other WAL than its name gives.
    Missing,
    /// The file does not have the size of a segment.
    Truncated,
    /// The WAL that its name gives.
    Live,
}

/// The name of a segment.
pub fn name(timeline: Timeline, number: u64, size: u64) -> String {
    let per = (1 << 32) / size;
    format!("{:08X}{:08X}{:08X}", timeline.0, number / per, number % per)
}

/// Timeline and number of a segment by its name.
pub fn parse(name: &str, size: u64) -> Option<(Timeline, u64)> {
    if name.len() != 24 || !name.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let part = |at: usize| u64::from_str_radix(name.get(at..at + 8)?, 16).ok();
    let per = (1 << 32) / size;
    Some((Timeline(u32::try_from(part(0)?).ok()?), part(8)? * per + part(16)?))
}

impl Wal {
    /// The number of the segment in which this position lies.
    pub fn number(&self, at: Lsn) -> u64 {
        at.0 / self.size
    }

    /// The file of a segment.
    pub fn file(&self, timeline: Timeline, number: u64) -> PathBuf {
        self.dir.join(name(timeline, number, self.size))
    }

    /// Whether the segment is there and holds what its name says: not one that was made or renamed in advance.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn is_live(&self, timeline: Timeline, number: u64) -> Result<bool> {
        Ok(self.state(timeline, number)? == Segment::Live)
    }

    /// What the segment's file holds.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn state(&self, timeline: Timeline, number: u64) -> Result<Segment> {
        let path = self.file(timeline, number);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Segment::Missing),
            Err(cause) => return Err(Error::io("open file", &path, cause)),
        };
        // PostgreSQL gives a segment its full size before it gives it its name.
        let length = file.metadata().map_err(|cause| Error::io("read file", &path, cause))?.len();
        if length != self.size {
            return Ok(Segment::Truncated);
        }
        // XLogLongPageHeaderData: the page's address at 8, the system identifier at 24.
        let mut header = [0; 40];
        let read = (&mut file).take(40).read(&mut header).map_err(|cause| Error::io("read file", &path, cause))?;
        let word = |at: usize| u64::from_ne_bytes(header[at..at + 8].try_into().unwrap_or_default());
        let live = read == header.len() && word(8) == number * self.size && word(24) == self.system.0;
        Ok(if live { Segment::Live } else { Segment::Missing })
    }

    /// The last segment of the timeline that is there without a gap from this one on; `None` where this one is not.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn last_from(&self, timeline: Timeline, first: u64) -> Result<Option<u64>> {
        let mut last = None;
        for number in first.. {
            if !self.is_live(timeline, number)? {
                break;
            }
            last = Some(number);
        }
        Ok(last)
    }

    /// The last file from this segment on, and whether it is truncated: pg_waldump reads what is left of it, and fails.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn last_file(&self, timeline: Timeline, first: u64) -> Result<Option<(u64, bool)>> {
        let last = self.last_from(timeline, first)?;
        let next = last.map_or(first, |last| last + 1);
        let truncated = self.state(timeline, next)? == Segment::Truncated;
        Ok(if truncated { Some((next, true)) } else { last.map(|last| (last, false)) })
    }

    /// The first segment of the timeline that is there without a gap up to this one.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn first_until(&self, timeline: Timeline, last: u64) -> Result<Option<u64>> {
        let mut first = None;
        for number in (0..=last).rev() {
            if !self.is_live(timeline, number)? {
                break;
            }
            first = Some(number);
        }
        Ok(first)
    }

    /// Gives every record of the span to `record`, as a line of `pg_waldump`'s, until it says `false` or the WAL ends.
    ///
    /// # Errors
    /// `pg_waldump` cannot be run or fails for another reason than that the WAL ends, or it was cancelled.
    pub fn records(&self, span: &Span, cancel: &Cancel, record: impl FnMut(&str) -> bool) -> Result<()> {
        self.dump(span, &[], cancel, record)
    }

    /// Gives every commit in the span to `commit`, until it returns `false` or the WAL ends.
    ///
    /// # Errors
    /// As [`Wal::records`].
    pub fn commits(&self, span: &Span, cancel: &Cancel, mut commit: impl FnMut(Commit) -> bool) -> Result<()> {
        self.dump(span, &["--rmgr=Transaction"], cancel, |line| match (position(line), commit_time(line)) {
            (Some(at), Some(time)) => {
                let prepared = line.split_once("COMMIT_PREPARED ").and_then(|(_, rest)| rest.split(':').next());
                let xid = prepared.or_else(|| line.split_once(", tx:")?.1.split(',').next());
                commit(Commit { at, xid: xid.and_then(|xid| xid.trim().parse().ok()), time })
            }
            _ => true,
        })
    }

    /// Where the restore point with this name is in the span; `None` if it is not.
    ///
    /// # Errors
    /// As [`Wal::records`].
    pub fn restore_point(&self, span: &Span, name: &str, cancel: &Cancel) -> Result<Option<Lsn>> {
        let (wanted, mut found) = (format!("desc: RESTORE_POINT {name}"), None);
        self.dump(span, &["--rmgr=XLOG"], cancel, |line| {
            if line.ends_with(&wanted) {
                found = position(line);
            }
            found.is_none()
        })?;
        Ok(found)
    }

    /// Gives of every checkpoint in the span where a recovery from it begins.
    ///
    /// # Errors
    /// As [`Wal::records`].
    pub fn checkpoints(&self, span: &Span, cancel: &Cancel, mut redo: impl FnMut(Lsn)) -> Result<()> {
        self.dump(span, &["--rmgr=XLOG"], cancel, |line| {
            if line.contains("desc: CHECKPOINT_") {
                field(line, " redo ").and_then(|word| word.parse().ok()).map(&mut redo);
            }
            true
        })
    }

    fn dump(&self, span: &Span, options: &[&str], cancel: &Cancel, mut record: impl FnMut(&str) -> bool) -> Result<()> {
        let first = self.number(span.from);
        let Some((last, truncated)) = self.last_file(span.timeline, first)? else { return Ok(()) };
        let mut command = program::command(&self.bin_dir.join("pg_waldump"));
        command.args(options).arg("-p").arg(&self.dir).arg("-s").arg(span.from.to_string());
        let last = match span.to {
            Some(to) if to <= span.from => return Ok(()),
            Some(to) => last.min(self.number(Lsn(to.0 - 1))),
            None => last,
        };
        command.arg(name(span.timeline, first, self.size)).arg(name(span.timeline, last, self.size));
        let ended = program::read(command, SILENCE, cancel, |line| {
            let Some(at) = position(line) else { return true };
            span.to.is_none_or(|to| at < to) && record(line)
        })?;
        // It fails wherever the WAL ends within a segment.
        let at_the_end = ["could not find a valid record after", "error in WAL record at"];
        let well = ended.status.is_none_or(|status| status.success());
        if well || truncated || at_the_end.iter().any(|text| ended.said.contains(text)) {
            return Ok(());
        }
        let first = self.file(span.timeline, first);
        Err(Error::io("read the WAL from file", &first, format!("pg_waldump failed: {}", ended.said)))
    }

    /// Whether the records of this segment reach its end. A server that has written a later segment has filled this one, by a
    /// record that goes beyond it or by a switch.
    ///
    /// # Errors
    /// `pg_waldump` cannot be run, or it was cancelled.
    pub fn is_full(&self, timeline: Timeline, number: u64, cancel: &Cancel) -> Result<bool> {
        let mut command = program::command(&self.bin_dir.join("pg_waldump"));
        // Every record is read and verified; of this resource manager's there are few.
        command.arg("--rmgr=CommitTs").arg("-p").arg(&self.dir).arg(name(timeline, number, self.size));
        let ended = program::read(command, SILENCE, cancel, |_| true)?;
        // It fails where the WAL ends within the segment.
        Ok(ended.status.is_some_and(|status| status.success()))
    }

    /// Whether a file has the segment's name, or a file is about to receive a segment's name.
    pub fn is_prepared(&self, timeline: Timeline, number: u64) -> bool {
        let begun = |entry: std::fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(b"xlogtemp.");
        self.file(timeline, number).symlink_metadata().is_ok()
            || self.dir.read_dir().into_iter().flatten().flatten().any(begun)
    }

    /// The position of the first record at or after this one.
    ///
    /// # Errors
    /// As [`Wal::records`].
    pub fn first_record(&self, span: &Span, cancel: &Cancel) -> Result<Option<Lsn>> {
        let mut found = None;
        self.records(span, cancel, |line| {
            found = position(line);
            false
        })?;
        Ok(found)
    }
}

/// The time of a commit: `desc: COMMIT TIME…` and `desc: COMMIT_PREPARED XID: TIME…`.
pub fn commit_time(line: &str) -> Option<&str> {
    if !line.starts_with("rmgr: Transaction") {
        return None;
    }
    let (_, desc) = line.split_once("desc: ")?;
    let rest = match desc.strip_prefix("COMMIT_PREPARED ") {
        Some(rest) => rest.split_once(": ").map_or(rest, |(_, time)| time),
        None => desc.strip_prefix("COMMIT ")?,
    };
    Some(rest.split(';').next().unwrap_or(rest).trim())
}

/// The position of a record, by its line.
pub fn position(line: &str) -> Option<Lsn> {
    if !line.starts_with("rmgr: ") {
        return None;
    }
    field(line, ", lsn: ")?.parse().ok()
}

/// What follows these words, up to the next comma, semicolon or blank.
pub fn field<'a>(line: &'a str, words: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(words)?;
    rest.split([',', ';', ' ']).next()
}

/// The real directory of a data directory's WAL.
pub fn directory(data: &Path) -> PathBuf {
    let dir = data.join("pg_wal");
    dir.canonicalize().unwrap_or(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_segments() {
        let (small, large) = (1 << 20, 1 << 30);
        let check = |timeline: u32, number: u64, size: u64, expected: &str| {
            assert_eq!(name(Timeline(timeline), number, size), expected);
            assert_eq!(parse(expected, size), Some((Timeline(timeline), number)));
        };
        check(1, 3, 16 << 20, "000000010000000000000003");
        check(0x1a, 0x1_02, 16 << 20, "0000001A0000000100000002");
        check(1, 4097, small, "000000010000000100000001");
        check(1, 5, large, "000000010000000100000001");
        assert_eq!(parse("000000010000000000000003.partial", 16 << 20), None);
        assert_eq!(parse("00000002.history", 16 << 20), None);
    }

    #[test]
    fn lines_of_pg_waldump() {
        let line = "rmgr: Transaction len (rec/tot):     34/    34, tx:        738, lsn: 0/0152B6F8, prev 0/0152B6B8, \
                    desc: COMMIT 2026-11-23 10:00:00.123456 UTC";
        assert_eq!(position(line), Some(Lsn(0x152_b6f8)));
        assert_eq!(position("pg_waldump: first record is after 0/1, at 0/28, skipping over 39 bytes"), None);
        assert_eq!(field("desc: CHECKPOINT_ONLINE redo 0/2000028; tli 1", " redo "), Some("0/2000028"));
    }
}
