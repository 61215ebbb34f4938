//! A disconnection of the standby that an operator asks for.

use super::cause::Cause;
use super::event::{CoreMessage, Reply};
use super::facts::Standing;
use super::node::Node;
use super::operator::{Asker, Op, Stage};
use super::types::Time;

impl Node {
    pub(super) fn operate_detach(&mut self, op: &Op, late: bool) {
        match op.stage {
            Stage::Fresh if matches!(op.asker, Asker::Here(_)) && self.standing() == Some(Standing::Standby) => {
                self.pass_on_if_heard(op);
            }
            // The command receives the term of a view that is durable.
            Stage::Fresh if !self.settled() && !late => {}
            Stage::Fresh => match self.standing() {
                Some(Standing::Primary) if self.peer_talks(self.settings.heartbeat_detection_ms) => {
                    self.announce_or_detach(self.now.plus(op.limit_ms / 2));
                }
                Some(Standing::Primary) => {
                    self.end(Reply::Refused(
                        "the standby's controller does not respond, so it cannot consent".to_owned(),
                    ));
                }
                Some(Standing::Alone) => {
                    self.note_detached();
                    self.stage(Stage::Releasing);
                }
                Some(Standing::Inactivated | Standing::Standby) | None => {
                    self.end(Reply::Refused("the standby is already disconnected, or there is no view yet".to_owned()));
                }
            },
            Stage::Announcing(_) | Stage::Detaching if self.standing() == Some(Standing::Alone) => {
                self.note_detached();
                self.stage(Stage::Releasing);
            }
            Stage::Announcing(_) if self.standing() != Some(Standing::Primary) => {
                self.end(Reply::Failed(self.how_things_stand()));
            }
            Stage::Announcing(until) => self.announce_or_detach(until),
            Stage::Detaching if late => {
                self.proposals.current = None;
                self.take_back();
                self.end(Reply::TimedOut("the standby did not consent in time".to_owned()));
            }
            Stage::Detaching if !self.peer_talks(self.settings.heartbeat_detection_ms) => {
                self.proposals.current = None;
                self.take_back();
                self.end(Reply::Failed("the standby's controller no longer responds; see mc_ctl status".to_owned()));
            }
            Stage::Detaching => self.propose(self.peer_member(), Cause::OperatorDetached),
            Stage::Releasing if self.released() => {
                self.say(CoreMessage::Detached(true));
                self.end(Reply::Done);
            }
            _ if late => self.end(Reply::TimedOut(self.how_things_stand())),
            _ => {}
        }
    }

    /// Disconnects the standby when the command has ended, or after half of the time limit, even if the command fails.
    pub(super) fn announce_or_detach(&mut self, until: Time) {
        if self.now < until && self.announces() {
            self.stage(Stage::Announcing(until));
        } else {
            self.stage(Stage::Detaching);
            self.propose(self.peer_member(), Cause::OperatorDetached);
        }
    }
}
