//! Connections of strangers, without end, while a link drops and returns.

use crate::harness::client::Style;
use crate::harness::pair::Setup;
use crate::harness::s;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// How long they last after the link has healed: `$MC_TEST_STRANGERS` seconds, or this many. Longer than the detection time.
const SECONDS: u64 = 15;

/// Opens connections that say nothing until `stop`. One that is let in stays open until the other end closes it, so that
/// these take every place that becomes free.
fn besiege(to: SocketAddr, stop: &AtomicBool) {
    let mut open: Vec<TcpStream> = Vec::new();
    while !stop.load(SeqCst) {
        let stranger = TcpStream::connect_timeout(&to, Duration::from_millis(200));
        open.extend(stranger.and_then(|stranger| stranger.set_nonblocking(true).map(|()| stranger)));
        open.retain(|stranger| stranger.peek(&mut [0]).is_err_and(|cause| cause.kind() == ErrorKind::WouldBlock));
    }
}

/// Ends the threads.
struct Siege(Arc<AtomicBool>);

impl Drop for Siege {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// With `fallback` both servers would force themselves alone if the link did not return.
#[test]
fn strangers_do_not_keep_a_link_down() {
    let pair = Setup::default().conf("heartbeat_error_action = fallback").up();
    let seconds = std::env::var("MC_TEST_STRANGERS").ok().and_then(|n| n.parse().ok()).unwrap_or(SECONDS);
    let client = pair.client(Style::PerHost);
    let view = pair.ledger_of(0);
    let siege = Siege(Arc::default());
    for server in pair.servers.iter().cycle().take(8) {
        let to = format!("{}:{}", server.address, server.control_port).parse().expect("an address");
        let stop = siege.0.clone();
        std::thread::spawn(move || besiege(to, &stop));
    }
    std::thread::sleep(s(2));
    pair.net.cut(1);
    std::thread::sleep(s(3));
    pair.net.heal(1);
    std::thread::sleep(s(seconds));
    client.wait_ack(Instant::now(), s(20));
    drop(siege);
    pair.wait_word(0, "switchable");
    assert_eq!(pair.ledger_of(0), view, "the view has changed");
    client.check(&pair, 0, &[0]);
}
