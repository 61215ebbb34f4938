//! Makes a backup: `pg_basebackup`, `pg_verifybackup`, then the description that makes the directory a backup. Killed at any
//! point, it leaves a directory that is no backup, which the next one removes.

use super::archive::Archive;
use super::catalog::{Backup, Catalog, Tablespace};
use super::destination::{Destination, Lock, make_private_dir};
use super::reach::{Holdings, reach};
use super::segment::Segment;
use crate::error::{Error, Result};
use crate::fsm::types::{Lsn, SystemId};
use crate::pg::bounded::Cancel;
use crate::pg::connect::{Session, Target};
use crate::pg::{Place, commands, files};
use crate::rebuild::{Need, copied, human, now_ms, rooms, stamp, tablespace_mapping, used};
use serde::Deserialize;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The part of the instance for which an incremental backup needs room at least.
const INCREMENT: u64 = 10;
/// How long a session's opening, or a query, may take.
const QUERY: Duration = Duration::from_secs(30);

/// What is to be made.
#[derive(Clone, Debug)]
pub struct Order {
    /// The instance.
    pub place: Place,
    /// How it is connected to.
    pub target: Target,
    /// The identifier of this server.
    pub server: String,
    /// Where the backup is written.
    pub destination: Destination,
    /// How many backups are kept.
    pub generations: usize,
    /// The limit of `pg_basebackup --max-rate`, with its unit; `None` for no limit.
    pub max_rate: Option<String>,
    /// The checkpoint is made at once instead of spread over time.
    pub fast_checkpoint: bool,
    /// Files of the management directory that are saved with it.
    pub configuration: Vec<PathBuf>,
    /// It contains only what has changed since the newest full backup of this server.
    pub incremental: bool,
    /// The server whose backups are not removed: it does not respond, and may use the same directory.
    pub spared: Option<String>,
}

/// What was made, and what was removed for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Made {
    /// The new backup.
    pub backup: Backup,
    /// The names of older backups that were removed.
    pub removed: Vec<String>,
    /// How many interrupted backups were removed.
    pub incomplete: usize,
    /// How many files of the archive were removed, which no backup needs.
    pub wal_removed: usize,
}

/// What the instance says of itself.
#[derive(Deserialize)]
struct Instance {
    in_recovery: bool,
    system: String,
    bytes: u64,
    segment_size: u64,
    summarize_wal: Option<String>,
    configuration: Vec<PathBuf>,
    tablespaces: Vec<Tablespace>,
}

/// As one JSON value. A system identifier may look negative in SQL.
const INSTANCE: &str = "SELECT json_build_object('in_recovery', pg_is_in_recovery(), \
    'system', (SELECT CASE WHEN system_identifier < 0 THEN system_identifier::numeric + 18446744073709551616 \
                      ELSE system_identifier END::text FROM pg_control_system()), \
    'bytes', (SELECT sum(pg_tablespace_size(oid)) FROM pg_tablespace), \
    'segment_size', (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size'), \
    'summarize_wal', current_setting('summarize_wal', true), \
    'configuration', (SELECT json_agg(setting) FROM pg_settings \
                      WHERE name IN ('config_file', 'hba_file', 'ident_file') AND setting <> ''), \
    'tablespaces', (SELECT coalesce(json_agg(json_build_object('oid', oid::text, \
                      'location', pg_tablespace_location(oid))), '[]') FROM pg_tablespace \
                    WHERE pg_tablespace_location(oid) LIKE '/%'))::text";

