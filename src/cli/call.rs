//! Requests to the controller of this host, and what their answers come to.

use super::args::{Change, Common};
use super::{Ended, Exit, Failure, print, say, service_form};
use crate::config::{Config, InEffect};
use crate::daemon::connection_probe;
use crate::daemon::control::{Answer, Call, CallError, call};
use crate::daemon::inspect;
use crate::daemon::reload::{self, Reloaded};
use crate::daemon::store;
use crate::daemon::watcher;
use crate::error::Error;
use crate::fsm::event::{Reply, Request, Transient};
use crate::messages::commands::Verb;
use crate::pg::connect::PASSWORD_HINT;
use crate::status::{self, ConnectionFailure, Purpose, Snapshot};
use crate::what_if::{Fault, Prediction};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the controller may take to tell what it knows, which is served from memory: `status` ends within 0.2 s.
const STATUS_LIMIT: Duration = Duration::from_millis(150);
/// The same where something is waited for anyhow.
const PATIENT_LIMIT: Duration = Duration::from_secs(2);
/// How long a prediction may take: it is reckoned, not waited for.
const PREDICTION_LIMIT: Duration = Duration::from_secs(60);
/// How much longer than the request's own limit its answer is waited for.
const GRACE: Duration = Duration::from_secs(2);
/// How often a command checks the state of the controller.
pub(super) const LOOK: Duration = Duration::from_millis(50);
/// How long a command waits before it reports what it is waiting for.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// How long the arbiter may take to record a forced view.
const RECORDED: Duration = Duration::from_secs(3);
/// "No limit" (`remote_call_timeout = 0`), as a number.
const NO_LIMIT: Duration = Duration::from_secs(7 * 86_400);

/// What the controller knows, or within 0.2 s that it does not say so.
pub(super) fn status(config: &Config) -> Result<Box<Snapshot>, Failure> {
    snapshot_within(config, STATUS_LIMIT)
}

/// What the controller knows, for commands that wait for something.
pub(super) fn snapshot(config: &Config) -> Result<Box<Snapshot>, Failure> {
    snapshot_within(config, PATIENT_LIMIT)
}

fn snapshot_within(config: &Config, limit: Duration) -> Result<Box<Snapshot>, Failure> {
    match ask(config, &Call::Status, limit)? {
        Answer::Status(snapshot) => Ok(snapshot),
        other => Err(unexpected(&other)),
    }
}

