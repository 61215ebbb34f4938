//! The model check: every state that two servers, an arbiter and a network without any manners can come to, within
//! bounds, is looked at for the invariants of PROTOCOL section 8.
//!
//! It composes the shipped rules (`fsm::rules`, `fsm::reconcile`) and nothing of its own decides. Whatever is not decided by a
//! rule happens or does not, at any time and in any order: messages are lost, repeated and late without bound; members
//! crash before and after each durable write; instances stop; the arbiter takes a server for gone, rightly or not, for no
//! clock is part of the argument; directories are replaced and rebuilt; reloads take effect when they like.
//!
//! ```text
//! cargo test --profile sim --test model                             the bounds that CI explores
//! MODEL_TERMS=9 cargo test --profile sim --test model               terms up to 9 (at most 13), everywhere (for healing at most 9)
//! MODEL_COMMITS=3, MODEL_EXCHANGES=1                                commits; rebuilds and replacements of each directory
//! ```
//!
//! Data goes back (R13) while a server is down: its directory loses its newest commits. A member's memory of positions is not
//! explored, and this is assumed of it. Either the server's durable note is as new as the last commit that the directory held
//! and that was acknowledged; then all others may have forgotten what the server reported. Or the note is older. Then the
//! pair has an arbiter, all three members have the same view and are mirrored under it, and no proposal of the server is on
//! the way; the other server's data still holds what is lost, and does not go back as well. The arbiter remembers what the
//! server has reported, and so does the other server, but for a standby of a running primary: it compares its own data. A server
//! that runs alone therefore depends on its note alone, and what it loses past its note, the model does not cover.
//!
//! The tests named `without_…` leave one rule out, here and not in the core, and must find what it is there for: a
//! violation, with the shortest way to it, or states that service cannot be had from any more. Every test prints how many
//! states there are, how many steps lead to them, how far the farthest is, and the seconds.
//!
//! That the core makes no other change of its ledger than these rules do is tried in the simulator (`common/legal.rs`).

#[path = "model/explore.rs"]
mod explore;
#[path = "model/heal.rs"]
mod heal;
#[path = "model/instance.rs"]
mod instance;
#[path = "common/legal.rs"]
mod legal;
#[path = "model/state.rs"]
mod state;
#[path = "model/steps.rs"]
mod steps;

use explore::{Explored, explore};
use heal::{Healing, Left};
use mirroring_controller::fsm::types::*;
use state::State;
use std::io::Write;
use steps::{Model, Third, Without};

