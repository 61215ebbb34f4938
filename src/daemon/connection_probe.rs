//! Checks in the background that connections work which are needed only later: the controller's session on the other server's
//! instance (a rebuild), and the replication connection of a standby (the next reconnection of its WAL receiver).
//!
//! A password or certificate that has changed does not end the connections that exist. Without this check the pair looks
//! healthy until one of them is lost. PostgreSQL reports the error of a WAL receiver only in its log, which can have any
//! place and format. So this module makes the connection itself, by psql with `primary_conninfo`: libpq, its files and its
//! environment are the WAL receiver's.
//!
//! It decides nothing about the pair. If `primary_conninfo` has another password than `ID.conf`, and the primary accepts the
//! one of `ID.conf`, it has the runner write that one. Runs on a thread of its own, which may hang.

use super::connections::{self, Board};
use super::jobs::rebuild_setup;
use super::runner::PasswordWriter;
use super::{control, reload, spawn};
use crate::config::Config;
use crate::error::Result;
use crate::fsm::report::{HostRole, HostStatus, Rebuilding, Report};
use crate::fsm::types::Lsn;
use crate::messages::{self, Tell};
use crate::pg::connect::{Refusal, Session};
use crate::pg::{conf, follow, queries};
use crate::rebuild::{self, Journal};
use crate::status::{Cause, ConnectionFailure, Purpose};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use std::time::{Duration, Instant};

/// The time between two checks; that of a standby which does not stream; that after a session was rejected, since each attempt
/// is a line in the server's log, and external authentication may count wrong passwords. A repair ends the last one.
const INTERVAL: Duration = Duration::from_secs(10);
const NOT_STREAMING: Duration = Duration::from_secs(5);
const REJECTED: Duration = Duration::from_secs(60);

/// How long a session may take to be opened, and psql to connect.
const SESSION: Duration = Duration::from_secs(3);
const CONNECT: Duration = Duration::from_secs(6);

/// How long a check of all connections takes at most, as long as the disk answers.
pub const LIMIT: Duration = Duration::from_secs(20);

/// What a check on request has found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Checked {
    /// The connections that fail.
    pub failures: Vec<ConnectionFailure>,
    /// The present password was written to `primary_conninfo`.
    pub written: bool,
}

enum Command {
    /// `host:port` of the other server's instance.
    Address(String),
    /// The configuration in effect from now on.
    Uses(Box<Config>),
    /// Check all connections now.
    Check(Sender<Checked>),
}

/// The way to the thread, which ends with the last handle.
#[derive(Clone)]
pub struct Handle(Sender<Command>);

impl Handle {
    /// The other server's instance is at `host:port`.
    pub fn address(&self, address: &str) {
        let _ = self.0.send(Command::Address(address.to_owned()));
    }

    /// This configuration is in effect.
    pub fn uses(&self, config: &Config) {
        let _ = self.0.send(Command::Uses(Box::new(config.clone())));
    }

    /// Checks all connections; `None` if there is no answer within the limit, or within [`LIMIT`].
    pub fn check(&self, limit: Duration) -> Option<Checked> {
        let (sender, answer) = bounded(1);
        let _ = self.0.send(Command::Check(sender));
        answer.recv_timeout(limit.min(LIMIT)).ok()
    }
}

/// Starts the thread. `name` is this server's `application_name`, `status` what the controller publishes.
///
/// # Errors
/// The thread cannot be started.
pub fn start(
    config: &Config,
    name: &str,
    board: Board,
    status: control::Board,
    writer: PasswordWriter,
) -> Result<Handle> {
    let (commands, inbox) = unbounded();
    let (name, config) = (name.to_owned(), config.clone());
    let probe = Probe {
        config,
        name,
        board,
        status,
        writer,
        address: String::new(),
        session_due: Instant::now(),
        failing: Vec::new(),
        role: None,
        received: None,
        written: false,
        idle: true,
    };
    spawn("connections", move || probe.run(&inbox))?;
    Ok(Handle(commands))
}

