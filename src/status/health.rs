//! What the health endpoint says of this server: whether writes belong here, whether reads may be sent here, whether all is
//! well. Made from the snapshot alone.
//!
//! What a load balancer needs is that never two servers say that they are the primary, but for a moment. The view and
//! consent keep two from *acknowledging* commits; but a primary that was cut off does not know that its standby was
//! promoted. It keeps to its view, acknowledges nothing, and would let clients wait for ever. So a mirrored primary says that
//! it is one only while the other server shows a sign of life: heartbeats both ways within the detection time, else its
//! instance's answers, or WAL going to it. The other can be promoted at the earliest when that time is over.

use super::Snapshot;
use crate::fsm::report::{HostRole, ServerReport};
use crate::fsm::types::{Mode, View};

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Question {
    /// Whether this server is the primary that may acknowledge commits.
    Primary,
    /// Whether it is a well standby, which streams from the primary.
    Standby,
    /// Whether the controller decides, and the instance is in its role and well.
    Healthy,
}

/// `Ok`: yes. Either way a line of text for people, without a line end.
///
/// # Errors
/// No, and why not.
pub fn answer(snapshot: &Snapshot, question: Question) -> Result<String, String> {
    let report = &snapshot.report;
    let id = &snapshot.servers[report.me.index()].id;
    if let Some(ms) = snapshot.stuck_ms() {
        return Err(format!("the decision thread of {id}'s controller has not responded for {} s", ms / 1000));
    }
    let own = &report.servers[report.me.index()];
    let no = |why: String| format!("{id} {why}");
    let view = report.view.as_ref().ok_or_else(|| no("has no view yet".into()))?;
    let leads = view.primary == report.me;
    if let (Question::Healthy, Some(why)) = (question, &snapshot.ledger_error) {
        return Err(no(format!("has a ledger that cannot be written: {why}")));
    }
    match question {
        Question::Primary if leads => {
            is_primary(own, view, report.peer_lives).and_then(|()| takes_writes(snapshot)).map_err(no)?;
            Ok(format!("{id} is the primary"))
        }
        Question::Standby if !leads => {
            is_standby(own, report.peer_lives).map_err(no)?;
            Ok(format!("{id} is a standby"))
        }
        Question::Primary => Err(no("is not the primary".into())),
        Question::Standby => Err(no("is not a standby".into())),
        Question::Healthy if leads => {
            is_primary(own, view, report.peer_lives)
                .and_then(|()| has_disks(own))
                .and_then(|()| has_space(own))
                .map_err(no)?;
            Ok(format!("{id} is healthy and the primary"))
        }
        Question::Healthy => {
            is_standby(own, report.peer_lives).and_then(|()| has_space(own)).map_err(no)?;
            Ok(format!("{id} is healthy and a standby"))
        }
    }
}

/// The view names it. A failed disk does not matter: as long as it serves, there is nowhere else to go.
fn is_primary(own: &ServerReport, view: &View, peer_lives: bool) -> Result<(), String> {
    runs(own, HostRole::Primary)?;
    match view.mode {
        Mode::Degraded => Ok(()),
        Mode::Mirrored if peer_lives => Ok(()),
        Mode::Mirrored => {
            Err("is the primary by its view, but receives no heartbeats from its standby, which may have been promoted"
                .into())
        }
    }
}

/// Another server is the primary by the view.
fn is_standby(own: &ServerReport, peer_lives: bool) -> Result<(), String> {
    runs(own, HostRole::Standby)?;
    has_disks(own)?;
    let streams = own.processes.as_ref().is_some_and(|failed| !failed.iter().any(|what| what == "wal_receiver"));
    match (streams, peer_lives) {
        (true, true) => Ok(()),
        (true, false) => Err("is a standby that receives no heartbeats from its primary".into()),
        (false, _) => Err("is a standby that does not stream".into()),
    }
}

/// The instance answers, in this role.
fn runs(own: &ServerReport, role: HostRole) -> Result<(), String> {
    let answers = own.postmaster_runs() == Some(true);
    match own.role == role {
        true if answers => Ok(()),
        true => Err("has an instance that does not respond".into()),
        false => Err(format!(
            "should run as the {}, but does not",
            if role == HostRole::Primary { "primary" } else { "standby" }
        )),
    }
}

fn has_disks(own: &ServerReport) -> Result<(), String> {
    match own.disk.as_deref() {
        Some("") => Ok(()),
        Some(what) => Err(format!("has a failed disk: {what}")),
        None => Err("has not checked its disks yet".into()),
    }
}

/// Nothing on the own server is full.
fn has_space(own: &ServerReport) -> Result<(), String> {
    if own.full.is_empty() { Ok(()) } else { Err(format!("has a full disk: {}", own.full)) }
}

