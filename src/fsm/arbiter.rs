//! The third member's side of the protocol, for one cluster: it remembers to whom it gave the right to run alone, and
//! prefers the incumbent (PROTOCOL R8).

use super::calls::{Calls, GateResult};
use super::cause::Cause;
use super::event::{
    Action, Aim, CoreMessage, Event, Health, Heartbeat, Message, OnSilence, Purpose, TICK_MS, UserCommand, WalReport,
};
use super::reason::{Reason, Who};
use super::rules;
use super::types::{
    DataId, DataIdentity, Durable, HighWater, Ledger, LedgerId, Member, Mode, Notes, Server, SystemId, Term, Time,
    View, WalPoint,
};
use std::collections::VecDeque;

/// How often a server's host must have refused before that counts as a cause.
const REFUSALS: u32 = 3;

/// How long after a failed write it is tried again, ms.
const REWRITE_MS: u64 = 1_000;

/// What an arbiter is set to, for one cluster.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ArbiterSettings {
    /// Longest pause of its own loop that is not taken for a pause, ms.
    pub pause_ms: u64,
    /// A `fencing_command` is configured.
    pub fencing: bool,
    /// Random; new for every process.
    pub seed: u64,
    /// What its ledger file held.
    pub durable: Option<Durable>,
}

/// The arbiter's core for one cluster. Of the events it takes [`Event::Tick`], [`Event::Heard`], [`Event::Refused`],
/// [`Event::Stored`], [`Event::StoreFailed`] and [`Event::CommandDone`]; of the actions it returns [`Action::Send`],
/// [`Action::Store`], [`Action::Call`] and [`Action::Log`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Arbiter {
    settings: ArbiterSettings,
    now: Time,
    out: Vec<Action>,
    ledger: Option<Ledger>,
    /// Only `unmirrored` and `replaces_right` are used.
    notes: Notes,
    confirmed: Option<Durable>,
    /// What is being written, in order.
    writing: VecDeque<(u64, Durable)>,
    store_seq: u64,
    stored_seq: u64,
    store_failed: Option<Time>,
    /// Why the ledger could not be written, as was last reported.
    unwritten: String,
    held: Vec<(u64, Action)>,
    /// Since when it listens without a pause.
    listens_since: Time,
    servers: [Seen; 2],
    calls: Calls,
    /// Why its view is what it is.
    why: Option<Reason>,
    seq: u64,
    ids: u64,
}

/// What it knows of one server.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Seen {
    heard_at: Option<Time>,
    seq: u64,
    detection_ms: u64,
    failed: bool,
    refused: u32,
    refused_at: Time,
    /// The furthest point that its data directory contains, as it last reported it, and the furthest that it ever did.
    point: Option<WalPoint>,
    high_water: Option<HighWater>,
    /// The data directory that it last reported.
    data: Option<DataId>,
    /// Whether heartbeats of it arrive, as was last reported.
    said_heard: bool,
    /// Why its last proposal was not accepted.
    said_why: Option<Cause>,
    /// The other cluster that it belongs to, as was last reported.
    said_system: Option<SystemId>,
}

impl Arbiter {
    /// An arbiter that starts at `now`.
    pub fn new(settings: ArbiterSettings, now: Time) -> Arbiter {
        let (confirmed, seed) = (settings.durable, settings.seed);
        Arbiter {
            settings,
            now,
            out: Vec::new(),
            ledger: confirmed.map(|durable| durable.ledger),
            notes: confirmed.map_or(Notes::default(), |durable| durable.notes),
            confirmed,
            writing: VecDeque::new(),
            store_seq: 0,
            stored_seq: 0,
            store_failed: None,
            unwritten: String::new(),
            held: Vec::new(),
            listens_since: now,
            servers: [Seen::default(), Seen::default()],
            calls: Calls::new(seed),
            why: None,
            seq: 0,
            ids: 0,
        }
    }

