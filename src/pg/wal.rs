//! Points of the WAL in a `pg_wal`, and where it ends (PROTOCOL R13). Reads files alone, so that it works with an instance that
//! is down and with one that runs, whose WAL does not change below what it has flushed. Reads may hang on a dying disk.

use super::{Place, commands, control};
use crate::error::{Error, Result};
use crate::fsm::event::{CompareWal, Contains, WalFound};
use crate::fsm::types::{Lsn, Timeline, WalPoint};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How many bytes before a position its digest covers at most: the last page, or parts of the last two.
const LENGTH: u64 = 8192;

/// How long `pg_waldump` may take to find the end of the WAL since the last checkpoint.
const END_LIMIT: Duration = Duration::from_secs(50);

/// The size of a WAL record's header, which begins each record (`SizeOfXLogRecord`).
const RECORD_HEADER: u64 = 24;

/// The segments of a `pg_wal`.
#[derive(Clone, Debug)]
pub struct Segments {
    dir: PathBuf,
    size: u64,
}

impl Segments {
    /// Those of a data directory; its segment size is that of any segment in it. `None` if there is no segment.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn of(data: &Path) -> Result<Option<Segments>> {
        let dir = data.join("pg_wal");
        for name in names(&dir)? {
            if let Some(size) = segment_size(&dir.join(name))? {
                return Ok(Some(Segments { dir, size }));
            }
        }
        Ok(None)
    }

    /// The point at this position; `None` if its segment is not there.
    ///
    /// # Errors
    /// The segment cannot be read.
    pub fn point(&self, timeline: Timeline, lsn: Lsn) -> Result<Option<WalPoint>> {
        if lsn.0 == 0 {
            return Ok(None);
        }
        let length = LENGTH.min(lsn.0 - self.begin(lsn)) as u32;
        let path = self.dir.join(self.name(timeline, lsn));
        Ok(self.digest(&path, lsn, length)?.map(|hash| WalPoint { timeline, lsn, length, hash }))
    }

    /// Whether the point is contained. `redo`: where a recovery would begin; segments before it may have been removed.
    ///
    /// # Errors
    /// The segments cannot be read.
    pub fn contains(&self, point: &WalPoint, redo: Lsn) -> Result<Contains> {
        let offset = if point.lsn.0 == 0 { 0 } else { point.lsn.0 - self.begin(point.lsn) };
        if point.length == 0 || u64::from(point.length) > offset.min(LENGTH) {
            return Ok(Contains::Unknown);
        }
        // A server that was promoted within the segment has copied its beginning to the new timeline.
        let wanted = self.name(point.timeline, point.lsn);
        let mut files: Vec<String> =
            names(&self.dir)?.filter(|name| name[8..] == wanted[8..] && name[..8] >= wanted[..8]).collect();
        files.sort();
        let partial = format!("{wanted}.partial");
        if self.dir.join(&partial).exists() {
            files.insert(0, partial);
        }
        for name in &files {
            if self.digest(&self.dir.join(name), point.lsn, point.length)? == Some(point.hash) {
                return Ok(Contains::Yes);
            }
        }
        Ok(if files.is_empty() && point.lsn <= redo { Contains::Unknown } else { Contains::No })
    }

    /// Whether every segment is there that a recovery from `redo` reads up to `end`.
    fn is_whole(&self, redo: Lsn, end: Lsn) -> Result<bool> {
        let there: std::collections::BTreeSet<String> = names(&self.dir)?.map(|name| name[8..].to_owned()).collect();
        let numbers = redo.0 / self.size..=end.0.saturating_sub(1) / self.size;
        Ok(numbers.into_iter().all(|number| there.contains(&self.name(Timeline(0), Lsn(number * self.size + 1))[8..])))
    }

    /// Where the segment begins that holds the byte before this position.
    fn begin(&self, lsn: Lsn) -> u64 {
        (lsn.0 - 1) / self.size * self.size
    }

    fn name(&self, timeline: Timeline, lsn: Lsn) -> String {
        let (number, per) = ((lsn.0.max(1) - 1) / self.size, (1 << 32) / self.size);
        format!("{:08X}{:08X}{:08X}", timeline.0, number / per, number % per)
    }

    /// `None` if the file is not there, or ends before.
    fn digest(&self, path: &Path, lsn: Lsn, length: u32) -> Result<Option<u64>> {
        let mut bytes = vec![0; length as usize];
        let at = lsn.0 - self.begin(lsn) - u64::from(length);
        match File::open(path).and_then(|file| file.read_exact_at(&mut bytes, at)) {
            Ok(()) => Ok(Some(fnv1a(&bytes))),
            Err(cause) if matches!(cause.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) => Ok(None),
            Err(cause) => Err(Error::io("read file", path, cause)),
        }
    }
}

