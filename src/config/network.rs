//! `network.conf`: who the members are and where they listen (guide, A.3; later editions add the second host and port,
//! and the arbiter). Text in, [`Network`] out; reads no file.

use super::key::PublicKey;
use crate::error::{Error, Result};
use std::fmt;
use std::net::IpAddr;
use std::path::Path;

/// `network.conf`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Network {
    /// The two servers, in the order of their lines.
    pub servers: [MemberLine; 2],
    /// The arbiter's line.
    pub arbiter: Option<MemberLine>,
}

/// One line of `network.conf`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberLine {
    /// The identifier.
    pub id: String,
    /// One or two host names or addresses: the admin network's, and the way to the arbiter.
    pub hosts: Vec<String>,
    /// One or two ports, likewise.
    pub ports: Vec<u16>,
    /// Its public key, which it must prove on every connection. Listed for all members or for none.
    pub key: Option<PublicKey>,
    /// Line number in the file, from 1.
    pub line: usize,
}

impl MemberLine {
    /// Host and port pairs, the first of the admin network, the second (if any) the way to the arbiter. Where only one of
    /// the two is written twice, the other holds for both.
    pub fn addresses(&self) -> Vec<(String, u16)> {
        let count = self.hosts.len().max(self.ports.len());
        let hosts = self.hosts.iter().chain(self.hosts.last().into_iter().cycle());
        let ports = self.ports.iter().chain(self.ports.last().into_iter().cycle());
        hosts.zip(ports).take(count).map(|(host, port)| (host.clone(), *port)).collect()
    }
}

/// The longest identifier, in bytes: PostgreSQL cuts `application_name` to this length (`NAMEDATALEN` - 1), so a longer one
/// never matches. The guide (A.3) allows one more.
const ID_LIMIT: usize = 63;
const FORMAT: &str = "A line is: identifier host[,host2] port[,port2] [server|arbiter] [key=PUBLIC_KEY]";

impl Network {
    /// Parses the text of `network.conf`; `path` is for the errors.
    pub fn parse(path: &Path, text: &str) -> Result<Network> {
        let mut servers: Vec<MemberLine> = Vec::new();
        let mut arbiter: Option<MemberLine> = None;
        for (index, line) in text.lines().enumerate() {
            let content = line.split('#').next().unwrap_or("");
            let words: Vec<&str> = content.split_ascii_whitespace().collect();
            if words.is_empty() {
                continue;
            }
            let at = |what: String| in_line(path, index + 1, what).hint(FORMAT);
            let (member, is_arbiter) = parse_line(&words, index + 1).map_err(at)?;
            for other in servers.iter().chain(&arbiter) {
                collide(&member, other).map_or(Ok(()), |what| Err(at(what)))?;
            }
            if is_arbiter {
                if let Some(first) = &arbiter {
                    return Err(at(format!(
                        "a second arbiter; line {} has the first, and only one is allowed",
                        first.line
                    )));
                }
                arbiter = Some(member);
            } else if servers.len() == 2 {
                return Err(at(format!(
                    "a third server; exactly two are allowed (lines {} and {})",
                    servers[0].line, servers[1].line
                )));
            } else {
                servers.push(member);
            }
        }
        let lines = || servers.iter().chain(&arbiter);
        if let (Some(without), Some(with)) =
            (lines().find(|line| line.key.is_none()), lines().find(|line| line.key.is_some()))
        {
            let what = format!("member \"{}\" has no key, and the member of line {} has one", without.id, with.line);
            return Err(in_line(path, without.line, what).hint("List a key for every member, or for none."));
        }
        let count = servers.len();
        let servers = servers.try_into().map_err(|_| {
            Error::new(format!("file \"{}\": {count} servers were found where two are required", path.display()))
                .hint(FORMAT)
        })?;
        Ok(Network { servers, arbiter })
    }
}

