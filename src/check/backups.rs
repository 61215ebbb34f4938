//! Backups: whether `backup_destination` can be written, where it is, and what the controllers have found in it.

use super::{Entry, Facts as Server, Finding, Seen};
use crate::backup::{Destination, Problem};
use crate::config::Config;
use crate::pg::bounded::{self, Cancel};
use crate::pg::files;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// What there can be found here.
#[rustfmt::skip]
pub const CATALOGUE: &[Entry] = &[
    BACKUP_DESTINATION, BACKUP_SAME_DISK, BACKUP_ONE_SERVER, BACKUP_OVERDUE, BACKUP_DAMAGED, BACKUP_WAL_MISSING, BACKUP_WAL_LATE,
    BACKUP_ROOM, BACKUP_SHARED, BACKUP_ABANDONED,
];

/// How long the destination may take to be looked at.
const LIMIT: Duration = Duration::from_secs(5);

const BACKUP_DESTINATION: Entry = Entry::warning(
    "backup-destination",
    "backup_destination cannot be written by the instance administrator user, or does not respond: no backup can be made on \
     this server, and its WAL is not archived.",
);
const BACKUP_SAME_DISK: Entry = Entry::warning(
    "backup-same-disk",
    "backup_destination is on the file system of the data directory, so that both are lost with one disk.",
);
const BACKUP_ONE_SERVER: Entry = Entry::warning(
    "backup-one-server",
    "backup_destination is set on only one of the servers: no backup is made while the other server is the primary.",
);
const BACKUP_OVERDUE: Entry = Entry::warning(
    "backup-overdue",
    "Neither server has a verified backup that leads to the newest timeline, or the newest one is older than backup_max_age.",
);
const BACKUP_DAMAGED: Entry =
    Entry::warning("backup-damaged", "The description of a backup cannot be read, so that it cannot be recovered.");
const BACKUP_WAL_MISSING: Entry = Entry::warning(
    "backup-wal-missing",
    "WAL that follows the newest backup is missing from the archives, so that a recovery ends before the present.",
);
const BACKUP_WAL_LATE: Entry = Entry::warning(
    "backup-wal-late",
    "WAL segments that are complete have not been archived for 10 minutes: if both servers are lost, so are their commits.",
);
const BACKUP_ROOM: Entry = Entry::warning(
    "backup-destination-space",
    "The file system of backup_destination has too little free space for the next backup.",
);

const BACKUP_SHARED: Entry = Entry::error(
    "backup-destination-shared",
    "backup_destination is the same directory on both servers, for example of a network file system: no backup is made, because \
     each server would remove the backups of the other.",
);
const BACKUP_ABANDONED: Entry = Entry::notice(
    "backup-abandoned",
    "A backup leads only to a timeline that a recovery to an earlier state has abandoned. mc_ctl recover uses it only with \
     --timeline, or if no other backup leads to the target.",
);

/// What is read of one server.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// `backup_destination`; empty if it is not set.
    pub destination: String,
    /// Why it cannot be written, and what fixes that; `None` if it can.
    pub error: Option<(String, String)>,
    /// It is on the file system of the data directory.
    pub same_disk: bool,
    /// The same on both servers if they use the same directory; `None` if it is not used yet.
    pub identity: Option<String>,
    /// The time of that server when the facts were read, ms since 1970.
    pub now_ms: u64,
}

/// Reads it.
pub(super) fn collect(config: &Config, deadline: Instant) -> Facts {
    let now_ms = crate::rebuild::now_ms();
    let Some(path) = config.server.backup_destination.clone() else { return Facts { now_ms, ..Facts::default() } };
    let (destination, data) = (Destination::new(path.clone()), config.server.db_instance.clone());
    let limit = LIMIT.min(deadline.saturating_duration_since(Instant::now()));
    let looked = bounded::call("check backup_destination", limit, &Cancel::never(), move || {
        destination.check_exists()?;
        Ok((files::same_filesystem(destination.path(), &data), destination.identity()))
    });
    let ((same_disk, identity), error) = match looked {
        Ok(found) => (found, None),
        Err(error) => (Default::default(), Some((error.message, error.hint))),
    };
    Facts { destination: path.display().to_string(), error, same_disk, identity, now_ms }
}

/// What is wrong.
pub fn examine(seen: &Seen, found: &mut Vec<Finding>) {
    shared(seen, found);
    for (server, other) in seen.each() {
        let (id, facts) = (&server.id, &server.backups);
        if facts.destination.is_empty() {
            if let Some(other) = other.filter(|other| !other.backups.destination.is_empty()) {
                let what = format!("backup_destination is set on \"{}\" and not on \"{id}\"", other.id);
                let fix = format!("set backup_destination in {id}.conf, and run \"mc_ctl reload\" on \"{id}\"");
                found.push(BACKUP_ONE_SERVER.found(id, what, fix));
            }
            continue;
        }
        if let Some((why, fix)) = &facts.error {
            found.push(BACKUP_DESTINATION.found(id, why.clone(), fix.trim_end_matches('.')));
        }
        if facts.same_disk {
            let what = format!("\"{}\" is on the file system of the data directory", facts.destination);
            found.push(BACKUP_SAME_DISK.found(id, what, "set backup_destination to a directory on another disk"));
        }
        surveyed(seen, server, found);
    }
}

