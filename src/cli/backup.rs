//! `mc_ctl backup`: makes a backup on the primary, and shows, verifies and removes backups. For cron on both servers: on the
//! standby it does nothing.

use super::archive::{self, destination};
use super::args::{Common, ListFormat};
use super::follow::Display;
use super::{Ended, Exit, Failure, backup_command, call, print, print_json, say};
use crate::backup::{self, Archive, Archiver, Backup, Catalog, Contents, Destination, Holdings, Newest, Order, Survey};
use crate::config::Config;
use crate::daemon::{backup_watch, reload};
use crate::error::Error;
use crate::fsm::report::HostRole;
use crate::messages::utc;
use crate::pg::Place;
use crate::pg::bounded::{self, Cancel};
use crate::rebuild::{copied, human, now_ms};
use crate::status::{RebuildStatus, duration};
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

/// `backup`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    /// Show the backups of both servers, and how far each can be recovered
    #[arg(long, group = "what")]
    list: bool,
    /// Report for a monitoring system whether either server has a recent backup, and whether WAL is missing
    #[arg(long, group = "what")]
    check: bool,
    /// Verify a backup again: every file, and the WAL that it needs [default: the newest]
    #[arg(long, group = "what", value_name = "BACKUP", num_args = 0..=1)]
    verify: Option<Option<String>>,
    /// Remove a backup
    #[arg(long, group = "what", value_name = "BACKUP")]
    delete: Option<String>,
    /// With --delete, do not request confirmation of the removal of a damaged backup
    #[arg(long, requires = "delete")]
    yes: bool,
    /// Make the checkpoint at once, instead of spread over time
    #[arg(long, conflicts_with = "what")]
    fast_checkpoint: bool,
    /// Save only what has changed since the newest full backup of this server (PostgreSQL 17 and later)
    #[arg(long, conflicts_with = "what")]
    incremental: bool,
    /// With --check, the age in hours from which the newest backup is too old [default: backup_max_age]
    #[arg(long, value_name = "HOURS", requires = "check")]
    max_age: Option<u32>,
    /// Output format of --list
    #[arg(long, value_enum, default_value_t = ListFormat::Text, value_name = "FORMAT", requires = "list")]
    format: ListFormat,
    /// Time limit of a backup in seconds [default: no limit]
    #[arg(short = 't', value_name = "SEC", value_parser = clap::value_parser!(u64).range(1..=604_800), conflicts_with_all = ["list", "check", "delete"])]
    seconds: Option<u64>,
}

pub(super) fn run(args: &Args) -> Ended {
    if args.check {
        return Ok(check(args));
    }
    let config = match (&args.verify, args.list || args.delete.is_some()) {
        (None, true) => args.common.client_config()?,
        _ => args.common.config()?,
    };
    if let (Some(program), None, false) =
        (&config.server.backup_command, &args.verify, args.list || args.delete.is_some())
    {
        return by_command(args, &config, program);
    }
    let destination = destination(&config)?;
    if args.list {
        return list(&config, &destination, args.format);
    }
    if let Some(name) = &args.delete {
        return delete(&destination, name, args.yes);
    }
    let interruption = Interruption::new(args.seconds)?;
    match &args.verify {
        Some(name) => verify(&config, &destination, name.as_deref(), &interruption),
        None => make(args, &config, &destination, &interruption),
    }
}

// -------------------------------------------------------------------------------------------------------------- making

/// Whether this server makes the backup: it is the primary. The standby reports this.
fn is_ours(config: &Config) -> Result<bool, Failure> {
    match role(config)? {
        HostRole::Primary => Ok(true),
        HostRole::Standby => {
            print(&format!("server \"{}\" is the standby; the primary makes the backup\n", config.id));
            Ok(false)
        }
        _ => {
            let text =
                format!("server \"{}\" is neither the primary nor the standby, so that it makes no backup", config.id);
            Err(Failure::new(Exit::Refused, text).hint("\"mc_ctl status\" shows the state of the pair."))
        }
    }
}

/// Fails if this server is no longer the primary.
fn still_primary(config: &Config) -> Result<(), Error> {
    match role(config) {
        Ok(HostRole::Primary) => Ok(()),
        Ok(_) => Err(Error::new("this server lost the role of the primary during the backup")),
        Err(failure) => Err(failure.error),
    }
}

