//! Whether this server may take the right to run alone that it does not have. Without the consent of the other server or the
//! arbiter, two recoveries that begin while the servers are cut off from each other would make two primaries.

use super::super::archive;
use super::super::call::LOOK;
use super::super::{Exit, Failure};
use super::pair;
use crate::config::Config;
use crate::daemon::inspect::{self, ArbiterTells};
use crate::fsm::report::Report;
use crate::fsm::types::View;
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
        return Err(elsewhere(config));
    }
    match arbiter.view {
        Some(view) if arbiter.other_online.is_some() && !view.is_alone(report.me.other()) => Ok(None),
        _ => Ok(Some(format!("server \"{peer}\" does not respond, and may have the right to run alone"))),
    }
}

/// What the record of the arbiter shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Record {
    /// The right of this server.
    Own,
    /// A later right of the other server.
    Lost,
    /// The right of this server; but the other server responds to the arbiter and not to this server, and may have had the right
    /// before this server took it.
    Doubted,
    /// Nothing yet.
    Awaited,
}

/// `own`: the view of this server. `hears`: the other server responds to it, and would report that it serves.
fn record(arbiter: &ArbiterTells, own: View, hears: bool) -> Record {
    match arbiter.view {
        // The arbiter replaces every earlier view, also one that gives the right to the other server.
        Some(theirs) if theirs == own && !hears && arbiter.other_online == Some(true) => Record::Doubted,
        Some(theirs) if theirs == own => Record::Own,
        Some(theirs) if theirs.term > own.term => Record::Lost,
        _ => Record::Awaited,
    }
}

/// Waits until the arbiter has recorded the right of this server, so that it gives none to the other server.
///
/// # Errors
/// The arbiter has recorded a later right of the other server, or that server may have had one, which an operator cannot force; or
/// neither member responds.
pub fn await_record(config: &Config, forced: bool) -> Result<(), Failure> {
    if config.network.arbiter.is_none() {
        return Ok(());
    }
    let begin = Instant::now();
    loop {
        let report = super::call::snapshot(config)?.report;
        let arbiter = inspect::arbiter(config);
        let known = arbiter.as_ref().zip(report.view);
        match known.map(|(arbiter, own)| record(arbiter, own, report.peer_lives)) {
            Some(Record::Own) => return Ok(()),
            Some(Record::Lost) => return Err(pair::lost_right(config)),
            Some(Record::Doubted) => return Err(elsewhere(config)),
            None if arbiter.is_none() && (forced || report.peer_lives) => return Ok(()),
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

/// The other server may serve, out of reach of this server.
fn elsewhere(config: &Config) -> Failure {
    let peer = &config.peer().id;
    let text = format!("the arbiter receives heartbeats of server \"{peer}\", and this server does not");
    Failure::new(Exit::Refused, text).hint(format!(
        "Repair the network between the servers, or run \"mc_ctl stop\" on server \"{peer}\". Then run this command again."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsm::types::{DataId, LedgerId, Mode, Server, Term};

    fn view(term: u64, primary: Server) -> View {
        let mode = Mode::Degraded;
        View { term: Term(term), primary, mode, data: [DataId(1), DataId(2)], arbiter: LedgerId(3), forced: true }
    }

    #[test]
    fn what_the_arbiter_has_recorded() {
        let own = view(1005, Server::BOTH[0]);
        let found = |view: Option<View>, other_online, hears| {
            record(&ArbiterTells { view, other_online, ..ArbiterTells::default() }, own, hears)
        };
        assert_eq!(found(Some(own), Some(false), false), Record::Own);
        assert_eq!(found(Some(own), None, false), Record::Own);
        // It may have been given the right before this server took it.
        assert_eq!(found(Some(own), Some(true), false), Record::Doubted);
        assert_eq!(found(Some(own), Some(true), true), Record::Own);
        assert_eq!(found(Some(view(1006, Server::BOTH[1])), Some(true), false), Record::Lost);
        assert_eq!(found(Some(view(4, Server::BOTH[1])), Some(true), false), Record::Awaited);
        assert_eq!(found(None, Some(false), false), Record::Awaited);
    }
}
