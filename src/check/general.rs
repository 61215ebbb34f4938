//! Before anything else: whether the configuration can be read at all, and which servers were looked at.

use super::{Entry, Finding, Seen};
use crate::error::Error;

const CONFIGURATION: Entry = Entry::error(
    "configuration",
    "The management directory, network.conf, ID.conf, mc.key or the data directory has an error, so that no controller starts. \
     Nothing else could be checked.",
);

const PEER_NOT_SEEN: Entry = Entry::notice(
    "peer-not-seen",
    "The other server was not checked: its controller or this server's controller is not running, does not respond, or has an \
     older version. Findings that require both servers are missing; run the check on the other server too.",
);

const CONTROLLER_DOWN: Entry = Entry::error(
    "controller-down",
    "The controller of this server has run before and is not running: its server can neither take over nor be disconnected. The \
     finding names what prevents a start, as far as that is known: a failed attempt of the watcher, a ledger that cannot be read, \
     an arbiter that is not reached.",
);

/// What there can be found here.
pub const CATALOGUE: &[Entry] = &[CONFIGURATION, CONTROLLER_DOWN, PEER_NOT_SEEN];

/// The one finding of a configuration that does not load.
pub fn unloadable(error: &Error) -> Finding {
    CONFIGURATION.found("", &error.message, &error.hint)
}

/// Whether this server's controller runs, and what was not looked at.
pub fn examine(seen: &Seen, found: &mut Vec<Finding>) {
    if let Some(why) = &seen.own.stopped {
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        let what = format!("the controller of this server is not running{why}");
        let fix = "run \"mc_ctl start -f\", which reports why a start fails";
        found.push(CONTROLLER_DOWN.found(&seen.own.id, what, fix));
    }
    if let Err(why) = &seen.peer {
        let what = format!("the other server was not checked: {why}");
        found.push(PEER_NOT_SEEN.found(&seen.own.id, what, "run \"mc_ctl check\" on the other server too"));
    }
}
