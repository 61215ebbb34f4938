//! Rebuilds (PROTOCOL R10).

use super::case::*;
use mirroring_controller::fsm::event::*;
use mirroring_controller::fsm::report::Rebuilding;
use mirroring_controller::fsm::types::*;

fn theirs() -> View {
    view(6, PEER, Mode::Degraded)
}

/// What a promoted server tells.
fn promoted(view: View) -> Heartbeat {
    Heartbeat { role: Role::Primary, streaming: false, promoted: true, timeline: Timeline(2), ..standby(view) }
}

/// A server that has lost its role, and whose instance is down.
fn outcast(auto: bool) -> Case {
    let settings = Settings { rebuild_auto: auto, ..settings(false, OnSilence::Message) };
    Case::new(settings, theirs(), Some(data_dir(false, false)))
}

fn ask(case: &mut Case) -> Reply {
    let request = Request::Rebuild(RebuildOrder::default());
    case.step(Event::Request { id: 5, request, limit_ms: 60_000 });
    case.replies.pop().expect("a request is answered")
}

/// The job, while it is out; others that come before it are done.
fn rebuild(case: &mut Case, told: Option<&Heartbeat>) -> Option<Rebuild> {
    for _ in 0..20 {
        case.pass(100, told, None);
        match case.jobs[case.ended..].last().cloned() {
            Some((_, Job::Rebuild(what))) => return Some(*what),
            Some((_, Job::Inspect)) => case.done(Outcome::Data(data_dir(false, false))),
            Some((_, Job::Start { .. })) => case.done(Outcome::Started(data_dir(false, true))),
            Some((_, Job::Stop { .. })) => case.done(Outcome::Stopped(Some(data_dir(false, false)))),
            _ => {}
        }
    }
    None
}

#[test]
fn the_data_directory_is_named_anew_before_it_is_touched() {
    let mut case = outcast(false);
    case.pass(500, Some(&promoted(theirs())), None);
    case.writes = false;
    let request = Request::Rebuild(RebuildOrder::default());
    case.step(Event::Request { id: 5, request, limit_ms: 60_000 });
    case.pass(2000, Some(&promoted(theirs())), None);
    assert!(case.replies.is_empty() && !case.jobs.iter().any(|(_, job)| matches!(job, Job::Rebuild(_))));

    let mut case = outcast(false);
    case.pass(500, Some(&promoted(theirs())), None);
    assert_eq!(ask(&mut case), Reply::Done);
    let what = rebuild(&mut case, Some(&promoted(theirs()))).expect("it is ordered");
    assert_eq!(
        (what.source.as_str(), what.names.as_str(), what.system, what.doubt),
        ("two:5432", "two", SystemId(7), Doubt::None)
    );
    assert_ne!(case.durable.ledger.data.id, MY_DATA);
    assert_eq!(case.durable.notes.rebuild, Some(RebuildOrder::default()));
}

/// R10: the own ledger is not enough, nor is the other's word of another view, nor one whose instance is down.
#[test]
fn only_the_other_servers_own_word_allows_it() {
    let refused = |told: Option<Heartbeat>| {
        let mut case = outcast(false);
        case.pass(500, told.as_ref(), None);
        assert!(matches!(ask(&mut case), Reply::Refused(_)), "{told:?}");
        assert_eq!(rebuild(&mut case, told.as_ref()), None);
        assert_eq!(case.durable.ledger.data.id, MY_DATA);
    };
    refused(None);
    refused(Some(Heartbeat { role: Role::None, ..promoted(theirs()) }));
    refused(Some(Heartbeat { role: Role::Standby, ..promoted(theirs()) }));
    refused(Some(Heartbeat { instance: Health::Failed, ..promoted(theirs()) }));
    refused(Some(Heartbeat { ledger: None, ..promoted(theirs()) }));
    refused(Some(promoted(view(4, PEER, Mode::Degraded))));
    refused(Some(promoted(view(5, ME, Mode::Degraded))));
}

#[test]
fn nobody_who_may_serve_is_rebuilt() {
    for (mine, told) in [
        (view(7, ME, Mode::Degraded), promoted(view(6, PEER, Mode::Degraded))),
        (view(7, ME, Mode::Mirrored), standby(view(7, ME, Mode::Mirrored))),
        (view(6, PEER, Mode::Mirrored), promoted(view(6, PEER, Mode::Mirrored))),
    ] {
        let mut case = Case::new(settings(false, OnSilence::Message), mine, Some(data_dir(false, false)));
        case.pass(300, Some(&told), None);
        assert!(matches!(ask(&mut case), Reply::Refused(_)), "{mine:?}");
        assert_eq!(rebuild(&mut case, Some(&told)), None);
        assert_eq!(case.durable.ledger.data.id, MY_DATA);
    }
}

