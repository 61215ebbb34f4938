//! Single cases of the decision core, each a sequence of events that once went wrong: one server, whose writes succeed at
//! once, and whatever the others say to it.

#[path = "cases/case.rs"]
mod case;
#[path = "cases/rebuild.rs"]
mod rebuild;

use case::*;
use mirroring_controller::fsm::event::*;
use mirroring_controller::fsm::node::Node;
use mirroring_controller::fsm::types::*;

/// PROTOCOL R9, last paragraph: once. A pair that is mirrored again stays so.
#[test]
fn names_that_were_changed_once_are_set_back_once() {
    let mirrored = view(5, ME, Mode::Mirrored);
    let mut case = Case::new(settings(false, OnSilence::Message), mirrored, Some(data_dir(false, true)));
    case.pass(1000, Some(&standby(mirrored)), Some(primary(Names::Peer)));
    assert_eq!(case.proposed(Member::Server(PEER)), []);

    case.pass(200, Some(&standby(mirrored)), Some(primary(Names::Unset)));
    assert_eq!(case.job(), Some(&Job::NamesOn("two".into())));
    case.done(Outcome::Applied);
    let alone = case.accepted();
    assert!(alone.is_alone(ME));
    assert_eq!(case.job(), Some(&Job::NamesOff));
    case.done(Outcome::Applied);
    case.pass(100, Some(&standby(alone)), Some(primary(Names::Unset)));
    assert_eq!(case.job(), Some(&Job::Prove("two".into())));
    case.done(Outcome::Proved(Lsn(200)));
    let again = case.view();
    assert!(again.is_mirrored(ME));

    case.sent.clear();
    case.pass(5000, Some(&standby(again)), Some(primary(Names::Peer)));
    assert_eq!(case.proposed(Member::Server(PEER)), []);
    assert_eq!(case.view(), again);
}

#[test]
fn a_switch_to_a_detached_standby_is_refused_with_that_reason() {
    let mirrored = view(5, ME, Mode::Mirrored);
    let mut case = Case::new(settings(false, OnSilence::Message), mirrored, Some(data_dir(false, true)));
    case.pass(1000, Some(&standby(mirrored)), Some(primary(Names::Peer)));
    case.step(Event::Request { id: 5, request: Request::Detach, limit_ms: 60_000 });
    let alone = case.accepted();
    case.done(Outcome::Applied);
    case.pass(200, Some(&standby(alone)), Some(primary(Names::Unset)));
    case.step(Event::Request { id: 6, request: Request::Switch, limit_ms: 60_000 });
    let refused = format!("{:?}", case.replies.last());
    assert!(refused.starts_with("Some(Refused(\"the standby was detached; "), "{refused}");
}

/// A rebuilt standby that is mirrored by chance of a name could never take over: it is named by a new view.
#[test]
fn a_standby_that_the_view_does_not_name_is_named() {
    let mirrored = view(5, ME, Mode::Mirrored);
    let mut case = Case::new(settings(false, OnSilence::Message), mirrored, Some(data_dir(false, true)));
    let rebuilt = |view| Heartbeat { ledger: Some(ledger(2, DataId(33), view)), ..standby(view) };
    case.pass(500, Some(&rebuilt(mirrored)), Some(primary(Names::Peer)));
    let alone = case.accepted();
    case.done(Outcome::Applied);
    case.pass(100, Some(&rebuilt(alone)), Some(primary(Names::Unset)));
    case.done(Outcome::Proved(Lsn(200)));
    assert_eq!(case.view().data, [Some(MY_DATA), Some(DataId(33))]);
}

/// The same where the standby has lost its ledger: it can consent to nothing, but the arbiter can.
#[test]
fn the_arbiter_consents_for_a_standby_without_a_ledger() {
    let mirrored = View { arbiter: Some(ARBITER), ..view(5, ME, Mode::Mirrored) };
    let mut case = Case::new(settings(true, OnSilence::Arbitration), mirrored, Some(data_dir(false, true)));
    let lost = Heartbeat { ledger: None, ..standby(mirrored) };
    case.pass(500, Some(&lost), Some(primary(Names::Peer)));
    let view = *case.proposed(Member::Arbiter).last().expect("the arbiter is asked");
    assert!(view.is_alone(ME));
}

