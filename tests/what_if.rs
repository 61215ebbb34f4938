//! Predictions of the pure kind: every fault, under every way to act on silence, as a golden file that can be read against the
//! README's table of outcomes. `UPDATE_GOLDEN=1 cargo test --test what_if` updates it.

#[allow(dead_code, reason = "the cases use the rest")]
#[path = "cases/case.rs"]
mod case;
#[path = "common/golden.rs"]
mod golden;

use case::*;
use mirroring_controller::fsm::event::*;
use mirroring_controller::fsm::present::Present;
use mirroring_controller::fsm::types::*;
use mirroring_controller::messages;
use mirroring_controller::what_if::{self, Fault, Prediction, Verdict};
use std::fmt::Write;

/// A pair, as one of its servers sees it.
#[derive(Clone, Copy)]
struct Pair {
    on_silence: OnSilence,
    /// There is an arbiter, and it is heard.
    arbiter: Option<bool>,
    primary: Server,
    failover: bool,
    /// What differs in the settings.
    set: fn(&mut Settings),
}

const ARBITRATION: Pair =
    Pair { on_silence: OnSilence::Arbitration, arbiter: Some(true), primary: ME, failover: true, set: |_| () };

fn without(on_silence: OnSilence) -> Pair {
    Pair { on_silence, arbiter: None, ..ARBITRATION }
}

/// What the arbiter tells.
fn arbiter(case: &mut Case, view: View) {
    let ledger = Ledger { id: ARBITER, data: DataIdentity::default(), ..ledger(3, MY_DATA, view) };
    case.beat += 1;
    let told = Heartbeat { seq: case.beat, system: Some(SystemId(7)), ledger: Some(ledger), ..Heartbeat::blank() };
    case.step(Event::Heard(Member::Arbiter, Message::Heartbeat(Box::new(told))));
}

impl Pair {
    fn at(self, primary: Server) -> Pair {
        Pair { primary, ..self }
    }

    /// The state of the server that is asked, in a mirrored pair that has run for a while.
    fn present(self) -> Present {
        self.case().node.present().expect("nothing is being written")
    }

    fn case(self) -> Case {
        let mut settings = settings(self.arbiter.is_some(), self.on_silence);
        settings.heartbeat_interval_ms = 800;
        settings.heartbeat_timeout_ms = 1000;
        settings.heartbeat_detection_ms = 5400;
        settings.instance_detection_ms = 5400;
        settings.disk_detection_ms = 5400;
        settings.startup_wait_ms = 60_000;
        settings.rebuild_auto = false;
        (self.set)(&mut settings);
        let named = self.arbiter.map(|_| ARBITER);
        let view = View { arbiter: named, ..view(5, self.primary, Mode::Mirrored) };
        let failover = Failover { version: 2, enabled: self.failover };
        let notes = Notes { failover, wanted: true, ..Notes::default() };
        let leads = self.primary == ME;
        let durable = Durable { ledger: ledger(1, MY_DATA, view), notes };
        let mut case = Case::booted(settings, durable, Some(data_dir(!leads, true)));
        let told = Heartbeat {
            role: if leads { Role::Standby } else { Role::Primary },
            streaming: leads,
            on_silence: self.on_silence,
            failover,
            detection_ms: case.node.present().expect("it has booted").settings.heartbeat_detection_ms,
            ..standby(view)
        };
        for n in 0..40u64 {
            let heard = self.arbiter == Some(true) || n < 10;
            if self.arbiter.is_some() && heard {
                arbiter(&mut case, view);
            }
            let reading = match leads {
                true => primary(Names::Peer),
                false => Instance::Standby {
                    timeline: Timeline(1),
                    received: Lsn(200),
                    replayed: Lsn(200),
                    streaming: true,
                    contact: n + 1,
                },
            };
            case.pass(200, Some(&told), Some(reading));
        }
        case
    }

    fn ask(self, faults: &[Fault]) -> Prediction {
        foretell(&self.present(), faults)
    }
}

fn foretell(present: &Present, faults: &[Fault]) -> Prediction {
    let message = |who: Member, say: &CoreMessage| {
        let me = if let Member::Server(server) = who { server } else { ME };
        let names = messages::Names { ids: ["nd1".into(), "nd2".into()], me, arbiter: "arb".into() };
        let message = messages::of_say(say, &names);
        (message.text, message.number)
    };
    let names = what_if::Names { servers: ["nd1", "nd2"], arbiter: "arb", message: &message };
    what_if::predict(present, faults, &names).expect("there is a view")
}