/// The part of `backup_manifest` that is read.
#[derive(Deserialize)]
struct Manifest {
    #[serde(rename = "WAL-Ranges")]
    ranges: Vec<Range>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Range {
    timeline: u32,
    #[serde(rename = "Start-LSN")]
    start: String,
    #[serde(rename = "End-LSN")]
    end: String,
}

/// Makes it, verifies it, and then removes what is beyond the number that is kept. `step` receives what is done, and a line
/// of progress of `pg_basebackup`. `primary` is asked before anything older is removed: whether this server is still the
/// primary.
///
/// # Errors
/// The destination is not fit, there is no room, a program failed, or it was cancelled. Older backups are untouched then.
pub fn make(
    order: &Order,
    _lock: &Lock,
    step: &mut dyn FnMut(&str),
    primary: &dyn Fn() -> Result<()>,
    cancel: &Cancel,
) -> Result<Made> {
    let (instance, conninfo) = instance(order)?;
    let system = SystemId(instance.system.parse().unwrap_or_default());
    if instance.in_recovery {
        return Err(Error::new("the instance of this server runs as a standby"));
    }
    order.destination.check_exists()?;
    outside(&order.destination, &order.place.data, &instance.tablespaces)?;
    order.destination.claim(system)?;
    let mut catalog = Catalog::read(&order.destination)?;
    let incomplete = catalog.remove_incomplete()?;
    let full = if order.incremental { Some(full_for(&catalog, &instance, order.place.major)?.clone()) } else { None };
    // How much has changed is not known before the copy.
    let bytes = if full.is_some() { instance.bytes / INCREMENT } else { instance.bytes };
    check_room(&order.destination, bytes)?;

    let begun_ms = now_ms();
    let name = catalog.new_name(&stamp(begun_ms));
    let dir = order.destination.path().join(&name);
    let full_dir = full.as_ref().map(|full| catalog.dir(full));
    let made = copy(order, &instance, (&dir, full_dir.as_deref(), &conninfo), step, cancel).and_then(|()| {
        step("verifying the backup");
        verify(&order.place, &dir, full_dir.as_deref(), cancel)?;
        let range = range(&dir.join("data"))?;
        primary()?;
        let backup = Backup {
            name: name.clone(),
            server: order.server.clone(),
            system_identifier: instance.system.clone(),
            major_version: order.place.major,
            begun_ms,
            ended_ms: now_ms(),
            verified_ms: now_ms(),
            timeline: range.timeline,
            start: range.start,
            end: range.end,
            segment_size: instance.segment_size,
            bytes: used(&dir, cancel)?,
            tablespaces: instance.tablespaces.clone(),
            full: full.as_ref().map(|full| full.name.clone()),
        };
        catalog.describe(&backup)?;
        Ok(backup)
    });
    let backup = match made {
        Ok(backup) => backup,
        Err(error) => {
            // Best effort: without a description it is no backup.
            let _ = std::fs::remove_dir_all(&dir);
            return Err(error);
        }
    };
    catalog.backups.push(backup.clone());
    let (removed, wal_removed) = retire(&mut catalog, order)?;
    Ok(Made { backup, removed, incomplete, wal_removed })
}

/// The full backup to which an incremental one is made.
fn full_for<'a>(catalog: &'a Catalog, instance: &Instance, major: u32) -> Result<&'a Backup> {
    const WITHOUT: &str = "Run \"mc_ctl backup\" without --incremental.";
    let Some(summarizes) = &instance.summarize_wal else {
        let what = format!("incremental backups require PostgreSQL 17 or later, and this instance is version {major}");
        return Err(Error::new(what).hint(WITHOUT));
    };
    if summarizes != "on" {
        return Err(Error::new("incremental backups require summarize_wal = on").hint(
            "Set summarize_wal = on on both servers and reload the instances. Then make a full backup: \"mc_ctl backup\".",
        ));
    }
    let newest = catalog.newest_full();
    newest.ok_or_else(|| {
        Error::new("this server has no full backup to which an incremental one can be made").hint(WITHOUT)
    })
}

fn instance(order: &Order) -> Result<(Instance, String)> {
    let mut session = Session::open(&order.target, QUERY, "the backup")?;
    let text = session.query(INSTANCE, QUERY)?.into_iter().flatten().flatten().next().unwrap_or_default();
    let instance = serde_json::from_str(&text)
        .map_err(|cause| Error::new(format!("could not parse the state of the instance: {cause}")))?;
    Ok((instance, order.target.conninfo()?))
}

/// A backup inside of what it saves would be part of the next one, and be lost with it.
fn outside(destination: &Destination, data: &Path, tablespaces: &[Tablespace]) -> Result<()> {
    let path = destination.path();
    let real = std::fs::canonicalize(path).map_err(|cause| Error::io("open directory", path, cause))?;
    let wal = std::fs::canonicalize(data.join("pg_wal")).ok();
    let dirs = tablespaces.iter().map(|tablespace| tablespace.location.clone()).chain([data.to_owned()]).chain(wal);
    for dir in dirs {
        let dir = std::fs::canonicalize(&dir).unwrap_or(dir);
        if real.starts_with(&dir) || dir.starts_with(&real) {
            return Err(Error::new(format!(
                "backup_destination \"{}\" and \"{}\", which it is to save, lie in one another",
                path.display(),
                dir.display()
            ))
            .hint("Set backup_destination to a directory on another disk."));
        }
    }
    Ok(())
}