#[test]
fn what_is_made_is_started_as_a_standby() {
    let told = promoted(theirs());
    let mut case = outcast(false);
    case.pass(500, Some(&told), None);
    assert_eq!(ask(&mut case), Reply::Done);
    rebuild(&mut case, Some(&told)).expect("it is ordered");
    let data = DataDir { fingerprint: 8, backup_label: true, mark: Some(LedgerId(2)), ..data_dir(true, false) };
    case.done(Outcome::Rebuilt { data, address: "one:5433".into() });
    assert_eq!(case.durable.notes.rebuild, None);
    assert_eq!(case.node.report(Time(case.now)).rebuilding, Rebuilding::Starting);
    case.pass(100, Some(&told), None);
    let marked = DataDir { mark: Some(LedgerId(1)), ..data };
    assert_eq!(case.job(), Some(&Job::Mark(LedgerId(1))));
    case.done(Outcome::Data(marked));
    case.pass(100, Some(&told), None);
    assert_eq!(case.job(), Some(&Job::Start { names: Some("two".into()), follow: None }));
    let told = case.sent.iter().rev().find_map(|(_, message)| match message {
        Message::Heartbeat(told) => Some(told.address.clone()),
        _ => None,
    });
    assert_eq!(told.as_deref(), Some("one:5433"));
}

/// Once for each view, and not again after it has failed; an operator may ask all the same.
#[test]
fn by_itself_once() {
    let told = promoted(theirs());
    let mut case = outcast(true);
    rebuild(&mut case, Some(&told)).expect("it is ordered by itself");
    case.done(Outcome::Failed("no room".into()));
    assert_eq!(rebuild(&mut case, Some(&told)), None);
    assert_eq!(case.durable.notes.rebuild, None);
    assert!(matches!(case.node.report(Time(case.now)).rebuilding, Rebuilding::Failed(why) if why == "no room"));
    assert!(case.said.contains(&CoreMessage::RebuildFailed("no room".into())));
    assert_eq!(ask(&mut case), Reply::Done);
    assert!(rebuild(&mut case, Some(&told)).is_some());
}

/// The pair can become mirrored without another rebuild: a standby is started by hand.
#[test]
fn a_failed_rebuild_is_forgotten_when_the_pair_is_mirrored() {
    let told = promoted(theirs());
    let mut case = outcast(false);
    case.pass(500, Some(&told), None);
    assert_eq!(ask(&mut case), Reply::Done);
    rebuild(&mut case, Some(&told)).expect("it is ordered");
    case.done(Outcome::Failed("no room\nHINT: make some".into()));
    let advice = |case: &Case| case.node.report(Time(case.now)).advice.join("\n");
    assert!(advice(&case).contains("the last rebuild failed (no room);"), "{}", advice(&case));

    let mirrored = View { data: [Some(case.durable.ledger.data.id), Some(PEER_DATA)], ..view(7, PEER, Mode::Mirrored) };
    let reading = |contact| Instance::Standby {
        timeline: Timeline(2),
        received: Lsn(200),
        replayed: Lsn(200),
        streaming: true,
        contact,
    };
    let told = Heartbeat { ledger: Some(ledger(2, PEER_DATA, mirrored)), ..told };
    for contact in 1..20 {
        case.pass(100, Some(&told), Some(reading(contact)));
        if let Some((_, Job::Inspect)) = case.jobs.get(case.ended) {
            case.done(Outcome::Data(data_dir(true, true)));
        }
    }
    assert!(case.view().is_mirrored(PEER), "{:?}", case.view());
    let report = case.node.report(Time(case.now));
    assert_eq!(report.rebuilding, Rebuilding::Idle, "{:?}", case.jobs);
    assert!(!advice(&case).contains("rebuild"), "{}", advice(&case));
}

/// The instance is started again after a rebuild failed, and streams: the failure is over before the pair is mirrored.
#[test]
fn a_failed_rebuild_is_forgotten_when_the_standby_streams() {
    let told = promoted(theirs());
    let mut case = outcast(false);
    case.pass(500, Some(&told), None);
    assert_eq!(ask(&mut case), Reply::Done);
    rebuild(&mut case, Some(&told)).expect("it is ordered");
    case.done(Outcome::Failed("no space".into()));
    let advice = |case: &Case| case.node.report(Time(case.now)).advice.join("\n");
    assert!(advice(&case).contains("the last rebuild failed (no space);"), "{}", advice(&case));
    let reading = |streaming| Instance::Standby {
        timeline: Timeline(2),
        received: Lsn(200),
        replayed: Lsn(200),
        streaming,
        contact: 1,
    };
    for streaming in [true, false] {
        for _ in 1..20 {
            case.pass(100, Some(&told), Some(reading(streaming)));
            if let Some((_, Job::Inspect)) = case.jobs.get(case.ended) {
                case.done(Outcome::Data(data_dir(true, true)));
            }
        }
        assert_eq!(case.view().mode, Mode::Degraded);
        assert_eq!(case.node.report(Time(case.now)).rebuilding, Rebuilding::Idle, "{:?}", case.jobs);
        assert!(!advice(&case).contains("rebuild"), "{}", advice(&case));
    }
}

