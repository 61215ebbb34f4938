//! WAL that the archives do not have yet: it goes with the copy.

use crate::backup::{Archive, Holdings, Segment};
use crate::error::{Error, Result};
use crate::fsm::types::Lsn;
use crate::pg::files;
use std::path::Path;

/// Stores what the instance of this data directory has not archived, and gives the copy what the archive does not have: the
/// histories of timelines, and with `all`, WAL too. The instance must be down. Without an archive of ours, another program's
/// has what the instance has archived.
///
/// # Errors
/// A file cannot be copied. A file that cannot be archived is none: the data directory, which is kept, has it.
pub fn carry_over(data: &Path, archive: Option<&Archive>, staging: &Path, all: bool) -> Result<()> {
    let wal = data.join("pg_wal");
    let unarchived = archive.map(|_| files::entries(&wal.join("archive_status"))).unwrap_or_default();
    for ready in unarchived {
        let name = ready.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let (Some(archive), Some(name)) = (archive, name.strip_suffix(".ready")) {
            archive.store(&wal.join(name), name).map(drop).unwrap_or_else(|error| log::warn!("{error}"));
        }
    }
    for from in files::entries(&wal) {
        let name = from.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let wanted = name.ends_with(".history") || all && Segment::parse(&name).is_some();
        let to = staging.join("pg_wal").join(&name);
        // A segment may be there that an interrupted copy, or the backup, has left incomplete.
        let there = to.exists() && name.ends_with(".history");
        if !wanted || there {
            continue;
        }
        let archived = match archive {
            Some(archive) => archive.open(&name)?.is_some(),
            None => wal.join("archive_status").join(format!("{name}.done")).exists(),
        };
        if archived {
            continue;
        }
        copy(&from, &to)?;
    }
    Ok(())
}

/// Gives the copy the history of every timeline: a standby of any of them requests them from its primary.
///
/// # Errors
/// A file cannot be written.
pub fn add_histories(staging: &Path, holdings: &Holdings) -> Result<()> {
    for (timeline, text) in holdings.histories() {
        let path = staging.join("pg_wal").join(format!("{timeline:08X}.history"));
        if !path.exists() {
            files::replace(&path, text.as_bytes(), None)?;
        }
    }
    Ok(())
}

/// Gives the copy the WAL around this position by the names of its timeline. A server that failed did not archive its last
/// segment, and that of the next timeline begins with the same WAL: the copy has read it. `end`: where the next timeline begins.
///
/// # Errors
/// A file cannot be copied.
pub fn name_for_timeline(
    staging: &Path,
    (position, end): (Lsn, Option<Lsn>),
    timeline: u32,
    size: u64,
    holdings: &Holdings,
) -> Result<()> {
    let Some(end) = end else { return Ok(()) };
    let dir = staging.join("pg_wal");
    let numbers = position.0.saturating_sub(1) / size..=end.0.saturating_sub(1) / size;
    for from in files::entries(&dir) {
        let segment = from.file_name().and_then(|name| Segment::parse(name.to_str()?));
        let Some(segment) = segment.filter(|it| it.timeline > timeline && numbers.contains(&it.number(size))) else {
            continue;
        };
        let name = Segment::at(timeline, segment.begin(size), size).to_string();
        if !holdings.contains(&name) {
            copy(&from, &dir.join(&name))?;
            // It is archived by another name. The end of the recovery would have it archived as a partial segment, of which the
            // archive may have another one.
            files::touch(&dir.join("archive_status").join(format!("{name}.done")))?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let new = to.with_extension("new");
    let copied = std::fs::copy(from, &new)
        .and_then(|_| std::fs::File::open(&new)?.sync_all())
        .and_then(|()| std::fs::rename(&new, to));
    copied.map_err(|cause| {
        Error::new(format!("could not copy \"{}\" to \"{}\": {cause}", from.display(), to.display()))
    })?;
    files::sync_parent(to)
}

/// Where the timeline after this one begins, on the way to the newest one of which the recovery of the copy has read the history.
///
/// # Errors
/// A file cannot be read.
pub fn next_timeline(staging: &Path, timeline: u32) -> Result<Option<Lsn>> {
    let Some((_, text)) = newest_history(staging)? else { return Ok(None) };
    let mut lines = text.lines().map(str::split_whitespace);
    let position =
        lines.find_map(|mut words| (words.next()?.parse() == Ok(timeline)).then(|| words.next()?.parse().ok())?);
    Ok(position)
}

/// The newest timeline with a history in the `pg_wal` of the copy, and the history.
fn newest_history(staging: &Path) -> Result<Option<(u32, String)>> {
    let dir = staging.join("pg_wal");
    let timeline = |path: &Path| {
        let name = path.file_name()?.to_str()?.strip_suffix(".history")?.to_owned();
        u32::from_str_radix(&name, 16).ok()
    };
    let Some(newest) = files::entries(&dir).iter().filter_map(|path| timeline(path)).max() else { return Ok(None) };
    let path = dir.join(format!("{newest:08X}.history"));
    let text = std::fs::read_to_string(&path).map_err(|cause| Error::io("read file", &path, cause))?;
    Ok(Some((newest, text)))
}

/// The timeline that the recovery of the copy has begun, and where: the newest history in its `pg_wal`.
///
/// # Errors
/// There is none, or it cannot be read.
pub fn promote_end(staging: &Path) -> Result<(u32, Lsn)> {
    let found = newest_history(staging)?.ok_or_else(|| Error::new("the recovery has begun no timeline"))?;
    let (newest, text) = found;
    let last = text.lines().rfind(|line| line.starts_with(|c: char| c.is_ascii_digit()));
    let position = last.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    position.map(|lsn| (newest, lsn)).ok_or_else(|| {
        let path = staging.join(format!("pg_wal/{newest:08X}.history"));
        Error::io("understand file", &path, "it has no position")
    })
}
