//! A number for all that the cores of a run did: every action in its order, and the reports and ledgers at the end.
//!
//! It is made of meanings (encoded messages, ledgers as they are stored, jobs, rendered messages and reports), not of the names of
//! types. A change of the code that is not a change of behaviour keeps the number of every seed.

use crate::world::{ARBITER, Core, NAMES, World};
use mirroring_controller::fsm::event::*;
use mirroring_controller::fsm::types::*;
use mirroring_controller::messages::{self, Names};
use serde::Serialize;

/// FNV-1a, 64 bits.
#[derive(Clone, Copy)]
pub struct Fingerprint(pub u64);

impl Fingerprint {
    pub fn new() -> Fingerprint {
        Fingerprint(0xcbf2_9ce4_8422_2325)
    }

    pub fn add(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().chain(&[0xff]) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    fn text(&mut self, text: &str) {
        self.add(text.as_bytes());
    }

    fn json(&mut self, value: &impl Serialize) {
        self.add(&serde_json::to_vec(value).expect("it can be encoded"));
    }
}

/// What is ordered of the runner.
fn job(job: &Job) -> String {
    let point = |point: &WalPoint| format!("{} {} {} {}", point.timeline.0, point.lsn, point.length, point.hash);
    let maybe = |value: Option<&WalPoint>| value.map_or("-".to_owned(), point);
    match job {
        Job::Inspect => "inspect".to_owned(),
        Job::CompareWal(CompareWal { own, peer, find_end }) => {
            format!("compare {} {} {find_end}", maybe(own.as_ref()), maybe(peer.as_ref()))
        }
        Job::Mark(id) => format!("mark {}", id.0),
        Job::Start { names, follow } => format!("start {names:?} {follow:?}"),
        Job::Stop { fast_ms, names } => format!("stop {fast_ms} {names:?}"),
        Job::NamesOn(name) => format!("names on {name}"),
        Job::NamesOff => "names off".to_owned(),
        Job::Promote => "promote".to_owned(),
        Job::Prove(name) => format!("prove {name}"),
        Job::Checkpoint => "checkpoint".to_owned(),
        Job::Rebuild(rebuild) => format!("rebuild {}", serde_json::to_string(rebuild).expect("it can be encoded")),
        Job::Abandon => "abandon".to_owned(),
    }
}

impl World {
    /// Takes in what a core orders.
    pub fn fingerprint_action(&mut self, m: usize, action: &Action) {
        let Some(mut print) = self.fingerprint.take() else { return };
        print.text(&format!("{} {m}", self.t));
        match action {
            Action::Send(to, message) => {
                print.text(&format!("send {}", to.index()));
                print.json(message);
            }
            Action::Store(number, durable, why) => {
                let why = why.as_ref().map_or_else(String::new, |why| why.to_string());
                print.text(&format!("store {number} {why}"));
                print.json(durable);
                // What operators are told at this moment.
                self.fingerprint_report(&mut print, m);
            }
            Action::Run(id, ordered) => print.text(&format!("run {} {}", id.0, job(ordered))),
            Action::Call(id, command) => {
                let UserCommand { purpose, by_operator, target, term, reason, .. } = &**command;
                let who = target.index();
                print.text(&format!("call {} {} {by_operator} {who} {term} {reason}", id.0, purpose.parameter()));
            }
            Action::CallOff(id) => print.text(&format!("call off {}", id.0)),
            Action::Nudge(id) => print.text(&format!("nudge {}", id.0)),
            Action::WatchPeer(on) => print.text(&format!("watch {on}")),
            Action::Look => print.text("look"),
            Action::CompareWal(point) => print.json(point),
            Action::NoteHighWater(mark) => print.json(mark),
            Action::Reply(id, reply) => {
                print.text(&format!("reply {id}"));
                print.json(reply);
            }
            Action::Log(say) => {
                let names = Names {
                    ids: [NAMES[0].to_owned(), NAMES[1].to_owned()],
                    me: if m == 1 { Server::Second } else { Server::First },
                    arbiter: NAMES[ARBITER].to_owned(),
                };
                print.text(&messages::of_say(say, &names).to_string());
            }
            Action::Exit => print.text("exit"),
        }
        self.fingerprint = Some(print);
    }

    fn fingerprint_report(&self, print: &mut Fingerprint, m: usize) {
        if let Core::Node(node) = &self.procs[m].core {
            print.json(&node.report(self.procs[m].clock.now(self.t)));
        }
    }

    /// The number of a run that has ended.
    pub fn final_fingerprint(&self) -> Option<u64> {
        let mut print = self.fingerprint?;
        for m in 0..3 {
            self.fingerprint_report(&mut print, m);
            match &self.procs[m].core {
                Core::Node(node) => print.json(&node.durable()),
                Core::Arbiter(arbiter) => print.json(&arbiter.durable()),
                Core::None => print.text("none"),
            }
        }
        print.text(&format!("{} {} {} {}", self.t, self.steps, self.acks, self.acked_at));
        Some(print.0)
    }
}
