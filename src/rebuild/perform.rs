//! Does what was planned, in an order in which it can be killed anywhere, power loss included: at every instant the data
//! directory is untouched, or nothing can start it, or it starts as a standby. Each line is durable before the next.
//!
//! 1. Nothing of the instance runs, and what an earlier controller left at work is ended: nobody else writes there.
//! 2. What the journal tells is finished (`Swapping`) or undone (`Copying`). From here on the directory is untouched,
//!    or ruined: half rewound, half deleted, guarded for ever, and only a base backup can follow.
//! 3. A slot on the primary: before the checkpoint, which removes old WAL. Then the checkpoint, without which `pg_rewind`
//!    does not see a promotion. Then the plan; all that speaks against it is said before anything is changed.
//! 4. What only this server has is kept: before recovery, rewind or deletion change or recycle its WAL.
//! 5. The configuration is kept: while it is surely this server's own, so never from a ruined directory.
//! 6. For a rewind, crash recovery is ended: before the guard, which stops `postgres --single` as well. It adds nothing
//!    but a checkpoint at the end of what the directory already held.
//! 7. The journal: before the guard, so that whoever finds the guard knows what it stands for and can undo it. Then the
//!    guard: before the first change. From here on nothing can start the directory.
//! 8. Rewind: the journal says `Rewinding` before `pg_rewind` begins. It syncs what it wrote. Where it fails without having
//!    begun to copy, the guard is taken away again; else it stays.
//!    Base backup: what is to be deleted first is marked as ruined before, and deleted. The copy is made beside, synced by
//!    `pg_basebackup`, and guarded before it gets the directory's name.
//! 9. The result is looked at; the journal says `Swapping`: from here on everything is repeated until it is done, never
//!    undone. Before that the renames would destroy what an undoing needs.
//! 10. Renames. The old directory, aside now, gets its links and its `PG_VERSION` back: it is no longer the data directory.
//! 11. This server's configuration, `standby.signal` first of what makes it a standby, then `primary_conninfo`, and the names.
//!     WAL that only the primary has archived is marked, so that the standby archives it too.
//! 12. The guard is taken away: last, since from here on it can be started. It is whole, and a standby's.
//! 13. The journal goes. Killed before that, step 2 finds a directory without a guard and does only this.
//!
//! No step syncs more than it wrote: PostgreSQL's programs sync what they write.

use super::journal::{Journal, Phase, now_ms, stamp};
use super::primary::Primary;
use super::progress::Teller;
use super::rewind::Failed;
use super::slot::Slot;
use super::{Board, Chosen, Plan, Setup, backup, config_copy, keep, lost, plan, rewind, shared, swap, unarchived};
use crate::error::{Error, Result};
use crate::fsm::event::Rebuild;
use crate::fsm::types::{Lsn, Method, OldData, RebuildOrder};
use crate::pg::bounded::Cancel;
use crate::pg::follow::{self, Upstream};
use crate::pg::{Place, conf, control, files, process, slots};

/// Makes the data directory a standby's copy of the other server's, or continues that after an interruption.
///
/// # Errors
/// It was not done. The directory is what it was before, or, where `pg_rewind` had begun, cannot be started.
pub fn perform(setup: &Setup, what: &Rebuild, board: &Board, cancel: &Cancel) -> Result<()> {
    let tell = Teller::new(board, &setup.run_dir);
    tell.step("checking both servers");
    let work = Work { setup, what, tell: &tell, cancel };
    let done = work.run();
    match &done {
        Ok(()) => tell.step("created; the instance is to be started"),
        Err(error) => tell.line(&error.to_string()),
    }
    done
}

/// Undoes a rebuild that was interrupted before anything of the directory was overwritten. Where that is not so, nothing
/// is done.
///
/// # Errors
/// A file could not be written or removed.
pub fn abandon(setup: &Setup, cancel: &Cancel) -> Result<()> {
    match Journal::load(&setup.run_dir)? {
        Some(journal) if journal.phase == Phase::Copying => {
            check_there(setup, &journal)?;
            end_leftovers(setup, Some(&journal), cancel)?;
            undo(setup, &journal)
        }
        // All is done but this.
        Some(journal)
            if journal.phase == Phase::Swapping
                && !journal.staging.exists()
                && control::is_incomplete(&setup.place.data) == Ok(false) =>
        {
            Journal::remove(&setup.run_dir)
        }
        _ => Ok(()),
    }
}

/// Ends what a killed controller has left at work.
fn end_leftovers(setup: &Setup, journal: Option<&Journal>, cancel: &Cancel) -> Result<()> {
    let staging = journal.map_or_else(|| swap::staging(&setup.place.data), |journal| journal.staging.clone());
    process::end_leftovers(&[&setup.place.data, &staging], cancel)
}

