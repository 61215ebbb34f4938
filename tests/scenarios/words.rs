//! The notation of the transcripts.

use mirroring_controller::fsm::event::{CoreMessage, Job, Message, Purpose, Reply, Request, UserCommand};
use mirroring_controller::fsm::report::{Progress, Rebuilding, Report};
use mirroring_controller::fsm::types::{Durable, Ledger, Method, Mode, OldData, RebuildOrder, Server, View};

/// What the members are called, by number.
pub const NAMES: [&str; 3] = ["nd1", "nd2", "arb"];

/// `Mirrored(nd1)@3`.
pub fn view(view: View) -> String {
    let mode = if view.mode == Mode::Mirrored { "Mirrored" } else { "Degraded" };
    let forced = if view.forced { " forced" } else { "" };
    format!("{mode}({})@{}{forced}", NAMES[view.primary.index()], view.term)
}

/// The view of a ledger, or `none`.
pub fn ledger(ledger: Option<Ledger>) -> String {
    ledger.map_or("none".to_owned(), |ledger| view(ledger.view))
}

/// What is said to the operator.
pub fn say(say: &CoreMessage) -> String {
    match say {
        CoreMessage::View { from, to, why } => {
            format!("view: {} -> {}: {why}", from.map_or("none".to_owned(), view), view(*to))
        }
        CoreMessage::Decided { what, why } => format!("decides: {what}, because {why}"),
        CoreMessage::WouldHave { what, why } => format!("would have decided: {what}, because {why}"),
        CoreMessage::Split { mine, theirs, stopped } => format!(
            "PANIC: both run alone: this one at timeline {} {}, the other at timeline {} {}; this one {}",
            mine.0.0,
            mine.1,
            theirs.0.0,
            theirs.1,
            if *stopped { "is stopped" } else { "continues" }
        ),
        CoreMessage::Calling(command) => format!("calls {}", call(command)),
        CoreMessage::Called(command) => format!("{} has succeeded", call(command)),
        CoreMessage::CallFailed { command, why } => format!("{} has failed: {why}", call(command)),
        CoreMessage::HookCalled(command) => format!("calls {}", call(command)),
        CoreMessage::HookDone(command) => format!("{} has succeeded", call(command)),
        CoreMessage::HookCalledOff(command) => format!("{} was ended", call(command)),
        CoreMessage::HookFailed { command, why } => format!("{} has failed: {why}", call(command)),
        CoreMessage::SplitElsewhere { mine, theirs } => {
            format!("PANIC: {} here, and the arbiter tells of {}", view(*mine), view(*theirs))
        }
        CoreMessage::RebuildBegun(asked) => format!("rebuild begins, {}", order(*asked)),
        CoreMessage::DataReplaced { why, .. } => format!("says DataReplaced: {why}"),
        CoreMessage::NotEligible(why) => format!("says NotEligible({:?})", why.text()),
        CoreMessage::NotGranted { server, why } => {
            format!("says NotGranted {{ server: {server:?}, why: {:?} }}", why.text())
        }
        other => format!("says {other:?}"),
    }
}

/// `monitor fencing of nd1 for a switch, because ...`.
fn call(command: &UserCommand) -> String {
    let UserCommand { purpose, by_operator, aim, target, term, reason } = command;
    if let Purpose::Hook(hook) = purpose {
        return format!("{hook:?} {} @{term} ({reason})", NAMES[target.index()]);
    }
    let by = if *by_operator { "operator" } else { "monitor" };
    format!("{by} {purpose:?} {aim:?} {} ({reason})", NAMES[target.index()])
}

/// What is ordered of the runner.
pub fn job(job: &Job) -> String {
    let named = |names: &Option<String>| names.clone().unwrap_or("off".to_owned());
    let left = |names: &Option<String>| names.clone().unwrap_or("unchanged".to_owned());
    match job {
        Job::Mark(_) => "Mark".to_owned(),
        Job::Start { names, follow: None } => format!("Start with names {}", named(names)),
        Job::Start { names, follow: Some(address) } => {
            format!("Start with names {} as a standby of {address}", named(names))
        }
        Job::Stop { fast_ms: 0, names } => format!("Stop immediate, names {}", left(names)),
        Job::Stop { fast_ms, names } => format!("Stop fast within {fast_ms} ms, names {}", left(names)),
        Job::Rebuild(what) => format!("Rebuild from {}, {}, names {}", what.source, order(what.order), what.names),
        other => format!("{other:?}"),
    }
}