fn check_room(destination: &Destination, bytes: u64) -> Result<()> {
    let path = destination.path();
    let rooms = rooms(&[Need::new(path, bytes)])?;
    let Some(room) = rooms.iter().find(|room| room.free < room.needed) else { return Ok(()) };
    Err(Error::new(format!(
        "the file system of backup_destination \"{}\" has {} free, and a backup needs {}",
        path.display(),
        human(room.free),
        human(room.needed)
    ))
    .hint("Enlarge it, or remove a backup: \"mc_ctl backup --list\" and \"mc_ctl backup --delete BACKUP\"."))
}

fn copy(
    order: &Order,
    instance: &Instance,
    (dir, full, conninfo): (&Path, Option<&Path>, &str),
    step: &mut dyn FnMut(&str),
    cancel: &Cancel,
) -> Result<()> {
    make_private_dir(dir)?;
    let mut args: Vec<OsString> = ["-X", "stream", "-P", "-w", "-D"].map(Into::into).into();
    args.extend([dir.join("data").into(), "-c".into()]);
    args.push(if order.fast_checkpoint { "fast" } else { "spread" }.into());
    args.extend(["-l".into(), "mc_ctl backup".into(), "-d".into(), conninfo.into()]);
    if let Some(rate) = &order.max_rate {
        args.extend(["-r".into(), rate.into()]);
    }
    if let Some(full) = full {
        let mut option = OsString::from("--incremental=");
        option.push(full.join("data/backup_manifest"));
        args.push(option);
    }
    if !instance.tablespaces.is_empty() {
        make_private_dir(&dir.join("tablespaces"))?;
    }
    for tablespace in &instance.tablespaces {
        let copy = dir.join("tablespaces").join(&tablespace.oid);
        args.extend(["-T".into(), tablespace_mapping(&tablespace.location, &copy)]);
    }
    step("pg_basebackup copies the instance");
    let program = commands::program(&order.place, "pg_basebackup", args).password(order.target.password.as_deref());
    let copied = program.follow(cancel, |line| {
        step(line);
        copied(line).is_none()
    });
    copied.map_err(|error| match full {
        Some(_) if error.hint.is_empty() => error
            .hint("If the instance has no WAL summaries since the full backup, make a full backup: \"mc_ctl backup\"."),
        _ => error,
    })?;
    let outside = |path: &&PathBuf| !path.starts_with(&order.place.data);
    let configuration = instance.configuration.iter().filter(outside).chain(&order.configuration);
    let to = dir.join("configuration");
    make_private_dir(&to)?;
    for file in configuration {
        let copy = to.join(file.file_name().unwrap_or_default());
        let text = std::fs::read(file).map_err(|cause| Error::io("read file", file, cause))?;
        files::replace(&copy, &text, None)?;
    }
    files::sync_dir(dir)?;
    files::sync_parent(dir)
}

/// `pg_verifybackup`, which reads every file and the WAL that the backup needs; and that an incremental backup fits its full
/// backup.
pub(super) fn verify(place: &Place, dir: &Path, full: Option<&Path>, cancel: &Cancel) -> Result<()> {
    let check = ["-q".into(), dir.join("data").into()];
    commands::program(place, "pg_verifybackup", check).follow(cancel, |_| true)?;
    let Some(full) = full else { return Ok(()) };
    let oid = |path: PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let oids = files::entries(&dir.join("tablespaces")).into_iter().map(oid);
    let moves: Vec<(String, PathBuf)> = oids.map(|oid| (oid.clone(), dir.join(format!("combined.{oid}")))).collect();
    combine(place, (full, dir), &dir.join("combined"), &moves, true, cancel)
}

/// `pg_combinebackup` of an incremental backup in the second directory with the full backup in the first. `moves`: to where
/// each of the tablespaces, by its OID, is written.
fn combine(
    place: &Place,
    (full, dir): (&Path, &Path),
    to: &Path,
    moves: &[(String, PathBuf)],
    dry_run: bool,
    cancel: &Cancel,
) -> Result<()> {
    let mut args: Vec<OsString> = vec!["-o".into(), to.into()];
    if dry_run {
        args.push("-n".into());
    }
    for (oid, location) in moves {
        args.extend(["-T".into(), tablespace_mapping(&dir.join("tablespaces").join(oid), location)]);
    }
    args.extend([full.join("data").into(), dir.join("data").into()]);
    commands::program(place, "pg_combinebackup", args).follow(cancel, |_| true)
}

