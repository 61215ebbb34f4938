//! Looks at the other's instance while heartbeats are missed: an answer is a sign that its host lives.
//!
//! It connects to the `replication_address` that the other has told and asks whether TLS is spoken, which PostgreSQL
//! answers to anyone, before any authentication. It logs in nowhere, decides nothing, and holds nobody up: a connection
//! that hangs holds its own thread alone, and the last known addresses of a host name serve while the name service fails.
//! Switched on and off by the decision thread.

use super::resolver::{Addresses, Resolver};
use crate::config::network::check_host;
use crate::fsm::event::{Event, PeerInstance};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
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
    resolver: Resolver,
    interval: Duration,
    timeout: Duration,
    report: impl Fn(Event) + Send + 'static,
) -> std::io::Result<Sender<Command>> {
    let (commands, inbox) = unbounded();
    std::thread::Builder::new()
        .name("peer probe".into())
        .spawn(move || run(&inbox, &resolver, interval, timeout, report))?;
    Ok(commands)
}

fn run(inbox: &Receiver<Command>, resolver: &Resolver, interval: Duration, timeout: Duration, report: impl Fn(Event)) {
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
                if let Some((host, _)) = host_and_port(&address).filter(|_| address != now) {
                    resolver.forget(host);
                }
                address = now;
                // Its name is resolved before the first look.
                let _ = host_and_port(&address).map(|(host, port)| resolver.addresses(host, port));
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let seen = look(resolver, &address, timeout);
        report(Event::PeerInstance(seen));
        wait = if seen == PeerInstance::Refused { AFTER_REFUSAL.min(interval) } else { interval };
    }
}

/// One attempt. A name with several addresses has answered when one of them has, and refuses when all of them do. A refusal
/// by addresses that may be another host's by now counts as silence.
pub fn look(resolver: &Resolver, address: &str, timeout: Duration) -> PeerInstance {
    let end = Instant::now() + timeout;
    let Some((host, port)) = host_and_port(address) else { return PeerInstance::Silent };
    let Addresses { list, recent, .. } = resolver.wait(host, port, timeout);
    let mut refused = recent && !list.is_empty();
    for address in list {
        match attempt(address, end) {
            Ok(()) => return PeerInstance::Answered,
            Err(ErrorKind::ConnectionRefused) => {}
            Err(_) => refused = false,
        }
    }
    if refused { PeerInstance::Refused } else { PeerInstance::Silent }
}

/// `host:port` or `[address]:port`, as a member reports it.
pub(super) fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().ok().filter(|port| *port > 0)?;
    check_host(host).is_ok().then_some((host, port))
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

    fn resolver() -> Resolver {
        Resolver::start([], || ()).unwrap()
    }

    fn address(listener: &TcpListener) -> String {
        listener.local_addr().unwrap().to_string()
    }

    #[test]
    fn nobody_listening_is_a_refusal() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = address(&listener);
        drop(listener);
        assert_eq!(look(&resolver(), &address, Duration::from_secs(1)), PeerInstance::Refused);
    }

    #[test]
    fn a_kernel_that_accepts_for_a_frozen_program_is_silence() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(look(&resolver(), &address(&listener), Duration::from_millis(50)), PeerInstance::Silent);
    }

    #[test]
    fn what_hangs_up_without_an_answer_is_silence() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = address(&listener);
        let server = std::thread::spawn(move || drop(listener.accept()));
        assert_eq!(look(&resolver(), &address, Duration::from_secs(1)), PeerInstance::Silent);
        server.join().unwrap();
    }

    #[test]
    fn an_address_that_is_none_is_silence() {
        for address in ["", "nowhere", "127.0.0.1", "127.0.0.1:x"] {
            assert_eq!(look(&resolver(), address, Duration::from_millis(50)), PeerInstance::Silent, "{address:?}");
        }
    }

    #[test]
    fn addresses_as_reported() {
        assert_eq!(host_and_port("h:5432"), Some(("h", 5432)));
        assert_eq!(host_and_port("[::1]:5432"), Some(("::1", 5432)));
        let long = format!("{}:1", "x".repeat(300));
        for bad in ["", "h", "h:", ":1", "h:0", "h:99999", "a b:1", &long] {
            assert_eq!(host_and_port(bad), None, "{bad}");
        }
    }

    #[test]
    fn it_looks_only_while_switched_on() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let refusing = address(&listener);
        drop(listener);
        let (seen, readings) = unbounded();
        let report = move |event| drop(seen.send(event));
        let probe = spawn(resolver(), Duration::from_millis(20), Duration::from_millis(500), report).unwrap();
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
