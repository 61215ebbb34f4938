//! Which of the two servers this host is.
//!
//! A host name may need a name server that does not answer, so names are resolved on threads of their own, with a
//! limit; a thread that hangs is left behind, and ends with the process or the resolver's own limit.

use super::network::{MemberLine, Network};
use crate::error::{Error, Result};
use crate::fsm::types::Server;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long the names of both servers may take to resolve.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);

/// What was found out about one server's hosts.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Here {
    Yes,
    No,
    /// No address is this machine's, and a name could not be resolved, for this reason.
    Unknown(String),
}

/// The server that `--local-server` names, or the one whose hosts are this machine's.
pub fn resolve(path: &Path, network: &Network, local_server: Option<&str>) -> Result<Server> {
    match local_server {
        Some(id) => named(path, network, id),
        None => choose(path, network, &look(network, RESOLVE_LIMIT)),
    }
}

/// As [`resolve`], for a start, which may come before the name service at boot: where a name does not resolve and no host is
/// known to be this machine, the server whose `ID.conf` alone is here. Where all names resolve and none is this machine's,
/// the files do not count: they may be on a copy of the machine.
pub fn resolve_for_start(dir: &Path, path: &Path, network: &Network, local_server: Option<&str>) -> Result<Server> {
    if let Some(id) = local_server {
        return named(path, network, id);
    }
    let here = look(network, RESOLVE_LIMIT);
    let sole = sole(network, &|id| dir.join(format!("{id}.conf")).exists());
    match sole.filter(|own| matches!(here[own.index()], Here::Unknown(_)) && !here.contains(&Here::Yes)) {
        Some(server) => Ok(server),
        None => choose(path, network, &here),
    }
}

/// Whether a host of either server is this machine, as far as names resolve.
pub fn is_here(network: &Network) -> bool {
    look(network, RESOLVE_LIMIT).contains(&Here::Yes)
}

/// The only server of which something exists.
fn sole(network: &Network, exists: &dyn Fn(&str) -> bool) -> Option<Server> {
    match Server::BOTH.map(|server| exists(&network.servers[server.index()].id)) {
        [true, false] => Some(Server::First),
        [false, true] => Some(Server::Second),
        _ => None,
    }
}

/// As [`resolve`], for commands that only talk to the controller and must answer at once: which server's files are
/// here tells more cheaply than a name server.
pub fn resolve_for_client(dir: &Path, path: &Path, network: &Network, local_server: Option<&str>) -> Result<Server> {
    if local_server.is_none() {
        let conf = sole(network, &|id| dir.join(format!("{id}.conf")).exists());
        if let Some(server) = conf.or_else(|| sole(network, &|id| dir.join(id).is_dir())) {
            return Ok(server);
        }
    }
    resolve(path, network, local_server)
}

pub(super) fn named(path: &Path, network: &Network, id: &str) -> Result<Server> {
    Server::BOTH.into_iter().find(|server| network.servers[server.index()].id == id).ok_or_else(|| {
        Error::new(format!("server \"{id}\" is not in file \"{}\"", path.display()))
            .hint(format!("--local-server takes \"{}\" or \"{}\".", network.servers[0].id, network.servers[1].id))
    })
}

fn choose(path: &Path, network: &Network, here: &[Here; 2]) -> Result<Server> {
    let [first, second] = &network.servers;
    let options = format!("Specify one with --local-server {} or --local-server {}.", first.id, second.id);
    match here {
        [Here::Yes, Here::Yes] => Err(Error::new(format!(
            "both \"{}\" and \"{}\" of file \"{}\" name this host",
            first.id,
            second.id,
            path.display()
        ))
        .hint(options)),
        [Here::Yes, _] => Ok(Server::First),
        [_, Here::Yes] => Ok(Server::Second),
        [a, b] => {
            let tell = |line: &MemberLine, here: &Here| match here {
                Here::Unknown(why) => format!("; \"{}\": {why}", line.id),
                _ => format!("; \"{}\" ({}): not an address of this host", line.id, line.hosts.join(", ")),
            };
            Err(Error::new(format!(
                "no server of file \"{}\" is on this host{}{}",
                path.display(),
                tell(first, a),
                tell(second, b)
            ))
            .hint(format!("Correct the file or this host's addresses. {options}")))
        }
    }
}

/// Resolves all hosts at once and compares them with this machine's addresses.
fn look(network: &Network, limit: Duration) -> [Here; 2] {
    let (answers, inbox) = mpsc::channel();
    let mut found = network.servers.each_ref().map(|line| vec![None; line.hosts.len()]);
    for (server, line) in network.servers.iter().enumerate() {
        for (index, host) in line.hosts.iter().cloned().enumerate() {
            if host.parse::<IpAddr>().is_ok() {
                found[server][index] = Some(host_is_here(&host));
                continue;
            }
            let answers = answers.clone();
            // Nobody listens any more once the limit is over.
            std::thread::spawn(move || answers.send((server, index, host_is_here(&host))).is_ok());
        }
    }
    let end = Instant::now() + limit;
    while found.iter().flatten().any(Option::is_none) {
        let Ok((server, index, here)) = inbox.recv_timeout(end.saturating_duration_since(Instant::now())) else {
            break;
        };
        found[server][index] = Some(here);
    }
    found.map(|hosts| fold(hosts, limit))
}

