//! What an old primary had and the new one has not: kept aside and summarised before anything is overwritten.

use super::target::{self, Found};
use super::wal::{self, Span, Wal};
use super::{Plan, Setup, now_ms, source, stamp};
use crate::error::{Error, Result};
use crate::fsm::event::Doubt;
use crate::fsm::types::Lsn;
use crate::pg::bounded::Cancel;
use crate::pg::connect::Remote;
use crate::pg::files;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// As many relations are named.
const NAMED: usize = 100;

/// As many are noticed, so that memory is bounded.
const NOTICED: usize = 10_000;

/// How long asking for names may take, in each database.
const NAMES: Duration = Duration::from_secs(10);

/// WAL that only the server that lost its role has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lost {
    /// When it was kept, ms since the epoch.
    pub time_ms: u64,
    /// Its timeline.
    pub timeline: u32,
    /// Where the two diverged, and where this server's WAL ends.
    pub from: String,
    /// See `from`.
    pub to: String,
    /// Committed transactions in it.
    pub transactions: u64,
    /// Time of the first and of the last commit, as pg_waldump tells them; empty for none.
    pub first_commit: String,
    /// See `first_commit`.
    pub last_commit: String,
    /// Relations that were changed: `database.schema.name`, or the file's numbers where the name is not known.
    pub relations: Vec<String>,
    /// There are more than `relations` holds.
    pub more_relations: bool,
    /// Some may have been acknowledged.
    pub maybe_acknowledged: bool,
    /// Why; a record of an older version has only `maybe_acknowledged`.
    #[serde(default)]
    pub doubt: Doubt,
    /// The directory in which the WAL is kept; empty before it is.
    pub kept: PathBuf,
}

/// A relation's file: tablespace, database, file number.
type FileNumbers = (u32, u32, u32);

/// What was found in the WAL.
#[derive(Default)]
struct Survey {
    records: u64,
    end: Lsn,
    transactions: u64,
    first_commit: String,
    last_commit: String,
    relations: BTreeSet<FileNumbers>,
    more: bool,
}

/// Reads these parts of the WAL, and sums them up; `None` where nothing is in them. Names are asked of the other server,
/// as far as it knows them.
///
/// # Errors
/// The WAL cannot be read, or it was cancelled.
pub(super) fn survey(wal: &Wal, spans: &[Span], doubt: Doubt, names: &Remote, cancel: &Cancel) -> Result<Option<Lost>> {
    let Some((first, last)) = spans.first().zip(spans.last()) else { return Ok(None) };
    let mut found = Survey::default();
    for span in spans {
        wal.records(span, cancel, |line| {
            found.add(line);
            true
        })?;
    }
    if found.records == 0 {
        return Ok(None);
    }
    let mut relations = named(&found.relations, names, cancel)?;
    let more_relations = found.more || relations.len() > NAMED;
    relations.truncate(NAMED);
    Ok(Some(Lost {
        time_ms: now_ms(),
        timeline: last.timeline.0,
        from: first.from.to_string(),
        to: found.end.to_string(),
        transactions: found.transactions,
        first_commit: found.first_commit,
        last_commit: found.last_commit,
        relations,
        more_relations,
        maybe_acknowledged: doubt != Doubt::None,
        doubt,
        kept: PathBuf::new(),
    }))
}

impl Survey {
    fn add(&mut self, line: &str) {
        let Some(at) = wal::position(line) else { return };
        self.records += 1;
        let length = wal::field(line, "len (rec/tot):").is_some().then(|| total_length(line)).flatten().unwrap_or(0);
        // Records begin at multiples of 8.
        self.end = self.end.max(Lsn((at.0 + length).next_multiple_of(8)));
        if let Some(time) = wal::commit_time(line) {
            self.transactions += 1;
            if self.first_commit.is_empty() {
                time.clone_into(&mut self.first_commit);
            }
            time.clone_into(&mut self.last_commit);
        }
        if !changes_rows(line) {
            return;
        }
        for part in line.split("blkref #").skip(1) {
            let Some(file) = wal::field(part, ": rel ").and_then(file_numbers) else { continue };
            if self.relations.len() >= NOTICED && !self.relations.contains(&file) {
                self.more = true;
            } else {
                self.relations.insert(file);
            }
        }
    }
}

