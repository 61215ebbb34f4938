//! What lies in this server's data directory, for the plan of a rebuild. Only reads.

use super::divergence::{self, Cluster, Content, History, Lineage, Own};
use super::source::Source;
use super::wal::{self, Segment, Span, Wal};
use super::{Journal, Phase, Setup, same};
use crate::error::{Error, Result};
use crate::fsm::event::{ControlState, DataDir};
use crate::fsm::types::{Lsn, Timeline};
use crate::pg::bounded::Cancel;
use crate::pg::connect::Remote;
use crate::pg::{commands, conf, control};
use std::ffi::OsStr;
use std::fs::DirEntry;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

/// What begins the names of the files that the disk probe makes and removes.
pub const PROBE: &str = "pgsql_tmp_mirroring_controller_";

/// What lies there.
#[derive(Clone, Debug)]
pub enum Found {
    /// No directory, or nothing in it.
    Nothing,
    /// Something that is no data directory: the first entry.
    Foreign(String),
    /// A data directory that cannot be read, and why.
    Damaged(String),
    /// A data directory.
    Data(Box<Target>),
}

/// A data directory.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where.
    pub data: PathBuf,
    /// What its control file and its signal files tell.
    pub dir: DataDir,
    /// Where a start would begin to read WAL.
    pub redo: Lsn,
    /// Minimum recovery point; 0 for none.
    pub min_recovery: Lsn,
    /// Data checksums, or `wal_log_hints`.
    pub hints: bool,
    /// Its WAL.
    pub wal: Wal,
    /// The timeline that it is on.
    pub timeline: Timeline,
    /// The way to it; why it is not known.
    pub history: std::result::Result<History, String>,
    /// Timelines whose history lies in its `pg_wal`.
    pub histories: Vec<Timeline>,
    /// It was a standby's when it stopped.
    pub standby: bool,
    /// It was shut down cleanly.
    pub clean: bool,
    /// It has a `restore_command`.
    pub restore: bool,
}

/// Looks at it.
///
/// # Errors
/// The directory is there and does not let itself be listed.
pub fn look(setup: &Setup) -> Result<Found> {
    let data = &setup.place.data;
    let entries = match std::fs::read_dir(data) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(cause) => return Err(Error::io("open directory", data, cause)),
    };
    let ours = |entry: &DirEntry| entry.file_name().to_string_lossy().starts_with(PROBE);
    let first = entries.flatten().find(|entry| !ours(entry));
    let Some(first) = first else { return Ok(Found::Nothing) };
    let exists = |name: &str| data.join(name).symlink_metadata().is_ok();
    if !exists("PG_VERSION") && !exists("global/pg_control") {
        return Ok(Found::Foreign(first.file_name().to_string_lossy().into_owned()));
    }
    let dir = match control::inspect(&setup.place) {
        Ok(dir) => dir,
        Err(why) => return Ok(Found::Damaged(why.message)),
    };
    let text = commands::controldata(&setup.place).run(LIMIT, None)?;
    match target(setup, dir, &text) {
        Ok(target) => Ok(Found::Data(Box::new(target))),
        Err(why) => Ok(Found::Damaged(why.message)),
    }
}

