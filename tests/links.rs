//! Links between members, over real connections on the loopback interface.

use crossbeam_channel::Receiver;
use mirroring_controller::config::{PrivateKey, PublicKey};
use mirroring_controller::daemon::Inbox;
use mirroring_controller::daemon::links::{Bystander, Links, Peer, Settings};
use mirroring_controller::daemon::noise::{Identity, NotProved, Reader, Refusal};
use mirroring_controller::fsm::event::{Event, Message, Reply};
use mirroring_controller::fsm::types::{Member, Server, Time};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

const FIRST: Member = Member::Server(Server::First);
const SECOND: Member = Member::Server(Server::Second);
const KEY: [u8; 32] = [7; 32];
const LIMIT: Duration = Duration::from_secs(10);

type Events = Receiver<(Time, Event)>;

/// A port that nobody listens on now.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn settings(me: Member, own: u16, other: u16) -> Settings {
    let (id, peer, peer_id) = if me == FIRST { ("nd1", SECOND, "nd2") } else { ("nd2", FIRST, "nd1") };
    Settings {
        me,
        id: id.to_owned(),
        listen: vec![("127.0.0.1".to_owned(), own)],
        peers: vec![Peer {
            member: peer,
            id: peer_id.to_owned(),
            address: ("127.0.0.1".to_owned(), other),
            hosts: vec!["127.0.0.1".to_owned()],
            from: None,
            silence_ms: 700,
            key: None,
        }],
        key: KEY,
        own_key: None,
        interval_ms: 200,
        timeout_ms: 500,
    }
}

fn start(settings: Settings) -> (Links, Events) {
    let (inbox, events) = Inbox::new();
    (Links::start(settings, inbox, Bystander::default()).unwrap(), events)
}

fn told(id: u64) -> Message {
    Message::Told { id, reply: Reply::Done }
}

/// Sends until it is heard: a message may be lost while the connection is not there yet.
fn arrives(from: &Links, to: Member, events: &Events, message: &Message) -> bool {
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        from.send(to, message);
        while let Ok((_, event)) = events.recv_timeout(Duration::from_millis(50)) {
            if matches!(&event, Event::Heard(_, heard) if heard == message) {
                return true;
            }
        }
    }
    false
}

fn hears_nothing(events: &Events, time: Duration) {
    let deadline = Instant::now() + time;
    while let Ok((_, event)) = events.recv_deadline(deadline) {
        assert!(!matches!(event, Event::Heard(..)), "{event:?}");
    }
}

/// Waits for the other end to close; whatever it says before is returned.
fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Ok(_) => said,
        Err(cause) if cause.kind() == std::io::ErrorKind::ConnectionReset => said,
        Err(cause) => panic!("not closed: {cause}"),
    }
}

#[test]
fn messages_arrive_both_ways_in_order() {
    let (one, two) = (port(), port());
    let (first, first_events) = start(settings(FIRST, one, two));
    let (second, second_events) = start(settings(SECOND, two, one));
    assert!(arrives(&first, SECOND, &second_events, &told(1)));
    assert!(arrives(&second, FIRST, &first_events, &told(2)));
    for id in 100..130 {
        first.send(SECOND, &told(id));
    }
    for id in 100..130 {
        loop {
            let (_, event) = second_events.recv_timeout(LIMIT).unwrap();
            if event == Event::Heard(FIRST, told(id)) {
                break;
            }
            assert!(!matches!(event, Event::Heard(_, Message::Told { id: other, .. }) if other > id), "{event:?}");
        }
    }
}

#[test]
fn a_wrong_key_hears_and_is_told_nothing() {
    let (one, two) = (port(), port());
    let (first, first_events) = start(settings(FIRST, one, two));
    let (second, second_events) = start(Settings { key: [8; 32], ..settings(SECOND, two, one) });
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        first.send(SECOND, &told(1));
        second.send(FIRST, &told(2));
        hears_nothing(&first_events, Duration::from_millis(20));
        hears_nothing(&second_events, Duration::from_millis(20));
    }
}