/// A bound from the environment.
fn bound(name: &str, default: u8) -> u8 {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

fn model(third: Third, terms: u8) -> Model {
    let terms = bound("MODEL_TERMS", terms);
    assert!(usize::from(terms) <= state::ROOM, "MODEL_TERMS is at most {}", state::ROOM);
    let (commits, exchanges) = (bound("MODEL_COMMITS", 2), bound("MODEL_EXCHANGES", 1));
    assert!(commits <= 4 && exchanges <= 2, "MODEL_COMMITS is at most 4, MODEL_EXCHANGES at most 2");
    Model { terms, commits, exchanges, replaced: true, back: 0, loses: false, third, without: Without::Nothing }
}

/// Past the harness's capture: the numbers are to be seen of tests that pass, too.
fn tell(name: &str, model: &Model, found: &Explored) {
    let Explored { unique, generated, depth, seconds, wrong } = found;
    let Model { terms, commits, exchanges, back, .. } = model;
    let what = wrong.as_ref().map_or(String::new(), |(what, _)| format!("; found: {what}"));
    let _ = writeln!(
        std::io::stdout(),
        "model {name}: {unique} states of {generated} generated, depth {depth}, {seconds:.1} s \
         ({terms} terms, {commits} commits, {exchanges} exchanges of each directory, {back} times back){what}"
    );
}

fn is_safe(name: &str, model: &Model) {
    let found = explore(model, |_, at| model.wrong(at));
    tell(name, model, &found);
    if let Some((what, trace)) = found.wrong {
        panic!("{what}\n{trace}");
    }
}

/// Whether each ledger's change is one that the simulator would let pass.
fn is_legal(from: &State, to: &State) -> bool {
    let held = (1..=state::ROOM as u8).filter(|term| from.views[usize::from(*term)].there);
    let views = held.map(|term| (term.into(), from.view(term))).collect();
    let promised = [0, 1].map(|x: usize| Term(from.hosts[x].promised.into()));
    let others = legal::Others { views: &views, promised, half: None };
    let servers = (0..2).all(|x| {
        let before = (from.hosts[x].term != 0).then(|| from.ledger(x));
        to.hosts[x].term == 0 || legal::server(Server::BOTH[x], before.as_ref(), &to.ledger(x), &others).is_ok()
    });
    let before = (from.arbiter_term != 0 && from.arbiter == to.arbiter).then(|| from.arbiter_ledger());
    let arbiter = to.arbiter_term == 0 || legal::arbiter(before.as_ref(), &to.arbiter_ledger(), &others).is_ok();
    servers && arbiter
}

const STUCK: &str = "I5: service cannot be had again";

fn heals(name: &str, model: &Model, left: Left) -> Option<String> {
    // Healing takes terms as well.
    let model = Model { terms: model.terms.min(state::ROOM as u8 - 4), ..*model };
    let mut healing = Healing::new(&model, left);
    let found = explore(&model, |_, at| healing.is_stuck(at).then_some(STUCK));
    tell(&format!("{name}, left: {left:?}"), &model, &found);
    found.wrong.map(|(what, trace)| format!("{what}\n{trace}"))
}

// ------------------------------------------------------------------------------------------------------ all the rules

#[test]
fn safe_with_an_arbiter() {
    is_safe("with an arbiter", &model(Third::Arbiter, 9));
}

#[test]
fn safe_with_an_arbiter_that_is_replaced() {
    is_safe("with an arbiter that is replaced", &model(Third::Replaced, 8));
}

#[test]
fn safe_with_two_exchanges() {
    let model = model(Third::Arbiter, 6);
    is_safe("with two exchanges", &Model { exchanges: 2, ..model });
}

/// R13: each server's data goes back once; see the assumptions above.
#[test]
fn safe_when_data_goes_back() {
    is_safe("with data that goes back", &going_back(Third::Arbiter, 6));
    is_safe("with data that goes back, switch half", &going_back(Third::SwitchHalf, 6));
    is_safe("with data that goes back, disconnect half", &going_back(Third::DisconnectHalf, 6));
}

fn going_back(third: Third, terms: u8) -> Model {
    let model = model(third, terms);
    assert!(model.exchanges == 1, "a state has room for three names of a data directory");
    Model { back: 1, replaced: false, ..model }
}

/// A lost ledger's directory gets a new name with the next ledger.
#[test]
fn safe_with_a_lost_ledger() {
    let model = Model { loses: true, replaced: false, ..model(Third::Arbiter, 6) };
    is_safe("with a lost ledger", &model);
}

#[test]
fn safe_by_the_halves() {
    is_safe("switch half", &model(Third::SwitchHalf, 9));
    is_safe("disconnect half", &model(Third::DisconnectHalf, 9));
}

#[test]
fn ledgers_are_whole_under_force() {
    is_safe("fallback, ledgers only", &model(Third::Fallback, 9));
}

#[test]
fn service_can_be_had_again() {
    for third in [Third::Arbiter, Third::Replaced] {
        for left in [Left::Servers, Left::OneAndArbiter(0), Left::OneAndArbiter(1)] {
            let stuck = heals(&format!("{third:?}"), &model(third, 5), left);
            assert!(stuck.is_none(), "{}", stuck.unwrap_or_default());
        }
    }
    for third in [Third::SwitchHalf, Third::DisconnectHalf] {
        let stuck = heals(&format!("{third:?}"), &model(third, 5), Left::Servers);
        assert!(stuck.is_none(), "{}", stuck.unwrap_or_default());
    }
}

/// Where directories are only exchanged by our own rebuild, no server that counts ever loses its own.
#[test]
fn service_can_be_had_again_after_rebuilds() {
    let model = Model { replaced: false, ..model(Third::Arbiter, 5) };
    let stuck = heals("rebuilds only", &model, Left::Servers);
    assert!(stuck.is_none(), "{}", stuck.unwrap_or_default());
}

/// What the simulator holds the core's ledgers against allows all that the model does.
#[test]
fn the_models_steps_are_legal() {
    let model = model(Third::Replaced, 5);
    let found = explore(&model, |from, to| (!is_legal(from, to)).then_some("a step of the model is not legal"));
    tell("legal steps", &model, &found);
    assert!(found.wrong.is_none(), "{}", found.wrong.map_or(String::new(), |(_, trace)| trace));
}

// ----------------------------------------------------------------------------------------------------- one rule less

fn breaks(without: Without, third: Third, expected: &str) {
    breaks_in(Model { without, ..model(third, 7) }, expected);
}

fn breaks_in(model: Model, expected: &str) {
    let found = explore(&model, |_, at| model.wrong(at));
    tell(&format!("without {:?}", model.without), &model, &found);
    let (what, trace) = found.wrong.expect("nothing is wrong without this rule, so that it is not needed or not tried");
    assert!(what.starts_with(expected), "{what}\n{trace}");
    println!("{trace}");
}

fn strands(without: Without, replaced: bool) {
    let model = Model { without, replaced, ..model(Third::Arbiter, 5) };
    let stuck = heals(&format!("without {without:?}"), &model, Left::Servers);
    println!("{}", stuck.expect("service can be had again without this rule, so that it is not needed or not tried"));
    // It is there for liveness alone.
    is_safe(&format!("without {without:?}"), &model);
}

macro_rules! without {
    ($($name:ident: $without:ident, $third:ident, $expected:literal;)+) => {
        $(#[test] fn $name() { breaks(Without::$without, Third::$third, $expected); })+
    };
}

without! {
    without_r1_promising: Promising, Arbiter, "I";
    without_r1_looking_at_promises: Promised, Arbiter, "I1";
    without_r1_own_terms: Parity, Fallback, "I4";
    without_r2_comparing: Comparing, Arbiter, "I1";
    without_r3_own_gain: OwnGain, Arbiter, "I1";
    without_r4_eligibility: Eligibility, Arbiter, "I2";
    without_r4_never_promoted: Unpromoted, Arbiter, "I2";
    without_r4_hand_back_to_the_peer: HandBackToPeer, Arbiter, "I1";
    without_r5_consent: Consent, Arbiter, "I1";
    without_r6_stopping_first: StopFirst, Arbiter, "I1";
    without_r6_writing_first: WriteFirst, Arbiter, "I1";
    without_r6_names_first: NamesFirst, Arbiter, "I2";
    without_r8_the_named_arbiter: NamedArbiter, Replaced, "I1";
    without_r9_all_held: HoldsAll, Arbiter, "I2";
    without_r9_names_in_effect: InEffect, Arbiter, "I2";
    without_r10_a_new_name: NewName, Arbiter, "I2";
}

#[test]
fn without_the_others_right_at_a_beginning() {
    breaks_in(Model { loses: true, replaced: false, without: Without::Beginning, ..model(Third::Arbiter, 6) }, "I2");
}

#[test]
fn without_r13_in_its_parts() {
    let parts = [Without::Note, Without::Contents, Without::Contained, Without::PeersMemory, Without::ArbitersMemory];
    for without in parts {
        breaks_in(Model { without, ..going_back(Third::Arbiter, 6) }, "I2");
    }
}

#[test]
fn without_r7_adopting() {
    strands(Without::Adopting, true);
}

#[test]
fn without_r10_the_others_word() {
    strands(Without::OthersWord, false);
}
