//! Each member's own key: how the keys are introduced while the pair serves, and that the files of the arbiter's host do not
//! make a server.

use crate::check::check;
use crate::harness::client::Style;
use crate::harness::net::{ADDRESSES, ADMIN};
use crate::harness::pair::{Pair, Setup, new_key, write_private};
use crate::harness::run::Answer;
use crate::harness::{s, wait_for};
use mirroring_controller::config::{Key, Network, PrivateKey};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

/// The public key that `init` has printed.
fn printed(answer: &Answer) -> String {
    let line = answer.out.lines().find_map(|line| line.strip_prefix("  key="));
    line.unwrap_or_else(|| panic!("no key in: {}", answer.text())).to_owned()
}

fn restart(pair: &Pair, member: usize) {
    if member == 2 {
        pair.arb(&["stop"]).expect(0, "mc_arb stop");
        return pair.start_arbiter();
    }
    pair.mc(member, &["stop", "--mc-only"]).expect(0, "mc_ctl stop --mc-only");
    pair.mc(member, &["start", "--mc-only", "-f"]).expect(0, "mc_ctl start --mc-only -f");
}

/// Either server hears the other and the arbiter.
fn all_hear_each_other(pair: &Pair, when: &str) {
    let silent = ["peer-no-heartbeat", "arbiter-no-heartbeat", "peer-not-seen"];
    wait_for(when, s(60), || {
        let told = [0, 1].map(|n| check(pair, n).codes());
        (!told.iter().flatten().any(|code| silent.contains(&code.split(' ').next().unwrap_or_default()))).then_some(())
    });
    pair.wait_word(0, "switchable");
    pair.wait_word(1, "switchable");
}

/// A frame with the first message of a handshake, as a caller with these keys makes it.
fn first_frame(shared: &[u8; 32], keys: Option<(&PrivateKey, &[u8; 32])>) -> Vec<u8> {
    let pattern = format!("Noise_{}_25519_ChaChaPoly_BLAKE2s", if keys.is_some() { "IKpsk0" } else { "NNpsk0" });
    let builder = snow::Builder::new(pattern.parse().expect("a pattern"));
    let mut builder = builder.psk(0, shared).and_then(|b| b.prologue(b"mirroring controller \x01")).expect("once");
    if let Some((own, peer)) = keys {
        builder = builder.local_private_key(own.as_bytes()).and_then(|b| b.remote_public_key(peer)).expect("once");
    }
    let mut message = [0; 128];
    let length = builder.build_initiator().expect("keys").write_message(&[], &mut message).expect("a message");
    [&(length as u16).to_be_bytes(), &message[..length]].concat()
}

/// What server nd1 answers to this, sent from the arbiter's host.
fn answer_to(pair: &Pair, frame: &[u8]) -> Vec<u8> {
    pair.net.hosts[2].inside(|| {
        let address = (ADDRESSES[ADMIN][0], pair.servers[0].control_port);
        let mut stream = TcpStream::connect(address).expect("could not connect");
        stream.write_all(frame).expect("could not send");
        stream.set_read_timeout(Some(s(30))).expect("a timeout");
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => answer,
            Err(cause) if cause.kind() == ErrorKind::ConnectionReset => answer,
            Err(cause) => panic!("not closed: {cause}"),
        }
    })
}

/// The frames that the arbiter's host can make of all its files, to be taken for nd2 by nd1.
fn forged(pair: &Pair) -> [Vec<u8>; 2] {
    let read = |name: &str| std::fs::read_to_string(pair.arbiter_dir().join(name)).expect("could not read");
    let shared = Key::parse("mc.key".as_ref(), &read("mc.key")).expect("64 digits");
    let own = PrivateKey::parse("arb.private".as_ref(), &read("arb.private")).expect("64 digits");
    // The public key is no secret; until network.conf lists it, take it from its owner.
    let path = pair.servers[0].management.join("nd1.private");
    let text = std::fs::read_to_string(&path).expect("could not read");
    let nd1 = PrivateKey::parse(&path, &text).expect("64 digits").public();
    [first_frame(shared.as_bytes(), None), first_frame(shared.as_bytes(), Some((&own, nd1.as_bytes())))]
}