/// A primary whose disk is gone since before its controller was started stops what there is and lets the standby take over.
#[test]
fn a_primary_whose_directory_cannot_be_read_hands_over() {
    let mirrored = view(5, ME, Mode::Mirrored);
    let mut case = Case::new(settings(false, OnSilence::Message), mirrored, None);
    for _ in 0..10 {
        case.pass(500, Some(&standby(mirrored)), None);
        match case.job() {
            Some(Job::Inspect) => case.done(Outcome::Failed("it is not mounted".into())),
            Some(Job::Stop { .. }) => break,
            other => panic!("{other:?}"),
        }
    }
    case.done(Outcome::Stopped(None));
    case.pass(100, Some(&standby(mirrored)), None);
    let proposed = View { term: Term(6), primary: PEER, mode: Mode::Degraded, ..mirrored };
    let base = ledger(2, PEER_DATA, mirrored);
    case.step(Event::Heard(
        Member::Server(PEER),
        Message::Propose {
            base,
            view: proposed,
            received: Lsn(200),
            point: None,
            known: Default::default(),
            why: String::new(),
        },
    ));
    assert_eq!(case.view(), proposed);
}

/// A standby whose disk is gone since before its controller was started does not hold the primary up.
#[test]
fn a_standby_whose_directory_cannot_be_read_consents() {
    let mirrored = view(6, PEER, Mode::Mirrored);
    let mut case = Case::new(settings(false, OnSilence::Message), mirrored, None);
    let told = Heartbeat { role: Role::Primary, streaming: false, ..standby(mirrored) };
    for _ in 0..10 {
        case.pass(500, Some(&told), None);
        if case.job() == Some(&Job::Inspect) {
            case.done(Outcome::Failed("it is not mounted".into()));
        }
    }
    let proposed = View { term: Term(8), mode: Mode::Degraded, ..mirrored };
    let base = ledger(2, PEER_DATA, mirrored);
    case.step(Event::Heard(
        Member::Server(PEER),
        Message::Propose {
            base,
            view: proposed,
            received: Lsn(0),
            point: None,
            known: Default::default(),
            why: String::new(),
        },
    ));
    assert_eq!(case.view(), proposed);
}

/// A server whose ledger cannot be written falls silent, so that the others do without its consent.
#[test]
fn a_server_that_cannot_write_falls_silent() {
    let mirrored = view(5, ME, Mode::Mirrored);
    let mut case = Case::new(settings(false, OnSilence::Message), mirrored, Some(data_dir(false, true)));
    case.pass(1000, Some(&standby(mirrored)), Some(primary(Names::Peer)));
    case.writes = false;
    case.step(Event::Request { id: 1, request: Request::Failover(false), limit_ms: 1000 });
    case.pass(1500, Some(&standby(mirrored)), Some(primary(Names::Peer)));
    case.sent.clear();
    case.pass(2000, Some(&standby(mirrored)), Some(primary(Names::Peer)));
    assert_eq!(case.sent.len(), 0);
}

/// Two that were founded without hearing each other have split, though nobody used force.
#[test]
fn two_founders_have_split() {
    let mine = view(1, ME, Mode::Degraded);
    let mut case = Case::new(settings(false, OnSilence::Message), mine, Some(data_dir(false, true)));
    let theirs = view(2, PEER, Mode::Degraded);
    let told = Heartbeat { role: Role::Primary, streaming: false, ..standby(theirs) };
    case.pass(500, Some(&told), Some(primary(Names::Unset)));
    assert!(case.said.iter().any(|say| matches!(say, CoreMessage::Split { stopped: true, .. })), "{:?}", case.said);
    assert!(matches!(case.job(), Some(Job::Stop { .. })), "{:?}", case.job());
}

