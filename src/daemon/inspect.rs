//! What servers are like, for `mc_ctl check`: asking the other members for it, and answering them.
//!
//! `mc_ctl check` reads its own server by itself and asks the controller for the rest ([`look`]). The controller asks the
//! other server's by [`Aside`]s, which become no event: the decision thread takes no part in any of this, and the core does
//! not know of it. What may take long is read on a thread of its own, one at a time; one that hangs (a disk that does not
//! answer) stays the only one, and is told of. Messages may be lost, so a part is asked for again until it comes.

use super::control::{self, Answer, Call, CallError};
use super::links::Voice;
use super::pace::Pace;
use super::store::{self, wall_ms};
use super::watcher::{self, random};
use super::{backup_watch, connection_probe, lock};
use crate::check::{self, Arbiter, Clock, Facts, Seen, pace};
use crate::config::Config;
use crate::fsm::types::{Durable, LedgerId, Member, View};
use crate::wire::{Aside, MINOR_OF_ASIDES};
use crossbeam_channel::{Receiver, Sender};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// The longest part, in bytes before it is encoded, which doubles it at most.
const PART: usize = 16 * 1024;

/// The longest answer as a whole, in bytes.
const WHOLE: usize = 384 * 1024;

/// A part that does not come within this time is asked for again.
const AGAIN: Duration = Duration::from_millis(500);

/// A member that has not said anything within this time does not answer.
const SILENT: Duration = Duration::from_secs(4);

/// How long the arbiter may take to report its view.
const LOOK: Duration = Duration::from_secs(6);

/// How long a connection to the arbiter may take if no controller runs.
const REACH: Duration = Duration::from_secs(3);

/// How long a report of failing connections counts: longer than two checks of them take.
const FAILURES_HOLD: Duration = Duration::from_secs(70);

/// How many failures are shown, and how many characters of each.
const MOST_FAILURES: usize = 4;
const LONGEST_FAILURE: usize = 2000;

/// The longest that this server is looked at for another.
const LONGEST: Duration = Duration::from_secs(30);

/// The answer to [`Call::Check`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Checked {
    /// What this controller has measured.
    pub pace: pace::Facts,
    /// [`Facts`] of the other server as JSON, which this controller does not look into, and how its clock goes; or why there
    /// are none.
    pub peer: Result<(String, Clock), String>,
    /// What the arbiter tells, likewise; `None` where there is none.
    pub arbiter: Option<Result<String, String>>,
}

/// What an arbiter tells.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ArbiterTells {
    /// Version of `mc_arb`.
    pub version: String,
    /// The arbiter receives heartbeats of the other server; `None` if its version does not report it.
    pub other_online: Option<bool>,
    /// The ledger in which it keeps this view. A view that leans on an arbiter names its ledger; `None` as above.
    pub ledger: Option<LedgerId>,
    /// Its durable view of the pair.
    pub view: Option<View>,
    /// That view is a right that one server took by force, and replaces a right that the other server keeps.
    pub replaces_right: bool,
}

/// What the arbiter reports through the controller of this server; `None` if it does not respond.
pub fn arbiter(config: &Config) -> Option<ArbiterTells> {
    let limit_ms = u64::try_from(LOOK.as_millis()).unwrap_or(u64::MAX);
    match control::call(&config.run_dir(), &Call::Check { limit_ms }, LOOK + Duration::from_secs(1)) {
        Ok(Answer::Checked(checked)) => serde_json::from_str(&checked.arbiter?.ok()?).ok(),
        _ => None,
    }
}