#[test]
fn junk_and_oversize_and_silence_are_answered_by_the_close_alone() {
    let one = port();
    let (_first, events) = start(settings(FIRST, one, port()));
    let mut right_length = vec![0, 48];
    right_length.extend([9; 48]);
    let oversize = [0xff; 70_000];
    for junk in [&b"GET / HTTP/1.1\r\n\r\n"[..], &right_length, &oversize, &[0, 0], &[0, 49]] {
        let mut stream = TcpStream::connect(("127.0.0.1", one)).unwrap();
        // The other end may close before all of it is sent.
        let _ = stream.write_all(junk);
        assert_eq!(until_closed(&mut stream), b"");
    }
    let mut silent = TcpStream::connect(("127.0.0.1", one)).unwrap();
    let begin = Instant::now();
    assert_eq!(until_closed(&mut silent), b"");
    assert!(begin.elapsed() < Duration::from_secs(4));
    hears_nothing(&events, Duration::from_millis(100));
}

#[test]
fn many_strangers_do_not_keep_a_member_out_for_long() {
    let (one, two) = (port(), port());
    let (_first, first_events) = start(settings(FIRST, one, two));
    let strangers: Vec<_> = (0..40).map(|_| TcpStream::connect(("127.0.0.1", one)).unwrap()).collect();
    // More than 16 are closed at once.
    let deadline = Instant::now() + Duration::from_secs(1);
    let mut closed = 0;
    for mut stream in &strangers {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left)).unwrap();
        closed += usize::from(matches!(stream.read(&mut [0]), Ok(0)));
    }
    assert_eq!(closed, 24);
    let (second, _events) = start(settings(SECOND, two, one));
    assert!(arrives(&second, FIRST, &first_events, &told(3)));
}

/// Connections from this address that say nothing. One that is let in stays open until the other end closes it, so that
/// these take every place that becomes free.
fn strangers(from: &str, port: u16, stop: &AtomicBool) {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let from: std::net::SocketAddr = (from.parse::<std::net::IpAddr>().unwrap(), 0).into();
    let mut open: Vec<TcpStream> = Vec::new();
    while !stop.load(SeqCst) {
        let stranger = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&stranger, &from).unwrap();
        if connect(&stranger, &std::net::SocketAddr::from(([127, 0, 0, 1], port))).is_ok() {
            let stranger = TcpStream::from(stranger);
            stranger.set_nonblocking(true).unwrap();
            open.push(stranger);
        }
        open.retain(|stranger| stranger.peek(&mut [0]).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock));
    }
}

/// Strangers have taken all their places: a caller from a member's address is let in all the same.
#[test]
fn a_member_has_places_of_its_own() {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let one = port();
    let (_first, _events) = start(settings(FIRST, one, port()));
    let call = |from: [u8; 4]| {
        let caller = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&caller, &std::net::SocketAddr::from((from, 0))).unwrap();
        connect(&caller, &std::net::SocketAddr::from(([127, 0, 0, 1], one))).unwrap();
        let caller = TcpStream::from(caller);
        caller.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        caller
    };
    let is_closed = |mut caller: &TcpStream| matches!(caller.read(&mut [0]), Ok(0));
    let _strangers: Vec<_> = (0..16).map(|_| call([127, 0, 0, 9])).collect();
    assert!(is_closed(&call([127, 0, 0, 9])), "there are more places than expected");
    assert!(!is_closed(&call([127, 0, 0, 1])), "a member's address found no place");
}

#[test]
fn strangers_without_end_do_not_keep_a_member_out() {
    let (one, two) = (port(), port());
    let (_first, first_events) = start(settings(FIRST, one, two));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| strangers("127.0.0.9", one, &stop));
        }
        std::thread::sleep(Duration::from_secs(1));
        let (second, _events) = start(settings(SECOND, two, one));
        let arrived = arrives(&second, FIRST, &first_events, &told(3));
        drop(second);
        // its connection ends, and it is let in again
        let (second, _events) = start(settings(SECOND, port(), one));
        let again = arrives(&second, FIRST, &first_events, &told(4));
        stop.store(true, SeqCst);
        assert_eq!((arrived, again), (true, true));
    });
}

