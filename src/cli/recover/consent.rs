//! Whether this server may take the right to run alone that it does not have. Without the consent of the other server or the
//! arbiter, two recoveries that begin while the servers are cut off from each other would make two primaries.

use super::super::archive;
use super::super::call::LOOK;
use super::super::{Exit, Failure};
use super::pair;
use crate::backup::Reported;
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
         recovered too, both acknowledge commits, and the commits of one server are lost when the pair is restored. {}Continue only \
         if server \"{peer}\" is confirmed down and stays down until it is rebuilt.",
        super::super::call::known(config)
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
    // This server may know of a right that the other server has received from it, and the arbiter not.
    let newest = arbiter.view.map(|view| report.view.filter(|own| own.term > view.term).unwrap_or(view));
    // An arbiter that was replaced does not know which right its predecessor has given.
    if let (Some(view), Some(ledger)) = (newest, arbiter.ledger)
        && view.arbiter != Some(ledger)
    {
        return Ok(Some(format!(
            "server \"{peer}\" does not respond, and the arbiter is not the one that consented to the present view: its predecessor may \
             have given server \"{peer}\" the right to run alone"
        )));
    }
    match newest {
        Some(view) if arbiter.other_online.is_some() && !view.is_alone(report.me.other()) => Ok(None),
        _ => Ok(Some(format!("server \"{peer}\" does not respond, and may have the right to run alone"))),
    }
}

/// What another member has recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Record {
    /// The right of this server.
    Own,
    /// A right of the other server.
    Lost,
    /// The right of this server; but the other server responds to the arbiter, and may have had a right before this one.
    Doubted,
    /// The right of this server, which replaces a right that the other server keeps.
    Replaced,
    /// Nothing yet.
    Awaited,
}

/// The record of the arbiter, which replaces every earlier view, also one that gives the right to the other server. `replaces`: this
/// server itself knows that its view `own` does that.
fn of_arbiter(arbiter: &ArbiterTells, own: View, replaces: bool) -> Record {
    match arbiter.view {
        Some(theirs) if theirs == own && (replaces || arbiter.replaces_right) => Record::Replaced,
        Some(theirs) if theirs == own && arbiter.other_online == Some(true) => Record::Doubted,
        Some(theirs) if theirs == own => Record::Own,
        Some(theirs) if theirs.term > own.term => Record::Lost,
        _ => Record::Awaited,
    }
}

/// The record of the other server, which keeps a right of its own in spite of a later one of this server. With the view of this
/// server it has none and gets none. `None`: its version does not report it.
fn of_peer(reported: Reported, own: View) -> Option<Record> {
    match reported {
        Reported::No => None,
        Reported::Nothing => Some(Record::Own),
        Reported::View(theirs) if theirs == own => Some(Record::Own),
        Reported::View(theirs) if theirs.is_alone(own.primary.other()) => Some(Record::Lost),
        Reported::View(_) => Some(Record::Awaited),
    }
}

/// What the other server has recorded, or, if it does not report that, the arbiter; `None` if neither responds.
fn record(config: &Config, report: &Report, own: View) -> Option<Record> {
    let reported = if report.peer_lives { archive::view_of_peer(config).ok() } else { None };
    if let Some(record) = reported.and_then(|theirs| of_peer(theirs, own)) {
        return Some(record);
    }
    let arbiter = config.network.arbiter.as_ref().and_then(|_| inspect::arbiter(config));
    match arbiter.map(|arbiter| of_arbiter(&arbiter, own, report.replaces_right)) {
        // The other server responds, and has an older version.
        None | Some(Record::Doubted) if reported.is_some() => Some(Record::Own),
        record => record,
    }
}

/// Waits until the other server or the arbiter has recorded the right of this server, so that the other server has none and gets
/// none.
///
/// # Errors
/// The other server has or may have a right, which an operator cannot force; or no member has recorded this server's in time.
pub fn await_record(config: &Config, forced: bool) -> Result<(), Failure> {
    let begin = Instant::now();
    loop {
        let report = super::call::snapshot(config)?.report;
        let Some(own) = report.view else { return Err(pair::lost_right(config)) };
        let late = begin.elapsed() > RECORDED;
        match record(config, &report, own) {
            Some(Record::Own) => return Ok(()),
            // The operator has confirmed that the other server is down.
            Some(Record::Replaced) | None if forced => return Ok(()),
            Some(Record::Awaited) if forced && late => return Ok(()),
            Some(Record::Lost | Record::Replaced) => return Err(pair::lost_right(config)),
            Some(Record::Doubted) => return Err(elsewhere(config)),
            Some(Record::Awaited) | None if late => return Err(unconfirmed(config)),
            Some(Record::Awaited) | None => std::thread::sleep(LOOK),
        }
    }
}

fn unconfirmed(config: &Config) -> Failure {
    let peer = &config.peer().id;
    let text = format!("neither server \"{peer}\" nor an arbiter confirms the right of this server to run alone");
    Failure::new(Exit::TimedOut, text).hint(format!(
        "See \"mc_ctl status\" on server \"{peer}\", and repair the network. Then run this command again. If that server is \
         confirmed down and stays down until it is rebuilt, add --force."
    ))
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
        View {
            term: Term(term),
            primary,
            mode,
            data: [Some(DataId(1)), Some(DataId(2))],
            arbiter: Some(LedgerId(3)),
            forced: true,
        }
    }

    #[test]
    fn what_other_members_have_recorded() {
        let own = view(1005, Server::BOTH[0]);
        let (earlier, later) = (view(4, Server::BOTH[1]), view(1006, Server::BOTH[1]));
        let arbiter = |view: Option<View>, other_online| {
            of_arbiter(&ArbiterTells { view, other_online, ..ArbiterTells::default() }, own, false)
        };
        assert_eq!(arbiter(Some(own), Some(false)), Record::Own);
        assert_eq!(arbiter(Some(own), None), Record::Own);
        // The other server may have been given the right before this server took it.
        assert_eq!(arbiter(Some(own), Some(true)), Record::Doubted);
        let replaces = ArbiterTells { view: Some(own), replaces_right: true, ..ArbiterTells::default() };
        assert_eq!(of_arbiter(&replaces, own, false), Record::Replaced);
        assert_eq!(of_arbiter(&ArbiterTells { replaces_right: false, ..replaces }, own, true), Record::Replaced);
        assert_eq!(arbiter(Some(later), Some(true)), Record::Lost);
        assert_eq!(arbiter(Some(earlier), Some(true)), Record::Awaited);
        assert_eq!(arbiter(None, Some(false)), Record::Awaited);
        assert_eq!(of_peer(Reported::View(own), own), Some(Record::Own));
        // It keeps its right in spite of the later one.
        assert_eq!(of_peer(Reported::View(earlier), own), Some(Record::Lost));
        assert_eq!(of_peer(Reported::View(View { mode: Mode::Mirrored, ..earlier }), own), Some(Record::Awaited));
        assert_eq!((of_peer(Reported::Nothing, own), of_peer(Reported::No, own)), (Some(Record::Own), None));
    }
}
