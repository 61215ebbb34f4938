//! One row of the fault matrix: does one thing to a pair that clients write to, checks what must come of it, brings the
//! pair back to `switchable`, and with `UPDATE_FAULTS` set writes what it has measured into `FAULTS.md`.
//!
//! Checked in every row: the pair does what the row says, commits wait no longer than its bound (and what a loaded test
//! machine adds), no acknowledged row is missing on the last primary, and servers have acknowledged in exactly the turns
//! that the row names, so never two in the same period ([`crate::harness::client`] says what that means).

use crate::harness::client::{Client, Style};
use crate::harness::document;
use crate::harness::pair::{Pair, Setup};
use crate::harness::{s, wait_for};
use std::time::{Duration, Instant};

/// What a loaded test machine adds to any bound.
const SLACK: Duration = s(4);

/// What the pair does by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Then {
    /// The view stays, and the primary acknowledges as before.
    Nothing,
    /// The standby is promoted.
    TakesOver,
    /// The primary continues without the standby.
    Continues,
    /// Nobody acknowledges until an operator acts.
    Waits,
}
use Then::{Continues, Nothing, TakesOver, Waits};

/// What an operator does to have it back at `switchable`, and how `FAULTS.md` states it.
type Back = (fn(&Pair), &'static str);

/// A row.
pub struct Fault {
    what: &'static str,
    setup: Setup,
    style: Style,
    prepare: fn(&Pair),
    before: fn(&mut Pair),
    strike: fn(&mut Pair),
    then: Then,
    bound: Duration,
    lasts: Duration,
    repair: Option<fn(&mut Pair)>,
    back: Option<Back>,
    turns: &'static [usize],
}

impl Fault {
    fn new(what: &'static str, then: Then, strike: fn(&mut Pair)) -> Fault {
        Fault {
            what,
            setup: Setup::default().arbiter(),
            style: Style::PerHost,
            prepare: |_| (),
            before: |_| (),
            strike,
            then,
            bound: s(1),
            lasts: s(1),
            repair: None,
            back: None,
            turns: &[0],
        }
    }

    /// A fault of which nothing comes in eight seconds, which are more than the detection time.
    pub fn nothing(what: &'static str, strike: fn(&mut Pair)) -> Fault {
        Fault::new(what, Nothing, strike).lasts(s(8))
    }

    /// One after which the standby takes over, and the old primary is rebuilt.
    pub fn takes_over(what: &'static str, strike: fn(&mut Pair)) -> Fault {
        Fault::new(what, TakesOver, strike).turns(&[0, 1]).back("nd1: `rebuild`", rebuild)
    }

    /// One after which the primary continues alone, and the pair is mirrored again by itself.
    pub fn goes_on(what: &'static str, strike: fn(&mut Pair)) -> Fault {
        Fault::new(what, Continues, strike)
    }

    /// One after which commits wait for an operator, here for ten seconds.
    pub fn waits(what: &'static str, strike: fn(&mut Pair)) -> Fault {
        Fault::new(what, Waits, strike).lasts(s(10))
    }

    /// Another pair than the usual one, which has an arbiter.
    pub fn setup(self, setup: Setup) -> Fault {
        Fault { setup, ..self }
    }

    /// Other clients than one for each instance.
    pub fn clients(self, style: Style) -> Fault {
        Fault { style, ..self }
    }

    /// What is done to the pair before it is started.
    pub fn prepare(self, prepare: fn(&Pair)) -> Fault {
        Fault { prepare, ..self }
    }

    /// What has happened before, with clients writing.
    pub fn before(self, before: fn(&mut Pair)) -> Fault {
        Fault { before, ..self }
    }

    /// How long commits may wait on an idle machine, if not one second; not checked where they wait for an operator.
    pub fn bound(self, bound: Duration) -> Fault {
        Fault { bound, ..self }
    }

    /// How long it lasts: from the time when the pair has acted, or where it does not, from the begin.
    pub fn lasts(self, lasts: Duration) -> Fault {
        Fault { lasts, ..self }
    }

    /// What ends the fault.
    pub fn repair(self, repair: fn(&mut Pair)) -> Fault {
        Fault { repair: Some(repair), ..self }
    }

    /// What an operator runs then, as the table states it, and doing it.
    pub fn back(self, typed: &'static str, back: fn(&Pair)) -> Fault {
        Fault { back: Some((back, typed)), ..self }
    }

    /// Back by a start of the standby.
    pub fn started(self) -> Fault {
        self.back("nd2: `start -f`", |pair| start(pair, 1))
    }

    /// The servers that acknowledge, in turn.
    pub fn turns(self, turns: &'static [usize]) -> Fault {
        Fault { turns, ..self }
    }
}

/// `mc_ctl start -f` on the server, with what else may still be down.
pub fn start(pair: &Pair, server: usize) {
    pair.mc(server, &["start", "-W", "-f"]).expect(0, "mc_ctl start");
}

/// `mc_ctl rebuild` on the first server.
pub fn rebuild(pair: &Pair) {
    pair.rebuild(0, &[]);
}

/// Runs the row of this name.
pub fn run(name: &'static str, fault: Fault) {
    let mut pair = fault.setup.clone().make();
    (fault.prepare)(&pair);
    pair.bring_up();
    let client = pair.client(fault.style);
    std::thread::sleep(s(1));
    (fault.before)(&mut pair);
    client.wait_ack(Instant::now(), s(20));
    let asked = *fault.turns.first().expect("a first primary");
    let term = || pair.view(asked).and_then(|v| v["term"].as_u64()).expect("a view");
    let term = if fault.then == Waits { 0 } else { term() };
    let at = Instant::now();
    (fault.strike)(&mut pair);
    let word = happens(&fault, &pair, &client, term, at);
    let waited = client.longest_gap(at);
    let repairing = if fault.repair.is_some() || fault.back.is_some() { Instant::now() } else { at };
    if let Some(repair) = fault.repair {
        repair(&mut pair);
    }
    if let Some((back, _)) = fault.back {
        back(&pair);
    }
    let primary = *fault.turns.last().expect("a last primary");
    let healed = healed(&pair, primary) - repairing;
    if fault.setup.arbiter {
        pair.wait_arbiter_named();
    }
    client.wait_ack_of(&[primary], Instant::now(), s(30));
    let waited = if fault.then == Waits { client.longest_gap(at) } else { waited };
    if fault.then == Waits {
        assert!(waited >= fault.lasts, "commits waited {waited:?} only");
    } else {
        assert!(waited < fault.bound + SLACK, "commits waited {waited:?}; the bound is {:?}", fault.bound);
    }
    let lost = client.lost_on(&pair, primary);
    let rows = client.count();
    assert!(lost.is_empty(), "{} of {rows} acknowledged rows are lost: {lost:?}", lost.len());
    assert_eq!(client.turns(), fault.turns, "the servers that acknowledged, in turn");
    tell(name, &fault, &word, [waited, healed], [lost.len(), rows]);
}

/// Waits until what must happen has happened, and for what the fault lasts; answers the status word.
fn happens(fault: &Fault, pair: &Pair, client: &Client, term: u64, at: Instant) -> String {
    let server = usize::from(fault.then == TakesOver);
    let word = |json: &serde_json::Value| json["mirroring_status"].as_str().unwrap_or_default().to_string();
    match fault.then {
        Nothing => {
            std::thread::sleep((at + fault.lasts).saturating_duration_since(Instant::now()));
            let asked = *fault.turns.last().expect("a primary");
            client.wait_ack_of(&[asked], Instant::now(), s(10));
            if pair.host(asked).controllers().is_empty() {
                return String::new();
            }
            let json = wait_for("a status", s(20), || pair.json(asked));
            assert_eq!(json["view"]["term"].as_u64(), Some(term), "the view has changed: {json}");
            word(&json)
        }
        TakesOver | Continues => {
            let json = wait_for("the pair acts", s(60), || {
                let json = pair.json(server)?;
                let acted = json["view"]["term"].as_u64()? > term && json["view"]["primary"] == pair.servers[server].id;
                let settled = fault.then == Continues || word(&json) == "switched";
                (acted && settled).then_some(json)
            });
            client.wait_ack_of(&[server], Instant::now(), s(30));
            std::thread::sleep(fault.lasts);
            word(&json)
        }
        Waits => {
            std::thread::sleep((at + fault.lasts).saturating_duration_since(Instant::now()));
            let on = |n: &usize| pair.host(*n).is_on() && !pair.host(*n).controllers().is_empty();
            [0, 1].iter().find(|n| on(n)).and_then(|n| pair.json(*n)).map(|json| word(&json)).unwrap_or_default()
        }
    }
}

/// Waits until both servers say `switchable` and this one is the primary; answers when that was.
fn healed(pair: &Pair, primary: usize) -> Instant {
    wait_for("both servers say switchable", s(120), || {
        let told = [0, 1].map(|n| if pair.host(n).is_on() { pair.json(n) } else { None });
        let well = told.into_iter().all(|json| {
            json.is_some_and(|j| {
                j["mirroring_status"] == "switchable" && j["view"]["primary"] == pair.servers[primary].id
            })
        });
        well.then(Instant::now)
    })
}

/// Prints the row as it stands in `FAULTS.md`; with `UPDATE_FAULTS` set it is written there.
fn tell(name: &'static str, fault: &Fault, word: &str, [waited, healed]: [Duration; 2], [lost, rows]: [usize; 2]) {
    let then = match fault.then {
        Nothing => "no change",
        TakesOver => "the standby takes over",
        Continues => "the primary continues",
        Waits => "commits wait",
    };
    let status = if word.is_empty() { String::new() } else { format!(": `{word}`") };
    let mut back = match fault.back {
        Some((_, typed)) => typed.to_string(),
        None => "by itself".into(),
    };
    // without an end of its own, a fault that changes nothing has no recovery to measure
    if fault.then != Nothing || fault.back.is_some() {
        back += &format!(", {:.1} s", healed.as_secs_f64());
    }
    let row = format!(
        "| {} | {then}{status} | {:.2} s | {lost} of {rows} | {back} | `{name}` |",
        fault.what,
        waited.as_secs_f64(),
    );
    eprintln!("FAULT {row}");
    if std::env::var_os("UPDATE_FAULTS").is_some() {
        let cases = include_str!("faults.rs").split("\nfn ").skip(1).filter_map(|t| t.split_once('(').map(|(n, _)| n));
        document::put("FAULTS.md", &cases.collect::<Vec<_>>(), name, &[row]);
    }
}