    /// Folds one event in and returns what is to be done, in order.
    pub fn step(&mut self, now: Time, event: Event) -> Vec<Action> {
        let slept = now.since(self.now);
        if slept > TICK_MS + self.settings.pause_ms {
            self.listens_since = now;
            self.servers.iter_mut().for_each(|seen| seen.refused = 0);
            self.out.push(Action::Log(CoreMessage::Paused { ms: slept }));
        }
        self.now = now;
        match event {
            Event::Heard(Member::Server(server), Message::Heartbeat(heartbeat)) => self.heartbeat(server, &heartbeat),
            Event::Heard(Member::Server(server), Message::Propose { base, view, point, known, why, .. }) => {
                self.notice_put_back(known);
                self.servers[server.index()].point = point;
                self.proposed(server, &base, view, &why);
            }
            Event::Refused(Member::Server(server)) => {
                let seen = &mut self.servers[server.index()];
                seen.refused += 1;
                seen.refused_at = now;
            }
            Event::Stored(seq) => self.stored(seq),
            Event::StoreFailed(seq, why) if seq == self.store_seq => {
                self.store_failed = Some(now);
                if self.unwritten != why {
                    self.unwritten.clone_from(&why);
                    self.out.push(Action::Log(CoreMessage::StoreFailed(why)));
                }
            }
            Event::CommandDone(id, result) => self.calls.done(now, id, result, &mut self.out),
            _ => {}
        }
        if self.store_failed.is_some_and(|at| now.since(at) >= REWRITE_MS) {
            self.write(None);
        }
        Server::BOTH.into_iter().for_each(|server| self.log_heard(server));
        std::mem::take(&mut self.out)
    }

    /// What is known to be durable.
    pub fn durable(&self) -> Option<&Durable> {
        self.confirmed.as_ref()
    }

    fn settled(&self) -> bool {
        self.store_seq == self.stored_seq
    }

    fn write(&mut self, why: Option<Reason>) {
        let Some(ledger) = self.ledger else { return };
        self.store_seq += 1;
        self.store_failed = None;
        let durable = Durable { ledger, notes: self.notes };
        self.writing.push_back((self.store_seq, durable));
        self.out.push(Action::Store(self.store_seq, Box::new(durable), why));
    }

    fn stored(&mut self, seq: u64) {
        if seq <= self.stored_seq || seq > self.store_seq {
            return;
        }
        self.stored_seq = seq;
        self.unwritten.clear();
        // Heartbeats contain it as soon as it is durable. They never contain an older ledger than before.
        while let Some((_, durable)) = self.writing.front().filter(|(written, _)| *written <= seq) {
            self.confirmed = Some(*durable);
            self.writing.pop_front();
        }
        let (ready, held) = std::mem::take(&mut self.held).into_iter().partition(|(needs, _)| *needs <= seq);
        self.held = held;
        self.out.extend(Vec::into_iter(ready).map(|(_, action)| action));
    }

    fn heartbeat(&mut self, from: Server, told: &Heartbeat) {
        let Some(system) = told.system else { return };
        if let Some(ledger) = self.ledger.filter(|ledger| ledger.system != system) {
            let said = self.servers[from.index()].said_system.replace(system);
            if said != Some(system) {
                let (mine, theirs) = (ledger.system, system);
                self.out.push(Action::Log(CoreMessage::OtherSystem { server: from, mine, theirs }));
            }
            self.reject(from, ledger.system);
            return;
        }
        let seen = &mut self.servers[from.index()];
        if seen.seq >> 20 == told.seq >> 20 && told.seq <= seen.seq {
            return;
        }
        seen.seq = told.seq;
        seen.said_system = None;
        seen.heard_at = Some(self.now);
        seen.detection_ms = told.detection_ms;
        // Without a ledger it can consent to nothing and propose nothing.
        let lost = told.ledger.is_none();
        seen.failed = told.instance == Health::Failed || !told.disk.is_empty() || told.take_over || lost;
        seen.refused = 0;
        seen.point = told.wal.point;
        seen.data = told.ledger.map(|ledger| ledger.data.id);
        if let (Some(ledger), Some(point)) = (told.ledger, told.wal.point) {
            HighWater::raise(&mut seen.high_water, HighWater { data: ledger.data.id, point });
        }
        self.notice_put_back(told.arbiter);
        if let Some(ledger) = told.ledger {
            self.learn(&ledger, &told.why);
            let same_view = self.ledger.is_some_and(|own| own.view == ledger.view);
            if told.unmirrored && same_view && !self.notes.unmirrored {
                self.notes.unmirrored = true;
                self.write(None);
            }
        }
        self.greet(from);
    }

