//! What an operator should know or do, as hints.

use super::{ArbiterStatus, BackupStatus, Directory, Disconnection, Form, Level, Snapshot, Space, advice_or_next_step};
use crate::fsm::report::Word;

/// The core's advice, and what its silence about the arbiter means for an operator who did not ask for that.
pub(super) fn advice(snapshot: &Snapshot, form: impl FnOnce() -> Form) -> Vec<String> {
    let lost = snapshot.arbiter.as_ref().filter(|_| snapshot.report.arbiter == Some(false));
    let lost = lost.map(|arbiter| match snapshot.report.view {
        None => format!(
            "arbiter \"{}\" is not connected: run \"mc_arb status\" on its host; it serves this server after the first rebuild",
            arbiter.id
        ),
        Some(_) => {
            format!("arbiter \"{}\" is not connected: run \"mc_arb status\" on its host; until it is connected, the controller \
                     does not act if the other server does not respond", arbiter.id)
        }
    });
    let scarce = |level| Space::hints(&snapshot.space, level);
    if let Some(hint) = ledger_hint(snapshot) {
        // What else does not work follows from it.
        return std::iter::once(hint).chain(scarce(Level::Full)).collect();
    }
    let arbiter = snapshot.arbiter.as_ref().and_then(|name| ArbiterStatus::new(name, &snapshot.report).advice());
    let peer = snapshot.report.me.other().index();
    let full = Some(&snapshot.report.servers[peer].full).filter(|full| !full.is_empty()).map(|full| {
        let id = &snapshot.servers[peer].id;
        format!(
            "the disk of server \"{id}\" is full ({full}): run \"mc_ctl status\" on it, which names the file system"
        )
    });
    let form = if snapshot.connections.is_empty() { Form::Direct } else { form() };
    let mut connections: Vec<_> = snapshot.connections.iter().filter_map(|failure| failure.hint(&form)).collect();
    connections.dedup();
    if !snapshot.peer_failing.is_empty() {
        let id = &snapshot.servers[peer].id;
        connections.push(format!("\"mc_ctl status\" on server \"{id}\" shows what corrects its connections"));
    }
    let disconnected = Disconnection::new(snapshot).map(|disconnection| disconnection.remedy);
    // A standby that lacks space or WAL has one way out. Without that, a start of its instance fails again.
    let lacks_wal = snapshot.missing_wal().is_some();
    let lacks_space = snapshot.space.iter().any(|space| space.state == Level::Full);
    let (advice, remedy) = match disconnected {
        Some(_) if lacks_wal => (Vec::new(), None),
        Some(remedy) if lacks_space => (Vec::new(), Some(remedy)),
        disconnected => (advice_or_next_step(snapshot), disconnected),
    };
    let advice = advice.into_iter().chain(remedy);
    // The cause comes before its consequences.
    let causes = scarce(Level::Full).into_iter().chain(relief(snapshot)).chain(full).chain(arbiter).chain(connections);
    let later = scarce(Level::NearlyFull).into_iter().chain(BackupStatus::remedies(snapshot));
    let mut all: Vec<String> = Vec::new();
    for hint in causes.chain(advice).chain(lost).chain(later) {
        if !all.contains(&hint) {
            all.push(hint);
        }
    }
    all
}

/// What an operator can do about a ledger that cannot be written; `None` if it can.
pub fn ledger_hint(snapshot: &Snapshot) -> Option<String> {
    let why = snapshot.ledger_error.as_ref()?;
    let place = snapshot.space.iter().find(|space| space.directory == Directory::Management);
    let full = ["No space left", "quota"].iter().any(|text| why.contains(text)).then_some(place).flatten();
    let fix = match full {
        Some(Space { mount_point, path, .. }) => {
            format!("free space on the file system \"{mount_point}\" of \"{path}\"")
        }
        None => "repair the file system of the management directory".to_owned(),
    };
    Some(format!(
        "the ledger cannot be written: {fix}; until then this server can neither switch nor disconnect ({why})"
    ))
}

