//! What a recovery requires of the pair: this server is taken down and serves again by requests that an operator could make.

use super::super::archive;
use super::super::call::{self, LOOK};
use super::super::{Exit, Failure, say, stop};
use super::consent;
use super::work::Work;
use crate::config::Config;
use crate::daemon::archive_link;
use crate::daemon::watcher;
use crate::error::Error;
use crate::fsm::event::{Request, StartedBy, Transient};
use crate::fsm::report::{HostRole, Rebuilding, Report};
use crate::pg::bounded::Cancel;
use crate::pg::{Place, process};
use crate::recover::Journal;
use crate::status::Snapshot;
use crate::wire::Archived;
use std::time::{Duration, Instant};

/// How long the controller may take to start.
const START: Duration = Duration::from_secs(60);
/// How long the pair may take to change, and this server to serve.
const CHANGE: Duration = Duration::from_secs(120);
/// For how long a request is repeated that is refused, because another change is in progress or the other server cannot consent yet.
const REFUSED: Duration = Duration::from_secs(20);
/// What is waited for beyond two detection times, until the other server has sent its state.
const INTRODUCTION: Duration = Duration::from_secs(5);
/// How often the other server is asked how its rebuild goes.
const ASK: Duration = Duration::from_secs(1);
/// How long it may not respond.
const SILENCE: Duration = Duration::from_secs(60);

/// What this server is before the recovery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// The view names it as the primary.
    Primary,
    /// It is the standby of a mirrored pair.
    Standby,
    /// Neither server is known to serve. A standby whose controller does not run is not promoted.
    Down,
}

/// What this server is, or why a recovery cannot begin on it.
pub fn standing(config: &Config, report: &Report) -> Result<Standing, Failure> {
    let (me, peer) = (report.me, report.me.other());
    match &report.rebuilding {
        Rebuilding::Idle | Rebuilding::Failed(_) => {}
        Rebuilding::Waiting(why) => {
            return Err(Failure::new(Exit::Refused, format!("a rebuild of this server waits: {why}"))
                .hint("The controller ends it after startup_wait. Then run this command again."));
        }
        Rebuilding::Copying | Rebuilding::Starting => {
            return Err(Failure::new(Exit::Refused, "a rebuild of this server is in progress")
                .hint("\"mc_ctl rebuild\" follows it."));
        }
    }
    match report.view {
        Some(view) if view.primary == me => {
            return Ok(if report.peer_lives || runs(config)? { Standing::Primary } else { Standing::Down });
        }
        Some(view)
            if view.is_mirrored(peer) && report.peer_lives && report.servers[me.index()].role == HostRole::Standby =>
        {
            return Ok(Standing::Standby);
        }
        _ => {}
    }
    let alone = report.view.is_some_and(|view| view.is_alone(peer));
    if report.peer_lives && (alone || report.servers[peer.index()].role == HostRole::Primary) {
        let id = &config.peer().id;
        let text = format!("server \"{id}\" is the primary, and this server is not its standby");
        return Err(Failure::new(Exit::Refused, text).hint(format!(
            "Run \"mc_ctl recover\" on server \"{id}\" if it has a backup; otherwise run \"mc_ctl rebuild\" on this server first."
        )));
    }
    Ok(Standing::Down)
}

/// The state of the pair, once the other server has sent its own or had the time to.
pub fn look(config: &Config) -> Result<Box<Snapshot>, Failure> {
    let introduction = Duration::from_millis(config.settings(0).heartbeat_detection_ms) * 2 + INTRODUCTION;
    let mut said = false;
    loop {
        let snapshot = call::snapshot(config)?;
        let age = Duration::from_millis(snapshot.now.since(snapshot.started));
        if snapshot.report.peer_lives || age >= introduction {
            return Ok(snapshot);
        }
        if !said {
            said = true;
            say(&format!("mc_ctl: waiting for the controller of server \"{}\"\n", config.peer().id));
        }
        std::thread::sleep(LOOK);
    }
}

/// Starts the controller alone if none runs: `start --mc-only`.
pub fn start_controller(config: &Config) -> Result<(), Failure> {
    if call::is_running_or_gone(config, Instant::now(), START)? {
        return Ok(());
    }
    let by = StartedBy::Operator { instance: false, failover: None };
    watcher::start_detached(config, by, START).map_err(Failure::failed)
}

