//! One prediction: the world is run until it is as it is now, something fails, and what follows is told.

use super::world::{Said, Service, World};
use super::{Fault, Names};
use crate::fsm::decide::Intent;
use crate::fsm::event::Say;
use crate::fsm::present::Present;
use crate::fsm::report::{Progress, Report, Word};
use crate::fsm::types::{Member, Mode, Server, Term, Time, View};
use serde::{Deserialize, Serialize};

/// The most steps that are told.
const MOST_STEPS: usize = 80;
/// The most changes of view that are told in the reason.
const MOST_REASONS: usize = 3;
/// What is looked at at a time, ms.
const SLICE_MS: u64 = 500;
/// No part of a prediction goes further than this, ms.
const FURTHEST_MS: u64 = 1_800_000;
/// What is too short to be told, ms.
const NOTHING_MS: u64 = 10;

/// What it comes to, in a word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It cannot happen: there is no such thing, or it has failed already.
    Impossible,
    /// Clients notice nothing, and the roles stay.
    Unharmed,
    /// The primary goes on, or is started again.
    GoesOn,
    /// The other server takes over.
    TakesOver,
    /// A primary runs, and its commits wait until something is mended or an operator acts.
    CommitsWait,
    /// No server takes commits until something is mended or an operator acts.
    NoService,
    /// A server acknowledges commits, but only clients beside it reach it.
    CutOff,
    /// Both acknowledge commits.
    BothGoOn,
}

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
        return Err("this server has no view of the pair yet, so that nothing can be foretold".to_owned());
    }
    let mut story = Story::begin(present, names);
    for (number, fault) in faults.iter().enumerate() {
        if let Some(why) = story.world.obstacle(*fault, names) {
            return Ok(story.impossible(faults, why));
        }
        story.suffer(number, *fault);
    }
    let mut prediction = story.end(faults);
    let off = !present.report.failover && prediction.verdict != Verdict::Impossible;
    if off && let Some(fault) = faults.last().filter(|fault| **fault != Fault::Back) {
        prediction.then.extend(with_failover(present, faults, *fault, names));
    }
    Ok(prediction)
}