/// Looks at this server, and by way of its controller at the other one and at the arbiter. Takes `limit`, or a little more,
/// at most. Called by `mc_ctl check`; that a controller does not run is told in [`Seen::peer`].
pub fn look(config: &Config, limit: Duration) -> Seen {
    let deadline = Instant::now() + limit;
    let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    let run_dir = config.run_dir();
    let (own, asked) = std::thread::scope(|scope| {
        let asked = scope.spawn(|| control::call(&run_dir, &Call::Check { limit_ms }, limit + Duration::from_secs(1)));
        let own = check::collect(config, deadline);
        (own, asked.join())
    });
    let mut seen =
        Seen { own, peer: Err(String::new()), peer_id: config.peer().id.clone(), clock: None, arbiter: None };
    if matches!(asked, Ok(Err(CallError::NotRunning))) {
        seen.own.stopped = stopped(config, deadline.saturating_duration_since(Instant::now()));
    }
    let unasked = |why: &str| Err(format!("the controller of server \"{}\" {why}", config.id));
    let checked = match asked {
        Ok(Ok(Answer::Checked(checked))) => Ok(*checked),
        Ok(Ok(Answer::Busy(why))) => unasked(&format!("is busy: {why}")),
        Ok(Ok(_)) => unasked("has an older version than this mc_ctl"),
        Ok(Err(CallError::NotRunning)) => unasked("is not running"),
        Ok(Err(CallError::TimedOut)) => unasked("does not respond"),
        Ok(Err(CallError::Failed(error))) => unasked(&format!("was not queried: {error}")),
        Err(_) => unasked("was not asked"),
    };
    let checked = match checked {
        Ok(checked) => checked,
        Err(why) => return Seen { peer: Err(why), ..seen },
    };
    seen.own.pace = Some(checked.pace);
    seen.peer = checked.peer.and_then(|(text, clock)| {
        seen.clock = Some(clock);
        serde_json::from_str::<Facts>(&text).map_err(|error| format!("its response is not understood: {error}"))
    });
    if let Ok(peer) = &seen.peer {
        check::instance::try_other(config, &mut seen.own.instance, peer, deadline);
    }
    seen.arbiter = config.network.arbiter.as_ref().map(|line| {
        let told = checked.arbiter.unwrap_or_else(|| Err("its controller was started without an arbiter".to_owned()));
        let version = told.and_then(|text| {
            let tells = serde_json::from_str::<ArbiterTells>(&text);
            tells.map(|tells| tells.version).map_err(|error| format!("its response is not understood: {error}"))
        });
        Arbiter { id: line.id.clone(), version }
    });
    seen
}

/// What prevents a start of this server's controller, which does not run, as far as that is known; `None` if it never ran.
fn stopped(config: &Config, limit: Duration) -> Option<String> {
    let run_dir = config.run_dir();
    let ledger = store::load(&run_dir);
    if ledger.as_ref().is_ok_and(|loaded| loaded.durable.is_none()) {
        return None;
    }
    let arbiter = || {
        let (_, why) = *super::reach_arbiter(config, limit.min(REACH)).err()?;
        let id = config.network.arbiter.as_ref().map(|line| line.id.as_str()).unwrap_or_default();
        let hint = if why.hint.is_empty() { String::new() } else { format!("; {}", why.hint) };
        Some(format!("arbiter \"{id}\" is not reached ({}{hint})", why.message))
    };
    let watcher = || watcher::failure(&run_dir).map(|why| format!("its watcher cannot start it: {why}"));
    Some(ledger.err().map(|error| error.message).or_else(watcher).or_else(arbiter).unwrap_or_default())
}

/// The controller's part. One clone for each thread.
#[derive(Clone)]
pub struct Inspector(Arc<Shared>);

struct Shared {
    config: Config,
    /// Digests of the files that are in effect.
    digests: Mutex<Vec<(String, String)>>,
    pace: Arc<Pace>,
    voice: OnceLock<Voice>,
    /// What the controller shows.
    status: OnceLock<control::Board>,
    /// What tests connections.
    connections: OnceLock<connection_probe::Handle>,
    /// What reads the state of the backups.
    backups: OnceLock<backup_watch::Handle>,
    /// Held by who asks.
    turn: Mutex<()>,
    /// The question that is out, and where its answers go.
    asking: Mutex<Option<(u64, Sender<Heard>)>>,
    answering: Mutex<Answering>,
    /// What the other server has reported, and when.
    peer_failing: Mutex<(Option<Instant>, Vec<String>)>,
    /// The last report to the other server named a failure.
    reported_failing: AtomicBool,
}

/// An answer: from whom, what, and when it came by this host's clock, ms since the epoch.
type Heard = (Member, Aside, u64);