/// Ends the controller alone if one runs: `stop --mc-only`.
pub fn stop_controller(config: &Config) -> Result<(), Failure> {
    if call::is_running_or_gone(config, Instant::now(), START)? {
        call::request(config, Request::Stop { instance: false, all: false }, CHANGE)?;
        stop::wait_until_gone(config);
    }
    Ok(())
}

/// Takes this server down as the only server of the pair that may serve: `switch` if it is the standby, `detach`, `stop`. Can be
/// done again. A server that was the primary or a standby when the recovery began needs the durable right to run alone, which only
/// a member that responds can give. Any other server needs a consent, or that the operator forces it.
pub fn take_down(config: &Config, journal: &Journal) -> Result<(), Failure> {
    start_controller(config)?;
    let begin = Instant::now();
    while call::is_running_or_gone(config, Instant::now(), START)? {
        // A controller that was started again may not be connected yet.
        let report = look(config)?.report;
        let standing = standing(config, &report)?;
        if standing == Standing::Standby && (journal.primary || !journal.served) {
            return Err(Failure::new(
                Exit::Refused,
                format!("server \"{}\" has become the standby since the recovery began", config.id),
            ));
        }
        if !journal.served {
            has_consent(config, &report, journal.forced)?;
        }
        let request = match standing {
            Standing::Standby => Request::Switch,
            Standing::Primary if report.view.is_some_and(|view| view.is_mirrored(report.me)) => Request::Detach,
            Standing::Down if journal.served => return Err(lost_right(config)),
            Standing::Primary | Standing::Down => Request::Stop { instance: true, all: false },
        };
        let stops = matches!(request, Request::Stop { .. });
        match call::request(config, request, call::limit(config, None).min(CHANGE)) {
            Ok(()) if stops => {
                stop::wait_until_gone(config);
                break;
            }
            Err(failure) if failure.exit != Exit::Refused || begin.elapsed() > REFUSED => return Err(failure),
            _ => std::thread::sleep(LOOK),
        }
    }
    if !runs(config)? {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, "the instance runs, and the controller does not")
        .hint("Start the controller with \"mc_ctl start\", or stop the instance with \"pg_ctl stop\". Then run this command again."))
}

/// Whether a member consents, or the operator forces the recovery.
///
/// # Errors
/// Neither.
pub fn has_consent(config: &Config, report: &Report, forced: bool) -> Result<(), Failure> {
    match consent::missing(config, report)?.filter(|_| !forced) {
        None => Ok(()),
        Some(why) => Err(Failure::new(Exit::Refused, why).hint(format!(
            "If server \"{}\" is confirmed down and stays down until it is rebuilt, add --force.",
            config.peer().id
        ))),
    }
}

/// Another server may have the right to run alone.
pub fn lost_right(config: &Config) -> Failure {
    let peer = &config.peer().id;
    let text = format!("server \"{}\" no longer has its role, and server \"{peer}\" may be the primary", config.id);
    Failure::new(Exit::Refused, text).hint(format!(
        "See \"mc_ctl status\" on server \"{peer}\". If it is the primary, run \"mc_ctl recover --abandon\", then \"mc_ctl rebuild\" here."
    ))
}

/// Whether the instance of this server runs.
pub fn runs(config: &Config) -> Result<bool, Failure> {
    process::scan(&Place::new(config).data).map(|found| !found.is_empty()).map_err(Failure::failed)
}

