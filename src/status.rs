//! What `mc_ctl status` shows: one model, rendered as text, JSON, a monitoring line and Prometheus metrics.
//!
//! Made from the controller's snapshot alone; must not read files, ask other hosts, or look at a clock. Called by
//! `cli::status` and by `daemon::health`. The JSON field names are an interface: fields are added,
//! never renamed.

mod backups;
mod checkpoint;
mod connection;
mod disconnection;
pub mod health;
mod metrics;
mod next_step;
mod obstacle;
mod rebuild;
mod snapshot;
mod space;

pub use crate::backup::Survey;
pub use crate::messages::commands::Form;
pub use backups::BackupStatus;
pub use checkpoint::Checkpoint;
pub use connection::{Cause, ConnectionFailure, Purpose};
pub use disconnection::Disconnection;
pub use next_step::{advice_or_next_step, after_switch, next_step};
pub use obstacle::{obstacle, only_without_checkpoint};
pub use rebuild::{RebuildStatus, WAITING, duration};
pub use snapshot::{Change, MemberName, Snapshot};
pub use space::{Directory, Level, Space, TABLESPACE};

use crate::fsm::event::OnSilence;
use crate::fsm::report::{HostRole, HostStatus, Progress, Report, ServerReport, Word};
use crate::fsm::types::{Mode, Server, View};
use serde::Serialize;
use std::fmt::Write;

/// The state of the pair as one controller knows it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Status {
    /// The status word.
    pub mirroring_status: Word,
    /// The server whose controller answered.
    pub local_server: String,
    /// Both servers, in the order of `network.conf`.
    pub servers: [ServerStatus; 2],
    /// The arbiter; `null` without one.
    pub arbiter: Option<ArbiterStatus>,
    /// The view; `null` where there is none yet.
    pub view: Option<ViewStatus>,
    /// Automatic switch and disconnection are on.
    pub failover_enabled: bool,
    /// The answering server's `heartbeat_error_action`; `null` where its controller does not report it.
    pub heartbeat_error_action: Option<&'static str>,
    /// The disconnected standby; `null` while the pair is mirrored or switched, or if it never was mirrored.
    pub disconnection: Option<Disconnection>,
    /// After a takeover, why the pair is not mirrored and what makes it so, for the line of `--check`.
    #[serde(skip)]
    pub takeover: Option<String>,
    /// The mistake in the configuration files, if there is one; the controller uses what it read before.
    pub configuration_error: Option<String>,
    /// Why the answering server's ledger cannot be written; `null` if it can.
    pub ledger_error: Option<String>,
    /// WAL that the standby has not flushed yet, bytes, as the primary sees it; `null` where not known.
    pub lag_bytes: Option<u64>,
    /// For how long the standby has not caught up with the primary, as this server sees it.
    pub lag_seconds: Option<f64>,
    /// Commits wait for the standby.
    pub commits_waiting: bool,
    /// For how many seconds the standby has not flushed what they wait for; `null` if no commit waits, or none for 1 s.
    pub commits_waiting_seconds: Option<u64>,
    /// What makes commits less durable on the answering server, a sentence each; empty for nothing.
    pub durability_warnings: Vec<String>,
    /// Connections that the answering server needs and that fail; empty for none.
    pub connection_failures: Vec<ConnectionFailure>,
    /// What an operator should know or do.
    pub advice: Vec<String>,
    /// How far this server's start has come: `waiting`, `running`, `settled`, `refused`.
    pub progress: &'static str,
    /// What is waited for, or why the start was refused; empty otherwise.
    pub progress_detail: String,
    /// The rebuild of this server that is under way, or the last one where that has failed; `null` else.
    pub rebuild: Option<RebuildStatus>,
    /// The checkpoint on the answering server that the controller waits for; `null` for none.
    pub checkpoint: Option<Checkpoint>,
    /// The space of the directories that the answering server writes to.
    pub disk_space: Vec<Space>,
    /// The backups of both servers; `null` if `backup_destination` is not set, or if they are not known yet.
    pub backups: Option<BackupStatus>,
    /// What the health endpoint says of the answering server.
    pub health: HealthStatus,
    /// The answering controller.
    pub controller: ControllerStatus,
}

/// One server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ServerStatus {
    /// Its id.
    pub server_id: String,
    /// `primary`, `standby`, `none(...)`.
    pub host_role: &'static str,
    /// Its host in `network.conf`.
    pub host: String,
    /// `normal`, `abnormal`, `unknown`.
    pub host_status: &'static str,
    /// `normal`, `abnormal(...)` joined by `,`, or `unknown`.
    pub db_proc_status: String,
    /// `normal`, `full`, `abnormal(...)`, `unknown`.
    pub disk_status: String,
    /// Which of its directories are full, joined by `, `; empty for none.
    pub full_directories: String,
    /// Primary: flushed. Standby: received. As `high/low`.
    pub lsn: Option<String>,
    /// Standby: replayed.
    pub replayed_lsn: Option<String>,
    /// Its timeline.
    pub timeline: Option<u32>,
}

/// The arbiter.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ArbiterStatus {
    /// Its id.
    pub arbiter_id: String,
    /// Its host in `network.conf`.
    pub host: String,
    /// `online`, `offline`.
    pub status: &'static str,
    /// `normal`, `nearly_full`, `full`; `unknown` while it is offline.
    pub disk_status: &'static str,
    /// The space of its directory in a sentence; `null` if it is enough.
    pub disk_space: Option<String>,
    /// Why its ledger cannot be written, so that it cannot consent; `null` if it can.
    pub ledger_error: Option<String>,
}

