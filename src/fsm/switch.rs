//! A planned switch that an operator asks for: it starts a hand-over and waits for its result.

use super::event::{Instance, Names, Reply, Role, Transient};
use super::facts::{Peer, Replication, Standing};
use super::node::Node;
use super::observed::Running;
use super::operator::{Asker, Op, Stage};

impl Node {
    pub(super) fn operate_switch(&mut self, op: &Op, late: bool) {
        match op.stage {
            Stage::Fresh if self.standing() == Some(Standing::Standby) && matches!(op.asker, Asker::Here(_)) => {
                self.pass_on_if_heard(op);
            }
            // Its standby holds what it has lost itself (PROTOCOL R13).
            Stage::Fresh if self.exchanged_under_mirror() && self.own.running == Running::Down => {
                self.begin_hand_over(false, op.limit_ms);
                self.stage(Stage::Switching);
            }
            Stage::Fresh if self.standby_learns() && !op.outlasts(self.now, self.settings.heartbeat_detection_ms) => {}
            Stage::Fresh => match self.switch_obstacle() {
                Some(why) => self.end(Reply::Refused(why)),
                None => {
                    self.begin_hand_over(true, op.limit_ms);
                    self.stage(Stage::Switching);
                }
            },
            Stage::Switching if self.switched() => self.end(Reply::Done),
            Stage::Switching if self.hand_overs.current.is_none() && self.standing() == Some(Standing::Primary) => {
                let why = &self.work.hand_over_failure;
                self.end(Reply::Failed(format!("the switch did not succeed: {why}; the primary continues to serve")));
            }
            _ if late => {
                self.call_off();
                self.end(Reply::TimedOut(self.how_things_stand()));
            }
            _ => {}
        }
    }

    /// Nothing is switched after the operator has received that the time limit is over.
    pub(super) fn call_off(&mut self) {
        if self.hand_overs.current.as_ref().is_some_and(|hand_over| hand_over.planned) {
            self.hand_over_failed("its time limit was reached");
        }
    }

    pub(super) fn switched(&self) -> bool {
        let promoted = self.peer.heartbeat.as_ref().is_some_and(|told| told.role == Role::Primary);
        self.standing() == Some(Standing::Inactivated) && promoted
    }

    /// Whether the pair has just become mirrored, and the standby has not reported that yet.
    pub(super) fn standby_learns(&self) -> bool {
        let reported = self.peer.heartbeat.as_ref().and_then(|reported| reported.ledger);
        let older = reported.zip(self.view()).is_some_and(|(ledger, view)| ledger.view.term < view.term);
        older && self.standing() == Some(Standing::Primary)
    }

    /// Why a planned switch is refused, if it is.
    pub(super) fn switch_obstacle(&self) -> Option<String> {
        let facts = match self.facts() {
            None => return Some("this server has no view of the pair yet".to_owned()),
            Some(facts) => facts,
        };
        let told = self.peer.heartbeat.as_ref();
        let peer_ledger = told.and_then(|told| told.ledger);
        let eligible = peer_ledger.zip(self.view()).is_some_and(|(ledger, view)| {
            ledger.view == view && Some(ledger.data.id) == view.data[self.other().index()]
        });
        let row = match self.own.role {
            Some(Instance::Primary { standby: Some(row), names: Names::Peer, .. }) => row.streaming && row.sync,
            _ => false,
        };
        let detached = self.detached() || told.is_some_and(|told| told.detached);
        if facts.standing != Standing::Primary && detached {
            return Some("the standby was detached; \"mc_ctl start\" on the standby attaches it".to_owned());
        }
        if facts.standing != Standing::Primary {
            return Some("the pair is not mirrored; \"mc_ctl status\" shows the reason".to_owned());
        }
        if facts.peer != Peer::Healthy {
            return Some("the standby's controller does not respond, or reports a failure".to_owned());
        }
        if !eligible {
            return Some("the standby's data directory is not the one that the view names".to_owned());
        }
        if facts.replication != Replication::Streaming || !row || told.is_none_or(|told| told.role != Role::Standby) {
            return Some("the standby does not stream synchronously".to_owned());
        }
        if self.hand_overs.current.is_some() || self.work.busy() && self.work.starts_or_stops() {
            return Some(Transient::UnderWay.text().to_owned());
        }
        None
    }
}
