//! What each job does to the instance. Called by the runner's thread, one at a time; decides nothing.
//!
//! Every step ends within a limit. Polls pause for at most 10 ms, since their pauses are part of every outage.

use super::{checkpoint, names, reload};
use crate::backup::{Archive, Destination};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::fsm::event::{DataDir, Job, Outcome, Rebuild};
use crate::fsm::types::{Lsn, Timeline};
use crate::messages::{self, Tell};
use crate::pg::bounded::{self, Cancel};
use crate::pg::connect::{Session, Target};
use crate::pg::follow::{self, Upstream};
use crate::pg::{Place, commands, conf, control, process, queries, slots, wal};
use crate::rebuild::{self, Chosen};
use crate::recover;
use rustix::process::Signal;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long file operations may take before the disk counts as hanging.
const FILES: Duration = Duration::from_secs(20);

/// The same after the instance was stopped: there the answer matters more than what it says of the disk.
const FILES_AFTER_STOP: Duration = Duration::from_secs(3);

/// How long PostgreSQL's log file may take to be opened.
const LOG: Duration = Duration::from_secs(1);

/// How long the password may take to be written.
const PASSWORD: Duration = Duration::from_secs(1);

/// How long the WAL since the last checkpoint may take to be read.
const WAL: Duration = Duration::from_secs(60);

/// How long a session's opening, or one of its short queries, may take.
pub(super) const QUERY: Duration = Duration::from_secs(1);

/// The pause of polls.
pub(super) const PAUSE: Duration = Duration::from_millis(5);

/// How long a promotion may take; it replays all WAL received first.
const PROMOTE: Duration = Duration::from_secs(600);

/// How long a postmaster may take until it has written its status; one that lives on is started all the same.
const START: Duration = Duration::from_secs(3);

/// R9 step 5: how long the standby may take to confirm.
const CONFIRM: Duration = Duration::from_secs(5);

/// What the jobs need to know.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where the instance lives.
    pub place: Place,
    /// Whom to connect as.
    pub target: Target,
    /// This server's `application_name`.
    pub name: String,
    /// What a rebuild takes.
    pub rebuild: rebuild::Setup,
    /// How long a checkpointer may make no progress before its checkpoint is given up.
    pub checkpoint_patience: Duration,
    /// Where it is shown how far a checkpoint is.
    pub checkpoints: checkpoint::Board,
}

impl Setup {
    /// From the configuration; `name` is this server's `application_name`.
    pub fn new(config: &Config, name: &str) -> Setup {
        let settings = config.settings(0);
        let detection_ms = settings.heartbeat_detection_ms.max(settings.instance_detection_ms);
        Setup {
            place: Place::new(config),
            target: reload::target(config),
            name: name.to_owned(),
            rebuild: rebuild_setup(config, name),
            checkpoint_patience: checkpoint::patience(detection_ms),
            checkpoints: checkpoint::Board::default(),
        }
    }
}

/// What a rebuild takes, from the configuration.
pub fn rebuild_setup(config: &Config, name: &str) -> rebuild::Setup {
    let server = &config.server;
    rebuild::Setup {
        place: Place::new(config),
        user: server.db_instance_username.clone(),
        password: server.db_instance_password.as_ref().map(|secret| secret.expose().to_owned()),
        dbname: server.target_db.clone(),
        name: name.to_owned(),
        host: server.replication_address.clone(),
        run_dir: config.run_dir(),
        archive: server.backup_destination.as_ref().map(|path| Archive::new(Destination::new(path)).dir().to_owned()),
    }
}

/// Does jobs.
#[derive(Debug)]
pub struct Jobs {
    setup: Setup,
    board: rebuild::Board,
}

impl Jobs {
    /// For this instance. Rebuilds tell on the board how far they are.
    pub fn new(setup: Setup, board: rebuild::Board) -> Jobs {
        Jobs { setup, board }
    }

    /// Connects as this configuration says from now on.
    pub fn connect_by(&mut self, config: &Config) {
        self.setup.target = reload::target(config);
        let rebuild::Setup { user, password, dbname, .. } = rebuild_setup(config, &self.setup.name);
        let setup = &mut self.setup.rebuild;
        (setup.user, setup.password, setup.dbname) = (user, password, dbname);
    }