#[test]
fn a_refusal_is_an_event_and_the_peer_is_found_when_it_comes() {
    let (one, two) = (port(), port());
    let (first, first_events) = start(settings(FIRST, one, two));
    for _ in 0..3 {
        let (_, event) = first_events.recv_timeout(Duration::from_secs(1)).unwrap();
        assert_eq!(event, Event::Refused(SECOND));
    }
    let (second, second_events) = start(settings(SECOND, two, one));
    assert!(arrives(&first, SECOND, &second_events, &told(1)));
    // Its process ends: noticed at once, by the end of the connection and then by refusals.
    let begin = Instant::now();
    drop(second);
    while first_events.recv_timeout(LIMIT).unwrap().1 != Event::Refused(SECOND) {}
    assert!(begin.elapsed() < Duration::from_millis(400), "{:?}", begin.elapsed());
    let (_second, second_events) = start(settings(SECOND, two, one));
    assert!(arrives(&first, SECOND, &second_events, &told(2)));
}

#[test]
fn silence_is_no_refusal_and_is_dialled_again() {
    let (one, two) = (port(), port());
    // It takes connections, as the kernel does for a stopped process, and never says anything.
    let frozen = TcpListener::bind(("127.0.0.1", two)).unwrap();
    let (_first, events) = start(settings(FIRST, one, two));
    let _one = frozen.accept().unwrap();
    let begin = Instant::now();
    let _two = frozen.accept().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(2));
    assert!(events.try_recv().is_err());
}

#[test]
fn members_that_number_the_servers_differently_do_not_talk() {
    let (one, two) = (port(), port());
    let (first, _first_events) = start(settings(FIRST, one, two));
    let mut wrong = settings(SECOND, two, one);
    wrong.me = FIRST;
    wrong.peers[0].member = SECOND;
    let (_second, second_events) = start(wrong);
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        first.send(SECOND, &told(1));
        hears_nothing(&second_events, Duration::from_millis(20));
    }
}

#[test]
fn a_port_in_use_is_a_clear_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (inbox, _events) = Inbox::new();
    let settings = settings(FIRST, taken.local_addr().unwrap().port(), port());
    let error = Links::start(settings, inbox, Bystander::default()).err().unwrap();
    assert!(error.message.contains("could not listen on 127.0.0.1:"), "{error}");
    assert!(error.hint.contains("network.conf"), "{error}");
}

#[test]
fn an_arbiter_that_dials_is_refused() {
    let (one, two) = (port(), port());
    let mut expects = settings(FIRST, one, two);
    expects.peers[0].member = Member::Arbiter;
    expects.peers[0].id = "arb".to_owned();
    let (_first, first_events) = start(expects);
    let mut arbiter = settings(SECOND, two, one);
    arbiter.me = Member::Arbiter;
    arbiter.id = "arb".to_owned();
    let (arbiter, _events) = start(arbiter);
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        arbiter.send(FIRST, &told(1));
        hears_nothing(&first_events, Duration::from_millis(20));
    }
}

#[test]
fn a_server_listens_on_both_its_pairs_and_dials_from_the_address_it_is_told() {
    let (one, second, two) = (port(), port(), port());
    let mut first = settings(FIRST, one, two);
    first.listen.push(("127.0.0.2".to_owned(), second));
    let (_first, _events) = start(first);
    for address in [("127.0.0.1", one), ("127.0.0.2", second)] {
        TcpStream::connect(address).unwrap();
    }
    // Its own port is known to be free now, and who dials it is seen.
    let other = TcpListener::bind(("127.0.0.1", two)).unwrap();
    let mut dialler = settings(FIRST, port(), two);
    dialler.peers[0].from = Some("127.0.0.7".to_owned());
    let (_dialler, _events) = start(dialler);
    let deadline = Instant::now() + LIMIT;
    while other.accept().unwrap().1.ip().to_string() != "127.0.0.7" {
        assert!(Instant::now() < deadline, "it dials from another address");
    }
}

