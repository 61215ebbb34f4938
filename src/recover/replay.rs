//! Recovers a restored backup with an instance that no client can reach: it listens on no network, its socket is in a directory
//! of its own, and `pg_hba.conf` rejects every connection. It archives nothing; what it has to archive waits for the next start.

use super::{NEWEST, Target};
use crate::error::{Error, Result};
use crate::fsm::event::ControlState;
use crate::fsm::types::Lsn;
use crate::pg::bounded::Cancel;
use crate::pg::{Place, commands, control, files, process};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::Duration;

/// How often the instance is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// The longest directory of a socket, whose address has 107 bytes.
const LONGEST: usize = 80;
/// How many lines of the log an error has.
const LINES: usize = 8;
/// How often an instance that was killed during its shutdown is started again.
const TRIES: usize = 3;

/// A recovery of what is in the staging directories.
#[derive(Debug)]
pub struct Replay<'a> {
    /// The instance that the copy is to become.
    pub place: &'a Place,
    /// The copy.
    pub staging: &'a Path,
    /// To what it is recovered.
    pub target: &'a Target,
    /// The timeline on which that is, or [`NEWEST`].
    pub timeline: u32,
    /// `restore_command`.
    pub restore_command: &'a str,
    /// The run-time directory: the log, the socket and `pg_hba.conf`.
    pub run_dir: &'a Path,
}

/// Whether the target was reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reached {
    /// It was, at this position.
    Yes(Lsn),
    /// It was not: what the instance logged last.
    No(String),
}

/// What the instance does at the target.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Shutdown,
    Promote,
}

