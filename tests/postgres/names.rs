//! Host names in `network.conf`: a name service that fails or hangs keeps no link down; names and addresses that come late at
//! boot are waited for.

use crate::harness::client::Style;
use crate::harness::names::{NAMES, NameService};
use crate::harness::net::ADDRESSES;
use crate::harness::pair::{Pair, Setup};
use crate::harness::{s, wait_for};
use std::time::{Duration, Instant};

/// How long a message or a state may take, on a loaded test machine.
const SOON: Duration = Duration::from_secs(90);

const FAILS: &str = "could not resolve host name";

/// The link drops for three seconds while no name resolves, and returns: nothing has changed once the detection time is over.
#[track_caller]
fn a_link_returns(pair: &Pair, service: NameService) {
    let client = pair.client(Style::PerHost);
    let view = pair.ledger_of(0);
    let at = Instant::now();
    let _server = pair.set_names(service);
    for n in [0, 1] {
        pair.wait_log(n, at, FAILS, SOON);
    }
    pair.net.cut(1);
    std::thread::sleep(s(3));
    pair.net.heal(1);
    let healed = Instant::now();
    for n in [0, 1] {
        pair.wait_log(n, healed, "connected with \"", SOON);
    }
    // longer than the detection time, in which both would act if the link had not returned
    std::thread::sleep(s(10));
    client.wait_ack(Instant::now(), s(20));
    pair.wait_word(0, "switchable");
    assert_eq!(pair.ledger_of(0), view, "the view has changed");
    assert_eq!(pair.sql(1, "SELECT pg_is_in_recovery()"), "t");
    for n in [0, 1] {
        let syslog = pair.host(n).syslog.since(at);
        let reports =
            |name: &&str| syslog.iter().filter(|(_, line)| line.contains(&format!("{FAILS} \"{name}\""))).count();
        let counts: Vec<usize> = NAMES.iter().map(reports).collect();
        // A name that was resolved just before is looked up again only after 30 seconds.
        assert!(counts.iter().all(|count| *count <= 1), "a name is reported twice: {counts:?}");
    }
    client.check(pair, 0, &[0]);
}

/// With `fallback` both servers would force themselves alone after the link has healed.
#[test]
fn a_name_service_that_fails_and_a_link_that_drops() {
    let pair = Setup::default().names().conf("heartbeat_error_action = fallback").up();
    a_link_returns(&pair, NameService::Fails);
    let at = Instant::now();
    pair.set_names(NameService::Answers);
    for n in [0, 1] {
        pair.wait_log(n, at, "resolves again", SOON);
    }
}

/// The same, and the name server never answers.
#[test]
fn a_name_service_that_hangs_and_a_link_that_drops() {
    let pair = Setup::default().names().conf("heartbeat_error_action = fallback").up();
    a_link_returns(&pair, NameService::Hangs);
}

/// With `switch` the standby would take over.
#[test]
fn a_name_service_that_fails_with_switch() {
    let pair = Setup::default().names().conf("heartbeat_error_action = switch").up();
    a_link_returns(&pair, NameService::Fails);
}

/// The same with an arbiter, whose address is a name too.
#[test]
fn a_name_service_that_fails_beside_an_arbiter() {
    let pair = Setup::default().names().arbiter().up();
    a_link_returns(&pair, NameService::Fails);
    wait_for("the arbiter is connected", SOON, || (pair.arbiter_status(0)? == "online").then_some(()));
}

/// No name resolves when the members start: they start, report it, and are mirrored once names resolve.
#[test]
fn names_that_come_late() {
    let pair = Setup::default().names().arbiter().make();
    let at = Instant::now();
    pair.set_names(NameService::Fails);
    pair.arb(&["start", "-W"]).expect(0, "mc_arb start");
    for n in [0, 1] {
        pair.mc(n, &["start", "-W", "-f", "--async-connect-arbiter"]).expect(0, "mc_ctl start");
        pair.wait_log(n, at, FAILS, SOON);
    }
    pair.set_names(NameService::Answers);
    pair.wait_word(0, "switchable");
    pair.wait_arbiter_named();
}

/// The hosts have no addresses when the members start: they wait, report it, and are mirrored once the addresses are there.
#[test]
fn addresses_that_come_late() {
    let pair = Setup::default().arbiter().make();
    let address = |verb: &str| {
        for (n, host) in pair.net.hosts.iter().enumerate() {
            host.batch("ip", &format!("addr {verb} {}/24 dev eth0\n", ADDRESSES[0][n]));
        }
    };
    address("del");
    let at = Instant::now();
    pair.arb(&["start", "-W"]).expect(0, "mc_arb start");
    wait_for("the arbiter reports it", SOON, || pair.third().syslog.find(at, "could not listen on"));
    let reports = [0, 1].map(|n| pair.host(n).dir.join("start.err"));
    let started = [0, 1].map(|n| {
        let mut command = pair.mc_command(n, &["start", "-W", "-f", "--async-connect-arbiter"]);
        command.stdout(std::process::Stdio::null()).stderr(std::fs::File::create(&reports[n]).expect("a file"));
        command.spawn().expect("could not run mc_ctl")
    });
    let report = |n: usize| std::fs::read_to_string(&reports[n]).expect("a file");
    for n in [0, 1] {
        wait_for("mc_ctl start waits for the address", SOON, || report(n).contains("waiting").then_some(()));
    }
    address("add");
    for (n, mut child) in started.into_iter().enumerate() {
        let ended = child.wait().expect("could not wait");
        assert!(ended.success(), "{ended:?}: {}", report(n));
    }
    pair.wait_word(0, "switchable");
    pair.wait_arbiter_named();
}

/// A controller that is started again while its own address is away: the watcher names the server, which waits for nothing else.
#[test]
fn an_address_that_is_away_when_a_controller_starts_again() {
    let pair = Setup::default().up();
    pair.net.hosts[1].batch("ip", &format!("addr del {}/24 dev eth0\n", ADDRESSES[0][1]));
    let at = Instant::now();
    crate::harness::host::signal(pair.controller(1).pid, rustix::process::Signal::KILL);
    pair.wait_log(1, at, "could not listen on", SOON);
    pair.net.hosts[1].batch("ip", &format!("addr add {}/24 dev eth0\n", ADDRESSES[0][1]));
    pair.wait_log(1, at, "listening on", SOON);
    pair.wait_word(1, "switchable");
}