#[test]
fn a_second_address_that_is_not_there_yet_is_waited_for() {
    let (one, second) = (port(), port());
    let taken = TcpListener::bind(("127.0.0.2", second)).unwrap();
    let mut first = settings(FIRST, one, port());
    first.listen.push(("127.0.0.2".to_owned(), second));
    let (_first, _events) = start(first);
    TcpStream::connect(("127.0.0.1", one)).unwrap();
    drop(taken);
    let deadline = Instant::now() + LIMIT;
    while TcpStream::connect(("127.0.0.2", second)).is_err() {
        assert!(Instant::now() < deadline, "it does not listen there");
        std::thread::sleep(Duration::from_millis(50));
    }
}

// -------------------------------------------------------------------------------------------------------- members' keys

/// The private key of member `number`.
fn private(number: u8) -> PrivateKey {
    PrivateKey::parse("k".as_ref(), &format!("{}{number:02x}", "5a".repeat(31))).unwrap()
}

/// How far the introduction of the keys has come on a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Keys {
    None,
    /// It has its own key, and its `network.conf` lists none.
    Made,
    /// Its `network.conf` lists the keys.
    Listed,
}

/// The settings of a server whose key is 1 or 2.
fn with_keys(me: Member, own: u16, other: u16, keys: Keys) -> Settings {
    let mut settings = settings(me, own, other);
    let [mine, theirs] = if me == FIRST { [1, 2] } else { [2, 1] };
    settings.own_key = (keys != Keys::None).then(|| private(mine));
    settings.peers[0].key = (keys == Keys::Listed).then(|| private(theirs).public());
    settings
}

/// The keys are introduced on one server after the other: both directions work in every state of the documented order.
#[test]
fn keys_are_introduced_without_a_gap() {
    for states in [[Keys::Made, Keys::None], [Keys::Made, Keys::Made], [Keys::Listed, Keys::Made], [Keys::Listed; 2]] {
        let (one, two) = (port(), port());
        let (first, first_events) = start(with_keys(FIRST, one, two, states[0]));
        let (second, second_events) = start(with_keys(SECOND, two, one, states[1]));
        assert!(arrives(&first, SECOND, &second_events, &told(1)), "{states:?}");
        assert!(arrives(&second, FIRST, &first_events, &told(2)), "{states:?}");
    }
}

/// A server whose file lists the keys is not reached by, and does not talk to, one that cannot prove its own.
#[test]
fn a_peer_that_must_prove_its_key_and_has_none_is_not_let_in() {
    let (one, two) = (port(), port());
    let (first, first_events) = start(with_keys(FIRST, one, two, Keys::Listed));
    let (second, second_events) = start(with_keys(SECOND, two, one, Keys::None));
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        first.send(SECOND, &told(1));
        second.send(FIRST, &told(2));
        hears_nothing(&first_events, Duration::from_millis(20));
        hears_nothing(&second_events, Duration::from_millis(20));
    }
}

/// A frame with the first message of a handshake, as a caller with these keys makes it.
fn first_frame(shared: &[u8; 32], own: Option<&PrivateKey>, peer: Option<PublicKey>) -> Vec<u8> {
    let pattern = if own.is_some() { "IKpsk0" } else { "NNpsk0" };
    let pattern = format!("Noise_{pattern}_25519_ChaChaPoly_BLAKE2s");
    let mut builder = snow::Builder::new(pattern.parse().unwrap()).psk(0, shared).unwrap();
    builder = builder.prologue(b"mirroring controller \x01").unwrap();
    if let (Some(own), Some(peer)) = (own, &peer) {
        builder = builder.local_private_key(own.as_bytes()).unwrap().remote_public_key(peer.as_bytes()).unwrap();
    }
    let mut message = [0; 128];
    let length = builder.build_initiator().unwrap().write_message(&[], &mut message).unwrap();
    [&(length as u16).to_be_bytes(), &message[..length]].concat()
}

