//! `recover_command`: another program restores the backup, and fetches WAL for its recovery (mc_hooks(5)). The rest of a recovery is
//! the same as with a backup in `backup_destination`.

use super::super::backup_command::{self, Environment};
use super::super::{Failure, say};
use super::Order;
use super::work::{Before, Work};
use crate::backup::make_private_dir;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::pg::{Place, control, files};
use crate::rebuild;
use crate::recover::{self, Journal, NEWEST, Phase, Reached, Replay, carry_over, next_timeline, promote_end};
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const PARAMETER: &str = "recover_command";
/// The variable that all processes of the program have in their environment.
const TO: &str = "MC_RESTORE_DIRECTORY";
/// How long killed processes may take to end.
const ENDED: Duration = Duration::from_secs(5);

impl Work<'_> {
    /// Has the program restore a backup, and recovers it to the target.
    pub fn prepare_by(&self, program: &Path, order: &Order, before: Before) -> std::result::Result<Journal, Failure> {
        self.attempt_by(program, order, before).map_err(|error| {
            let hint = format!("Nothing was changed. {}", error.hint);
            self.explain(Error { hint: hint.trim_end().to_owned(), ..error })
        })
    }

    fn attempt_by(&self, program: &Path, order: &Order, before: Before) -> Result<Journal> {
        let mut replacement =
            rebuild::replacement(&self.place, (&self.config.id, &order.stamp), tablespaces(&self.place.data))?;
        replacement.ruined = replacement.existed && self.is_ruined()?;
        let _ = std::fs::remove_file(Replay::log(&self.run_dir));
        let mut journal = Journal {
            phase: Phase::Copying,
            target: order.target.clone(),
            backup: order.backup.clone().unwrap_or_default(),
            program: Some(program.to_owned()),
            timeline: NEWEST,
            selected: false,
            served: before.served,
            primary: before.primary,
            forced: before.forced,
            rival: before.rival,
            both: false,
            failover: before.failover,
            replacement,
        };
        journal.write(&self.run_dir)?;
        if let Err(error) = self.restore_by(program, &mut journal) {
            self.unstage(&journal)?;
            Journal::remove(&self.run_dir)?;
            return Err(error);
        }
        journal.replacement.moves.retain(|change| change.staged.exists());
        journal.enter(Phase::Stopping, &self.run_dir)?;
        Ok(journal)
    }

    fn restore_by(&self, program: &Path, journal: &mut Journal) -> Result<()> {
        let cancel = &self.interruption.cancel;
        let staging = journal.replacement.staging.clone();
        self.step("recover_command restores the backup");
        self.end_display();
        make_private_dir(&staging)?;
        let system = match journal.guards() {
            true => Some(control::inspect(&self.place)?.system),
            false => None,
        };
        backup_command::run(PARAMETER, program, restore_environment(self.config, journal), cancel)?;
        cancel.check()?;
        recover::accept(&self.place, system, &journal.replacement, cancel)?;
        if journal.target.is_latest() {
            return Ok(());
        }
        self.step(&format!("recovering the backup to {}", journal.target));
        let command = wal_command(self.config, program, &staging);
        let replay = self.replay(journal, &command);
        let reached = replay.to_target(&mut || self.tick(), cancel)?;
        self.end_display();
        let lsn = match reached {
            Reached::Yes(lsn) => lsn,
            Reached::No(said) => {
                let what = format!(
                    "the backup that recover_command restored could not be recovered to {}\n{said}",
                    journal.target
                );
                return Err(Error::new(what).hint(
                    "A target after the last commit is not reached: --latest recovers all WAL. --backup selects an older backup.",
                ));
            }
        };
        say(&format!("mc_ctl: {} is reached at {lsn}\n", journal.target));
        let staged = Place { data: staging.clone(), ..self.place.clone() };
        let timeline = control::recovery_end(&staged)?.1.0;
        let end = next_timeline(&staging, timeline)?;
        let size = control::segment_size(&staged)?;
        recover::name_for_timeline(&staging, (lsn, end), timeline, size, &Default::default())?;
        journal.timeline = timeline;
        Ok(())
    }

    /// Recovers the copy that a program has restored, once this server is down.
    pub fn recover_by(&self, program: &Path, journal: &Journal) -> Result<()> {
        let staging = &journal.replacement.staging;
        if journal.guards() && staging.join("recovery.signal").exists() {
            carry_over(&self.place.data, None, staging, journal.target.is_latest())?;
        }
        self.step(&format!("recovering the backup to {}", journal.target));
        let command = wal_command(self.config, program, staging);
        self.replay(journal, &command).promote(&mut || self.tick(), &self.interruption.cancel)?;
        let (timeline, end) = promote_end(staging)?;
        self.recovered(journal, timeline, end)
    }
}

