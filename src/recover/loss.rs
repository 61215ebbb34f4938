//! What a recovery loses compared with the present primary: the commits after the target in the WAL that this server can read. Only
//! reads, and only for a short time: what it counts is then a lower bound.

use super::Target;
use super::target::At;
use crate::backup::{Backup, Chain, Holdings, chain_of, reach};
use crate::error::{Error, Result};
use crate::fsm::types::{Lsn, SystemId, Timeline};
use crate::pg::bounded::Cancel;
use crate::pg::files;
use crate::rebuild::{Commit, Span, Wal};
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// How long the WAL is read.
const LIMIT: Duration = Duration::from_secs(10);
/// The directory of links to segments in the run-time directory, with the number of the process.
const LINKS: &str = "recover.wal.";
/// By how much the clock of a server may have been adjusted, ms.
const ADJUSTED_MS: u64 = 60_000;

/// A recovery, and where its WAL is.
#[derive(Debug)]
pub struct Question<'a> {
    /// The backup that is restored.
    pub backup: &'a Backup,
    /// The target.
    pub target: &'a Target,
    /// The timeline that the operator has selected.
    pub timeline: Option<u32>,
    /// The WAL of both archives.
    pub holdings: &'a Holdings,
    /// The directories of WAL that this server can read: its `pg_wal`, then its archive.
    pub dirs: &'a [PathBuf],
    /// The run-time directory.
    pub run_dir: &'a Path,
    /// Where PostgreSQL's programs are.
    pub bin_dir: &'a Path,
    /// Where the WAL of the present primary ends.
    pub end: End,
}

/// Where the WAL of the present primary ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// At this position.
    At(Lsn),
    /// Where that of this server ends, which was the primary.
    Own,
    /// That is not known.
    Unknown,
}

/// What a recovery loses.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Loss {
    /// How many commits; `None` if that is not known.
    pub transactions: Option<u64>,
    /// Why there may be more.
    pub incomplete: Option<String>,
    /// The time of the first and of the last of these commits.
    pub first_commit: Option<String>,
    /// See `first_commit`.
    pub last_commit: Option<String>,
    /// The time of the last commit before them.
    pub last_recovered: Option<String>,
    /// The timeline that has commits up to the target which are not on the way to the newest timeline.
    pub discarded: Option<Discarded>,
    /// The recovery follows a selected timeline that the present one has left.
    pub elsewhere: bool,
}

/// Commits up to the target that an earlier recovery has discarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Discarded {
    /// This timeline has such commits.
    On(u32),
    /// This timeline can have them: its WAL is only in the archive of the other server.
    PerhapsOn(u32),
}

/// Reads the WAL for it. What cannot be read is not counted.
pub fn loss(question: &Question) -> Loss {
    let mut found = Loss::default();
    if let Err(error) = read(question, &mut found) {
        found.incomplete = Some(error.message);
    }
    found
}

fn read(question: &Question, found: &mut Loss) -> Result<()> {
    let holdings = question.dirs.iter().fold(question.holdings.clone(), |all, dir| all.with_histories_in(dir));
    let recovered = chain_of(question.backup, &holdings, question.timeline)?;
    let present = holdings.chain(holdings.newest_timeline().max(question.backup.timeline));
    let diverged = divergence(&recovered, &present);
    found.elsewhere = question.timeline.is_some() && diverged.is_some();
    let (canceller, cancel) = Cancel::new();
    std::thread::spawn(move || {
        std::thread::sleep(LIMIT);
        drop(canceller);
    });
    let source = Source::new(question)?;
    let mut reader = Reader { question, source, chain: present, diverged, cancel, found };
    let read = if question.target.is_latest() && diverged.is_none() { reader.last_commit() } else { reader.count() };
    read.map_err(|error| match reader.cancel.is_set() {
        true => Error::new(format!("reading the WAL took longer than {} s", LIMIT.as_secs())),
        false => error,
    })
}

/// Where the present timeline leaves the way of the recovery; `None` if both are the same.
fn divergence(recovered: &Chain, present: &Chain) -> Option<Lsn> {
    let same = recovered.iter().zip(present).take_while(|(one, other)| one == other).count();
    let begins = [recovered.get(same), present.get(same)].into_iter().flatten().map(|(_, begin)| *begin);
    begins.min()
}

