//! Rules of `pg_hba.conf` as facts, and which of them a connection meets, as far as that can be told from outside: unlike
//! [`crate::pg::hba::first_match`], this has a third answer where a name or a group decides.

use crate::pg::hba;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::Path;

/// So many rules are read.
pub(super) const MAX_RULES: usize = 500;
/// Authentication methods.
const METHODS: [&str; 15] = [
    "trust",
    "reject",
    "scram-sha-256",
    "md5",
    "password",
    "gss",
    "sspi",
    "ident",
    "peer",
    "ldap",
    "radius",
    "cert",
    "pam",
    "bsd",
    "oauth",
];

/// One rule.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// `local`, `host`, `hostssl`, `hostnossl`, …
    pub kind: String,
    /// Databases.
    pub databases: Vec<String>,
    /// Roles.
    pub users: Vec<String>,
    /// Address, with its mask where it has one (`192.0.2.0/24`); a name; `all`, `samehost`, `samenet`. Empty for `local`.
    pub address: String,
    /// Authentication method.
    pub method: String,
    /// What is wrong with the line; empty for nothing.
    pub error: String,
}

/// A connection that is to be let in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wanted<'a> {
    /// A replication connection, not one to `database`.
    pub replication: bool,
    pub database: &'a str,
    pub user: &'a str,
    /// From where.
    pub address: IpAddr,
    /// The host's name, where it has one.
    pub host: &'a str,
    /// It may use TLS, and may do without.
    pub tls: bool,
}

/// What a connection meets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Met<'a> {
    /// This rule.
    Rule(&'a Rule),
    /// None: it is refused.
    None,
    /// A rule whose address is a name, or a role's group, decides: that cannot be told from here.
    Unclear,
}

/// Whether something applies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Applies {
    Yes,
    No,
    Perhaps,
}

/// The rule that decides about a connection: the first that applies. A server without TLS passes `hostssl` rules over, and a
/// client that may use it tries both ways.
pub(super) fn meets<'a>(rules: &'a [Rule], wanted: &Wanted<'_>) -> Met<'a> {
    let ways: &[bool] = if wanted.tls { &[true, false] } else { &[false] };
    let mut last = Met::None;
    for &tls in ways {
        match first(rules, wanted, tls) {
            Met::Rule(rule) if rule.method != "reject" => return Met::Rule(rule),
            Met::None if last != Met::None => {}
            other => last = other,
        }
    }
    last
}

fn first<'a>(rules: &'a [Rule], wanted: &Wanted<'_>, tls: bool) -> Met<'a> {
    for rule in rules.iter().filter(|rule| rule.error.is_empty()) {
        let kind = match rule.kind.as_str() {
            "host" | "hostnogssenc" => Applies::Yes,
            "hostssl" if tls => Applies::Yes,
            "hostnossl" if !tls => Applies::Yes,
            _ => Applies::No,
        };
        let all = [kind, database(rule, wanted), user(rule, wanted), address(rule, wanted)];
        if all.contains(&Applies::No) {
            continue;
        }
        return if all.contains(&Applies::Perhaps) { Met::Unclear } else { Met::Rule(rule) };
    }
    Met::None
}

/// `Yes` where one says so, else `Perhaps` where one cannot be told.
fn any(each: impl Iterator<Item = Applies>) -> Applies {
    each.fold(Applies::No, |all, one| match (all, one) {
        (Applies::Yes, _) | (_, Applies::Yes) => Applies::Yes,
        (Applies::Perhaps, _) | (_, Applies::Perhaps) => Applies::Perhaps,
        _ => Applies::No,
    })
}

fn yes(is: bool) -> Applies {
    if is { Applies::Yes } else { Applies::No }
}

fn database(rule: &Rule, wanted: &Wanted<'_>) -> Applies {
    any(rule.databases.iter().map(|name| match name.as_str() {
        "replication" => yes(wanted.replication),
        _ if wanted.replication => Applies::No,
        "all" => Applies::Yes,
        "sameuser" => yes(wanted.database == wanted.user),
        "samerole" | "samegroup" => Applies::Perhaps,
        name if name.starts_with(['/', '@']) => Applies::Perhaps,
        name => yes(name == wanted.database),
    }))
}

fn user(rule: &Rule, wanted: &Wanted<'_>) -> Applies {
    any(rule.users.iter().map(|name| match name.as_str() {
        "all" => Applies::Yes,
        name if name.starts_with(['/', '@', '+']) => Applies::Perhaps,
        name => yes(name == wanted.user),
    }))
}