/// `len (rec/tot):     34/    34,`
fn total_length(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("len (rec/tot):")?;
    rest.split(',').next()?.split('/').nth(1)?.trim().parse().ok()
}

/// Whether a record changes rows: not locks, hints, vacuum or full pages. Indexes follow their tables.
fn changes_rows(line: &str) -> bool {
    let desc = line.split_once("desc: ").map_or("", |(_, desc)| desc);
    let kind = desc.split([' ', '+']).next().unwrap_or("");
    match line.strip_prefix("rmgr: ").and_then(|rest| rest.split_whitespace().next()) {
        Some("Heap") => !["LOCK", "INPLACE", "CONFIRM"].contains(&kind),
        Some("Heap2") => kind == "MULTI_INSERT",
        Some("Sequence") => true,
        _ => false,
    }
}

/// `1663/5/16385`
fn file_numbers(text: &str) -> Option<FileNumbers> {
    let mut numbers = text.split('/').map(str::parse);
    let numbers = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(numbers)
}

// -------------------------------------------------------------------------------------------------------------- names

/// Their names, users' relations first; the numbers of those that the other server does not know.
fn named(files: &BTreeSet<FileNumbers>, remote: &Remote, cancel: &Cancel) -> Result<Vec<String>> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let databases = databases(remote, cancel).unwrap_or_default();
    cancel.check()?;
    let mut by_database: BTreeMap<u32, Vec<FileNumbers>> = BTreeMap::new();
    for file in files {
        by_database.entry(file.1).or_default().push(*file);
    }
    let (mut own, mut system, mut unknown) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (database, files) in by_database {
        // Relations that all databases share are known in each.
        let name = if database == 0 { Some(&remote.dbname) } else { databases.get(&database) };
        let known = name.map(|name| relations(remote, name, &files, cancel));
        cancel.check()?;
        let known = known.and_then(Result::ok).unwrap_or_default();
        for (index, file) in files.iter().enumerate() {
            match (known.get(&index), name) {
                (Some(relation), Some(_)) if database == 0 => _ = system.insert(relation.clone()),
                (Some(relation), Some(name)) if relation.starts_with("pg_catalog.") => {
                    system.insert(format!("{name}.{relation}"));
                }
                (Some(relation), Some(name)) => _ = own.insert(format!("{name}.{relation}")),
                _ => _ = unknown.insert(format!("{}/{}/{}", file.0, file.1, file.2)),
            }
        }
    }
    Ok(own.into_iter().chain(unknown).chain(system).collect())
}

fn databases(remote: &Remote, cancel: &Cancel) -> Result<BTreeMap<u32, String>> {
    let sql = "SELECT oid, datname FROM pg_database WHERE datallowconn";
    let rows = source::ask(remote, NAMES, cancel, move |session| session.query(sql, NAMES))?;
    let pair = |row: Vec<Option<String>>| {
        let mut columns = row.into_iter();
        Some((columns.next()??.parse().ok()?, columns.next()??))
    };
    Ok(rows.into_iter().filter_map(pair).collect())
}

/// `schema.name` of each file's relation, by its place in `files`; of a TOAST table, the table that it belongs to.
fn relations(
    remote: &Remote,
    database: &str,
    files: &[FileNumbers],
    cancel: &Cancel,
) -> Result<BTreeMap<usize, String>> {
    let list = |number: fn(&FileNumbers) -> u32| {
        files.iter().map(|file| number(file).to_string()).collect::<Vec<_>>().join(",")
    };
    let sql = format!(
        "SELECT v.n, concat(s.nspname, '.', c.relname) \
         FROM unnest('{{{}}}'::oid[], '{{{}}}'::oid[]) WITH ORDINALITY v(space, file, n) \
         JOIN pg_class t ON t.oid = pg_filenode_relation(v.space, v.file) \
         LEFT JOIN pg_class o ON o.reltoastrelid = t.oid AND t.relkind = 't' \
         JOIN pg_class c ON c.oid = coalesce(o.oid, t.oid) JOIN pg_namespace s ON s.oid = c.relnamespace",
        list(|file| file.0),
        list(|file| file.2)
    );
    let remote = Remote { dbname: database.to_owned(), ..remote.clone() };
    let rows = source::ask(&remote, NAMES, cancel, move |session| session.query(&sql, NAMES))?;
    let pair = |row: Vec<Option<String>>| {
        let mut columns = row.into_iter();
        Some((columns.next()??.parse::<usize>().ok()?.checked_sub(1)?, columns.next()??))
    };
    Ok(rows.into_iter().filter_map(pair).collect())
}

