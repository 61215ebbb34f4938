//! What the controllers have found to fail: passwords that the other server rejects, the replication connection of a standby,
//! and a rebuild that waits for an operator.
//!
//! A changed password does not end the sessions that exist, so nothing else shows it before the next connection.

use super::instance::Trial;
use super::{Entry, Facts as Server, Finding, Seen};
use crate::fsm::report::Rebuilding;
use crate::status::{Cause, Form, Purpose};

const PASSWORD_REJECTED: Entry = Entry::error(
    "password-rejected",
    "The other server's instance rejects the password of this server's controller. Existing connections continue to work, but \
     \"mc_ctl rebuild\" on this server fails, and the next connection of its WAL receiver may fail.",
);
const REPLICATION_FAILS: Entry = Entry::error(
    "replication-fails",
    "The standby's controller cannot open a replication connection with primary_conninfo. A connected WAL receiver continues \
     to stream until its connection ends.",
);
const WAL_REMOVED: Entry = Entry::error(
    "wal-removed",
    "The primary no longer has the WAL that the standby requires next, and no restore_command can fetch it. The pair is not \
     mirrored until the standby is rebuilt.",
);
const REBUILD_FAILED: Entry = Entry::error(
    "rebuild-failed",
    "The last rebuild of this server failed, or left an incomplete data directory. The pair is not mirrored until a rebuild \
     succeeds.",
);

/// The findings of this module.
pub const CATALOGUE: &[Entry] = &[PASSWORD_REJECTED, REPLICATION_FAILS, WAL_REMOVED, REBUILD_FAILED];

/// What fails on both servers.
pub fn examine(seen: &Seen, found: &mut Vec<Finding>) {
    for (server, other) in seen.each() {
        let other = other.map_or(seen.peer_id.as_str(), |other| other.id.as_str());
        passwords(server, other, found);
        rebuild(server, found);
    }
}

fn passwords(server: &Server, other: &str, found: &mut Vec<Finding>) {
    let (id, instance) = (&server.id, &server.instance);
    let failing = |purpose| {
        let mut all = server.pace.iter().flat_map(|pace| &pace.failing);
        all.find(|failure| failure.purpose == purpose)
    };
    let file = format!("{}/{id}.conf", server.host.directory);
    // The result of this check is newer than that of the controller.
    let rejected = match &instance.rebuild_session {
        Some(Trial::PasswordRejected(why)) => Some(why.clone()),
        Some(Trial::Opened | Trial::Refused(_)) => None,
        None => failing(Purpose::OtherInstance).map(|failure| failure.error.clone()),
    };
    if let Some(why) = rejected {
        let what = format!("the instance of \"{other}\" rejects the password of db_instance_username: {why}");
        let fix = format!(
            "set db_instance_password in \"{file}\" and in {other}.conf of \"{other}\" to the password of that user, then run \
             \"mc_ctl reload\" on both servers"
        );
        found.push(PASSWORD_REJECTED.found(id, what, fix));
    }
    match failing(Purpose::Replication) {
        Some(failure) if failure.cause == Cause::MissingWal => {
            found.push(WAL_REMOVED.found(id, failure.error.clone(), format!("run \"mc_ctl rebuild\" on \"{id}\"")));
        }
        Some(failure) => {
            let what = format!("this standby cannot open a replication connection to \"{other}\": {}", failure.error);
            let fix = failure.hint_on(&Form::Direct, &format!("on \"{id}\""));
            found.push(REPLICATION_FAILS.found(id, what, fix));
        }
        None => (),
    }
}