/// What is being, or was, read for the other server.
#[derive(Default)]
enum Answering {
    #[default]
    Idle,
    /// A thread reads.
    Reading,
    /// What was read for this question, in parts; kept until the next question.
    Read(u64, Arc<[String]>),
}

impl Inspector {
    /// One that asks nobody yet.
    pub fn new(config: &Config, pace: Arc<Pace>) -> Inspector {
        Inspector(Arc::new(Shared {
            config: config.clone(),
            digests: Mutex::new(check::host::digests(config)),
            pace,
            voice: OnceLock::new(),
            status: OnceLock::new(),
            connections: OnceLock::new(),
            backups: OnceLock::new(),
            turn: Mutex::default(),
            asking: Mutex::default(),
            answering: Mutex::default(),
            peer_failing: Mutex::default(),
            reported_failing: AtomicBool::new(false),
        }))
    }

    /// From now on this configuration is in effect.
    pub fn uses(&self, config: &Config) {
        *lock(&self.0.digests) = check::host::digests(config);
    }

    /// From now on it can ask and answer.
    pub fn speak(&self, voice: Voice) {
        let _ = self.0.voice.set(voice);
    }

    /// From now on it knows what the controller shows, and can have connections tested and the state of the backups read.
    pub(super) fn shows(
        &self,
        status: control::Board,
        connections: connection_probe::Handle,
        backups: backup_watch::Handle,
    ) {
        let _ = self.0.status.set(status);
        let _ = self.0.connections.set(connections);
        let _ = self.0.backups.set(backups);
    }

    /// What this controller has measured, with what it runs with. The state of the backups is read, and connections that have failed
    /// are tested again, within the limit.
    fn pace(&self, limit: Duration) -> pace::Facts {
        let deadline = Instant::now() + limit;
        if let Some(backups) = self.0.backups.get() {
            backups.survey(limit);
        }
        let snapshot = || self.0.status.get().map(control::Board::snapshot);
        if let Some(connections) = self.0.connections.get()
            && snapshot().is_some_and(|snapshot| !snapshot.connections.is_empty())
        {
            connections.check(deadline.saturating_duration_since(Instant::now()));
        }
        let snapshot = snapshot();
        let (network, server) = (&self.0.config.network, &self.0.config.server);
        let timing = |interval_ms, timeout_ms, retry| pace::Timing { interval_ms, timeout_ms, retry };
        pace::Facts {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            heartbeat: timing(server.heartbeat_interval_ms, server.heartbeat_timeout_ms, server.heartbeat_retry),
            arbiter_alive: timing(
                server.arbiter_alive_interval_ms,
                server.arbiter_alive_timeout_ms,
                // Not used: it is lost after the first.
                0,
            ),
            instance_check: timing(
                server.db_instance_check_interval_ms,
                server.db_instance_check_timeout_ms,
                server.db_instance_check_retry,
            ),
            disk_check: timing(server.disk_check_interval_ms, server.disk_check_timeout_ms, server.disk_check_retry),
            started_with: lock(&self.0.digests).clone(),
            rebuilding: snapshot.as_ref().map(|snapshot| snapshot.report.rebuilding.clone()),
            backups: snapshot.as_ref().and_then(|snapshot| snapshot.backups.clone()),
            state: snapshot.as_ref().and_then(check::pair::State::new),
            ledger_error: snapshot.as_ref().and_then(|snapshot| snapshot.ledger_error.clone()),
            arbiter_disk: snapshot.as_ref().map(|snapshot| snapshot.report.arbiter_disk.clone()).unwrap_or_default(),
            failing: snapshot.map(|snapshot| snapshot.connections).unwrap_or_default(),
            ..self.0.pace.read(network.arbiter.is_some())
        }
    }

    // ------------------------------------------------------------------------------------------------------- answering

