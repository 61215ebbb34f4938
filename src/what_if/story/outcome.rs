//! What a prediction comes to: the verdict, the reason, and what those who are left say in the end.

use super::Story;
use crate::fsm::decide::Intent;
use crate::fsm::event::CoreMessage;
use crate::fsm::report::Report;
use crate::fsm::types::{Mode, Term};
use crate::what_if::Fault;
use crate::what_if::world::{Said, Service};
use serde::{Deserialize, Serialize};

/// The most changes of view that are told in the reason.
const MOST_REASONS: usize = 3;
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
    /// The primary continues, or is started again.
    Continues,
    /// The other server takes over.
    TakesOver,
    /// A primary runs, and its commits wait until something is repaired or an operator intervenes.
    CommitsWait,
    /// No server takes commits until something is repaired or an operator intervenes.
    NoService,
    /// A server acknowledges commits, but only clients beside it reach it.
    CutOff,
    /// Both acknowledge commits.
    BothContinue,
}

impl Story<'_> {
    /// For how long nobody who is reached has acknowledged since the last fault, ms; and whether somebody does in the end.
    pub(super) fn interruption(&self) -> (u64, bool) {
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

    /// What a fault, the last one, comes to; the same in a sentence.
    pub(super) fn verdict(&self, fault: Fault) -> (Verdict, String) {
        let now = self.world.service();
        let id = |m: usize| self.names.of(m);
        let (gap_ms, _) = self.interruption();
        let serving = (0..2).find(|m| now[*m] == Service::Serves);
        let apart = (0..2).find(|m| now[*m] == Service::Apart);
        let waiting = (0..2).find(|m| now[*m] == Service::Waits);
        let view = self.world.view();
        let safe = if self.forced {
            "; it does so without the consent of another member, so that commits are lost if the other server is running and \
             continues too"
        } else {
            ""
        };
        if now.iter().all(|service| service.acknowledges()) {
            let lost = "the commits that one of them acknowledges are lost when the pair is restored";
            return (Verdict::BothContinue, format!("both servers continue and acknowledge commits; {lost}"));
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
                (true, true) => (Verdict::Unharmed, format!("{} continues as the primary; {gap}", id(m))),
                (true, false) => (Verdict::Continues, format!("{} is the primary again; {gap}", id(m))),
                (false, _) if alone && !was_alone => {
                    (Verdict::Continues, format!("{} continues alone; {gap}{safe}", id(m)))
                }
                (false, _) if alone => {
                    (Verdict::Continues, format!("{} continues alone, as before; {gap}{safe}", id(m)))
                }
                (false, _) => {
                    (Verdict::Continues, format!("{} continues, and the pair is mirrored again; {gap}{safe}", id(m)))
                }
            };
        }
        let until = if fault == Fault::Back {
            "until an operator intervenes"
        } else {
            "until it is repaired or an operator intervenes"
        };
        match (apart, waiting) {
            (Some(m), _) => {
                let does = if m == self.primary { "continues" } else { "takes over" };
                let what = "but it is cut off: only clients on its own network segment are served";
                (Verdict::CutOff, format!("{} {does}, {what}, {until}{safe}", id(m)))
            }
            (None, Some(m)) => (Verdict::CommitsWait, format!("{} runs, and commits on it wait {until}", id(m))),
            (None, None) => (Verdict::NoService, format!("no server accepts commits {until}")),
        }
    }

    /// The reason of the last decisions.
    pub(super) fn why(&self) -> String {
        let said = || self.world.said[self.said_from..].iter();
        let begun = self.view_before.map(|view| view.term);
        // Who enters a view first knows best why.
        let mut views: Vec<(Term, &str)> = Vec::new();
        for Said { say, .. } in said() {
            if let CoreMessage::View { to, why, .. } = say
                && Some(to.term) > begun
                && views.iter().all(|(term, _)| *term != to.term)
            {
                views.push((to.term, why.text()));
            }
        }
        views.truncate(MOST_REASONS);
        if !views.is_empty() {
            return views.iter().map(|(_, why)| *why).collect::<Vec<_>>().join("; then ");
        }
        let off = said().find_map(|said| match said.say {
            CoreMessage::WouldHave { why, .. } => Some(why),
            _ => None,
        });
        if let Some(why) = off {
            return format!("{why}, and automatic switch and disconnection are disabled");
        }
        let acted = said().find_map(|said| match said.say {
            CoreMessage::Decided { why, .. } => Some(why),
            _ => None,
        });
        if let (Some(why), (NOTHING_MS.., true)) = (acted, self.interruption()) {
            return why.text().to_owned();
        }
        let decided = |m: usize| self.world.node(m)?.decided().map(|(decision, _)| (m, decision));
        let mut decisions: Vec<_> = [0, 1].into_iter().filter_map(decided).collect();
        if decisions.iter().any(|(_, decision)| decision.intent != Intent::Rest) {
            decisions.retain(|(_, decision)| decision.intent != Intent::Rest);
        }
        let asks = |intent| match intent {
            Intent::AskArbiter => ", and no arbiter consents",
            Intent::AskCommand => ", and the arbitration command does not confirm that it is down",
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
        // Of two that continue, the one that was the primary.
        let both = (now == [Service::Serves; 2]).then_some(self.primary).filter(there);
        both.or_else(|| of(Service::Serves)).or(primary).or_else(reached).or_else(|| (0..2).find(there))
    }

    /// What the server whose word counts most reports.
    pub(super) fn report(&self) -> Option<Report> {
        self.world.node(self.witness()?).map(|node| node.report(self.world.now))
    }

    /// What the servers that are left advise.
    pub(super) fn advice(&self) -> Vec<String> {
        let serves = self.world.service().contains(&Service::Serves);
        let told = |m: usize| {
            // One that is cut off while the other serves does not know what has become of its role.
            let knows = self.world.power[m] && (!serves || self.world.is_reached(m));
            let node = self.world.node(m).filter(|_| knows);
            node.map_or_else(Vec::new, |node| node.report(self.world.now).advice)
        };
        let told = [told(0), told(1)];
        let here = told.iter().flatten().any(|text| text.contains("run \"mc_ctl rebuild\" here"));
        let twice = |text: &str| here && text.contains("run \"mc_ctl rebuild\" on it");
        let of = |m: usize| told[m].iter().filter(|text| !twice(text)).map(move |text| (m, text));
        of(0).chain(of(1)).map(|(m, text)| format!("on {}: {text}", self.names.of(m))).collect()
    }
}

fn about(ms: u64) -> String {
    match ms {
        0..10_000 => format!("about {}.{:02} s", ms / 1000, ms % 1000 / 10),
        _ => format!("about {} s", ms.div_ceil(1000)),
    }
}