/// FNV-1a, which never changes: digests are kept on disk and compared between versions. It need not resist attacks, since the
/// members trust each other.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Names the run of a postmaster: by its number and its start, as `postmaster.pid` has them. Never 0.
pub fn incarnation(data: &Path, pid: i32) -> u64 {
    let text = std::fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    let start = text.lines().nth(2).unwrap_or_default();
    fnv1a(format!("{pid} {start}").as_bytes()).max(1)
}

/// The names of the segments in a directory.
fn names(dir: &Path) -> Result<impl Iterator<Item = String> + use<>> {
    let entries = std::fs::read_dir(dir).map_err(|cause| Error::io("read directory", dir, cause))?;
    let is_segment = |name: &String| name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).filter(is_segment))
}

/// The segment size by a segment's first page (`XLogLongPageHeaderData`); `None` if it was only made in advance.
fn segment_size(path: &Path) -> Result<Option<u64>> {
    let mut header = [0; 40];
    match File::open(path).and_then(|file| file.read_exact_at(&mut header, 0)) {
        Ok(()) => {}
        Err(cause) if matches!(cause.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) => return Ok(None),
        Err(cause) => return Err(Error::io("read file", path, cause)),
    }
    let size = u32::from_ne_bytes([header[32], header[33], header[34], header[35]]);
    // The server allows 1 MB to 1 GB.
    Ok((size.is_power_of_two() && (1 << 20..=1 << 30).contains(&size)).then_some(u64::from(size)))
}

/// Compares the WAL of an instance that is down.
///
/// # Errors
/// The data directory cannot be read.
pub fn compare(place: &Place, asked: &CompareWal) -> Result<WalFound> {
    let control = control::wal(place)?;
    let Some(segments) = Segments::of(&place.data)? else {
        // Nothing is left of what a recovery needs.
        let lost = |point: &Option<WalPoint>| if point.is_some() { Contains::No } else { Contains::Unknown };
        return Ok(WalFound { own: lost(&asked.own), peer: lost(&asked.peer), end: None });
    };
    let check = |point: &Option<WalPoint>| match point {
        None => Ok(Contains::Unknown),
        Some(point) if point.lsn > control.redo && !segments.is_whole(control.redo, point.lsn)? => Ok(Contains::No),
        Some(point) => segments.contains(point, control.redo),
    };
    let end = if asked.find_end { end(place, &segments, &control)? } else { None };
    Ok(WalFound { own: check(&asked.own)?, peer: check(&asked.peer)?, end })
}

/// A point within the last whole record of a WAL that nothing is written to. `None` if it cannot be determined, for instance since
/// the last segment is full: then what the server has noted of itself is used.
fn end(place: &Place, segments: &Segments, control: &control::Wal) -> Result<Option<WalPoint>> {
    let from = if control.timeline == control.redo_timeline {
        control.redo
    } else {
        // The timeline was changed since the last checkpoint: from the first segment of the new one on.
        let prefix = format!("{:08X}", control.timeline.0);
        let Some(first) = names(&segments.dir)?.filter(|name| name.starts_with(&prefix)).min() else { return Ok(None) };
        let number = |range: std::ops::Range<usize>| u64::from_str_radix(&first[range], 16).unwrap_or(0);
        Lsn((number(8..16) * ((1 << 32) / segments.size) + number(16..24)) * segments.size)
    };
    // pg_waldump waits five seconds for a segment that does not exist.
    let mut to = Lsn(from.0 - from.0 % segments.size);
    while segments.dir.join(segments.name(control.timeline, Lsn(to.0 + 1))).exists() {
        to.0 += segments.size;
    }
    let args = ["-t".to_owned(), control.timeline.0.to_string(), "-s".to_owned(), from.to_string()];
    let args = args.into_iter().chain(["-e".to_owned(), to.to_string()]);
    // Every record is read and verified; of this resource manager's there are few, and none is of interest.
    let args = args.chain(["-r".to_owned(), "CommitTs".to_owned(), "-p".to_owned()]).map(Into::into);
    let args = args.chain([segments.dir.clone().into_os_string()]);
    let Err(error) = commands::program(place, "pg_waldump", args).run(END_LIMIT, None) else { return Ok(None) };
    let Some(last) = last_record(&error.message) else { return Ok(None) };
    segments.point(control.timeline, Lsn(last.0 + RECORD_HEADER))
}