/// `by pg_rewind`, and what becomes of the old directory.
fn order(order: RebuildOrder) -> String {
    let old = if order.old_data == OldData::Delete { ", the old directory deleted" } else { "" };
    match order.method {
        Method::Auto => format!("by any method{old}"),
        Method::Rewind => format!("by pg_rewind{old}"),
        Method::BaseBackup => format!("by pg_basebackup{old}"),
    }
}

/// A message by its kind, as scripts name it.
pub fn kind(message: &Message) -> &'static str {
    match message {
        Message::Heartbeat(_) => "heartbeat",
        Message::Propose { .. } => "propose",
        Message::Answer { .. } => "answer",
        Message::Ask { .. } => "ask",
        Message::Told { .. } => "told",
    }
}

/// A message that is worth a line; a heartbeat is only while it offers a hand-over.
pub fn message(message: &Message) -> Option<String> {
    Some(match message {
        Message::Heartbeat(told) if told.take_over => match told.shutdown_checkpoint {
            Some(checkpoint) => format!("take over past {checkpoint}"),
            None => "take over".to_owned(),
        },
        Message::Heartbeat(_) => return None,
        Message::Propose { base, view: proposed, .. } => {
            format!("propose {} after {}", view(*proposed), view(base.view))
        }
        Message::Answer { ledger: told } => format!("answer {}", ledger(*told)),
        Message::Ask { request, .. } => format!("ask {request:?}"),
        Message::Told { reply, .. } => format!("told {reply:?}"),
    })
}

/// The reply to an operator.
pub fn reply(reply: &Reply) -> String {
    format!("replies {reply:?}")
}

/// What `mc_ctl status` shows, on one line and without its sentences: they change more often than the protocol.
pub fn report(report: &Report) -> String {
    let rows = Server::BOTH.map(|server| {
        let row = &report.servers[server.index()];
        format!("{} {:?} {:?}", NAMES[server.index()], row.role, row.host)
    });
    let start = match report.progress {
        Progress::Waiting(_) => "waiting",
        Progress::Running(_) => "running",
        Progress::Settled => "settled",
        Progress::Refused(_) => "refused",
    };
    let rebuild = match &report.rebuilding {
        Rebuilding::Idle => "",
        Rebuilding::Waiting(_) => ", rebuild waiting",
        Rebuilding::Copying => ", rebuild copying",
        Rebuilding::Starting => ", rebuild starting",
        Rebuilding::Failed(_) => ", rebuild failed",
    };
    let view = report.view.map_or("none".to_owned(), view);
    format!("status: {:?}, {view}, {}, {}, start {start}{rebuild}", report.word, rows[0], rows[1])
}

/// What an arbiter has recorded.
pub fn record(durable: &Durable) -> String {
    let replaces = if durable.notes.replaces_right { ", which replaces a right of the other server" } else { "" };
    format!("records {}{replaces}", view(durable.ledger.view))
}

/// An operator's request, as scripts write it.
pub fn request(words: &[&str]) -> Option<Request> {
    Some(match words {
        ["switch"] => Request::Switch,
        ["detach"] => Request::Detach,
        ["switch", "--force"] => Request::ForceSwitch { fencing: true },
        ["switch", "--force", "--no-fencing"] => Request::ForceSwitch { fencing: false },
        ["detach", "--force"] => Request::ForceDetach { fencing: true },
        ["detach", "--force", "--no-fencing"] => Request::ForceDetach { fencing: false },
        ["start", "--adopt-data"] => Request::AdoptData,
        ["stop"] => Request::Stop { instance: true, all: false },
        ["stop", "-a"] => Request::Stop { instance: true, all: true },
        ["stop", "--mc-only"] => Request::Stop { instance: false, all: false },
        ["start"] => Request::Start { failover: None },
        ["failover", "on"] => Request::Failover(true),
        ["rebuild"] => Request::Rebuild(RebuildOrder::default()),
        ["rebuild", "rewind"] => Request::Rebuild(RebuildOrder { method: Method::Rewind, ..Default::default() }),
        ["rebuild", "basebackup"] => {
            Request::Rebuild(RebuildOrder { method: Method::BaseBackup, ..Default::default() })
        }
        ["failover", "off"] => Request::Failover(false),
        _ => return None,
    })
}