// --------------------------------------------------------------------------------------------------------------- keep

fn home(run_dir: &Path) -> PathBuf {
    run_dir.join("lost")
}

const SUMMARY: &str = "summary.json";

/// The segments in which these parts of the WAL lie.
///
/// # Errors
/// A segment cannot be read.
pub(super) fn segments(wal: &Wal, spans: &[Span]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for span in spans {
        let first = wal.number(span.from);
        let Some((last, _)) = wal.last_file(span.timeline, first)? else { continue };
        let last = span.to.map_or(last, |to| last.min(wal.number(Lsn(to.0.saturating_sub(1)))));
        files.extend((first..=last).map(|number| wal.file(span.timeline, number)));
        files.push(wal.dir.join(format!("{:08X}.history", span.timeline.0)));
    }
    files.retain(|file| file.exists());
    Ok(files)
}

/// Copies the WAL that the plan calls lost into the run-time directory, with its summary; durable on return. What is kept
/// already (by an earlier attempt at the same rebuild) is not copied again. Returns the summary with its directory; `None`
/// where nothing is lost. To be called before anything changes the data directory, recovery from a crash included.
///
/// # Errors
/// A file could not be read or written, or it was cancelled; nothing is left then that [`list`] would find.
pub(super) fn keep(setup: &Setup, plan: &Plan, cancel: &Cancel) -> Result<Option<Lost>> {
    let Some(lost) = &plan.lost else { return Ok(None) };
    let Found::Data(found) = target::look(setup)? else { return Ok(None) };
    let from = lost.from.parse().map_err(Error::new)?;
    copy(&setup.run_dir, &found.wal, &found.spans(from), lost, cancel).map(Some)
}

fn copy(run_dir: &Path, wal: &Wal, spans: &[Span], lost: &Lost, cancel: &Cancel) -> Result<Lost> {
    // Its end may have moved by a recovery from a crash.
    let same =
        |kept: &Lost| (kept.timeline, &kept.from, kept.transactions) == (lost.timeline, &lost.from, lost.transactions);
    if let Some(kept) = list(run_dir)?.into_iter().find(same) {
        return Ok(kept);
    }
    let home = home(run_dir);
    let make = |dir: &Path| {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|cause| Error::io("create directory", dir, cause))
    };
    make(&home)?;
    files::sync_parent(&home)?;
    let target = home.join(stamp(lost.time_ms));
    let new = home.join("unfinished");
    if new.exists() {
        std::fs::remove_dir_all(&new).map_err(|cause| Error::io("remove directory", &new, cause))?;
    }
    make(&new)?;
    for file in segments(wal, spans)? {
        cancel.check()?;
        let copy = new.join(file.file_name().unwrap_or_default());
        let copied = std::fs::copy(&file, &copy).and_then(|_| File::open(&copy)?.sync_all());
        copied.map_err(|cause| {
            Error::new(format!("could not copy file \"{}\" to \"{}\": {cause}", file.display(), copy.display()))
        })?;
    }
    let kept = Lost { kept: target.clone(), ..lost.clone() };
    let text = serde_json::to_vec_pretty(&kept).map_err(|cause| Error::io("write the summary in", &new, cause))?;
    files::replace(&new.join(SUMMARY), &text, None)?;
    std::fs::rename(&new, &target).map_err(|cause| Error::io("create directory", &target, cause))?;
    files::sync_parent(&target)?;
    Ok(kept)
}

