//! `pg_rewind`: what must hold before, the run, and what must be true after it. Its exit code alone is never believed.
//! Called by [`super::perform`].

use super::Setup;
use super::primary::Primary;
use super::progress::Teller;
use super::target::PROBE;
use crate::error::{Error, Result};
use crate::fsm::event::{ControlState, DataDir};
use crate::fsm::types::{Lsn, SystemId};
use crate::pg::bounded::Cancel;
use crate::pg::{commands, conf, control, process};
use std::ffi::OsString;
use std::path::Path;
use std::time::Instant;

/// What it says before it changes the first file.
const BEGINS: &str = "need to copy";

/// Why it failed.
pub struct Failed {
    /// What it said.
    pub error: Error,
    /// It may have changed something.
    pub begun: bool,
}

/// Ends the crash recovery that an instance owes, without letting anybody in. `pg_rewind` would do it itself, but neither
/// durably nor behind the guard. All WAL is kept: `pg_rewind` reads back to before the fork.
///
/// # Errors
/// It fails, or the data directory is not as cleanly shut down afterwards as it should be.
pub fn shut_down(setup: &Setup, tell: &Teller, cancel: &Cancel) -> Result<()> {
    let place = &setup.place;
    let found = control::inspect(place)?;
    if matches!(found.state, ControlState::ShutDown | ControlState::ShutDownInRecovery) {
        return Ok(());
    }
    if found.standby_signal || found.backup_label || found.state == ControlState::InArchiveRecovery {
        return Err(Error::new("the data directory is that of a standby that was not shut down cleanly")
            .hint("To make a base backup instead, run \"mc_ctl rebuild --method basebackup\"."));
    }
    tell.step("running crash recovery of the data directory");
    let mut args: Vec<OsString> = vec!["--single".into(), "-D".into(), place.data.clone().into()];
    if place.config_elsewhere() {
        args.extend(["-c".into(), format!("config_file={}", place.config_file.display()).into()]);
    }
    let keep_all = if place.major >= 13 { "wal_keep_size=1000000" } else { "wal_keep_segments=100000" };
    args.extend(["-c".into(), keep_all.into()]);
    args.push("template1".into());
    process::remove_stale_locks(place)?;
    commands::program(place, "postgres", args).follow(cancel, |line| {
        tell.line(line);
        true
    })?;
    match control::state(place)? {
        ControlState::ShutDown => Ok(()),
        state => Err(Error::new(format!("the data directory is {state:?} after its crash recovery"))),
    }
}

/// Runs it. The target is shut down cleanly and guarded.
///
/// # Errors
/// See [`Failed`].
pub fn run(setup: &Setup, source: &Primary, tell: &Teller, cancel: &Cancel) -> std::result::Result<(), Failed> {
    let place = &setup.place;
    remove_probes(&place.data);
    let mut args: Vec<OsString> = vec!["--progress".into(), "-D".into(), place.data.clone().into()];
    args.push(format!("--source-server={}", source.conninfo).into());
    if place.major >= 13 {
        args.push("--no-ensure-shutdown".into());
        let restore = conf::effective("restore_command", &place.config_file, &place.data);
        if restore.is_some_and(|command| !command.trim().is_empty()) {
            args.push("--restore-target-wal".into());
            if place.major >= 15 {
                args.push(format!("--config-file={}", place.config_file.display()).into());
            }
        }
    }
    let (started, mut begun) = (Instant::now(), false);
    let program = commands::program(place, "pg_rewind", args).password(source.password.as_deref());
    let (ran, all) = program.follow_to_end(cancel, |line| {
        let progress = tell.said(line, started);
        begun |= progress || line.contains(BEGINS);
        !progress
    });
    // Where it may have said more than was heard, it may have begun.
    let begun = begun || !all;
    ran.and_then(|()| verify(setup, source)).map_err(|error| Failed { error, begun })
}

/// Removes files of the disk probe, which makes no new ones while there is a journal: `pg_rewind` fails where a file that
/// it is to remove has vanished.
fn remove_probes(data: &Path) {
    let entries = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut dirs = vec![data.to_owned(), data.join("pg_wal")];
    dirs.extend(entries(&data.join("pg_tblspc")));
    for path in dirs.iter().flat_map(|dir| entries(dir)) {
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(PROBE.as_bytes())) {
            _ = std::fs::remove_file(path);
        }
    }
}

/// What must be true of a data directory that was rewound.
fn verify(setup: &Setup, source: &Primary) -> Result<()> {
    let place = &setup.place;
    let found = control::inspect(place)?;
    let (lsn, _) = control::recovery_end(place)?;
    let wrong = |what: &str| Err(Error::new(format!("pg_rewind ended without an error, but {what}")));
    if !is_of(&found, source.system) {
        return wrong("the data directory belongs to another cluster");
    }
    if found.state != ControlState::InArchiveRecovery || !found.backup_label {
        return wrong("has rewound nothing");
    }
    if lsn == Lsn(0) || found.min_recovery_timeline != source.timeline {
        return wrong(&format!(
            "recovery would end at {lsn} of timeline {}, and the primary is on {}",
            found.min_recovery_timeline.0, source.timeline.0
        ));
    }
    if found.checkpoint_timeline != source.timeline {
        return wrong("its last checkpoint is not on the primary's timeline");
    }
    Ok(())
}

fn is_of(found: &DataDir, system: SystemId) -> bool {
    found.system == system
}