impl ArbiterStatus {
    fn new(name: &MemberName, report: &Report) -> ArbiterStatus {
        let (online, disk) = (report.arbiter == Some(true), &report.arbiter_disk);
        let given = |text: &String| Some(text.clone()).filter(|text| online && !text.is_empty());
        ArbiterStatus {
            arbiter_id: name.id.clone(),
            host: name.host.clone(),
            status: if online { "online" } else { "offline" },
            disk_status: match (online, disk.full.is_empty(), disk.space.is_empty()) {
                (false, ..) => "unknown",
                (true, false, _) => "full",
                (true, true, false) => "nearly_full",
                (true, true, true) => "normal",
            },
            disk_space: given(&disk.space),
            ledger_error: given(&disk.failure),
        }
    }

    /// What is wrong with it although it is online, in two or three words.
    fn problem(&self) -> Option<&'static str> {
        match (&self.ledger_error, self.disk_status) {
            (Some(_), _) => Some("cannot grant"),
            (None, "full") => Some("disk full"),
            (None, "nearly_full") => Some("disk nearly full"),
            _ => None,
        }
    }

    /// The status as the table shows it.
    fn cell(&self) -> String {
        match self.problem() {
            Some(problem) => format!("{}({problem})", self.status),
            None => self.status.to_owned(),
        }
    }

    /// What an operator should do.
    fn advice(&self) -> Option<String> {
        let id = &self.arbiter_id;
        let space = self.disk_space.as_ref().map(|space| format!(": {space}")).unwrap_or_default();
        match (&self.ledger_error, self.disk_status) {
            (Some(why), _) => Some(format!(
                "arbiter \"{id}\" cannot write its ledger and cannot consent to a change ({why}): free space on its host{space}"
            )),
            (None, "full" | "nearly_full") => Some(format!("free space on the host of arbiter \"{id}\"{space}")),
            _ => None,
        }
    }
}

/// The view (PROTOCOL section 2).
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ViewStatus {
    /// Counts the changes.
    pub term: u64,
    /// `mirrored`, `degraded`.
    pub mode: &'static str,
    /// The id of the server whose instance takes writes.
    pub primary: String,
    /// Entered without the consent that the safety argument needs.
    pub forced: bool,
    /// The id of the arbiter's ledger that it leans on, in hexadecimal as `mc_arb status` shows it; `null` for none.
    pub arbiter_ledger: Option<String>,
    /// For how many seconds it has been so; `null` where this server has not noted it.
    pub seconds: Option<u64>,
    /// Why it was entered; empty where this server has not noted it.
    pub reason: String,
}

/// What [`health`] answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct HealthStatus {
    /// `/primary`
    pub primary: bool,
    /// `/standby`
    pub standby: bool,
    /// `/healthy`
    pub healthy: bool,
}

/// The controller that answered.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ControllerStatus {
    /// Its process id.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// For how many seconds it has run.
    pub uptime_seconds: u64,
    /// How long ago its decision thread last went round its loop.
    pub decision_age_seconds: f64,
}

/// Whether, and what of, the text is coloured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Colour {
    /// Plain text.
    Never,
    /// Values that are not normal stand out.
    Always,
}

impl Status {
    /// The model of a controller's answer, with the commands of `mc_ctl` in its advice.
    pub fn new(snapshot: &Snapshot) -> Status {
        Status::in_form(snapshot, || Form::Direct)
    }

    /// The same with the commands in this form, which is determined only if the advice has such a command.
    pub fn in_form(snapshot: &Snapshot, form: impl FnOnce() -> Form) -> Status {
        let report = &snapshot.report;
        let id = |server: Server| snapshot.servers[server.index()].id.clone();
        let (progress, progress_detail) = match &report.progress {
            Progress::Waiting(what) => ("waiting", what.clone()),
            Progress::Running(what) => ("running", what.clone()),
            Progress::Settled => ("settled", String::new()),
            Progress::Refused(why) => ("refused", why.clone()),
        };
        Status {
            mirroring_status: report.word,
            local_server: id(report.me),
            servers: [0, 1].map(|i| ServerStatus::new(&snapshot.servers[i], &report.servers[i])),
            arbiter: snapshot.arbiter.as_ref().map(|name| ArbiterStatus::new(name, report)),
            view: report.view.as_ref().map(|view| ViewStatus::new(snapshot, view)),
            failover_enabled: report.failover,
            heartbeat_error_action: report.on_silence.map(OnSilence::text),
            disconnection: Disconnection::new(snapshot),
            takeover: next_step::takeover(snapshot),
            configuration_error: None,
            ledger_error: snapshot.ledger_error.clone(),
            lag_bytes: report.lag_bytes,
            lag_seconds: report.lag_ms.map(|ms| ms as f64 / 1000.0),
            commits_waiting: report.waiting,
            commits_waiting_seconds: report.waits_ms.map(|ms| ms / 1000).filter(|seconds| *seconds > 0),
            durability_warnings: report.weakened.clone(),
            connection_failures: snapshot.connections.clone(),
            advice: advice(snapshot, form),
            progress,
            progress_detail,
            rebuild: RebuildStatus::new(snapshot),
            checkpoint: snapshot.checkpoint.clone(),
            disk_space: snapshot.space.clone(),
            backups: BackupStatus::new(snapshot),
            health: HealthStatus::new(snapshot),
            controller: ControllerStatus {
                pid: snapshot.pid,
                version: snapshot.version.clone(),
                uptime_seconds: snapshot.now.since(snapshot.started) / 1000,
                decision_age_seconds: snapshot.now.since(snapshot.alive) as f64 / 1000.0,
            },
        }
    }