/// An operator's start founds a pair only beside a server of the same cluster.
#[test]
fn no_pair_is_founded_beside_another_cluster() {
    let data = DataDir { mark: None, ..data_dir(false, false) };
    for (system, founds) in [(data.system, true), (SystemId(data.system.0 + 1), false)] {
        let mut node = Node::new(settings(false, OnSilence::Message));
        let boot = Boot {
            by: StartedBy::Operator { instance: true, failover: None },
            durable: None,
            data: Some(data),
            name: "one".into(),
            address: "one:5432".into(),
            peer_name: "two".into(),
            start_id: 3,
            high_water: None,
        };
        let mut actions = node.step(Time(1_000), Event::Boot(Box::new(boot)));
        for n in 1..200 {
            let told =
                Heartbeat { seq: (1 << 20) + n, system: Some(system), role: Role::Standby, ..Heartbeat::blank() };
            let heard = Event::Heard(Member::Server(PEER), Message::Heartbeat(Box::new(told)));
            actions.extend(node.step(Time(1_000 + n * 50), heard));
        }
        let founded = actions.iter().any(|action| matches!(action, Action::Store(..)));
        assert_eq!(founded, founds, "{system:?}");
        let refused = actions.iter().any(
            |action| matches!(action, Action::Log(CoreMessage::WillNotStart(why)) if why.contains("belongs to another cluster")),
        );
        assert_eq!(refused, !founds, "{system:?}");
    }
}

/// A half leans on nobody else: not while the view names an arbiter, which another configuration of the standby may ask.
#[test]
fn a_half_is_not_acted_by_under_a_view_that_names_an_arbiter() {
    for (arbiter, alone) in [(None, true), (Some(ARBITER), false)] {
        let mirrored = View { arbiter, ..view(5, ME, Mode::Mirrored) };
        let mut case = Case::new(settings(false, OnSilence::Disconnect), mirrored, Some(data_dir(false, true)));
        let told = Heartbeat { on_silence: OnSilence::Disconnect, ..standby(mirrored) };
        case.pass(500, Some(&told), Some(primary(Names::Peer)));
        let silent = Instance::Primary {
            timeline: Timeline(1),
            flushed: Lsn(200),
            names: Names::Peer,
            waiting: false,
            standby: None,
        };
        case.pass(3000, None, Some(silent));
        assert_eq!(case.view().is_alone(ME), alone, "{arbiter:?}");
    }
}

/// A planned switch waits for its checkpoint only as long as the standby is well.
#[test]
fn a_switch_is_broken_off_where_the_standby_fails_during_the_checkpoint() {
    let mirrored = view(5, ME, Mode::Mirrored);
    let mut case = Case::new(settings(false, OnSilence::Message), mirrored, Some(data_dir(false, true)));
    case.pass(1000, Some(&standby(mirrored)), Some(primary(Names::Peer)));
    case.step(Event::Request { id: 1, request: Request::Switch, limit_ms: 60_000 });
    case.pass(100, Some(&standby(mirrored)), Some(primary(Names::Peer)));
    assert_eq!(case.job(), Some(&Job::Checkpoint));
    let ill = Heartbeat { role: Role::None, instance: Health::Failed, streaming: false, ..standby(mirrored) };
    case.pass(500, Some(&ill), Some(primary(Names::Peer)));
    assert!(case.accepted().is_alone(ME));
}

/// Only the other server itself ends a split that this one has lost, not an arbiter that knows of its right alone.
#[test]
fn an_arbiter_does_not_end_a_split() {
    let mine = View { arbiter: Some(ARBITER), ..view(9, ME, Mode::Degraded) };
    let mut case = Case::new(settings(true, OnSilence::Arbitration), mine, Some(data_dir(false, true)));
    let theirs = View { forced: true, arbiter: Some(ARBITER), ..view(8, PEER, Mode::Degraded) };
    let told = Heartbeat { role: Role::Primary, streaming: false, promoted: true, ..standby(theirs) };
    case.pass(500, Some(&told), Some(primary(Names::Unset)));
    assert!(case.durable.notes.lost_split);
    let arbiter = Heartbeat { seq: 1, ledger: Some(ledger(ARBITER.0, DataId(0), mine)), ..standby(mine) };
    case.step(Event::Heard(Member::Arbiter, Message::Heartbeat(Box::new(arbiter))));
    assert!(case.durable.notes.lost_split);
}

/// What an arbiter tells whose ledger holds this view.
fn arbiter(seq: u64, view: View) -> Event {
    let heartbeat = Heartbeat {
        seq,
        role: Role::None,
        instance: Health::Unknown,
        streaming: false,
        ledger: Some(ledger(ARBITER.0, DataId(0), view)),
        would_grant: true,
        ..standby(view)
    };
    Event::Heard(Member::Arbiter, Message::Heartbeat(Box::new(heartbeat)))
}