/// One directory with all segments, as `pg_waldump` requires.
struct Source {
    wal: Wal,
    dirs: Vec<Wal>,
}

impl Drop for Source {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.wal.dir);
    }
}

/// A segment that can be read.
struct Linked {
    timeline: u32,
    number: u64,
    /// When it was written last, ms since 1970.
    written_ms: u64,
}

impl Source {
    fn new(question: &Question) -> Result<Source> {
        let system = question.backup.system_identifier.parse().map(SystemId).unwrap_or_default();
        let wal = |dir: &Path| Wal {
            dir: dir.to_owned(),
            bin_dir: question.bin_dir.to_owned(),
            size: question.backup.segment_size.max(1),
            system,
        };
        let links = question.run_dir.join(format!("{LINKS}{}", std::process::id()));
        remove_leftovers(question.run_dir)?;
        let created = DirBuilder::new().mode(0o700).create(&links);
        created.map_err(|cause| Error::io("create directory", &links, cause))?;
        Ok(Source { wal: wal(&links), dirs: question.dirs.iter().map(|dir| wal(dir)).collect() })
    }

    /// The file of a segment on this server.
    fn file(&self, timeline: u32, number: u64) -> Option<PathBuf> {
        let live = |wal: &&Wal| wal.is_live(Timeline(timeline), number).unwrap_or(false);
        Some(self.dirs.iter().find(live)?.file(Timeline(timeline), number))
    }

    /// Gives the directory the segment of this name, which has the contents of the first of these timelines that has it.
    fn link(&self, timelines: &[u32], number: u64) -> Option<Linked> {
        let of = |timeline: &u32| self.file(*timeline, number);
        let (name, from) = (*timelines.first()?, timelines.iter().find_map(of)?);
        let to = self.wal.file(Timeline(name), number);
        if to.symlink_metadata().is_err() {
            symlink(&from, &to).ok()?;
        }
        let written = from.metadata().and_then(|meta| meta.modified()).ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some(Linked { timeline: name, number, written_ms: written.as_millis() as u64 })
    }
}

/// Removes what commands that were killed have left.
fn remove_leftovers(run_dir: &Path) -> Result<()> {
    for path in files::entries(run_dir) {
        let pid: Option<u32> = path.file_name().and_then(|name| name.to_str()?.strip_prefix(LINKS)?.parse().ok());
        let running = |pid: &u32| *pid != std::process::id() && Path::new("/proc").join(pid.to_string()).exists();
        if pid.is_some_and(|pid| !running(&pid)) {
            files::remove(&path)?;
        }
    }
    Ok(())
}

struct Reader<'a> {
    question: &'a Question<'a>,
    source: Source,
    /// The timelines to the present one.
    chain: Chain,
    diverged: Option<Lsn>,
    cancel: Cancel,
    found: &'a mut Loss,
}

