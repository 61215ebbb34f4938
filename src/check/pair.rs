//! The state of the pair as the controllers report it: not mirrored, and instances that do not run.
//!
//! Made from what `mc_ctl status` shows, so that both give the same command.

use super::{Entry, Finding, Seen};
use crate::fsm::report::{HostRole, Rebuilding, Word};
use crate::fsm::types::Mode;
use crate::status::{Disconnection, Snapshot, Status, duration, next_step};
use serde::{Deserialize, Serialize};

const INSTANCE_DOWN: Entry =
    Entry::error("instance-down", "The instance of a server of the pair is not running, and its controller is.");
const LEDGER_NOT_WRITABLE: Entry = Entry::error(
    "ledger-not-writable",
    "A controller cannot write its ledger: its server can neither switch nor disconnect, and the controller sends nothing to the \
     other members.",
);
const NOT_MIRRORED: Entry = Entry::error(
    "not-mirrored",
    "The pair is not mirrored: the mirroring status is switched, not-switchable, split-brain or unknown. Commits are not \
     protected against the failure of the primary, or clients are not served.",
);

/// The findings of this module.
pub const CATALOGUE: &[Entry] = &[INSTANCE_DOWN, LEDGER_NOT_WRITABLE, NOT_MIRRORED];

/// What a controller reports of the pair and of its own instance.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// The status word.
    pub word: Word,
    /// The state of the pair in words.
    pub text: String,
    /// The pair has been mirrored at least once.
    pub complete: bool,
    /// The hints of the status, except one that refers to this check; empty for none.
    pub hints: Vec<String>,
    /// The command that starts the instance; `None` if it runs or a rebuild is in progress.
    #[serde(with = "crate::optional_text")]
    pub start: Option<String>,
}

impl State {
    /// Of a controller; `None` if it has no view of the pair.
    pub fn new(snapshot: &Snapshot) -> Option<State> {
        let report = &snapshot.report;
        let view = report.view?;
        let disconnected = Disconnection::new(snapshot).map(|disconnection| disconnection.remedy);
        let advice = report.advice.iter().filter(|_| !report.refers_to_check).cloned();
        let hints = advice.chain(next_step(snapshot)).chain(disconnected);
        Some(State {
            word: report.word,
            text: text(snapshot),
            complete: view.data[view.primary.other().index()].is_some(),
            hints: hints.collect(),
            start: start(snapshot).map(str::to_owned),
        })
    }
}

fn text(snapshot: &Snapshot) -> String {
    let status = Status::new(snapshot);
    let servers = status.servers.iter().map(|server| {
        let processes = match server.db_proc_status.as_str() {
            "normal" | "unknown" => String::new(),
            abnormal => format!(" ({abnormal})"),
        };
        format!("{} {}{processes}", server.server_id, server.host_role)
    });
    let mut text = format!("{}, {}", status.mirroring_status.text(), servers.collect::<Vec<_>>().join(", "));
    if let (Some(view), Some(Mode::Degraded)) = (&status.view, snapshot.report.view.map(|view| view.mode)) {
        let since = view.seconds.map(|seconds| format!(" for {}", duration(seconds))).unwrap_or_default();
        let reason = Some(&view.reason).filter(|reason| !reason.is_empty()).map(|reason| format!(": {reason}"));
        text += &format!("; \"{}\" has served alone{since}{}", view.primary, reason.unwrap_or_default());
    }
    text
}

/// The command that starts the instance. A server that has lost its role, or whose rebuild has failed, needs a rebuild.
fn start(snapshot: &Snapshot) -> Option<&'static str> {
    let report = &snapshot.report;
    let row = &report.servers[report.me.index()];
    let stopped = row.processes.as_ref().is_some_and(|bad| bad.iter().any(|process| process == "postmaster"));
    let lost = report.view.is_some_and(|view| view.primary != report.me) && row.role == HostRole::InactivatedPrimary;
    match report.rebuilding {
        Rebuilding::Waiting(_) | Rebuilding::Copying | Rebuilding::Starting => None,
        _ if !stopped => None,
        Rebuilding::Failed(_) => Some("mc_ctl rebuild"),
        Rebuilding::Idle if lost => Some("mc_ctl rebuild"),
        Rebuilding::Idle => Some(report.start_command()),
    }
}

/// What keeps the pair from being mirrored, as its controllers report it.
pub fn examine(seen: &Seen, found: &mut Vec<Finding>) {
    let mut blocked = false;
    for server in seen.servers() {
        let Some(why) = server.pace.as_ref().and_then(|pace| pace.ledger_error.as_ref()) else { continue };
        let fix = format!("free space on the file system of \"{}\" on \"{}\"", server.host.directory, server.id);
        found.push(LEDGER_NOT_WRITABLE.found(&server.id, format!("the ledger cannot be written: {why}"), fix));
        blocked = true;
    }
    let state = |server: &super::Facts| server.pace.as_ref().and_then(|pace| pace.state.clone());
    for server in seen.servers() {
        let id = &server.id;
        let Some(command) = state(server).and_then(|state| state.start) else { continue };
        let fix = format!("run \"{command}\" on \"{id}\"");
        found.push(INSTANCE_DOWN.found(id, "the instance is not running", fix));
    }
    let Some(state) = state(&seen.own) else { return };
    let broken = match state.word {
        Word::Switched | Word::NotSwitchable | Word::SplitBrain | Word::Unknown => true,
        Word::Switchable | Word::Switching | Word::FailoverDisabled => false,
    };
    // Before the pair is complete, the other findings lead unless the status has the next step.
    // The view in the ledger is not what the servers do now.
    if !broken || blocked || !state.complete && state.hints.is_empty() {
        return;
    }
    let fix = match state.hints.is_empty() {
        true => "correct the other findings; if there are none, see \"mc_ctl history\" and the logs of both servers"
            .to_owned(),
        false => state.hints.join("; "),
    };
    found.push(NOT_MIRRORED.found("", format!("the pair is not mirrored: {}", state.text), fix));
}