fn mirrored_with_arbiter(primary: Server) -> View {
    View { arbiter: Some(ARBITER), ..view(5, primary, Mode::Mirrored) }
}

const STREAMS: Instance =
    Instance::Standby { timeline: Timeline(1), received: Lsn(200), replayed: Lsn(200), streaming: true, contact: 7 };

/// The standby's disk hangs as a whole: its controller can write no ledger and has fallen silent, its instance flushes
/// nothing, and its postmaster still answers whoever connects. That is no reason for commits to wait for ever.
#[test]
fn an_instance_that_answers_and_flushes_nothing_does_not_hold_commits_up() {
    let mirrored = mirrored_with_arbiter(ME);
    let mut case = Case::new(settings(true, OnSilence::Arbitration), mirrored, Some(data_dir(false, true)));
    case.pass(1000, Some(&standby(mirrored)), Some(primary(Names::Peer)));
    let row = Some(StandbyRow { streaming: true, sync: true, flushed: Lsn(200), reply: 1 });
    let waits =
        Instance::Primary { timeline: Timeline(1), flushed: Lsn(900), names: Names::Peer, waiting: true, standby: row };
    for beat in 1..200 {
        case.step(arbiter(beat, mirrored));
        case.step(Event::PeerInstance(PeerInstance::Answered));
        case.pass(100, None, Some(waits));
    }
    assert!(!case.proposed(Member::Arbiter).is_empty(), "20 s of commits that wait, and the arbiter is not asked");
}

/// The same on the primary's side: it acknowledges nothing and streams nothing, and only its postmaster answers.
#[test]
fn a_primary_of_which_only_the_postmaster_answers_is_given_up() {
    let mirrored = mirrored_with_arbiter(PEER);
    let mut case = Case::new(settings(true, OnSilence::Arbitration), mirrored, Some(data_dir(true, true)));
    let told = Heartbeat { role: Role::Primary, streaming: false, ..standby(mirrored) };
    case.pass(1000, Some(&told), Some(STREAMS));
    let alone = Instance::Standby {
        timeline: Timeline(1),
        received: Lsn(200),
        replayed: Lsn(200),
        streaming: false,
        contact: 7,
    };
    for beat in 1..200 {
        case.step(arbiter(beat, mirrored));
        case.step(Event::PeerInstance(PeerInstance::Answered));
        case.pass(100, None, Some(alone));
    }
    assert!(!case.proposed(Member::Arbiter).is_empty(), "20 s without WAL, and the arbiter is not asked");
}

/// The primary's disk hangs so that its processes cannot be killed: it says that its disk has failed, and never gets as
/// far as offering. The arbiter would consent (R8).
#[test]
fn a_primary_that_says_it_has_failed_and_cannot_stop_is_given_up() {
    let mirrored = mirrored_with_arbiter(PEER);
    let mut case = Case::new(settings(true, OnSilence::Arbitration), mirrored, Some(data_dir(true, true)));
    let told = Heartbeat { role: Role::Primary, streaming: false, ..standby(mirrored) };
    case.pass(1000, Some(&told), Some(STREAMS));
    let ill = Heartbeat { disk: "data".into(), ..told };
    for beat in 1..200 {
        case.step(arbiter(beat, mirrored));
        case.pass(100, Some(&ill), Some(STREAMS));
    }
    assert!(!case.proposed(Member::Arbiter).is_empty(), "20 s of a failed primary, and the arbiter is not asked");
}

