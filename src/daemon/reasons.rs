//! Adds a full disk to the reason for a takeover or a disconnection. The core decides by what follows from it: an instance that
//! stopped, a standby that does not stream, a controller that is silent because its ledger cannot be written.
//!
//! For people alone: nothing is decided by it. Only the decision thread calls this.

use crate::fsm::event::{Action, CoreMessage, Message};
use crate::fsm::reason::{Reason, Source};
use crate::fsm::report::Report;
use crate::fsm::types::{Mode, Server, Time, View};
use crate::fsm::user_command::{Hook, Purpose};
use crate::status::Directory;

/// What a server last reported of its disks.
#[derive(Default)]
struct Reported {
    /// Its full directories.
    full: Vec<Directory>,
    at: Time,
}

/// The full disks of both servers, and the reason for the present view.
pub(super) struct Reasons {
    ids: [String; 2],
    me: Server,
    /// After this time without a heartbeat the other server is silent, ms.
    silence_ms: u64,
    reported: [Reported; 2],
    view: Option<View>,
    /// The reason for a view to which something was added.
    explained: Option<(View, Reason)>,
}

impl Reasons {
    /// Of this server, whose view is `view` now.
    pub fn new(ids: [String; 2], me: Server, silence_ms: u64, view: Option<View>) -> Reasons {
        Reasons { ids, me, silence_ms, reported: Default::default(), view, explained: None }
    }

    /// A server reports which of its directories are full.
    pub fn reported(&mut self, server: Server, full: &str, at: Time) {
        self.reported[server.index()] = Reported { full: Directory::list(full), at };
    }

    /// The action with the whole reason.
    pub fn explain(&mut self, mut action: Action, now: Time) -> Action {
        match &mut action {
            Action::Store(_, durable, Some(why)) => {
                if let Some(whole) = self.whole(self.view, durable.ledger.view, why, now) {
                    *why = whole;
                }
            }
            Action::Send(_, Message::Propose { base, view, why, .. }) => {
                if let Some(whole) = self.add(Some(base.view), *view, why, now) {
                    *why = whole;
                }
            }
            Action::Call(_, command) if !command.by_operator => {
                let lost = match command.purpose {
                    Purpose::Hook(Hook::PostSwitch) => command.target.other(),
                    Purpose::Hook(Hook::PreDetach) | Purpose::Fencing | Purpose::Arbitration => command.target,
                    // The disk is not the cause of the end of a disconnection.
                    Purpose::Hook(Hook::PostAttach) => return action,
                };
                if let Some(whole) = self.with_full_disk(lost, &command.reason, now) {
                    command.reason = whole;
                }
            }
            Action::Send(_, Message::Heartbeat(heartbeat)) => {
                let view = heartbeat.ledger.map(|ledger| ledger.view);
                if let Some((_, why)) = self.explained.as_ref().filter(|(of, _)| Some(*of) == view) {
                    heartbeat.why = why.sent();
                }
            }
            Action::Log(CoreMessage::View { from, to, why }) => {
                self.explained = self.whole(*from, *to, why, now).map(|whole| (*to, whole));
                if let Some((_, whole)) = &self.explained {
                    why.clone_from(whole);
                }
                self.view = Some(*to);
            }
            _ => (),
        }
        action
    }

    /// The report with the whole reason.
    pub fn complete(&self, mut report: Report) -> Report {
        if let Some((_, why)) = self.explained.as_ref().filter(|(view, _)| Some(*view) == report.view) {
            report.reason = why.to_string();
        }
        report
    }

    fn whole(&self, from: Option<View>, to: View, why: &Reason, now: Time) -> Option<Reason> {
        let text = self.add(from, to, why.text(), now)?;
        Some(match why.source() {
            Source::Own => Reason::own(text),
            Source::Reported(who) => Reason::reported(who, &text),
            Source::Requested(who) => Reason::requested(who, &text),
        })
    }

    /// The reason with a full disk of the server that a mirrored pair loses; `None` if there is none. What the other server has
    /// added stays as it is.
    fn add(&self, from: Option<View>, to: View, why: &str, now: Time) -> Option<String> {
        let loses = from.is_some_and(|from| from.mode == Mode::Mirrored) && to.mode == Mode::Degraded;
        loses.then(|| self.with_full_disk(to.primary.other(), why, now)).flatten()
    }

    /// The reason with the full disk of this server; `None` if that has none, or the reason names it.
    fn with_full_disk(&self, server: Server, why: &str, now: Time) -> Option<String> {
        let full = self.full(server, now);
        let begin = format!("no space left on server \"{}\"", self.ids[server.index()]);
        if full.is_empty() || why.contains(&begin) {
            return None;
        }
        Some(if why.is_empty() { format!("{begin} ({full})") } else { format!("{why}; {begin} ({full})") })
    }

    /// The full disk that can be the cause of what the core says; `None` for none.
    pub fn cause_of(&self, say: &CoreMessage, now: Time) -> Option<String> {
        match say {
            CoreMessage::InstanceFailed { .. } => self.with_full_disk(self.me, "", now),
            CoreMessage::WouldHave { .. } => {
                self.with_full_disk(self.me, "", now).or_else(|| self.with_full_disk(self.me.other(), "", now))
            }
            _ => None,
        }
    }

