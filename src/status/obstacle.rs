//! What keeps a command from succeeding that only the disks show: the controller refuses it before anything is done.

use super::{Directory, Snapshot, Space, ledger_hint};
use crate::fsm::event::Request;
use crate::fsm::report::Word;
use crate::fsm::types::Mode;

/// Why this request would fail now, with a hint; `None` if nothing is known against it.
pub fn obstacle(snapshot: &Snapshot, request: Request) -> Option<String> {
    if let Some(why) = ledger_hint(snapshot) {
        let hint = match request {
            Request::Stop { .. } => "\nHINT: To end only the controller, run \"mc_ctl stop -e\".",
            _ => "",
        };
        return Some(format!("{why}{hint}"));
    }
    let report = &snapshot.report;
    let view = report.view.filter(|view| view.mode == Mode::Mirrored)?;
    let (here, primary, standby) = (view.primary == report.me, view.primary.index(), view.primary.other().index());
    let what = match request {
        Request::Switch => Some("a switch begins"),
        Request::Stop { instance: true, all: false } if here && report.failover => Some("a switch begins"),
        Request::Stop { instance: true, all: true } => Some("a shutdown ends"),
        _ => None,
    };
    let blocked = |server: usize| {
        let full = &report.servers[server].full;
        Directory::list(full).iter().any(Directory::holds_checkpoints).then_some((&snapshot.servers[server].id, full))
    };
    if request == Request::Switch
        && let Some((id, full)) = blocked(standby)
    {
        return Some(format!(
            "server \"{id}\" has no space left ({full}), so that it could not serve as the primary\nHINT: Free space on it: \
             \"mc_ctl status\" there names the file system."
        ));
    }
    let (what, (id, full)) = what.zip(blocked(primary))?;
    let place = snapshot.space.iter().filter(|_| here).find(|space| space.blocks_checkpoint());
    let place = match place {
        Some(Space { mount_point, path, directory, .. }) => {
            format!("the file system \"{mount_point}\" of \"{path}\" ({directory})")
        }
        None => format!("a file system ({full})"),
    };
    let stop = match snapshot.immediate_shutdown().filter(|_| here) {
        Some(stop) => stop,
        None => format!(
            "run \"mc_ctl status\" on \"{id}\", which prints the command that stops its instance without a checkpoint"
        ),
    };
    Some(format!(
        "{what} with a checkpoint on the primary, and {place} of server \"{id}\" is full\nHINT: Free space. If that is \
         not possible, {stop}: the standby has all commits, and takes over."
    ))
}

/// The full directory of this primary that prevents the checkpoint of a planned switch, if its standby has space and takes over
/// when the instance is stopped without one.
pub fn only_without_checkpoint(snapshot: &Snapshot) -> Option<&Space> {
    let report = &snapshot.report;
    report.view.filter(|view| view.is_mirrored(report.me) && report.word == Word::Switchable)?;
    let standby = Directory::list(&report.servers[report.me.other().index()].full);
    let blocked = snapshot.space.iter().find(|space| space.blocks_checkpoint())?;
    (snapshot.ledger_error.is_none() && standby.is_empty()).then_some(blocked)
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::super::space::tests::space;
    use super::super::tests::snapshot;
    use super::*;
    use crate::fsm::types::Server;

    const STOP: Request = Request::Stop { instance: true, all: false };
    const STOP_BOTH: Request = Request::Stop { instance: true, all: true };

    #[test]
    fn a_full_primary_is_not_switched() {
        let mut s = snapshot();
        assert_eq!(obstacle(&s, Request::Switch), None);
        s.space = vec![space("data", 0, Level::Full)];
        s.report.servers[0].full = "data".into();
        for request in [Request::Switch, STOP, STOP_BOTH] {
            let why = obstacle(&s, request).expect("an obstacle");
            let hint =
                "run \"/pg/bin/pg_ctl stop -m immediate -D /srv/data\" here as its owner: the standby has all commits";
            assert!(
                why.contains("the file system \"/srv\" of \"/srv/data\" (data) of server \"nd1\" is full"),
                "{why}"
            );
            assert!(why.contains(hint), "{why}");
        }
        assert_eq!(obstacle(&s, Request::Detach), None);
        // As the standby knows it.
        (s.report.me, s.space) = (Server::Second, Vec::new());
        let why = obstacle(&s, Request::Switch).expect("an obstacle");
        let hint = "run \"mc_ctl status\" on \"nd1\", which prints the command";
        assert!(why.contains("a file system (data) of server \"nd1\"") && why.contains(hint), "{why}");
        assert_eq!(obstacle(&s, STOP), None);
        s.report.servers[0].full = "management, tablespace t".into();
        assert_eq!(obstacle(&s, Request::Switch), None);
        // A standby without space could not serve.
        s.report.servers[1].full = "data".into();
        assert!(
            obstacle(&s, Request::Switch).expect("an obstacle").contains("server \"nd2\" has no space left (data)")
        );
    }

    #[test]
    fn a_full_primary_stops_without_a_checkpoint_if_its_standby_takes_over() {
        let mut s = snapshot();
        let stops = |s: &Snapshot| only_without_checkpoint(s).is_some();
        assert!(!stops(&s), "it has space");
        s.space = vec![space("tran_log", 0, Level::Full)];
        assert!(stops(&s));
        for edit in [
            |s: &mut Snapshot| s.report.me = Server::Second,
            |s: &mut Snapshot| s.report.word = Word::FailoverDisabled,
            |s: &mut Snapshot| s.report.servers[1].full = "data".into(),
            |s: &mut Snapshot| s.ledger_error = Some("no space".into()),
            |s: &mut Snapshot| s.space[0] = space("management", 0, Level::Full),
        ] {
            let mut other = s.clone();
            edit(&mut other);
            assert!(!stops(&other));
        }
    }

    #[test]
    fn without_a_ledger_nothing_is_changed() {
        let mut s = snapshot();
        s.space = vec![space("management", 0, Level::Full)];
        s.ledger_error = Some("could not write file: No space left on device".into());
        for request in [Request::Switch, Request::Detach, STOP] {
            let why = obstacle(&s, request).expect("an obstacle");
            assert!(why.contains("the ledger cannot be written: free space on the file system \"/srv\""), "{why}");
        }
    }
}