fn told(prediction: &Prediction) -> String {
    let mut text = String::new();
    for step in &prediction.steps {
        let who = match step.who {
            None => "",
            Some(Member::Server(Server::First)) => "nd1",
            Some(Member::Server(Server::Second)) => "nd2",
            Some(Member::Arbiter) => "arb",
        };
        writeln!(text, "  +{:>6.2} {who:3} {}", step.at_ms as f64 / 1000.0, step.text).expect("writing to a string");
    }
    let report = &prediction.report;
    writeln!(text, "  = {:?}: {}", prediction.verdict, prediction.summary).expect("writing to a string");
    writeln!(text, "  because {}", prediction.why).expect("writing to a string");
    writeln!(text, "  ends as {:?}", report.word).expect("writing to a string");
    for line in &prediction.then {
        writeln!(text, "  then {line}").expect("writing to a string");
    }
    for line in &prediction.remarks {
        writeln!(text, "  note {line}").expect("writing to a string");
    }
    text
}

/// The rows of the README's table, and a primary that keeps failover off.
const POLICIES: [(&str, Pair); 8] = [
    ("arbitration", ARBITRATION),
    ("arbitration, the arbiter lost", Pair { arbiter: Some(false), ..ARBITRATION }),
    ("switch", Pair { on_silence: OnSilence::Switch, arbiter: None, ..ARBITRATION }),
    ("disconnect", Pair { on_silence: OnSilence::Disconnect, arbiter: None, ..ARBITRATION }),
    ("message", Pair { on_silence: OnSilence::Message, arbiter: None, ..ARBITRATION }),
    ("fallback", Pair { on_silence: OnSilence::Fallback, arbiter: None, ..ARBITRATION }),
    (
        "switch, failover disabled",
        Pair { on_silence: OnSilence::Switch, arbiter: None, failover: false, ..ARBITRATION },
    ),
    (
        "switch, an isolated primary stops",
        Pair {
            on_silence: OnSilence::Switch,
            arbiter: None,
            set: |settings| settings.isolated_primary_stops = true,
            ..ARBITRATION
        },
    ),
];

#[test]
fn every_fault_under_every_policy() {
    let mut actual = String::from("# policy: fault -> verdict, status word: summary; because why\n");
    for (policy, pair) in POLICIES {
        let present = pair.present();
        for fault in Fault::ALL {
            let Prediction { verdict, summary, why, report, .. } = foretell(&present, &[*fault]);
            let (fault, word) = (fault.word(), report.word);
            let why = if why.is_empty() { why } else { format!("; because {why}") };
            writeln!(actual, "{policy}: {fault} -> {verdict:?}, {word:?}: {summary}{why}")
                .expect("writing to a string");
        }
    }
    golden::check("what_if.txt", &actual);
}

/// Whichever server is asked, and so whichever core continues from where it is and whichever is started anew.
#[test]
fn both_servers_foretell_the_same() {
    for (policy, pair) in POLICIES {
        let presents = [pair.present(), pair.at(PEER).present()];
        for fault in Fault::ALL {
            let [here, there] = presents.each_ref().map(|present| foretell(present, &[*fault]));
            let shown = || format!("{policy}: {}\n{}{}", fault.word(), told(&here), told(&there));
            let words = [here.report.word, there.report.word];
            assert_eq!((here.verdict, words[0]), (there.verdict, words[1]), "{}", shown());
            match (here.interrupted_ms, there.interrupted_ms) {
                (Some(one), Some(other)) => assert!(one.abs_diff(other) <= 1_000, "{}", shown()),
                (one, other) => assert_eq!(one, other, "{}", shown()),
            }
            assert!(policy.contains("lost") || here.remarks == there.remarks, "{}", shown());
        }
    }
}

/// The rows of the README's table of outcomes, as cells.
fn outcomes() -> Vec<Vec<String>> {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("README.md");
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    let table = readme.lines().skip_while(|line| !line.starts_with("| `heartbeat_error_action` |"));
    table.skip(2).take_while(|line| line.starts_with('|')).map(cells).collect()
}