/// As many directories are kept, and as many bytes in them.
const MAX_COUNT: usize = 16;
const MAX_BYTES: u64 = 4 << 30;

/// Removes the oldest of what is kept, where it is too much; the newest stays. Returns what was removed.
///
/// # Errors
/// A directory cannot be read or removed.
pub fn prune(run_dir: &Path) -> Result<Vec<Lost>> {
    prune_to(run_dir, MAX_COUNT, MAX_BYTES)
}

fn prune_to(run_dir: &Path, count: usize, bytes: u64) -> Result<Vec<Lost>> {
    let home = home(run_dir);
    let (mut removed, mut kept, mut total) = (Vec::new(), 0, 0_u64);
    for lost in list(run_dir)?.into_iter().rev() {
        // A summary that was copied from elsewhere names a directory that is not here.
        if lost.kept.parent() != Some(&home) {
            continue;
        }
        let sizes = files::entries(&lost.kept).into_iter().map(|file| file.metadata().map_or(0, |found| found.len()));
        (kept, total) = (kept + 1, total + sizes.sum::<u64>());
        if kept > 1 && (kept > count || total > bytes) {
            files::remove(&lost.kept)?;
            removed.push(lost);
        }
    }
    Ok(removed)
}

/// All that was kept by rebuilds of this server, oldest first. A summary that cannot be read is passed over.
///
/// # Errors
/// The run-time directory cannot be read.
pub fn list(run_dir: &Path) -> Result<Vec<Lost>> {
    let home = home(run_dir);
    let entries = match std::fs::read_dir(&home) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(Error::io("open directory", &home, cause)),
    };
    let mut found: Vec<Lost> = Vec::new();
    for entry in entries {
        let path = entry.map_err(|cause| Error::io("read directory", &home, cause))?.path();
        let summary = std::fs::read(path.join(SUMMARY)).ok().and_then(|text| serde_json::from_slice(&text).ok());
        found.extend(summary.filter(|_| path.file_name().is_some_and(|name| name != "unfinished")));
    }
    found.sort_by_key(|lost| lost.time_ms);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsm::types::{SystemId, Timeline};

    fn survey_of(lines: &[&str]) -> Survey {
        let mut found = Survey::default();
        lines.iter().for_each(|line| found.add(line));
        found
    }

    #[test]
    fn records_are_summed_up() {
        let found = survey_of(&[
            "rmgr: XLOG        len (rec/tot):     49/  8209, tx:          0, lsn: 0/03000028, prev 0/03000000, desc: FPI_FOR_HINT , blkref #0: rel 1663/5/1259 blk 0 FPW",
            "rmgr: Heap        len (rec/tot):     59/    59, tx:        735, lsn: 0/03000100, prev 0/03000028, desc: INSERT off 2 flags 0x00, blkref #0: rel 1663/5/16384 blk 0",
            "rmgr: Heap        len (rec/tot):     54/    54, tx:        735, lsn: 0/03000140, prev 0/03000100, desc: LOCK off 4: xid 735: flags 0x00 LOCK_ONLY EXCL_LOCK , blkref #0: rel 1663/5/16999 blk 0",
            "rmgr: Heap2       len (rec/tot):     60/  6708, tx:        736, lsn: 0/03000180, prev 0/03000140, desc: MULTI_INSERT+INIT 226 tuples flags 0x02, blkref #0: rel 1663/5/16390 blk 0, blkref #1: rel 1663/5/16391 fork vm blk 0",
            "rmgr: Transaction len (rec/tot):     34/    34, tx:        735, lsn: 0/03002000, prev 0/03000180, desc: COMMIT 2026-11-23 10:00:00.123456 UTC",
            "rmgr: Transaction len (rec/tot):     34/    34, tx:        737, lsn: 0/03002028, prev 0/03002000, desc: ABORT 2026-11-23 10:00:01.123456 UTC",
            "rmgr: Transaction len (rec/tot):    250/   250, tx:        736, lsn: 0/03002050, prev 0/03002028, desc: COMMIT 2026-11-23 10:00:02.5 UTC; inval msgs: catcache 21",
            "rmgr: Transaction len (rec/tot):     82/    82, tx:          0, lsn: 0/03002150, prev 0/03002050, desc: COMMIT_PREPARED 730: 2026-11-23 10:00:03.5 UTC",
            "pg_waldump: something else",
        ]);
        assert_eq!((found.records, found.transactions, found.end), (8, 3, Lsn(0x300_21A8)));
        assert_eq!(found.first_commit, "2026-11-23 10:00:00.123456 UTC");
        assert_eq!(found.last_commit, "2026-11-23 10:00:03.5 UTC");
        let expected = [(1663, 5, 16384), (1663, 5, 16390), (1663, 5, 16391)];
        assert_eq!(found.relations.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn wal_is_kept_once_and_listed() {
        let dir = tempfile::tempdir().unwrap();
        let (run_dir, size) = (dir.path().join("run"), 1 << 20);
        let wal = Wal { dir: dir.path().join("pg_wal"), bin_dir: PathBuf::new(), size, system: SystemId(9) };
        std::fs::create_dir(&wal.dir).unwrap();
        let segment = |number: u64| {
            let mut text = vec![0_u8; size as usize];
            text[8..16].copy_from_slice(&(number * size).to_ne_bytes());
            text[24..32].copy_from_slice(&9_u64.to_ne_bytes());
            text
        };
        for number in 3..6 {
            std::fs::write(wal.file(Timeline(2), number), segment(number)).unwrap();
        }
        // One that was made in advance.
        std::fs::write(wal.file(Timeline(2), 6), segment(1)).unwrap();
        std::fs::write(wal.dir.join("00000002.history"), "1\t0/300000\tx\n").unwrap();
        let spans = [Span { timeline: Timeline(2), from: Lsn(0x0040_0100), to: None }];
        let lost = Lost {
            time_ms: 1_795_453_905_000,
            timeline: 2,
            from: "0/400100".into(),
            to: "0/500200".into(),
            transactions: 3,
            first_commit: String::new(),
            last_commit: String::new(),
            relations: vec!["a.b.c".into()],
            more_relations: false,
            maybe_acknowledged: true,
            doubt: Doubt::Forced,
            kept: PathBuf::new(),
        };
        assert_eq!(list(&run_dir), Ok(Vec::new()));
        // One that was killed leaves nothing that is listed.
        std::fs::create_dir_all(home(&run_dir).join("unfinished")).unwrap();
        let kept = copy(&run_dir, &wal, &spans, &lost, &Cancel::never()).unwrap();
        assert_eq!(kept.kept, run_dir.join("lost/20261123T171145Z"));
        let mut names: Vec<_> = std::fs::read_dir(&kept.kept).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        let expected = ["00000002.history", "000000020000000000000004", "000000020000000000000005", SUMMARY];
        assert_eq!(names, expected);
        let later = Lost { time_ms: lost.time_ms + 5000, to: "0/500300".into(), ..lost.clone() };
        assert_eq!(copy(&run_dir, &wal, &spans, &later, &Cancel::never()), Ok(kept.clone()));
        let other = Lost { transactions: 4, ..later };
        let other = copy(&run_dir, &wal, &spans, &other, &Cancel::never()).unwrap();
        assert_eq!(list(&run_dir), Ok(vec![kept.clone(), other.clone()]));
        assert_eq!(prune(&run_dir), Ok(Vec::new()));
        assert_eq!(prune_to(&run_dir, 1, u64::MAX), Ok(vec![kept]));
        assert_eq!(prune_to(&run_dir, 0, 0), Ok(Vec::new()), "the newest stays");
        let newest = Lost { transactions: 5, time_ms: other.time_ms + 5000, ..other.clone() };
        let newest = copy(&run_dir, &wal, &spans, &newest, &Cancel::never()).unwrap();
        assert_eq!(prune_to(&run_dir, 9, 3 * size), Ok(vec![other]));
        assert_eq!(list(&run_dir), Ok(vec![newest]));
    }
}