    /// Takes in what another member says beside the protocol. Called by the threads that receive; does not block.
    pub fn hear(&self, from: Member, aside: Aside) {
        match aside {
            Aside::Inspect { id, part, limit_ms } => {
                let Some(voice) = self.0.voice.get() else { return };
                let (of, text) = self.part(id, part, limit_ms);
                voice.say(from, &Aside::Inspected { id, wall_ms: wall_ms(), part, of, text });
            }
            Aside::Inspected { id, .. } => {
                if let Some((asked, answers)) = &*lock(&self.0.asking)
                    && *asked == id
                {
                    let _ = answers.try_send((from, aside, wall_ms()));
                }
            }
            Aside::Failing { failures } if from == Member::Server(self.0.config.me.other()) => {
                let failures =
                    failures.into_iter().take(MOST_FAILURES).map(|text| text.chars().take(LONGEST_FAILURE).collect());
                *lock(&self.0.peer_failing) = (Some(Instant::now()), failures.collect());
            }
            Aside::Failing { .. } | Aside::Read { .. } | Aside::Part { .. } => {}
        }
    }

    /// Connections that fail on the other server, as that has reported a short time ago.
    pub(super) fn peer_failing(&self) -> Vec<String> {
        let (heard, failures) = &*lock(&self.0.peer_failing);
        let recent = heard.is_some_and(|at| at.elapsed() < FAILURES_HOLD);
        if recent { failures.clone() } else { Vec::new() }
    }

    /// Reports to the other server which connections fail on this one. Called at each check of them.
    pub(super) fn report_failing(&self, failures: Vec<String>) {
        let reported = self.0.reported_failing.swap(!failures.is_empty(), Ordering::Relaxed);
        if let Some(voice) = self.0.voice.get().filter(|_| reported || !failures.is_empty()) {
            voice.say(Member::Server(self.0.config.me.other()), &Aside::Failing { failures });
        }
    }

    /// A part of the answer to a question, and of how many; reading begins where that one is new.
    fn part(&self, id: u64, part: u32, limit_ms: u64) -> (u32, String) {
        let mut answering = lock(&self.0.answering);
        match &*answering {
            Answering::Reading => return (0, String::new()),
            Answering::Read(read, parts) if *read == id => {
                let text = parts.get(part as usize).cloned().unwrap_or_default();
                return (u32::try_from(parts.len()).unwrap_or(u32::MAX), text);
            }
            Answering::Idle | Answering::Read(..) => {}
        }
        let inspector = self.clone();
        let limit = Duration::from_millis(limit_ms).min(LONGEST);
        // With the usual stack: what reads opens sessions and parses files.
        let reader = std::thread::Builder::new().name("inspect".into()).spawn(move || inspector.read(id, limit));
        match reader {
            Ok(_) => {
                *answering = Answering::Reading;
                (0, String::new())
            }
            Err(error) => (0, format!("it could not start a thread: {error}")),
        }
    }

    fn read(&self, id: u64, limit: Duration) {
        let running = &self.0.config;
        // Its files may have changed since it was started: what the next start would find counts.
        let (config, refused) = match Config::load(&running.dir, Some(&running.id)) {
            Ok(config) => (config, None),
            Err(error) => (running.clone(), Some(error)),
        };
        let deadline = Instant::now() + limit;
        let mut facts = check::collect(&config, deadline);
        facts.host.refused = refused.map(|error| (error.message, error.hint));
        facts.pace = Some(self.pace(deadline.saturating_duration_since(Instant::now())));
        let text = serde_json::to_string(&facts).unwrap_or_default();
        *lock(&self.0.answering) = Answering::Read(id, cut(&text).into());
    }

    // ---------------------------------------------------------------------------------------------------------- asking