/// What the README's table promises is what is foretold, from either server.
#[test]
fn the_table_of_guarantees() {
    let pairs = [
        ("`arbitration`", POLICIES[0].1),
        ("`arbitration`, arbiter lost too", POLICIES[1].1),
        ("`switch`", POLICIES[2].1),
        ("`switch` and `stop`", POLICIES[7].1),
        ("`disconnect`", POLICIES[3].1),
        ("`message`", POLICIES[4].1),
        ("`fallback`", POLICIES[5].1),
    ];
    let columns = [Fault::PrimaryHost, Fault::StandbyHost, Fault::Link, Fault::PrimaryIsolated, Fault::StandbyIsolated];
    let rows = outcomes();
    assert_eq!(rows.len(), pairs.len() + 1, "each action has a row, and `command` is the last: {rows:?}");
    assert_eq!(rows.last().expect("a row")[0], "`command`");
    for (cells, (action, pair)) in rows.iter().zip(pairs) {
        assert!(cells[0] == action && cells.len() == columns.len() + 2, "{action}: {cells:?}");
        for asked in [pair, pair.at(PEER)] {
            let present = asked.present();
            for (fault, cell) in columns.into_iter().zip(&cells[1..]) {
                let prediction = foretell(&present, &[fault]);
                let expected = match cell.as_str() {
                    "standby takes over" => Verdict::TakesOver,
                    "primary continues" => Verdict::Continues,
                    "primary unreachable" | "standby unreachable" => Verdict::CutOff,
                    "commits wait" => Verdict::CommitsWait,
                    "no service" => Verdict::NoService,
                    "both continue" => Verdict::BothContinue,
                    other => panic!("{action}: {other}"),
                };
                assert_eq!(prediction.verdict, expected, "{action} {fault:?}:\n{}", told(&prediction));
                let lost = cells[6].contains("never");
                assert_eq!(lost, !prediction.without_consent, "{action} {fault:?}:\n{}", told(&prediction));
            }
        }
    }
}

/// The loss of the arbiter disturbs nothing, and what the pair settles between its two controllers it settles as ever.
#[test]
fn without_the_arbiter_instances_are_still_replaced() {
    let pair = ARBITRATION.present();
    for gone in [Fault::Arbiter, Fault::ArbiterHost] {
        assert_eq!(foretell(&pair, &[gone]).verdict, Verdict::Unharmed);
        let instance = foretell(&pair, &[gone, Fault::PrimaryInstance]);
        assert_eq!(instance.verdict, Verdict::TakesOver, "{}", told(&instance));
        assert!(instance.interrupted_ms.is_some_and(|ms| ms < 500));
        let host = foretell(&pair, &[gone, Fault::PrimaryHost]);
        assert_eq!((host.verdict, host.interrupted_ms), (Verdict::NoService, None), "{}", told(&host));
        assert!(host.then.iter().any(|line| line.starts_with("on nd2") && line.contains("mc_ctl switch --force")));
    }
}

#[test]
fn the_second_server_dies_too() {
    let both = ARBITRATION.ask(&[Fault::PrimaryHost, Fault::PrimaryHost]);
    assert_eq!(both.verdict, Verdict::NoService, "{}", told(&both));
    let back = ARBITRATION.ask(&[Fault::PrimaryHost, Fault::Back]);
    assert_eq!(back.verdict, Verdict::Unharmed, "{}", told(&back));
    let standby = ARBITRATION.ask(&[Fault::StandbyHost, Fault::Back]);
    assert_eq!(standby.report.word, mirroring_controller::fsm::report::Word::Switchable, "{}", told(&standby));
}

/// With `fallback` both continue when the network breaks; when it is repaired, one is stopped.
#[test]
fn a_split_is_foretold() {
    let split = without(OnSilence::Fallback).ask(&[Fault::Link, Fault::Back]);
    assert_eq!(split.report.word, mirroring_controller::fsm::report::Word::SplitBrain, "{}", told(&split));
    assert!(split.without_consent && split.steps.iter().any(|step| step.text.starts_with("split brain:")));
}

#[test]
fn what_has_failed_already_cannot_fail() {
    let pair = without(OnSilence::Switch);
    let twice = pair.ask(&[Fault::StandbyHost, Fault::StandbyHost]);
    assert_eq!(twice.verdict, Verdict::Impossible, "{}", told(&twice));
    let arbiter = pair.ask(&[Fault::Arbiter]);
    assert_eq!((arbiter.verdict, arbiter.summary.as_str()), (Verdict::Impossible, "there is no arbiter"));
}