    /// Writes this password to `primary_conninfo` of a standby, and reloads the instance, if it is the present one. Returns
    /// whether the file has changed. It must not keep an order to stop waiting.
    ///
    /// # Errors
    /// The file cannot be changed.
    pub fn write_password(&self, password: &str, cancel: &Cancel) -> Result<bool> {
        cancel.check()?;
        let rebuild::Setup { place, user, password: present, .. } = self.setup.rebuild.clone();
        let Some(password) = present.filter(|present| present == password) else { return Ok(false) };
        // Not cancelled from here on: the instance must read a file that has changed.
        let (_canceller, cancel) = Cancel::new();
        let cancelled = cancel.clone();
        let work = move || follow::renew_password(&place, &user, &password, || !cancelled.is_set());
        let changed = bounded::call("write the password to primary_conninfo", PASSWORD, &cancel, work)?;
        let place = &self.setup.place;
        if changed && process::postmaster(&place.data)?.is_some() {
            hang_up(place)?;
        }
        Ok(changed)
    }

    /// Does one job. An error is its [`Outcome::Failed`].
    pub fn perform(&mut self, job: &Job, cancel: &Cancel) -> Result<Outcome> {
        cancel.check()?;
        match job {
            Job::Inspect => self.inspect(FILES, cancel).map(Outcome::Data),
            Job::CompareWal(asked) => {
                let (place, asked) = (self.setup.place.clone(), *asked);
                let work = move || wal::compare(&place, &asked);
                bounded::call("compare the WAL", WAL, cancel, work).map(Outcome::Wal)
            }
            Job::Mark(ledger) => {
                let (data, ledger) = (self.setup.place.data.clone(), *ledger);
                bounded::call("write the mark", FILES, cancel, move || control::write_mark(&data, ledger))?;
                self.inspect(FILES, cancel).map(Outcome::Data)
            }
            Job::Start { names, follow } => {
                self.start(names.as_deref(), follow.as_deref(), cancel).map(Outcome::Started)
            }
            Job::Stop { fast_ms, names } => self.stop(*fast_ms, names.as_deref(), cancel).map(Outcome::Stopped),
            Job::NamesOn(name) => names::on(&self.setup, name, cancel).map(|()| Outcome::Applied),
            Job::NamesOff => names::off(&self.setup, cancel).map(|()| Outcome::Applied),
            Job::Promote => promote(&self.setup, cancel).map(Outcome::Promoted),
            Job::Prove(name) => prove(&self.setup, name, cancel).map(Outcome::Proved),
            Job::Checkpoint => checkpoint::perform(&self.setup, 1, 1, cancel).map(|()| Outcome::Applied),
            Job::Rebuild(what) => self.rebuild(what, cancel),
            Job::Abandon => {
                rebuild::abandon(&self.setup.rebuild, cancel)?;
                self.inspect(FILES, cancel).map(Outcome::Data)
            }
        }
    }

    fn rebuild(&mut self, what: &Rebuild, cancel: &Cancel) -> Result<Outcome> {
        if recover::Journal::forbids_rebuild(&self.setup.rebuild.run_dir) {
            return Err(Error::new("a recovery of this server is in progress, which replaces the data directory")
                .hint("Run \"mc_ctl recover\" to continue it, or \"mc_ctl recover --abandon\" to undo it."));
        }
        let made = rebuild::perform(&self.setup.rebuild, what, &self.board, cancel);
        if let Some(progress) = self.board.read() {
            tell_rebuilt(&progress, made.is_ok());
        }
        self.prune_lost(cancel);
        made?;
        let data = self.inspect(FILES, cancel)?;
        Ok(Outcome::Rebuilt { data, address: super::boot::address(&self.setup.place, &self.setup.rebuild.host) })
    }

    /// Bounds what rebuilds have saved. A failure does not make the rebuild fail.
    fn prune_lost(&self, cancel: &Cancel) {
        let run_dir = self.setup.rebuild.run_dir.clone();
        match bounded::call("remove what rebuilds saved", FILES, cancel, move || rebuild::prune_lost(&run_dir)) {
            Ok(removed) => removed.iter().for_each(|lost| {
                messages::tell(&Tell::LostRemoved { what: lost.in_words(), kept: lost.kept.display().to_string() });
            }),
            Err(error) => messages::tell(&Tell::Warning(error)),
        }
    }

    fn inspect(&mut self, limit: Duration, cancel: &Cancel) -> Result<DataDir> {
        let place = self.setup.place.clone();
        let data = bounded::call("read the data directory", limit, cancel, move || control::inspect(&place))?;
        Ok(data)
    }

    // ------------------------------------------------------------------------------------------------- start and stop