/// Refuses where the data directory of the journal is not there: its filesystem is not mounted, or was exchanged.
fn check_there(setup: &Setup, journal: &Journal) -> Result<()> {
    let data = &setup.place.data;
    if !journal.existed || journal.phase == Phase::Swapping || data.join("PG_VERSION").exists() {
        return Ok(());
    }
    let what = format!("could not continue the rebuild: the data directory \"{}\" is missing or empty", data.display());
    Err(Error::new(what).hint(format!(
        "Mount its file system. To create the data directory again without it, remove \"{}\".",
        Journal::path(&setup.run_dir).display()
    )))
}

/// Takes back what was done in [`Phase::Copying`]. A ruined directory stays guarded, with a journal that says so.
fn undo(setup: &Setup, journal: &Journal) -> Result<()> {
    let data = &setup.place.data;
    if journal.method == Chosen::BaseBackup {
        swap::unstage(journal)?;
    }
    if journal.ruined {
        return Journal { phase: Phase::Rewinding, ..journal.clone() }.write(&setup.run_dir);
    }
    if journal.existed {
        if journal.method == Chosen::Rewind {
            keep::tighten(data, &setup.run_dir)?;
        }
        if control::is_incomplete(data)? {
            control::unguard(data, setup.place.major)?;
        }
    }
    Journal::remove(&setup.run_dir)
}

struct Work<'a> {
    setup: &'a Setup,
    what: &'a Rebuild,
    tell: &'a Teller<'a>,
    cancel: &'a Cancel,
}

