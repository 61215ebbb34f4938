//! The whole decision tables and the whole reconciling table, as golden files: a change of rule is seen in review as
//! changed outcomes. `UPDATE_GOLDEN=1 cargo test --test table` writes them anew.

#[path = "common/golden.rs"]
mod golden;

use mirroring_controller::fsm::decide::{Intent, OnSign, Outcome, assess, decide, on_silence};
use mirroring_controller::fsm::facts::{
    All, Data, Facts, InstanceState, Own, Peer, Policy, Replication, Standing, StartPolicy,
};
use mirroring_controller::fsm::reconcile::next_step;
use std::fmt::Write;

fn situations() -> String {
    let mut text = String::from("# standing own peer replication -> what is done [if failover is enabled]: cause\n");
    for &standing in Standing::ALL {
        for &own in Own::ALL {
            for &peer in Peer::ALL {
                for &replication in Replication::ALL {
                    let (outcome, cause) = assess(standing, own, peer, replication);
                    let outcome = match outcome {
                        Outcome::Always(intent) => format!("{intent:?}: {cause}"),
                        Outcome::IfEnabled(intent) => format!("{intent:?} [failover]: {cause}"),
                        Outcome::BySilence(sign, otherwise) => {
                            format!("by silence ({sign:?}): {cause}; else {otherwise}")
                        }
                    };
                    writeln!(text, "{standing:?} {own:?} {peer:?} {replication:?} -> {outcome}")
                        .expect("writing to a string");
                }
            }
        }
    }
    text
}

fn silence() -> String {
    let mut text = String::from("# standing policy -> lost, unproven, failed\n");
    for &standing in Standing::ALL {
        for &policy in Policy::ALL {
            let OnSign { lost, unproven, failed } = on_silence(standing, policy);
            writeln!(text, "{standing:?} {policy:?} -> {lost:?}, {unproven:?}, {failed:?}")
                .expect("writing to a string");
        }
    }
    text
}

fn every_cell() -> Vec<Facts> {
    let mut cells = Vec::new();
    for &standing in Standing::ALL {
        for &own in Own::ALL {
            for &peer in Peer::ALL {
                for &replication in Replication::ALL {
                    for &policy in Policy::ALL {
                        cells.push(Facts { standing, own, peer, replication, policy });
                    }
                }
            }
        }
    }
    cells
}

fn acts() -> String {
    let mut text = String::from("# standing data leave instance -> to do\n");
    for &standing in Standing::ALL {
        for &data in Data::ALL {
            for &leave in StartPolicy::ALL {
                for &being in InstanceState::ALL {
                    let todo = next_step(standing, data, leave, being);
                    writeln!(text, "{standing:?} {data:?} {leave:?} {being:?} -> {todo:?}")
                        .expect("writing to a string");
                }
            }
        }
    }
    text
}

#[test]
fn every_cell_of_the_decision_table() {
    golden::check("table.txt", &situations());
}

#[test]
fn every_cell_of_the_table_of_silence() {
    golden::check("silence.txt", &silence());
}

#[test]
fn every_cell_of_the_reconciling_table() {
    golden::check("acts.txt", &acts());
}

/// PROTOCOL section 6 and R11 over every cell: without a third party or an agreed half nobody acts on silence, the two
/// halves never both act, and force is used by `fallback` alone.
#[test]
fn nobody_acts_on_silence_without_a_reason() {
    for facts in every_cell() {
        let intent = decide(facts).intent;
        let unheard = matches!(facts.peer, Peer::NotSeenYet | Peer::NeverSeen);
        let alone = matches!(intent, Intent::ActByForce | Intent::ActByHalf);
        assert!(!alone || !unheard && facts.peer != Peer::Alive, "{facts:?}");
        assert!(intent != Intent::ActByForce || facts.policy == Policy::Fallback, "{facts:?}");
        assert!(intent != Intent::AskArbiter || facts.policy == Policy::Arbiter, "{facts:?}");
        if intent == Intent::ActByHalf {
            let half = match facts.standing {
                Standing::Primary => Policy::DisconnectHalf,
                Standing::Standby => Policy::SwitchHalf,
                Standing::Alone | Standing::Inactivated => panic!("{facts:?} has no half"),
            };
            assert_eq!(facts.policy, half, "{facts:?}");
        }
    }
}

/// Only the holder of the right is promoted or has its names commented out; only a primary's views start one.
#[test]
fn only_the_right_promotes_or_frees() {
    use mirroring_controller::fsm::reconcile::Step;
    for &standing in Standing::ALL {
        for &data in Data::ALL {
            for &leave in StartPolicy::ALL {
                for &being in InstanceState::ALL {
                    let todo = next_step(standing, data, leave, being);
                    let frees = matches!(todo, Step::Promote | Step::Free | Step::StartFree);
                    assert!(!frees || standing == Standing::Alone && data == Data::Eligible);
                    let starts = matches!(todo, Step::StartNamed | Step::StartFree);
                    assert!(!starts || leave == StartPolicy::Run);
                    if starts && being == InstanceState::DownPrimary {
                        assert!(matches!(standing, Standing::Alone | Standing::Primary) && data == Data::Eligible);
                    }
                }
            }
        }
    }
}
