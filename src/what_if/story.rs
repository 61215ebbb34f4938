//! One prediction: the world is run until it is as it is now, something fails, and what follows is told.

mod outcome;

pub use outcome::Verdict;

use super::world::{Said, Service, World};
use super::{Fault, Names};
use crate::fsm::event::CoreMessage;
use crate::fsm::present::Present;
use crate::fsm::report::{Progress, Report, Word};
use crate::fsm::types::{Member, Mode, Server, Term, Time, View};
use serde::{Deserialize, Serialize};

/// The most steps that are told.
const MOST_STEPS: usize = 80;
/// What is looked at at a time, ms.
const SLICE_MS: u64 = 500;
/// No part of a prediction goes further than this, ms.
const FURTHEST_MS: u64 = 1_800_000;

/// Something that happens, or that somebody says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Step {
    /// Which of the faults it follows, from 0.
    pub fault: usize,
    /// How long after that, ms.
    pub at_ms: u64,
    /// Who says it; `None` for what happens to the pair or its clients.
    pub who: Option<Member>,
    /// What.
    pub text: String,
    /// The number of the message, where it is one.
    pub message: Option<u32>,
}

/// What would happen.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Prediction {
    /// What fails, one after the other.
    pub faults: Vec<Fault>,
    /// What it comes to.
    pub verdict: Verdict,
    /// The same in a sentence or two.
    pub summary: String,
    /// The reason of the last decision.
    pub why: String,
    /// For how long no commit is acknowledged after the last fault, ms; `None`: without end.
    pub interrupted_ms: Option<u64>,
    /// Some view is entered without the consent that the safety argument needs, or both servers acknowledge.
    pub without_consent: bool,
    /// What happens, in order.
    pub steps: Vec<Step>,
    /// What an operator should know or do then, and what follows when what has failed is back.
    pub then: Vec<String>,
    /// What the prediction leans on.
    pub remarks: Vec<String>,
    /// What the server that serves, or else another one that is left, reports in the end.
    pub report: Report,
    /// When that is, in the time of the report.
    pub now: Time,
}

/// What would happen if these failed one after the other, each when what the one before has led to is over.
///
/// # Errors
/// There is no view yet, so that nothing can be told.
pub fn predict(present: &Present, faults: &[Fault], names: &Names<'_>) -> Result<Prediction, String> {
    if present.report.view.is_none() {
        return Err("this server has no view of the pair yet, so that no prediction is possible".to_owned());
    }
    let mut story = Story::begin(present, names);
    if let Err(why) = story.suffer_all(faults) {
        return Ok(story.impossible(faults, why));
    }
    let mut prediction = story.end(faults);
    let last = faults.last().filter(|fault| **fault != Fault::Back);
    if let (false, Some(fault)) = (present.report.failover, last) {
        prediction.then.extend(with_failover(present, faults, *fault, names));
    }
    Ok(prediction)
}

/// What would be different if automatic switch and disconnection were enabled.
fn with_failover(present: &Present, faults: &[Fault], last: Fault, names: &Names<'_>) -> Option<String> {
    let mut story = Story::begin(present, names);
    story.world.enable_failover();
    story.run_until_quiet();
    story.suffer_all(faults).ok()?;
    let (_, summary) = story.verdict(last);
    Some(format!("with automatic switch and disconnection enabled (mc_ctl enable-failover): {summary}"))
}

struct Story<'a> {
    names: &'a Names<'a>,
    world: World,
    remarks: Vec<String>,
    steps: Vec<Step>,
    /// The longest detection time of either server, ms.
    detection_ms: u64,
    /// `startup_wait` of this server, ms.
    startup_wait_ms: u64,
    /// Some view was entered without consent.
    forced: bool,
    /// Both servers have acknowledged at a time.
    both: bool,
    // of the last fault
    at: Time,
    primary: usize,
    before: [Service; 2],
    view_before: Option<View>,
    said_from: usize,
    served_from: usize,
}