/// Whether both servers use one directory.
fn shared(seen: &Seen, found: &mut Vec<Finding>) {
    let Ok(peer) = &seen.peer else { return };
    if seen.own.backups.identity.is_some() && seen.own.backups.identity == peer.backups.identity {
        let (own, peer) = (&seen.own.backups.destination, &peer.backups.destination);
        let what = match own == peer {
            true => format!("backup_destination \"{own}\" is the same directory on both servers"),
            false => format!("backup_destination is the same directory on both servers: \"{own}\" and \"{peer}\""),
        };
        let fix = "set backup_destination to a directory of its own on each server, and run \"mc_ctl reload\" there";
        found.push(BACKUP_SHARED.found("", what, fix));
    }
}

/// Problems of the pair are found once; this server's view of them counts.
fn surveyed(seen: &Seen, server: &Server, found: &mut Vec<Finding>) {
    let survey = |of: &Server| of.pace.as_ref().and_then(|pace| pace.backups.clone());
    let Some(known) = survey(server) else { return };
    let of_pair = server.id == seen.own.id || survey(&seen.own).is_none();
    for abandoned in known.abandoned.iter().filter(|_| of_pair) {
        let (name, on) = (&abandoned.name, &abandoned.on);
        let fix = format!("run \"mc_ctl backup --delete {name}\" on \"{on}\" if its timeline is no longer of interest");
        found.push(BACKUP_ABANDONED.found("", abandoned.sentence(), fix));
    }
    for problem in known.problems(server.backups.now_ms) {
        let (entry, once) = match problem {
            // Looked at above, and by the checks of the instance.
            Problem::Unreadable(_) | Problem::ArchiverFails(_) | Problem::Shared(_) => continue,
            Problem::Silent(_) => (BACKUP_DESTINATION, false),
            Problem::Damaged(_) => (BACKUP_DAMAGED, false),
            Problem::NoRoom(..) => (BACKUP_ROOM, false),
            Problem::NoBackup | Problem::AllAbandoned(_) | Problem::Overdue(..) => (BACKUP_OVERDUE, true),
            Problem::WalMissing(..) => (BACKUP_WAL_MISSING, true),
            Problem::NotArchived(..) => (BACKUP_WAL_LATE, true),
        };
        if of_pair || !once {
            let member = if once { "" } else { &server.id };
            found.push(entry.found(member, problem.sentence(), problem.remedy()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pace;
    use super::*;
    use crate::backup::{Abandoned, Survey, sample_survey};

    #[test]
    fn problems_of_the_pair_are_found_once() {
        let survey = Survey { newest: None, damaged: vec!["/backup/a".into()], ..sample_survey() };
        let backups = Facts { destination: "/backup".into(), now_ms: survey.read_ms, ..Facts::default() };
        let pace = pace::Facts { backups: Some(survey), ..pace::Facts::default() };
        let server = |id: &str| Server {
            id: id.into(),
            backups: backups.clone(),
            pace: Some(pace.clone()),
            ..Server::default()
        };
        let mut seen =
            Seen { own: server("nd1"), peer: Ok(server("nd2")), peer_id: "nd2".into(), clock: None, arbiter: None };
        let codes = |seen: &Seen| {
            let mut found = Vec::new();
            examine(seen, &mut found);
            found.iter().map(|f| format!("{} {}", f.code, f.member)).collect::<Vec<_>>()
        };
        assert_eq!(codes(&seen), ["backup-damaged nd1", "backup-overdue ", "backup-damaged nd2"]);
        let abandoned = Abandoned { name: "a".into(), ..Abandoned::default() };
        seen.own.pace.as_mut().unwrap().backups.as_mut().unwrap().abandoned = vec![abandoned];
        seen.own.backups.identity = Some("7".into());
        seen.peer.as_mut().unwrap().backups.identity = Some("7".into());
        let expected = [
            "backup-destination-shared ",
            "backup-damaged nd1",
            "backup-abandoned ",
            "backup-overdue ",
            "backup-damaged nd2",
        ];
        let mut sorted = [codes(&seen), expected.map(String::from).to_vec()];
        sorted.iter_mut().for_each(|codes| codes.sort());
        assert_eq!(sorted[0], sorted[1]);
        seen.own.backups.identity = None;
        seen.peer.as_mut().unwrap().backups = Facts::default();
        seen.own.pace = None;
        assert_eq!(codes(&seen), ["backup-one-server nd2"]);
    }
}
