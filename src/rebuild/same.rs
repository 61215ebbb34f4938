//! Whether the WAL of two servers is the same where their timelines' histories say so. Two servers that were promoted by
//! themselves at the same place, or one that was started as a primary without a promotion, have histories that agree and
//! WAL that does not; neither PostgreSQL nor `pg_rewind` notices.

use super::source::{self, Source};
use super::target::Target;
use super::wal;
use crate::error::{Error, Result};
use crate::fsm::types::{Lsn, Timeline};
use crate::pg::bounded::Cancel;
use crate::pg::connect::Remote;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// As much before the position is compared: commits and checkpoints in it bear the time.
const TAIL: u64 = 128 << 10;

/// Less than that says little: then the begin of the segment before is compared as well.
const LITTLE: u64 = 8 << 10;

const LIMIT: Duration = Duration::from_secs(10);

/// Whether what lies before this position differs. False where either has it no more.
///
/// # Errors
/// The source does not answer, a file cannot be read, or it was cancelled.
pub fn differs(target: &Target, source: &Source, remote: &Remote, at: Lsn, cancel: &Cancel) -> Result<bool> {
    let size = target.wal.size;
    if at.0 == 0 || source.segment != size {
        return Ok(false);
    }
    let number = (at.0 - 1) / size;
    let end = at.0 - number * size;
    let mut parts = vec![(number, end.saturating_sub(TAIL), end)];
    if end < LITTLE && number > 0 {
        parts.push((number - 1, 0, TAIL.min(size)));
    }
    for (number, from, to) in parts {
        let ours = local(target, number, from, to)?;
        let Some((ours, theirs)) = ours.zip(remote_file(source, number)) else { continue };
        let sql = format!("SELECT encode(pg_read_binary_file('pg_wal/{theirs}', {from}, {}, true), 'hex')", to - from);
        let rows = source::ask(remote, LIMIT, cancel, move |session| session.query(&sql, LIMIT))?;
        // Removed meanwhile.
        let Some(theirs) = rows.into_iter().flatten().flatten().next() else { continue };
        if !is_hex_of(&theirs, &ours) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A timeline that begins within a segment has that from its begin on: of a server's own timelines the newest file holds
/// all of its way.
fn remote_file(source: &Source, number: u64) -> Option<String> {
    let named = source.wal.iter().filter(|(timeline, known)| *known == number && source.history.holds(*timeline));
    let timeline: Timeline = named.map(|(timeline, _)| *timeline).max()?;
    Some(wal::name(timeline, number, source.segment))
}

fn local(target: &Target, number: u64, from: u64, to: u64) -> Result<Option<Vec<u8>>> {
    for timeline in target.history.iter().flat_map(|history| history.timelines().rev()) {
        if !target.wal.is_live(timeline, number)? {
            continue;
        }
        let path = target.wal.file(timeline, number);
        let mut bytes = vec![0; (to - from) as usize];
        let read = std::fs::File::open(&path).and_then(|file| file.read_exact_at(&mut bytes, from));
        return read.map(|()| Some(bytes)).map_err(|cause| Error::io("read file", &path, cause));
    }
    Ok(None)
}

fn is_hex_of(hex: &str, bytes: &[u8]) -> bool {
    let digit = |value: u8| char::from_digit(u32::from(value), 16);
    let digits = bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
    hex.chars().map(Some).eq(digits)
}

#[cfg(test)]
mod tests {
    use super::is_hex_of;

    #[test]
    fn hex() {
        assert!(is_hex_of("00ff1a", &[0, 255, 26]) && is_hex_of("", &[]));
        assert!(!is_hex_of("00ff1b", &[0, 255, 26]) && !is_hex_of("00ff", &[0, 255, 26]));
    }
}