/// Whether a controller answers.
pub(super) fn is_running(config: &Config) -> Result<bool, Failure> {
    match ask(config, &Call::Ping, PATIENT_LIMIT) {
        Ok(_) => Ok(true),
        Err(failure) if failure.exit == Exit::NotRunning => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// Whether a controller answers. If one is ending, or its watcher restarts it, waits for the result until `limit` after `begin`.
pub(super) fn is_running_or_gone(config: &Config, begin: Instant, limit: Duration) -> Result<bool, Failure> {
    let id = &config.id;
    let mut said = false;
    loop {
        // A connection breaks when the controller ends.
        let answer = is_running(config).or_else(|broken| match broken.exit {
            Exit::Failed => is_running(config),
            _ => Err(broken),
        });
        if answer? {
            return Ok(true);
        }
        if !store::is_locked(&config.run_dir()) {
            return Ok(false);
        }
        if begin.elapsed() >= limit {
            let text = format!("the previous controller of server \"{id}\" has not ended within {} s", limit.as_secs());
            return Err(Failure::new(Exit::TimedOut, text).hint(format!(
                "\"{}\" and syslog may contain the reason. To end the controller and its watcher, run \"mc_ctl stop -e\", \
                 which does not stop the instance. Then run this command again.",
                config.run_dir().join("log").display()
            )));
        }
        if !said && begin.elapsed() > PATIENCE {
            said = true;
            say(&format!("mc_ctl: waiting: the previous controller of server \"{id}\" is ending\n"));
        }
        std::thread::sleep(LOOK);
    }
}

/// Has something changed, and waits for it.
pub(super) fn request(config: &Config, request: Request, limit: Duration) -> Result<(), Failure> {
    // A controller that stands still is not waited for as long as the request may take.
    ask(config, &Call::Ping, PATIENT_LIMIT)?;
    let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    match ask(config, &Call::Request { request, limit_ms }, limit + GRACE)? {
        Answer::Reply(Reply::Done) => Ok(()),
        Answer::Reply(Reply::Refused(why)) => Err(match why.split_once("\nHINT: ") {
            Some((why, hint)) => Failure::new(Exit::Refused, why).hint(hint),
            None => Transient::of(&why).map_or_else(|| Failure::new(Exit::Refused, why), Failure::transient),
        }),
        Answer::Reply(Reply::Failed(why)) => Err(Failure::new(Exit::Failed, why)),
        Answer::Reply(Reply::TimedOut(how)) => Err(Failure::new(Exit::TimedOut, how)),
        other => Err(unexpected(&other)),
    }
}

/// What would happen if these failed; `each`: and then any one of the others.
pub(super) fn what_if(config: &Config, faults: Vec<Fault>, each: bool) -> Result<Vec<Prediction>, Failure> {
    match ask(config, &Call::WhatIf { faults, each }, PREDICTION_LIMIT)? {
        Answer::WhatIf(predictions) => Ok(predictions),
        Answer::Reply(Reply::Refused(why)) => Err(Failure::new(Exit::Refused, why)),
        Answer::Reply(Reply::TimedOut(why)) => Err(Failure::new(Exit::TimedOut, why)),
        other => Err(unexpected(&other)),
    }
}

/// `-t`, else `remote_call_timeout`.
pub(super) fn limit(config: &Config, seconds: Option<u64>) -> Duration {
    match (seconds, config.server.remote_call_timeout_ms) {
        (Some(seconds), _) => Duration::from_secs(seconds),
        (None, Some(ms)) => Duration::from_millis(ms),
        (None, None) => NO_LIMIT,
    }
}

/// `switch` and `detach`.
pub(super) fn change(verb: &str, args: &Change, what: Request, done: &str) -> Ended {
    let config = args.common.client_config()?;
    let what = match (args.force, what) {
        (true, Request::Switch) => Request::ForceSwitch { fencing: !args.no_fencing },
        (true, Request::Detach) => Request::ForceDetach { fencing: !args.no_fencing },
        (_, what) => what,
    };
    if args.force && !args.yes {
        confirm(&risk(&config, verb, args.no_fencing))?;
    }
    if what == Request::Switch {
        warn_of_rejection(&config);
    }
    request(&config, what, limit(&config, args.seconds))?;
    let after = snapshot(&config).ok();
    let view = after.as_ref().and_then(|snapshot| Some((snapshot, snapshot.report.view?)));
    let Some((snapshot, view)) = view else {
        print(&format!("{done}\n"));
        return Ok(0);
    };
    let [primary, standby] = [view.primary, view.primary.other()].map(|server| &snapshot.servers[server.index()].id);
    print(&format!("{done}; server \"{primary}\" is the primary\n"));
    if args.force {
        warn_of_unrecorded(&config);
    }
    if verb == "detach" {
        let start = snapshot.report.start_command();
        say(&format!("HINT: To attach the standby again, run \"{start}\" on server \"{standby}\".\n"));
    } else if let Some(next) = status::after_switch(snapshot, config.server.rebuild_auto) {
        say(&format!("HINT: {next}\n"));
    }
    Ok(0)
}

/// Warns if this server, which a switch makes the standby, could not connect to the new primary.
fn warn_of_rejection(config: &Config) {
    let Ok(snapshot) = snapshot(config) else { return };
    let leads = snapshot.report.view.is_some_and(|view| view.primary == snapshot.report.me);
    let rejected = |failure: &&ConnectionFailure| failure.purpose == Purpose::OtherInstance;
    if let Some(failure) = snapshot.connections.iter().find(rejected).filter(|_| leads) {
        say(&format!(
            "mc_ctl: WARNING: {}; until this is corrected, this server does not become the standby\nHINT: {PASSWORD_HINT}\n",
            failure.sentence()
        ));
    }
}

/// Warns if the arbiter has not received a view that an operator has forced: with the other server, it could still give the right
/// to that one.
pub(super) fn warn_of_unrecorded(config: &Config) {
    let Some(arbiter) = &config.network.arbiter else { return };
    let begin = Instant::now();
    while begin.elapsed() < RECORDED {
        let Ok(Snapshot { report, .. }) = snapshot(config).map(|snapshot| *snapshot) else { return };
        let asked = report.arbiter == Some(true);
        if asked && inspect::arbiter(config).is_some_and(|arbiter| arbiter.view == report.view) {
            return;
        }
        std::thread::sleep(LOOK);
    }
    let (id, other) = (&arbiter.id, &config.peer().id);
    say(&format!(
        "mc_ctl: WARNING: arbiter \"{id}\" has not received this change\nHINT: Do not let server \"{other}\" and the arbiter start \
         automatically: the arbiter would let server \"{other}\" serve without the commits of this server. Start the arbiter while \
         this server serves and reaches it; when \"mc_arb status\" shows this change, start server \"{other}\".\n"
    ));
}

/// What this server knows of the state that an operator is about to override.
pub(super) fn known(config: &Config) -> String {
    let Ok(snapshot) = snapshot(config) else { return String::new() };
    let arbiter = match (&config.network.arbiter, snapshot.report.arbiter) {
        (None, _) => return String::new(),
        (Some(line), Some(true)) => return format!("The arbiter \"{}\" responds. ", line.id),
        (Some(line), _) => &line.id,
    };
    format!(
        "The arbiter \"{arbiter}\" does not respond: it and server \"{}\" must not start automatically before the arbiter has \
         received this change. ",
        config.peer().id
    )
}

/// What an operator takes upon himself with `--force` (PROTOCOL section 6).
fn risk(config: &Config, verb: &str, no_fencing: bool) -> String {
    let other = &config.peer().id;
    let both = match verb {
        "switch" => format!(
            "promotes the standby on this server without the consent of server \"{other}\". If that server still runs as the \
             primary and continues alone, or has done so already"
        ),
        _ => format!(
            "makes the primary on this server continue alone without the consent of server \"{other}\". If that server has \
             been promoted, or is later"
        ),
    };
    let fence = match (&config.server.fencing_command, no_fencing) {
        (Some(path), false) => {
            format!(
                "\"{}\" is run first to fence that server; if the command fails, nothing is changed.",
                path.display()
            )
        }
        (Some(_), true) => "fencing_command is not run.".to_owned(),
        (None, _) => "No fencing_command is configured that could ensure that the server is down.".to_owned(),
    };
    format!(
        "\"mc_ctl {verb} --force\" {both}, both acknowledge commits, and the commits of one server are lost when the pair is \
         restored. {fence} {known}Continue only if server \"{other}\" is confirmed down, stays down until this change is recorded, and \
         has not served alone: see \"Before a forced command\" in mirroring-controller(7).",
        known = known(config)
    )
}

/// Asks before what may lose data.
pub(super) fn confirm(risk: &str) -> Result<(), Failure> {
    use std::io::{IsTerminal, Write};
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Usage, "confirmation is required, and standard input is not a terminal")
            .hint(format!("Use --yes to confirm. {risk}")));
    }
    let mut answer = String::new();
    let mut out = std::io::stderr();
    let asked = write!(out, "{risk}\nType \"yes\" to continue: ").and_then(|()| out.flush());
    match asked.and_then(|()| std::io::stdin().read_line(&mut answer)) {
        Ok(_) if answer.trim() == "yes" => Ok(()),
        _ => Err(Failure::new(Exit::Failed, "not confirmed; nothing was changed")),
    }
}