fn address(rule: &Rule, wanted: &Wanted<'_>) -> Applies {
    match rule.address.as_str() {
        "all" => return Applies::Yes,
        "samehost" | "samenet" => return Applies::Perhaps,
        _ => {}
    }
    match network(rule) {
        Some(_) => yes(hba::covers(&rule.address, wanted.address)),
        // A host name: PostgreSQL resolves it.
        None if rule.address == wanted.host => Applies::Yes,
        None => Applies::Perhaps,
    }
}

/// The address of a rule without its mask; `None` for a name.
fn network(rule: &Rule) -> Option<IpAddr> {
    rule.address.split('/').next()?.parse().ok()
}

impl Rule {
    /// It lets somebody in from the network without any authentication.
    pub(super) fn trusts_the_network(&self) -> bool {
        self.lets_in_from_the_network() && self.method == "trust"
    }

    /// It lets somebody in from the network.
    fn lets_in_from_the_network(&self) -> bool {
        // 192.0.2.1 and 2001:db8::1, which are nobody's.
        let far = ["192.0.2.1", "2001:db8::1"].iter().filter_map(|address| address.parse().ok());
        let loopback = match network(self) {
            Some(net) => net.is_loopback() && !far.into_iter().any(|far| hba::covers(&self.address, far)),
            None => ["samehost", "localhost"].contains(&self.address.as_str()),
        };
        self.error.is_empty() && self.kind.starts_with("host") && self.method != "reject" && !loopback
    }

    /// It lets clients in from the network.
    pub(super) fn lets_clients_in(&self) -> bool {
        self.lets_in_from_the_network() && self.databases.iter().any(|name| name != "replication")
    }

    /// It lets in all the clients that another rule does; by whatever method, and if no rule above it decides.
    pub(super) fn lets_in_those_of(&self, other: &Rule) -> bool {
        let names = |own: &[String], others: &[String]| {
            let all = own.iter().any(|name| name == "all");
            others.iter().all(|name| all || name == "replication" || own.contains(name))
        };
        self.lets_clients_in()
            && (self.kind == "host" || self.kind == other.kind)
            && names(&self.databases, &other.databases)
            && names(&self.users, &other.users)
            && hba::includes(&self.address, &other.address)
    }

    /// Its method asks for a password.
    pub(super) fn asks_for_password(&self) -> bool {
        ["scram-sha-256", "md5", "password"].contains(&self.method.as_str())
    }

    /// As it may stand in the file.
    pub(super) fn text(&self) -> String {
        let address = written(&self.address);
        let words = [&self.kind, &self.databases.join(","), &self.users.join(","), &address, &self.method];
        words.into_iter().filter(|word| !word.is_empty()).cloned().collect::<Vec<_>>().join(" ")
    }
}

/// An address as the file accepts it: a netmask such as 255.255.255.0, which the instance reports, stands in a field of its
/// own.
fn written(address: &str) -> String {
    match address.split_once('/') {
        Some((net, mask)) if mask.parse::<IpAddr>().is_ok() => format!("{net} {mask}"),
        _ => address.to_owned(),
    }
}

/// The rules of a file and of what it includes; what is wrong with a line is said in it. None where it cannot be read.
pub(super) fn read(file: &Path) -> Vec<Rule> {
    let Ok((rules, broken)) = hba::read_all(file) else { return Vec::new() };
    let line = |line: usize| u32::try_from(line).unwrap_or(0);
    let texts = |words: Vec<hba::Word>| words.into_iter().map(|word| word.text).collect();
    let mut found: Vec<Rule> = Vec::new();
    for (file, number) in broken {
        let error =
            "the line is not a rule: connection type, databases, users, address and method are required".to_owned();
        found.push(Rule { file: file.display().to_string(), line: line(number), error, ..Rule::default() });
    }
    for rule in rules {
        found.push(Rule {
            file: rule.file.display().to_string(),
            line: line(rule.line),
            error: error_in(&rule),
            kind: rule.kind,
            databases: texts(rule.databases),
            users: texts(rule.users),
            address: rule.address,
            method: rule.method,
        });
    }
    found.truncate(MAX_RULES);
    found
}