impl<'a> Story<'a> {
    /// The world as it is now, and remarks where it is not quite that.
    fn begin(present: &Present, names: &'a Names<'a>) -> Story<'a> {
        let world = World::new(present);
        let detection = |s: &crate::fsm::event::Settings| {
            s.heartbeat_detection_ms.max(s.instance_detection_ms).max(s.disk_detection_ms)
        };
        let mut story = Story {
            names,
            detection_ms: world.settings.iter().map(detection).max().unwrap_or_default(),
            startup_wait_ms: present.settings.startup_wait_ms,
            at: world.now,
            primary: 0,
            before: [Service::None; 2],
            view_before: None,
            said_from: 0,
            served_from: 0,
            forced: false,
            both: false,
            steps: Vec::new(),
            remarks: Vec::new(),
            world,
        };
        story.warm_up(present);
        story
    }

    fn warm_up(&mut self, present: &Present) {
        let other = self.names.of(present.settings.me.other().index());
        let me = present.settings.me.index();
        let peer = &present.peer;
        let remark = match &peer.heartbeat {
            Some(_) if peer.talks => None,
            _ if peer.lives => {
                Some(format!("the controller of {other} is assumed to be stopped: it sends no heartbeat"))
            }
            None if !self.world.is_known(1 - me) => Some(format!("the state of {other} is unknown: it is ignored")),
            None => Some(format!(
                "{other} has sent no heartbeat since this server's controller was started: it is assumed to be stopped, and to \
                 have the role that this server's ledger records"
            )),
            Some(_) if peer.refuses => {
                Some(format!("{other} is assumed to be stopped: its host refuses connections to its controller"))
            }
            Some(_) => Some(format!("{other} is assumed to have failed: it sends no heartbeat")),
        };
        self.remarks.extend(remark);
        if present.settings.arbiter && present.arbiter.is_none_or(|arbiter| !arbiter.heard) {
            self.remarks.push(format!("{} is assumed to have failed: it sends no heartbeat", self.names.arbiter));
        }
        // An arbiter that was just started consents to nothing before it has listened for a detection time.
        let listen_ms = self.detection_ms.saturating_add(SLICE_MS * 4).min(FURTHEST_MS);
        self.world.run_until(self.world.now.plus(listen_ms));
        let was = key(&present.report);
        let is = |world: &World| world.node(me).map(|node| node.report(world.now));
        for _ in 0..10 {
            if is(&self.world).as_ref().map(key) == Some(was) {
                return;
            }
            self.world.run_until(self.world.now.plus(SLICE_MS * 2));
        }
        let is = is(&self.world);
        let now = is.as_ref().map_or("no controller".to_owned(), |report| {
            format!("{} and {}", report.word.text(), self.names.view(report.view))
        });
        self.remarks.push(format!(
            "the present state ({} and {}) is not stable in the model: it becomes {now} before the fault; the prediction is \
             less certain",
            present.report.word.text(),
            self.names.view(present.report.view)
        ));
    }

    /// One after the other, up to one that cannot happen.
    fn suffer_all(&mut self, faults: &[Fault]) -> Result<(), String> {
        for (number, fault) in faults.iter().enumerate() {
            if let Some(why) = self.world.obstacle(*fault, self.names) {
                return Err(why);
            }
            self.suffer(number, *fault);
        }
        Ok(())
    }

    fn suffer(&mut self, number: usize, fault: Fault) {
        self.primary = self.world.primary();
        self.at = self.world.now;
        self.before = self.world.service();
        self.view_before = self.world.view();
        self.said_from = self.world.said.len();
        self.served_from = self.world.serves.len();
        let text = self.world.what_fails(fault, self.names);
        self.steps.push(Step { fault: number, at_ms: 0, who: None, text, message: None });
        self.world.inject(fault);
        self.run_until_quiet();
        self.tell(number);
    }

    /// Until nothing has happened for long enough that nothing more is to be expected.
    fn run_until_quiet(&mut self) {
        let began = self.world.now;
        // A standby waits for the first heartbeat of its primary after a start.
        let startup_ms = if self.world.lacks_first_heartbeat() { self.startup_wait_ms } else { 0 };
        let quiet_ms =
            self.detection_ms.saturating_mul(3).max(startup_ms).saturating_add(2_000).clamp(8_000, FURTHEST_MS);
        let limit_ms = self.detection_ms.saturating_mul(25).saturating_add(120_000).min(FURTHEST_MS);
        loop {
            self.world.run_until(self.world.now.plus(SLICE_MS));
            let said = self.world.said.iter().rev().find(|said| is_told(&said.say)).map(|said| said.at);
            let served = self.world.serves.last().map(|(at, _)| *at);
            let last = said.max(served).unwrap_or(began).max(began);
            let (now, both) = (self.world.now, self.world.service().iter().all(|s| s.acknowledges()));
            self.both |= both;
            if now.since(last) >= quiet_ms || now.since(began) >= limit_ms {
                return;
            }
        }
    }

    // ------------------------------------------------------------------------------------------------------- telling

    /// What has happened since the last fault, as steps.
    fn tell(&mut self, fault: usize) {
        let mut lines: Vec<Step> = Vec::new();
        let begun = self.view_before.map(|view| view.term);
        let mut viewed: Vec<Term> = Vec::new();
        let mut lost: Vec<(Member, Time)> = Vec::new();
        for Said { at, who, say } in &self.world.said[self.said_from..] {
            if !is_told(say) {
                continue;
            }
            if let CoreMessage::View { to, .. } = say {
                self.forced |= to.forced && Some(to.term) > begun;
                // Who enters a view first has decided; the others learn of it.
                if Some(to.term) <= begun || viewed.contains(&to.term) {
                    continue;
                }
                viewed.push(to.term);
            }
            // That heartbeats are lost was just said together with what is done about it.
            if matches!(say, CoreMessage::Decided { .. }) && lost.contains(&(*who, *at)) {
                continue;
            }
            let (text, message) = (self.names.message)(*who, say);
            let same = |line: &Step| line.who == Some(*who) && line.text == text;
            if !lines.iter().any(same) {
                if matches!(say, CoreMessage::HeartbeatLost { .. }) {
                    lost.push((*who, *at));
                }
                let at_ms = at.since(self.at);
                lines.push(Step { fault, at_ms, who: Some(*who), text, message: Some(message) });
            }
        }
        let mut was = self.before;
        for (at, now) in &self.world.serves[self.served_from..] {
            let text = self.service_text(was, *now);
            was = *now;
            if !text.is_empty() {
                lines.push(Step { fault, at_ms: at.since(self.at), who: None, text, message: None });
            }
        }
        lines.sort_by_key(|line| line.at_ms);
        self.steps.extend(lines);
        if self.steps.len() > MOST_STEPS {
            self.steps.truncate(MOST_STEPS);
            let text = "and so on".to_owned();
            let at_ms = self.steps.last().map_or(0, |step| step.at_ms);
            self.steps.push(Step { fault, at_ms, who: None, text, message: None });
        }
    }

    fn service_text(&self, was: [Service; 2], now: [Service; 2]) -> String {
        let who = |wanted: Service| (0..2).find(|m| now[*m] == wanted).map(|m| self.names.of(m));
        let serves = |at: [Service; 2]| at.map(|service| service == Service::Serves);
        if now.iter().all(|service| service.acknowledges()) {
            return "both servers acknowledge commits".to_owned();
        }
        match (who(Service::Serves), who(Service::Apart), who(Service::Waits)) {
            (Some(_), _, _) if serves(was) == serves(now) => String::new(),
            (Some(id), _, _) => format!("{id} acknowledges commits"),
            (None, Some(id), _) => {
                format!("{id} acknowledges commits, but only clients on its own network segment can connect")
            }
            (None, None, Some(id)) => format!("commits on {id} wait"),
            (None, None, None) => "no server accepts commits".to_owned(),
        }
    }

    fn impossible(self, faults: &[Fault], why: String) -> Prediction {
        let report = self.report().unwrap_or_else(|| nobody(self.world.me));
        Prediction {
            faults: faults.to_vec(),
            verdict: Verdict::Impossible,
            summary: why,
            why: String::new(),
            interrupted_ms: Some(0),
            without_consent: false,
            steps: self.steps,
            then: Vec::new(),
            remarks: self.remarks,
            report,
            now: self.world.now,
        }
    }

    fn end(mut self, faults: &[Fault]) -> Prediction {
        let last = faults.last().copied().unwrap_or(Fault::Back);
        let (verdict, summary) = self.verdict(last);
        let (gap_ms, ends) = self.interruption();
        let why = self.why();
        let report = self.report().unwrap_or_else(|| nobody(self.world.me));
        let now = self.world.now;
        let without_consent = self.forced || self.both;
        let mut then = self.advice();
        if last != Fault::Back && self.world.is_broken() {
            then.push(self.afterwards());
        }
        if self.world.called {
            self.remarks.push(
                "fencing_command is assumed to succeed within 0.5 s, and arbitration_command to return the true state"
                    .to_owned(),
            );
        }
        if self.world.rebuilt {
            self.remarks.push(
                "a rebuild is assumed to take 5 s; its real duration depends on the amount of data to copy".to_owned(),
            );
        }
        Prediction {
            faults: faults.to_vec(),
            verdict,
            summary,
            why,
            interrupted_ms: ends.then_some(gap_ms),
            without_consent,
            steps: self.steps,
            then,
            remarks: self.remarks,
            report,
            now,
        }
    }

    /// What follows when everything is repaired and started.
    fn afterwards(&mut self) -> String {
        let steps = self.steps.len();
        self.suffer(0, Fault::Back);
        self.steps.truncate(steps);
        let words = self.report().map_or("nothing", |report| report.word.text());
        let advice = self.advice();
        let advice = if advice.is_empty() { "no action is required".to_owned() } else { advice.join("; ") };
        let serving = self.world.service().iter().position(|service| *service == Service::Serves);
        let primary =
            serving.map_or("no primary serves".to_owned(), |m| format!("{} is the primary", self.names.of(m)));
        format!("after all failures are repaired and all members are started: {words}, {primary}; {advice}")
    }
}