impl Work<'_> {
    fn run(&self) -> Result<()> {
        let journal = self.settle()?;
        let mut primary = Primary::new(self.setup, self.what)?;
        let slot = self.hold(&primary)?;
        match journal {
            Some(journal) if journal.phase == Phase::Swapping => {
                let Plan { chosen, why, .. } = plan::finish(&journal);
                self.tell.update(|progress| {
                    (progress.chosen, progress.why, progress.continued) = (Some(chosen), why, true);
                });
                self.finish(&journal)?;
            }
            _ => self.afresh(&mut primary)?,
        }
        if let Some(slot) = slot {
            slot.until_streaming();
        }
        Ok(())
    }

    /// What an interrupted rebuild has left is brought to where one can continue. The journal, where there is one still.
    fn settle(&self) -> Result<Option<Journal>> {
        let Setup { place, run_dir, .. } = self.setup;
        let journal = Journal::load(run_dir)?;
        end_leftovers(self.setup, journal.as_ref(), self.cancel)?;
        if !process::scan(&place.data)?.is_empty() {
            return Err(Error::new("could not rebuild the data directory: the instance is running")
                .hint("Stop the instance first."));
        }
        shared::refuse(&place.data, &[])?;
        let Some(journal) = journal else { return Ok(None) };
        check_there(self.setup, &journal)?;
        if journal.phase == Phase::Copying {
            self.tell.step("undoing the interrupted rebuild");
            undo(self.setup, &journal)?;
        }
        Journal::load(run_dir)
    }

    /// The slot; without one it goes as well, unless the primary removes WAL too soon.
    fn hold(&self, primary: &Primary) -> Result<Option<Slot>> {
        match Slot::hold(self.setup, &primary.remote, self.cancel) {
            Ok(slot) => Ok(Some(slot)),
            Err(error) => {
                self.cancel.check()?;
                self.tell.line(&format!("no replication slot retains WAL: {error}"));
                log::warn!("no replication slot retains WAL for the rebuild: {error}");
                Ok(None)
            }
        }
    }

    fn afresh(&self, primary: &mut Primary) -> Result<()> {
        let Work { setup, what, tell, cancel } = *self;
        tell.step("checkpoint on the primary");
        primary.checkpoint(cancel)?;
        tell.step("determining the required steps");
        let plan = plan(setup, what, cancel)?;
        tell.update(|progress| (progress.chosen, progress.why) = (Some(plan.chosen), plan.why.clone()));
        if !plan.obstacles.is_empty() {
            return Err(Error::new(plan.obstacles.join("; ")));
        }
        if plan.chosen != Chosen::Follow {
            self.name_slots();
        }
        self.carry_out(&plan, primary)
    }

    fn carry_out(&self, plan: &Plan, primary: &Primary) -> Result<()> {
        match plan.chosen {
            Chosen::Follow => self.become_standby(),
            Chosen::BaseBackup => self.base_backup(plan, primary),
            Chosen::Rewind => match self.rewind(plan, primary) {
                Err(failed) if !failed.begun && self.what.order.method == Method::Auto => {
                    self.cancel.check()?;
                    self.instead(&failed.error, primary)
                }
                other => other.map_err(|failed| failed.error),
            },
        }
    }

    /// `pg_rewind` refuses, and has changed nothing.
    fn instead(&self, refused: &Error, primary: &Primary) -> Result<()> {
        let Work { setup, what, tell, cancel } = *self;
        let order = RebuildOrder { method: Method::BaseBackup, ..what.order };
        let plan = plan(setup, &Rebuild { order, ..what.clone() }, cancel)?;
        // Its last word says why.
        let why = refused.message.lines().last().unwrap_or_default().to_owned();
        tell.update(|progress| (progress.chosen, progress.why) = (Some(plan.chosen), why));
        if !plan.obstacles.is_empty() {
            return Err(Error::new(format!("{}; {}", refused.message, plan.obstacles.join("; "))));
        }
        self.base_backup(&plan, primary)
    }

    // ---------------------------------------------------------------------------------------------------------- methods

    fn rewind(&self, plan: &Plan, primary: &Primary) -> std::result::Result<(), Failed> {
        let Setup { place, run_dir, .. } = self.setup;
        let before = |error| Failed { error, begun: true };
        self.keep_all(plan).map_err(before)?;
        // What does not recover may be copied still.
        rewind::shut_down(self.setup, self.tell, self.cancel).map_err(|error| Failed { error, begun: false })?;
        let mut journal = self.rewind_journal().map_err(before)?;
        match self.run_rewind(&mut journal, primary) {
            Ok(()) => {
                journal.phase = Phase::Swapping;
                journal.write(run_dir).and_then(|()| self.finish(&journal)).map_err(before)
            }
            Err(failed) if failed.begun => Err(Failed {
                error: failed.error.hint(
                    "The data directory is partly rewound and cannot be started. Run \"mc_ctl rebuild\" again: it makes a base \
                     backup.",
                ),
                begun: true,
            }),
            Err(failed) => {
                process::end_leftovers(&[&place.data], &Cancel::never()).map_err(before)?;
                journal.phase = Phase::Copying;
                undo(self.setup, &journal).map_err(before)?;
                Err(failed)
            }
        }
    }

    /// What is to be kept while the data directory is surely what it was.
    fn keep_all(&self, plan: &Plan) -> Result<()> {
        let Setup { place, run_dir, .. } = self.setup;
        if self.is_ruined()? {
            return Err(Error::new("an earlier rewind was interrupted: only a base backup can follow")
                .hint("\"mc_ctl rebuild --method basebackup\""));
        }
        self.salvage(plan)?;
        keep::keep(place, run_dir)
    }

    fn rewind_journal(&self) -> Result<Journal> {
        let Setup { place, run_dir, .. } = self.setup;
        let stamp = stamp(now_ms());
        let journal = Journal {
            method: Chosen::Rewind,
            phase: Phase::Copying,
            ruined: false,
            old_data: OldData::Keep,
            existed: true,
            name: self.setup.name.clone(),
            data: place.data.clone(),
            staging: swap::staging(&place.data),
            old: swap::old(&place.data, &stamp),
            moves: Vec::new(),
            swapped: false,
            stamp,
        };
        journal.write(run_dir)?;
        Ok(journal)
    }

    fn run_rewind(&self, journal: &mut Journal, primary: &Primary) -> std::result::Result<(), Failed> {
        let Work { setup, tell, cancel, .. } = *self;
        let Setup { place, run_dir, .. } = setup;
        let mut prepare = || {
            keep::loosen(&place.data, run_dir)?;
            control::guard(&place.data, place.major)?;
            journal.phase = Phase::Rewinding;
            journal.write(run_dir)
        };
        prepare().map_err(|error| Failed { error, begun: false })?;
        tell.step("rewinding the data directory (pg_rewind)");
        rewind::run(setup, primary, tell, cancel)
    }

    fn base_backup(&self, plan: &Plan, primary: &Primary) -> Result<()> {
        let Work { setup, what, cancel, .. } = *self;
        let Setup { place, run_dir, .. } = setup;
        let ruined = self.is_ruined()?;
        if !config_copy::is_inside(setup)
            && let Some(copy) = config_copy::missing(setup, &primary.remote, cancel)?
        {
            let kept = copy.kept(setup);
            copy.make(setup, &primary.remote, &place.data, cancel)?;
            self.tell.update(|progress| progress.kept_configuration = kept);
        }
        let journal = backup::prepare(setup, (what.order.old_data, ruined), primary, cancel)?;
        if !ruined && journal.existed {
            self.salvage(plan)?;
            keep::keep(place, run_dir)?;
        } else if !journal.existed && !ruined {
            keep::forget(run_dir)?;
        } else if !keep::is_kept(run_dir) && journal.existed {
            keep::keep(place, run_dir)?;
        }
        journal.write(run_dir)?;
        let copied = self.copy(journal.clone(), primary);
        let journal = match copied {
            Ok(journal) => journal,
            Err(error) => {
                // The journal may say more than ours does.
                let journal = Journal::load(run_dir)?.unwrap_or(journal);
                process::end_leftovers(&[&journal.staging], &Cancel::never())?;
                undo(setup, &journal)?;
                return Err(match journal.ruined {
                    true => error.hint(
                        "No program can start an instance from the data directory. Run \"mc_ctl rebuild\" again.",
                    ),
                    false => error,
                });
            }
        };
        self.finish(&journal)
    }

    /// Makes the copy; the journal says that it is whole.
    fn copy(&self, mut journal: Journal, primary: &Primary) -> Result<Journal> {
        let Work { setup, tell, cancel, .. } = *self;
        let Setup { place, run_dir, .. } = setup;
        if journal.existed {
            control::guard(&place.data, place.major)?;
        }
        if journal.existed && journal.old_data == OldData::Delete {
            primary.is_there(cancel)?;
            tell.step("deleting the old data directory");
            journal.ruined = true;
            journal.write(run_dir)?;
            swap::empty(&place.data, &journal.moves, place.major)?;
        }
        tell.step("copying the data directory (pg_basebackup)");
        let configuration = config_copy::missing(setup, &primary.remote, cancel)?;
        backup::run(setup, &journal, primary, tell, cancel)?;
        if let Some(copy) = configuration {
            copy.make(setup, &primary.remote, &journal.staging, cancel)?;
        }
        // The primary may have dropped a tablespace meanwhile.
        journal.moves.retain(|change| change.staged.exists());
        journal.phase = Phase::Swapping;
        journal.write(run_dir)?;
        Ok(journal)
    }

    // ------------------------------------------------------------------------------------------------------------- ends

    /// Everything that is left once the new content is whole. Can be done again.
    fn finish(&self, journal: &Journal) -> Result<()> {
        let Setup { place, run_dir, .. } = self.setup;
        let Place { data, major, .. } = place;
        let renamed = !journal.staging.exists();
        if renamed && !control::is_incomplete(data)? {
            return Journal::remove(run_dir);
        }
        self.tell.step("renaming the new data directory");
        if journal.method == Chosen::BaseBackup {
            swap::run(journal, *major)?;
            Journal { swapped: true, ..journal.clone() }.write(run_dir)?;
            swap::settle_old(journal, *major)?;
        }
        keep::put_back(data, run_dir)?;
        self.become_standby()?;
        if let Some(archive) = &self.setup.archive
            && let Err(error) = unarchived::archive_again(place, archive)
        {
            self.tell.line(&error.to_string());
        }
        control::unguard(data, *major)?;
        Journal::remove(run_dir)
    }

    /// `standby.signal`, `primary_conninfo`, and the names.
    fn become_standby(&self) -> Result<()> {
        let Work { setup, what, .. } = *self;
        let mut upstream = Upstream::parse(&what.source, &setup.user, &setup.name)?;
        upstream.password.clone_from(&setup.password);
        follow::follow(&setup.place, &upstream)?;
        let names = conf::names_value(&what.names);
        files::edit(&setup.place.config_file, |text| conf::set(text, &names)).map(drop)
    }

    /// Nothing of the data directory can be gone back to.
    fn is_ruined(&self) -> Result<bool> {
        let Setup { place, run_dir, .. } = self.setup;
        let told = Journal::load(run_dir)?.is_some_and(|journal| journal.needs_base_backup());
        // A guard that no journal explains: the run-time directory was lost.
        Ok(told || place.data.join("PG_VERSION").exists() && control::is_incomplete(&place.data)?)
    }

    /// The slots of the data directory go with its other content. Those that cannot be read are not named.
    fn name_slots(&self) {
        let place = &self.setup.place;
        let end = control::inspect(place).map_or(Lsn::default(), |data| data.checkpoint);
        let found = slots::leftovers(place, end).unwrap_or_default();
        let found = found.into_iter().filter_map(|(_, slot)| slot.ok()).collect();
        self.tell.update(|progress| progress.removed_slots = found);
    }

    /// What only this server has is kept.
    fn salvage(&self, plan: &Plan) -> Result<()> {
        self.tell.step("saving the WAL that only this server has");
        let lost = lost::keep(self.setup, plan, self.cancel)?;
        self.tell.update(|progress| progress.lost = lost);
        Ok(())
    }
}