/// What an operator of a primary can do whose data or WAL have no space left.
fn relief(snapshot: &Snapshot) -> Option<String> {
    let report = &snapshot.report;
    let blocked = snapshot.space.iter().find(|space| space.blocks_checkpoint())?;
    report.view.filter(|view| view.is_mirrored(report.me))?;
    let other = &snapshot.servers[report.me.other().index()].id;
    let row = &report.servers[report.me.other().index()];
    let mount = &blocked.mount_point;
    Some(match (report.word, row.full.is_empty()) {
        (Word::Switchable, true) => format!(
            "free space on \"{mount}\"; if that takes too long, {}: server \"{other}\" has space and takes over",
            snapshot.immediate_shutdown()?
        ),
        (_, false) => format!("free space on \"{mount}\": a disk of server \"{other}\" is full as well ({})", row.full),
        (_, true) => format!("free space on \"{mount}\": server \"{other}\" cannot take over now"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsm::report::Report;
    use crate::fsm::types::View;
    use crate::status::tests::{failed, snapshot};
    use crate::status::{ConnectionFailure, Status};

    #[test]
    fn a_lost_arbiter_is_told_to_who_did_not_ask() {
        let mut s = failed();
        assert!(Status::new(&s).advice.iter().any(|advice| advice.contains("until it is connected, the controller")));
        let new = Report { view: None, ..s.report.clone() };
        let new = Status::new(&Snapshot { report: new, ..s.clone() }).advice;
        assert!(new.iter().any(|advice| advice.ends_with("it serves this server after the first rebuild")), "{new:?}");
        s.report.arbiter = Some(true);
        assert!(!Status::new(&s).advice.iter().any(|advice| advice.contains("arbiter")));
    }

    #[test]
    fn a_ledger_that_cannot_be_written_is_the_only_hint() {
        let mut s = failed();
        s.report.advice = vec!["the standby does not respond".into()];
        s.ledger_error = Some("could not write file: No space left on device".into());
        s.space = vec![crate::status::space::tests::space("management", 0, Level::Full)];
        let status = Status::new(&s);
        let first = "the ledger cannot be written: free space on the file system \"/srv\" of \"/srv/management\";";
        assert!(status.advice.len() == 2 && status.advice[0].starts_with(first), "{:?}", status.advice);
        assert!(status.check().1 == 2 && status.check().0.contains(", the ledger of nd1 cannot be written"));
    }

    /// What the controller of a disconnected standby advises on a start does not help as long as its disk is full, and no start
    /// helps if WAL is missing.
    #[test]
    fn the_hints_of_a_full_standby_agree() {
        use crate::fsm::report::Disconnected;
        use crate::fsm::types::{Mode, Server};
        let mut s = snapshot();
        s.report.view = s.report.view.map(|view| View { mode: Mode::Degraded, ..view });
        (s.report.me, s.report.disconnected) = (Server::Second, Some(Disconnected::ByFailure));
        s.report.servers[1].full = "data".into();
        s.report.advice = vec!["run \"mc_ctl start -f\" to start it at once".into(); 2];
        let hints = |s: &Snapshot| Status::new(s).advice;
        assert_eq!(hints(&s).len(), 2, "duplicates: {:?}", hints(&s));
        s.space = vec![crate::status::space::tests::space("data", 0, Level::Full)];
        let shown = hints(&s);
        assert!(shown.len() == 2 && shown[0].contains("(data) is full"), "{shown:?}");
        assert!(shown[1].starts_with("free space on server \"nd2\" (data); then"), "{shown:?}");
        s.connections = vec![ConnectionFailure::missing_wal("000000010000000000000003")];
        let shown = hints(&s);
        assert!(shown.len() == 2 && shown[1].ends_with("run \"mc_ctl rebuild\" on this server"), "{shown:?}");
        let line = Status::new(&s).check().0;
        assert!(line.contains("run \"mc_ctl rebuild\" on server \"nd2\"") && !line.contains("mc_ctl start"), "{line}");
    }

    #[test]
    fn the_hint_of_a_full_primary_is_printed_once_and_names_a_way_out() {
        let mut s = snapshot();
        s.space = ["data", "tran_log"].map(|name| crate::status::space::tests::space(name, 0, Level::Full)).into();
        s.report.servers[0].full = "data, tran_log".into();
        let advice = Status::new(&s).advice;
        let both = "of \"/srv/data\" (data) and of \"/srv/tran_log\" (tran_log) is full";
        assert!(advice.len() == 2 && advice[0].contains(both) && advice[0].contains("\"du -axk"), "{advice:?}");
        let way = "\"/pg/bin/pg_ctl stop -m immediate -D /srv/data\" here as its owner: server \"nd2\" has space and takes over";
        assert!(advice[1].contains(way), "{advice:?}");
        s.report.servers[1].full = "data".into();
        let advice = Status::new(&s).advice;
        assert!(!advice[1].contains("pg_ctl") && advice[1].contains("\"nd2\" is full as well"), "{advice:?}");
    }
}