fn error_in(rule: &hba::Rule) -> String {
    if !METHODS.contains(&rule.method.as_str()) {
        return format!("invalid authentication method \"{}\"", rule.method);
    }
    match rule.address.split_once('/') {
        Some((net, mask))
            if net.parse::<IpAddr>().is_err() || mask.parse::<u32>().is_err() && mask.parse::<IpAddr>().is_err() =>
        {
            format!("invalid address \"{}\"", rule.address)
        }
        None if rule.address.parse::<IpAddr>().is_ok() => {
            format!("address \"{}\" has no mask (such as {}/32)", rule.address, rule.address)
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<Rule> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pg_hba.conf");
        std::fs::write(&file, text).unwrap();
        read(&file)
    }

    fn wanted(replication: bool, address: &str) -> Wanted<'_> {
        let address = address.parse().unwrap();
        Wanted { replication, database: "postgres", user: "mc", address, host: "nd2", tls: false }
    }

    #[track_caller]
    fn check(text: &str, wanted: &Wanted<'_>, line: Option<u32>) {
        let rules = rules(text);
        let met = match meets(&rules, wanted) {
            Met::Rule(rule) => Some(rule.line),
            Met::None => None,
            Met::Unclear => Some(0),
        };
        assert_eq!(met, line, "{text}");
    }

    #[test]
    fn a_rule_that_is_shown_can_be_written_into_the_file() {
        for address in ["192.0.2.7/255.255.255.255", "192.0.2.0/24", "2001:db8::/ffff:ffff::", "nd2", "samenet", "all"]
        {
            let rule = Rule { address: address.to_owned(), ..rules("host postgres app all md5").remove(0) };
            let again = rules(&rule.text());
            assert_eq!(again.len(), 1, "{}", rule.text());
            assert_eq!(
                (&*again[0].error, &*again[0].address, &*again[0].method),
                ("", address, "md5"),
                "{}",
                rule.text()
            );
        }
        let rule = Rule { address: "192.0.2.7/255.255.255.255".to_owned(), ..rules("host a b all md5").remove(0) };
        assert_eq!(rule.text(), "host a b 192.0.2.7 255.255.255.255 md5");
    }

    #[test]
    fn the_first_rule_that_applies_decides() {
        let (query, replication) = (wanted(false, "192.0.2.110"), wanted(true, "192.0.2.110"));
        check("host all all 192.0.2.0/24 md5", &query, Some(1));
        check("host all all 192.0.2.0/24 md5", &replication, None);
        check("local all all trust\n# x\nhost replication mc 192.0.2.110 255.255.255.255 md5", &replication, Some(3));
        check("host all all 192.0.2.111/32 md5\nhost postgres,x \"mc\" all md5", &query, Some(2));
        check("host all all 192.0.2.110/32 reject\nhost all all all md5", &query, Some(1));
        check("hostssl all all all md5", &query, None);
        check("hostssl all all all md5", &Wanted { tls: true, ..query.clone() }, Some(1));
        check("hostssl all all all reject\nhost all all all md5", &Wanted { tls: true, ..query.clone() }, Some(2));
        check("hostnossl all all all md5", &query, Some(1));
        check("host all +admins all md5", &query, Some(0));
        check("host all all nd2 md5", &query, Some(1));
        check("host all all other.example md5", &query, Some(0));
        check("host sameuser all all md5", &query, None);
        check("host all all ::/0 md5", &query, None);
        check("host all all ::/0 md5", &wanted(false, "2001:db8::2"), Some(1));
        check("host all all 0.0.0.0/0 md5", &query, Some(1));
        check("host all all \\\n all md5", &query, Some(1));
        check("", &query, None);
    }

    #[test]
    fn errors_are_said_with_their_line() {
        let error = |text: &str| rules(text).into_iter().map(|rule| rule.error).collect::<Vec<_>>().join("|");
        assert_eq!(error("host all all 192.0.2.1/32 md5 x=y"), "");
        assert!(error("hots all all all md5").starts_with("the line is not a rule"));
        assert_eq!(error("host all all all sha"), "invalid authentication method \"sha\"");
        assert!(error("host all all all").starts_with("the line is not a rule"));
        assert!(error("host all all 192.0.2.1 md5").contains("has no mask"));
        assert_eq!(error("host all all 192.0.2/24 md5"), "invalid address \"192.0.2/24\"");
    }

    #[test]
    fn trust_from_the_network() {
        let trusts = |text: &str| rules(text)[0].trusts_the_network();
        assert!(trusts("host all all 192.0.2.0/24 trust"));
        assert!(trusts("hostssl all all all trust"));
        assert!(trusts("host all all 127.0.0.0/0 trust"));
        assert!(!trusts("host all all 127.0.0.1/32 trust"));
        assert!(!trusts("host all all ::1/128 trust"));
        assert!(!trusts("local all all trust"));
        assert!(!trusts("host all all 192.0.2.0/24 md5"));
    }
}
