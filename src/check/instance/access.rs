//! Findings of who is let in: the controller, the other server's instance and its rebuild, and whom else.

use super::super::{Entry, Facts as Server, Finding};
use super::facts::{Facts, Trial};
use super::hba::{self, Met, Rule, Wanted};
use super::{addresses_of_other, set};
use crate::pg::hba::{Database, includes, line};

/// So many rules are shown in one finding.
const SHOWN: usize = 3;

pub(super) const SESSION_REFUSED: Entry = Entry::error(
    "session-refused",
    "The instance rejects the controller's connection: check pg_hba.conf, the role, its password, target_db, and the number of \
     clients. Until the controller can connect, it cannot monitor the instance and does not switch.",
);
pub(super) const INSTANCE_NOT_RESPONDING: Entry =
    Entry::error("instance-not-responding", "The instance runs but does not respond within the time limit.");
pub(super) const NOT_SUPERUSER: Entry = Entry::error(
    "not-superuser",
    "db_instance_username must be a superuser: the controller reads the state of replication and waiting sessions, makes \
     checkpoints, and runs pg_rewind.",
);
pub(super) const ROLE_LIMITS: Entry = Entry::notice(
    "role-limits",
    "The role of the controller has a time limit or is read-only by default. The controller's sessions override most of these \
     settings, but a time limit may end a program that a rebuild runs.",
);
pub(super) const LISTEN_ADDRESSES: Entry = Entry::error(
    "listen-addresses",
    "The instance does not listen on client_address or on replication_address, so that clients or the other server's instance \
     cannot connect to it.",
);
pub(super) const HBA_ERRORS: Entry =
    Entry::error("hba-errors", "pg_hba.conf contains an error: a reload has no effect, and a start fails.");
pub(super) const HBA_REPLICATION: Entry = Entry::error(
    "hba-replication",
    "pg_hba.conf rejects replication connections from the other server's instance: it cannot follow when this server is the \
     primary. The first matching rule decides. Both servers need the rule.",
);
pub(super) const HBA_REBUILD: Entry = Entry::error(
    "hba-rebuild",
    "pg_hba.conf rejects connections of the other server's controller to target_db as db_instance_username: \"mc_ctl rebuild\" \
     on that server fails when this server is the primary.",
);
pub(super) const HBA_PASSWORD: Entry = Entry::error(
    "hba-password",
    "pg_hba.conf requires a password from the other server, where none is configured: for replication in primary_conninfo or a \
     password file with mode 0600, for a rebuild in db_instance_password.",
);
pub(super) const HBA_TRUST: Entry = Entry::warning(
    "hba-trust",
    "A rule of pg_hba.conf accepts connections from the network without authentication. Any client that may replicate may also \
     acknowledge commits in place of the standby.",
);
pub(super) const HBA_CLIENTS: Entry = Entry::warning(
    "hba-clients",
    "pg_hba.conf of the other server accepts clients by rules that this server's file does not contain: after a switch, this \
     server would reject these clients. Each server has its own pg_hba.conf.",
);
pub(super) const REBUILD_SESSION: Entry = Entry::error(
    "rebuild-session",
    "The primary rejected a test of the connection that \"mc_ctl rebuild\" opens to it.",
);

pub(super) fn examine(server: &Server, other: Option<&Server>, found: &mut Vec<Finding>) {
    let (id, facts) = (&server.id, &server.instance);
    let own = &facts.own;
    if let Some(why) = &facts.refused {
        let fix = format!(
            "correct db_instance_username, db_instance_password or target_db in \"{}/{id}.conf\", or \"{}\"",
            own.dir, facts.files.hba_file
        );
        found.push(SESSION_REFUSED.found(id, why, fix));
    }
    if facts.silent {
        let what = "the instance runs but does not respond within the time limit";
        found.push(INSTANCE_NOT_RESPONDING.found(id, what, "check its disk and its log: mc_ctl status, ps"));
    }
    if facts.told.as_ref().is_some_and(|told| !told.superuser) {
        let what = format!("role \"{}\", as which the controller connects, is not a superuser", own.user);
        found.push(NOT_SUPERUSER.found(id, what, format!("on the primary: ALTER ROLE \"{}\" SUPERUSER", own.user)));
    }
    role_limits(server, found);
    listening(server, found);
    for rule in facts.hba().iter().filter(|rule| !rule.error.is_empty()) {
        let fix = "correct the line, and reload: psql -c \"SELECT pg_reload_conf()\"";
        found.push(HBA_ERRORS.found(id, &rule.error, fix).at(&rule.file, rule.line));
    }
    for rule in facts.hba().iter().filter(|rule| rule.trusts_the_network()) {
        let what = format!("a rule accepts any client without authentication: \"{}\"", rule.text());
        let fix = "write scram-sha-256 in place of trust, give the roles passwords, and reload";
        found.push(HBA_TRUST.found(id, what, fix).at(&rule.file, rule.line));
    }
    if let Some(Trial::Refused(why)) = &facts.rebuild_session {
        let what = format!("the primary rejects the connection of a rebuild: {why}");
        let fix = format!("correct db_instance_password in \"{}/{id}.conf\", or pg_hba.conf on {}", own.dir, own.peer);
        found.push(REBUILD_SESSION.found(id, what, fix));
    }
    let_in(server, other, found);
    if let Some(other) = other.filter(|other| other.instance.own.no_data.is_none()) {
        clients(server, other, found);
    }
}