/// A backup by `backup_command`.
fn by_command(args: &Args, config: &Config, program: &Path) -> Ended {
    if args.incremental || args.fast_checkpoint {
        return Err(Failure::new(
            Exit::Usage,
            "backup_command decides how a backup is made: --incremental and --fast-checkpoint are not possible",
        ));
    }
    if !is_ours(config)? {
        return Ok(0);
    }
    let interruption = Interruption::new(args.seconds)?;
    let explain = |error| interruption.explain(error, "backup");
    backup_command::make(config, program, &interruption.cancel, &explain, &|| still_primary(config))
}

fn make(args: &Args, config: &Config, destination: &Destination, interruption: &Interruption) -> Ended {
    let begin = Instant::now();
    if !is_ours(config)? {
        return trim(config, destination);
    }
    let separate = archive::refuse_shared(config, destination)?;
    let Some(lock) = destination.lock().map_err(Failure::failed)? else {
        return Err(Failure::new(Exit::Refused, "a backup is already in progress"));
    };
    let order = Order {
        place: Place::new(config),
        target: reload::target(config),
        server: config.id.clone(),
        destination: destination.clone(),
        generations: config.server.backup_generations as usize,
        max_rate: config.server.backup_max_rate.clone(),
        fast_checkpoint: args.fast_checkpoint,
        incremental: args.incremental,
        spared: (!separate).then(|| config.peer().id.clone()),
        configuration: vec![config.dir.join("network.conf"), config.dir.join(format!("{}.conf", config.id))],
    };
    let mut display = Display::new();
    let primary = || still_primary(config);
    let made = backup::make(&order, &lock, &mut |line| show(&mut display, line), &primary, &interruption.cancel);
    display.end();
    let made = made.map_err(|error| interruption.explain(error, "backup"))?;
    let backup = &made.backup;
    let mut text = format!(
        "backup \"{}\": {}, verified, {} in total\n",
        destination.path().join(&backup.name).display(),
        human(backup.bytes),
        duration(begin.elapsed().as_secs())
    );
    for name in &made.removed {
        let _ = writeln!(text, "backup \"{name}\" was removed (backup_generations = {})", order.generations);
    }
    if made.wal_removed > 0 {
        let _ = writeln!(text, "{} WAL files were removed, which no backup needs", made.wal_removed);
    }
    if made.incomplete > 0 {
        let _ = writeln!(text, "{} incomplete backups were removed", made.incomplete);
    }
    print(&text);
    if crate::pg::files::same_filesystem(destination.path(), &order.place.data) {
        say("mc_ctl: WARNING: backup_destination is on the file system of the data directory, and is lost with it\n");
    }
    Ok(0)
}

/// Removes the WAL of the standby's archive that no backup of either server needs. Without the other server's list, none.
fn trim(config: &Config, destination: &Destination) -> Ended {
    archive::refuse_shared(config, destination)?;
    let catalog = Catalog::read(destination).map_err(Failure::failed)?;
    if let Ok(theirs) = archive::contents_of_peer(config)
        && !theirs.backups.is_empty()
    {
        backup::remove_wal(destination, &catalog, &theirs.backups).map_err(Failure::failed)?;
    }
    Ok(0)
}

/// The role of this server, as its controller knows it.
fn role(config: &Config) -> Result<HostRole, Failure> {
    let report = call::snapshot(config)?.report;
    let primary = report.view.is_some_and(|view| view.primary == report.me);
    Ok(match report.servers[report.me.index()].role {
        HostRole::Primary if !primary => HostRole::Unknown,
        role => role,
    })
}

/// A step, or a line of `pg_basebackup --progress`.
pub(super) fn show(display: &mut Display, line: &str) {
    let (step, done, total) = match copied(line) {
        Some((done, total)) => ("pg_basebackup copies the instance", done, Some(total)),
        None => (line, 0, None),
    };
    display.show(&RebuildStatus {
        step: step.to_owned(),
        method: None,
        why: String::new(),
        bytes_done: done,
        bytes_total: total,
        elapsed_ms: 0,
        failed: None,
    });
}

