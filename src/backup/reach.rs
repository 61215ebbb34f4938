//! How far WAL reaches that follows a backup: which segments a recovery reads, on which timelines, and which are missing.

use super::archive::Archive;
use super::catalog::Backup;
use super::segment::Segment;
use crate::error::{Error, Result};
use crate::fsm::types::{Lsn, View};
use crate::pg::files;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Where a recovery of a backup can end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reach {
    /// The end of the WAL that follows the backup without a gap.
    pub until: Lsn,
    /// Its timeline.
    pub timeline: u32,
    /// The newest timeline to which a recovery can lead, of which there may be no WAL yet.
    pub newest_timeline: u32,
    /// When the last segment before it was archived, ms since 1970; `None` if the backup's own WAL is all.
    pub archived_ms: Option<u64>,
    /// The first segment that is missing although later ones are there.
    pub missing: Option<Segment>,
}

/// The WAL that one or both archives have.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Holdings {
    /// The names of the files, and when each was archived, ms since 1970.
    files: BTreeMap<String, u64>,
    /// The timeline histories among them.
    histories: BTreeMap<u32, String>,
}

/// What a server has in its destination.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Contents {
    /// The complete backups, the oldest first.
    pub backups: Vec<Backup>,
    /// Its archive.
    pub holdings: Holdings,
    /// The data directories that were replaced there, and are kept.
    #[serde(default)]
    pub old_data: Vec<PathBuf>,
    /// What is in progress there that a recovery must not meet.
    #[serde(default)]
    pub busy: Option<String>,
    /// It has no destination, and so no backups.
    #[serde(default)]
    pub without_destination: bool,
    /// It sends the files of its backups.
    #[serde(default)]
    pub sends: bool,
    /// The durable view of its controller, if it reports that.
    #[serde(default)]
    pub view: Reported,
    /// [`super::Destination::identity`].
    #[serde(default)]
    pub identity: Option<String>,
}

/// The view of a server.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub enum Reported {
    /// Its version does not report it.
    #[default]
    No,
    /// It has no view, and so no right to run alone.
    Nothing,
    /// It has this view.
    View(View),
}

impl Holdings {
    /// The WAL of this archive.
    ///
    /// # Errors
    /// The archive cannot be read.
    pub fn read(archive: &Archive) -> Result<Holdings> {
        let mut holdings = Holdings::default();
        for name in archive.names()? {
            let path = archive.dir().join(&name);
            let modified = path.metadata().and_then(|meta| meta.modified()).ok();
            let archived = modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
            if let Some(timeline) = history_of(&name) {
                let text = std::fs::read_to_string(&path).map_err(|cause| Error::io("read file", &path, cause))?;
                holdings.histories.insert(timeline, text);
            }
            holdings.files.insert(name, archived.as_millis() as u64);
        }
        Ok(holdings)
    }

    /// Timelines of which there is WAL, and no history. The first has none.
    pub fn without_history(&self) -> Vec<u32> {
        let mut timelines: Vec<u32> =
            self.files.keys().filter_map(|name| Segment::parse(name)).map(|segment| segment.timeline).collect();
        timelines.dedup();
        timelines.retain(|timeline| *timeline > 1 && !self.histories.contains_key(timeline));
        timelines
    }

    /// The same with the timeline histories in this directory.
    pub fn with_histories_in(mut self, dir: &Path) -> Holdings {
        for path in files::entries(dir) {
            let timeline = path.file_name().and_then(|name| history_of(name.to_str()?));
            if let (Some(timeline), Ok(text)) = (timeline, std::fs::read_to_string(&path)) {
                self.histories.entry(timeline).or_insert(text);
            }
        }
        self
    }

    /// The timelines that lead to this one, as far as that is known.
    pub fn chain(&self, timeline: u32) -> Chain {
        let known = self.histories.get(&timeline).and_then(|text| chain(timeline, text));
        known.unwrap_or_else(|| vec![(timeline, Lsn(0))])
    }

    /// The histories of timelines: number and text.
    pub fn histories(&self) -> impl Iterator<Item = (u32, &str)> {
        self.histories.iter().map(|(timeline, text)| (*timeline, text.as_str()))
    }