fn target(setup: &Setup, dir: DataDir, text: &str) -> Result<Target> {
    let value = |label: &str| {
        let value = control::value(text, label);
        value.ok_or_else(|| Error::new(format!("pg_controldata does not report \"{label}\"")))
    };
    let number = |label: &str| {
        value(label)?.parse::<u64>().map_err(|_| Error::new(format!("\"{label}\" of pg_controldata is not a number")))
    };
    let lsn = |label: &str| value(label)?.parse::<Lsn>().map_err(Error::new);
    let place = &setup.place;
    let size = number("Bytes per WAL segment")?;
    if !size.is_power_of_two() || !((1 << 20)..=(1 << 30)).contains(&size) {
        return Err(Error::new("pg_controldata reports an invalid WAL segment size"));
    }
    let wal = Wal { dir: wal::directory(&place.data), bin_dir: place.bin_dir.clone(), size, system: dir.system };
    let label = if dir.backup_label { Some(label(&place.data)?) } else { None };
    let standby = match label {
        Some(_) => dir.standby_signal,
        None => matches!(dir.state, ControlState::ShutDownInRecovery | ControlState::InArchiveRecovery),
    };
    let histories = histories(&wal.dir);
    let timeline = match label {
        Some((_, timeline)) => timeline,
        None => timeline(&dir, standby, &wal, &histories),
    };
    Ok(Target {
        data: place.data.clone(),
        redo: label.map_or(lsn("Latest checkpoint's REDO location")?, |(redo, _)| redo),
        min_recovery: lsn("Minimum recovery ending location")?,
        hints: value("wal_log_hints setting")? == "on" || number("Data page checksum version")? > 0,
        history: history(&wal.dir, timeline),
        timeline,
        histories,
        standby,
        clean: matches!(dir.state, ControlState::ShutDown | ControlState::ShutDownInRecovery),
        restore: conf::effective("restore_command", &place.config_file, &place.data).is_some_and(|v| !v.is_empty()),
        wal,
        dir,
    })
}

/// Where `backup_label` lets a start begin, and on which timeline.
fn label(data: &Path) -> Result<(Lsn, Timeline)> {
    let path = data.join("backup_label");
    let text = std::fs::read_to_string(&path).map_err(|cause| Error::io("read file", &path, cause))?;
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next());
    let begin = value("START WAL LOCATION:").and_then(|word| word.parse().ok());
    let timeline = value("START TIMELINE:").and_then(|word| word.parse().ok()).map(Timeline);
    begin.zip(timeline).ok_or_else(|| Error::io("understand file", &path, "it contains no position or no timeline"))
}

fn histories(wal: &Path) -> Vec<Timeline> {
    let number = |name: &OsStr| u32::from_str_radix(name.to_str()?.strip_suffix(".history")?, 16).ok();
    let entries = std::fs::read_dir(wal).into_iter().flatten().flatten();
    let mut found: Vec<Timeline> = entries.filter_map(|entry| number(&entry.file_name())).map(Timeline).collect();
    found.sort();
    found
}

/// The control file tells the timeline of the last checkpoint. A primary may have been promoted since, and have crashed:
/// then the newest timeline that descends from it and has WAL is meant.
fn timeline(dir: &DataDir, standby: bool, wal: &Wal, histories: &[Timeline]) -> Timeline {
    let told = dir.checkpoint_timeline.max(if standby { dir.min_recovery_timeline } else { Timeline(0) });
    if standby || dir.state == ControlState::ShutDown {
        return told;
    }
    let promoted = |timeline: &Timeline| {
        let descends = history(&wal.dir, *timeline).is_ok_and(|history| {
            history.holds(told)
                && history.begin() >= dir.checkpoint
                && wal.state(*timeline, wal.number(history.begin())).is_ok_and(|state| state != Segment::Missing)
        });
        *timeline > told && descends
    };
    histories.iter().copied().rfind(promoted).unwrap_or(told)
}

fn history(wal: &Path, timeline: Timeline) -> std::result::Result<History, String> {
    if timeline == Timeline(1) {
        return History::parse(timeline, "");
    }
    let path: PathBuf = wal.join(format!("{:08X}.history", timeline.0));
    let text = std::fs::read_to_string(&path).map_err(|cause| Error::io("read file", &path, cause).message)?;
    History::parse(timeline, &text)
}