/// As a file that [`Network::parse`] reads.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers = self.servers.iter().map(|line| (line, "server"));
        for (line, kind) in servers.chain(self.arbiter.iter().map(|line| (line, "arbiter"))) {
            let ports: Vec<String> = line.ports.iter().map(u16::to_string).collect();
            write!(f, "{} {} {} {kind}", line.id, line.hosts.join(","), ports.join(","))?;
            match &line.key {
                Some(key) => writeln!(f, " key={key}")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}

fn parse_line(words: &[&str], line: usize) -> std::result::Result<(MemberLine, bool), String> {
    let (words, key) = match *words {
        [ref words @ .., last] if last.starts_with("key=") => (words, Some(parse_key(&last[4..])?)),
        _ => (words, None),
    };
    let (id, hosts, ports, kind) = match *words {
        [id, hosts, ports] => (id, hosts, ports, "server"),
        [id, hosts, ports, kind] => (id, hosts, ports, kind),
        _ => return Err(format!("{} words were found where three or four are required", words.len())),
    };
    check_id(id)?;
    let hosts = list(hosts, "host", parse_host)?;
    let ports = list(ports, "port", parse_port)?;
    let is_arbiter = match kind {
        "server" => false,
        "arbiter" => true,
        _ => return Err(format!("\"{kind}\" is neither \"server\" nor \"arbiter\"")),
    };
    Ok((MemberLine { id: id.to_string(), hosts, ports, key, line }, is_arbiter))
}

fn parse_key(text: &str) -> std::result::Result<PublicKey, String> {
    PublicKey::parse(text).map_err(|what| format!("key: {what}"))
}

/// One or two values with a comma between them.
fn list<T>(
    text: &str,
    what: &str,
    parse: impl Fn(&str) -> std::result::Result<T, String>,
) -> std::result::Result<Vec<T>, String> {
    if text.starts_with(',') || text.ends_with(',') {
        return Err(format!("\"{text}\": an empty {what} beside the comma (no space is allowed there)"));
    }
    let values = text.split(',').map(parse).collect::<std::result::Result<Vec<T>, String>>()?;
    if values.len() > 2 {
        return Err(format!("\"{text}\": {} {what}s were found where at most two are allowed", values.len()));
    }
    Ok(values)
}

/// An identifier names files (`ID.conf`, `ID/`), a replication connection, and columns of the status.
fn check_id(id: &str) -> std::result::Result<(), String> {
    if id.len() > ID_LIMIT {
        return Err(format!(
            "the identifier \"{id}\" has {} bytes, and PostgreSQL uses only {ID_LIMIT} bytes of a name; choose a shorter \
             identifier on all members",
            id.len()
        ));
    }
    if !id.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("the identifier \"{id}\" has a character beyond printable ASCII"));
    }
    if id.starts_with(['.', '-']) || id.contains('/') {
        return Err(format!(
            "the identifier \"{id}\" is used in file names, so it cannot begin with \".\" or \"-\" or contain a \"/\""
        ));
    }
    if ["network", "arbitration", "mc.key"].contains(&id) || id.ends_with(".conf") {
        return Err(format!("the identifier \"{id}\" is the name of a file of the management directory"));
    }
    Ok(())
}

/// Whether a text may stand for a host: an address, or a name. Returns what is wrong with it.
pub fn check_host(host: &str) -> std::result::Result<(), String> {
    let address = host.split('%').next().unwrap_or("");
    if let Ok(address) = address.parse::<IpAddr>() {
        if address.is_unspecified() || address.is_multicast() {
            return Err(format!("\"{host}\" is not the address of one host"));
        }
        return Ok(());
    }
    if host.starts_with('[') {
        return Err(format!("\"{host}\": an IPv6 address is written without brackets"));
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let good_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if name.len() > 253 || !name.split('.').all(good_label) {
        return Err(format!("\"{host}\" is neither a host name nor an IPv4 or IPv6 address"));
    }
    if name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) {
        return Err(format!("\"{host}\" is not an IPv4 address"));
    }
    Ok(())
}

fn parse_host(host: &str) -> std::result::Result<String, String> {
    check_host(host).map(|()| host.to_string())
}

/// The guide allows 0, which no one can connect to.
fn parse_port(text: &str) -> std::result::Result<u16, String> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 && text.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
        _ => Err(format!("\"{text}\" is not a port (allowed: 1 to 65535)")),
    }
}