    /// Whether either archive has this file.
    pub fn contains(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// The newest timeline that is known.
    pub fn newest_timeline(&self) -> u32 {
        let segments = self.files.keys().filter_map(|name| Segment::parse(name)).map(|segment| segment.timeline);
        segments.chain(self.histories.keys().copied()).max().unwrap_or_default()
    }

    /// The newest timeline, if it does not continue that to which this leads: a recovery to an earlier state has begun it. WAL whose
    /// history is missing does not show that.
    pub fn abandoned_for(&self, reach: &Reach) -> Option<u32> {
        let newest = self.newest_timeline();
        (reach.newest_timeline < newest && !self.without_history().contains(&newest)).then_some(newest)
    }

    /// The WAL of both.
    pub fn and(mut self, other: Holdings) -> Holdings {
        self.files.extend(other.files);
        self.histories.extend(other.histories);
        self
    }
}

/// The timeline of a history, by its name.
fn history_of(name: &str) -> Option<u32> {
    u32::from_str_radix(name.strip_suffix(".history")?, 16).ok()
}

/// The timelines that lead to one: each with the position at which it begins. The first begins at 0.
pub type Chain = Vec<(u32, Lsn)>;

/// How far this WAL leads from this backup to a timeline; `None`: to the newest one that continues the backup's.
///
/// # Errors
/// A timeline history is damaged, or the backup does not lead to the timeline.
pub fn reach(backup: &Backup, holdings: &Holdings, timeline: Option<u32>) -> Result<Reach> {
    let chain = chain_of(backup, holdings, timeline)?;
    let size = backup.segment_size.max(1);
    let segment = |number: u64| {
        let begins = |(_, begin): &&(u32, Lsn)| begin.0 / size <= number;
        let timeline = chain.iter().rfind(begins).map_or(backup.timeline, |(timeline, _)| *timeline);
        Segment::at(timeline, Lsn(number * size), size)
    };
    let newest_timeline = chain.last().map_or(backup.timeline, |(timeline, _)| *timeline);
    let (until, timeline) = (backup.end(), backup.timeline);
    let mut reach = Reach { until, timeline, newest_timeline, archived_ms: None, missing: None };
    let mut number = backup.end().0.saturating_sub(1) / size;
    while let Some(archived_ms) = holdings.files.get(&segment(number).to_string()) {
        (reach.until, reach.timeline) = (Lsn((number + 1) * size), segment(number).timeline);
        reach.archived_ms = Some(*archived_ms);
        number += 1;
    }
    let segments = holdings.files.keys().filter_map(|name| Segment::parse(name));
    let mut later = segments.filter(|there| there.number(size) > number);
    if later.any(|there| there == segment(there.number(size))) {
        reach.missing = Some(segment(number));
    }
    Ok(reach)
}

/// The timeline on which this position lies, on the way from the backup to that timeline, and where the next one begins. A
/// position at which one begins is the end of the one before. `timeline`: as of [`reach`].
///
/// # Errors
/// As of [`reach`].
pub fn timeline_at(
    backup: &Backup,
    holdings: &Holdings,
    timeline: Option<u32>,
    position: Lsn,
) -> Result<(u32, Option<Lsn>)> {
    let chain = chain_of(backup, holdings, timeline)?;
    let index = chain.iter().rposition(|(timeline, begin)| *begin < position || *timeline == backup.timeline);
    let index = index.unwrap_or_default();
    let timeline = chain.get(index).map_or(backup.timeline, |(timeline, _)| *timeline);
    Ok((timeline, chain.get(index + 1).map(|(_, begin)| *begin)))
}

/// The chain from the backup's timeline to this one; `None`: to the newest one that continues the backup's.
///
/// # Errors
/// As of [`reach`].
pub fn chain_of(backup: &Backup, holdings: &Holdings, timeline: Option<u32>) -> Result<Chain> {
    let mut histories = holdings.histories.iter().rev().filter(|(of, _)| timeline.is_none_or(|only| only == **of));
    let found = histories.find_map(|(timeline, text)| {
        let Some(chain) = chain(*timeline, text) else {
            return Some(Err(Error::new(format!("file \"{timeline:08X}.history\" is not a timeline history"))));
        };
        let mut steps = chain.iter().zip(chain.iter().skip(1));
        let left = steps.find(|((timeline, _), _)| *timeline == backup.timeline).map(|(_, (_, left))| *left);
        let leads = left.is_some_and(|left| left >= backup.end()) || *timeline == backup.timeline;
        leads.then_some(Ok(chain))
    });
    match (found, timeline) {
        (Some(chain), _) => chain,
        (None, Some(timeline)) if timeline != backup.timeline => {
            let history = format!("{timeline:08X}.history");
            let why =
                if holdings.contains(&history) { String::new() } else { format!(", and \"{history}\" is missing") };
            Err(Error::new(format!("it does not lead to timeline {timeline}{why}")))
        }
        (None, _) => Ok(vec![(backup.timeline, Lsn(0))]),
    }
}

/// Reads a timeline history: a line for each earlier timeline, with the position at which the next one begins.
fn chain(timeline: u32, history: &str) -> Option<Chain> {
    let mut chain: Chain = Vec::new();
    let mut begin = Lsn(0);
    for line in history.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let parent: u32 = words.next()?.parse().ok()?;
        chain.push((parent, begin));
        begin = words.next()?.parse().ok()?;
    }
    chain.push((timeline, begin));
    Some(chain)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::destination::Destination;
    use super::*;

    const SIZE: u64 = 16 << 20;