    /// Asks the other server and the arbiter, and waits for their answers, `limit` at most. Called by the threads of the
    /// control socket's clients; one after the other.
    ///
    /// # Errors
    /// Another one asks, for all that time.
    pub fn ask(&self, limit: Duration) -> Result<Checked, String> {
        let deadline = Instant::now() + limit;
        let _turn = loop {
            match self.0.turn.try_lock() {
                Ok(turn) => break turn,
                Err(std::sync::TryLockError::Poisoned(turn)) => break turn.into_inner(),
                Err(std::sync::TryLockError::WouldBlock) if Instant::now() >= deadline => {
                    return Err("another mc_ctl check is in progress".to_owned());
                }
                Err(std::sync::TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(50)),
            }
        };
        let config = &self.0.config;
        let id = random().map_err(|error| error.to_string())?;
        let (tell, answers) = crossbeam_channel::bounded(64);
        *lock(&self.0.asking) = Some((id, tell));
        // What is left is for the way.
        let limit_ms = u64::try_from((limit / 4 * 3).as_millis()).unwrap_or(u64::MAX);
        let question = |member| Question::new(id, member, limit_ms);
        let mut peer = question(Member::Server(config.me.other()));
        let mut arbiter = config.network.arbiter.as_ref().map(|_| question(Member::Arbiter));
        if self.0.pace.minor(peer.member).is_some_and(|minor| minor < MINOR_OF_ASIDES) {
            peer.ended = Some(Err("its controller has an older version, which does not report this".to_owned()));
        }
        if let Some(voice) = self.0.voice.get() {
            converse(voice, &answers, std::iter::once(&mut peer).chain(arbiter.as_mut()).collect(), deadline);
        }
        *lock(&self.0.asking) = None;
        let clock = peer.clock.unwrap_or_default();
        Ok(Checked {
            pace: self.pace(deadline.saturating_duration_since(Instant::now())),
            peer: peer.answer().map(|text| (text, clock)),
            arbiter: arbiter.map(Question::answer),
        })
    }
}

/// Text in parts, cut between characters. One that is too long as a whole is replaced by what is no value at all.
fn cut(text: &str) -> Vec<String> {
    let mut rest = if text.len() > WHOLE { "" } else { text };
    let mut parts = Vec::new();
    loop {
        let at = (0..=PART.min(rest.len())).rev().find(|at| rest.is_char_boundary(*at)).unwrap_or(rest.len());
        let (part, more) = rest.split_at(at);
        parts.push(part.to_owned());
        if more.is_empty() {
            return parts;
        }
        rest = more;
    }
}

/// A question to one member.
struct Question {
    id: u64,
    member: Member,
    limit_ms: u64,
    began: Instant,
    /// When the present part was last asked for.
    sent: Option<Instant>,
    /// When the first was asked for the first time by this host's clock, ms since the epoch.
    first_sent: u64,
    part: u32,
    text: String,
    /// It has said something.
    heard: bool,
    clock: Option<Clock>,
    ended: Option<Result<String, String>>,
}

impl Question {
    fn new(id: u64, member: Member, limit_ms: u64) -> Question {
        Question {
            id,
            member,
            limit_ms,
            began: Instant::now(),
            sent: None,
            first_sent: wall_ms(),
            part: 0,
            text: String::new(),
            heard: false,
            clock: None,
            ended: None,
        }
    }

    /// Asks where it is time to; returns when to look again.
    fn ask(&mut self, voice: &Voice) -> Instant {
        if !self.heard && self.began.elapsed() >= SILENT {
            self.ended = Some(Err(format!("it did not respond within {} s", SILENT.as_secs())));
        }
        let due = self.sent.is_none_or(|sent| sent.elapsed() >= AGAIN);
        if self.ended.is_none() && due {
            self.sent = Some(Instant::now());
            voice.say(self.member, &Aside::Inspect { id: self.id, part: self.part, limit_ms: self.limit_ms });
        }
        self.sent.unwrap_or_else(Instant::now) + AGAIN
    }

    fn take(&mut self, aside: Aside, came: u64) {
        let Aside::Inspected { wall_ms, part, of, text, .. } = aside else { return };
        if self.ended.is_some() || part != self.part {
            return;
        }
        self.heard = true;
        // The first answer alone: of a later one it is not known for certain which asking it answers.
        self.clock.get_or_insert(Clock::between(self.first_sent, wall_ms, came));
        if of == 0 {
            if !text.is_empty() {
                self.ended = Some(Err(text));
            }
            return;
        }
        self.text += &text;
        self.part += 1;
        self.sent = None;
        if self.text.len() > WHOLE {
            self.ended = Some(Err("its answer is too long".to_owned()));
        } else if self.part >= of {
            self.ended = Some(Ok(std::mem::take(&mut self.text)));
        }
    }