/// What the pure part wants to know of it.
///
/// # Errors
/// The WAL cannot be read, or it was cancelled.
pub fn content(
    found: &Found,
    (source, remote): (&Source, &Remote),
    journal: Option<&Journal>,
    cancel: &Cancel,
) -> Result<Content> {
    let ruined = journal.is_some_and(|journal| journal.needs_base_backup() || journal.phase == Phase::Swapping);
    let target = match found {
        Found::Nothing | Found::Foreign(_) => return Ok(Content::Nothing),
        Found::Damaged(_) if ruined => return Ok(Content::HalfRewound),
        Found::Damaged(why) => return Ok(Content::Damaged(why.clone())),
        Found::Data(target) => target,
    };
    if ruined || (target.dir.incomplete && journal.is_none()) {
        return Ok(Content::HalfRewound);
    }
    if target.dir.system != source.system {
        return Ok(Content::OtherCluster);
    }
    if target.dir.backup_label && !target.standby {
        return Ok(Content::Damaged(
            "the data directory contains a backup_label, so that its WAL does not show what the data files contain"
                .into(),
        ));
    }
    // A history file that is lost matters only where the source does not know the timeline either.
    let known = || source.history.until(target.timeline);
    let history = match &target.history {
        Ok(history) => history.clone(),
        Err(why) => match known() {
            Some(history) => history,
            None => return Ok(Content::Damaged(why.clone())),
        },
    };
    let lineage = divergence::lineage(&source.history, &history);
    let fork = if let Lineage::Ancestor(_, at) = lineage { at } else { Lsn(0) };
    let unreadable = target.unreadable_wal(fork, cancel)?;
    let beyond = match lineage {
        _ if unreadable.is_some() => None,
        Lineage::Ancestor(timeline, at) => target.wal.first_record(&Span { timeline, from: at, to: None }, cancel)?,
        _ => None,
    };
    // As far as it surely goes; of a standby's on the same timeline, as far as the source has come.
    let common = lineage.common_until().unwrap_or(source.insert).min(target.end());
    let differs = unreadable.is_none() && same::differs(target, source, remote, common, cancel)?;
    let stray = |timeline: &Timeline| *timeline > target.timeline && !source.history.holds(*timeline);
    Ok(Content::Cluster(Cluster {
        standby: target.standby,
        lineage,
        end: target.end(),
        beyond,
        stray: target.histories.iter().copied().find(stray),
        differs: differs.then_some(Lsn(common.0 & !7)),
        unreadable,
    }))
}

impl Target {
    /// The first segment that is missing or truncated although this server has written WAL there: from where its recovery
    /// begins to a primary's checkpoint, and, if the primary crashed, to where the other server left its timeline, which has
    /// that WAL from here. After that, a crashed primary's WAL ends within a segment, unless later ones were lost. Its data files
    /// may contain changes whose WAL is lost.
    fn unreadable_wal(&self, fork: Lsn, cancel: &Cancel) -> Result<Option<String>> {
        let timelines: Vec<Timeline> = self.spans(Lsn(0)).into_iter().map(|span| span.timeline).collect();
        let crashed = !self.standby && !self.dir.backup_label && self.dir.state != ControlState::ShutDown;
        let needed = match self.dir.state {
            _ if self.standby || self.dir.backup_label => Lsn(0),
            ControlState::ShutDown => self.dir.checkpoint,
            _ => self.dir.checkpoint.max(Lsn(fork.0.saturating_sub(1))),
        };
        let mut last = None;
        for number in self.wal.number(self.redo).. {
            let mut states = Vec::new();
            for timeline in &timelines {
                states.push(self.wal.state(*timeline, number)?);
            }
            if let Some(live) = states.iter().rposition(|state| *state == Segment::Live) {
                last = Some(timelines[live]);
                continue;
            }
            let truncated = states.iter().rposition(|state| *state == Segment::Truncated);
            if truncated.is_none() && number > self.wal.number(needed) {
                let Some(last) = last.filter(|_| crashed) else { break };
                let prepared = timelines.iter().any(|timeline| self.wal.is_prepared(*timeline, number));
                if prepared || !self.wal.is_full(last, number - 1, cancel)? {
                    break;
                }
            }
            let newest = truncated.map_or(self.timeline, |index| timelines[index]);
            return Ok(Some(self.wal.file(newest, number).display().to_string()));
        }
        Ok(None)
    }

    /// Its WAL surely goes up to here. At the checkpoint of a primary lies a record; a standby's position is an end.
    fn end(&self) -> Lsn {
        match (self.dir.backup_label, self.standby) {
            (true, _) => self.redo,
            (false, true) => self.min_recovery.max(self.dir.checkpoint),
            (false, false) => Lsn(self.dir.checkpoint.0 + 1),
        }
    }

