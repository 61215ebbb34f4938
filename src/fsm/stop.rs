//! The stop of a controller, with or without its instance, and of both servers.

use super::event::{Action, Job, Reply, Request};
use super::facts::Standing;
use super::node::Node;
use super::observed::Running;
use super::operator::{Asker, Op, Stage};

impl Node {
    pub(super) fn operate_stop(&mut self, op: &Op, instance: bool, all: bool, late: bool) {
        match op.stage {
            Stage::Fresh if !instance && !all => self.leave_now(),
            Stage::Fresh => self.begin_stop(op, all),
            Stage::Passed if late || !self.peer_talks(self.settings.heartbeat_detection_ms) => self.stop_instance(),
            Stage::Switching if self.switched() => self.stop_instance(),
            Stage::Switching if self.hand_overs.current.is_none() && self.standing() == Some(Standing::Primary) => {
                self.requests.stopping = false;
                self.end(Reply::Failed(
                    "the switch before the stop did not succeed; nothing was stopped and the primary continues"
                        .to_owned(),
                ));
            }
            Stage::Switching if late => {
                self.requests.stopping = false;
                self.call_off();
                self.end(Reply::TimedOut(self.how_things_stand()));
            }
            Stage::Stopping if !instance || self.own.running == Running::Down && !self.work.busy() => {
                if all && matches!(op.asker, Asker::Here(_)) && self.standing_leads() {
                    self.stage(Stage::StoppingPeer);
                    self.ask_peer(op);
                } else {
                    self.leave_now();
                }
            }
            Stage::Stopping if late => {
                self.requests.stopping = false;
                self.end(Reply::TimedOut("the instance has not stopped in time".to_owned()));
            }
            Stage::Stopping => self.run_stop(op),
            Stage::StoppingPeer if late || !self.peer_talks(self.settings.heartbeat_detection_ms) => {
                self.finish_stop(Reply::Failed(
                    "this server is stopped, but the other server's controller did not respond".to_owned(),
                ));
            }
            Stage::Leaving => self.end_stop(),
            _ => {}
        }
    }

    pub(super) fn begin_stop(&mut self, op: &Op, all: bool) {
        self.requests.stopping = true;
        self.proposals.current = None;
        let talks = self.peer_talks(self.settings.heartbeat_detection_ms);
        let here = matches!(op.asker, Asker::Here(_));
        match self.standing() {
            Some(Standing::Standby) if all && here && talks => self.pass_on(op),
            Some(Standing::Inactivated) if all && here && talks => self.pass_on(op),
            Some(Standing::Standby) if !all && talks => {
                let mut detach = op.clone();
                detach.request = Request::Detach;
                self.pass_on(&detach);
                self.stage(Stage::Passed);
            }
            Some(Standing::Primary)
                if !all && self.store.notes.failover.enabled && self.switch_obstacle().is_none() =>
            {
                self.begin_hand_over(true, op.limit_ms);
                self.stage(Stage::Switching);
            }
            Some(_) | None => self.stop_instance(),
        }
    }

    pub(super) fn standing_leads(&self) -> bool {
        self.view().is_some_and(|view| view.primary == self.me())
    }

    pub(super) fn stop_instance(&mut self) {
        self.requests.stopping = true;
        self.stage(Stage::Stopping);
    }

    pub(super) fn run_stop(&mut self, op: &Op) {
        self.interrupt_rebuild();
        if self.work.busy() {
            return;
        }
        match self.own.running {
            Running::Unknown if !self.work.unread => {
                if self.now >= self.work.retry_at() {
                    self.run(Job::Inspect);
                }
            }
            // The job finds the processes itself, so the data directory need not be readable.
            Running::Unknown | Running::Up | Running::Dead => {
                let left = op.until.since(self.now);
                let names = self.names_for_stop();
                self.run(Job::Stop { fast_ms: (left * 2 / 3).max(1_000), names });
            }
            Running::Down => {}
        }
    }

    /// The last step of a stop: noted durably, reported, and ended.
    pub(super) fn leave_now(&mut self) {
        self.finish_stop(Reply::Done);
    }

    pub(super) fn finish_stop(&mut self, reply: Reply) {
        let Some(op) = self.requests.current.as_mut() else { return };
        op.last = Some(reply);
        self.stage(Stage::Leaving);
        self.requests.stopping = true;
        self.end_stop();
    }

    /// Out, once no hook runs any more: it has its own time limit, and the instance is what it is to be already.
    pub(super) fn end_stop(&mut self) {
        let waits = |op: &Op, now| self.calls.running().is_some() && now < op.until;
        if self.requests.current.as_ref().is_some_and(|op| waits(op, self.now)) {
            return;
        }
        let Some(op) = self.requests.current.take() else { return };
        let reply = op.last.unwrap_or(Reply::Done);
        if matches!(op.request, Request::Stop { instance: true, .. }) {
            self.store.notes.wanted = false;
            self.write(None);
        }
        self.reply_when_stored(op.asker, reply);
        self.hold(Action::Exit);
    }
}