/// With automatic switch and disconnection off nothing is done, and it is told what would be.
#[test]
fn disabled_failover_is_told() {
    let off = Pair { failover: false, ..ARBITRATION }.ask(&[Fault::PrimaryHost]);
    assert_eq!(off.verdict, Verdict::NoService, "{}", told(&off));
    assert!(off.why.contains("disabled"), "{}", off.why);
    assert!(off.then.iter().any(|line| line.contains("enable-failover): nd2 takes over")), "{}", told(&off));
}

/// A server that runs alone since the other one fell silent: what is known of that is taken for true, and said.
#[test]
fn from_a_state_with_failures() {
    let pair = without(OnSilence::Disconnect);
    let settings = pair.present().settings;
    let view = view(7, ME, Mode::Degraded);
    let failover = Failover { version: 2, enabled: true };
    let durable =
        Durable { ledger: ledger(1, MY_DATA, view), notes: Notes { failover, wanted: true, ..Notes::default() } };
    let mut case = Case::booted(settings, durable, Some(data_dir(false, true)));
    let alone = Instance::Primary {
        timeline: Timeline(1),
        flushed: Lsn(300),
        names: Names::Unset,
        waiting: false,
        standby: None,
    };
    let silent = Heartbeat { on_silence: OnSilence::Disconnect, ..standby(view) };
    case.pass(2_000, Some(&silent), Some(alone));
    case.pass(20_000, None, Some(alone));
    let present = case.node.present().expect("nothing is being written");
    let died = foretell(&present, &[Fault::PrimaryInstance]);
    assert_eq!(died.verdict, Verdict::Continues, "{}", told(&died));
    assert!(died.interrupted_ms.is_some_and(|ms| (100..3_000).contains(&ms)), "{}", told(&died));
    assert_eq!(died.remarks, ["nd2 is assumed to have failed: it sends no heartbeat"], "{}", told(&died));
    let standby = foretell(&present, &[Fault::StandbyInstance]);
    assert_eq!(standby.verdict, Verdict::Impossible, "{}", told(&standby));
}

/// Settings that say when something is found are followed, and the same question has the same answer.
#[test]
fn times_follow_the_settings() {
    let quick = Pair {
        set: |settings| {
            settings.heartbeat_interval_ms = 100;
            settings.heartbeat_timeout_ms = 300;
            settings.heartbeat_detection_ms = 800;
            settings.instance_detection_ms = 800;
            settings.disk_detection_ms = 800;
        },
        ..ARBITRATION
    };
    let present = quick.present();
    let prediction = foretell(&present, &[Fault::PrimaryHost]);
    assert!(prediction.interrupted_ms.is_some_and(|ms| (600..1_300).contains(&ms)), "{}", told(&prediction));
    assert_eq!(prediction, foretell(&present, &[Fault::PrimaryHost]));
    let node = present.node.clone();
    drop(foretell(&present, &[Fault::Link, Fault::Back]));
    assert!(node == present.node);
}

/// `fencing_command` is called where it would be, and what it does to a server that lives is foretold.
#[test]
fn fencing_is_told() {
    let fences = Pair { set: |settings| settings.fencing = true, ..ARBITRATION }.ask(&[Fault::StandbyHost]);
    assert_eq!(fences.verdict, Verdict::Continues, "{}", told(&fences));
    assert!(fences.steps.iter().any(|step| step.text.contains("fencing_command")), "{}", told(&fences));
    assert!(fences.remarks.iter().any(|line| line.contains("fencing_command")), "{}", told(&fences));
    let command = Pair { on_silence: OnSilence::Command, arbiter: None, ..ARBITRATION };
    let dead = command.ask(&[Fault::PrimaryHost]);
    assert_eq!(dead.verdict, Verdict::TakesOver, "{}", told(&dead));
    let cut = command.ask(&[Fault::Link]);
    assert_eq!(cut.verdict, Verdict::CommitsWait, "{}", told(&cut));
}

/// Hooks are told of what is foretold, and hold nothing back.
#[test]
fn hooks_are_told() {
    let plain = ARBITRATION.ask(&[Fault::PrimaryHost]);
    let told_of = Pair { set: |settings| settings.hooks.post_switch = true, ..ARBITRATION }.ask(&[Fault::PrimaryHost]);
    let called = |step: &what_if::Step| step.text.contains("post_switch_command");
    assert!(told_of.steps.iter().any(called) && !plain.steps.iter().any(called), "{}", told(&told_of));
    assert!(told_of.remarks.is_empty() && told_of.interrupted_ms == plain.interrupted_ms, "{}", told(&told_of));
}