/// The last record that was valid, as `pg_waldump` reports it where the WAL ends.
fn last_record(message: &str) -> Option<Lsn> {
    let (_, rest) = message.split_once("error in WAL record at ")?;
    rest.split(':').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `pg_wal` with these segments of 1 MB, each filled with this byte.
    fn wal(segments: &[(&str, u8)]) -> (tempfile::TempDir, Segments) {
        let data = tempfile::tempdir().unwrap();
        let dir = data.path().join("pg_wal");
        std::fs::create_dir(&dir).unwrap();
        for (name, byte) in segments {
            let mut bytes = vec![*byte; 1 << 20];
            bytes[32..36].copy_from_slice(&(1_u32 << 20).to_ne_bytes());
            std::fs::write(dir.join(name), bytes).unwrap();
        }
        let found = Segments::of(data.path()).unwrap().unwrap();
        (data, found)
    }

    #[test]
    fn points_are_found_where_the_same_bytes_are() {
        let (_one, ours) = wal(&[("000000010000000000000001", 7), ("000000010000000000000002", 8)]);
        let at = Lsn((1 << 20) + 100_000);
        let point = ours.point(Timeline(1), at).unwrap().unwrap();
        assert_eq!((point.length, point.lsn), (8192, at));
        assert_eq!(ours.contains(&point, Lsn(0)), Ok(Contains::Yes));
        // The end of a segment belongs to it, and the digest does not reach before its begin.
        let end = ours.point(Timeline(1), Lsn(2 << 20)).unwrap().unwrap();
        assert_eq!(ours.contains(&end, Lsn(0)), Ok(Contains::Yes));
        assert_eq!(ours.point(Timeline(1), Lsn((2 << 20) + 10)).unwrap().unwrap().length, 10);
        assert_eq!(ours.point(Timeline(2), at), Ok(None));
        assert_eq!(ours.point(Timeline(1), Lsn(5 << 20)), Ok(None));

        let (_two, theirs) = wal(&[("000000010000000000000001", 9)]);
        assert_eq!(theirs.contains(&point, Lsn(0)), Ok(Contains::No), "other bytes");
        let (_three, theirs) = wal(&[("000000010000000000000003", 7)]);
        assert_eq!(theirs.contains(&point, Lsn(0)), Ok(Contains::No), "no segment, and it is needed");
        assert_eq!(theirs.contains(&point, at), Ok(Contains::Unknown), "no segment, and it is not needed any more");
        let (_four, theirs) = wal(&[("000000020000000000000001", 7), ("000000010000000000000002", 7)]);
        assert_eq!(theirs.contains(&point, Lsn(0)), Ok(Contains::Yes), "copied to a newer timeline");
        let (_five, theirs) = wal(&[("000000020000000000000001", 3), ("000000010000000000000001.partial", 7)]);
        assert_eq!(theirs.contains(&point, Lsn(0)), Ok(Contains::Yes), "renamed by a promotion");
        let (short, theirs) = wal(&[("000000010000000000000001", 7)]);
        let file = File::options().write(true).open(short.path().join("pg_wal/000000010000000000000001")).unwrap();
        file.set_len(90_000).unwrap();
        assert_eq!(theirs.contains(&point, Lsn(0)), Ok(Contains::No), "truncated");
        let junk = WalPoint { length: u32::MAX, ..point };
        assert_eq!(ours.contains(&junk, Lsn(0)), Ok(Contains::Unknown), "a peer's nonsense");
        let junk = WalPoint { lsn: Lsn(0), ..point };
        assert_eq!(ours.contains(&junk, Lsn(0)), Ok(Contains::Unknown), "a peer's nonsense");
    }

    #[test]
    fn a_gap_is_noticed() {
        let (_data, wal) = wal(&[("000000010000000000000001", 7), ("000000010000000000000003", 7)]);
        assert_eq!(wal.is_whole(Lsn(1 << 20), Lsn(2 << 20)), Ok(true));
        assert_eq!(wal.is_whole(Lsn(1 << 20), Lsn((3 << 20) + 5)), Ok(false));
    }

    #[test]
    fn the_last_record_is_read_from_the_error() {
        let text = "pg_waldump failed: exit status: 1: pg_waldump: error: error in WAL record at 0/1B35708: invalid record \
                    length at 0/1B358A0: wanted 24, got 0";
        assert_eq!(last_record(text), Some(Lsn(0x1b3_5708)));
        assert_eq!(last_record("pg_waldump: error: could not find a valid record after 0/1"), None);
    }
}
