//! What `mc_ctl status` shows: one model, rendered as text, JSON, a monitoring line and Prometheus metrics.
//!
//! Made from the controller's snapshot alone; must not read files, ask other hosts, or look at a clock. Called by
//! `cli::status` and by `daemon::health`. The JSON field names are an interface: fields are added,
//! never renamed.

mod advice;
mod arbiter;
mod backups;
mod checkpoint;
mod connection;
mod disconnection;
pub mod health;
mod metrics;
mod monitoring;
mod next_step;
mod obstacle;
mod rebuild;
mod server;
mod snapshot;
mod space;
mod text;
mod view;

pub use crate::backup::Survey;
pub use crate::messages::commands::Form;
pub use advice::ledger_hint;
pub use arbiter::ArbiterStatus;
pub use backups::BackupStatus;
pub use checkpoint::Checkpoint;
pub use connection::{Cause, ConnectionFailure, Purpose};
pub use disconnection::Disconnection;
pub use next_step::{advice_or_next_step, after_switch, next_step};
pub use obstacle::{obstacle, only_without_checkpoint};
pub use rebuild::{RebuildStatus, WAITING, duration};
pub use server::{ServerStatus, in_short};
pub use snapshot::{Change, MemberName, Snapshot};
pub use space::{Directory, Level, Space, TABLESPACE};
pub use text::Colour;
pub use view::ViewStatus;

use crate::fsm::event::OnSilence;
use crate::fsm::report::{Progress, Word};
use crate::fsm::types::Server;
use serde::Serialize;

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
    /// Connections that fail on the other server, as its controller reports them; empty for none.
    pub peer_connection_failures: Vec<String>,
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
            peer_connection_failures: {
                let peer = id(report.me.other());
                snapshot.peer_failing.iter().map(|what| format!("server \"{peer}\" reports: {what}")).collect()
            },
            advice: advice::advice(snapshot, form),
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

    /// Everything, as one JSON object.
    pub fn json(&self) -> String {
        // A struct of strings and numbers always has a JSON text.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::fsm::report::{HostRole, HostStatus, Report, ServerReport};
    use crate::fsm::types::{Lsn, Mode, Term, Time, Timeline, View};

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
            bin_dir: Some("/pg/bin".into()),
            peer_failing: Vec::new(),
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
                        lag_bytes lag_seconds ledger_error local_server mirroring_status peer_connection_failures progress progress_detail rebuild \
                        servers view";
        assert_eq!(names.join(" "), expected);
    }
}