    /// The full directories that can be the cause. Without space for its ledger, a server is silent; one that is heard has space
    /// for it.
    fn full(&self, server: Server, now: Time) -> String {
        let Reported { full, at } = &self.reported[server.index()];
        let silent = server != self.me && now.since(*at) > self.silence_ms;
        let counts = |directory: &&Directory| silent || **directory != Directory::Management;
        full.iter().filter(counts).map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsm::cause::Cause;
    use crate::fsm::job::JobId;
    use crate::fsm::reason::Who;
    use crate::fsm::types::Term;
    use crate::fsm::user_command::{Aim, UserCommand};

    fn view(term: u64, mode: Mode, primary: Server) -> View {
        View { term: Term(term), mode, primary, data: Default::default(), arbiter: None, forced: false }
    }

    /// The reason of the second server for a change at 10 s, whose peer has reported `full` at `heard_ms`.
    fn reason(full: &str, heard_ms: u64, to: View, why: Reason) -> String {
        let from = view(3, Mode::Mirrored, Server::First);
        let mut reasons = Reasons::new(["nd1".into(), "nd2".into()], Server::Second, 1_000, Some(from));
        reasons.reported(Server::First, full, Time(heard_ms));
        let report = Report { view: Some(to), reason: why.to_string(), ..Report::blank(Server::Second) };
        let say = Action::Log(CoreMessage::View { from: Some(from), to, why });
        let Action::Log(CoreMessage::View { why: told, .. }) = reasons.explain(say, Time(10_000)) else {
            panic!("another action")
        };
        assert_eq!(reasons.complete(report).reason, told.to_string());
        told.to_string()
    }

    #[test]
    fn hooks_and_messages_name_a_full_disk() {
        let mut reasons = Reasons::new(["nd1".into(), "nd2".into()], Server::Second, 1_000, None);
        let reason = |reasons: &mut Reasons, purpose, target, by_operator| {
            let (aim, term, reason) = (Aim::Switch, Term(4), "so".to_owned());
            let call =
                Action::Call(JobId(1), Box::new(UserCommand { purpose, by_operator, aim, target, term, reason }));
            let Action::Call(_, command) = reasons.explain(call, Time(1_000)) else { panic!("another action") };
            command.reason
        };
        let failed = CoreMessage::InstanceFailed { how: "died" };
        let would = CoreMessage::WouldHave { what: "switch", why: Cause::StandbyFailed };
        assert_eq!(reasons.cause_of(&failed, Time(1_000)), None);
        reasons.reported(Server::First, "data", Time(900));
        let (whole, hook) = ("so; no space left on server \"nd1\" (data)", Purpose::Hook);
        assert_eq!(reason(&mut reasons, hook(Hook::PostSwitch), Server::Second, false), whole);
        assert_eq!(reason(&mut reasons, hook(Hook::PreDetach), Server::First, false), whole);
        assert_eq!(reason(&mut reasons, Purpose::Fencing, Server::First, false), whole);
        assert_eq!(reason(&mut reasons, hook(Hook::PostAttach), Server::First, false), "so");
        assert_eq!(reason(&mut reasons, hook(Hook::PreDetach), Server::First, true), "so");
        assert_eq!(reasons.cause_of(&failed, Time(1_000)), None, "it is the disk of the other server");
        assert_eq!(reasons.cause_of(&would, Time(1_000)).as_deref(), Some("no space left on server \"nd1\" (data)"));
        reasons.reported(Server::Second, "tran_log", Time(900));
        let own = Some("no space left on server \"nd2\" (tran_log)");
        assert_eq!(reasons.cause_of(&failed, Time(1_000)).as_deref(), own);
    }

    #[test]
    fn a_full_disk_is_part_of_the_reason() {
        let takes_over = view(4, Mode::Degraded, Server::Second);
        let so = || Reason::own("so");
        let check = |full, heard_ms, to, expected: &str| assert_eq!(reason(full, heard_ms, to, so()), expected);
        check("data, management", 9_900, takes_over, "so; no space left on server \"nd1\" (data)");
        check("", 9_900, takes_over, "so");
        // It writes its ledger.
        check("management", 9_900, takes_over, "so");
        check("management", 8_000, takes_over, "so; no space left on server \"nd1\" (management)");
        // The primary continues.
        check("data", 9_900, view(4, Mode::Degraded, Server::First), "so");
        check("data", 9_900, view(4, Mode::Mirrored, Server::Second), "so");
        let known = Reason::reported(Who::OtherServer, "so; no space left on server \"nd1\" (tran_log)");
        assert_eq!(reason("data", 9_900, takes_over, known.clone()), known.to_string());
        let reported = Reason::requested(Who::OtherServer, "");
        let expected = "no space left on server \"nd1\" (data); requested by the other server";
        assert_eq!(reason("data", 9_900, takes_over, reported), expected);
    }
}