/// The tablespaces of a data directory: OID and directory.
fn tablespaces(data: &Path) -> Vec<(String, PathBuf)> {
    let space = |link: PathBuf| Some((link.file_name()?.to_str()?.to_owned(), std::fs::read_link(&link).ok()?));
    files::entries(&data.join("pg_tblspc")).into_iter().filter_map(space).collect()
}

fn common(config: &Config, action: &str, staging: &Path) -> Environment {
    vec![
        ("MC_COMMAND", PARAMETER.to_owned()),
        ("MC_ACTION", action.to_owned()),
        ("MC_SERVER", config.id.clone()),
        ("MC_DATA_DIRECTORY", config.server.db_instance.display().to_string()),
        (TO, staging.display().to_string()),
    ]
}

fn restore_environment(config: &Config, journal: &Journal) -> Environment {
    let space = |change: &rebuild::Move| {
        let oid = change.link.strip_prefix("pg_tblspc").ok()?;
        Some(format!("{} {}\n", oid.display(), change.staged.display()))
    };
    let (kind, target) = journal.target.kind_and_value();
    let mut variables = common(config, "restore", &journal.replacement.staging);
    variables.extend([
        ("MC_TARGET_TYPE", kind.to_owned()),
        ("MC_TARGET", target),
        ("MC_BACKUP", journal.backup.clone()),
        ("MC_TABLESPACES", journal.replacement.moves.iter().filter_map(space).collect()),
    ]);
    variables
}

/// `restore_command`, with which the program fetches a file. A status above 1 aborts the recovery: PostgreSQL would take it for the
/// end of WAL.
pub(super) fn wal_command(config: &Config, program: &Path, staging: &Path) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''").replace('%', "%%"));
    let variables = common(config, "wal", staging);
    let assigned: String = variables.iter().map(|(name, value)| format!("{name}={} ", quoted(value))).collect();
    format!(
        "{assigned}MC_WAL_NAME=\"%f\" MC_WAL_PATH={}/\"%p\" {} || {{ test $? -eq 1 && exit 1; exit 255; }}",
        quoted(&staging.to_string_lossy()),
        quoted(&program.to_string_lossy())
    )
}

/// Kills what an interrupted command has left running of the program that restores to this directory.
///
/// # Errors
/// A process does not end.
pub(super) fn end_leftovers(staging: &Path) -> Result<()> {
    let staging = staging.display().to_string();
    let marks = [("MC_COMMAND", PARAMETER), (TO, &staging)].map(|(name, value)| format!("{name}={value}"));
    let end = Instant::now() + ENDED;
    loop {
        let mut left = files::entries(Path::new("/proc"));
        left.retain(|process| {
            let environment = std::fs::read(process.join("environ")).unwrap_or_default();
            let has = |mark: &String| environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes());
            marks.iter().all(has)
        });
        let pids: Vec<i32> = left.iter().filter_map(|process| process.file_name()?.to_str()?.parse().ok()).collect();
        if pids.is_empty() {
            return Ok(());
        }
        if Instant::now() >= end {
            return Err(Error::new(format!("process {} of an interrupted recover_command does not end", pids[0])));
        }
        for pid in pids.into_iter().filter_map(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
