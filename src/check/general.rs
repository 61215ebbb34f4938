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

/// What there can be found here.
pub const CATALOGUE: &[Entry] = &[CONFIGURATION, PEER_NOT_SEEN];

/// The one finding of a configuration that does not load.
pub fn unloadable(error: &Error) -> Finding {
    CONFIGURATION.found("", &error.message, &error.hint)
}

/// What was not looked at.
pub fn examine(seen: &Seen, found: &mut Vec<Finding>) {
    if let Err(why) = &seen.peer {
        let what = format!("the other server was not checked: {why}");
        found.push(PEER_NOT_SEEN.found(&seen.own.id, what, "run \"mc_ctl check\" on the other server too"));
    }
}
