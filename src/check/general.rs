//! Before anything else: whether the configuration can be read at all, and which servers were looked at.

use super::{Entry, Finding, Seen};
use crate::error::Error;

const CONFIGURATION: Entry = Entry::error(
    "configuration",
    "The management directory, network.conf, ID.conf, mc.key or the data directory that they name is not in order, so \
     that no controller starts, and nothing else could be looked at.",
);

const PEER_NOT_SEEN: Entry = Entry::notice(
    "peer-not-seen",
    "The other server was not looked at: its controller, or this one's, does not run, does not answer, or is of an \
     older version. Findings that take both servers are missing; run the check on the other server too.",
);

/// What there can be found here.
pub const CATALOGUE: &[Entry] = &[CONFIGURATION, PEER_NOT_SEEN];

/// The one finding of a configuration that does not load.
pub fn unloadable(error: &Error) -> Finding {
    CONFIGURATION.found("", &error.message, &error.hint)
}

/// What was not looked at.
pub fn examine(seen: &Seen, found: &mut Vec<Finding>) {
    if let Err(why) = &seen.peer {
        let what = format!("the other server was not looked at: {why}");
        found.push(PEER_NOT_SEEN.found(&seen.own.id, what, "run \"mc_ctl check\" on the other server too"));
    }
}