/// What two members may not share.
fn collide(member: &MemberLine, other: &MemberLine) -> Option<String> {
    // PostgreSQL compares the standby's name, which is the identifier, ignoring case.
    if member.id.eq_ignore_ascii_case(&other.id) {
        return Some(format!("the identifier \"{}\" is that of line {} (case is ignored)", member.id, other.line));
    }
    if member.key.is_some() && member.key == other.key {
        return Some(format!("the key is that of line {}", other.line));
    }
    let same_host =
        member.hosts.iter().find(|host| other.hosts.iter().any(|theirs| theirs.eq_ignore_ascii_case(host)))?;
    let port = member.ports.iter().find(|port| other.ports.contains(port))?;
    Some(format!("host \"{same_host}\" with port {port} is also in line {}", other.line))
}

/// `file "PATH", line N: WHAT`.
pub fn in_line(path: &Path, line: usize, what: impl std::fmt::Display) -> Error {
    Error::new(format!("file \"{}\", line {line}: {what}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Network> {
        Network::parse(Path::new("/mc/network.conf"), text)
    }

    /// The members as `id hosts ports line`, the arbiter last; or a part of the error.
    fn check(text: &str, expected: std::result::Result<&[&str], &str>) {
        match (parse(text), expected) {
            (Ok(network), Ok(lines)) => {
                let got: Vec<String> = network
                    .servers
                    .iter()
                    .chain(&network.arbiter)
                    .map(|m| format!("{} {} {:?} {}", m.id, m.hosts.join(","), m.ports, m.line))
                    .collect();
                assert_eq!(got, lines);
            }
            (Err(error), Err(part)) => {
                assert!(error.message.contains(part), "{error}");
                assert!(error.message.contains("/mc/network.conf"), "{error}");
            }
            (got, wanted) => panic!("{text:?}: got {got:?}, wanted {wanted:?}"),
        }
    }

    #[test]
    fn examples_of_the_guide() {
        check(
            "server1 192.0.2.100 27540\nserver2 192.0.2.110 27540\n",
            Ok(&["server1 192.0.2.100 [27540] 1", "server2 192.0.2.110 [27540] 2"]),
        );
        check(
            "server1 2001:258:8404:1217:250:56ff:fea7:559f 27000\nserver2 2001:258:8404:1217:250:56ff:fea7:55a0 27100",
            Ok(&[
                "server1 2001:258:8404:1217:250:56ff:fea7:559f [27000] 1",
                "server2 2001:258:8404:1217:250:56ff:fea7:55a0 [27100] 2",
            ]),
        );
        check(
            "server1 192.0.2.100 27540\nserver2 192.0.2.100 27541\n",
            Ok(&["server1 192.0.2.100 [27540] 1", "server2 192.0.2.100 [27541] 2"]),
        );
        check(
            "server1 192.0.2.100,192.0.3.100 27540,27541\nserver2 192.0.2.110,192.0.3.110 27540,27541\n\
             arbiter 192.0.3.120 27541 arbiter\n",
            Ok(&[
                "server1 192.0.2.100,192.0.3.100 [27540, 27541] 1",
                "server2 192.0.2.110,192.0.3.110 [27540, 27541] 2",
                "arbiter 192.0.3.120 [27541] 3",
            ]),
        );
    }

    #[test]
    fn addresses() {
        let check = |line: &str, expected: &[(&str, u16)]| {
            let network = parse(&format!("{line}\nother i 9")).unwrap();
            let got = network.servers[0].addresses();
            let got: Vec<(&str, u16)> = got.iter().map(|(host, port)| (host.as_str(), *port)).collect();
            assert_eq!(got, expected, "{line}");
        };
        check("a h 1", &[("h", 1)]);
        check("a h,g 1,2", &[("h", 1), ("g", 2)]);
        check("a h,g 1", &[("h", 1), ("g", 1)]);
        check("a h 1,2", &[("h", 1), ("h", 2)]);
    }

    #[test]
    fn layout() {
        check("", Err("0 servers were found where two are required"));
        check(
            "# comment\r\n\r\n\ta  db1.example.com\t1 server # first\r\n  b db_2 65535#x",
            Ok(&["a db1.example.com [1] 3", "b db_2 [65535] 4"]),
        );
        check("arb h 1 arbiter\na h 2\nb h 3", Ok(&["a h [2] 2", "b h [3] 3", "arb h [1] 1"]));
        check("a h 1", Err("1 servers were found"));
        check("a h 1\nb h 2\n\nc h 3", Err("line 4: a third server; exactly two are allowed (lines 1 and 2)"));
        check("a h 1\nb h 2\nc h 3 arbiter\nd h 4 arbiter", Err("line 4: a second arbiter"));
        check("a h", Err("line 1: 2 words"));
        check("a h 1 server x", Err("line 1: 5 words"));
        check("a h, h2 1", Err("an empty host beside the comma"));
        check("a h 1 Server", Err("\"Server\" is neither"));
    }

    #[test]
    fn fields() {
        for (line, part) in [
            ("a h 0", "\"0\" is not a port (allowed: 1 to 65535)"),
            ("a h 65536", "\"65536\" is not a port"),
            ("a h +5", "\"+5\" is not a port"),
            ("a h 1,2,3", "3 ports"),
            ("a h,i,j 1", "3 hosts"),
            ("a [::1] 1", "without brackets"),
            ("a 0.0.0.0 1", "not the address of one host"),
            ("a :: 1", "not the address of one host"),
            ("a 192.0.2.300 1", "not an IPv4 address"),
            ("a h_é 1", "neither a host name"),
            ("a -h 1", "neither a host name"),
            ("é h 1", "beyond printable ASCII"),
            ("../x h 1", "is used in file names"),
            ("x/y h 1", "is used in file names"),
            ("network h 1", "is the name of a file"),
            ("x.conf h 1", "is the name of a file"),
        ] {
            check(line, Err(part));
        }
        let long = format!("b h 2\n{} h 1", "x".repeat(64));
        check(&long, Err("line 2: the identifier"));
        check(&long, Err("64 bytes, and PostgreSQL uses only 63 bytes of a name; choose a shorter identifier"));
        let long = "x".repeat(63);
        check(&format!("{long} h 1\nb h 2"), Ok(&[&format!("{long} h [1] 1"), "b h [2] 2"]));
    }

    #[test]
    fn keys() {
        let [one, two, three] = ["3", "5", "6"].map(|digit| format!("key={}1{digit}", "0a".repeat(31)));
        let network = parse(&format!("a h 1 {one}\nb h 2 server {two} # x\nc h 3 arbiter {three}")).unwrap();
        let lines = network.servers.iter().chain(&network.arbiter);
        let listed: Vec<_> = lines.map(|line| format!("key={}", line.key.unwrap())).collect();
        assert_eq!(listed, [one.clone(), two.clone(), three.clone()]);
        assert!(parse("a h 1\nb h 2").unwrap().servers.iter().all(|line| line.key.is_none()));
        // A peer without a key would have to be let in without a proof.
        check(&format!("a h 1 {one}\nb h 2"), Err("line 2: member \"b\" has no key, and the member of line 1 has one"));
        check(&format!("a h 1 {one}\nb h 2 {two}\nc h 3 arbiter"), Err("line 3: member \"c\" has no key"));
        check(&format!("a h 1 {one}\nb h 2 {one}"), Err("line 2: the key is that of line 1"));
        check(&format!("a h 1 {one} server\nb h 2 {two}"), Err("5 words"));
        check("a h 1 key=\nb h 2", Err("line 1: key: 0 hexadecimal digits"));
        check("a h 1 key=x\nb h 2", Err("line 1: key: character 1 is not"));
    }

    #[test]
    fn collisions() {
        check("a h 1\na i 2", Err("line 2: the identifier \"a\" is that of line 1"));
        check("a h 1\nA i 2", Err("case is ignored"));
        check("a h 1\nb H 1", Err("line 2: host \"H\" with port 1 is also in line 1"));
        check("a h,g 1,2\nb i 1\nc g 2 arbiter", Err("line 3: host \"g\" with port 2"));
    }

    proptest! {
        #[test]
        fn junk_never_panics(text in "(?s).{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn words_never_panic(text in "([a-z0-9.:,#\\[\\]%-]{0,8}[ \n]){0,12}") {
            let _ = parse(&text);
        }
    }
}