    /// The text of mc_ctl(8), STATUS, and with `arbiter` its table too.
    pub fn text(&self, arbiter: bool, colour: Colour) -> String {
        let mut out = format!("mirroring status\n-----------------\n{}\n", self.paint_word(colour));
        let header = ["server_id", "host_role", "host", "host_status", "db_proc_status", "disk_status"];
        let rows: Vec<[&str; 6]> = self.servers.iter().map(ServerStatus::columns).collect();
        table(&mut out, &header, &rows, colour);
        let _ = writeln!(out, "\n{}", self.policy());
        if let Some(disconnection) = &self.disconnection {
            let _ = writeln!(out, "\nWARNING: {}", disconnection.text);
        }
        if !self.durability_warnings.is_empty() {
            let _ = writeln!(out, "\ncommits can be lost: {}", self.durability_warnings.join("; "));
        }
        for failure in &self.connection_failures {
            let _ = writeln!(out, "\nWARNING: {}", failure.sentence());
        }
        for problem in self.backups.iter().flat_map(|backups| &backups.problems) {
            let _ = writeln!(out, "\nWARNING: backups: {problem}");
        }
        if let Some(rebuild) = self.rebuild.as_ref().filter(|rebuild| rebuild.failed.is_none()) {
            let _ = writeln!(out, "\nrebuild of {}: {}", self.local_server, rebuild.line());
        }
        if let Some(checkpoint) = &self.checkpoint {
            let Checkpoint { number, count, .. } = checkpoint;
            let far = checkpoint.far();
            let _ = writeln!(out, "\nwaiting for checkpoint {number} of {count} on {}: {far}", self.local_server);
        }
        if arbiter {
            match &self.arbiter {
                Some(a) => {
                    out.push('\n');
                    table(&mut out, &["arbiter_id", "host", "status"], &[[&a.arbiter_id, &a.host, &a.cell()]], colour);
                }
                None => out.push_str("\nno arbiter\n"),
            }
        }
        out
    }

    /// What failures lead to, in a line.
    fn policy(&self) -> String {
        let failover = if self.failover_enabled { "enabled" } else { "disabled" };
        let action = self.heartbeat_error_action.map(|action| format!("heartbeat_error_action {action}, "));
        let arbiter = match &self.arbiter {
            Some(arbiter) => format!("arbiter {} {}", arbiter.arbiter_id, arbiter.cell()),
            None => "no arbiter".to_owned(),
        };
        format!("failover {failover}, {}{arbiter}", action.unwrap_or_default())
    }