/// What a script said about the other server counts no more once that has been seen to live.
#[test]
fn an_arbitration_command_is_called_anew_after_a_sign_of_life() {
    let mirrored = view(5, ME, Mode::Mirrored);
    let mut case = Case::new(settings(false, OnSilence::Command), mirrored, Some(data_dir(false, true)));
    case.pass(1000, Some(&standby(mirrored)), Some(primary(Names::Peer)));
    let silent = Instance::Primary {
        timeline: Timeline(1),
        flushed: Lsn(200),
        names: Names::Peer,
        waiting: false,
        standby: None,
    };
    case.pass(2000, None, Some(silent));
    assert_eq!(case.calls.len(), 1);
    let id = case.calls[0].0;
    for _ in 0..20 {
        case.step(Event::PeerInstance(PeerInstance::Answered));
        case.pass(100, None, Some(silent));
    }
    case.step(Event::CommandDone(id, Ok(())));
    for _ in 0..600 {
        case.step(Event::PeerInstance(PeerInstance::Answered));
        case.pass(100, None, Some(silent));
    }
    assert_eq!(case.view(), mirrored);
    case.pass(3000, None, Some(silent));
    assert_eq!(
        (case.view(), case.calls.len()),
        (mirrored, 2),
        "a minute-old word, and its instance has answered since"
    );
}

/// A standby whose controller talks and never consents, whatever holds it up there: the arbiter can.
#[test]
fn a_standby_that_talks_and_does_not_consent_does_not_hold_commits_up() {
    let mirrored = mirrored_with_arbiter(ME);
    let mut case = Case::new(settings(true, OnSilence::Arbitration), mirrored, Some(data_dir(false, true)));
    case.pass(1000, Some(&standby(mirrored)), Some(primary(Names::Peer)));
    let row = Some(StandbyRow { streaming: true, sync: true, flushed: Lsn(200), reply: 1 });
    let waits =
        Instance::Primary { timeline: Timeline(1), flushed: Lsn(900), names: Names::Peer, waiting: true, standby: row };
    for beat in 1..200 {
        case.step(arbiter(beat, mirrored));
        case.pass(100, Some(&standby(mirrored)), Some(waits));
    }
    assert!(!case.proposed(Member::Server(PEER)).is_empty());
    assert!(!case.proposed(Member::Arbiter).is_empty(), "20 s of commits that wait, and the arbiter is not asked");
}

/// Controller and instance died together, and crash recovery takes long: the standby could serve all the while.
#[test]
fn a_long_crash_recovery_is_cut_short_by_a_hand_over() {
    let mirrored = mirrored_with_arbiter(ME);
    let mut case = Case::new(settings(true, OnSilence::Arbitration), mirrored, Some(data_dir(false, false)));
    let told = Heartbeat { streaming: false, ..standby(mirrored) };
    case.pass(200, Some(&told), None);
    assert!(matches!(case.job(), Some(Job::Start { .. })), "{:?}", case.job());
    case.done(Outcome::Started(data_dir(false, false)));
    case.pass(60_000, Some(&told), Some(Instance::Starting));
    assert!(
        matches!(case.job(), Some(Job::Stop { .. })),
        "a minute of recovery, and the standby is not asked: {:?}",
        case.job()
    );
}

/// The primary's controller is not there (it is being upgraded, say), and its instance serves: WAL arrives. A standby whose
/// controller has just been started has never heard the other one, but it sees that it lives.
#[test]
fn a_primary_whose_wal_arrives_is_not_replaced_by_a_standby_that_never_heard_its_controller() {
    let mirrored = mirrored_with_arbiter(PEER);
    let mut case = Case::new(settings(true, OnSilence::Arbitration), mirrored, Some(data_dir(true, true)));
    for beat in 1..200 {
        let streams = Instance::Standby {
            timeline: Timeline(1),
            received: Lsn(200 + beat),
            replayed: Lsn(200),
            streaming: true,
            contact: beat,
        };
        case.step(arbiter(beat, mirrored));
        case.pass(100, None, Some(streams));
    }
    assert_eq!(case.proposed(Member::Arbiter), []);
}

/// An old primary whose disk has gone, so that nothing can be read, is stopped all the same when the other has the right.
#[test]
fn an_outcast_whose_directory_cannot_be_read_is_stopped() {
    let theirs = view(6, PEER, Mode::Degraded);
    let mut case = Case::new(settings(false, OnSilence::Message), theirs, None);
    let told = Heartbeat { role: Role::Primary, streaming: false, promoted: true, ..standby(theirs) };
    for _ in 0..20 {
        case.pass(500, Some(&told), Some(primary(Names::Peer)));
        match case.job() {
            Some(Job::Inspect) => case.done(Outcome::Failed("it is not mounted".into())),
            Some(Job::Stop { .. }) => return,
            other => panic!("{other:?}"),
        }
    }
    panic!("ten seconds of a second primary, and only looked at");
}