/// A controller that comes back continues, but only while the other server still allows it; else what can be undone is undone.
#[test]
fn it_is_gone_on_with_after_a_restart() {
    let restarted = || {
        let mut case = outcast(false);
        let mut durable = case.durable;
        durable.notes.rebuild = Some(RebuildOrder { method: Method::BaseBackup, old_data: OldData::Delete });
        durable.ledger.data.id = DataId(77);
        case = Case::booted(
            Settings { rebuild_auto: false, ..settings(false, OnSilence::Message) },
            durable,
            Some(DataDir { incomplete: true, ..data_dir(true, false) }),
        );
        case
    };
    let mut case = restarted();
    let what = rebuild(&mut case, Some(&promoted(theirs()))).expect("it is continued");
    assert_eq!(what.order, RebuildOrder { method: Method::BaseBackup, old_data: OldData::Delete });

    let mut case = restarted();
    case.pass(20_000, None, None);
    assert_eq!(case.job(), Some(&Job::Abandon));
    case.done(Outcome::Data(data_dir(false, false)));
    assert_eq!((case.durable.notes.rebuild, case.job()), (None, Some(&Job::Abandon)));
    case.pass(5_000, Some(&promoted(theirs())), None);
    assert!(!case.jobs.iter().any(|(_, job)| matches!(job, Job::Start { .. } | Job::Rebuild(_))), "{:?}", case.jobs);
}

/// The old primary is started by hand in the middle of a rebuild, before the controller has seen its data directory: it is
/// stopped at once.
#[test]
fn a_primary_that_runs_during_a_rebuild_is_stopped() {
    let mut durable = outcast(false).durable;
    durable.notes.rebuild = Some(RebuildOrder::default());
    let mut case = Case::booted(settings(false, OnSilence::Message), durable, None);
    case.pass(500, None, Some(primary(Names::Peer)));
    assert!(matches!(case.job(), Some(Job::Stop { .. })), "{:?}", case.jobs);
}

/// A base backup that was made by hand ends what is known of overwritten WAL. A plain copy may be one of the overwritten data.
#[test]
fn a_base_backup_by_hand_ends_the_note_of_overwritten_wal() {
    for (backup_label, remains) in [(true, false), (false, true)] {
        let mut durable = outcast(false).durable;
        durable.notes.overwritten = true;
        let replaced = DataDir { fingerprint: 8, backup_label, ..data_dir(true, false) };
        let case = Case::booted(settings(false, OnSilence::Message), durable, Some(replaced));
        assert_eq!(case.durable.notes.overwritten, remains);
    }
}

/// A mirrored view must not lean on a data directory that is about to be replaced.
#[test]
fn a_standby_that_is_to_be_rebuilt_is_not_proven() {
    for rebuilds in [true, false] {
        let mine = view(5, ME, Mode::Degraded);
        let mut case = Case::new(settings(false, OnSilence::Message), mine, Some(data_dir(false, true)));
        let told = Heartbeat { rebuilds, ..standby(mine) };
        case.pass(2_000, Some(&told), Some(primary(Names::Unset)));
        let proves = case.jobs.iter().any(|(_, job)| matches!(job, Job::Prove(_)));
        assert_eq!(proves, !rebuilds, "{:?}", case.jobs);
    }
}

/// With rebuild_action = auto what was interrupted, and left incomplete, is begun again when it can be.
#[test]
fn what_was_abandoned_is_begun_again_by_itself() {
    let mut durable = outcast(false).durable;
    durable.notes.rebuild = Some(RebuildOrder::default());
    let incomplete = DataDir { incomplete: true, ..data_dir(false, false) };
    let mut case = Case::booted(settings(false, OnSilence::Message), durable, Some(incomplete));
    case.pass(20_000, None, None);
    assert_eq!(case.job(), Some(&Job::Abandon));
    case.done(Outcome::Data(incomplete));
    case.pass(1_000, None, None);
    case.done(Outcome::Data(incomplete));
    assert!(rebuild(&mut case, Some(&promoted(theirs()))).is_some());
}

/// Whatever lies in it, an incomplete directory is not started, and not adopted.
#[test]
fn an_incomplete_directory_is_not_started() {
    for (mine, standby_signal) in [(theirs(), true), (theirs(), false), (view(7, ME, Mode::Degraded), false)] {
        let data = DataDir { incomplete: true, ..data_dir(standby_signal, false) };
        let mut case = Case::new(settings(false, OnSilence::Message), mine, Some(data));
        case.step(Event::Request { id: 4, request: Request::AdoptData, limit_ms: 5_000 });
        assert!(matches!(case.replies.pop(), Some(Reply::Refused(_))));
        case.pass(5_000, None, None);
        assert!(!case.jobs.iter().any(|(_, job)| matches!(job, Job::Start { .. })), "{:?}", case.jobs);
    }
}

