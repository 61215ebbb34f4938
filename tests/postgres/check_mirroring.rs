//! `mc_ctl check` on a pair that is not mirrored: an error with the command that repairs it, until the pair is mirrored again.

use crate::check::{Found, check, expect};
use crate::harness::pair::{Pair, Setup};
use crate::harness::{s, wait_for};

/// None of both findings, soon.
#[track_caller]
fn expect_mirrored(pair: &Pair) {
    for n in [0, 1] {
        wait_for("the pair is mirrored for mc_ctl check", s(60), || {
            let codes = check(pair, n).codes().join(" ");
            (!codes.contains("not-mirrored") && !codes.contains("instance-down")).then_some(())
        });
    }
}

/// The finding, soon, with this command.
#[track_caller]
fn expect_fix(pair: &Pair, n: usize, code: &str, member: &str, fix: &str) -> Found {
    wait_for(&format!("server {n} finds {code} {member} with {fix}"), s(60), || {
        check(pair, n).find(code, member).filter(|found| found.fix.contains(fix))
    });
    expect(pair, n, code, member)
}

#[test]
fn after_a_failover() {
    let pair = Setup::default().up();
    expect_mirrored(&pair);
    pair.fail_over_from(0);
    let found = expect_fix(&pair, 1, "not-mirrored", "", "run \"mc_ctl rebuild\" on ");
    assert!(found.what.contains("switched, nd1 none(inactivated primary)"), "{found:?}");
    assert!(found.what.contains("\"nd2\" has served alone for "), "{found:?}");
    expect_fix(&pair, 0, "not-mirrored", "", "run \"mc_ctl rebuild\" here");
    [0, 1]
        .iter()
        .for_each(|n| drop(expect_fix(&pair, *n, "instance-down", "nd1", "run \"mc_ctl rebuild\" on \"nd1\"")));
    let text = pair.mc(1, &["check"]).out;
    assert!(text.contains("CHECK CRITICAL - 2 errors"), "{text}");
    pair.rebuild(0, &[]);
    expect_mirrored(&pair);
}

#[test]
fn both_instances_are_down() {
    let pair = Setup::default().up();
    pair.mc(1, &["stop"]).expect(0, "mc_ctl stop");
    let found = expect_fix(&pair, 0, "not-mirrored", "", "run \"mc_ctl start -f\" on server \"nd2\"");
    assert!(found.what.contains("not-switchable"), "{found:?}");
    pair.mc(0, &["stop"]).expect(0, "mc_ctl stop");
    [0, 1].iter().for_each(|n| drop(pair.mc(*n, &["start", "--mc-only", "-f"]).expect(0, "mc_ctl start --mc-only")));
    for n in [0, 1] {
        expect_fix(&pair, n, "instance-down", "nd1", "run \"mc_ctl start -f\" on \"nd1\"");
        expect_fix(&pair, n, "instance-down", "nd2", "run \"mc_ctl start -f\" on \"nd2\"");
        expect_fix(&pair, n, "not-mirrored", "", "mc_ctl start");
    }
    [0, 1].iter().for_each(|n| drop(pair.start(*n, &["-f"])));
    expect_mirrored(&pair);
}