/// What ends a backup early: a signal, or its time limit.
pub(super) struct Interruption {
    pub cancel: Cancel,
    late: Arc<AtomicBool>,
    seconds: Option<u64>,
}

impl Interruption {
    pub fn new(seconds: Option<u64>) -> Result<Interruption, Failure> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let (canceller, cancel) = Cancel::new();
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])
            .map_err(|cause| Failure::failed(Error::new(format!("could not wait for signals: {cause}"))))?;
        let late = Arc::new(AtomicBool::new(false));
        let (expired, handle) = (late.clone(), signals.handle());
        std::thread::spawn(move || {
            // The first signal, or the end of the limit, which closes the iterator.
            let _ = signals.forever().next();
            drop(canceller);
        });
        if let Some(seconds) = seconds {
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_secs(seconds));
                expired.store(true, Ordering::Relaxed);
                handle.close();
            });
        }
        Ok(Interruption { cancel, late, seconds })
    }

    /// The failure of what may have been interrupted.
    pub fn explain(&self, error: Error, what: &str) -> Failure {
        match (self.cancel.is_set(), self.late.load(Ordering::Relaxed)) {
            (true, true) => {
                let seconds = self.seconds.unwrap_or_default();
                Failure::new(
                    Exit::TimedOut,
                    format!("the {what} was not complete within {seconds} s and was cancelled"),
                )
            }
            (true, false) => Failure::new(Exit::Failed, format!("the {what} was cancelled by a signal")),
            (false, _) => Failure::failed(error),
        }
    }
}

// ------------------------------------------------------------------------------------------------------------- others

fn verify(config: &Config, destination: &Destination, name: Option<&str>, interruption: &Interruption) -> Ended {
    let catalog = Catalog::read(destination).map_err(Failure::failed)?;
    let name = match (name, catalog.backups.last()) {
        (Some(name), _) => name.to_owned(),
        (None, Some(newest)) => newest.name.clone(),
        (None, None) => return Err(no_backup(destination)),
    };
    let place = Place::new(config);
    backup::verify_again(&place, &catalog, &name, &interruption.cancel)
        .map_err(|error| interruption.explain(error, "verification"))?;
    print(&format!("backup \"{name}\" is intact\n"));
    Ok(0)
}

fn no_backup(destination: &Destination) -> Failure {
    let text = format!("there is no complete backup in \"{}\"", destination.path().display());
    Failure::new(Exit::Failed, text).hint("Run \"mc_ctl backup\" on the primary.")
}

fn delete(destination: &Destination, name: &str, yes: bool) -> Ended {
    let Some(_lock) = destination.lock().map_err(Failure::failed)? else {
        return Err(Failure::new(Exit::Refused, "a backup is already in progress"));
    };
    let mut catalog = Catalog::read(destination).map_err(Failure::failed)?;
    if let Some(why) = catalog.damage(name).filter(|_| !yes) {
        call::confirm(&format!("Backup \"{name}\" is damaged, and its removal cannot be undone: {why}."))?;
    }
    catalog.remove(name).map_err(Failure::failed)?;
    print(&format!("backup \"{name}\" was removed\n"));
    if catalog.backups.is_empty() {
        say("mc_ctl: WARNING: no backup is left on this server\n");
    }
    Ok(0)
}

/// One backup for `--format json`.
#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    backup: &'a Backup,
    /// The server that has it.
    on: &'a str,
    /// The earliest time to which it can be recovered, UTC.
    recoverable_from: String,
    /// When the last WAL that follows it was archived.
    recoverable_until: String,
    /// Where that WAL ends, and on which timeline.
    wal_until: String,
    wal_timeline: u32,
    /// The first WAL segment that is missing although later ones are there.
    wal_missing: Option<String>,
    /// The timeline that a recovery has begun instead of those to which this backup leads.
    abandoned_for: Option<u32>,
}

fn row<'a>(on: &'a str, backup: &'a Backup, holdings: &Holdings) -> Result<Row<'a>, Error> {
    let reach = backup::reach(backup, holdings, None)?;
    Ok(Row {
        abandoned_for: holdings.abandoned_for(&reach),
        backup,
        on,
        recoverable_from: time(backup.ended_ms),
        recoverable_until: time(reach.archived_ms.unwrap_or_default().max(backup.ended_ms)),
        wal_until: reach.until.to_string(),
        wal_timeline: reach.timeline,
        wal_missing: reach.missing.map(|segment| segment.to_string()),
    })
}