fn rebuild(server: &Server, found: &mut Vec<Finding>) {
    let stands = server.pace.as_ref().and_then(|pace| pace.rebuilding.as_ref());
    let (what, hint) = match stands {
        Some(Rebuilding::Failed(why)) => {
            let (what, hint) = why.split_once("\nHINT:").unwrap_or((why.as_str(), ""));
            (format!("the last rebuild failed: {what}"), hint.trim().trim_end_matches('.'))
        }
        Some(Rebuilding::Waiting(_) | Rebuilding::Copying | Rebuilding::Starting) => return,
        Some(Rebuilding::Idle) | None if server.instance.files.incomplete => {
            ("the data directory is incomplete: a rebuild was interrupted".to_owned(), "")
        }
        Some(Rebuilding::Idle) | None => return,
    };
    let again = format!("repair the cause, then run \"mc_ctl rebuild\" on \"{}\"", server.id);
    let fix = if hint.is_empty() { again } else { format!("{hint}; {again}") };
    found.push(REBUILD_FAILED.found(&server.id, what, fix));
}

#[cfg(test)]
mod tests {
    use super::super::pace;
    use super::*;
    use crate::status::ConnectionFailure;

    fn check(own: impl FnOnce(&mut Server), peer: impl FnOnce(&mut Server), expected: &[(&str, &str, &str)]) {
        let server = |id: &str| Server { id: id.into(), pace: Some(pace::Facts::default()), ..Server::default() };
        let (mut nd1, mut nd2) = (server("nd1"), server("nd2"));
        own(&mut nd1);
        peer(&mut nd2);
        let seen = Seen { own: nd1, peer: Ok(nd2), peer_id: "nd2".into(), clock: None, arbiter: None };
        let mut found = Vec::new();
        examine(&seen, &mut found);
        let short: Vec<_> = found.iter().map(|f| (f.code, f.member.as_str())).collect();
        assert_eq!(short, expected.iter().map(|(code, id, _)| (*code, *id)).collect::<Vec<_>>());
        for (finding, (.., part)) in found.iter().zip(expected) {
            assert!(format!("{} {}", finding.what, finding.fix).contains(part), "{finding:?}");
        }
    }

    fn fails(purpose: Purpose) -> impl Fn(&mut Server) {
        move |server| {
            let failing = vec![ConnectionFailure::new(purpose, "wrong".into())];
            server.pace = Some(pace::Facts { failing, ..pace::Facts::default() });
        }
    }

    fn stands(rebuilding: Rebuilding) -> impl Fn(&mut Server) {
        move |server| server.pace = Some(pace::Facts { rebuilding: Some(rebuilding.clone()), ..pace::Facts::default() })
    }

    #[test]
    fn passwords_of_both_servers() {
        check(|_| (), |_| (), &[]);
        check(
            |own| own.instance.rebuild_session = Some(Trial::PasswordRejected("no".into())),
            fails(Purpose::OtherInstance),
            &[("password-rejected", "nd1", "instance of \"nd2\""), ("password-rejected", "nd2", "instance of \"nd1\"")],
        );
        check(|_| (), fails(Purpose::Replication), &[("replication-fails", "nd2", "wrong")]);
        let lacks = |server: &mut Server| {
            let failing = vec![ConnectionFailure::missing_wal("000000010000000000000003")];
            server.pace = Some(pace::Facts { failing, ..pace::Facts::default() });
        };
        check(|_| (), lacks, &[("wal-removed", "nd2", "000000010000000000000003")]);
        // The controller has found it before it was corrected.
        let corrected = |own: &mut Server| {
            fails(Purpose::OtherInstance)(own);
            own.instance.rebuild_session = Some(Trial::Opened);
        };
        check(corrected, |_| (), &[]);
    }

    #[test]
    fn rebuilds_that_wait_for_an_operator() {
        let failed = Rebuilding::Failed("no room\nHINT: Make some.".into());
        check(stands(failed), |_| (), &[("rebuild-failed", "nd1", "no room Make some; repair the cause")]);
        let incomplete = |server: &mut Server| server.instance.files.incomplete = true;
        check(|_| (), incomplete, &[("rebuild-failed", "nd2", "incomplete")]);
        let copying = |server: &mut Server| {
            stands(Rebuilding::Copying)(server);
            server.instance.files.incomplete = true;
        };
        check(copying, |_| (), &[]);
    }
}