/// A command that runs when the question is asked ends in the model too; what follows from that is told as what it is.
#[test]
fn from_the_middle_of_a_change() {
    let pair = Pair { on_silence: OnSilence::Command, arbiter: None, primary: PEER, ..ARBITRATION };
    let mut case = pair.case();
    let standby = |n| Instance::Standby {
        timeline: Timeline(1),
        received: Lsn(200),
        replayed: Lsn(200),
        streaming: false,
        contact: n,
    };
    case.pass(7_000, None, Some(standby(40)));
    assert_eq!(case.calls.len(), 1, "the arbitration command was called");
    let present = case.node.present().expect("nothing is being written");
    let prediction = foretell(&present, &[Fault::PrimaryInstance]);
    assert_eq!(prediction.verdict, Verdict::Continues, "{}", told(&prediction));
    assert!(prediction.remarks.iter().any(|line| line.contains("is not stable in the model")), "{}", told(&prediction));
}

/// A server that has just started, as `mc_ctl start` does, beside a stopped one: no heartbeat has arrived.
fn beside_a_stopped_server(view: View, promoted: bool, refuses: bool) -> Present {
    let settings = without(OnSilence::Switch).present().settings;
    let failover = Failover { version: 2, enabled: true };
    let notes = Notes { failover, wanted: true, promoted, ..Notes::default() };
    let leads = view.primary == ME;
    let durable = Durable { ledger: ledger(1, MY_DATA, view), notes };
    let mut case = Case::booted(settings, durable, Some(data_dir(!leads, true)));
    let timeline = Timeline(if promoted { 2 } else { 1 });
    let reading = match leads {
        true => Instance::Primary { timeline, flushed: Lsn(300), names: Names::Unset, waiting: false, standby: None },
        false => {
            let (received, replayed) = (Lsn(200), Lsn(200));
            Instance::Standby { timeline, received, replayed, streaming: false, contact: 0 }
        }
    };
    for _ in 0..10 {
        if refuses {
            case.step(Event::Refused(Member::Server(PEER)));
        }
        case.pass(200, None, Some(reading));
    }
    case.node.present().expect("nothing is being written")
}

/// `mc_ctl stop` on both servers, or `mc_ctl stop -a`, and a start of one of them: the prediction starts the other server as this
/// server's ledger describes it.
#[test]
fn back_after_both_were_stopped() {
    use mirroring_controller::fsm::report::{HostRole, Word};
    let switchable = (Word::Switchable, [HostRole::Standby, HostRole::Primary]);
    let cases = [
        ("mirrored", view(5, PEER, Mode::Mirrored), false, switchable),
        ("the standby was detached", view(7, PEER, Mode::Degraded), false, switchable),
        (
            "this server ran alone and was not promoted",
            view(7, ME, Mode::Degraded),
            false,
            (Word::Switchable, [HostRole::Primary, HostRole::Standby]),
        ),
        (
            "this server has replaced the primary",
            view(7, ME, Mode::Degraded),
            true,
            (Word::Switched, [HostRole::Primary, HostRole::InactivatedPrimary]),
        ),
    ];
    for (what, view, promoted, expected) in cases {
        for refuses in [true, false] {
            let back = foretell(&beside_a_stopped_server(view, promoted, refuses), &[Fault::Back]);
            let rows = [0, 1].map(|n| back.report.servers[n].role);
            assert_eq!((back.report.word, rows), expected, "{what}\n{}", told(&back));
            assert_ne!(back.verdict, Verdict::Impossible, "{what}\n{}", told(&back));
        }
    }
}

/// The controller of the other server has just ended: its host refuses connections, but its last heartbeat is recent.
#[test]
fn a_server_that_was_just_stopped_is_stopped() {
    let mut case = ARBITRATION.case();
    case.step(Event::Refused(Member::Server(PEER)));
    let present = case.node.present().expect("nothing is being written");
    let back = foretell(&present, &[Fault::Back]);
    assert_eq!(back.report.word, mirroring_controller::fsm::report::Word::Switchable, "{}", told(&back));
    assert_ne!(back.verdict, Verdict::Impossible, "{}", told(&back));
    assert_eq!(foretell(&present, &[Fault::StandbyController]).verdict, Verdict::Impossible);
}