fn list(config: &Config, destination: &Destination, format: ListFormat) -> Ended {
    let catalog = Catalog::read(destination).map_err(Failure::failed)?;
    let own = Holdings::read(&Archive::new(destination.clone())).map_err(Failure::failed)?;
    let peer = &config.peer().id;
    let theirs = archive::contents_of_peer(config).unwrap_or_else(|why| {
        say(&format!("mc_ctl: WARNING: what server \"{peer}\" has is not known: {why}\n"));
        Contents::default()
    });
    if let Some(shared) = destination.shared_with(peer, theirs.identity.as_deref()) {
        say(&format!("mc_ctl: WARNING: {shared}\n"));
    }
    let holdings = own.and(theirs.holdings);
    let backups = catalog.backups.iter().map(|backup| (&config.id, backup));
    let backups = backups.chain(theirs.backups.iter().map(|backup| (peer, backup)));
    let rows: Result<Vec<Row>, Error> = backups.map(|(on, backup)| row(on, backup, &holdings)).collect();
    let rows = rows.map_err(Failure::failed)?;
    match format {
        ListFormat::Json => print_json(&rows),
        ListFormat::Text if rows.is_empty() => print("no backup\n"),
        ListFormat::Text => print(&table(&rows)),
    }
    for path in &catalog.incomplete {
        say(&format!("mc_ctl: NOTICE: \"{}\" is incomplete; the next backup removes it\n", path.display()));
    }
    for (path, error) in &catalog.damaged {
        say(&format!("mc_ctl: WARNING: \"{}\" is damaged: {error}\n", path.display()));
    }
    Ok(0)
}

fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<18}  {:<8} {:>10}  {:<24}  {:<24}  {}\n",
        "backup", "on", "size", "recoverable from", "until", "WAL"
    );
    for row in rows {
        let Row {
            backup,
            on,
            recoverable_from,
            recoverable_until,
            wal_until,
            wal_timeline,
            wal_missing,
            abandoned_for,
        } = row;
        let wal = match wal_missing {
            Some(segment) => format!("GAP: {segment} is missing"),
            None => format!("to {wal_until}, timeline {wal_timeline}"),
        };
        let left = abandoned_for.map(|newest| format!("; abandoned for timeline {newest}")).unwrap_or_default();
        let full = backup.full.as_ref().map(|full| format!("; incremental, needs {full}")).unwrap_or_default();
        let _ = writeln!(
            text,
            "{:<18}  {on:<8} {:>10}  {recoverable_from:<24}  {recoverable_until:<24}  {wal}{left}{full}",
            backup.name,
            human(backup.bytes)
        );
    }
    text
}

pub(super) fn time(ms: u64) -> String {
    utc(UNIX_EPOCH + Duration::from_millis(ms.min(1 << 47)))
}

// -------------------------------------------------------------------------------------------------------- monitoring

/// As monitoring plug-ins do: a line, and 0 OK, 1 WARNING, 2 CRITICAL or 3 UNKNOWN.
fn check(args: &Args) -> u8 {
    let (code, text) = checked(args).unwrap_or_else(|failure| (3, failure.error.message));
    let word = ["OK", "WARNING", "CRITICAL", "UNKNOWN"][usize::from(code)];
    print(&format!("MC BACKUP {word} - {text}\n"));
    code
}

/// How long the destination and the other server may take.
const CHECK: Duration = Duration::from_secs(30);

fn checked(args: &Args) -> Result<(u8, String), Failure> {
    let config = args.common.client_config()?;
    destination(&config)?;
    let mut scope = backup_watch::scope(&config).ok_or_else(|| Failure::failed(Error::new("nothing to check")))?;
    scope.max_age_hours = args.max_age.unwrap_or(scope.max_age_hours);
    let survey = bounded::call("read backup_destination", CHECK, &Cancel::never(), move || {
        let theirs = archive::contents_of_peer(&config);
        let archiver = Archiver::read(&reload::target(&config)).ok();
        Ok(Survey::take(&scope, theirs, archiver))
    });
    Ok(judged(&survey.map_err(Failure::failed)?, now_ms()))
}