    /// A backup of this timeline that ends at this position.
    pub fn backup(timeline: u32, end: u64) -> Backup {
        Backup {
            name: "20261130T121500Z".into(),
            server: "nd1".into(),
            system_identifier: "7".into(),
            major_version: 15,
            begun_ms: 0,
            ended_ms: 0,
            verified_ms: 0,
            timeline,
            start: Lsn(end - 0x100).to_string(),
            end: Lsn(end).to_string(),
            segment_size: SIZE,
            bytes: 0,
            tablespaces: vec![],
            full: None,
        }
    }

    /// Where WAL ends, on which timeline, and what is missing, with these files in the archive.
    fn reached(backup: &Backup, files: &[(&str, &str)]) -> (Lsn, u32, Option<String>) {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::new(Destination::new(dir.path()));
        std::fs::create_dir(archive.dir()).unwrap();
        for (name, text) in files {
            std::fs::write(archive.dir().join(name), text).unwrap();
        }
        let reach = reach(backup, &Holdings::read(&archive).unwrap(), None).unwrap();
        (reach.until, reach.timeline, reach.missing.map(|segment| segment.to_string()))
    }

    #[test]
    fn wal_without_a_gap() {
        let backup = backup(1, 0x200_0100);
        assert_eq!(reached(&backup, &[]), (Lsn(0x200_0100), 1, None));
        let two = ("000000010000000000000002", "");
        let three = ("000000010000000000000003", "");
        let five = ("000000010000000000000005", "");
        assert_eq!(reached(&backup, &[two, three]), (Lsn(0x400_0000), 1, None));
        assert_eq!(
            reached(&backup, &[two, three, five]),
            (Lsn(0x400_0000), 1, Some("000000010000000000000004".into()))
        );
        // The segment in which the backup ended.
        assert_eq!(reached(&backup, &[three]), (Lsn(0x200_0100), 1, Some("000000010000000000000002".into())));
    }

    #[test]
    fn wal_of_a_later_timeline() {
        let before = backup(1, 0x200_0100);
        let files = [
            ("000000010000000000000002", ""),
            ("000000010000000000000003.partial", ""),
            ("00000002.history", "1\t0/3000158\tno recovery target specified\n"),
            ("000000020000000000000003", ""),
            ("000000020000000000000004", ""),
        ];
        assert_eq!(reached(&before, &files), (Lsn(0x500_0000), 2, None));
        assert_eq!(reached(&backup(2, 0x300_0200), &files), (Lsn(0x500_0000), 2, None));
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::new(Destination::new(dir.path()));
        std::fs::create_dir(archive.dir()).unwrap();
        std::fs::write(archive.dir().join(files[2].0), files[2].1).unwrap();
        let holdings = Holdings::read(&archive).unwrap();
        let at = |position| timeline_at(&before, &holdings, None, Lsn(position)).unwrap();
        let fork = Some(Lsn(0x300_0158));
        assert_eq!((at(0x200_0200), at(0x300_0158), at(0x300_0159)), ((1, fork), (1, fork), (2, None)));
        // A backup of the old timeline that ends past the fork does not lead to the new one.
        assert_eq!(reached(&backup(1, 0x300_0200), &files[..4]), (Lsn(0x300_0200), 1, None));
        assert_eq!(reached(&before, &files[..3]), (Lsn(0x300_0000), 1, None));
    }

    #[test]
    fn timelines_that_are_selected() {
        let files = [
            ("000000010000000000000002", ""),
            ("000000010000000000000003", ""),
            ("00000002.history", "1\t0/2800000\tbefore 2026-11-30\n"),
            ("000000020000000000000002", ""),
        ];
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::new(Destination::new(dir.path()));
        std::fs::create_dir(archive.dir()).unwrap();
        files.iter().for_each(|(name, text)| std::fs::write(archive.dir().join(name), text).unwrap());
        let holdings = Holdings::read(&archive).unwrap();
        let (early, late) = (backup(1, 0x200_0100), backup(1, 0x300_0100));
        let until =
            |backup: &Backup, timeline| reach(backup, &holdings, timeline).map(|reach| (reach.until, reach.timeline));
        assert_eq!(until(&early, None), Ok((Lsn(0x300_0000), 2)));
        assert_eq!(until(&early, Some(1)), Ok((Lsn(0x400_0000), 1)));
        assert_eq!(until(&late, Some(1)), Ok((Lsn(0x400_0000), 1)));
        assert_eq!(until(&late, Some(2)), Err(Error::new("it does not lead to timeline 2")));
        let missing = Error::new("it does not lead to timeline 3, and \"00000003.history\" is missing");
        assert_eq!(until(&early, Some(3)), Err(missing));
        assert_eq!(timeline_at(&early, &holdings, Some(1), Lsn(0x300_0000)).unwrap(), (1, None));
        let abandoned = |backup: &Backup| holdings.abandoned_for(&reach(backup, &holdings, None).unwrap());
        assert_eq!((abandoned(&early), abandoned(&late)), (None, Some(2)));
    }
}