/// Writes do not fail for lack of space.
fn takes_writes(snapshot: &Snapshot) -> Result<(), String> {
    let lsn = snapshot.report.servers[snapshot.report.me.index()].lsn;
    match snapshot.space.iter().find(|space| space.prevents_writes(lsn)) {
        Some(space) => Err(format!("is the primary, but writes fail for lack of space: {}", space.sentence())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsm::types::{Server, Time};
    use crate::status::tests::snapshot;

    /// Which of `/primary`, `/standby`, `/healthy` say yes, as their first letters.
    fn check(change: impl FnOnce(&mut Snapshot), expected: &str) {
        let mut s = snapshot();
        change(&mut s);
        let questions = [(Question::Primary, 'p'), (Question::Standby, 's'), (Question::Healthy, 'h')];
        let yes: String = questions.iter().filter(|(q, _)| answer(&s, *q).is_ok()).map(|(_, letter)| *letter).collect();
        let words: Vec<_> = questions.iter().map(|(q, _)| answer(&s, *q)).collect();
        assert_eq!(yes, expected, "{words:?}");
    }

    fn standby(s: &mut Snapshot) {
        s.report.me = Server::Second;
    }

    fn alone(s: &mut Snapshot) {
        s.report.view.as_mut().unwrap().mode = Mode::Degraded;
    }

    fn failed(s: &mut Snapshot, what: &[&str]) {
        let me = s.report.me.index();
        s.report.servers[me].processes = Some(what.iter().map(|w| (*w).to_owned()).collect());
    }

    #[test]
    fn a_well_pair() {
        check(|_| (), "ph");
        check(standby, "sh");
        check(alone, "ph");
    }

    #[test]
    fn a_primary_that_hears_nothing_serves_only_where_nobody_else_can() {
        check(|s| s.report.peer_lives = false, "");
        check(|s| (alone(s), s.report.peer_lives = false).1, "ph");
    }

    #[test]
    fn a_standby_streams_from_a_primary_that_lives() {
        check(|s| (standby(s), s.report.peer_lives = false).1, "");
        check(|s| (standby(s), failed(s, &["wal_receiver"])).1, "");
        check(|s| (standby(s), alone(s)).1, "sh");
    }

    #[test]
    fn the_instance_runs_in_its_role() {
        check(|s| failed(s, &["postmaster"]), "");
        check(|s| (alone(s), failed(s, &["postmaster"])).1, "");
        // That the standby does not stream is the standby's fault.
        check(|s| failed(s, &["wal_sender"]), "ph");
        check(|s| s.report.servers[0].processes = None, "");
        for role in [HostRole::InactivatedPrimary, HostRole::Standby, HostRole::Unknown] {
            check(|s| (alone(s), s.report.servers[0].role = role).1, "");
        }
        check(|s| (standby(s), s.report.servers[1].role = HostRole::Primary).1, "");
        check(|s| s.report.view = None, "");
    }

    #[test]
    fn a_failed_disk_is_not_healthy() {
        check(|s| s.report.servers[0].disk = Some("data".into()), "p");
        check(|s| (standby(s), s.report.servers[1].disk = Some("data".into())).1, "");
    }

    #[test]
    fn a_full_disk_is_not_healthy_and_takes_no_writes() {
        use super::super::Level;
        use super::super::space::tests::space;
        let full = |s: &mut Snapshot, directory: &str| {
            let me = s.report.me.index();
            s.report.servers[me].full = directory.into();
            s.space = vec![space(directory, 0, Level::Full)];
        };
        check(|s| full(s, "data"), "");
        check(|s| full(s, "management"), "p");
        check(|s| (standby(s), full(s, "data")).1, "s");
        check(|s| s.space = vec![space("data", 0, Level::NearlyFull)], "ph");
        // Segment files are left, into which WAL can be written.
        let wal = |s: &mut Snapshot, end: u64| {
            full(s, "tran_log");
            s.space[0].wal_end = Some(crate::fsm::types::Lsn(end));
        };
        check(|s| wal(s, 0x1_0200_0000), "p");
        check(|s| wal(s, 0x1_0100_0000), "");
    }

    #[test]
    fn a_stuck_decision_thread_knows_nothing() {
        check(|s| s.alive = Time(s.now.0 - 2000), "ph");
        check(|s| s.alive = Time(s.now.0 - 2001), "");
        check(|s| (alone(s), s.alive = Time(s.now.0 - 5000)).1, "");
        check(|s| (standby(s), s.alive = Time(s.now.0 - 5000)).1, "");
    }
}