    fn start(&mut self, names: Option<&str>, follow: Option<&str>, cancel: &Cancel) -> Result<DataDir> {
        let unnamed = names::write(&self.setup, names, FILES, cancel)?;
        if let Some(address) = follow {
            let mut upstream = Upstream::parse(address, &self.setup.target.user, &self.setup.name)?;
            upstream.password = self.setup.rebuild.password.clone();
            let place = self.setup.place.clone();
            let work = move || follow::follow(&place, &upstream);
            bounded::call("write the standby's settings", FILES, cancel, work)?;
        }
        let data = self.inspect(FILES, cancel)?;
        let place = &self.setup.place;
        if process::postmaster(&place.data)?.is_some() {
            // An operator has started it meanwhile, maybe with the names that the files had.
            names::reload(place)?;
            return Ok(DataDir { unnamed: data.unnamed || unnamed, ..data });
        }
        wait_for_orphans(place, cancel)?;
        for (file, pid) in process::remove_stale_locks(place)? {
            let what =
                format!("removed stale file \"{}\": process {pid} does not belong to the instance", file.display());
            messages::tell(&Tell::Warning(Error::new(what)));
        }
        if slots::becomes_standby(data.standby_signal, data.state) {
            remove_slots(place, data.checkpoint, cancel)?;
        }
        launch(place, cancel)?;
        Ok(data)
    }

    fn stop(&mut self, fast_ms: u64, names: Option<&str>, cancel: &Cancel) -> Result<Option<DataDir>> {
        process::stop(&self.setup.place, Duration::from_millis(fast_ms), cancel)?;
        let mut unnamed = false;
        if let Some(name) = names {
            match names::write(&self.setup, Some(name), FILES_AFTER_STOP, cancel) {
                Ok(before) => unnamed = before,
                Err(error) => {
                    cancel.check()?;
                    match names::differs(&self.setup.place, name, FILES_AFTER_STOP, cancel) {
                        Ok(true) => return Err(error),
                        Ok(false) => {}
                        // The instance is down, and nothing shows what the file sets.
                        Err(_) => return Ok(None),
                    }
                }
            }
        }
        let data = self.inspect(FILES_AFTER_STOP, cancel);
        cancel.check()?;
        // Of the run that has ended.
        Ok(data.ok().map(|data| DataDir { unnamed: data.unnamed || unnamed, ..data }))
    }
}

fn tell_rebuilt(progress: &rebuild::Progress, made: bool) {
    if let Some(lost) = &progress.lost {
        messages::tell(&Tell::Lost { what: lost.in_words(), kept: lost.kept.display().to_string() });
    }
    for file in &progress.kept_configuration {
        let what = format!("kept configuration file \"{}\", which may differ from the primary's", file.display());
        messages::tell(&Tell::Warning(Error::new(what)));
    }
    for slot in progress.removed_slots.iter().filter(|_| made) {
        messages::tell(&slot_removed(slot.clone()));
    }
    if let Some(chosen) = progress.chosen.filter(|_| made) {
        let copied = match chosen {
            _ if progress.continued => "the complete copy of an earlier attempt was used".to_owned(),
            Chosen::Follow => "nothing had to be copied".to_owned(),
            Chosen::Rewind | Chosen::BaseBackup => format!("{} copied {} bytes", chosen.program(), progress.done),
        };
        let seconds = progress.elapsed_ms / 1000;
        messages::tell(&Tell::Rebuilt { copied, why: progress.why.clone(), seconds });
    }
}

fn slot_removed((name, kept): slots::Removed) -> Tell {
    Tell::SlotRemoved { name, kept: kept.map_or("no WAL".to_owned(), |bytes| format!("{} MB of WAL", bytes >> 20)) }
}

/// Removes the slots of the server's time as the primary. One that cannot be removed does not keep the standby down.
fn remove_slots(place: &Place, end: Lsn, cancel: &Cancel) -> Result<()> {
    let of = place.clone();
    let work = move || {
        slots::remove_leftovers(&of, end, |slot| {
            messages::tell(&match slot {
                Ok(slot) => slot_removed(slot),
                Err(error) => Tell::Warning(error),
            });
        })
    };
    bounded::call("remove replication slots", FILES, cancel, work)
}

/// Backends whose postmaster is gone end by themselves soon; PostgreSQL does not start before.
fn wait_for_orphans(place: &Place, cancel: &Cancel) -> Result<()> {
    let gone = || Ok(process::scan(&place.data)?.is_empty().then_some(()));
    match bounded::poll(Duration::from_secs(2), PAUSE, cancel, gone)? {
        Some(()) => Ok(()),
        None => {
            let unknown = process::uninspected(&place.data, &process::scan(&place.data)?);
            let left = unknown.unwrap_or_else(|| {
                Error::new("processes of its last run are still running").hint("Stop the instance first.")
            });
            Err(Error::new(format!("could not start the instance: {}", left.message)).hint(left.hint))
        }
    }
}