/// What would be different if automatic switch and disconnection were enabled.
fn with_failover(present: &Present, faults: &[Fault], last: Fault, names: &Names<'_>) -> Option<String> {
    let mut story = Story::begin(present, names);
    story.world.enable_failover();
    story.run_until_quiet();
    for (number, fault) in faults.iter().enumerate() {
        if story.world.obstacle(*fault, names).is_some() {
            return None;
        }
        story.suffer(number, *fault);
    }
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
    // of the last fault
    at: Time,
    primary: usize,
    before: [Service; 2],
    view_before: Option<View>,
    said_from: usize,
    served_from: usize,
    forced: bool,
    both: bool,
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
        match &present.peer {
            Some(peer) if peer.talks => {}
            Some(peer) if peer.lives => {
                self.remarks.push(format!("the controller of {other} is not heard: it is taken for ended"));
            }
            _ => self.remarks.push(format!("{other} is not heard: it is taken for dead")),
        }
        if present.settings.arbiter && present.arbiter.is_none_or(|arbiter| !arbiter.heard) {
            self.remarks.push(format!("{} is not heard: it is taken for dead", self.names.arbiter));
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
            "the present state ({} and {}) does not last in the model: before anything fails it becomes {now}; this is less \
             certain for that",
            present.report.word.text(),
            self.names.view(present.report.view)
        ));
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
        let quiet_ms = (self.detection_ms.saturating_mul(3).saturating_add(2_000)).clamp(8_000, FURTHEST_MS);
        let limit_ms = self.detection_ms.saturating_mul(25).saturating_add(120_000).min(FURTHEST_MS);
        loop {
            self.world.run_until(self.world.now.plus(SLICE_MS));
            let said = self.world.said.iter().rev().find(|said| is_told(&said.say)).map(|said| said.at);
            let served = self.world.serves.last().map(|(at, _)| *at);
            let last = said.max(served).unwrap_or(began).max(began);
            let (now, both) = (self.world.now, self.world.service().iter().all(|s| acknowledges(*s)));
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
        for Said { at, who, say } in &self.world.said[self.said_from..] {
            if !is_told(say) {
                continue;
            }
            if let Say::View { to, .. } = say {
                self.forced |= to.forced && Some(to.term) > begun;
                // Who enters a view first has decided; the others learn of it.
                if Some(to.term) <= begun || viewed.contains(&to.term) {
                    continue;
                }
                viewed.push(to.term);
            }
            // That heartbeats are lost was just said together with what is done about it.
            let said = |line: &Step| line.who == Some(*who) && line.at_ms == at.since(self.at);
            if matches!(say, Say::Decided { .. }) && lines.iter().any(|line| said(line) && line.message == Some(19)) {
                continue;
            }
            let (text, message) = (self.names.message)(*who, say);
            let same = |line: &Step| line.who == Some(*who) && line.text == text;
            if !lines.iter().any(same) {
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
        if now.iter().all(|service| acknowledges(*service)) {
            return "both servers acknowledge commits".to_owned();
        }
        match (who(Service::Serves), who(Service::Apart), who(Service::Waits)) {
            (Some(_), _, _) if serves(was) == serves(now) => String::new(),
            (Some(id), _, _) => format!("{id} acknowledges commits"),
            (None, Some(id), _) => format!("{id} acknowledges commits, but only clients beside it reach it"),
            (None, None, Some(id)) => format!("commits on {id} wait"),
            (None, None, None) => "no server takes commits".to_owned(),
        }
    }

    /// For how long nobody who is reached has acknowledged since the last fault, ms; and whether somebody does in the end.
    fn interruption(&self) -> (u64, bool) {
        let mut since = (!self.before.contains(&Service::Serves)).then_some(self.at);
        let mut total = 0;
        for (at, now) in &self.world.serves[self.served_from..] {
            match (since, now.contains(&Service::Serves)) {
                (None, false) => since = Some(*at),
                (Some(from), true) => {
                    total += at.since(from);
                    since = None;
                }
                (None, true) | (Some(_), false) => {}
            }
        }
        (total, since.is_none())
    }

    fn verdict(&self, fault: Fault) -> (Verdict, String) {
        let now = self.world.service();
        let id = |m: usize| self.names.of(m);
        let (gap_ms, _) = self.interruption();
        let serving = (0..2).find(|m| now[*m] == Service::Serves);
        let apart = (0..2).find(|m| now[*m] == Service::Apart);
        let waiting = (0..2).find(|m| now[*m] == Service::Waits);
        let view = self.world.view();
        let safe = if self.forced {
            "; it does so without anybody's consent, so that commits are lost if the other one lives and goes on too"
        } else {
            ""
        };
        if now.iter().all(|service| acknowledges(*service)) {
            let lost = "what one of them acknowledges is lost when they are made one again";
            return (Verdict::BothGoOn, format!("both servers go on and acknowledge commits; {lost}"));
        }
        if let Some(m) = serving {
            let same_view = view.map(|view| view.term) == self.view_before.map(|view| view.term);
            let gap = match gap_ms {
                _ if !self.before.contains(&Service::Serves) => format!("{} after", about(gap_ms)),
                0..NOTHING_MS => "no commit waits".to_owned(),
                _ if m != self.primary || same_view => format!("commits are interrupted for {}", about(gap_ms)),
                _ => format!("commits wait for {}", about(gap_ms)),
            };
            if m != self.primary {
                return (Verdict::TakesOver, format!("{} takes over; {gap}{safe}", id(m)));
            }
            let alone = view.is_some_and(|view| view.mode == Mode::Degraded);
            let was_alone = self.view_before.is_some_and(|view| view.mode == Mode::Degraded);
            return match (same_view, gap_ms < NOTHING_MS) {
                (true, true) => (Verdict::Unharmed, format!("{} goes on as the primary; {gap}", id(m))),
                (true, false) => (Verdict::GoesOn, format!("{} is the primary again; {gap}", id(m))),
                (false, _) if alone && !was_alone => (Verdict::GoesOn, format!("{} goes on alone; {gap}{safe}", id(m))),
                (false, _) if alone => (Verdict::GoesOn, format!("{} goes on alone, as before; {gap}{safe}", id(m))),
                (false, _) => {
                    (Verdict::GoesOn, format!("{} goes on, and the pair is mirrored again; {gap}{safe}", id(m)))
                }
            };
        }
        let until =
            if fault == Fault::Back { "until an operator acts" } else { "until it is mended, or an operator acts" };
        match (apart, waiting) {
            (Some(m), _) => (
                Verdict::CutOff,
                format!("{} goes on, but it is cut off: only clients beside it are served, {until}{safe}", id(m)),
            ),
            (None, Some(m)) => (Verdict::CommitsWait, format!("{} runs, and commits on it wait {until}", id(m))),
            (None, None) => (Verdict::NoService, format!("no server takes commits {until}")),
        }
    }

    fn why(&self) -> String {
        let said = || self.world.said[self.said_from..].iter();
        let begun = self.view_before.map(|view| view.term);
        // Who enters a view first knows best why.
        let mut views: Vec<(Term, &str)> = Vec::new();
        for Said { say, .. } in said() {
            if let Say::View { to, why, .. } = say
                && Some(to.term) > begun
                && views.iter().all(|(term, _)| *term != to.term)
            {
                views.push((to.term, why.split(" (told by ").next().unwrap_or_default()));
            }
        }
        views.truncate(MOST_REASONS);
        if !views.is_empty() {
            return views.iter().map(|(_, why)| *why).collect::<Vec<_>>().join("; then ");
        }
        let off = said().find_map(|said| match said.say {
            Say::WouldHave { why, .. } => Some(why),
            _ => None,
        });
        if let Some(why) = off {
            return format!("{why}, and automatic switch and disconnection are disabled");
        }
        let acted = said().find_map(|said| match said.say {
            Say::Decided { why, .. } => Some(why),
            _ => None,
        });
        if let (Some(why), (NOTHING_MS.., true)) = (acted, self.interruption()) {
            return why.to_owned();
        }
        let decided = |m: usize| self.world.node(m)?.decided().map(|(decision, _)| (m, decision));
        let mut decisions: Vec<_> = [0, 1].into_iter().filter_map(decided).collect();
        if decisions.iter().any(|(_, decision)| decision.intent != Intent::Rest) {
            decisions.retain(|(_, decision)| decision.intent != Intent::Rest);
        }
        let asks = |intent| match intent {
            Intent::AskArbiter => ", and no arbiter consents",
            Intent::AskCommand => ", and the arbitration command does not say that it is dead",
            Intent::AskPeer => ", and the other server does not consent",
            _ => "",
        };
        let words = decisions.iter().map(|(m, d)| format!("{}: {}{}", self.names.of(*m), d.why, asks(d.intent)));
        words.collect::<Vec<_>>().join("; ")
    }

    /// The server whose word counts most: the one that serves, or runs, or is left.
    fn witness(&self) -> Option<usize> {
        let now = self.world.service();
        let there = |m: &usize| self.world.node(*m).is_some() && self.world.power[*m];
        let of = |wanted: Service| (0..2).filter(there).find(|m| now[*m] == wanted);
        let primary = Some(self.world.primary()).filter(there).filter(|m| self.world.is_reached(*m));
        let reached = || (0..2).filter(there).find(|m| self.world.is_reached(*m));
        // Of two that go on, the one that was the primary.
        let both = (now == [Service::Serves; 2]).then_some(self.primary).filter(there);
        both.or_else(|| of(Service::Serves)).or(primary).or_else(reached).or_else(|| (0..2).find(there))
    }

    fn report(&self) -> Option<Report> {
        self.world.node(self.witness()?).map(|node| node.report(self.world.now))
    }

    /// What the servers that are left advise.
    fn advice(&self) -> Vec<String> {
        let serves = self.world.service().contains(&Service::Serves);
        let told = |m: usize| {
            // One that is cut off while the other serves does not know what has become of its role.
            let knows = self.world.power[m] && (!serves || self.world.is_reached(m));
            let node = self.world.node(m).filter(|_| knows);
            node.map_or_else(Vec::new, |node| node.report(self.world.now).advice)
        };
        let told = [told(0), told(1)];
        let here = told.iter().flatten().any(|text| text.contains("mc_ctl rebuild here"));
        let twice = |text: &str| here && text.contains("mc_ctl rebuild on it");
        let of = |m: usize| told[m].iter().filter(|text| !twice(text)).map(move |text| (m, text));
        of(0).chain(of(1)).map(|(m, text)| format!("on {}: {text}", self.names.of(m))).collect()
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
                "a fencing_command is taken to succeed within 0.5 s, an arbitration_command to tell the truth"
                    .to_owned(),
            );
        }
        if self.world.rebuilt {
            self.remarks.push("a rebuild is taken to last 5 s; it lasts as long as there is to copy".to_owned());
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

    /// What follows when all is mended.
    fn afterwards(&mut self) -> String {
        let steps = self.steps.len();
        self.suffer(0, Fault::Back);
        self.steps.truncate(steps);
        let words = self.report().map_or("nothing", |report| report.word.text());
        let advice = self.advice();
        let advice = if advice.is_empty() { "nothing is to be done".to_owned() } else { advice.join("; ") };
        let serving = self.world.service().iter().position(|service| *service == Service::Serves);
        let primary =
            serving.map_or("no primary serves".to_owned(), |m| format!("{} is the primary", self.names.of(m)));
        format!("when what failed is mended and started again: {words}, {primary}; {advice}")
    }
}

fn acknowledges(service: Service) -> bool {
    matches!(service, Service::Serves | Service::Apart)
}

fn about(ms: u64) -> String {
    match ms {
        0..10_000 => format!("about {}.{:02} s", ms / 1000, ms % 1000 / 10),
        _ => format!("about {} s", ms.div_ceil(1000)),
    }
}

/// What has to agree for a state to be the same.
fn key(report: &Report) -> (Word, Option<(Server, Mode)>) {
    (report.word, report.view.map(|view| (view.primary, view.mode)))
}

/// What belongs into a short story: causes, decisions and their effects, not what everybody else notices.
fn is_told(say: &Say) -> bool {
    match say {
        Say::View { .. }
        | Say::HeartbeatLost { .. }
        | Say::PeerAlive
        | Say::InstanceFailed { .. }
        | Say::DiskFailed(_)
        | Say::StandbyStalled
        | Say::WouldHave { .. }
        | Say::Decided { .. }
        | Say::PromotionCompleted
        | Say::Disconnected
        | Say::Mirrored
        | Say::HandOverFailed(_)
        | Say::JobFailed { .. }
        | Say::Inactivated { .. }
        | Say::RebuildNeeded
        | Say::RebuildBegun(_)
        | Say::RebuildEnded
        | Say::RebuildFailed(_)
        | Say::RebuildAbandoned
        | Say::NotEligible(_)
        | Say::LeftDown
        | Say::WillNotStart(_)
        | Say::CommitsWait
        | Say::Split { .. }
        | Say::SplitElsewhere { .. }
        | Say::Isolated
        | Say::Calling(_)
        | Say::CallFailed { .. }
        | Say::HookCalled(_)
        | Say::ArbiterLost
        | Say::NotConsented
        | Say::NotGranted { .. } => true,
        Say::HeartbeatBack
        | Say::InstanceWell
        | Say::InstanceClosed
        | Say::DiskWell
        | Say::PromotionStarted
        | Say::NamesChanged
        | Say::Paused { .. }
        | Say::FailoverSet(_)
        | Say::StoreFailed(_)
        | Say::OtherSystem { .. }
        | Say::DataReplaced { .. }
        | Say::Detached(_)
        | Say::Called(_)
        | Say::HookDone(_)
        | Say::HookCalledOff(_)
        | Say::HookFailed { .. }
        | Say::ArbiterBack
        | Say::Renamed { .. }
        | Say::ServerHeard { .. } => false,
    }
}

/// Nobody is left to tell anything.
fn nobody(me: Server) -> Report {
    let progress = Progress::Waiting("a controller".to_owned());
    Report { progress, rebuild_from: Err("no controller is left".to_owned()), ..Report::blank(me) }
}
