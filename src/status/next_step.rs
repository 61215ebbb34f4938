//! The next step of an operator where the controller has no advice but a reference to `mc_ctl check`.

use super::{RebuildStatus, Snapshot, ViewStatus, duration};
use crate::fsm::report::{HostRole, HostStatus, Word};
use crate::fsm::types::Server;

/// The controller's advice, with the next step where that follows from what the snapshot shows of both servers.
pub fn advice_or_next_step(snapshot: &Snapshot) -> Vec<String> {
    match next_step(snapshot) {
        Some(next) => vec![next],
        None => snapshot.report.advice.clone(),
    }
}

/// Of the server that runs alone; `None` if the controller's advice or the findings of the check lead.
pub fn next_step(snapshot: &Snapshot) -> Option<String> {
    let report = &snapshot.report;
    let view = report.view.filter(|view| report.refers_to_check && view.is_alone(report.me))?;
    let other = report.me.other().index();
    let (id, row) = (&snapshot.servers[other].id, &report.servers[other]);
    if view.data[other].is_some() {
        let gone = report.word == Word::Switched && row.host != HostStatus::Normal;
        return gone.then(|| rebuild_of(id, false));
    }
    Some(match row.role {
        HostRole::Primary => format!("server \"{id}\" has another cluster: run \"mc_ctl rebuild\" on it"),
        _ => format!("next: run \"mc_ctl rebuild\" on \"{id}\", or \"{}\" if it has a copy", report.start_command()),
    })
}

/// How a server that has lost its role becomes the standby; its host responds if it is `back`.
fn rebuild_of(id: &str, back: bool) -> String {
    match back {
        true => format!("run \"mc_ctl rebuild\" on server \"{id}\""),
        false => format!("when server \"{id}\" is back, run \"mc_ctl rebuild\" on it"),
    }
}

/// After `mc_ctl switch`: what makes the old primary the standby. `auto`: `rebuild_action` is so.
pub fn after_switch(snapshot: &Snapshot, auto: bool) -> Option<String> {
    let report = &snapshot.report;
    let old = report.view?.primary.other();
    let (id, back) = (&snapshot.servers[old.index()].id, report.servers[old.index()].host == HostStatus::Normal);
    let by_itself = format!("Server \"{id}\" becomes the standby automatically");
    Some(match (auto, back) {
        (true, true) => format!("{by_itself}, because rebuild_action is 'auto'."),
        (true, false) => format!("{by_itself} when it is back, because rebuild_action is 'auto'."),
        (false, true) => format!("To make server \"{id}\" the standby, run \"mc_ctl rebuild\" on it."),
        (false, false) => format!("When server \"{id}\" is back, run \"mc_ctl rebuild\" on it."),
    })
}

