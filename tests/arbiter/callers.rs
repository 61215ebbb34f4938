//! Callers that the arbiter bounds, and servers that it rejects.

use super::*;
use mirroring_controller::daemon::links;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};

/// An open connection from this address that sends nothing.
fn silent_caller(from: &str, port: u16) -> TcpStream {
    let from: IpAddr = from.parse().unwrap();
    let caller = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&caller, &SocketAddr::from((from, 0))).unwrap();
    connect(&caller, &SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
    let caller = TcpStream::from(caller);
    caller.set_nonblocking(true).unwrap();
    caller
}

/// How many of these the arbiter has closed.
fn closed(callers: &[TcpStream]) -> usize {
    callers.iter().filter(|caller| !caller.peek(&mut [0]).is_err_and(|e| e.kind() == ErrorKind::WouldBlock)).count()
}

/// The arbiter takes connections in the order in which they were opened, so that all the silent ones come before that of the
/// server, which dials once for each attempt.
fn gets_in_after(what: &str, from: &str, count: usize, places: usize) {
    let mut arb = Arb::new(1);
    arb.start();
    let settings = settings(1, Server::Second, arb.port, key(1), None);
    until(what, || {
        let callers: Vec<TcpStream> = (0..count).map(|_| silent_caller(from, arb.port)).collect();
        let arbiter = mirroring_controller::fsm::types::Member::Arbiter;
        let gets_in = links::reach(&settings, arbiter, Duration::from_secs(5)).is_ok();
        assert!(!gets_in || closed(&callers) >= count - places, "there are more places than expected");
        gets_in
    });
}

#[test]
fn connections_from_one_server_leave_the_other_its_places() {
    if common::as_postgres("callers::connections_from_one_server_leave_the_other_its_places") {
        gets_in_after("the other server gets in", &address(1, 1), 60, 20);
    }
}

#[test]
fn connections_of_strangers_leave_a_server_its_places() {
    if common::as_postgres("callers::connections_of_strangers_leave_a_server_its_places") {
        gets_in_after("a server gets in", &address(1, 9), 200, 64);
    }
}

/// The arbiter records a pair, and a server of the same network.conf belongs to another cluster.
#[test]
fn a_server_of_another_cluster_is_rejected() {
    if !common::as_postgres("callers::a_server_of_another_cluster_is_rejected") {
        return;
    }
    let mut arb = Arb::new(1);
    arb.start();
    let ([first, second], _) = mirrored(&arb, 1);
    drop(first);
    let rival = Member::new(1, Server::First, arb.port, key(1), system(9), None);
    let founded = view(1, Server::First, Mode::Degraded, LedgerId(0));
    rival.tell(founded);
    let refusal = || arb.cluster(1)["servers"][0]["refusal"].as_str().unwrap_or_default().to_owned();
    until("the status reports it", || refusal().contains(&format!("its system identifier is {}", system(9).0)));
    let (code, said) = arb.run(&["status"]);
    assert!(
        code == 0 && said.contains("nd1 is not given the right to run alone: it belongs to another cluster"),
        "{said}"
    );
    until("the rival receives the system identifier of the recorded pair", || rival.system() == system(1));
    assert_eq!(rival.arbiter(), None);
    assert!(second.arbiter().is_some_and(|ledger| ledger.system == system(1) && ledger.view != founded));
    let number = system(1).0.to_string();
    let (code, said) = arb.run(&["forget", &number]);
    assert!(code == 4 && said.contains("\"nd2\""), "{code}: {said}");
    drop(second);
    // The rival does not keep the recorded pair from being forgotten; afterwards the arbiter serves it.
    until("the recorded pair is forgotten", || arb.run(&["forget", &number]).0 == 0);
    until("the rival is served", || rival.arbiter().is_some_and(|ledger| ledger.view == founded));
    assert_eq!(refusal(), "");
}

/// The arbiter has ledgers of two clusters under the name of one, so that it does not know which one it serves.
#[test]
fn a_server_of_a_third_cluster_is_rejected() {
    if !common::as_postgres("callers::a_server_of_a_third_cluster_is_rejected") {
        return;
    }
    let mut arb = Arb::new(1);
    let founded = view(1, Server::First, Mode::Degraded, LedgerId(0));
    let run_dir = arb.dir.path().join("run");
    for number in [1, 9] {
        arb.start();
        let member = Member::new(1, Server::First, arb.port, key(1), system(number), None);
        member.tell(founded);
        until("the arbiter has a ledger", || member.arbiter().is_some_and(|ledger| ledger.system == system(number)));
        drop(member);
        arb.stop();
        fs::rename(run_dir.join(system(number).0.to_string()), arb.dir.path().join(number.to_string())).unwrap();
    }
    for number in [1, 9] {
        fs::rename(arb.dir.path().join(number.to_string()), run_dir.join(system(number).0.to_string())).unwrap();
    }
    arb.start();
    let third = Member::new(1, Server::First, arb.port, key(1), system(8), None);
    third.tell(founded);
    until("the third one is rejected", || third.system() == system(1));
    assert_eq!(third.arbiter(), None);
    assert!(!run_dir.join(system(8).0.to_string()).exists());
}