/// Restores an incremental backup of this catalog to `to`, which must not exist or be empty, as its full backup would be: a data
/// directory whose links in `pg_tblspc` lead to `moves`. The result is durable, and has a manifest of its own.
///
/// # Errors
/// Its full backup is missing, one of both is damaged, it cannot be written, or it was cancelled.
pub fn combine_to(
    place: &Place,
    catalog: &Catalog,
    backup: &Backup,
    (to, moves): (&Path, &[(String, PathBuf)]),
    cancel: &Cancel,
) -> Result<()> {
    let Some(full) = catalog.full_of(backup)? else {
        return Err(Error::new(format!("backup \"{}\" is not incremental", backup.name)));
    };
    combine(place, (&catalog.dir(full), &catalog.dir(backup)), to, moves, false, cancel)
}

/// The WAL that recovery of the backup needs, by its manifest.
fn range(data: &Path) -> Result<Range> {
    let path = data.join("backup_manifest");
    let file = std::fs::File::open(&path).map_err(|cause| Error::io("open file", &path, cause))?;
    let manifest: Manifest = serde_json::from_reader(std::io::BufReader::new(file))
        .map_err(|cause| Error::io("understand file", &path, cause))?;
    let read = |range: &Range| range.start.parse::<Lsn>().is_ok() && range.end.parse::<Lsn>().is_ok();
    let last = manifest.ranges.into_iter().next_back().filter(read);
    last.ok_or_else(|| Error::io("understand file", &path, "it has no WAL range"))
}

/// Removes the oldest backups beyond the number that is kept, each with its incremental backups, and then the WAL that no backup needs.
fn retire(catalog: &mut Catalog, order: &Order) -> Result<(Vec<String>, usize)> {
    let holdings = Holdings::read(&Archive::new(order.destination.clone()))?;
    let removed = match &order.spared {
        Some(spared) => retired(&catalog.without(spared), order.generations.max(1), &holdings),
        None => retired(catalog, order.generations.max(1), &holdings),
    };
    removed.iter().try_for_each(|name| catalog.remove(name))?;
    let wal_removed = remove_wal(&order.destination, catalog, &[])?;
    Ok((removed, wal_removed))
}

/// The names of the backups that are removed if this number of full backups is kept: first those that lead only to a timeline that a
/// recovery has abandoned, then the oldest. Damaged ones are among them once they are older than all that is kept.
pub(super) fn retired(catalog: &Catalog, generations: usize, holdings: &Holdings) -> Vec<String> {
    let abandoned =
        |backup: &Backup| reach(backup, holdings, None).is_ok_and(|reach| holdings.abandoned_for(&reach).is_some());
    let mut names = beyond(&catalog.backups, generations, &abandoned);
    let kept = catalog.backups.iter().filter(|backup| backup.full.is_none() && !names.contains(&backup.name));
    let (count, oldest) = kept.fold((0, None), |(count, oldest), backup| (count + 1, oldest.or(Some(&backup.name))));
    let damaged = catalog.damaged.iter().map(|(path, _)| path.file_name().unwrap_or_default().to_string_lossy());
    let older = damaged.filter(|name| count >= generations && oldest.is_none_or(|oldest| **name < **oldest));
    names.extend(older.map(String::from));
    names
}

/// The names of the abandoned and the oldest full backups beyond this number, each after its incremental backups.
fn beyond(backups: &[Backup], generations: usize, abandoned: &dyn Fn(&Backup) -> bool) -> Vec<String> {
    let mut full: Vec<&Backup> = backups.iter().filter(|backup| backup.full.is_none()).collect();
    full.sort_by_key(|backup| !abandoned(backup));
    let mut names = Vec::new();
    for old in &full[..full.len().saturating_sub(generations)] {
        let increments = backups.iter().filter(|backup| backup.full.as_ref() == Some(&old.name));
        names.extend(increments.map(|backup| backup.name.clone()).chain([old.name.clone()]));
    }
    names
}

