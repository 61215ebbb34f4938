//! Whether this server may take the right to run alone that it does not have. Without the consent of the other server or the
//! arbiter, two recoveries that begin while the servers are cut off from each other would make two primaries.

use super::super::archive;
use super::super::call::LOOK;
use super::super::{Exit, Failure};
use super::pair;
use crate::config::Config;
use crate::daemon::inspect;
use crate::fsm::report::Report;
use std::time::{Duration, Instant};

/// How long the arbiter may take to record the view of this server.
const RECORDED: Duration = Duration::from_secs(30);

/// What an operator risks with `--force`, for the confirmation.
pub fn risk(config: &Config) -> String {
    let peer = &config.peer().id;
    format!(
        "With --force the recovery does not require the consent of server \"{peer}\". If that server runs as the primary, or is \
         recovered too, both acknowledge commits, and the commits of one server are lost when the pair is restored. Continue only \
         if server \"{peer}\" is confirmed down and stays down until it is rebuilt."
    )
}

/// Why no other member consents; `None` if this server has the right, or one consents.
///
/// The other server consents if it responds and recovers nothing: its own recovery would be refused while this one is in progress,
/// since each records that it has begun before it asks. The arbiter consents if the other server is silent to it too, and has no
/// right that it would not have to ask for.
///
/// # Errors
/// The other server responds to this server or the arbiter, and does not consent. An operator cannot force this.
pub fn missing(config: &Config, report: &Report) -> Result<Option<String>, Failure> {
    let peer = &config.peer().id;
    if report.view.is_some_and(|view| view.is_alone(report.me)) {
        return Ok(None);
    }
    if report.peer_lives {
        return match archive::busy_peer(config) {
            Ok(None) => Ok(None),
            Ok(Some(why)) => Err(Failure::new(Exit::Refused, format!("on server \"{peer}\" {why}"))),
            Err(why) => {
                Ok(Some(format!("server \"{peer}\" does not report whether it is recovered or rebuilt: {why}")))
            }
        };
    }
    if config.network.arbiter.is_none() {
        return Ok(Some(format!("server \"{peer}\" does not respond, and may be the primary")));
    }
    let Some(arbiter) = inspect::arbiter(config) else {
        return Ok(Some(format!(
            "neither server \"{peer}\" nor the arbiter responds, and that server may be the primary"
        )));
    };
    if arbiter.other_online == Some(true) {
        let text = format!("the arbiter receives heartbeats of server \"{peer}\", and this server does not");
        return Err(Failure::new(Exit::Refused, text).hint(format!(
            "Repair the network between the servers, or run \"mc_ctl stop\" on server \"{peer}\". Then run this command again."
        )));
    }
    match arbiter.view {
        Some(view) if arbiter.other_online.is_some() && !view.is_alone(report.me.other()) => Ok(None),
        _ => Ok(Some(format!("server \"{peer}\" does not respond, and may have the right to run alone"))),
    }
}

/// Waits until the arbiter has recorded the right of this server, so that it gives none to the other server.
///
/// # Errors
/// The arbiter has recorded a later right of the other server, or neither member responds.
pub fn await_record(config: &Config, forced: bool) -> Result<(), Failure> {
    if config.network.arbiter.is_none() {
        return Ok(());
    }
    let begin = Instant::now();
    loop {
        let report = super::call::snapshot(config)?.report;
        let recorded = inspect::arbiter(config).map(|arbiter| arbiter.view);
        match (recorded, report.view) {
            (Some(Some(theirs)), Some(own)) if theirs == own => return Ok(()),
            (Some(Some(theirs)), Some(own)) if theirs.term > own.term => return Err(pair::lost_right(config)),
            (None, _) if forced || report.peer_lives => return Ok(()),
            _ if begin.elapsed() > RECORDED && forced => return Ok(()),
            _ if begin.elapsed() > RECORDED => {
                let text = "the arbiter does not confirm the right of this server to run alone";
                return Err(Failure::new(Exit::TimedOut, text).hint(
                    "Repair the connection to the arbiter. If the other server is confirmed down, add --force.",
                ));
            }
            _ => std::thread::sleep(LOOK),
        }
    }
}