/// A stop does not wait for hours of copying; the next start continues.
#[test]
fn a_stop_interrupts_it() {
    let told = promoted(theirs());
    let mut case = outcast(false);
    case.pass(500, Some(&told), None);
    assert_eq!(ask(&mut case), Reply::Done);
    rebuild(&mut case, Some(&told)).expect("it is ordered");
    let stop = Request::Stop { instance: true, all: false };
    case.step(Event::Request { id: 6, request: stop, limit_ms: 20_000 });
    case.pass(50, Some(&told), None);
    assert_eq!(case.nudged, case.jobs.last().map(|(id, _)| *id));
    case.done(Outcome::Failed("cancelled".into()));
    for _ in 0..10 {
        case.pass(100, Some(&told), None);
        if case.job() == Some(&Job::Inspect) {
            case.done(Outcome::Data(data_dir(false, false)));
        }
    }
    assert_eq!(case.replies.pop(), Some(Reply::Done));
    assert_eq!(case.durable.notes.rebuild, Some(RebuildOrder::default()));
}

/// The loser of a split holds the right by its own ledger, and has given it up.
#[test]
fn the_loser_of_a_split_is_rebuilt() {
    let mine = View { forced: true, ..view(5, ME, Mode::Degraded) };
    let told = promoted(View { forced: true, ..view(6, PEER, Mode::Degraded) });
    let mut case = Case::new(settings(false, OnSilence::Message), mine, Some(data_dir(false, false)));
    rebuild(&mut case, Some(&told));
    assert!(case.durable.notes.lost_split);
    assert_eq!(ask(&mut case), Reply::Done);
    let what = rebuild(&mut case, Some(&told));
    let what = what.expect("it is ordered");
    assert_eq!(what.doubt, Doubt::Forced);
}

/// The names were changed while the pair was mirrored, and the other server took over without knowing that.
#[test]
fn commits_that_did_not_wait_may_have_been_acknowledged() {
    let mirrored = view(5, ME, Mode::Mirrored);
    let mut case = Case::new(settings(false, OnSilence::Message), mirrored, Some(data_dir(false, true)));
    case.pass(1000, Some(&standby(mirrored)), Some(primary(Names::Peer)));
    case.pass(200, None, Some(primary(Names::Unset)));
    assert!(case.durable.notes.unmirrored);
    case.done(Outcome::Applied);
    let what = rebuild(&mut case, Some(&promoted(theirs()))).expect("it is ordered");
    assert_eq!((case.view(), what.doubt), (theirs(), Doubt::NamesChanged));
}

/// The data directory's disk was replaced: there is nothing to look at, and nothing to wait for.
#[test]
fn an_emptied_directory_is_made_anew() {
    let told = promoted(theirs());
    let mut case = Case::new(Settings { rebuild_auto: false, ..settings(false, OnSilence::Message) }, theirs(), None);
    case.pass(500, Some(&told), None);
    case.done(Outcome::Failed("it is empty".into()));
    assert_eq!(ask(&mut case), Reply::Done);
    for _ in 0..40 {
        case.pass(100, Some(&told), None);
        match case.job() {
            Some(Job::Rebuild(_)) => return,
            Some(Job::Inspect) => case.done(Outcome::Failed("it is empty".into())),
            other => panic!("{other:?}"),
        }
    }
    panic!("it is not ordered");
}

/// It was asked for after a clean switch, and then somebody started the old primary by hand.
#[test]
fn a_clean_directory_that_was_started_meanwhile_is_made_anew() {
    let told = promoted(theirs());
    let clean = DataDir { state: ControlState::ShutDown, ..data_dir(false, false) };
    let mut durable = outcast(false).durable;
    durable.notes.handed_over = Some(clean.checkpoint);
    let manual = Settings { rebuild_auto: false, ..settings(false, OnSilence::Message) };
    let mut case = Case::booted(manual, durable, Some(clean));
    case.pass(1500, Some(&told), None);
    assert_eq!(ask(&mut case), Reply::Done);
    assert_eq!(case.durable.notes.rebuild, None);
    for _ in 0..20 {
        case.pass(100, Some(&told), None);
        match case.jobs[case.ended..].last().cloned() {
            Some((_, Job::Inspect)) => case.done(Outcome::Data(DataDir { checkpoint: Lsn(300), ..clean })),
            Some((_, Job::Rebuild(_))) => return,
            Some((_, other)) => panic!("{other:?}"),
            None => {}
        }
    }
    panic!("it is not ordered");
}
