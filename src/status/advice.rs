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
    let disconnected = Disconnection::new(snapshot).map(|disconnection| disconnection.remedy);
    let advice = advice_or_next_step(snapshot).into_iter().chain(disconnected);
    // The cause comes before its consequences.
    let causes = scarce(Level::Full).into_iter().chain(relief(snapshot)).chain(full).chain(arbiter).chain(connections);
    let later = scarce(Level::NearlyFull).into_iter().chain(BackupStatus::remedies(snapshot));
    causes.chain(advice).chain(lost).chain(later).collect()
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
    use crate::status::Status;
    use crate::status::tests::{failed, snapshot};

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

    #[test]
    fn the_hint_of_a_full_primary_is_printed_once_and_names_a_way_out() {
        let mut s = snapshot();
        s.space = ["data", "tran_log"].map(|name| crate::status::space::tests::space(name, 0, Level::Full)).into();
        s.report.servers[0].full = "data, tran_log".into();
        let advice = Status::new(&s).advice;
        let both = "of \"/srv/data\" (data) and of \"/srv/tran_log\" (tran_log) is full";
        assert!(advice.len() == 2 && advice[0].contains(both) && advice[0].contains("\"du -xk"), "{advice:?}");
        let way = "\"/pg/bin/pg_ctl stop -m immediate -D /srv/data\" here as its owner: server \"nd2\" has space and takes over";
        assert!(advice[1].contains(way), "{advice:?}");
        s.report.servers[1].full = "data".into();
        let advice = Status::new(&s).advice;
        assert!(!advice[1].contains("pg_ctl") && advice[1].contains("\"nd2\" is full as well"), "{advice:?}");
    }
}