/// The instance is looked at less often than heartbeats come: nothing is wrong between two looks.
#[test]
fn a_standby_is_not_disconnected_between_two_looks() {
    let mirrored = mirrored_with_arbiter(ME);
    let slow = Settings { instance_detection_ms: 20_000, ..settings(true, OnSilence::Arbitration) };
    let mut case = Case::new(slow, mirrored, Some(data_dir(false, true)));
    for beat in 1..10 {
        case.step(arbiter(beat, mirrored));
        case.step(Event::Instance(primary(Names::Peer)));
        case.pass(5000, Some(&standby(mirrored)), None);
    }
    assert_eq!(case.proposed(Member::Server(PEER)), []);
}

/// R9 waits ever longer after proofs that failed, but not for a standby that was made anew meanwhile.
#[test]
fn a_rebuilt_standby_is_proved_at_once() {
    let mine = view(7, ME, Mode::Degraded);
    let mut case = Case::new(settings(false, OnSilence::Message), mine, Some(data_dir(false, true)));
    let mut told = standby(mine);
    let prove = |case: &mut Case, told: &Heartbeat, ms: u64| {
        for _ in 0..ms / 50 {
            case.pass(50, Some(told), Some(primary(Names::Unset)));
            match case.jobs[case.ended..].last().cloned() {
                Some((_, Job::Prove(_))) => {
                    case.done(Outcome::Failed("it is not sync".into()));
                    return true;
                }
                Some((_, Job::NamesOff)) => case.done(Outcome::Applied),
                Some((_, Job::Inspect)) => case.done(Outcome::Data(data_dir(false, true))),
                _ => {}
            }
        }
        false
    };
    assert!((0..4).all(|_| prove(&mut case, &told, 20_000)));
    assert!(!prove(&mut case, &told, 5_000), "the fifth waits for 16 detection times");
    told.ledger = Some(ledger(2, DataId(23), mine));
    assert!(prove(&mut case, &told, 1_000));
}

/// What the proof has seen is newer than the probe's last look: a switch right after it is not refused.
#[test]
fn a_switch_may_follow_the_proof_at_once() {
    let mine = view(7, ME, Mode::Degraded);
    let mut case = Case::new(settings(false, OnSilence::Message), mine, Some(data_dir(false, true)));
    let row = StandbyRow { streaming: true, sync: false, flushed: Lsn(200), reply: 1 };
    let waits_for_nobody = Instance::Primary {
        timeline: Timeline(1),
        flushed: Lsn(200),
        names: Names::Unset,
        waiting: false,
        standby: Some(row),
    };
    for _ in 0..20 {
        case.pass(50, Some(&standby(mine)), Some(waits_for_nobody));
        if matches!(case.job(), Some(Job::Prove(_))) {
            break;
        }
        if case.job() == Some(&Job::NamesOff) {
            case.done(Outcome::Applied);
        }
    }
    case.done(Outcome::Proved(Lsn(210)));
    let mirrored = case.view();
    assert_eq!(mirrored.mode, Mode::Mirrored);
    case.hear(&standby(mirrored));
    case.step(Event::Request { id: 5, request: Request::Switch, limit_ms: 5_000 });
    case.step(Event::Tick);
    assert_eq!((case.replies.pop(), case.job()), (None, Some(&Job::Checkpoint)));
}

/// What the server's status advises after this time of silence, in which its instance runs in its role and is not followed.
fn advice_on_silence(case: &mut Case, primary: Server) -> String {
    let (timeline, flushed) = (Timeline(1), Lsn(200));
    let reading = match primary == ME {
        true => Instance::Primary { timeline, flushed, names: Names::Peer, waiting: false, standby: None },
        false => Instance::Standby { timeline, received: flushed, replayed: flushed, streaming: false, contact: 7 },
    };
    case.pass(30_000, None, Some(reading));
    case.node.report(Time(case.now)).advice.join("\n")
}

fn without_arbiter(primary: Server) -> View {
    View { arbiter: None, ..view(5, primary, Mode::Mirrored) }
}