/// `enable-failover` and `disable-failover`.
pub(super) fn failover(common: &Common, on: bool) -> Ended {
    let config = common.client_config()?;
    request(&config, Request::Failover(on), limit(&config, None))?;
    print(&format!("automatic switch and disconnection are {}\n", if on { "enabled" } else { "disabled" }));
    Ok(0)
}

/// The configuration that the controller of this server uses; `None` if the controller is of a version that does not report
/// it.
pub(super) fn configuration(id: &str, run_dir: &Path) -> Result<Option<InEffect>, Failure> {
    match ask_at(id, run_dir, &Call::Configuration, PATIENT_LIMIT)? {
        Answer::Configuration(configuration) => Ok(Some(*configuration)),
        _ => Ok(None),
    }
}

/// Has the controller read its files again.
pub(super) fn reload(id: &str, run_dir: &Path) -> Result<Reloaded, Failure> {
    match ask_at(id, run_dir, &Call::Reload, reload::LIMIT + connection_probe::LIMIT + GRACE)? {
        Answer::Reloaded(reloaded) => Ok(reloaded),
        Answer::NotReloaded { message, hint } => Err(Failure::usage(Error { message, hint })),
        other => Err(unexpected(&other)),
    }
}

fn ask(config: &Config, what: &Call, limit: Duration) -> Result<Answer, Failure> {
    ask_at(&config.id, &config.run_dir(), what, limit)
}

fn ask_at(id: &str, run_dir: &Path, what: &Call, limit: Duration) -> Result<Answer, Failure> {
    match call(run_dir, what, limit) {
        Ok(Answer::Busy(text)) => Err(Failure::new(Exit::Refused, text)),
        Ok(answer) => Ok(answer),
        Err(CallError::NotRunning) => Err(not_running(id, run_dir)),
        Err(CallError::TimedOut) => Err(Failure::new(
            Exit::TimedOut,
            format!("the controller of server \"{id}\" does not respond"),
        )
        .hint(
            "Its log and syslog may contain the reason. To end the controller, run \"mc_ctl stop -e\"; the instance \
                       continues to run.",
        )),
        Err(CallError::Failed(error)) => Err(Failure::failed(error)),
    }
}

fn not_running(id: &str, run_dir: &Path) -> Failure {
    let text = format!("the controller of server \"{id}\" is not running");
    let start = service_form::when_stopped(run_dir.parent().unwrap_or(run_dir)).command(Verb::Start);
    // Why its watcher could not start it.
    match watcher::failure(run_dir) {
        None => Failure::new(Exit::NotRunning, text).hint(format!("Run \"{start}\" to start it.")),
        Some(why) => {
            let why = why.lines().next().unwrap_or_default().to_owned();
            Failure::new(Exit::NotRunning, format!("{text}, and its watcher could not start it: {why}")).hint(format!(
                "The watcher tries again every 10 s. After the correction, run \"{start}\" to start it at once."
            ))
        }
    }
}

fn unexpected(answer: &Answer) -> Failure {
    let what = match answer {
        Answer::Bad(text) | Answer::Busy(text) => text.clone(),
        other => format!("{other:?}"),
    };
    Failure::new(Exit::Failed, format!("the controller did not understand the command: {what}"))
        .hint("Its version may differ from that of this mc_ctl. Compare \"mc_ctl --version\" and \"mc_ctl status --format json\".")
}