    fn answer(self) -> Result<String, String> {
        let unended = if self.heard { "the check timed out on that server" } else { "it did not respond" };
        self.ended.unwrap_or_else(|| Err(unended.to_owned()))
    }
}

/// Asks until all have answered, or the time is up.
fn converse(voice: &Voice, answers: &Receiver<Heard>, mut questions: Vec<&mut Question>, deadline: Instant) {
    loop {
        let open = questions.iter_mut().filter(|question| question.ended.is_none());
        let Some(next) = open.map(|question| question.ask(voice)).min() else { return };
        match answers.recv_deadline(next.min(deadline)) {
            Ok((from, aside, came)) => {
                if let Some(question) = questions.iter_mut().find(|question| question.member == from) {
                    question.take(aside, came);
                }
            }
            Err(_) if Instant::now() >= deadline => return,
            Err(_) => {}
        }
    }
}

/// What an arbiter answers to a question of one of its servers.
pub fn arbiter_answer(aside: &Aside, other_online: bool, durable: Option<&Durable>) -> Option<Aside> {
    let Aside::Inspect { id, part: 0, .. } = aside else { return None };
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let tells = ArbiterTells {
        version,
        other_online: Some(other_online),
        ledger: durable.map(|durable| durable.ledger.id),
        view: durable.map(|durable| durable.ledger.view),
        replaces_right: durable.is_some_and(|durable| durable.notes.replaces_right),
    };
    let text = serde_json::to_string(&tells).unwrap_or_default();
    Some(Aside::Inspected { id: *id, wall_ms: wall_ms(), part: 0, of: 1, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_the_whole_again() {
        let check = |text: &str, parts: usize| {
            let cut = cut(text);
            assert_eq!(cut.concat(), text);
            assert_eq!(cut.len(), parts);
            for part in cut {
                let aside =
                    Aside::Inspected { id: u64::MAX, wall_ms: u64::MAX, part: u32::MAX, of: u32::MAX, text: part };
                assert!(aside.encode().is_ok());
            }
        };
        check("", 1);
        check(&"\"".repeat(PART), 1);
        check(&"\\".repeat(PART + 1), 2);
        check(&"\u{20ac}".repeat(PART), 4);
        assert_eq!(cut(&"x".repeat(WHOLE + 1)), [""]);
    }

    fn told(part: u32, of: u32, text: &str) -> Aside {
        Aside::Inspected { id: 1, wall_ms: 5000, part, of, text: text.to_owned() }
    }

    #[test]
    fn an_answer_is_put_together_from_its_parts() {
        let mut question = Question::new(1, Member::Arbiter, 9000);
        question.first_sent = 1000;
        question.take(told(0, 0, ""), 1100);
        assert!(question.heard && question.ended.is_none());
        question.take(told(0, 2, "a"), 2000);
        // Repeated, because it was asked for again.
        question.take(told(0, 2, "a"), 2100);
        question.take(told(1, 2, "b"), 2200);
        assert_eq!(question.clock, Some(Clock { ahead_ms: 3950, within_ms: 50 }));
        assert_eq!(question.answer(), Ok("ab".to_owned()));
    }

    #[test]
    fn an_answer_that_does_not_come_is_told() {
        let mut question = Question::new(1, Member::Arbiter, 9000);
        assert_eq!(Question::new(1, Member::Arbiter, 9000).answer(), Err("it did not respond".to_owned()));
        question.take(told(0, 0, ""), 1100);
        assert_eq!(question.answer(), Err("the check timed out on that server".to_owned()));
        let mut question = Question::new(1, Member::Arbiter, 9000);
        question.take(told(0, 0, "why"), 1100);
        assert_eq!(question.answer(), Err("why".to_owned()));
        // Nor one without end.
        let mut question = Question::new(1, Member::Arbiter, 9000);
        let part = "x".repeat(PART);
        (0..100).for_each(|number| question.take(told(number, u32::MAX, &part), 1100));
        assert_eq!(question.answer(), Err("its answer is too long".to_owned()));
    }
}