/// The exit status, and the line with the performance data.
fn judged(survey: &Survey, now_ms: u64) -> (u8, String) {
    let problems = survey.problems(now_ms);
    let worst = problems.iter().map(backup::Problem::severity).max();
    let mut parts: Vec<String> = problems.iter().map(backup::Problem::sentence).collect();
    if let Some(why) = &survey.peer_error {
        parts.push(format!("the backups of the other server are not known: {why}"));
    }
    let age_s = survey.age_s(now_ms);
    if let (Some(Newest { name, on, wal_until, .. }), Some(age_s)) = (&survey.newest, age_s) {
        let archived = duration(survey.archived_age_s(now_ms).unwrap_or_default());
        let mut part =
            format!("backup {name} of {on} is {} old, WAL to {wal_until}, archived {archived} ago", duration(age_s));
        if let Some(bytes) = survey.unarchived_bytes {
            let _ = write!(part, ", {} not archived", human(bytes));
        }
        parts.push(part);
    }
    parts.extend(survey.abandoned.iter().map(backup::Abandoned::sentence));
    match &survey.archiver {
        Some(archiver) if archiver.failed_count > 0 && !archiver.failing => {
            parts.push(format!("{} attempts to archive failed earlier", archiver.failed_count));
        }
        Some(_) => {}
        None => parts.push("the instance of this server does not report its archiver".to_owned()),
    }
    if let Some(free) = survey.free_bytes {
        parts.push(format!("{} free", human(free)));
    }
    if !survey.next_removed.is_empty() {
        parts.push(format!("the next backup of this server removes {}", survey.next_removed.join(", ")));
    }
    let code = match (worst, survey.newest.is_some()) {
        (Some(backup::Severity::Critical), _) => 2,
        // Nothing is wrong that is known, and whether there is a backup is not.
        (_, false) => 3,
        (Some(backup::Severity::Warning), true) => 1,
        (None, true) => 0,
    };
    let number = |value: Option<u64>, unit: &str| value.map_or("U".to_owned(), |value| format!("{value}{unit}"));
    let limit_s = u64::from(survey.max_age_hours).saturating_mul(3600);
    let failures = survey.archiver.as_ref().map(|archiver| archiver.failed_count);
    let data = format!(
        "age={};{limit_s} wal_age={} unarchived={} free={};{}: archive_failures={}",
        number(age_s, "s"),
        number(survey.archived_age_s(now_ms), "s"),
        number(survey.unarchived_bytes, "B"),
        number(survey.free_bytes, "B"),
        survey.needed_bytes.unwrap_or_default(),
        number(failures, "c")
    );
    (code, format!("{} | {data}", parts.join("; ").replace(['|', '\n'], " ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::sample_survey;

    fn check(change: impl FnOnce(&mut Survey), code: u8, begin: &str) {
        let mut survey = sample_survey();
        change(&mut survey);
        let (found, text) = judged(&survey, survey.read_ms);
        assert!(found == code && text.starts_with(begin), "{found} {text}");
    }

    #[test]
    fn the_line_for_monitoring() {
        let all = "backup 19700105T030000Z of nd1 is 1 h 0 min old, WAL to 0/9000000, archived 5 min 0 s ago, 1.0 MB \
                   not archived; 10 GB free; the next backup of this server removes 19700104T030000Z | age=3600s;93600 \
                   wal_age=300s unarchived=1048576B free=10737418240B;1073741824: archive_failures=0c";
        check(|_| (), 0, all);
        check(|of| of.max_age_hours = 0, 1, "the newest backup is 1 h old; the limit is 0 h; backup 19700105");
        check(|of| of.newest = None, 2, "neither server has a backup; 10 GB free");
        let unknown = |of: &mut Survey| (of.newest, of.peer_error) = (None, Some("it is down".into()));
        check(unknown, 3, "the backups of the other server are not known: it is down; 10 GB");
        check(|of| of.archiver = None, 0, "backup 19700105T030000Z");
        check(|of| of.archiver.as_mut().unwrap().failing = true, 1, "archiving fails");
    }
}
