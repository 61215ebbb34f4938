//! The present state of a node, as a copy to continue from in virtual time ([`crate::what_if`]).
//!
//! Only reads. The copy is the node itself, with what it knows of the world around it: the caller that steps it has to make up
//! that world.

use super::decide::Decision;
use super::event::{DataDir, Heartbeat, Instance, Job, JobId, Settings, UserCommand};
use super::node::Node;
use super::observed::{DownReason, Failure, Running};
use super::report::Report;
use super::types::{LedgerId, Term, Time, View};

/// A node, and what it knows.
#[derive(Clone, Debug)]
pub struct Present {
    /// The node: to be stepped on from [`Present::now`].
    pub node: Node,
    /// The time of its last step.
    pub now: Time,
    /// Its settings.
    pub settings: Settings,
    /// What operators see.
    pub report: Report,
    /// Its `application_name`.
    pub name: String,
    /// `host:port` of its instance.
    pub address: String,
    /// Names the operator's start.
    pub start_id: u64,
    /// The other server's `application_name`.
    pub peer_name: String,
    /// Its instance and disks.
    pub own: OwnPresent,
    /// The job that is out: an answer to it is expected.
    pub job: Option<(JobId, Job)>,
    /// The commands of the operator's that run: answers to them are expected.
    pub calls: Vec<(JobId, UserCommand)>,
    /// The other server.
    pub peer: PeerPresent,
    /// The arbiter; `None` if nothing was ever received from it.
    pub arbiter: Option<ArbiterPresent>,
}

/// The own instance and disks.
#[derive(Clone, Debug)]
pub struct OwnPresent {
    /// The data directory as last read; `None` where it could not be.
    pub data: Option<DataDir>,
    /// The postmaster lives.
    pub runs: bool,
    /// The last reading with a role.
    pub role: Option<Instance>,
    /// Names the run of a primary's instance, if it runs as one.
    pub incarnation: Option<u64>,
    /// A standby's `synchronous_standby_names` is commented out.
    pub freed: bool,
    /// It lives, and does not answer.
    pub silent: bool,
    /// It answers, but does not let the controller in.
    pub closed: bool,
    /// It did not stay up, and is left down.
    pub left_down: bool,
    /// What has failed of the disks; empty for nothing.
    pub disk: String,
}

/// The other server, as it last reported itself.
#[derive(Clone, Debug)]
pub struct PeerPresent {
    /// Its last heartbeat; `None` if none has arrived since this controller was started.
    pub heartbeat: Option<Heartbeat>,
    /// Heartbeats arrive in both directions, and its host has not refused a connection since.
    pub talks: bool,
    /// Its heartbeats are missing, but its instance lives.
    pub lives: bool,
    /// Its host refuses connections to its controller's port.
    pub refuses: bool,
    /// Its host refuses connections to its instance's port as well.
    pub instance_refuses: bool,
}

/// The arbiter, as it last reported itself.
#[derive(Clone, Copy, Debug)]
pub struct ArbiterPresent {
    /// Its heartbeats arrive.
    pub heard: bool,
    /// Its ledger's id, if it has one.
    pub id: Option<LedgerId>,
    /// The highest term that it has promised.
    pub promised: Term,
    /// Its view.
    pub view: Option<View>,
}

impl Node {
    /// A copy to continue from; `None` before the first event, and while something is being written.
    pub fn present(&self) -> Option<Present> {
        if self.id.booted_at.is_none() || !self.settled() {
            return None;
        }
        let detection_ms = self.settings.heartbeat_detection_ms;
        Some(Present {
            node: self.clone(),
            now: self.now,
            settings: self.settings.clone(),
            report: self.report(self.now),
            name: self.id.name.clone(),
            address: self.id.address.clone(),
            start_id: self.id.start_id,
            peer_name: self.id.peer_name.clone(),
            own: OwnPresent {
                data: self.own.data,
                runs: match self.own.running {
                    Running::Up => true,
                    Running::Down | Running::Dead => false,
                    Running::Unknown => self.own.data.is_some_and(|data| data.running),
                },
                role: self.own.role,
                incarnation: self.wal_report().incarnation,
                freed: self.own.freed,
                silent: self.own.silent || self.own.failed == Some(Failure::Silent),
                closed: self.own.closed,
                left_down: self.own.down_reasons.has(DownReason::DidNotStayUp),
                disk: self.own.disk_bad.clone(),
            },
            job: self.work.out(),
            calls: self.calls.under_way(),
            peer: PeerPresent {
                heartbeat: self.peer.heartbeat.as_deref().cloned(),
                talks: self.peer_talks(detection_ms) && self.peer.refused == 0,
                lives: self.peer.shows_life(self.now, detection_ms) && self.peer.instance_refused == 0,
                refuses: self.peer.refused > 0,
                instance_refuses: self.peer.instance_refused > 0,
            },
            arbiter: self.arbiter.heard_at.map(|_| ArbiterPresent {
                heard: self.arbiter_heard(detection_ms),
                id: self.arbiter.best.id,
                promised: self.arbiter.best.promised,
                view: self.arbiter.view,
            }),
        })
    }

    /// Whether a heartbeat of the other server has arrived since this controller was started.
    pub fn has_heard_peer(&self) -> bool {
        self.peer.heard_at.is_some()
    }

    /// The row of the decision table that holds now, and whether it may be carried out; `None` before the first.
    pub fn decided(&self) -> Option<(Decision, bool)> {
        self.announced.decision
    }
}