/// This server serves with its present data directory, and alone: `start --adopt-data`. Can be done again. The right of a server
/// that served is durable here, and no other member can have ended it.
pub fn adopt(config: &Config, journal: &Journal) -> Result<(), Failure> {
    start_controller(config)?;
    let report = look(config)?.report;
    if journal.served && !report.view.is_some_and(|view| view.is_alone(report.me)) {
        return Err(lost_right(config));
    }
    if !journal.served {
        has_consent(config, &report, journal.forced)?;
    }
    let begin = Instant::now();
    let mut adopted = false;
    loop {
        let report = call::snapshot(config)?.report;
        let alone = report.view.is_some_and(|view| view.is_alone(report.me));
        if alone && report.servers[report.me.index()].role == HostRole::Primary {
            return Ok(());
        }
        if adopted && !journal.served {
            consent::await_record(config, journal.forced)?;
            if journal.forced {
                call::warn_of_unrecorded(config);
            }
        }
        let request = if adopted { Request::Start { failover: None } } else { Request::AdoptData };
        match call::request(config, request, CHANGE) {
            Ok(()) => adopted = true,
            // It was adopted before this command was interrupted.
            Err(failure)
                if failure.exit == Exit::Refused && alone && failure.transient != Some(Transient::UnderWay) =>
            {
                adopted = true
            }
            Err(failure) if failure.transient != Some(Transient::UnderWay) || begin.elapsed() > CHANGE => {
                return Err(failure);
            }
            Err(_) => {}
        }
        let wait = Instant::now();
        while wait.elapsed() < ASK && !serves(config)? {
            std::thread::sleep(LOOK);
        }
        if begin.elapsed() > CHANGE {
            let text = format!("server \"{}\" does not serve with the recovered data", config.id);
            return Err(
                Failure::new(Exit::TimedOut, text).hint("\"mc_ctl status\" and PostgreSQL's log contain the reason.")
            );
        }
    }
}

/// Whether this server is still the primary of the view, after an interruption.
pub fn keeps_role(config: &Config) -> Result<(), Failure> {
    start_controller(config)?;
    let report = look(config)?.report;
    match report.view.is_some_and(|view| view.primary != report.me) {
        true => Err(lost_right(config)),
        false => Ok(()),
    }
}

