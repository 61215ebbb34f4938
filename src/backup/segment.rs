//! Names of files in `pg_wal`, and what the first page of a segment says. Text and bytes in, values out.

use crate::error::{Error, Result};
use crate::fsm::types::{Lsn, SystemId};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The bytes of a segment's first page that are read (`XLogLongPageHeaderData`).
const HEADER: usize = 40;
/// The flag of a first page with a long header (`XLP_LONG_HEADER`).
const LONG_HEADER: u16 = 2;
/// The sizes of a segment that PostgreSQL allows, bytes.
const SIZES: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 30;

/// The name of a complete WAL segment. The order is that of positions on one timeline.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Segment {
    /// Its timeline.
    pub timeline: u32,
    high: u32,
    low: u32,
}

impl Segment {
    /// Reads a name of 24 hexadecimal digits.
    pub fn parse(name: &str) -> Option<Segment> {
        let digits = |range: std::ops::Range<usize>| u32::from_str_radix(&name[range], 16).ok();
        if name.len() != 24 || !name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F')) {
            return None;
        }
        Some(Segment { timeline: digits(0..8)?, high: digits(8..16)?, low: digits(16..24)? })
    }

    /// The segment with the byte at this position, where segments have `size` bytes.
    pub fn at(timeline: u32, lsn: Lsn, size: u64) -> Segment {
        let (number, per) = (lsn.0 / size, (1 << 32) / size);
        Segment { timeline, high: (number / per) as u32, low: (number % per) as u32 }
    }

    /// The position of its first byte.
    pub fn begin(self, size: u64) -> Lsn {
        Lsn(self.number(size) * size)
    }

    /// How many segments of this size precede it on its timeline.
    pub fn number(self, size: u64) -> u64 {
        u64::from(self.high) * ((1 << 32) / size) + u64::from(self.low)
    }
}

impl std::fmt::Display for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline, self.high, self.low)
    }
}

/// Whether PostgreSQL archives or requests files of this name: segments, partial segments, timeline histories and backup
/// histories.
pub fn is_name(name: &str) -> bool {
    let hexadecimal =
        |text: &str, length| text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'));
    match name.split('.').collect::<Vec<_>>().as_slice() {
        [segment] | [segment, "partial"] => hexadecimal(segment, 24),
        [timeline, "history"] => hexadecimal(timeline, 8),
        [segment, offset, "backup"] => hexadecimal(segment, 24) && hexadecimal(offset, 8),
        _ => false,
    }
}

/// Whether a file of this name holds WAL.
pub fn holds_wal(name: &str) -> bool {
    Segment::parse(name.strip_suffix(".partial").unwrap_or(name)).is_some()
}

/// The first page of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct First {
    /// The cluster whose WAL it is.
    pub system: SystemId,
    /// The size of the segment, bytes.
    pub size: u64,
}

/// Reads the first page of a segment, and checks that the file is as long as that says.
///
/// # Errors
/// The file cannot be read, or is not a whole segment.
pub fn first_page(path: &Path) -> Result<First> {
    let failed = |cause| Error::io("read file", path, cause);
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let damaged = |what: String| Err(Error::new(format!("file \"{}\" is not a WAL segment: {what}", path.display())));
    let mut page = [0; HEADER];
    if length < HEADER as u64 {
        return damaged(format!("it has {length} bytes"));
    }
    file.read_exact_at(&mut page, 0).map_err(failed)?;
    // xlp_magic, xlp_info, xlp_tli, xlp_pageaddr, xlp_rem_len; from byte 24 on xlp_sysid and xlp_seg_size.
    let info = u16::from_ne_bytes([page[2], page[3]]);
    let mut system = [0; 8];
    system.copy_from_slice(&page[24..32]);
    let mut size = [0; 4];
    size.copy_from_slice(&page[32..36]);
    let first = First { system: SystemId(u64::from_ne_bytes(system)), size: u64::from(u32::from_ne_bytes(size)) };
    if info & LONG_HEADER == 0 || !first.size.is_power_of_two() || !SIZES.contains(&first.size) {
        return damaged("its first page has no valid header".to_owned());
    }
    if length != first.size {
        return damaged(format!("it has {length} bytes instead of the {} in its header", first.size));
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, valid, wal) in [
            ("000000010000000000000002", true, true),
            ("000000010000000000000002.partial", true, true),
            ("00000002.history", true, false),
            ("000000010000000000000002.00000028.backup", true, false),
            ("00000001000000000000000", false, false),
            ("00000001000000000000000g", false, false),
            ("00000001000000000000000a", false, false),
            ("../000000010000000000000002", false, false),
            ("", false, false),
            ("postgresql.conf", false, false),
        ] {
            assert_eq!((is_name(name), holds_wal(name)), (valid, wal), "{name}");
        }
    }

    #[test]
    fn positions() {
        let size = 16 << 20;
        let segment = Segment::parse("0000000300000001000000FF").unwrap();
        assert_eq!((segment.timeline, segment.begin(size)), (3, Lsn(0x1_FF00_0000)));
        assert_eq!(Segment::at(3, Lsn(0x1_FF00_0028), size), segment);
        assert_eq!(segment.to_string(), "0000000300000001000000FF");
        assert_eq!(Segment::at(1, Lsn(0x2_0000_0000), size).to_string(), "000000010000000200000000");
    }
}