fn role_limits(server: &Server, found: &mut Vec<Finding>) {
    let Some(told) = &server.instance.told else { return };
    let own = &server.instance.own;
    let unlimited = |value: &str| ["0", "off", "false", "no"].contains(&value);
    for row in told.role_settings.iter().filter(|row| row.name != "synchronous_commit" && !unlimited(&row.value)) {
        let ours = row.role == own.user || row.role.is_empty() && row.database == own.target_db;
        if ours {
            let scope = if row.role.is_empty() { "database" } else { "role" };
            let name = if row.role.is_empty() { &row.database } else { &row.role };
            let what = format!("{} is {} for {scope} \"{name}\", which the controller uses", row.name, row.value);
            let fix = format!("on the primary: ALTER {} \"{name}\" RESET {}", scope.to_uppercase(), row.name);
            found.push(ROLE_LIMITS.found(&server.id, what, fix));
        }
    }
}

fn listening(server: &Server, found: &mut Vec<Finding>) {
    let facts = &server.instance;
    let setting = facts.setting("listen_addresses");
    let given: Vec<&str> = setting.value.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    for (key, host, addresses) in [
        ("client_address", &facts.own.client_address, &facts.files.client_addresses),
        ("replication_address", &facts.own.replication_address, &facts.files.replication_addresses),
    ] {
        let covers = |word: &&str| match *word {
            "*" => true,
            "0.0.0.0" => addresses.iter().any(|address| !address.contains(':')),
            "::" => addresses.iter().any(|address| address.contains(':')),
            word => word == host || addresses.iter().any(|address| address == word),
        };
        // Other names would have to be resolved; only what can be told is said.
        let names =
            given.iter().any(|word| word.parse::<std::net::IpAddr>().is_err() && !["*", "localhost"].contains(word));
        if given.iter().any(covers) || names || addresses.is_empty() {
            continue;
        }
        if key == "replication_address" && facts.own.client_address == *host {
            continue;
        }
        let what = format!("listen_addresses is \"{}\" and does not cover {key} {host}", setting.value);
        let fix = set(facts, "listen_addresses", "*", true);
        found.push(LISTEN_ADDRESSES.found(&server.id, what, fix).at(&setting.file, setting.line));
    }
}

