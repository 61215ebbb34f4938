//! The steps of a recovery, in an order in which it can be killed anywhere. The journal records a phase before its first change.
//!
//! 1. `Copying`: the backup is restored and verified beside the data directory, and recovered to the target by an instance of its
//!    own. The pair serves. If that fails, the copy is removed.
//! 2. `Stopping`: this server becomes the only one that may serve, and is stopped.
//! 3. `Recovering`: the data directory is guarded, so that no program can start it. WAL that is only there goes to the archive and
//!    to the copy, which is recovered to the target and shut down on a timeline of its own: only now, since the pair can begin
//!    another timeline until it is stopped. Until here everything can be undone.
//! 4. `Swapping`: no controller runs. The copy is guarded, and gets the name of the data directory.
//! 5. `Adopting`: the guard is removed. Nothing starts the data directory before the controller has the right to run alone with
//!    it, because it is not the one that the view names.
//! 6. `Rebuilding`: this server serves, and the other server is rebuilt.

use super::super::archive;
use super::super::backup::{Interruption, show};
use super::super::follow::Display;
use super::super::{Exit, Failure, call, say};
use super::{Order, Source, pair, plan, program};
use crate::backup::{Archive, Catalog, Destination, Holdings, reach, timeline_at};
use crate::config::Config;
use crate::daemon::store::{CONTROLLER_LOCK, Lock};
use crate::daemon::watcher;
use crate::error::{Error, Result};
use crate::fsm::event::{Request, StartedBy};
use crate::fsm::types::Lsn;
use crate::pg::{Place, control, files};
use crate::rebuild::{self, human, rooms};
use crate::recover::{
    self, Candidate, Journal, Phase, Reached, Replay, Target, add_histories, carry_over, name_for_timeline,
    promote_end, stage,
};
use std::cell::RefCell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a start may take to be ordered.
const START: Duration = Duration::from_secs(60);

/// How long the list of what the other server has archived may take.
const RESPONSE: Duration = Duration::from_secs(60);

/// A recovery on this server.
pub struct Work<'a> {
    pub config: &'a Config,
    pub place: Place,
    pub run_dir: PathBuf,
    pub source: Source,
    pub interruption: &'a Interruption,
    display: RefCell<Display>,
}

/// What this server was before.
#[derive(Clone, Copy)]
pub struct Before {
    /// It served, or was a standby.
    pub served: bool,
    /// It was the primary.
    pub primary: bool,
    /// The operator has confirmed that the other server is down.
    pub forced: bool,
    /// The other server may have the right to run alone.
    pub rival: bool,
    /// Automatic switch and disconnection were enabled.
    pub failover: bool,
}

/// What has become of the other server.
pub enum Ended {
    /// The pair is mirrored.
    Mirrored,
    /// Its controller does not respond.
    Alone,
}