    /// A ledger that has promised more than it contains was restored from a copy, and may lack the last grant. No view relies on
    /// its new id, and it grants nothing until the servers have recorded that id (PROTOCOL R8, R9).
    fn notice_put_back(&mut self, (id, was): (Option<LedgerId>, Term)) {
        let Some(ledger) = self.ledger.as_mut() else { return };
        let now = ledger.promised;
        if id != Some(ledger.id) || was <= now {
            return;
        }
        self.ids += 1;
        ledger.id = LedgerId(super::types::draw(self.settings.seed, self.ids));
        ledger.promised = was;
        self.write(Some(Reason::own("it was restored from a backup")));
        self.out.push(Action::Log(CoreMessage::Renamed { was, now }));
    }

    /// Its ledger begins with the first view that it receives. Later ones are adopted if they are newer (R7).
    fn learn(&mut self, told: &Ledger, why: &str) {
        let from = self.ledger.map(|ledger| ledger.view);
        match self.ledger.as_mut() {
            None => {
                self.ids += 1;
                let id = LedgerId(super::types::draw(self.settings.seed, self.ids));
                self.ledger = Some(Ledger {
                    system: told.system,
                    id,
                    data: DataIdentity::default(),
                    view: told.view,
                    promised: told.promised.max(told.view.term),
                });
            }
            Some(ledger) if ledger.system == told.system && rules::arbiter_adopts(ledger, &told.view) => {
                *ledger = rules::entering(*ledger, told.view);
            }
            Some(_) => return,
        }
        self.entered(from, told.view, Reason::reported(Who::AServer, why));
    }

    /// Writes the view that the ledger contains now, and reports it.
    fn entered(&mut self, from: Option<View>, to: View, why: Reason) {
        self.notes.unmirrored = false;
        self.notes.replaces_right = rules::replaces_right(from.as_ref(), self.notes.replaces_right, &to);
        self.servers.iter_mut().for_each(|seen| seen.said_why = None);
        self.write(Some(why.clone()));
        self.why = Some(why.clone());
        self.out.push(Action::Log(CoreMessage::View { from, to, why }));
    }

    fn proposed(&mut self, from: Server, base: &Ledger, view: View, why: &str) {
        if self.ledger.is_none_or(|ledger| ledger.system != base.system) {
            return;
        }
        self.learn(base, "");
        // A proposal that meets a write under way is repeated by its proposer.
        if !self.settled() {
            return;
        }
        if self.grants(from, base, view) {
            match self.fence(from, base.view.term) {
                GateResult::Given => self.grant(view, why),
                // The proposal is repeated.
                GateResult::Awaited => return,
                GateResult::Denied(_) => self.log_not_granted(from, Cause::FencingFailed),
            }
        } else {
            self.log_not_granted(from, self.obstacle(from));
        }
        let answer = Action::Send(Member::Server(from), Message::Answer { ledger: self.ledger });
        if self.settled() { self.out.push(answer) } else { self.held.push((self.store_seq, answer)) }
    }

    fn grant(&mut self, view: View, why: &str) {
        let Some(ledger) = self.ledger.as_mut() else { return };
        let was = ledger.view;
        *ledger = rules::entering(*ledger, view);
        self.entered(Some(was), view, Reason::requested(Who::ThatServer, why));
    }

