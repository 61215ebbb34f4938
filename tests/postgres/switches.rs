//! Planned switches as fast as the commands return, with `rebuild_action = auto` and no operator.

use crate::harness::client::Style;
use crate::harness::pair::Setup;
use crate::harness::{s, wait_for};
use std::time::Instant;

/// Switches in turn from both servers. A command is repeated while it is refused because the old primary is not back yet. On a
/// busy machine the standby may respond too late, so that the switch ends with the primary as it was: that is repeated too, a
/// few times.
fn in_a_row(setup: Setup, count: usize) {
    let pair = setup.conf("rebuild_action = auto").up();
    let client = pair.client(Style::OneSession);
    let mut ended = 0;
    for n in 1..=count {
        wait_for(&format!("switch {n} of {count} is accepted"), s(60), || {
            let answer = pair.mc(n / 2 % 2, &["switch"]);
            let continues = answer.code != 0 && answer.text().contains("continues to serve");
            ended += usize::from(continues);
            let expected = [0, 4].contains(&answer.code) || (continues && ended <= count / 5);
            assert!(expected, "switch {n} of {count}: {}", answer.text());
            (answer.code == 0).then_some(())
        });
    }
    let primary = count % 2;
    let roles = if primary == 0 { ["primary", "standby"] } else { ["standby", "primary"] };
    [0, 1].iter().for_each(|n| pair.wait_roles(*n, "switchable", roles));
    client.wait_ack(Instant::now(), s(10));
    assert_eq!(client.check_timelines() as usize, 1 + count, "each switch makes one timeline");
    let lost = client.lost_on(&pair, primary);
    assert!(lost.is_empty(), "{} acknowledged rows are lost: {lost:?}", lost.len());
}

/// 10 switches with the default settings.
#[test]
fn ten_with_default_settings() {
    in_a_row(Setup::default(), 10);
}

/// 25 switches with the default settings.
#[test]
#[ignore = "takes a minute; ten_with_default_settings looks at the same"]
fn with_default_settings() {
    in_a_row(Setup::default(), 25);
}

/// 25 switches with the fast settings, which a busy machine does not meet.
#[test]
#[ignore = "for an idle machine"]
fn with_fast_settings() {
    in_a_row(Setup::default().fast_network(), 25);
}