/// After a takeover: which server took over, why, and how the other server becomes its standby.
pub fn takeover(snapshot: &Snapshot) -> Option<String> {
    let report = &snapshot.report;
    let view = report.view.filter(|_| report.word == Word::Switched)?;
    let id = |server: Server| &snapshot.servers[server.index()].id;
    let (primary, other) = (id(view.primary), id(view.primary.other()));
    let ViewStatus { seconds, reason, .. } = ViewStatus::new(snapshot, &view);
    let since = seconds.map(|seconds| format!(" {} ago", duration(seconds))).unwrap_or_default();
    let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let under_way = RebuildStatus::new(snapshot).is_some_and(|rebuild| rebuild.failed.is_none());
    let back = report.servers[view.primary.other().index()].host == HostStatus::Normal;
    let next = match (under_way, back) {
        (true, _) => format!("server \"{other}\" is being rebuilt"),
        (false, back) => rebuild_of(other, back),
    };
    Some(format!("server \"{primary}\" became the primary{since}{why}; {next}"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::snapshot;
    use super::super::{Colour, Status};
    use super::*;
    use crate::fsm::types::Mode;

    const CHECK: &str = "run \"mc_ctl check\"";

    fn alone(edit: impl FnOnce(&mut Snapshot)) -> Vec<String> {
        let mut s = snapshot();
        let mut view = s.report.view.expect("a view");
        view.mode = Mode::Degraded;
        (s.report.view, s.report.word) = (Some(view), Word::NotSwitchable);
        (s.report.advice, s.report.refers_to_check) = (vec![CHECK.to_owned()], true);
        edit(&mut s);
        assert!(!Status::new(&s).text(false, Colour::Never).is_empty());
        Status::new(&s).advice
    }

    #[test]
    fn of_a_new_pair() {
        let rebuild = "next: run \"mc_ctl rebuild\" on \"nd2\", or \"mc_ctl start -f\" if it has a copy";
        let roles = |role| move |s: &mut Snapshot| s.report.servers[1].role = role;
        assert_eq!(alone(roles(HostRole::Unknown)), [rebuild]);
        assert_eq!(
            alone(roles(HostRole::Primary)),
            ["server \"nd2\" has another cluster: run \"mc_ctl rebuild\" on it"]
        );
        // Advice of the controller leads.
        assert_eq!(alone(|s| s.report.refers_to_check = false), [CHECK]);
    }

    #[test]
    fn after_a_takeover() {
        let switched = |host| {
            alone(|s| {
                s.report.view.as_mut().expect("a view").data =
                    [Some(crate::fsm::types::DataId(1)), Some(crate::fsm::types::DataId(2))];
                s.report.word = Word::Switched;
                s.report.servers[1].host = host;
            })
        };
        assert_eq!(switched(HostStatus::Abnormal), ["when server \"nd2\" is back, run \"mc_ctl rebuild\" on it"]);
        assert_eq!(switched(HostStatus::Normal), [CHECK]);
    }

    #[test]
    fn after_a_switch() {
        let mut s = snapshot();
        let mut next = |host, auto| {
            s.report.servers[1].host = host;
            after_switch(&s, auto).expect("a next step")
        };
        let rebuild = "To make server \"nd2\" the standby, run \"mc_ctl rebuild\" on it.";
        assert_eq!(next(HostStatus::Normal, false), rebuild);
        let automatic = "Server \"nd2\" becomes the standby automatically, because rebuild_action is 'auto'.";
        assert_eq!(next(HostStatus::Normal, true), automatic);
        assert_eq!(next(HostStatus::Abnormal, false), "When server \"nd2\" is back, run \"mc_ctl rebuild\" on it.");
        assert!(next(HostStatus::Abnormal, true).contains("automatically when it is back"));
    }

    /// Both servers name the reason and the command.
    #[test]
    fn a_takeover_is_explained_to_monitoring() {
        use crate::fsm::report::Rebuilding;
        let line = |edit: &dyn Fn(&mut Snapshot)| {
            let mut s = snapshot();
            s.report.word = Word::Switched;
            s.report.reason = "the primary's host does not respond".into();
            edit(&mut s);
            Status::new(&s).check()
        };
        for me in Server::BOTH {
            let text = "server \"nd1\" became the primary 4 s ago: the primary's host does not respond; ";
            let shown = line(&|s| s.report.me = me);
            assert!(shown.0.contains(&format!(", {text}run \"mc_ctl rebuild\" on server \"nd2\" |")), "{shown:?}");
            assert_eq!(shown.1, 2);
            let down = line(&|s| (s.report.me, s.report.servers[1].host) = (me, HostStatus::Abnormal));
            assert!(down.0.contains("when server \"nd2\" is back, run \"mc_ctl rebuild\" on it"), "{down:?}");
        }
        let copies = line(&|s| (s.report.me, s.report.rebuilding) = (Server::Second, Rebuilding::Copying));
        assert!(copies.0.contains("; server \"nd2\" is being rebuilt |"), "{copies:?}");
        assert!(!line(&|s| s.report.word = Word::NotSwitchable).0.contains("became"));
    }
}