    /// The other server is fenced before the right is granted, unless its heartbeats arrive. Then it receives the new view, and
    /// releases its role by itself.
    fn fence(&mut self, asker: Server, term: Term) -> GateResult {
        let target = asker.other();
        if !self.settings.fencing || self.hears(target) && self.servers[target.index()].refused < REFUSALS {
            return GateResult::Given;
        }
        let incumbent = self.ledger.is_some_and(|ledger| ledger.view.primary == asker);
        let command = UserCommand {
            purpose: Purpose::Fencing,
            by_operator: false,
            aim: if incumbent { Aim::Detach } else { Aim::Switch },
            target,
            term,
            reason: "the other server requested the right to run alone".to_owned(),
        };
        let heard_at = self.servers[target.index()].heard_at;
        let retry_ms = self.detection_ms(target).saturating_mul(10);
        self.calls.clear(self.now, command, heard_at, retry_ms, &mut self.out)
    }

    /// Whether it would consent if `server` proposed now.
    fn would_grant(&self, server: Server) -> bool {
        let named = self.ledger.filter(|ledger| ledger.view.arbiter == Some(ledger.id) && self.settled());
        let Some(view) = named.map(|ledger| ledger.view) else { return false };
        let behind = view.data[server.index()].is_some_and(|data| self.is_behind(server, data));
        view.mode == Mode::Mirrored && !behind && (view.primary == server || self.incumbent_is_gone(server.other()))
    }

    /// Why it does not consent, for people.
    fn obstacle(&self, asker: Server) -> Cause {
        let Some(ledger) = self.ledger else { return Cause::NoView };
        if ledger.view.mode == Mode::Degraded {
            return Cause::RightIsGiven;
        }
        if ledger.view.arbiter != Some(ledger.id) {
            return Cause::OtherArbiter;
        }
        if asker != ledger.view.primary && self.notes.unmirrored {
            return Cause::UnmirroredCommits;
        }
        if ledger.view.data[asker.index()].is_some_and(|data| self.is_behind(asker, data)) {
            return Cause::WentBack;
        }
        if asker != ledger.view.primary && !self.incumbent_is_gone(asker.other()) {
            let listened = self.now.since(self.listens_since) >= self.detection_ms(asker.other());
            return if listened { Cause::PrimaryResponds } else { Cause::ArbiterJustStarted };
        }
        Cause::ProposalIsOld
    }

    /// Why a server would not receive the right to run alone whatever happens to the other server, or did not receive it with its
    /// last proposal under the present view; for people.
    pub fn refusal(&self, server: Server) -> Option<String> {
        if let (Some(theirs), Some(ledger)) = (self.other_system(server), self.ledger) {
            let (theirs, mine) = (theirs.0, ledger.system.0);
            return Some(format!(
                "it belongs to another cluster: its system identifier is {theirs}, and that of the pair recorded here is {mine}"
            ));
        }
        self.obstacle_by_data(server).map(|why| why.text().to_owned())
    }

    /// The system identifier that a server reports, if that is another one than that of the ledger.
    pub fn other_system(&self, server: Server) -> Option<SystemId> {
        self.servers[server.index()].said_system
    }

    fn obstacle_by_data(&self, server: Server) -> Option<Cause> {
        let seen = &self.servers[server.index()];
        let mirrored = self.ledger.map(|ledger| ledger.view).filter(|view| view.mode == Mode::Mirrored);
        let named = mirrored.and_then(|view| view.data[server.index()]);
        match (named, seen.data) {
            // A server that has just started has not reported its WAL yet.
            (Some(named), _) if seen.point.is_some() && self.is_behind(server, named) => Some(Cause::WentBack),
            (Some(named), Some(data)) if named != data => Some(Cause::DirectoryReplaced),
            _ => seen.said_why,
        }
    }

