//! `pg_hba.conf`: its rules, and which of them a connection meets. Pure but for the files that are included.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::Path;

/// So many rules are read.
pub(super) const MAX_RULES: usize = 500;
/// How deep includes may nest; PostgreSQL's own limit.
const MAX_DEPTH: u32 = 10;
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
    /// The netmask, where it is given by itself.
    pub netmask: String,
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
    /// It may use TLS.
    pub tls: bool,
    /// It may do without.
    pub plain: bool,
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
    let ways = [(wanted.tls, true), (wanted.plain, false)].into_iter().filter(|(may, _)| *may).map(|(_, tls)| tls);
    let mut last = Met::None;
    for tls in ways {
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
    match range(rule) {
        Some((net, bits)) => yes(within(net, bits, wanted.address)),
        // A host name: PostgreSQL resolves it.
        None if rule.address == wanted.host => Applies::Yes,
        None => Applies::Perhaps,
    }
}

/// The network of a rule: its address, and how many of its bits count. `None` for a name.
fn range(rule: &Rule) -> Option<(IpAddr, u32)> {
    let (address, bits) = match rule.address.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse().ok()?)),
        None => (rule.address.as_str(), None),
    };
    let address: IpAddr = address.parse().ok()?;
    let mask = rule.netmask.parse::<IpAddr>().ok().map(|mask| match mask {
        IpAddr::V4(mask) => mask.to_bits().leading_ones(),
        IpAddr::V6(mask) => mask.to_bits().leading_ones(),
    });
    let whole = if address.is_ipv4() { 32 } else { 128 };
    Some((address, bits.or(mask).unwrap_or(whole)))
}

fn within(net: IpAddr, bits: u32, address: IpAddr) -> bool {
    match (net, address) {
        (IpAddr::V4(net), IpAddr::V4(address)) => {
            let mask = u32::MAX.checked_shl(32 - bits.min(32)).unwrap_or(0);
            net.to_bits() & mask == address.to_bits() & mask
        }
        (IpAddr::V6(net), IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(128 - bits.min(128)).unwrap_or(0);
            net.to_bits() & mask == address.to_bits() & mask
        }
        _ => false,
    }
}

impl Rule {
    /// It lets somebody in from the network without any authentication.
    pub(super) fn trusts_the_network(&self) -> bool {
        let loopback = match range(self) {
            Some((IpAddr::V4(net), bits)) => net.is_loopback() && bits >= 8,
            Some((net, bits)) => net.is_loopback() && bits == 128,
            None => ["samehost", "localhost"].contains(&self.address.as_str()),
        };
        self.error.is_empty() && self.kind.starts_with("host") && self.method == "trust" && !loopback
    }

    /// Its method asks for a password.
    pub(super) fn asks_for_password(&self) -> bool {
        ["scram-sha-256", "md5", "password"].contains(&self.method.as_str())
    }

    /// As it may stand in the file.
    pub(super) fn text(&self) -> String {
        let words =
            [&self.kind, &self.databases.join(","), &self.users.join(","), &self.address, &self.netmask, &self.method];
        words.into_iter().filter(|word| !word.is_empty()).cloned().collect::<Vec<_>>().join(" ")
    }
}

// ------------------------------------------------------------------------------------------------------------ parsing

/// The rules of a file's text, as PostgreSQL reads it (`hba.c`); included files are read. What is wrong with a line is said in
/// it.
pub(super) fn parse(file: &Path, text: &str, major: u32) -> Vec<Rule> {
    let mut rules = Vec::new();
    parse_into(&mut rules, file, text, major, 0);
    rules.truncate(MAX_RULES);
    rules
}

fn parse_into(rules: &mut Vec<Rule>, file: &Path, text: &str, major: u32, depth: u32) {
    let mut lines = text.lines().zip(1u32..);
    while let Some((line, number)) = lines.next() {
        let mut line = line.to_owned();
        // 14 brought continuation lines.
        while major >= 14 && line.ends_with('\\') {
            line.pop();
            match lines.next() {
                Some((more, _)) => line += more,
                None => break,
            }
        }
        let words = tokens(&line);
        let Some(first) = words.first().and_then(|list| list.first()) else { continue };
        if major >= 16 && first.starts_with("include") && depth < MAX_DEPTH {
            include(rules, file, &words, major, depth);
            continue;
        }
        rules.push(Rule { file: file.display().to_string(), line: number, ..rule(&words) });
        if rules.len() > MAX_RULES {
            return;
        }
    }
}

