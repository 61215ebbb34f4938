//! Looks at the other's instance while heartbeats are missed: an answer is a sign that its host lives.
//!
//! It connects to the `replication_address` that the other has told and asks whether TLS is spoken, which PostgreSQL
//! answers to anyone, before any authentication. It logs in nowhere, decides nothing, and holds nobody up: a connection
//! that hangs holds its own thread alone. Switched on and off by the decision thread.

use crate::fsm::event::{Event, PeerInstance};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// The time between two attempts after a refusal: a few of them are a cause (PROTOCOL section 4), so they should not take
/// long.
const AFTER_REFUSAL: Duration = Duration::from_millis(100);

/// `SSLRequest` (PostgreSQL documentation, "Message Formats"): its length and its code.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// What the probe is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Look, or stop looking.
    Watch(bool),
    /// `host:port` of the other's instance, as its heartbeats tell it.
    Address(String),
}

/// Starts the probe. While it is switched on and knows an address, `report` gets [`Event::PeerInstance`] each `interval`
/// (`heartbeat_interval`), sooner after a refusal; an attempt takes `timeout` (`heartbeat_timeout`) at most. `report` must
/// not block. The probe ends when the channel closes.
///
/// # Errors
///
/// No thread could be started.
pub fn spawn(
    interval: Duration,
    timeout: Duration,
    report: impl Fn(Event) + Send + 'static,
) -> std::io::Result<Sender<Command>> {
    let (commands, inbox) = unbounded();
    std::thread::Builder::new().name("peer probe".into()).spawn(move || run(&inbox, interval, timeout, report))?;
    Ok(commands)
}

fn run(inbox: &Receiver<Command>, interval: Duration, timeout: Duration, report: impl Fn(Event)) {
    let mut on = false;
    let mut address = String::new();
    let mut wait = Duration::ZERO;
    loop {
        let idle = !on || address.is_empty();
        let command =
            if idle { inbox.recv().map_err(|_| RecvTimeoutError::Disconnected) } else { inbox.recv_timeout(wait) };
        match command {
            Ok(Command::Watch(now)) => {
                if now && !on {
                    wait = Duration::ZERO;
                }
                on = now;
                continue;
            }
            Ok(Command::Address(now)) => {
                address = now;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let seen = look(&address, timeout);
        report(Event::PeerInstance(seen));
        wait = if seen == PeerInstance::Refused { AFTER_REFUSAL.min(interval) } else { interval };
    }
}

/// One attempt. A name with several addresses has answered when one of them has, and refuses when all of them do.
pub fn look(address: &str, timeout: Duration) -> PeerInstance {
    let end = Instant::now() + timeout;
    // A resolver that hangs holds up this thread alone; its silence is the reading.
    let addresses: Vec<SocketAddr> = address.to_socket_addrs().map(Iterator::collect).unwrap_or_default();
    let mut refused = !addresses.is_empty();
    for address in addresses {
        match attempt(address, end) {
            Ok(()) => return PeerInstance::Answered,
            Err(ErrorKind::ConnectionRefused) => {}
            Err(_) => refused = false,
        }
    }
    if refused { PeerInstance::Refused } else { PeerInstance::Silent }
}

fn attempt(address: SocketAddr, end: Instant) -> Result<(), ErrorKind> {
    let left = || Some(end.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero());
    let kind = |error: std::io::Error| error.kind();
    let mut stream = TcpStream::connect_timeout(&address, left().ok_or(ErrorKind::TimedOut)?).map_err(kind)?;
    stream.set_write_timeout(left()).map_err(kind)?;
    stream.write_all(&SSL_REQUEST).map_err(kind)?;
    stream.set_read_timeout(Some(left().ok_or(ErrorKind::TimedOut)?)).map_err(kind)?;
    let mut answer = [0];
    // A reset or an end here is no refusal of the kernel's to connect: something accepted, and did not answer.
    stream.read_exact(&mut answer).map_err(|_| ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn address(listener: &TcpListener) -> String {
        listener.local_addr().unwrap().to_string()
    }

    #[test]
    fn nobody_listening_is_a_refusal() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = address(&listener);
        drop(listener);
        assert_eq!(look(&address, Duration::from_secs(1)), PeerInstance::Refused);
    }

    #[test]
    fn a_kernel_that_accepts_for_a_frozen_program_is_silence() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(look(&address(&listener), Duration::from_millis(50)), PeerInstance::Silent);
    }

    #[test]
    fn what_hangs_up_without_an_answer_is_silence() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = address(&listener);
        let server = std::thread::spawn(move || drop(listener.accept()));
        assert_eq!(look(&address, Duration::from_secs(1)), PeerInstance::Silent);
        server.join().unwrap();
    }

    #[test]
    fn an_address_that_is_none_is_silence() {
        for address in ["", "nowhere", "127.0.0.1", "127.0.0.1:x"] {
            assert_eq!(look(address, Duration::from_millis(50)), PeerInstance::Silent, "{address:?}");
        }
    }

    #[test]
    fn it_looks_only_while_switched_on() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let refusing = address(&listener);
        drop(listener);
        let (seen, readings) = unbounded();
        let report = move |event| drop(seen.send(event));
        let probe = spawn(Duration::from_millis(20), Duration::from_millis(500), report).unwrap();
        probe.send(Command::Address(refusing)).unwrap();
        assert!(readings.recv_timeout(Duration::from_millis(100)).is_err(), "it is off");
        probe.send(Command::Watch(true)).unwrap();
        let limit = Duration::from_secs(5);
        assert_eq!(readings.recv_timeout(limit), Ok(Event::PeerInstance(PeerInstance::Refused)));
        assert_eq!(readings.recv_timeout(limit), Ok(Event::PeerInstance(PeerInstance::Refused)));
        drop(probe);
        while readings.recv_timeout(limit).is_ok() {}
        assert_eq!(readings.recv_timeout(limit), Err(RecvTimeoutError::Disconnected), "it ends with its channel");
    }
}