/// One is enough to be here; to be elsewhere, all must be.
fn fold(hosts: Vec<Option<Here>>, limit: Duration) -> Here {
    let late = Here::Unknown(format!("its name was not resolved within {} s", limit.as_secs()));
    let hosts: Vec<Here> = hosts.into_iter().map(|here| here.unwrap_or_else(|| late.clone())).collect();
    if hosts.contains(&Here::Yes) {
        return Here::Yes;
    }
    hosts.into_iter().find(|here| *here != Here::No).unwrap_or(Here::No)
}

fn host_is_here(host: &str) -> Here {
    match (host, 0).to_socket_addrs() {
        Ok(mut addresses) => match addresses.any(is_local) {
            true => Here::Yes,
            false => Here::No,
        },
        Err(cause) => Here::Unknown(format!("could not resolve \"{host}\": {cause}")),
    }
}

/// Whether an address is one of this machine's interfaces': whether a socket can be bound to it. Where the kernel
/// allows the binding of any address (`ip_nonlocal_bind`, set for floating addresses), the route to it decides.
pub fn is_local(mut address: SocketAddr) -> bool {
    address.set_port(0);
    if address.ip().to_canonical().is_loopback() {
        return true;
    }
    if UdpSocket::bind(address).is_err() {
        return false;
    }
    let (switch, any): (_, SocketAddr) = match address {
        SocketAddr::V4(_) => ("/proc/sys/net/ipv4/ip_nonlocal_bind", ([0; 4], 0).into()),
        SocketAddr::V6(_) => ("/proc/sys/net/ipv6/ip_nonlocal_bind", ([0u16; 8], 0).into()),
    };
    if std::fs::read_to_string(switch).map_or(true, |text| text.trim() == "0") {
        return true;
    }
    // Connecting a datagram socket sends nothing: the kernel only picks the source address, which for an address of
    // its own is that address. Any port but 0 does.
    address.set_port(9);
    let source = UdpSocket::bind(any).and_then(|socket| socket.connect(address).and_then(|()| socket.local_addr()));
    source.is_ok_and(|source| source.ip() == address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        Network::parse(Path::new("network.conf"), text).unwrap()
    }

    fn check(text: &str, option: Option<&str>, expected: std::result::Result<Server, &str>) {
        match (resolve(Path::new("network.conf"), &network(text), option), expected) {
            (Ok(got), Ok(wanted)) => assert_eq!(got, wanted),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (got, wanted) => panic!("{text:?}: got {got:?}, wanted {wanted:?}"),
        }
    }

    #[test]
    fn this_host() {
        let elsewhere = "203.0.113.77";
        check(&format!("a 127.0.0.1 1\nb {elsewhere} 1"), None, Ok(Server::First));
        check(&format!("a {elsewhere} 1\nb ::1 1"), None, Ok(Server::Second));
        check(&format!("a {elsewhere},localhost 1\nb {elsewhere} 2"), None, Ok(Server::First));
        check("a 127.0.0.1 1\nb localhost 2", None, Err("--local-server a or --local-server b"));
        check("a 127.0.0.1 1\nb localhost 2", Some("b"), Ok(Server::Second));
        check("a 127.0.0.1 1\nb localhost 2", Some("c"), Err("server \"c\" is not in file"));
        check(&format!("a {elsewhere} 1\nb 198.51.100.7 1"), None, Err("(198.51.100.7): not an address of this host"));
        check(&format!("a {elsewhere} 1\nb no-such-host.invalid 1"), None, Err("could not resolve"));
        check("a 127.0.0.1 1\nb no-such-host.invalid 1", None, Ok(Server::First));
    }

    #[test]
    fn slow_names_count_as_unknown() {
        let limit = Duration::from_secs(7);
        assert_eq!(
            fold(vec![Some(Here::No), None], limit),
            Here::Unknown("its name was not resolved within 7 s".into())
        );
        assert_eq!(fold(vec![None, Some(Here::Yes)], limit), Here::Yes);
        assert_eq!(fold(vec![Some(Here::No), Some(Here::No)], limit), Here::No);
    }

    #[test]
    fn clients_go_by_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let pair = network("a 127.0.0.1 1\nb 127.0.0.1 2");
        let ask = || resolve_for_client(dir.path(), Path::new("network.conf"), &pair, None).ok();
        assert_eq!(ask(), None);
        std::fs::write(dir.path().join("b.conf"), "").unwrap();
        assert_eq!(ask(), Some(Server::Second));
        std::fs::write(dir.path().join("a.conf"), "").unwrap();
        assert_eq!(ask(), None);
        std::fs::create_dir(dir.path().join("a")).unwrap();
        assert_eq!(ask(), Some(Server::First));
    }
}