    fn log_not_granted(&mut self, server: Server, why: Cause) {
        let seen = &mut self.servers[server.index()];
        if seen.said_why.replace(why) != Some(why) {
            self.out.push(Action::Log(CoreMessage::NotGranted { server, why }));
        }
    }

    fn log_heard(&mut self, server: Server) {
        let heard = self.hears(server);
        let seen = &mut self.servers[server.index()];
        if seen.said_heard != heard {
            seen.said_heard = heard;
            self.out.push(Action::Log(CoreMessage::ServerHeard { server, heard }));
        }
    }

    /// Whether a heartbeat of a server has arrived within its detection time. `mc_arb status` calls that online.
    pub fn hears(&self, server: Server) -> bool {
        let seen = &self.servers[server.index()];
        seen.heard_at.is_some_and(|at| self.now.since(at) < self.detection_ms(server))
    }

    /// The longer of both servers' detection times, ms. A server has none before its first heartbeat.
    fn detection_ms(&self, server: Server) -> u64 {
        self.servers[server.index()].detection_ms.max(self.servers[server.other().index()].detection_ms)
    }

    /// PROTOCOL R1, R2, R4 and R8.
    fn grants(&self, from: Server, base: &Ledger, view: View) -> bool {
        let Some(ledger) = self.ledger else { return false };
        let behind = self.is_behind(from, base.data.id);
        rules::arbiter_accepts(&ledger, from, &base.view, &view, behind, |incumbent| self.incumbent_is_gone(incumbent))
    }

    /// Whether a server reports less WAL than it has reported before with the same data directory (PROTOCOL R13).
    fn is_behind(&self, server: Server, data: DataId) -> bool {
        let seen = &self.servers[server.index()];
        HighWater::is_missed(seen.high_water, data, seen.point)
    }

    fn incumbent_is_gone(&self, incumbent: Server) -> bool {
        // The standby may lack acknowledged commits, whatever has become of the primary.
        if self.notes.unmirrored {
            return false;
        }
        let seen = &self.servers[incumbent.index()];
        let detection_ms = self.detection_ms(incumbent);
        let listened = self.now.since(self.listens_since) >= detection_ms && detection_ms > 0;
        let silent = seen.heard_at.is_none_or(|at| self.now.since(at) >= detection_ms);
        let refuses = seen.refused >= REFUSALS && self.now.since(seen.refused_at) < detection_ms;
        listened && (silent || refuses || seen.failed)
    }

    /// Answers a server of another cluster with the system identifier of the ledger and nothing else, so that the server does not
    /// found a pair beside the recorded one.
    fn reject(&mut self, server: Server, system: SystemId) {
        self.seq += 1;
        let heartbeat =
            Heartbeat { seq: self.seq, start_id: self.settings.seed, system: Some(system), ..Heartbeat::blank() };
        self.out.push(Action::Send(Member::Server(server), Message::Heartbeat(Box::new(heartbeat))));
    }

    /// Answers a heartbeat with the own ledger.
    fn greet(&mut self, to: Server) {
        self.seq += 1;
        let heartbeat = Heartbeat {
            seq: self.seq,
            echo: self.servers[to.index()].seq,
            start_id: self.settings.seed,
            system: self.ledger.map(|ledger| ledger.system),
            ledger: self.confirmed.map(|durable| durable.ledger),
            on_silence: OnSilence::Arbitration,
            would_grant: self.would_grant(to),
            wal: WalReport { remembered: self.servers[to.index()].high_water, ..WalReport::default() },
            why: self.why.as_ref().map_or_else(String::new, Reason::sent),
            ..Heartbeat::blank()
        };
        self.out.push(Action::Send(Member::Server(to), Message::Heartbeat(Box::new(heartbeat))));
    }

    /// The highest term promised, for tests and status.
    pub fn promised(&self) -> Term {
        self.ledger.map_or_else(Term::default, |ledger| ledger.promised)
    }
}