fn include(rules: &mut Vec<Rule>, file: &Path, words: &[Vec<String>], major: u32, depth: u32) {
    let Some(name) = words.get(1).and_then(|list| list.first()) else { return };
    let target = file.parent().unwrap_or(Path::new("/")).join(name);
    let files = if words[0][0] == "include_dir" { crate::pg::conf::conf_files(&target) } else { vec![target] };
    for file in files {
        if let Ok(text) = std::fs::read_to_string(&file) {
            parse_into(rules, &file, &text, major, depth + 1);
        }
    }
}

fn rule(words: &[Vec<String>]) -> Rule {
    let one = |index: usize| words.get(index).and_then(|list| list.first()).cloned().unwrap_or_default();
    let list = |index: usize| words.get(index).cloned().unwrap_or_default();
    let kind = one(0);
    let bad = |error: &str| Rule { kind: one(0), error: error.to_owned(), ..Rule::default() };
    if !["local", "host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc"].contains(&kind.as_str()) {
        return bad(&format!("invalid connection type \"{kind}\""));
    }
    let (mut at, mut address, mut netmask) = (3, String::new(), String::new());
    if kind != "local" {
        (at, address) = (4, one(3));
        // An address without a mask is followed by one.
        if !address.contains('/') && address.parse::<IpAddr>().is_ok() {
            (at, netmask) = (5, one(4));
            if netmask.parse::<IpAddr>().is_err() {
                return bad("an address must be followed by a netmask, or have one (192.0.2.1/32)");
            }
        }
        if let Some((net, bits)) = address.split_once('/')
            && (net.parse::<IpAddr>().is_err() || bits.parse::<u32>().is_err())
        {
            return bad(&format!("invalid address \"{address}\""));
        }
    }
    let method = one(at);
    if !METHODS.contains(&method.as_str()) {
        let what = if method.is_empty() {
            "end-of-line before the authentication method"
        } else {
            "invalid authentication method"
        };
        return bad(&format!("{what} {}", if method.is_empty() { String::new() } else { format!("\"{method}\"") })
            .trim()
            .to_owned());
    }
    Rule { kind, databases: list(1), users: list(2), address, netmask, method, ..Rule::default() }
}

/// The fields of a line, each a list separated by commas. Quotes keep white space, and take a word's meaning away; that is not
/// told apart here.
fn tokens(line: &str) -> Vec<Vec<String>> {
    let mut fields: Vec<Vec<String>> = Vec::new();
    let (mut word, mut begun, mut quoted, mut joined) = (String::new(), false, false, false);
    let mut end = |word: &mut String, begun: &mut bool, joined: &mut bool| {
        if *begun {
            match fields.last_mut() {
                Some(list) if *joined => list.push(std::mem::take(word)),
                _ => fields.push(vec![std::mem::take(word)]),
            }
            (*begun, *joined) = (false, false);
        }
    };
    for c in line.chars() {
        match c {
            '"' => (quoted, begun) = (!quoted, true),
            '#' if !quoted => break,
            ',' if !quoted => {
                end(&mut word, &mut begun, &mut joined);
                joined = true;
            }
            c if c.is_whitespace() && !quoted => end(&mut word, &mut begun, &mut joined),
            c => {
                word.push(c);
                begun = true;
            }
        }
    }
    end(&mut word, &mut begun, &mut joined);
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<Rule> {
        parse(Path::new("/d/pg_hba.conf"), text, 15)
    }

    fn wanted(replication: bool, address: &str) -> Wanted<'_> {
        let address = address.parse().unwrap();
        Wanted { replication, database: "postgres", user: "mc", address, host: "nd2", tls: false, plain: true }
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
        assert_eq!(error("hots all all all md5"), "invalid connection type \"hots\"");
        assert_eq!(error("host all all all sha"), "invalid authentication method \"sha\"");
        assert_eq!(error("host all all all"), "end-of-line before the authentication method");
        assert!(error("host all all 192.0.2.1 md5").starts_with("an address must be followed"));
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
