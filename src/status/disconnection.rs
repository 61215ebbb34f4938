//! The disconnected standby: by what, since when, and what attaches it again.

use super::{Snapshot, ViewStatus, duration};
use crate::fsm::report::{Disconnected, HostStatus};
use serde::Serialize;

/// A standby for which commits do not wait, and which cannot take over.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Disconnection {
    /// The standby.
    pub server_id: String,
    /// An operator disconnected it (`mc_ctl detach`, or `mc_ctl stop` on the standby), not the controller.
    pub by_operator: bool,
    /// For how many seconds; `null` if this server has not noted it.
    pub seconds: Option<u64>,
    /// What has happened, in a sentence.
    pub text: String,
    /// What attaches it again.
    pub remedy: String,
}

impl Disconnection {
    /// From a controller's answer; `None` if no standby is disconnected.
    pub fn new(snapshot: &Snapshot) -> Option<Disconnection> {
        let by_operator = snapshot.report.disconnected? == Disconnected::ByOperator;
        let view = snapshot.report.view.as_ref()?;
        let server_id = snapshot.servers[view.primary.other().index()].id.clone();
        let ViewStatus { seconds, reason, .. } = ViewStatus::new(snapshot, view);
        let since = seconds.map(|seconds| format!(" {} ago", duration(seconds))).unwrap_or_default();
        let other = snapshot.report.me.other().index();
        let lost = snapshot.report.servers[other].host != HostStatus::Normal;
        let text = match by_operator {
            // An instance that an operator has stopped is detached too, and its controller ends.
            true if lost => format!("standby \"{server_id}\" was detached or stopped by an operator{since}"),
            true => format!("standby \"{server_id}\" was detached by an operator{since}"),
            false if reason.is_empty() => format!("standby \"{server_id}\" was disconnected{since}"),
            false => format!("standby \"{server_id}\" was disconnected{since}: {reason}"),
        };
        let command = snapshot.report.start_command();
        let start = |id: &str| format!("run \"{command}\" on server \"{id}\"");
        let attached = format!("standby \"{server_id}\" is attached again when it streams from the primary");
        let standby = view.primary.other();
        let full = Some(&snapshot.report.servers[standby.index()].full).filter(|full| !full.is_empty());
        let lacks_wal = snapshot.missing_wal().is_some() && snapshot.report.me == standby;
        let remedy = match (by_operator, lost) {
            (true, _) => format!("{} to attach it again", start(&server_id)),
            (false, _) if lacks_wal => format!("run \"mc_ctl rebuild\" on server \"{server_id}\""),
            (false, false) => {
                let instance = format!("if its instance is not running, {}", start(&server_id));
                match full {
                    Some(full) => {
                        format!("free space on server \"{server_id}\" ({full}); then, {instance}; {attached}")
                    }
                    None => format!("{attached}; {instance}"),
                }
            }
            (false, true) => {
                let id = &snapshot.servers[other].id;
                format!(
                    "server \"{id}\" does not respond: if its controller is running, repair the network between the servers; if it \
                     is not running, {}; {attached}",
                    start(id)
                )
            }
        };
        Some(Disconnection { server_id, by_operator, seconds, text, remedy })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::snapshot;
    use super::super::{Colour, Status, Word};
    use super::*;
    use crate::fsm::types::{Mode, Server};

    fn disconnected(why: Disconnected) -> Snapshot {
        let mut s = snapshot();
        let mut view = s.report.view.expect("a view");
        view.mode = Mode::Degraded;
        (s.report.view, s.report.word) = (Some(view), Word::NotSwitchable);
        s.report.reason = "the standby's instance has failed".into();
        s.report.disconnected = Some(why);
        s
    }

    /// Both servers name the standby, the operator and the command.
    #[test]
    fn a_detached_standby() {
        for me in Server::BOTH {
            let mut s = disconnected(Disconnected::ByOperator);
            s.report.me = me;
            let status = Status::new(&s);
            let text = "standby \"nd2\" was detached by an operator 4 s ago";
            let remedy = "run \"mc_ctl start -f\" on server \"nd2\" to attach it again";
            assert!(status.text(false, Colour::Never).ends_with(&format!("\nWARNING: {text}\n")));
            assert_eq!(status.advice, [remedy]);
            let (line, code) = status.check();
            assert!(line.contains(&format!(", {text}; {remedy}")) && code == 2, "{line}");
            s.report.servers[me.other().index()].host = HostStatus::Abnormal;
            let stopped = "standby \"nd2\" was detached or stopped by an operator 4 s ago";
            assert_eq!(Disconnection::new(&s).expect("a disconnection").text, stopped);
            s.report.word = Word::Switchable;
            assert_eq!(Status::new(&s).check().1, 1);
        }
    }

    #[test]
    fn a_disconnected_standby() {
        let mut s = disconnected(Disconnected::ByFailure);
        let shown = |s: &Snapshot| serde_json::to_value(Disconnection::new(s)).expect("JSON");
        assert_eq!(
            shown(&s),
            serde_json::json!({
                "server_id": "nd2", "by_operator": false, "seconds": 4,
                "text": "standby \"nd2\" was disconnected 4 s ago: the standby's instance has failed",
                "remedy": "standby \"nd2\" is attached again when it streams from the primary; if its instance is not running, run \
                           \"mc_ctl start -f\" on server \"nd2\"",
            })
        );
        s.report.servers[1].full = "data".into();
        let text = "free space on server \"nd2\" (data); then, if its instance is not running, run \"mc_ctl start -f\" on server \
                    \"nd2\"; standby \"nd2\" is attached again when it streams from the primary";
        assert_eq!(shown(&s)["remedy"], text);
        s.report.servers[1].full.clear();
        s.report.failover = false;
        assert!(shown(&s)["remedy"].as_str().expect("text").ends_with("run \"mc_ctl start\" on server \"nd2\""));
        s.report.servers[1].host = HostStatus::Abnormal;
        let lost = shown(&s);
        let text = "server \"nd2\" does not respond: if its controller is running, repair the network between the servers; if it is \
                    not running, run \"mc_ctl start\" on server \"nd2\"; standby \"nd2\" is attached again when it streams from the primary";
        assert_eq!(lost["remedy"], text);
        (s.report.since, s.report.reason) = (None, String::new());
        assert_eq!(shown(&s)["text"], "standby \"nd2\" was disconnected");
        s.report.disconnected = None;
        assert_eq!(shown(&s), serde_json::Value::Null);
    }
}
