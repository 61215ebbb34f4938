//! Views that an operator forces, without the consent of another member (PROTOCOL section 6).

use super::calls::GateResult;
use super::cause::Cause;
use super::event::{Instance, Names, Purpose, Reply, Request, Role, Transient};
use super::facts::{Peer, Standing};
use super::node::Node;
use super::node_report::Reporter;
use super::observed::{DownReason, Running};
use super::operator::{Asker, Op, Stage};

impl Node {
    /// Enters a view without consent, as the operator has ordered. The operator has confirmed the risk.
    pub(super) fn operate_force(&mut self, op: &Op, late: bool) {
        match op.stage {
            Stage::Fresh | Stage::Fencing => match self.force_obstacle(op) {
                Some(why) => self.end(Reply::Refused(why)),
                None if late => self.end(Reply::TimedOut("the other server was not fenced in time".to_owned())),
                None if self.wants_fencing(op.request) => self.fence_then_force(op),
                None => self.force(op.request),
            },
            _ if !self.settled() => {}
            Stage::Releasing if op.request == Request::AdoptData => self.end(Reply::Done),
            Stage::Releasing if self.released() && self.own_role() == Role::Primary => self.end(Reply::Done),
            _ if late => self.end(Reply::TimedOut(self.how_things_stand())),
            _ => {}
        }
    }

    pub(super) fn wants_fencing(&self, request: Request) -> bool {
        let asked = matches!(request, Request::ForceSwitch { fencing: true } | Request::ForceDetach { fencing: true });
        asked && self.settings.fencing
    }

    pub(super) fn fence_then_force(&mut self, op: &Op) {
        if op.stage == Stage::Fresh {
            self.calls.forget_operators();
            self.stage(Stage::Fencing);
        }
        match self.clear(Purpose::Fencing, true, Cause::OperatorRequested) {
            GateResult::Awaited => {}
            GateResult::Given => self.force(op.request),
            GateResult::Denied(why) => {
                self.end(Reply::Failed(format!(
                    "the other server was not fenced, and nothing was changed: {why}; if it is \
                                                confirmed down and stays down, add --no-fencing"
                )));
            }
        }
    }

    pub(super) fn force(&mut self, request: Request) {
        match request {
            Request::AdoptData => self.adopt_data(),
            Request::ForceSwitch { .. } => self.take_alone(true, Cause::OperatorForcedSwitch),
            _ => self.take_alone(true, Cause::OperatorForcedDetach),
        }
        self.stage(Stage::Releasing);
    }

    pub(super) fn force_obstacle(&self, op: &Op) -> Option<String> {
        if matches!(op.asker, Asker::Peer(_)) {
            return Some("--force is accepted only from an operator on this server".to_owned());
        }
        if !self.settled() || self.hand_overs.current.is_some() {
            return Some(Transient::UnderWay.text().to_owned());
        }
        if op.request == Request::AdoptData {
            return self.adopt_obstacle();
        }
        let (wanted, verb) = match op.request {
            Request::ForceSwitch { .. } => (Standing::Standby, "switch"),
            _ => (Standing::Primary, "detach"),
        };
        if self.standing() != Some(wanted) {
            let place = if wanted == Standing::Standby { "standby" } else { "primary" };
            return Some(format!(
                "{verb} --force requires the {place} of a mirrored pair; {}",
                self.how_things_stand()
            ));
        }
        if !self.eligible() {
            return Some("this data directory is not the one that the view names".to_owned());
        }
        if wanted == Standing::Standby && self.store.notes.unmirrored {
            return Some(format!(
                "{}: restore the other server, or run mc_ctl start --adopt-data if its data is lost",
                Cause::MayLackCommits
            ));
        }
        let consents = self.peer.heartbeat.as_ref().is_some_and(|told| told.ledger.is_some());
        if consents && self.peer_talks(self.patience_ms()) && self.peer_fact() == Peer::Healthy {
            return Some(format!("the other server's controller responds: use mc_ctl {verb} without --force"));
        }
        (!self.instance_allows_force()).then(|| "this server's instance is not running in its role".to_owned())
    }

    /// Whether the instance runs in its role, or the controller holds it back until a member responds. Force replaces that
    /// response.
    pub(super) fn instance_allows_force(&self) -> bool {
        let role = if self.standing() == Some(Standing::Standby) { Role::Standby } else { Role::Primary };
        let held_back = self.own.down_reasons.has(DownReason::Isolated) && self.own.running == Running::Down
            || self.awaits_member();
        held_back || self.own_role() == role
    }

    pub(super) fn adopt_obstacle(&self) -> Option<String> {
        let Some(data) = self.own.data else { return Some("the data directory cannot be read".to_owned()) };
        // What is known of it is older than the last job, for example than a rebuild that has failed.
        if self.own.running == Running::Unknown {
            let unread = self.work.unread.then_some("the data directory cannot be read");
            return Some(unread.unwrap_or(Transient::UnderWay.text()).to_owned());
        }
        if Some(data.system) != self.id.system {
            return Some("the data directory belongs to another cluster than the ledger of the pair".to_owned());
        }
        if data.incomplete || self.store.notes.rebuild.is_some() {
            return Some("a rebuild of the data directory has not ended".to_owned());
        }
        if self.holds_alone() && self.eligible() && !self.store.notes.lost_split {
            return Some("this server already has the right to run alone with this data directory".to_owned());
        }
        if self.peer_talks(self.patience_ms())
            && self.peer.heartbeat.as_ref().is_some_and(|told| told.role == Role::Primary)
        {
            return Some(Reporter(self).running_rival());
        }
        None
    }

    pub(super) fn holds_alone(&self) -> bool {
        self.view().is_some_and(|view| view.is_alone(self.me()))
    }

    pub(super) fn note_detached(&mut self) {
        self.store.notes.detached = Some(self.peer.heartbeat.as_ref().map_or(1, |told| told.start_id));
        self.write(None);
    }

    /// Whether no commit waits any more, or none can.
    pub(super) fn released(&self) -> bool {
        match self.own.role {
            Some(Instance::Primary { names, .. }) => names == Names::Unset && self.settled(),
            _ => self.own.running != Running::Up && self.settled(),
        }
    }
}