/// Removes the WAL that none of these backups needs: those of this destination and `others`. Returns how many files.
///
/// After a recovery to an earlier time, a newer backup can begin at a lower position than an older one.
///
/// # Errors
/// The archive cannot be read, or a file cannot be removed.
pub fn remove_wal(destination: &Destination, catalog: &Catalog, others: &[Backup]) -> Result<usize> {
    let needed = catalog.backups.iter().chain(others).map(|backup| backup.start().0 / backup.segment_size.max(1)).min();
    // A backup whose description cannot be read may need any WAL.
    let Some(needed) = needed.filter(|_| catalog.damaged.is_empty()) else { return Ok(0) };
    let size = catalog.backups.iter().chain(others).next().map_or(1, |backup| backup.segment_size.max(1));
    let archive = Archive::new(destination.clone());
    let mut removed = 0;
    for name in archive.names()? {
        let segment = Segment::parse(name.get(..24).unwrap_or_default());
        if segment.is_some_and(|segment| segment.number(size) < needed) {
            let path = archive.dir().join(&name);
            std::fs::remove_file(&path).map_err(|cause| Error::io("remove file", &path, cause))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Verifies a backup again, and notes when.
///
/// # Errors
/// `pg_verifybackup` found it damaged, or could not be run.
pub fn verify_again(place: &Place, catalog: &Catalog, name: &str, cancel: &Cancel) -> Result<()> {
    let backup = catalog.find(name)?;
    let full = catalog.full_of(backup)?.map(|full| catalog.dir(full));
    if let Some(full) = &full {
        verify(place, full, None, cancel)?;
    }
    verify(place, &catalog.dir(backup), full.as_deref(), cancel)?;
    catalog.describe(&Backup { verified_ms: now_ms(), ..backup.clone() })
}

#[cfg(test)]
mod tests {
    use super::super::reach::tests::backup;
    use super::*;

    /// The names in an archive with the segments 1 to 6 after WAL was removed for these backups.
    fn left(own: &[u64], others: &[u64], damaged: bool) -> Vec<u64> {
        let dir = tempfile::tempdir().unwrap();
        let destination = Destination::new(dir.path());
        let archive = Archive::new(destination.clone());
        std::fs::create_dir(archive.dir()).unwrap();
        for number in 1..=6 {
            std::fs::write(archive.dir().join(format!("0000000100000000{number:08X}")), "").unwrap();
        }
        let begin = |segments: &[u64]| segments.iter().map(|n| backup(1, (n << 24) + 0x200)).collect::<Vec<_>>();
        let mut catalog = Catalog::read(&destination).unwrap();
        catalog.backups = begin(own);
        if damaged {
            catalog.damaged.push((dir.path().into(), Error::new("damaged")));
        }
        remove_wal(&destination, &catalog, &begin(others)).unwrap();
        archive.names().unwrap().iter().map(|name| Segment::parse(name).unwrap().number(1 << 24)).collect()
    }

    #[test]
    fn a_full_backup_is_kept_as_long_as_its_increments() {
        let of = |name: &str, full: Option<&str>| Backup {
            name: name.into(),
            full: full.map(str::to_owned),
            ..backup(1, 0x200_0100)
        };
        let backups = [of("a", None), of("b", Some("a")), of("c", None), of("d", Some("c")), of("e", Some("c"))];
        let beyond = |generations| super::beyond(&backups, generations, &|_| false);
        assert!(beyond(2).is_empty());
        assert_eq!(beyond(1), ["b", "a"]);
        assert_eq!(beyond(0), ["b", "a", "d", "e", "c"]);
        assert_eq!(super::beyond(&backups, 1, &|backup| backup.name == "c"), ["d", "e", "c"]);
    }

    #[test]
    fn damaged_backups_are_retired() {
        let dir = tempfile::tempdir().unwrap();
        let mut catalog = Catalog::read(&Destination::new(dir.path())).unwrap();
        let of = |name: &str| Backup { name: name.into(), ..backup(1, 0x200_0100) };
        catalog.backups = [of("b"), of("d")].into();
        catalog.damaged = ["a", "c", "e"].map(|name| (dir.path().join(name), Error::new("damaged"))).into();
        let retired = |generations| super::retired(&catalog, generations, &Holdings::default());
        assert!(retired(3).is_empty());
        assert_eq!(retired(2), ["a"]);
        assert_eq!(retired(1), ["b", "a", "c"]);
        assert_eq!(retired(0), ["b", "d", "a", "c", "e"]);
    }

    #[test]
    fn wal_that_no_backup_needs() {
        assert_eq!(left(&[3, 5], &[], false), [3, 4, 5, 6]);
        // Made after a recovery to an earlier time.
        assert_eq!(left(&[5, 3], &[], false), [3, 4, 5, 6]);
        assert_eq!(left(&[5], &[4], false), [4, 5, 6]);
        assert_eq!(left(&[], &[4], false), [4, 5, 6]);
        assert_eq!(left(&[], &[], false), [1, 2, 3, 4, 5, 6]);
        assert_eq!(left(&[5], &[], true), [1, 2, 3, 4, 5, 6]);
    }
}