impl<'a> Work<'a> {
    pub fn new(config: &'a Config, source: Source, interruption: &'a Interruption) -> Work<'a> {
        Work {
            config,
            place: Place::new(config),
            run_dir: config.run_dir(),
            source,
            interruption,
            display: RefCell::new(Display::new()),
        }
    }

    pub fn step(&self, text: &str) {
        show(&mut self.display.borrow_mut(), text);
    }

    pub fn end_display(&self) {
        self.display.borrow().end();
    }

    /// `backup_destination`.
    fn destination(&self) -> Result<&Destination> {
        match &self.source {
            Source::Destination(destination) => Ok(destination),
            Source::Program(_) => Err(Error::new("the backup is not in backup_destination")),
        }
    }

    pub(super) fn explain(&self, error: Error) -> Failure {
        self.end_display();
        self.interruption.explain(error, "recovery")
    }

    // ------------------------------------------------------------------------------------------------------- preparation

    /// Restores one of these backups, and recovers it to the target.
    pub fn prepare(
        &self,
        candidates: &[Candidate],
        order: &Order,
        before: Before,
    ) -> std::result::Result<Journal, Failure> {
        let lock = self.destination().and_then(Destination::lock).map_err(Failure::failed)?;
        let Some(_lock) = lock else {
            return Err(Failure::new(Exit::Refused, "a backup is in progress")
                .hint("Run this command again when it has ended."));
        };
        let mut failed: Option<Error> = None;
        for candidate in candidates {
            if let Some(error) = &failed {
                self.end_display();
                say(&format!(
                    "mc_ctl: WARNING: {error}\nmc_ctl: trying the next older backup, \"{}\"\n",
                    candidate.backup.name
                ));
            }
            match self.attempt(candidate, order, before) {
                Ok(Ok(journal)) => return Ok(journal),
                Ok(Err(unusable)) => failed = failed.or(Some(unusable)),
                Err(error) => return Err(self.explain(error)),
            }
        }
        self.end_display();
        let error = failed.unwrap_or_else(|| Error::new("no backup leads to the target"));
        Err(Failure::failed(Error { hint: format!("Nothing was changed. {}", error.hint), ..error }))
    }

    /// The inner error: another backup may do.
    fn attempt(&self, candidate: &Candidate, order: &Order, before: Before) -> Result<Result<Journal>> {
        let Candidate { backup, reach } = candidate;
        let catalog = Catalog::read(self.destination()?)?;
        let spaces = backup.tablespaces.iter().map(|space| (space.oid.clone(), space.location.clone())).collect();
        let mut replacement = rebuild::replacement(&self.place, (&self.config.id, &order.stamp), spaces)?;
        // What is no data directory any more, or half rewound, can be neither guarded nor started.
        replacement.ruined = replacement.existed && self.is_ruined()?;
        let needs = recover::needs(&catalog, backup, &replacement, &self.interruption.cancel)?;
        if let Some(short) = recover::shortages(&rooms(&needs)?).into_iter().next() {
            return Err(Error::new(short));
        }
        let _ = std::fs::remove_file(Replay::log(&self.run_dir));
        let mut journal = Journal {
            phase: Phase::Copying,
            target: order.target.clone(),
            backup: backup.name.clone(),
            program: None,
            timeline: reach.newest_timeline,
            selected: order.timeline.is_some(),
            served: before.served,
            primary: before.primary,
            forced: before.forced,
            rival: before.rival,
            both: archive::contents_of_peer(self.config).is_ok(),
            failover: before.failover,
            replacement,
        };
        journal.write(&self.run_dir)?;
        let staged = self.restore(&journal, candidate, &catalog);
        if let Ok(Ok(reached)) = staged {
            // Of a later timeline, the history of the one that begins there would be wrong.
            if let Some(position) = reached {
                let (holdings, ..) = plan::holdings(self.config, self.destination()?)?;
                let (timeline, end) = timeline_at(backup, &holdings, order.timeline, position)?;
                let staging = &journal.replacement.staging;
                name_for_timeline(staging, (position, end), timeline, backup.segment_size, &holdings)?;
                journal.timeline = timeline;
            }
            // The primary may have dropped a tablespace meanwhile.
            journal.replacement.moves.retain(|change| change.staged.exists());
            journal.enter(Phase::Stopping, &self.run_dir)?;
            return Ok(Ok(journal));
        }
        self.unstage(&journal)?;
        Journal::remove(&self.run_dir)?;
        staged.map(|unusable| unusable.map(|_| journal))
    }

    pub(super) fn is_ruined(&self) -> Result<bool> {
        let data = &self.place.data;
        Ok(!data.join("PG_VERSION").exists() || control::is_incomplete(data)?)
    }

    /// Returns where the target was reached; `None` if that shows later.
    fn restore(&self, journal: &Journal, candidate: &Candidate, catalog: &Catalog) -> Result<Result<Option<Lsn>>> {
        let Candidate { backup, reach } = candidate;
        let total = backup.bytes;
        let mut shown = 0;
        let step = format!("restoring backup \"{}\"", backup.name);
        self.step(&step);
        let mut copied = |bytes: u64| {
            if bytes > shown + total / 100 {
                shown = bytes;
                self.step(&format!("{step}, {} of {}", human(bytes), human(total)));
            }
        };
        let cancel = &self.interruption.cancel;
        if let Err(error) = stage(&self.place, (catalog, backup), &journal.replacement, &mut copied, cancel) {
            cancel.check()?;
            return Ok(Err(error));
        }
        if journal.target.is_latest() {
            return Ok(Ok(None));
        }
        self.step(&format!("recovering the backup to {}", journal.target));
        let command = self.restore_command(archive::contents_of_peer(self.config).is_ok());
        let replay = self.replay(journal, &command);
        match replay.to_target(&mut || self.tick(), cancel)? {
            Reached::Yes(lsn) => {
                self.end_display();
                say(&format!("mc_ctl: {} is reached at {lsn}\n", journal.target));
                Ok(Ok(Some(lsn)))
            }
            Reached::No(said) => {
                let error = Error::new(format!(
                    "backup \"{}\" could not be recovered to {}; WAL is archived to {} on timeline {}\n{said}",
                    backup.name, journal.target, reach.until, reach.newest_timeline
                ));
                let hint = "A target after the last commit is not reached: --latest recovers all WAL.";
                // What precedes a backup is found from an older one only.
                match journal.target {
                    Target::Name(_) | Target::Xid(_) => Ok(Err(error)),
                    _ => Err(error.hint(hint)),
                }
            }
        }
    }

    pub(super) fn tick(&self) {
        if let Display::Bar(bar) = &*self.display.borrow() {
            bar.tick();
        }
    }

    pub(super) fn replay<'r>(&'r self, journal: &'r Journal, restore_command: &'r str) -> Replay<'r> {
        Replay {
            place: &self.place,
            staging: &journal.replacement.staging,
            target: &journal.target,
            timeline: journal.timeline,
            restore_command,
            run_dir: &self.run_dir,
        }
    }

    /// The WAL of both archives, and why that of the other server is not known. A controller that responds does so soon after
    /// the start of this one.
    fn holdings(&self, peer_lives: bool) -> Result<(Holdings, Option<String>)> {
        let begin = Instant::now();
        loop {
            let (holdings, _, unknown) = plan::holdings(self.config, self.destination()?)?;
            if unknown.is_none() || !peer_lives || begin.elapsed() > RESPONSE {
                return Ok((holdings, unknown));
            }
            self.interruption.cancel.sleep(Duration::from_millis(500))?;
        }
    }

    /// `both`: the other server is asked too. If it is to be asked and does not respond, PostgreSQL aborts the recovery.
    fn restore_command(&self, both: bool) -> String {
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("mc_ctl"));
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''").replace('%', "%%"));
        format!(
            "{} restore-wal -t 300 -M {} --local-server {}{} \"%f\" \"%p\"",
            quoted(&program.to_string_lossy()),
            quoted(&self.config.dir.to_string_lossy()),
            quoted(&self.config.id),
            if both { "" } else { " --own-archive" }
        )
    }

    pub(super) fn unstage(&self, journal: &Journal) -> Result<()> {
        let staging = &journal.replacement.staging;
        Replay::end_leftovers(&self.place, staging)?;
        if journal.program.is_some() {
            program::end_leftovers(staging)?;
        }
        // A copy that is removed in part is never taken for a whole one.
        if staging.exists() {
            files::remove(&staging.join("global/pg_control"))?;
        }
        rebuild::unstage(&journal.replacement)
    }

    // --------------------------------------------------------------------------------------------------------- the pair

    /// Everything that follows the preparation; also after an interruption.
    pub fn complete(&self, mut journal: Journal) -> std::result::Result<Ended, Failure> {
        if journal.phase < Phase::Swapping {
            Replay::end_leftovers(&self.place, &journal.replacement.staging).map_err(Failure::failed)?;
            self.stop(&mut journal)?;
            if let Err(error) = self.recover(&mut journal) {
                return Err(self.undo_failed(&journal, error));
            }
        }
        if journal.phase <= Phase::Swapping {
            pair::stop_controller(self.config)?;
            self.swap(&mut journal).map_err(|error| self.explain(error))?;
        }
        if journal.phase == Phase::Adopting {
            self.step("starting this server with the recovered data");
            self.adopt(&mut journal)?;
        } else {
            pair::keeps_role(self.config)?;
            pair::serve(self.config)?;
            pair::failover(self.config, journal.failover)?;
        }
        let mirrored = pair::rebuild_peer(self);
        self.end_display();
        let mirrored = mirrored?;
        Journal::remove(&self.run_dir).map_err(Failure::failed)?;
        Ok(if mirrored { Ended::Mirrored } else { Ended::Alone })
    }

    /// Afterwards no program can start the old data directory.
    fn stop(&self, journal: &mut Journal) -> std::result::Result<(), Failure> {
        let data = &self.place.data;
        let guards = journal.guards();
        if guards && control::is_incomplete(data).map_err(Failure::failed)? {
            return Ok(());
        }
        self.step("stopping this server");
        if archive::busy_peer(self.config).is_ok_and(|busy| busy.is_some()) {
            let text = format!("a recovery or a rebuild is in progress on server \"{}\"", self.config.peer().id);
            return Err(self.continues(Failure::new(Exit::Refused, text)));
        }
        pair::take_down(self.config, journal).map_err(|failure| self.continues(failure))?;
        let mut guard = || {
            if guards {
                rebuild::keep_configuration(&self.place, &self.run_dir)?;
            } else if !rebuild::Journal::path(&self.run_dir).exists() {
                rebuild::forget_configuration(&self.run_dir)?;
            }
            journal.enter(Phase::Recovering, &self.run_dir)?;
            if guards { control::guard(data, self.place.major) } else { Ok(()) }
        };
        guard().map_err(|error| self.explain(error))?;
        // An instance that another program has started meanwhile does not read the guard.
        if pair::runs(self.config)? {
            if guards {
                control::unguard(data, self.place.major).map_err(Failure::failed)?;
            }
            return Err(self.continues(Failure::new(Exit::Refused, "another program has started the instance")));
        }
        Ok(())
    }

    fn continues(&self, failure: Failure) -> Failure {
        self.end_display();
        failure.hint("Run \"mc_ctl recover\" to continue the recovery, or \"mc_ctl recover --abandon\" to undo it.")
    }

    /// Recovers the copy, which is shut down then.
    fn recover(&self, journal: &mut Journal) -> Result<()> {
        if let Some(program) = &journal.program {
            return self.recover_by(program, journal);
        }
        let archive = Archive::new(self.destination()?.clone());
        let staging = journal.replacement.staging.clone();
        pair::start_controller(self.config).map_err(|failure| failure.error)?;
        let peer_lives = pair::look(self.config).map_err(|failure| failure.error)?.report.peer_lives;
        // WAL that a rebuild has left half written is none.
        if journal.guards() && staging.join("recovery.signal").exists() {
            carry_over(&self.place.data, Some(&archive), &staging, journal.target.is_latest())?;
        }
        let catalog = Catalog::read(self.destination()?)?;
        let backup = catalog.find(&journal.backup)?;
        let (holdings, unknown) = self.holdings(peer_lives)?;
        add_histories(&staging, &holdings)?;
        let reach = reach(backup, &holdings, journal.selected.then_some(journal.timeline))?;
        if journal.target.is_latest() && (reach.newest_timeline < journal.timeline || journal.both && unknown.is_some())
        {
            let why = unknown.as_deref().unwrap_or("a part of it is missing");
            return Err(Error::new(format!(
                "the archive of server \"{}\", which the recovery needs, cannot be read: {why}",
                self.config.peer().id
            )));
        }
        if journal.target.is_latest() && journal.timeline != reach.newest_timeline {
            journal.timeline = reach.newest_timeline;
            journal.write(&self.run_dir)?;
        }
        self.step(&format!("recovering the backup to {}", journal.target));
        let command = self.restore_command(unknown.is_none());
        self.replay(journal, &command).promote(&mut || self.tick(), &self.interruption.cancel)?;
        let (timeline, end) = promote_end(&staging)?;
        if timeline <= holdings.newest_timeline() {
            return Err(Error::new(format!("the recovery has begun timeline {timeline}, which exists already")));
        }
        // PostgreSQL takes WAL that is damaged for the end of WAL.
        if journal.target.is_latest() && end.0 + backup.segment_size < reach.until.0 {
            return Err(Error::new(format!(
                "WAL is archived to {}, and the recovery ended at {end}: the WAL there is damaged",
                reach.until
            ))
            .hint(format!("To recover what precedes it, run \"mc_ctl recover --lsn {end}\".")));
        }
        self.recovered(journal, timeline, end)
    }

    /// The copy is recovered to this position, where a timeline begins.
    pub(super) fn recovered(&self, journal: &Journal, timeline: u32, end: Lsn) -> Result<()> {
        if journal.target.is_latest() && !journal.selected && journal.served && journal.guards() {
            let checkpoint = control::inspect(&self.place)?.checkpoint;
            if end < checkpoint {
                return Err(Error::new(format!(
                    "the recovery ended at {end}, before {checkpoint}, up to which this server's data reaches: WAL is missing"
                )));
            }
        }
        self.end_display();
        say(&format!("mc_ctl: the backup is recovered to {end}; timeline {timeline} begins there\n"));
        Ok(())
    }

    fn undo_failed(&self, journal: &Journal, error: Error) -> Failure {
        if self.interruption.cancel.is_set() {
            return self.continues(self.explain(error));
        }
        self.end_display();
        match self.undo(journal) {
            Ok(()) => {
                Failure::failed(Error { message: format!("{}; the recovery was undone", error.message), ..error })
            }
            Err(failure) => {
                say(&format!("mc_ctl: {error}\n"));
                failure
            }
        }
    }

    /// The copy gets the place of the data directory.
    fn swap(&self, journal: &mut Journal) -> Result<()> {
        let Place { data, major, .. } = &self.place;
        self.step("replacing the data directory");
        let _lock = Lock::take(&self.run_dir, CONTROLLER_LOCK)?;
        if journal.phase < Phase::Swapping {
            journal.enter(Phase::Swapping, &self.run_dir)?;
        }
        if journal.replacement.staging.exists() {
            control::guard(&journal.replacement.staging, *major)?;
        }
        rebuild::swap(&journal.replacement, *major)?;
        journal.replacement.swapped = true;
        journal.write(&self.run_dir)?;
        rebuild::settle_old(&journal.replacement, *major)?;
        rebuild::put_back_configuration(data, &self.run_dir)?;
        // The rebuild that was interrupted has nothing to continue.
        rebuild::Journal::remove(&self.run_dir)?;
        journal.enter(Phase::Adopting, &self.run_dir)
    }

    fn adopt(&self, journal: &mut Journal) -> std::result::Result<(), Failure> {
        self.unguard()?;
        pair::adopt(self.config, journal).map_err(|failure| self.continues_only(failure))?;
        pair::failover(self.config, journal.failover)?;
        journal.enter(Phase::Rebuilding, &self.run_dir).map_err(Failure::failed)
    }

    fn continues_only(&self, failure: Failure) -> Failure {
        self.end_display();
        let hint = format!("{} Run \"mc_ctl recover\" to continue the recovery.", failure.error.hint);
        failure.hint(hint.trim())
    }

    // ---------------------------------------------------------------------------------------------------------- undoing

    /// Ends a recovery that has replaced the data directory. Nothing starts the new one without an order.
    pub fn leave(&self) -> std::result::Result<(), Failure> {
        self.unguard()?;
        Journal::remove(&self.run_dir).map_err(Failure::failed)
    }

    /// The data directory can be started again.
    fn unguard(&self) -> std::result::Result<(), Failure> {
        let Place { data, major, .. } = &self.place;
        if control::is_incomplete(data).map_err(Failure::failed)? {
            // A controller that was started meanwhile has read that.
            pair::stop_controller(self.config)?;
            control::unguard(data, *major).map_err(Failure::failed)?;
        }
        Ok(())
    }

    /// Removes the copy. If this server was stopped for the recovery, it serves again with the data that it had.
    pub fn undo(&self, journal: &Journal) -> std::result::Result<(), Failure> {
        // Its space may be what the rest needs.
        self.unstage(journal).map_err(Failure::failed)?;
        if journal.guards() {
            self.unguard()?;
        }
        Journal::remove(&self.run_dir).map_err(Failure::failed)?;
        if journal.phase == Phase::Copying || !journal.served {
            return Ok(());
        }
        if call::is_running(self.config)? {
            let failover = journal.failover.then_some(true);
            call::request(self.config, Request::Start { failover }, START)?;
        } else {
            let by = StartedBy::Operator { instance: true, failover: Some(journal.failover) };
            watcher::start_detached(self.config, by, START).map_err(Failure::failed)?;
        }
        say("mc_ctl: this server is started with the data that it had\n");
        let attached = pair::attach_peer(self);
        self.end_display();
        if let Err(failure) = attached {
            say(&format!("mc_ctl: WARNING: the pair is not mirrored: {}\n", failure.error));
        }
        Ok(())
    }
}