impl Reader<'_> {
    fn size(&self) -> u64 {
        self.source.wal.size
    }

    /// Makes every segment of the present timelines from this position on readable.
    fn link_from(&mut self, from: Lsn) -> Result<Vec<Linked>> {
        let size = self.size();
        let mut linked: Vec<Linked> = Vec::new();
        for (index, (timeline, begin)) in self.chain.iter().enumerate() {
            let next = self.chain.get(index + 1);
            if next.is_some_and(|(_, end)| *end <= from) {
                continue;
            }
            let last = next.map(|(_, end)| end.0.saturating_sub(1) / size);
            let mut number = (*begin).max(from).0 / size;
            while last.is_none_or(|last| number <= last) {
                self.cancel.check()?;
                // A timeline begins with a copy of the segment in which it leaves the one before.
                let copy = next.filter(|(_, end)| end.0 / size == number).map(|(timeline, _)| *timeline);
                let names: Vec<u32> = [*timeline].into_iter().chain(copy).collect();
                match self.source.link(&names, number) {
                    Some(segment) => linked.push(segment),
                    None => break,
                }
                number += 1;
            }
            let ended = match (last, self.question.end) {
                (Some(last), _) => number > last,
                (None, End::At(end)) => number * size >= end.0,
                (None, End::Own) => true,
                (None, End::Unknown) => {
                    self.found.incomplete = Some("the end of the primary's WAL is not known".to_owned());
                    break;
                }
            };
            if !ended {
                let name = self.source.wal.file(Timeline(*timeline), number);
                let name = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
                self.found.incomplete = Some(format!("WAL segment {name} is not on this server"));
                break;
            }
        }
        Ok(linked)
    }

    /// The parts of these segments on their timelines, from this position on.
    fn spans(&self, linked: &[Linked], from: Lsn) -> Vec<Span> {
        let has = |timeline: u32| linked.iter().any(|segment| segment.timeline == timeline);
        let parts = self.chain.iter().enumerate().filter(|(_, (timeline, _))| has(*timeline));
        let span = |(index, (timeline, begin)): (usize, &(u32, Lsn))| Span {
            timeline: Timeline(*timeline),
            from: from.max(*begin),
            to: self.chain.get(index + 1).map(|(_, end)| *end),
        };
        parts.map(span).collect()
    }

    /// Counts the commits after the target.
    fn count(&mut self) -> Result<()> {
        let backup = self.question.backup.end();
        let first = self.diverged.map_or(backup, |diverged| diverged.min(backup));
        let linked = self.link_from(first)?;
        let from = self.begin(&linked).map_or(first, |begin| begin.max(first));
        let spans = self.spans(&linked, from);
        let named = match self.question.target {
            Target::Name(name) => {
                let mut points = spans.iter().map(|span| self.source.wal.restore_point(span, name, &self.cancel));
                let found = points.find_map(Result::transpose).transpose()?;
                if found.is_none() && self.diverged.is_none() {
                    self.found.incomplete = Some(format!("{} is not in the WAL on this server", self.question.target));
                    return Ok(());
                }
                found
            }
            _ => None,
        };
        let (target, diverged) = (self.question.target, self.diverged);
        let mut passed = None;
        let mut transactions = 0;
        let found = &mut *self.found;
        let mut commit = |commit: Commit| {
            let at = commit.time.parse::<At>();
            let passes = diverged.is_some_and(|diverged| commit.at >= diverged)
                || match target {
                    Target::Latest => false,
                    Target::Immediate => commit.at >= backup,
                    Target::Time(limit) => at.is_ok_and(|at| at.us > limit.us),
                    Target::Name(_) => named.is_some_and(|named| commit.at > named),
                    Target::Lsn(_) => target.position().is_some_and(|lsn| commit.at > lsn),
                    Target::Xid(_) => false,
                };
            passed = passed.or(passes.then_some(commit.at));
            let time = Some(commit.time.to_owned());
            if passed.is_some() {
                transactions += 1;
                if found.first_commit.is_none() {
                    found.first_commit.clone_from(&time);
                }
                found.last_commit = time;
            } else {
                found.last_recovered = time;
            }
            let is_target = matches!(target, Target::Xid(xid) if commit.xid == Some(*xid));
            passed = passed.or(is_target.then_some(commit.at));
            true
        };
        let read = spans.iter().try_for_each(|span| self.source.wal.commits(span, &self.cancel, &mut commit));
        // A count of what was read before the limit is a lower bound.
        if read.is_ok() || transactions > 0 {
            self.found.transactions = Some(transactions);
        }
        if self.found.elsewhere {
            // The other timeline can have later commits.
            self.found.last_recovered = None;
        }
        read?;
        if let Target::Time(limit) = self.question.target
            && self.question.timeline.is_none()
        {
            self.found.discarded = self.discarded(limit, passed)?;
        }
        Ok(())
    }

    /// Where reading begins: a segment before the first one that can have a commit after the target.
    fn begin(&self, linked: &[Linked]) -> Option<Lsn> {
        let early = |segment: &&Linked| match self.question.target {
            Target::Time(at) => (segment.written_ms + ADJUSTED_MS) as i64 * 1000 < at.us,
            Target::Lsn(_) => {
                self.question.target.position().is_some_and(|lsn| (segment.number + 2) * self.size() < lsn.0)
            }
            _ => false,
        };
        linked.iter().rfind(early).map(|segment| Lsn(segment.number * self.size()))
    }

    /// The timeline that has commits up to this time which a recovery has discarded, if the first commit of the timeline that
    /// follows it is later. `passed`: where the first commit after this time is on the present timelines.
    fn discarded(&self, limit: &At, passed: Option<Lsn>) -> Result<Option<Discarded>> {
        for (index, (timeline, fork)) in self.chain.iter().enumerate().skip(1) {
            if *fork < self.question.backup.end() {
                continue;
            }
            let (parent, _) = self.chain[index - 1];
            let first = |timeline: u32, to: Option<Lsn>| -> Result<Option<i64>> {
                let mut found = None;
                let span = Span { timeline: Timeline(timeline), from: *fork, to };
                self.source.wal.commits(&span, &self.cancel, |commit| {
                    found = commit.time.parse::<At>().ok().map(|at| at.us);
                    false
                })?;
                Ok(found)
            };
            let next = self.chain.get(index + 1).map(|(_, end)| *end);
            if passed.is_some_and(|at| at < *fork) || first(*timeline, next)?.is_some_and(|us| us <= limit.us) {
                continue;
            }
            let mut number = fork.0 / self.size();
            if self.source.file(parent, number).is_none() {
                let name = self.source.wal.file(Timeline(parent), number);
                let name = name.file_name().unwrap_or_default().to_string_lossy();
                if self.question.holdings.contains(&name) {
                    return Ok(Some(Discarded::PerhapsOn(parent)));
                }
                continue;
            }
            // Of the segment in which the timeline was left, the copy of the next one shows nothing.
            while self.source.link(&[parent], number).is_some() {
                number += 1;
            }
            if first(parent, None)?.is_some_and(|us| us <= limit.us) {
                return Ok(Some(Discarded::On(parent)));
            }
        }
        Ok(None)
    }

    /// Finds the last commit in the WAL.
    fn last_commit(&mut self) -> Result<()> {
        let Question { backup, holdings, timeline, .. } = *self.question;
        let linked = self.link_from(backup.end())?;
        // The end of this server's WAL is that of the recovery, unless the other archive leads further.
        let until = linked.last().map_or(backup.end(), |last| Lsn((last.number + 1) * self.size()));
        let further = reach(backup, holdings, timeline)?.until > until;
        self.found.incomplete = further.then(|| "the archive of the other server has later WAL".to_owned());
        for segment in linked.iter().rev() {
            let begin = Lsn(segment.number * self.size());
            let mut spans = self.spans(std::slice::from_ref(segment), begin);
            spans.retain_mut(|span| {
                span.to = Some(span.to.map_or(Lsn(begin.0 + self.size()), |to| to.min(Lsn(begin.0 + self.size()))));
                span.to > Some(span.from)
            });
            let found = &mut self.found.last_recovered;
            for span in spans {
                self.source.wal.commits(&span, &self.cancel, |commit| {
                    *found = Some(commit.time.to_owned());
                    true
                })?;
            }
            if self.found.last_recovered.is_some() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::{Archive, Destination, sample_backup};

    /// A recovery along a timeline that an earlier one has left, of which nothing can be read.
    #[test]
    fn a_selected_timeline_is_known_without_wal() {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::new(Destination::new(dir.path()));
        std::fs::create_dir(archive.dir()).unwrap();
        std::fs::write(archive.dir().join("00000002.history"), "1\t0/2800000\tbefore 2026-11-30\n").unwrap();
        let found = loss(&Question {
            backup: &sample_backup(1, 0x200_0100),
            target: &Target::time("2026-11-30 14:05Z").unwrap(),
            timeline: Some(1),
            holdings: &Holdings::read(&archive).unwrap(),
            dirs: &[],
            run_dir: &dir.path().join("missing"),
            bin_dir: Path::new("/"),
            end: End::Own,
        });
        assert!(found.elsewhere && found.incomplete.is_some_and(|why| why.contains("recover.wal.")));
    }

    #[test]
    fn where_timelines_diverge() {
        let (one, two, three) = ((1, Lsn(0)), (2, Lsn(20)), (3, Lsn(10)));
        assert_eq!(divergence(&vec![one, two], &vec![one, two]), None);
        // A timeline that was abandoned, and one that was begun from an earlier one.
        assert_eq!(divergence(&vec![one], &vec![one, two]), Some(Lsn(20)));
        assert_eq!(divergence(&vec![one, two], &vec![one, three]), Some(Lsn(10)));
    }
}