#[test]
fn a_caller_without_the_listed_key_is_answered_by_the_close_alone() {
    let (one, own) = (port(), private(1).public());
    let (_first, events) = start(with_keys(FIRST, one, port(), Keys::Listed));
    let (other, peer) = (private(3), private(2));
    let frames = [
        ("the handshake without member keys", first_frame(&KEY, None, None)),
        ("another member's key", first_frame(&KEY, Some(&other), Some(own))),
        ("the peer's key, meant for another member", first_frame(&KEY, Some(&peer), Some(other.public()))),
        ("the peer's key without mc.key", first_frame(&[8; 32], Some(&peer), Some(own))),
        ("no key at all", [vec![0, 96], vec![9; 96]].concat()),
    ];
    for (what, frame) in frames {
        let mut stream = TcpStream::connect(("127.0.0.1", one)).unwrap();
        stream.write_all(&frame).unwrap();
        assert_eq!(until_closed(&mut stream), b"", "{what}");
    }
    // The same with the right keys is answered.
    let mut stream = TcpStream::connect(("127.0.0.1", one)).unwrap();
    stream.write_all(&first_frame(&KEY, Some(&peer), Some(own))).unwrap();
    assert_eq!(until_closed(&mut stream).len(), 2 + 48);
    hears_nothing(&events, Duration::from_millis(100));
}

#[test]
fn what_a_caller_proves_instead_is_known() {
    let (own, peer, other) = (private(1), private(2), private(3));
    let refused = |frame: Vec<u8>, listed: &[PublicKey]| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.write_all(&frame).unwrap();
        let identity = Identity { shared: &KEY, own: Some(&own) };
        Reader::accept(listener.accept().unwrap().0, identity, listed, LIMIT).err().unwrap()
    };
    let listed = [peer.public()];
    let unkeyed = refused(first_frame(&KEY, None, None), &listed);
    assert_eq!(unkeyed, Refusal::NotProved(NotProved::SharedKeyAlone));
    let wrong = refused(first_frame(&KEY, Some(&other), Some(own.public())), &listed);
    assert_eq!(wrong, Refusal::NotProved(NotProved::OtherKey));
    // A stranger is no member with another key.
    let stranger = refused(first_frame(&[8; 32], None, None), &listed);
    assert!(matches!(&stranger, Refusal::Other(error) if error.message.contains("mc.key")), "{stranger:?}");
}

/// A dialler that knows the peer's key tries nothing else, whatever answers at the peer's address.
#[test]
fn a_dialler_does_not_fall_back() {
    let (one, two) = (port(), port());
    let other = TcpListener::bind(("127.0.0.1", two)).unwrap();
    let (first, _events) = start(with_keys(FIRST, one, two, Keys::Listed));
    let arbiter = private(3);
    for _ in 0..4 {
        let (stream, _) = other.accept().unwrap();
        first.send(SECOND, &told(1));
        let mut head = [0; 2];
        assert_eq!(stream.peek(&mut head).map(|_| head).unwrap(), [0, 96]);
        let identity = Identity { shared: &KEY, own: Some(&arbiter) };
        assert!(matches!(Reader::accept(stream, identity, &[], LIMIT), Err(Refusal::Other(_))));
    }
}

/// What was handed over before the links end has been sent when they have ended: the process ends then.
#[test]
fn the_last_message_is_sent() {
    for _ in 0..20 {
        let (one, two) = (port(), port());
        let other = TcpListener::bind(("127.0.0.1", two)).unwrap();
        let mut settings = settings(FIRST, one, two);
        settings.peers[0].silence_ms = 60_000;
        let (first, _events) = start(settings);
        let (stream, _) = other.accept().unwrap();
        let sent = stream.try_clone().unwrap();
        let (mut reader, _) = Reader::accept(stream, Identity { shared: &KEY, own: None }, &[], LIMIT).unwrap();
        first.send(SECOND, &told(1));
        reader.receive().unwrap();
        sent.set_nonblocking(true).unwrap();
        first.send(SECOND, &told(2));
        drop(first);
        let found = sent.peek(&mut [0; 2]);
        assert_eq!(found.ok(), Some(2), "nothing was sent");
    }
}