    /// Everything, as one JSON object.
    pub fn json(&self) -> String {
        // A struct of strings and numbers always has a JSON text.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// One line in the form of monitoring plugins, and the exit code that belongs to it.
    pub fn check(&self) -> (String, u8) {
        let arbiter_lost = self.arbiter.as_ref().is_some_and(|a| a.status != "online");
        let full = self.servers.iter().filter(|server| !server.full_directories.is_empty());
        let nearly = self.disk_space.iter().filter(|space| space.state == Level::NearlyFull);
        let arbiter_ill = self.arbiter.as_ref().and_then(ArbiterStatus::problem);
        let cannot_grant = self.arbiter.as_ref().is_some_and(|arbiter| arbiter.ledger_error.is_some());
        let critical = full.clone().count() > 0 || self.ledger_error.is_some() || cannot_grant;
        let warned = arbiter_lost
            || arbiter_ill.is_some()
            || !self.durability_warnings.is_empty()
            || !self.connection_failures.is_empty()
            || self.disconnection.is_some()
            || self.configuration_error.is_some()
            || self.commits_waiting_seconds.is_some()
            || self.backups.as_ref().is_some_and(|backups| !backups.problems.is_empty())
            || nearly.clone().count() > 0;
        let (state, code) = match self.mirroring_status {
            _ if critical => ("CRITICAL", 2),
            Word::Switchable if !warned => ("OK", 0),
            Word::Switchable | Word::Switching | Word::FailoverDisabled => ("WARNING", 1),
            Word::Switched | Word::NotSwitchable | Word::SplitBrain => ("CRITICAL", 2),
            Word::Unknown => ("UNKNOWN", 3),
        };
        let mut line = format!("MIRRORING {state} - {}", self.mirroring_status.text());
        for s in &self.servers {
            let _ = write!(line, ", {} {}", s.server_id, s.host_role);
        }
        if arbiter_lost {
            line.push_str(", arbiter offline");
        }
        if let Some(problem) = arbiter_ill {
            let _ = write!(line, ", arbiter {problem}");
            if let Some(why) = self.arbiter.as_ref().and_then(|arbiter| arbiter.ledger_error.as_ref()) {
                let _ = write!(line, ": {why}");
            }
        }
        if let Some(why) = &self.ledger_error {
            let _ = write!(line, ", the ledger of {} cannot be written: {why}", self.local_server);
        }
        for warning in &self.durability_warnings {
            let _ = write!(line, ", {warning}");
        }
        for failure in &self.connection_failures {
            let _ = write!(line, ", {}", failure.sentence());
        }
        if let Some(Disconnection { text, remedy, .. }) = &self.disconnection {
            let _ = write!(line, ", {text}; {remedy}");
        }
        if let Some(takeover) = &self.takeover {
            let _ = write!(line, ", {takeover}");
        }
        if let Some(mistake) = &self.configuration_error {
            let _ = write!(line, ", configuration error: {mistake}");
        }
        for server in full {
            let _ = write!(line, ", {} disk full ({})", server.server_id, server.full_directories);
        }
        for space in nearly {
            let free = crate::rebuild::human(space.free_bytes);
            let _ = write!(line, ", {} disk nearly full ({}: {free} free", self.local_server, space.directory);
            if let Some(seconds) = space.seconds_left {
                let _ = write!(line, ", {:.1} hours left", seconds as f64 / 3600.0);
            }
            line.push(')');
        }
        for problem in self.backups.iter().flat_map(|backups| &backups.problems) {
            let _ = write!(line, ", backups: {problem}");
        }
        if let Some(seconds) = self.commits_waiting_seconds {
            let _ = write!(line, ", commits have waited for the standby for {seconds} s");
        }
        // `|` begins the performance data. "U": not known.
        let line = line.replace('|', "/").replace('\n', " ");
        match self.lag_bytes {
            Some(bytes) => (format!("{line} | lag_bytes={bytes}B;;;0\n"), code),
            None => (format!("{line} | lag_bytes=U\n"), code),
        }
    }

    fn paint_word(&self, colour: Colour) -> String {
        let word = self.mirroring_status.text();
        match (colour, self.mirroring_status) {
            (Colour::Never, _) | (_, Word::Switchable) => word.into(),
            (_, Word::Switching | Word::FailoverDisabled) => format!("\x1b[33m{word}\x1b[0m"),
            _ => format!("\x1b[31m{word}\x1b[0m"),
        }
    }
}

/// The core's advice, and what its silence about the arbiter means for an operator who did not ask for that.
fn advice(snapshot: &Snapshot, form: impl FnOnce() -> Form) -> Vec<String> {
    let lost = snapshot.arbiter.as_ref().filter(|_| snapshot.report.arbiter == Some(false));
    let lost = lost.map(|arbiter| match snapshot.report.view {
        None => format!(
            "arbiter \"{}\" is not connected: run \"mc_arb status\" on its host; it serves this server after the first rebuild",
            arbiter.id
        ),
        Some(_) => {
            format!("arbiter \"{}\" is not connected: run \"mc_arb status\" on its host; until it is connected, the controller \
                     does not act if the other server does not respond", arbiter.id)
        }
    });
    let scarce = |level| Space::hints(&snapshot.space, level);
    if let Some(hint) = ledger_hint(snapshot) {
        // What else does not work follows from it.
        return std::iter::once(hint).chain(scarce(Level::Full)).collect();
    }
    let arbiter = snapshot.arbiter.as_ref().and_then(|name| ArbiterStatus::new(name, &snapshot.report).advice());
    let peer = snapshot.report.me.other().index();
    let full = Some(&snapshot.report.servers[peer].full).filter(|full| !full.is_empty()).map(|full| {
        let id = &snapshot.servers[peer].id;
        format!(
            "the disk of server \"{id}\" is full ({full}): run \"mc_ctl status\" on it, which names the file system"
        )
    });
    let form = if snapshot.connections.is_empty() { Form::Direct } else { form() };
    let mut connections: Vec<_> = snapshot.connections.iter().filter_map(|failure| failure.hint(&form)).collect();
    connections.dedup();
    let disconnected = Disconnection::new(snapshot).map(|disconnection| disconnection.remedy);
    let advice = advice_or_next_step(snapshot).into_iter().chain(disconnected);
    // The cause comes before its consequences.
    let causes = scarce(Level::Full).into_iter().chain(relief(snapshot)).chain(full).chain(arbiter).chain(connections);
    let later = scarce(Level::NearlyFull).into_iter().chain(BackupStatus::remedies(snapshot));
    causes.chain(advice).chain(lost).chain(later).collect()
}

/// What an operator can do about a ledger that cannot be written; `None` if it can.
pub fn ledger_hint(snapshot: &Snapshot) -> Option<String> {
    let why = snapshot.ledger_error.as_ref()?;
    let place = snapshot.space.iter().find(|space| space.directory == Directory::Management);
    let full = ["No space left", "quota"].iter().any(|text| why.contains(text)).then_some(place).flatten();
    let fix = match full {
        Some(Space { mount_point, path, .. }) => {
            format!("free space on the file system \"{mount_point}\" of \"{path}\"")
        }
        None => "repair the file system of the management directory".to_owned(),
    };
    Some(format!(
        "the ledger cannot be written: {fix}; until then this server can neither switch nor disconnect ({why})"
    ))
}

/// What an operator of a primary can do whose data or WAL have no space left.
fn relief(snapshot: &Snapshot) -> Option<String> {
    let report = &snapshot.report;
    let blocked = snapshot.space.iter().find(|space| space.blocks_checkpoint())?;
    report.view.filter(|view| view.is_mirrored(report.me))?;
    let other = &snapshot.servers[report.me.other().index()].id;
    let row = &report.servers[report.me.other().index()];
    let mount = &blocked.mount_point;
    Some(match (report.word, row.full.is_empty()) {
        (Word::Switchable, true) => format!(
            "free space on \"{mount}\"; if that takes too long, {}: server \"{other}\" has space and takes over",
            snapshot.immediate_shutdown()?
        ),
        (_, false) => format!("free space on \"{mount}\": a disk of server \"{other}\" is full as well ({})", row.full),
        (_, true) => format!("free space on \"{mount}\": server \"{other}\" cannot take over now"),
    })
}

impl HealthStatus {
    fn new(snapshot: &Snapshot) -> HealthStatus {
        let is = |question| health::answer(snapshot, question).is_ok();
        HealthStatus {
            primary: is(health::Question::Primary),
            standby: is(health::Question::Standby),
            healthy: is(health::Question::Healthy),
        }
    }
}

impl ViewStatus {
    fn new(snapshot: &Snapshot, view: &View) -> ViewStatus {
        let report = &snapshot.report;
        // Of a view that was entered before this controller's start only the history knows.
        let noted = snapshot.noted.as_ref().filter(|change| report.since.is_none() && change.to == *view);
        let ms = match (report.since, noted) {
            (Some(since), _) => Some(snapshot.now.since(since)),
            (None, noted) => noted.map(|change| snapshot.wall_ms.saturating_sub(change.time_ms)),
        };
        ViewStatus {
            term: view.term.0,
            mode: match view.mode {
                Mode::Mirrored => "mirrored",
                Mode::Degraded => "degraded",
            },
            primary: snapshot.servers[view.primary.index()].id.clone(),
            forced: view.forced,
            arbiter_ledger: view.arbiter.map(|id| format!("{:016x}", id.0)),
            seconds: ms.map(|ms| ms / 1000),
            reason: noted.map_or_else(|| report.reason.clone(), |change| change.reason.clone()),
        }
    }
}

impl ServerStatus {
    fn new(name: &MemberName, report: &ServerReport) -> ServerStatus {
        ServerStatus {
            server_id: name.id.clone(),
            host: name.host.clone(),
            host_role: role_text(report.role),
            host_status: match report.host {
                HostStatus::Normal => "normal",
                HostStatus::Abnormal => "abnormal",
                HostStatus::Unknown => "unknown",
            },
            db_proc_status: match &report.processes {
                None => "unknown".into(),
                Some(failed) if failed.is_empty() => "normal".into(),
                Some(failed) => failed.iter().map(|p| format!("abnormal({p})")).collect::<Vec<_>>().join(","),
            },
            disk_status: match report.disk.as_deref() {
                None => "unknown".into(),
                Some("") if !report.full.is_empty() => "full".into(),
                Some("") => "normal".into(),
                Some(what) => format!("abnormal({what})"),
            },
            full_directories: report.full.clone(),
            lsn: report.lsn.map(|lsn| lsn.to_string()),
            replayed_lsn: report.replayed.map(|lsn| lsn.to_string()),
            timeline: report.timeline.map(|t| t.0),
        }
    }