    /// Where what only it has begins; `None` where that is nothing.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn parted(&self, own: Own) -> Result<Option<Lsn>> {
        match own {
            Own::Nothing => Ok(None),
            Own::From(_, at) => Ok(Some(at)),
            Own::Unknown => {
                let first = self.wal.first_until(self.timeline, self.wal.number(self.redo))?;
                let from = first.map_or(self.redo, |number| Lsn(number * self.wal.size));
                Ok(Some(from.max(self.history.as_ref().map_or(Lsn(0), History::begin))))
            }
        }
    }

    /// Its WAL from this position on, by timelines.
    pub fn spans(&self, from: Lsn) -> Vec<Span> {
        let parts = match &self.history {
            Ok(history) => history.after(from),
            Err(_) => vec![(self.timeline, from, None)],
        };
        parts.into_iter().map(|(timeline, from, to)| Span { timeline, from, to }).collect()
    }

    /// Whether it is a standby's that was not shut down cleanly. One that runs will be.
    pub fn is_crashed_standby(&self) -> bool {
        let standby = self.standby || self.dir.standby_signal || self.dir.backup_label;
        standby && !self.clean && !self.dir.running
    }

    /// What an earlier rebuild has put aside where `pg_rewind` would delete it.
    pub fn aside(&self) -> Option<String> {
        let spaces = std::fs::read_dir(self.data.join("pg_tblspc")).into_iter().flatten().flatten().map(|e| e.path());
        let places = spaces.chain([self.wal.dir.clone()]);
        let entries = places.flat_map(|place| std::fs::read_dir(place).into_iter().flatten().flatten());
        let found = entries
            .map(|entry| entry.path())
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("rebuild-")));
        found.map(|path| path.display().to_string())
    }

    /// The WAL that the source must have for a standby that is started from this directory: from where its own ends.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn asks_from(&self) -> Result<Lsn> {
        let known = self.end().max(self.redo);
        let last = self.wal.last_from(self.timeline, self.wal.number(self.redo))?;
        Ok(if last.is_some_and(|last| last >= self.wal.number(known)) { known } else { self.redo })
    }

    /// Where a recovery begins that starts from the last checkpoint before this position, which is what `pg_rewind` makes
    /// the target do; `None` where the WAL back to there is missing.
    ///
    /// # Errors
    /// As [`Wal::records`].
    pub fn checkpoint_before(&self, at: Lsn, cancel: &Cancel) -> Result<Option<Lsn>> {
        let mut parts = self.spans(Lsn(0));
        parts.retain(|span| span.from < at);
        for span in parts.into_iter().rev() {
            let end = span.to.map_or(at, |to| to.min(at));
            for number in (self.wal.number(span.from)..=self.wal.number(Lsn(end.0 - 1))).rev() {
                if !self.wal.is_live(span.timeline, number)? {
                    return Ok(None);
                }
                let begin = Lsn(number * self.wal.size);
                let to = end.min(Lsn((number + 1) * self.wal.size));
                let part = Span { timeline: span.timeline, from: begin.max(span.from), to: Some(to) };
                let mut redo = None;
                self.wal.checkpoints(&part, cancel, |found| redo = Some(found))?;
                if let Some(redo) = redo {
                    let first = self.wal.first_until(span.timeline, number)?;
                    return Ok(first.filter(|first| *first <= self.wal.number(redo)).map(|_| redo));
                }
            }
        }
        Ok(None)
    }

    /// Where its WAL ends, found by reading it: its last record.
    ///
    /// # Errors
    /// As [`Wal::records`].
    pub fn last_record(&self, cancel: &Cancel) -> Result<Lsn> {
        let mut last = self.redo;
        let span = Span { timeline: self.timeline, from: self.redo, to: None };
        self.wal.records(&span, cancel, |line| {
            last = wal::position(line).unwrap_or(last);
            true
        })?;
        Ok(last)
    }
}