/// What has to agree for a state to be the same.
fn key(report: &Report) -> (Word, Option<(Server, Mode)>) {
    (report.word, report.view.map(|view| (view.primary, view.mode)))
}

/// What belongs into a short story: causes, decisions and their effects, not what everybody else notices.
fn is_told(say: &CoreMessage) -> bool {
    match say {
        CoreMessage::View { .. }
        | CoreMessage::HeartbeatLost { .. }
        | CoreMessage::PeerAlive
        | CoreMessage::InstanceFailed { .. }
        | CoreMessage::DiskFailed(_)
        | CoreMessage::StandbyStalled
        | CoreMessage::WouldHave { .. }
        | CoreMessage::Decided { .. }
        | CoreMessage::PromotionCompleted
        | CoreMessage::Disconnected
        | CoreMessage::Mirrored
        | CoreMessage::HandOverFailed(_)
        | CoreMessage::JobFailed { .. }
        | CoreMessage::Inactivated { .. }
        | CoreMessage::RebuildNeeded
        | CoreMessage::RebuildBegun(_)
        | CoreMessage::RebuildEnded
        | CoreMessage::RebuildFailed(_)
        | CoreMessage::RebuildRetried { .. }
        | CoreMessage::RebuildAbandoned
        | CoreMessage::NotEligible(_)
        | CoreMessage::WentBack { .. }
        | CoreMessage::NotContained { .. }
        | CoreMessage::NoneHoldsAll { .. }
        | CoreMessage::CannotHandOver
        | CoreMessage::LeftDown
        | CoreMessage::StartRetried
        | CoreMessage::WillNotStart(_)
        | CoreMessage::CommitsWait
        | CoreMessage::Split { .. }
        | CoreMessage::SplitElsewhere { .. }
        | CoreMessage::Isolated
        | CoreMessage::AwaitsMember
        | CoreMessage::AsksArbiterLater { .. }
        | CoreMessage::Weakened(_)
        | CoreMessage::Calling(_)
        | CoreMessage::CallFailed { .. }
        | CoreMessage::HookCalled(_)
        | CoreMessage::ArbiterLost
        | CoreMessage::NotConsented
        | CoreMessage::NotGranted { .. } => true,
        CoreMessage::HeartbeatBack
        | CoreMessage::InstanceWell
        | CoreMessage::InstanceClosed
        | CoreMessage::DiskWell
        | CoreMessage::PromotionStarted
        | CoreMessage::NamesChanged
        | CoreMessage::Paused { .. }
        | CoreMessage::FailoverSet(_)
        | CoreMessage::StoreFailed(_)
        | CoreMessage::OtherSystem { .. }
        | CoreMessage::ArbiterOfOtherSystem { .. }
        | CoreMessage::DataReplaced { .. }
        | CoreMessage::Detached(_)
        | CoreMessage::Called(_)
        | CoreMessage::HookDone(_)
        | CoreMessage::HookCalledOff(_)
        | CoreMessage::HookFailed { .. }
        | CoreMessage::ArbiterBack
        | CoreMessage::Renamed { .. }
        | CoreMessage::ServerHeard { .. } => false,
    }
}

/// Nobody is left to tell anything.
fn nobody(me: Server) -> Report {
    let progress = Progress::Waiting("a controller".to_owned());
    Report { progress, rebuild_from: Err("no controller is left".to_owned()), ..Report::blank(me) }
}