/// `pg_ctl start`, until the postmaster has written its status.
fn launch(place: &Place, cancel: &Cancel) -> Result<()> {
    let log = &log_file(place, cancel);
    let before = std::fs::metadata(log).map_or(0, |log| log.len());
    let started = commands::start(place, log)?.run(Duration::from_secs(10), Some(cancel));
    let failed = |why: &str| {
        let said = tail(log, before);
        let said = if said.is_empty() { String::new() } else { format!(":\n{said}") };
        Error::new(format!("could not start the instance: {why}{said}"))
            .hint(format!("See \"{}\" and the server log.", log.display()))
    };
    let postmaster = find_postmaster(place)?;
    cancel.check()?;
    started?;
    let postmaster = postmaster.ok_or_else(|| failed("the postmaster ended at once"))?;
    let end = Instant::now() + START;
    while Instant::now() < end && !has_status(place, postmaster.pid) {
        if postmaster.wait(PAUSE) {
            return Err(failed("the postmaster ended at once"));
        }
        cancel.check()?;
    }
    if postmaster.alive() { Ok(()) } else { Err(failed("the postmaster ended at once")) }
}

/// The file for PostgreSQL's log, or the one in the run-time directory if that cannot be opened: the log does not keep an
/// instance from being started.
fn log_file(place: &Place, cancel: &Cancel) -> PathBuf {
    let of = place.clone();
    match bounded::call("open PostgreSQL's log file", LOG, cancel, move || of.open_log()) {
        Ok(()) => place.log_file.clone(),
        Err(_) if place.log_file == place.startup_log => place.startup_log.clone(),
        Err(why) => {
            messages::tell(&Tell::NoLogFile { why, instead: place.startup_log.display().to_string() });
            place.startup_log.clone()
        }
    }
}

/// The postmaster that is on its way. Not cancelled: what was launched is either found, or gone.
fn find_postmaster(place: &Place) -> Result<Option<process::Process>> {
    let end = Instant::now() + START;
    let mut absent = 0;
    while absent < 3 && Instant::now() < end {
        if let Some(postmaster) = process::postmaster(&place.data)? {
            return Ok(Some(postmaster));
        }
        absent = if process::launching(&place.data)? { 0 } else { absent + 1 };
        std::thread::sleep(PAUSE);
    }
    process::postmaster(&place.data)
}

/// Whether this postmaster has written its status (the eighth line of `postmaster.pid`), which it does after everything
/// that commonly fails: configuration, ports, shared memory.
fn has_status(place: &Place, pid: i32) -> bool {
    let text = std::fs::read_to_string(place.data.join("postmaster.pid")).unwrap_or_default();
    process::pid_in_file(place) == Some(pid) && text.lines().nth(7).is_some_and(|status| !status.trim().is_empty())
}

/// The end of what the start wrote to its log.
fn tail(log: &Path, before: u64) -> String {
    let Ok(mut log) = std::fs::File::open(log) else { return String::new() };
    let length = log.metadata().map_or(0, |log| log.len());
    let mut bytes = Vec::new();
    let from = before.max(length.saturating_sub(2000)).min(length);
    let read = log.seek(SeekFrom::Start(from)).and_then(|_| log.take(2000).read_to_end(&mut bytes));
    read.map_or(String::new(), |_| String::from_utf8_lossy(&bytes).trim().to_owned())
}

// --------------------------------------------------------------------------------------------------------- by sessions

/// Does something on a session of its own, on a thread that is abandoned at the limit or when cancelled.
pub(super) fn in_session<T: Send + 'static>(
    setup: &Setup,
    what: &'static str,
    limit: Duration,
    cancel: &Cancel,
    work: impl FnOnce(&mut Session, &Cancel) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (target, seen) = (setup.target.clone(), cancel.clone());
    bounded::call(what, limit, cancel, move || work(&mut Session::open(&target, QUERY, what)?, &seen))
}