/// Whether `pg_hba.conf` of this server lets the other one in.
fn let_in(server: &Server, other: Option<&Server>, found: &mut Vec<Finding>) {
    let (id, facts) = (&server.id, &server.instance);
    let own = &facts.own;
    let rules = facts.hba();
    // The name by which the other one connects for replication is its own file's; before there is one, ours.
    let upstream = other.and_then(|other| other.instance.files.upstream.as_ref());
    let replicator = upstream.map(|upstream| upstream.user.as_str()).filter(|user| !user.is_empty());
    let (peer_user, peer_db, peer_password) = match other {
        Some(other) => {
            let peer = &other.instance.own;
            (peer.user.as_str(), peer.target_db.as_str(), Some(peer.password))
        }
        None => (own.user.as_str(), own.target_db.as_str(), None),
    };
    for address in addresses_of_other(facts, other).iter().filter_map(|address| address.parse().ok()) {
        let wanted = |replication: bool| Wanted {
            replication,
            database: peer_db,
            user: if replication { replicator.unwrap_or(peer_user) } else { peer_user },
            address,
            host: &own.peer_host,
            tls: facts.value("ssl") == "on",
        };
        for (entry, replication) in [(HBA_REPLICATION, true), (HBA_REBUILD, false)] {
            let wanted = wanted(replication);
            let tried =
                !replication && other.is_some_and(|other| other.instance.rebuild_session == Some(Trial::Opened));
            match hba::meets(rules, &wanted) {
                Met::Rule(rule) if rule.method == "reject" => {
                    found.push(refused(&entry, id, &own.peer, &wanted, Some(rule), facts));
                }
                Met::Rule(rule)
                    if !rule.asks_for_password()
                        && !["trust", "cert"].contains(&rule.method.as_str())
                        && !replication =>
                {
                    found.push(refused(&entry, id, &own.peer, &wanted, Some(rule), facts));
                }
                Met::Rule(rule) if rule.asks_for_password() => {
                    let has = if replication { upstream.map(|upstream| upstream.password) } else { peer_password };
                    if has == Some(false) {
                        found.push(no_password(id, &own.peer, replication, rule));
                    }
                }
                Met::None if !tried => found.push(refused(&entry, id, &own.peer, &wanted, None, facts)),
                _ => {}
            }
        }
    }
}

/// Whether this server lets in the clients that the other one lets in.
fn clients(server: &Server, other: &Server, found: &mut Vec<Finding>) {
    let facts = &server.instance;
    let rules = facts.hba();
    // What cannot be read is told elsewhere.
    if rules.is_empty() {
        return;
    }
    let of_the_pair = |rule: &Rule| {
        [facts, &other.instance].into_iter().any(|facts| {
            let own = [&facts.own.host, &facts.own.client_address, &facts.own.replication_address].into_iter();
            let mut all = own.chain(&facts.files.client_addresses).chain(&facts.files.replication_addresses);
            all.any(|address| includes(address, &rule.address))
        })
    };
    let missing: Vec<String> = other
        .instance
        .hba()
        .iter()
        .filter(|rule| rule.lets_clients_in() && !of_the_pair(rule))
        .filter(|rule| !rules.iter().any(|own| own.lets_in_those_of(rule)))
        .map(|rule| format!("\"{}\" (line {} there)", rule.text(), rule.line))
        .collect();
    if missing.is_empty() {
        return;
    }
    let more = if missing.len() > SHOWN { format!(" and {} more", missing.len() - SHOWN) } else { String::new() };
    let shown = missing.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    let what = format!("this server would reject clients after a switch that {} accepts: {shown}{more}", other.id);
    let fix = format!("on \"{}\": write these lines too, and reload: psql -c \"SELECT pg_reload_conf()\"", server.id);
    found.push(HBA_CLIENTS.found(&server.id, what, fix).at(facts.hba_file(), 0));
}

fn refused(entry: &Entry, id: &str, peer: &str, wanted: &Wanted<'_>, rule: Option<&Rule>, facts: &Facts) -> Finding {
    let Wanted { replication, database, user, address, .. } = wanted;
    let database = if *replication { Database::Replication } else { Database::Named(database) };
    let why = match rule {
        Some(rule) => format!("\"{}\" decides", rule.text()),
        None => "no rule applies".to_owned(),
    };
    let how = if *replication { "for replication" } else { "for a rebuild" };
    let what = format!("a connection of {peer} {how} as \"{user}\" from {address} is rejected: {why}");
    let line = line(database, user, *address);
    let at = rule.map_or((facts.hba_file(), 0), |rule| (rule.file.as_str(), rule.line));
    let where_to = if rule.is_some() { "above that line" } else { "at the end" };
    let fix = format!("write {where_to}: {line} - on both servers, and reload");
    entry.found(id, what, fix).at(at.0, at.1)
}

fn no_password(id: &str, peer: &str, replication: bool, rule: &Rule) -> Finding {
    let (what, fix) = match replication {
        true => (
            format!(
                "\"{}\" requires a password from {peer} for replication, and none is configured there",
                rule.text()
            ),
            format!(
                "on {peer}: set db_instance_password and mc_ctl rebuild, or add password or passfile to primary_conninfo"
            ),
        ),
        false => (
            format!(
                "\"{}\" requires a password from {peer} for a rebuild, and db_instance_password is not set there",
                rule.text()
            ),
            format!("set db_instance_password in {peer}.conf on {peer}"),
        ),
    };
    HBA_PASSWORD.found(id, what, fix).at(&rule.file, rule.line)
}