    fn columns(&self) -> [&str; 6] {
        let ServerStatus { server_id, host_role, host, host_status, db_proc_status, disk_status, .. } = self;
        [server_id, host_role, host, host_status, db_proc_status, disk_status]
    }
}

/// Columns two spaces apart, each as wide as its widest value, under a rule as wide as the table.
fn table<const N: usize>(out: &mut String, header: &[&str; N], rows: &[[&str; N]], colour: Colour) {
    let width = |i: usize| rows.iter().map(|r| r[i].len()).chain([header[i].len()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    row(out, header, &widths, Colour::Never);
    let _ = writeln!(out, "{}", "-".repeat(widths.iter().sum::<usize>() + 2 * (N - 1)));
    for cells in rows {
        row(out, cells, &widths, colour);
    }
}

fn row<const N: usize>(out: &mut String, cells: &[&str; N], widths: &[usize], colour: Colour) {
    for (i, cell) in cells.iter().enumerate() {
        let bad = cell.starts_with("abnormal")
            || cell.starts_with("none(")
            || cell.starts_with("online(")
            || *cell == "offline"
            || *cell == "full";
        let (on, off) = match colour {
            Colour::Always if bad => ("\x1b[31m", "\x1b[0m"),
            Colour::Always if *cell == "unknown" => ("\x1b[33m", "\x1b[0m"),
            _ => ("", ""),
        };
        let pad = if i + 1 < N { widths[i] - cell.len() + 2 } else { 0 };
        let _ = write!(out, "{on}{cell}{off}{:pad$}", "");
    }
    out.push('\n');
}

/// Every status word, in the order of the manual.
const WORDS: [Word; 7] = [
    Word::Switchable,
    Word::Switching,
    Word::Switched,
    Word::NotSwitchable,
    Word::FailoverDisabled,
    Word::SplitBrain,
    Word::Unknown,
];

/// A role as it is shown.
fn role_text(role: HostRole) -> &'static str {
    match role {
        HostRole::Primary => "primary",
        HostRole::Standby => "standby",
        HostRole::InactivatedPrimary => "none(inactivated primary)",
        HostRole::InactivatedStandby => "none(inactivated standby)",
        HostRole::Unknown => "none(unknown)",
    }
}

/// The status word and this server's role, for `systemctl status`.
pub fn in_short(report: &Report) -> String {
    format!("{}, {}", report.word.text(), role_text(report.servers[report.me.index()].role))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::fsm::types::{LedgerId, Lsn, Term, Time, Timeline, View};

    /// A well pair, as its primary sees it.
    pub(crate) fn snapshot() -> Snapshot {
        let server = |server, role, lsn| ServerReport {
            server,
            role,
            host: HostStatus::Normal,
            processes: Some(vec![]),
            disk: Some(String::new()),
            full: String::new(),
            lsn: Some(Lsn(lsn)),
            replayed: None,
            timeline: Some(Timeline(1)),
        };
        let name = |id: &str, host: &str| MemberName { id: id.into(), host: host.into() };
        let primary = Server::First;
        Snapshot {
            now: Time(100_000),
            alive: Time(99_990),
            pid: 42,
            version: "0.1.0".into(),
            started: Time(10_000),
            start_id: 1,
            servers: [name("nd1", "192.0.2.100"), name("nd2", "192.0.2.110")],
            arbiter: None,
            clients: Default::default(),
            wall_ms: 1_000_000,
            noted: None,
            report: Report {
                word: Word::Switchable,
                servers: [
                    server(Server::First, HostRole::Primary, 0x1_0000_0100),
                    server(Server::Second, HostRole::Standby, 0x1_0000_0000),
                ],
                view: Some(View {
                    term: Term(3),
                    primary,
                    mode: Mode::Mirrored,
                    data: Default::default(),
                    arbiter: None,
                    forced: false,
                }),
                since: Some(Time(95_500)),
                reason: "the standby is synchronous".into(),
                failover: true,
                lag_bytes: Some(256),
                lag_ms: Some(1_500),
                peer_lives: true,
                progress: Progress::Settled,
                ..Report::blank(primary)
            },
            rebuild: None,
            checkpoint: None,
            space: Vec::new(),
            ledger_error: None,
            connections: Vec::new(),
            backups: None,
        }
    }

    pub(super) fn failed() -> Snapshot {
        let mut s = snapshot();
        s.report.word = Word::Switched;
        s.report.servers[0].role = HostRole::InactivatedPrimary;
        s.report.servers[0].processes = Some(vec!["wal_sender".into(), "postmaster".into()]);
        s.report.servers[0].disk = None;
        s.report.servers[1].role = HostRole::Primary;
        s.report.servers[1].host = HostStatus::Unknown;
        s.report.servers[1].disk = Some("tablespace a b".into());
        s.report.lag_bytes = None;
        s.arbiter = Some(MemberName { id: "arb".into(), host: "arbiter.example".into() });
        s.report.arbiter = Some(false);
        s
    }

    #[test]
    fn the_healthy_pair_reads_as_in_the_contract() {
        let expected = "\
mirroring status
-----------------
switchable
server_id  host_role  host         host_status  db_proc_status  disk_status
---------------------------------------------------------------------------
nd1        primary    192.0.2.100  normal       normal          normal
nd2        standby    192.0.2.110  normal       normal          normal

failover enabled, no arbiter
";
        assert_eq!(Status::new(&snapshot()).text(false, Colour::Never), expected);
        assert_eq!(Status::new(&snapshot()).text(false, Colour::Always), expected);
    }

    #[test]
    fn columns_widen_with_their_values() {
        let expected = "\
mirroring status
-----------------
switched
server_id  host_role                  host         host_status  db_proc_status                             disk_status
-----------------------------------------------------------------------------------------------------------------------------------
nd1        none(inactivated primary)  192.0.2.100  normal       abnormal(wal_sender),abnormal(postmaster)  unknown
nd2        primary                    192.0.2.110  unknown      normal                                     abnormal(tablespace a b)

failover enabled, arbiter arb offline

arbiter_id  host             status
------------------------------------
arb         arbiter.example  offline
";
        assert_eq!(Status::new(&failed()).text(true, Colour::Never), expected);
    }

    #[test]
    fn a_rebuild_is_one_line_and_an_object() {
        use crate::fsm::report::Rebuilding;
        let mut s = failed();
        s.report.rebuilding = Rebuilding::Copying;
        let text = |s: &Snapshot| Status::new(s).text(false, Colour::Never);
        assert!(text(&s).ends_with("\nrebuild of nd1: comparing the data of both servers\n"), "{}", text(&s));
        s.rebuild = Some(crate::rebuild::Progress {
            chosen: Some(crate::rebuild::Chosen::Rewind),
            why: "so".into(),
            step: "pg_rewind copies".into(),
            done: 1 << 20,
            total: 4 << 20,
            elapsed_ms: 2_000,
            ..crate::rebuild::Progress::default()
        });
        let line = "rebuild of nd1: pg_rewind copies: 1.00 MiB of 4.00 MiB (25 %), 512.00 KiB/s, 6 s left";
        assert!(text(&s).ends_with(&format!("\n\n{line}\n")), "{}", text(&s));
        let metrics = Status::new(&s).prometheus();
        for line in
            ["rebuild_running 1", "rebuild_failed 0", "rebuild_bytes_done 1048576", "rebuild_bytes_total 4194304"]
        {
            assert!(metrics.contains(&format!("\nmirroring_{line}\n")), "{metrics}");
        }
        let json = |s: &Snapshot| serde_json::from_str::<serde_json::Value>(&Status::new(s).json()).unwrap();
        assert_eq!(
            json(&s)["rebuild"],
            serde_json::json!({
                "step": "pg_rewind copies", "method": "rewind", "why": "so", "bytes_done": 1 << 20,
                "bytes_total": 4 << 20, "elapsed_ms": 2000, "failed": null
            })
        );
        s.report.rebuilding = Rebuilding::Failed("no room".into());
        assert!(!text(&s).contains("rebuild"), "the advice reports it");
        assert_eq!(json(&s)["rebuild"]["failed"], "no room");
        s.report.rebuilding = Rebuilding::Idle;
        assert_eq!(json(&s)["rebuild"], serde_json::Value::Null);
    }

    #[test]
    fn a_lost_arbiter_is_told_to_who_did_not_ask() {
        let mut s = failed();
        assert!(Status::new(&s).advice.iter().any(|advice| advice.contains("until it is connected, the controller")));
        let new = Report { view: None, ..s.report.clone() };
        let new = Status::new(&Snapshot { report: new, ..s.clone() }).advice;
        assert!(new.iter().any(|advice| advice.ends_with("it serves this server after the first rebuild")), "{new:?}");
        s.report.arbiter = Some(true);
        assert!(!Status::new(&s).advice.iter().any(|advice| advice.contains("arbiter")));
    }

    #[test]
    fn colour_changes_no_text() {
        let status = Status::new(&failed());
        let coloured = status.text(true, Colour::Always);
        assert!(coloured.contains("\x1b[31mswitched\x1b[0m") && coloured.contains("\x1b[33munknown\x1b[0m"));
        let plain = ["31m", "33m", "0m"].iter().fold(coloured, |t, c| t.replace(&format!("\x1b[{c}"), ""));
        assert_eq!(plain, status.text(true, Colour::Never));
    }

    #[test]
    fn check_lines() {
        let check = |s: &Snapshot| Status::new(s).check();
        assert_eq!(
            check(&snapshot()),
            ("MIRRORING OK - switchable, nd1 primary, nd2 standby | lag_bytes=256B;;;0\n".into(), 0)
        );
        let text = "MIRRORING CRITICAL - switched, nd1 none(inactivated primary), nd2 primary, arbiter offline | lag_bytes=U\n";
        let mut unexplained = failed();
        unexplained.report.view = None;
        assert_eq!(check(&unexplained), (text.into(), 2));
        // Every commit waits for a moment.
        let mut s = snapshot();
        (s.report.waiting, s.report.waits_ms) = (true, Some(999));
        assert_eq!((check(&s).1, check(&s).0.contains("commits")), (0, false));
        s.report.waits_ms = Some(2_300);
        let (line, code) = check(&s);
        let text =
            "MIRRORING WARNING - switchable, nd1 primary, nd2 standby, commits have waited for the standby for 2 s |";
        assert!(code == 1 && line.starts_with(text), "{line}");
        for (word, code) in WORDS.into_iter().zip([0, 1, 2, 2, 1, 2, 3]) {
            let mut s = snapshot();
            s.report.word = word;
            assert_eq!(check(&s).1, code, "{word:?}");
        }
        let mut s = failed();
        s.report.word = Word::Switchable;
        assert_eq!(check(&s).1, 1, "arbiter offline");
    }

    #[test]
    fn a_full_disk_is_critical_and_little_space_a_warning() {
        use super::space::tests::space;
        let mut s = snapshot();
        s.space = vec![space("data", 50 << 20, Level::Normal), space("tran_log", 3 << 20, Level::NearlyFull)];
        s.space[1].seconds_left = Some(1800);
        let (line, code) = Status::new(&s).check();
        assert!(line.contains(", nd1 disk nearly full (tran_log: 3.0 MB free, 0.5 hours left)"), "{line}");
        assert_eq!((code, Status::new(&s).servers[0].disk_status.as_str()), (1, "normal"));
        let advice = Status::new(&s).advice.join("\n");
        assert!(advice.contains("is nearly full") && advice.contains("never delete files in pg_wal"), "{advice}");
        (s.space[0].state, s.report.servers[0].full) = (Level::Full, "data".into());
        let (line, code) = Status::new(&s).check();
        assert!(code == 2 && line.starts_with("MIRRORING CRITICAL - switchable"), "{line}");
        assert!(line.contains(", nd1 disk full (data), "), "{line}");
        assert!(Status::new(&s).text(false, Colour::Never).contains("normal          full\n"));
        // The other server's row shows it too, and a failed disk comes first.
        s.report.me = Server::Second;
        s.space.clear();
        assert_eq!((Status::new(&s).check().1, Status::new(&s).servers[0].disk_status.as_str()), (2, "full"));
        assert!(Status::new(&s).advice.join("\n").contains("the disk of server \"nd1\" is full (data)"));
        s.report.servers[0].disk = Some("data".into());
        assert_eq!(Status::new(&s).servers[0].disk_status, "abnormal(data)");
    }

    #[test]
    fn an_arbiter_without_space_is_a_warning_and_one_that_cannot_grant_critical() {
        let mut s = failed();
        (s.report.word, s.report.arbiter) = (Word::Switchable, Some(true));
        s.report.arbiter_disk.space = "the file system \"/a\" is nearly full".into();
        let check = |s: &Snapshot, code, text: &str, advice: &str| {
            let status = Status::new(s);
            let shown = status.text(true, Colour::Never);
            assert!(shown.matches(&format!("online({text})")).count() == 2, "{shown}");
            let (line, actual) = status.check();
            assert!(actual == code && line.contains(&format!(", arbiter {text}")), "{line}");
            assert!(status.advice.iter().any(|hint| hint.contains(advice)), "{:?}", status.advice);
        };
        check(&s, 1, "disk nearly full", "free space on the host of arbiter \"arb\": the file system \"/a\"");
        s.report.arbiter_disk.full = "management".into();
        check(&s, 1, "disk full", "free space on the host of arbiter \"arb\"");
        s.report.arbiter_disk.failure = "no space".into();
        assert!(Status::new(&s).check().0.contains(", arbiter cannot grant: no space"));
        check(&s, 2, "cannot grant", "cannot consent to a change (no space): free space on its host");
        s.report.arbiter = Some(false);
        assert_eq!(Status::new(&s).arbiter.map(|arbiter| arbiter.disk_status), Some("unknown"));
    }

    #[test]
    fn a_ledger_that_cannot_be_written_is_the_only_hint() {
        let mut s = failed();
        s.report.advice = vec!["the standby does not respond".into()];
        s.ledger_error = Some("could not write file: No space left on device".into());
        s.space = vec![super::space::tests::space("management", 0, Level::Full)];
        let status = Status::new(&s);
        let first = "the ledger cannot be written: free space on the file system \"/srv\" of \"/srv/management\";";
        assert!(status.advice.len() == 2 && status.advice[0].starts_with(first), "{:?}", status.advice);
        assert!(status.check().1 == 2 && status.check().0.contains(", the ledger of nd1 cannot be written"));
    }

    #[test]
    fn the_hint_of_a_full_primary_is_printed_once_and_names_a_way_out() {
        let mut s = snapshot();
        s.space = ["data", "tran_log"].map(|name| super::space::tests::space(name, 0, Level::Full)).into();
        s.report.servers[0].full = "data, tran_log".into();
        let advice = Status::new(&s).advice;
        let both = "of \"/srv/data\" (data) and of \"/srv/tran_log\" (tran_log) is full";
        assert!(advice.len() == 2 && advice[0].contains(both) && advice[0].contains("\"du -xk"), "{advice:?}");
        let way =
            "\"pg_ctl stop -m immediate -D /srv/data\" here as its owner: server \"nd2\" has space and takes over";
        assert!(advice[1].contains(way), "{advice:?}");
        s.report.servers[1].full = "data".into();
        let advice = Status::new(&s).advice;
        assert!(!advice[1].contains("pg_ctl") && advice[1].contains("\"nd2\" is full as well"), "{advice:?}");
    }

    #[test]
    fn json_names_are_stable() {
        let json: serde_json::Value = serde_json::from_str(&Status::new(&snapshot()).json()).unwrap();
        assert_eq!(json["mirroring_status"], "switchable");
        assert_eq!(json["servers"][1]["server_id"], "nd2");
        assert_eq!(json["servers"][0]["lsn"], "1/100");
        assert_eq!(
            json["view"],
            serde_json::json!({
                "term": 3, "mode": "mirrored", "primary": "nd1", "forced": false, "arbiter_ledger": null, "seconds": 4,
                "reason": "the standby is synchronous"
            })
        );
        let mut names: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
        names.sort();
        let expected = "advice arbiter backups checkpoint commits_waiting commits_waiting_seconds configuration_error connection_failures controller \
                        disconnection disk_space durability_warnings failover_enabled health heartbeat_error_action \
                        lag_bytes lag_seconds ledger_error local_server mirroring_status progress progress_detail rebuild \
                        servers view";
        assert_eq!(names.join(" "), expected);
    }

    /// What failures lead to depends on three things, which one line shows.
    #[test]
    fn the_policy_is_shown() {
        let mut s = snapshot();
        let shown = |s: &Snapshot| Status::new(s).text(false, Colour::Never);
        s.report.on_silence = Some(OnSilence::Fallback);
        assert!(shown(&s).ends_with("\nfailover enabled, heartbeat_error_action fallback, no arbiter\n"));
        s.arbiter = Some(MemberName { id: "arb".into(), host: "arbiter.example".into() });
        (s.report.arbiter, s.report.on_silence) = (Some(true), Some(OnSilence::Arbitration));
        let online = "\nfailover enabled, heartbeat_error_action arbitration, arbiter arb online\n";
        assert!(shown(&s).ends_with(online), "{}", shown(&s));
        (s.report.arbiter, s.report.failover) = (Some(false), false);
        let offline = "\nfailover disabled, heartbeat_error_action arbitration, arbiter arb offline\n";
        assert!(shown(&s).ends_with(offline), "{}", shown(&s));
        let json: serde_json::Value = serde_json::from_str(&Status::new(&s).json()).unwrap();
        assert_eq!(
            (&json["heartbeat_error_action"], &json["failover_enabled"]),
            (&"arbitration".into(), &false.into())
        );
    }

    #[test]
    fn a_configuration_error_is_a_warning() {
        let mut status = Status::new(&snapshot());
        status.configuration_error = Some("\"/srv/mc/nd1.conf\", line 7: unknown parameter \"retry\"".into());
        let (line, code) = status.check();
        let text = ", configuration error: \"/srv/mc/nd1.conf\", line 7: unknown parameter \"retry\" | ";
        assert!(code == 1 && line.starts_with("MIRRORING WARNING - switchable") && line.contains(text), "{line}");
    }

    #[test]
    fn a_connection_that_fails_is_a_warning() {
        let mut s = snapshot();
        assert_eq!(Status::new(&s).check().1, 0);
        let error = "password authentication failed for user \"mc\"".to_owned();
        s.connections = vec![ConnectionFailure::new(Purpose::Replication, error)];
        let status = Status::new(&s);
        let text = "this standby cannot connect to the primary: password authentication failed for user \"mc\"";
        assert!(status.text(false, Colour::Never).contains(&format!("\nWARNING: {text}\n")));
        let (line, code) = status.check();
        assert!(code == 1 && line.starts_with("MIRRORING WARNING - switchable") && line.contains(text), "{line}");
        assert_eq!(status.advice.len(), 1);
        assert!(status.advice[0].starts_with("set db_instance_password in ID.conf of both servers"), "{status:?}");
        let advice = Status::in_form(&s, || Form::Unit("mc".to_owned())).advice.join("\n");
        assert!(advice.contains("run \"systemctl reload mc\" on both") && !advice.contains("mc_ctl"), "{advice}");
        let mut no_line = s.clone();
        no_line.connections = vec![ConnectionFailure::new(Purpose::Replication, "no pg_hba.conf entry".to_owned())];
        assert!(Status::new(&no_line).advice[0].ends_with("run \"mc_ctl reload\" here"));
        for error in ["timeout expired", "connection to server at \"nd1\", port 5432 failed: Connection refused"] {
            let mut s = s.clone();
            s.connections = vec![ConnectionFailure::new(Purpose::Replication, error.to_owned())];
            assert_eq!(Status::new(&s).advice, [""; 0]);
        }
        let mut lacks = s.clone();
        lacks.connections = vec![ConnectionFailure::missing_wal("000000010000000000000003")];
        assert!(Status::new(&lacks).advice[0].ends_with("run \"mc_ctl rebuild\" on this server"));
        s.report.rebuilding = crate::fsm::report::Rebuilding::Starting;
        assert_eq!(Status::new(&s).rebuild.map(|rebuild| rebuild.step).as_deref(), Some(text));
    }

    /// A controller that was started anew has not seen the view begin; its history has.
    #[test]
    fn what_the_history_knows_of_the_view() {
        let mut s = snapshot();
        let mut to = s.report.view.unwrap();
        to.arbiter = Some(LedgerId(0xabc));
        (s.report.view, s.report.since, s.report.reason) = (Some(to), None, String::new());
        let change = |to| Change { time_ms: 700_500, from: None, to, reason: "once proved".into() };
        let view = |s: &Snapshot| Status::new(s).view.unwrap();
        assert_eq!((view(&s).seconds, view(&s).reason.as_str()), (None, ""));
        s.noted = Some(change(to));
        let shown = view(&s);
        assert_eq!((shown.seconds, shown.reason.as_str()), (Some(299), "once proved"));
        assert_eq!(shown.arbiter_ledger.as_deref(), Some("0000000000000abc"));
        s.noted = Some(change(View { term: Term(1), ..to }));
        assert_eq!((view(&s).seconds, view(&s).reason.as_str()), (None, ""));
        (s.noted, s.report.since) = (Some(change(to)), Some(Time(95_500)));
        assert_eq!((view(&s).seconds, view(&s).reason.as_str()), (Some(4), ""));
    }
}