fn promote(setup: &Setup, cancel: &Cancel) -> Result<Timeline> {
    if let Ok(Some(timeline)) = in_session(setup, "promote", QUERY, cancel, |session, _| primary_timeline(session)) {
        return Ok(timeline);
    }
    let place = &setup.place;
    let postmaster = process::postmaster(&place.data)?
        .ok_or_else(|| Error::new("could not promote the instance: it is not running"))?;
    // pg_ctl signals whatever process the file names.
    if process::pid_in_file(place) != Some(postmaster.pid) {
        return Err(Error::new("could not promote the instance: \"postmaster.pid\" names another process"));
    }
    let asked = commands::promote(place).run(Duration::from_secs(10), Some(cancel));
    // It fails where a promotion has ended since; whether it has is seen below.
    let limit = if asked.is_ok() { PROMOTE } else { QUERY };
    let mut session: Option<Session> = None;
    let (target, seen, place) = (setup.target.clone(), cancel.clone(), place.clone());
    let look = move || {
        if !postmaster.alive() {
            return Err(Error::new("could not promote the instance: its postmaster ended"));
        }
        let mut now = match session.take() {
            Some(open) => open,
            None => match Session::open(&target, QUERY, "promote") {
                Ok(open) => open,
                Err(refusal) if refusal.is_rejection() => {
                    // Each try is a line in the server's log.
                    std::thread::sleep(PAUSE * 10);
                    return Ok(control::promoted(&place));
                }
                Err(_) => return Ok(None),
            },
        };
        let found = primary_timeline(&mut now);
        session = found.is_ok().then_some(now);
        Ok(found.unwrap_or(None))
    };
    let work = move || bounded::poll(limit, PAUSE, &seen, look);
    match bounded::call("promote the instance", limit + QUERY * 3, cancel, work)? {
        Some(timeline) => Ok(timeline),
        None => Err(asked.err().unwrap_or_else(|| {
            Error::new(format!("the instance is still in recovery {} s after its promotion", limit.as_secs()))
                .hint("The instance replays the WAL that it has received; the promotion continues.")
        })),
    }
}

/// The timeline on which it takes writes; `None` while it is in recovery.
fn primary_timeline(session: &mut Session) -> Result<Option<Timeline>> {
    if queries::is_in_recovery(session, QUERY)? {
        return Ok(None);
    }
    Ok(Some(queries::primary_timeline(session, QUERY)?))
}

// ------------------------------------------------------------------------------------------------------------------ R9

/// PROTOCOL R9, steps 2 to 5. After a failure the names are commented out again; after a cancellation they are left, as
/// set names are always safe.
fn prove(setup: &Setup, name: &str, cancel: &Cancel) -> Result<Lsn> {
    let proved = try_to_prove(setup, name, cancel);
    if proved.is_err()
        && !cancel.is_set()
        && let Err(why) = names::off(setup, cancel)
    {
        messages::tell(&Tell::Warning(why));
    }
    proved
}

fn try_to_prove(setup: &Setup, name: &str, cancel: &Cancel) -> Result<Lsn> {
    names::on(setup, name, cancel)?;
    checkpoint::perform(setup, 1, 2, cancel)?;
    checkpoint::perform(setup, 2, 2, cancel)?;
    let name = name.to_owned();
    in_session(setup, "confirm the standby", CONFIRM + QUERY * 4, cancel, move |session, cancel| {
        let position = queries::flush_lsn(session, QUERY)?;
        let mut state = String::new();
        let look = || {
            let rows = queries::standby_rows(session, &name, QUERY)?;
            state = match rows.as_slice() {
                [(_, row)] if row.streaming && row.sync && row.flushed >= position => return Ok(Some(position)),
                [(_, row)] => format!(
                    "its row in pg_stat_replication is {}, {}, flushed {} of {position}",
                    if row.streaming { "streaming" } else { "not streaming" },
                    if row.sync { "sync" } else { "not sync" },
                    row.flushed
                ),
                rows => format!("{} rows in pg_stat_replication have its name", rows.len()),
            };
            Ok(None)
        };
        let confirmed = bounded::poll(CONFIRM, PAUSE, cancel, look)?;
        confirmed.ok_or_else(|| Error::new(format!("standby \"{name}\" did not become synchronous: {state}")))
    })
}

/// The value of `synchronous_standby_names` for one standby.
pub(super) fn value_of(name: Option<&str>) -> String {
    name.map(conf::names_value).unwrap_or_default()
}

/// SIGHUP to the postmaster, which is found by what it is.
pub(super) fn hang_up(place: &Place) -> Result<()> {
    let postmaster = process::postmaster(&place.data)?
        .ok_or_else(|| Error::new("could not reload the configuration: the instance is not running"))?;
    if postmaster.signal(Signal::HUP) {
        return Ok(());
    }
    Err(Error::new("could not reload the configuration: the postmaster ended"))
}