struct Probe {
    config: Config,
    name: String,
    board: Board,
    status: control::Board,
    writer: PasswordWriter,
    address: String,
    /// When the session on the other server's instance is tried again.
    session_due: Instant,
    /// The connections that failed at the last check.
    failing: Vec<Purpose>,
    /// The version of the controller's role when its password was rejected.
    role: Option<String>,
    /// The WAL that this standby had at the last check, at which it did not stream.
    received: Option<Lsn>,
    /// The last check has written the password.
    written: bool,
    /// No rebuild was in progress, and none had failed, at the last check.
    idle: bool,
}

impl Probe {
    fn run(mut self, inbox: &Receiver<Command>) {
        let mut wait = NOT_STREAMING;
        loop {
            match inbox.recv_timeout(wait) {
                Ok(Command::Address(address)) => self.address = address,
                Ok(Command::Uses(config)) => self.config = *config,
                Ok(Command::Check(answer)) => {
                    self.session_due = Instant::now();
                    self.check_own_instance();
                    wait = self.check();
                    let _ = answer.send(Checked { failures: self.board.read(), written: self.written });
                }
                Err(RecvTimeoutError::Timeout) => wait = self.check(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Checks what the present state of the pair needs. Returns when to check again.
    fn check(&mut self) -> Duration {
        let report = self.status.snapshot().report;
        // A rebuild has connected in the same way, and succeeded or failed.
        let idle = report.rebuilding == Rebuilding::Idle;
        if !std::mem::replace(&mut self.idle, idle) && idle {
            self.session_due = Instant::now();
        }
        if self.may_be_repaired() {
            self.session_due = Instant::now();
        }
        let session = self.check_other_instance();
        self.written = false;
        if follows(&report) {
            let failure = self.check_replication(&report, session);
            self.report(Purpose::Replication, failure);
        } else {
            // It is not tested, and no cause is repaired.
            connections::note(&self.board, Purpose::Replication, None);
        }
        self.failing = self.board.read().into_iter().map(|failure| failure.purpose).collect();
        self.status.report_failing();
        if streams(&report) { INTERVAL } else { NOT_STREAMING }
    }

    /// Whether the password that the other server has rejected may be accepted now: another connection that failed works, or the
    /// role has changed. That server is asked for it before its time then.
    fn may_be_repaired(&self) -> bool {
        let failing = self.board.read();
        let works = |purpose: &Purpose| failing.iter().all(|failure| failure.purpose != *purpose);
        let rejected = self.failing.contains(&Purpose::OtherInstance);
        rejected && (self.failing.iter().any(works) || self.version_of_role() != self.role)
    }

    /// The version of the controller's role on this server's instance, which a standby has from its primary.
    fn version_of_role(&self) -> Option<String> {
        let mut session = Session::open(&reload::target(&self.config), SESSION, "a check of the password").ok()?;
        queries::version_of_role(&mut session, SESSION).ok()?
    }

    fn report(&self, purpose: Purpose, failure: Option<ConnectionFailure>) {
        if !connections::note(&self.board, purpose, failure.clone()) {
            return;
        }
        messages::tell(&match failure {
            Some(failure) if failure.cause == Cause::MissingWal => Tell::WalMissing { what: failure.error },
            Some(failure) => Tell::ConnectionFails { failure: failure.sentence() },
            None => Tell::ConnectionWorks { what: purpose.works() },
        });
    }

    /// Only on request: the probe of the instance opens a new session every few seconds.
    fn check_own_instance(&self) {
        let failure = match Session::open(&reload::target(&self.config), SESSION, "a check of the password") {
            Err(Refusal::Closed(why) | Refusal::Password(why)) => {
                Some(ConnectionFailure::new(Purpose::OwnInstance, why))
            }
            _ => None,
        };
        connections::note(&self.board, Purpose::OwnInstance, failure);
    }

    /// Whether the password fits is known only if that server answers. What else `pg_hba.conf` may reject there,
    /// `mc_ctl check` reports. Returns the session.
    fn check_other_instance(&mut self) -> Option<Session> {
        if self.address.is_empty() || Instant::now() < self.session_due {
            return None;
        }
        let setup = rebuild_setup(&self.config, &self.name);
        let remote = rebuild::remote(&setup, &self.address).ok()?;
        let (session, wrong, wait) = match Session::open_remote(&remote, SESSION, SESSION, "a check of the password") {
            Ok(session) => (Some(session), None, Duration::ZERO),
            Err(Refusal::Password(why)) => (None, Some(ConnectionFailure::new(Purpose::OtherInstance, why)), REJECTED),
            Err(Refusal::Closed(_)) => (None, None, REJECTED),
            Err(_) => (None, None, Duration::ZERO),
        };
        self.session_due = Instant::now() + wait;
        if wrong.is_some() {
            self.role = self.version_of_role();
        }
        self.report(Purpose::OtherInstance, wrong);
        session
    }

    /// The replication connection, and whether the primary still has the WAL that a standby requires which does not stream.
    fn check_replication(&mut self, report: &Report, session: Option<Session>) -> Option<ConnectionFailure> {
        if let Some(failure) = self.try_replication() {
            return Some(failure);
        }
        let received = report.servers[report.me.index()].lsn.filter(|_| !streams(report));
        // A standby that still replays its own WAL has more than it shows.
        let before = std::mem::replace(&mut self.received, received);
        let received = received.filter(|at| before == Some(*at))?;
        let place = rebuild_setup(&self.config, &self.name).place;
        // What the primary no longer has may be in the archive.
        let archive = conf::effective("restore_command", &place.config_file, &place.data);
        if archive.is_some_and(|command| !command.is_empty()) {
            return None;
        }
        let segment = queries::removed_wal(&mut session?, received, SESSION).ok()??;
        Some(ConnectionFailure::missing_wal(&segment))
    }

    /// Connects as the WAL receiver does. Writes the password of `ID.conf` to `primary_conninfo` if the primary accepts it.
    /// Returns the error.
    fn try_replication(&mut self) -> Option<ConnectionFailure> {
        let failed = |error| Some(ConnectionFailure::new(Purpose::Replication, error));
        let setup = rebuild_setup(&self.config, &self.name);
        let place = &setup.place;
        let running = place.data.join("standby.signal").exists() && place.data.join("postmaster.pid").exists();
        if !running || Journal::path(&setup.run_dir).exists() {
            return None;
        }
        let keys = follow::present_keys(place);
        // psql would need this password as an argument, which every user of this host can read.
        if keys.is_empty() || keys.iter().any(|(key, _)| key == "sslpassword") {
            return None;
        }
        let connect = |keys: &[(String, String)]| follow::try_replication(place, keys, CONNECT);
        let present = setup.password.as_deref().and_then(|word| follow::with_password(&keys, &setup.user, word));
        let psql = place.bin_dir.join("psql").exists();
        let changed = match present {
            Some(changed) if psql => changed,
            Some(_) => {
                return failed(
                    "primary_conninfo and ID.conf have different passwords, and no psql is available to test them"
                        .into(),
                );
            }
            None if psql => return connect(&keys).err().and_then(failed),
            None => return None,
        };
        if let Err(error) = connect(&changed) {
            let cause = Cause::of(&error);
            let error = format!("with the password of ID.conf, which is not written to primary_conninfo, {error}");
            return Some(ConnectionFailure { purpose: Purpose::Replication, cause, error });
        }
        match self.writer.write(&setup.password.unwrap_or_default()) {
            Ok(written) => self.written = written,
            Err(error) => return failed(format!("the password of ID.conf could not be written: {}", error.message)),
        }
        if self.written {
            messages::tell(&Tell::PasswordWritten);
        }
        None
    }
}

/// This server is to receive WAL from a primary that runs.
fn follows(report: &Report) -> bool {
    let primary = &report.servers[report.me.other().index()];
    primary.role == HostRole::Primary
        && primary.host == HostStatus::Normal
        && primary.postmaster_runs() == Some(true)
        && report.servers[report.me.index()].role != HostRole::Primary
        && !matches!(report.rebuilding, Rebuilding::Waiting(_) | Rebuilding::Copying)
}

fn streams(report: &Report) -> bool {
    let own = &report.servers[report.me.index()];
    report.rebuilding == Rebuilding::Idle && own.processes.as_ref().is_some_and(Vec::is_empty)
}