/// `mc_ctl reload` reports a member's new key by name, and the controller continues to use the old one.
fn a_new_key_is_reported(pair: &Pair, listed: &str, old: &str) {
    let dir = &pair.servers[0].management;
    let (path, network) = (dir.join("nd1.private"), dir.join("network.conf"));
    let (text, good) = (new_key(), std::fs::read_to_string(&path).expect("could not read"));
    let public = PrivateKey::parse(&path, &text).expect("64 digits").public();
    let public: String = public.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    write_private(&path, &text);
    write_private(&network, &listed.replace(old, &public));
    let answer = pair.mc(0, &["reload"]).expect(0, "mc_ctl reload");
    for what in ["the line of \"nd1\" in network.conf", "the key in nd1.private"] {
        let text = format!("WARNING: {what} cannot be changed without restarting the controller\n");
        assert!(answer.err.contains(&text), "{text:?} is not in {}", answer.text());
    }
    all_hear_each_other(pair, "the old key is in use");
    write_private(&path, &good);
    write_private(&network, listed);
}

/// The order of network.conf(5): no client notices, either server hears the other in each state, and afterwards the arbiter's
/// host with all its files is not answered by a server.
#[test]
fn the_arbiter_s_files_make_no_server() {
    let pair = Setup::default().arbiter().up();
    pair.wait_arbiter_named();
    let client = pair.client(Style::PerHost);
    let view = pair.ledger_of(0);
    let keys = [
        printed(&pair.mc(0, &["init"]).expect(0, "mc_ctl init")),
        printed(&pair.mc(1, &["init"]).expect(0, "mc_ctl init")),
        printed(&pair.arb(&["init"]).expect(0, "mc_arb init")),
    ];
    for member in [1, 0, 2] {
        restart(&pair, member);
        all_hear_each_other(&pair, &format!("member {member} has its key"));
    }
    // As without keys: whoever has read the files of the arbiter's host is answered as a server.
    for frame in forged(&pair) {
        assert_eq!(answer_to(&pair, &frame).len(), 2 + 48, "the shared key alone was not enough");
    }

    let text = pair.network_conf(&Setup::default().arbiter());
    let listed: String = text.lines().zip(&keys).map(|(line, key)| format!("{line} key={key}\n")).collect();
    assert!(Network::parse("network.conf".as_ref(), &listed).is_ok(), "{listed}");
    for dir in pair.servers.iter().map(|server| server.management.clone()).chain([pair.arbiter_dir()]) {
        write_private(&dir.join("network.conf"), &listed);
    }
    for member in [1, 0, 2] {
        restart(&pair, member);
        all_hear_each_other(&pair, &format!("member {member} lists the keys"));
    }
    assert_eq!(pair.ledger_of(0), view, "the view has changed");
    assert!(check(&pair, 0).find("no-member-keys", "").is_none());

    a_new_key_is_reported(&pair, &listed, &keys[0]);

    let at = Instant::now();
    for frame in forged(&pair) {
        assert_eq!(answer_to(&pair, &frame), b"");
    }
    let refused = format!("a connection from \"{}:", ADDRESSES[ADMIN][2]);
    let (_, report) = wait_for("a message", s(10), || pair.host(0).syslog.find(at, &refused));
    for part in ["as member \"nd2\" was refused", "it proves only mc.key", "MCA01150"] {
        assert!(report.contains(part), "{report}");
    }
    all_hear_each_other(&pair, "nothing has changed");
    pair.fail_over_from(0);
    client.wait_ack(Instant::now(), s(10));
    client.check(&pair, 1, &[0, 1]);
}