/// Advice that names `--force` says what is not known, which depends on who else could let the other server serve.
#[test]
fn advice_to_force_names_the_risk() {
    let risks = [
        (OnSilence::Disconnect, "the primary may have served alone", "an operator may have promoted the standby"),
        (OnSilence::Switch, "an operator may have allowed the primary to serve", "the standby may have been promoted"),
        (
            OnSilence::Message,
            "an operator may have allowed the primary to serve",
            "an operator may have promoted the standby",
        ),
    ];
    for (on_silence, as_standby, as_primary) in risks {
        for (primary, verb, risk) in [(PEER, "switch", as_standby), (ME, "detach", as_primary)] {
            let mirrored = without_arbiter(primary);
            let mut case = Case::new(settings(false, on_silence), mirrored, Some(data_dir(primary == PEER, true)));
            // The other server has another setting, so neither acts.
            case.pass(500, Some(&standby(mirrored)), None);
            let advice = advice_on_silence(&mut case, primary);
            assert!(advice.contains(&format!("mc_ctl {verb} --force")), "{on_silence:?} {verb}: {advice}");
            assert!(advice.contains(risk) && advice.contains("lost"), "{on_silence:?} {verb}: {advice}");
        }
    }
}

/// Where the controller would act on the silence if failover were enabled, the advice is to enable it, not to use force.
#[test]
fn advice_on_silence_without_failover_is_to_enable_it() {
    let acting = [
        (PEER, OnSilence::Switch),
        (PEER, OnSilence::Fallback),
        (ME, OnSilence::Disconnect),
        (ME, OnSilence::Fallback),
    ];
    for (primary, on_silence) in acting {
        let mirrored = without_arbiter(primary);
        let mut case = Case::new(settings(false, on_silence), mirrored, Some(data_dir(primary == PEER, true)));
        case.step(Event::Request { id: 1, request: Request::Failover(false), limit_ms: 1_000 });
        case.pass(500, Some(&Heartbeat { on_silence, ..standby(mirrored) }), None);
        let advice = advice_on_silence(&mut case, primary);
        assert!(advice.contains("mc_ctl enable-failover"), "{on_silence:?}: {advice}");
        assert!(!advice.contains("--force"), "{on_silence:?}: {advice}");
        assert_eq!(case.view(), mirrored);
        case.step(Event::Request { id: 2, request: Request::Failover(true), limit_ms: 1_000 });
        let advice = advice_on_silence(&mut case, primary);
        assert!(case.view().is_alone(ME), "{on_silence:?}: {advice}");
    }
}

/// The data of the server that lost a split can be kept only if the ledger of the other server, which was promoted, is moved
/// aside: before the data is adopted, and as long as that server does not respond.
#[test]
fn advice_on_adopted_data_names_the_ledger_of_the_other_server() {
    let mine = View { forced: true, ..view(5, ME, Mode::Degraded) };
    let theirs = View { forced: true, ..view(6, PEER, Mode::Degraded) };
    let told =
        Heartbeat { role: Role::Primary, promoted: true, streaming: false, timeline: Timeline(2), ..standby(theirs) };
    let mut case = Case::new(settings(false, OnSilence::Message), mine, Some(data_dir(false, false)));
    case.pass(500, Some(&told), None);
    assert!(case.durable.notes.lost_split);
    let adopt = Event::Request { id: 4, request: Request::AdoptData, limit_ms: 5_000 };
    case.step(adopt.clone());
    case.pass(100, Some(&told), None);
    let Some(Reply::Refused(why)) = case.replies.pop() else { panic!("{:?}", case.replies) };
    let move_ledger = "mv $MCCONTROLDIR/ID $MCCONTROLDIR/ID.old";
    assert!(why.contains("mc_ctl stop") && why.contains(move_ledger), "{why}");

    case.pass(5_000, None, None);
    case.step(adopt);
    case.pass(1_000, None, Some(primary(Names::Unset)));
    assert!(!case.durable.notes.lost_split, "{:?}", case.replies);
    let advice = case.node.report(Time(case.now)).advice.join("\n");
    assert!(advice.contains(move_ledger) && advice.contains("mc_ctl rebuild --method basebackup"), "{advice}");
}