/// This server serves after an interruption: `start`, if its controller or its instance does not run.
pub fn serve(config: &Config) -> Result<(), Failure> {
    let begin = Instant::now();
    if !call::is_running_or_gone(config, begin, START)? {
        let by = StartedBy::Operator { instance: true, failover: None };
        watcher::start_detached(config, by, START).map_err(Failure::failed)?;
    } else if !serves(config)? {
        call::request(config, Request::Start { failover: None }, CHANGE)?;
    }
    while !serves(config)? {
        if begin.elapsed() > CHANGE {
            return Err(Failure::new(Exit::TimedOut, format!("server \"{}\" is not the primary", config.id))
                .hint("\"mc_ctl status\" and PostgreSQL's log contain the reason."));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

fn serves(config: &Config) -> Result<bool, Failure> {
    let report = call::snapshot(config)?.report;
    Ok(report.servers[report.me.index()].role == HostRole::Primary)
}

/// Automatic switch and disconnection, as they were.
pub fn failover(config: &Config, on: bool) -> Result<(), Failure> {
    if on { call::request(config, Request::Failover(true), CHANGE) } else { Ok(()) }
}

/// Has the other server rebuilt, and waits until the pair is mirrored. False if its controller does not respond.
pub fn rebuild_peer(work: &Work) -> Result<bool, Failure> {
    let (config, cancel) = (work.config, &work.interruption.cancel);
    let id = &config.peer().id;
    if is_mirrored(config)? {
        return Ok(true);
    }
    work.step(&format!("ordering the rebuild of server \"{id}\""));
    if !look(config)?.report.peer_lives {
        return Ok(false);
    }
    // What the other server would have after a switch is not what this server has now: it does not just follow.
    for copy in [false, true] {
        let ended = order(config, copy, cancel).and_then(|()| {
            work.step(&format!("rebuilding server \"{id}\""));
            follow(config, cancel)
        });
        match ended.map_err(|failure| serves_alone(id, &failure, cancel))? {
            Ok(()) => break,
            Err(why) if copy => return Err(serves_alone(id, &failed(id, &why), cancel)),
            Err(why) => {
                work.end_display();
                say(&format!(
                    "mc_ctl: WARNING: could not rewind server \"{id}\", which is rebuilt by a full copy: {why}\n"
                ));
            }
        }
    }
    Ok(true)
}

fn serves_alone(id: &str, failure: &Failure, cancel: &Cancel) -> Failure {
    let text = format!("this server serves with the recovered data; {}", failure.error.message);
    Failure::new(Exit::Failed, text).hint(match cancel.is_set() {
        true => "The rebuild of the other server continues. Run \"mc_ctl recover\" to follow it.".to_owned(),
        false => format!("Run \"mc_ctl rebuild\" on server \"{id}\", then \"mc_ctl recover\" on this server."),
    })
}

/// Has the other server become the standby again after a recovery that was undone, without a copy of the data directory.
pub fn attach_peer(work: &Work) -> Result<(), Failure> {
    let (config, cancel) = (work.config, &work.interruption.cancel);
    let id = &config.peer().id;
    let begin = Instant::now();
    work.step(&format!("attaching server \"{id}\""));
    let lives = look(config)?.report.peer_lives;
    loop {
        let report = call::snapshot(config)?.report;
        if report.view.is_some_and(|view| view.primary != report.me) {
            return Err(Failure::new(Exit::Failed, format!("server \"{id}\" has become the primary"))
                .hint("Run \"mc_ctl rebuild\" on this server."));
        }
        if report.servers[report.me.index()].role == HostRole::Primary {
            break;
        }
        if begin.elapsed() > CHANGE {
            return Err(Failure::new(Exit::TimedOut, format!("server \"{}\" is not the primary", config.id))
                .hint("\"mc_ctl status\" and PostgreSQL's log contain the reason."));
        }
        cancel.sleep(LOOK).map_err(Failure::failed)?;
    }
    if is_mirrored(config)? {
        return Ok(());
    }
    if !lives {
        return Err(Failure::new(Exit::Failed, format!("the controller of server \"{id}\" does not respond"))
            .hint(format!("Run \"mc_ctl start\" on server \"{id}\".")));
    }
    let ended = order(config, false, cancel).and_then(|()| follow(config, cancel));
    let attached = ended.and_then(|followed| followed.map_err(|why| failed(id, &why)));
    attached.map_err(|failure| failure.hint(format!("Run \"mc_ctl rebuild\" on server \"{id}\".")))
}

/// Has the other server rebuilt by `pg_rewind` or a full copy.
fn order(config: &Config, copy: bool, cancel: &Cancel) -> Result<(), Failure> {
    let begin = Instant::now();
    while let Err(why) = archive::part(config, &Archived::Rebuild { copy }, 0) {
        if is_mirrored(config)? {
            break;
        }
        if begin.elapsed() > SILENCE {
            let why = why.as_deref().unwrap_or("the controller of this server is not running");
            return Err(failed(&config.peer().id, why));
        }
        pause(cancel)?;
    }
    Ok(())
}

/// Waits until the pair is mirrored; the inner error is why the rebuild has failed.
fn follow(config: &Config, cancel: &Cancel) -> Result<Result<(), String>, Failure> {
    let mut heard = Instant::now();
    while !is_mirrored(config)? {
        match rebuilding(config) {
            Ok(Rebuilding::Failed(why)) => return Ok(Err(why)),
            Ok(_) => heard = Instant::now(),
            Err(why) if heard.elapsed() > SILENCE => return Err(failed(&config.peer().id, &why)),
            Err(_) => {}
        }
        pause(cancel)?;
    }
    Ok(Ok(()))
}

fn pause(cancel: &Cancel) -> Result<(), Failure> {
    cancel.sleep(ASK).map_err(|_| Failure::new(Exit::Failed, "the command was cancelled by a signal"))
}

fn failed(id: &str, why: &str) -> Failure {
    Failure::new(Exit::Failed, format!("server \"{id}\" is not rebuilt: {why}"))
}

fn is_mirrored(config: &Config) -> Result<bool, Failure> {
    let report = call::snapshot(config)?.report;
    Ok(report.view.is_some_and(|view| view.is_mirrored(report.me)))
}

fn rebuilding(config: &Config) -> Result<Rebuilding, String> {
    let part = archive::part(config, &Archived::Rebuilding, 0).map_err(Option::unwrap_or_default)?;
    let text = archive_link::decode(&part).map_err(|error| error.to_string())?;
    let state: Option<Rebuilding> =
        serde_json::from_slice(&text).map_err(|cause| Error::new(cause.to_string()).message)?;
    Ok(state.unwrap_or_default())
}