impl Replay<'_> {
    /// Where the instance logs.
    pub fn log(run_dir: &Path) -> PathBuf {
        run_dir.join("recover.log")
    }

    /// Recovers the copy to the target, at which it can be recovered further. `tick` is called now and then.
    ///
    /// # Errors
    /// The instance cannot be started, or it was cancelled.
    pub fn to_target(&self, tick: &mut dyn FnMut(), cancel: &Cancel) -> Result<Reached> {
        let (status, promoted) = self.run(Action::Shutdown, tick, cancel)?;
        cancel.check()?;
        let staged = self.staged();
        // Before version 13 an instance that does not reach its target is promoted.
        if !status.success() || promoted || control::state(&staged)? != ControlState::ShutDownInRecovery {
            return Ok(Reached::No(self.last_lines()));
        }
        Ok(Reached::Yes(control::recovery_end(&staged)?.0))
    }

    /// Recovers the copy to the target, ends the recovery there, and shuts the instance down. Can be done again.
    ///
    /// # Errors
    /// The target was not reached, or it was cancelled.
    pub fn promote(&self, tick: &mut dyn FnMut(), cancel: &Cancel) -> Result<()> {
        let staged = self.staged();
        for _ in 0..TRIES {
            let recovers = self.staging.join("recovery.signal").exists();
            match control::state(&staged)? {
                ControlState::ShutDown if !recovers => return Ok(()),
                ControlState::ShutDown | ControlState::ShutDownInRecovery | ControlState::InProduction => {}
                // PostgreSQL removes recovery.signal before it begins the timeline. Without both it would replay all WAL.
                _ if !recovers => {
                    return Err(Error::new("the end of the recovery of the backup was interrupted")
                        .hint("Run this command again with the target: the backup is restored again."));
                }
                _ => {}
            }
            let (_, promoted) = self.run(Action::Promote, tick, cancel)?;
            if !promoted {
                break;
            }
        }
        Err(Error::new(format!("could not recover the backup to {}: {}", self.target, self.last_lines()))
            .hint(format!("\"{}\" contains the log of the instance.", Replay::log(self.run_dir).display())))
    }

    /// Ends what an earlier recovery of the copy has left running.
    ///
    /// # Errors
    /// A process cannot be ended.
    pub fn end_leftovers(place: &Place, staging: &Path) -> Result<()> {
        let staged = Place { data: staging.to_owned(), ..place.clone() };
        process::stop(&staged, Duration::ZERO, &Cancel::never())
    }

    fn staged(&self) -> Place {
        Place { data: self.staging.to_owned(), ..self.place.clone() }
    }

    /// Runs the instance to its end. Whether it ended the recovery, and could have accepted commits.
    fn run(&self, action: Action, tick: &mut dyn FnMut(), cancel: &Cancel) -> Result<(ExitStatus, bool)> {
        let sockets = self.sockets()?;
        let ran = self.start(action, &sockets).and_then(|child| self.wait(child, tick, cancel));
        let _ = std::fs::remove_dir_all(&sockets);
        ran
    }

    fn wait(&self, mut child: Child, tick: &mut dyn FnMut(), cancel: &Cancel) -> Result<(ExitStatus, bool)> {
        let failed = |cause: std::io::Error| Error::new(format!("could not wait for the instance: {cause}"));
        let mut promoted = false;
        loop {
            if let Some(status) = child.try_wait().map_err(failed)? {
                return Ok((status, promoted));
            }
            if let Err(cancelled) = cancel.check() {
                Replay::end_leftovers(self.place, self.staging)?;
                let _ = child.wait();
                return Err(cancelled);
            }
            if !promoted && self.is_ready(child.id()) {
                promoted = true;
                let _ = kill_process(Pid::from_child(&child), Signal::INT);
            }
            tick();
            std::thread::sleep(LOOK);
        }
    }

    /// Whether the postmaster with this number reports that the recovery has ended: as pg_ctl(1) reads it.
    fn is_ready(&self, pid: u32) -> bool {
        let text = std::fs::read_to_string(self.staging.join("postmaster.pid")).unwrap_or_default();
        let mut lines = text.lines();
        lines.next().is_some_and(|line| line.trim() == pid.to_string())
            && lines.nth(6).is_some_and(|status| status.trim() == "ready")
    }

    fn start(&self, action: Action, sockets: &Path) -> Result<Child> {
        let path = Replay::log(self.run_dir);
        let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
        let log = opened.map_err(|cause| Error::io("open file", &path, cause))?;
        let also = log.try_clone().map_err(|cause| Error::io("open file", &path, cause))?;
        let program = self.place.bin_dir.join("postgres");
        let mut command = commands::bare(&program);
        command.args(self.arguments(action, sockets)).stdout(log).stderr(also);
        command.spawn().map_err(|cause| Error::io("run program", &program, cause))
    }

    fn arguments(&self, action: Action, sockets: &Path) -> Vec<OsString> {
        let mut settings: Vec<(&str, OsString)> = Vec::new();
        let mut set = |name, value: &dyn AsRef<std::ffi::OsStr>| settings.push((name, value.as_ref().to_owned()));
        if self.place.config_elsewhere() {
            set("config_file", &self.place.config_file);
        }
        set("data_directory", &self.staging);
        set("hba_file", &sockets.join("pg_hba.conf"));
        set("unix_socket_directories", &sockets);
        set("external_pid_file", &sockets.join("pid"));
        for (name, value) in [
            ("listen_addresses", ""),
            ("ssl", "off"),
            ("logging_collector", "off"),
            ("log_destination", "stderr"),
            ("log_line_prefix", "%m [%p] "),
            // Its memory would be missing for the instance that serves.
            ("huge_pages", "off"),
            ("hot_standby", "off"),
            ("autovacuum", "off"),
            ("max_logical_replication_workers", "0"),
            ("synchronous_standby_names", ""),
            // With archiving that is enabled and does nothing, no WAL is removed that is still to be archived.
            ("archive_mode", "on"),
            ("archive_command", ""),
            ("archive_cleanup_command", ""),
            ("recovery_end_command", ""),
            ("recovery_target_inclusive", "on"),
        ] {
            set(name, &value);
        }
        if self.place.major >= 15 {
            set("archive_library", &"");
        }
        set("restore_command", &self.restore_command);
        let newest = self.timeline == NEWEST;
        set("recovery_target_timeline", &if newest { "latest".to_owned() } else { self.timeline.to_string() });
        set("recovery_target_action", &if action == Action::Shutdown { "shutdown" } else { "promote" });
        for (name, value) in self.target.settings() {
            set(name, &value);
        }
        let mut arguments = vec!["-D".into(), self.staging.as_os_str().to_owned()];
        for (name, value) in settings {
            let mut argument = OsString::from(format!("{name}="));
            argument.push(value);
            arguments.extend(["-c".into(), argument]);
        }
        arguments
    }

    /// A directory for the socket, with a `pg_hba.conf` that rejects every connection.
    fn sockets(&self) -> Result<PathBuf> {
        let own = self.run_dir.join("recover.socket");
        let path = match own.as_os_str().len() < LONGEST {
            true => own,
            false => std::env::temp_dir().join(format!("mc_recover.{}", std::process::id())),
        };
        files::remove(&path)?;
        let created = DirBuilder::new().mode(0o700).create(&path);
        created.map_err(|cause| Error::io("create directory", &path, cause))?;
        let rules = "local all all reject\nlocal replication all reject\n";
        files::replace(&path.join("pg_hba.conf"), rules.as_bytes(), None)?;
        Ok(path)
    }

    fn last_lines(&self) -> String {
        let text = std::fs::read(Replay::log(self.run_dir)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}
