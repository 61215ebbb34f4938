//! The machine: files that must agree, free space, ports, services that start an instance, clocks, versions of the programs.
//!
//! [`Facts`] and what is wrong with them; `services` reads the service managers' files, `disk` the file systems. What could
//! hang is read on a thread that is left behind at the time limit, and is then a finding.

mod disk;
mod services;
pub mod unit;

pub use disk::{Disk, hindrances};
pub use services::{Autostart, RemoveIpc, Unit};

use super::pace::Timing;
use super::{Entry, Finding, Seen};
use crate::config::{self, Config};
use crate::error::Error;
use crate::fsm::event::OnSilence;
use crate::pg::bounded::{self, Cancel};
use crate::pg::{Place, commands, conf, process, version};
use serde::{Deserialize, Serialize};
use snow::params::HashChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use std::collections::BTreeSet;
use std::net::{IpAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

/// What there can be found here.
#[rustfmt::skip]
pub const CATALOGUE: &[Entry] = &[
    REFUSED_CONFIGURATION, NETWORK_CONF_DIFFERS, KEY_DIFFERS, NO_MEMBER_KEYS, ISOLATED_PRIMARY_WAITS,
    ERROR_ACTION_DIFFERS, HEARTBEAT_TIMES_DIFFER,
    RESTART_NEEDED, VERSIONS_DIFFER, CLOCK_OFFSET, NAME_UNRESOLVED, NAME_DIFFERS, SHARED_HOST, INSTANCE_PORT,
    TOOL_MISSING, TOOL_VERSION,
    disk::DISK_NOT_READABLE, disk::DISK_FULL, disk::DISK_SPACE, disk::BACKUP_SPACE, disk::UNSUITABLE_FILE_SYSTEM, disk::REBUILD_PREVENTED,
    services::AUTOSTART, services::NOT_STARTED_AT_BOOT, services::UNIT_KILL_MODE, services::UNIT_RESTART, services::REMOVE_IPC, OOM_KILLER,
];

/// Clocks further apart than this are a finding, ms.
const CLOCKS_MS: u64 = 1000;

/// What a rebuild needs besides what a start does; all of the instance's version, in `bin_dir`.
const TOOLS: [&str; 5] = ["postgres", "pg_ctl", "pg_controldata", "pg_rewind", "pg_basebackup"];

/// How long one thing may take to be read; less where the deadline is nearer.
const LIMIT: Duration = Duration::from_secs(5);

const REFUSED_CONFIGURATION: Entry = Entry::error(
    "refused-configuration",
    "The controller of the other server is running, but its files have changed since its start, and its next start will fail.",
);
const NETWORK_CONF_DIFFERS: Entry = Entry::error(
    "network-conf-differs",
    "network.conf differs between the servers: after the next start of a controller they cannot connect to each other.",
);
const KEY_DIFFERS: Entry = Entry::error(
    "key-differs",
    "mc.key differs between the servers: after the next start of a controller they reject each other's connections.",
);
const NO_MEMBER_KEYS: Entry = Entry::notice(
    "no-member-keys",
    "network.conf lists no keys of the members: a program that has read mc.key on any of the hosts, the arbiter's included, \
     can act as a server.",
);
const ISOLATED_PRIMARY_WAITS: Entry = Entry::notice(
    "isolated-primary-waits",
    "heartbeat_error_action is 'switch' and isolated_primary_action is 'wait': if only the link between the servers fails, the \
     old primary continues to accept connections, and clients that reach it do not connect to the new primary.",
);
const ERROR_ACTION_DIFFERS: Entry = Entry::error(
    "error-action-differs",
    "heartbeat_error_action differs between the servers. What a server does when the other server does not respond is safe \
     only if both follow the same rule.",
);
const HEARTBEAT_TIMES_DIFFER: Entry = Entry::warning(
    "heartbeat-times-differ",
    "heartbeat_interval, _timeout or _retry differ between the servers: one server considers the other failed earlier than the \
     reverse.",
);
const RESTART_NEEDED: Entry = Entry::notice(
    "restart-needed",
    "A file of the management directory has changed, and the controller does not use the change yet. \"mc_ctl reload\" applies \
     the parameters of ID.conf that can change while the controller runs. Every other change requires a restart of the \
     controller.",
);
const VERSIONS_DIFFER: Entry = Entry::notice(
    "versions-differ",
    "The programs of the servers and the arbiter, or a running controller and its program, have different versions. Adjacent \
     versions work together for the duration of an update.",
);
const CLOCK_OFFSET: Entry = Entry::warning(
    "clock-offset",
    "The clocks of the two hosts are more than 1 s apart. No decision depends on them, but the times in logs, history and data \
     are inconsistent.",
);
const NAME_UNRESOLVED: Entry = Entry::error(
    "name-unresolved",
    "A server cannot resolve a host name in network.conf, or its name service does not respond.",
);
const NAME_DIFFERS: Entry = Entry::warning(
    "name-differs",
    "A host name in network.conf resolves to different addresses on the servers: one of them listens on an address to which no \
     member connects.",
);
const SHARED_HOST: Entry = Entry::notice(
    "shared-host",
    "Two members of network.conf are on the same host, so that a failure of that host stops both.",
);
const INSTANCE_PORT: Entry = Entry::notice(
    "instance-port",
    "The port of the instance is in the range that the system assigns to any program: another program may use it when the \
     instance starts.",
);
const TOOL_MISSING: Entry =
    Entry::error("tool-missing", "A program that a rebuild runs is not in bin_dir, or cannot be run.");
const TOOL_VERSION: Entry =
    Entry::error("tool-version", "A program in bin_dir has a different major version from the data directory.");
const OOM_KILLER: Entry = Entry::notice(
    "oom-killer",
    "The system overcommits memory, and the postmaster is not protected: if memory runs out, the kernel may kill it, and the \
     standby takes over.",
);

/// What is read.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// The running controller cannot load its files again: the reason and the fix. Only for the other server.
    pub refused: Option<(String, String)>,
    /// Version of the program that has read all this.
    pub version: String,
    /// The management directory.
    pub directory: String,
    /// Digests of what its files say, by name: they tell whether two are the same, and nothing else.
    pub digests: Vec<(String, String)>,
    /// `network.conf` lists no keys of members: the command that makes and shows this server's.
    pub no_member_keys: Option<String>,
    /// `heartbeat_error_action`.
    pub on_silence: Option<OnSilence>,
    /// `heartbeat_error_action = switch` with `isolated_primary_action = wait`.
    pub isolated_waits: bool,
    /// `heartbeat_*`.
    pub heartbeat: Timing,
    /// The members of `network.conf`, with the addresses of their hosts.
    pub members: Vec<Member>,
    /// The instance's port.
    pub port: u16,
    /// The range that the system gives to any program, where the port is one of it.
    pub ephemeral: Option<(u16, u16)>,
    /// The directory of PostgreSQL's programs, and the version that they must have.
    pub bin_dir: String,
    /// Major version of the data directory.
    pub major: u32,
    /// Each program: its major version, or why it does not tell.
    pub tools: Vec<(String, Result<u32, String>)>,
    /// File systems.
    pub disk: disk::Facts,
    /// Service managers.
    pub services: services::Facts,
    /// `vm.overcommit_memory`.
    pub overcommit: Option<u32>,
    /// `oom_score_adj` of the postmaster, where one runs.
    pub oom_score_adj: Option<i32>,
}

/// A line of `network.conf`, as it is seen from a server.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Member {
    /// Its identifier.
    pub id: String,
    /// Its hosts, each with its addresses, or why there are none.
    pub hosts: Vec<(String, Result<BTreeSet<IpAddr>, String>)>,
}

/// Reads it, by `deadline` at the latest.
pub fn collect(config: &Config, deadline: Instant) -> Facts {
    let file = &config.server;
    let place = Place::new(config);
    let port = conf::port(&place.config_file, &place.data);
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse().ok();
    let postmaster = process::postmaster(&place.data).ok().flatten();
    Facts {
        refused: None,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        directory: config.dir.display().to_string(),
        digests: digests(config),
        no_member_keys: config.own().key.is_none().then(|| format!("mc_ctl init -M {}", config.dir.display())),
        on_silence: Some(file.heartbeat_error_action),
        isolated_waits: file.heartbeat_error_action == OnSilence::Switch && !file.isolated_primary_stops,
        heartbeat: Timing {
            interval_ms: file.heartbeat_interval_ms,
            timeout_ms: file.heartbeat_timeout_ms,
            retry: file.heartbeat_retry,
        },
        members: members(config, deadline),
        port,
        ephemeral: config::ephemeral(port).map(|range| (*range.start(), *range.end())),
        bin_dir: file.bin_dir.display().to_string(),
        major: file.major_version,
        tools: TOOLS.iter().map(|name| ((*name).to_owned(), tool(&place, name, deadline))).collect(),
        disk: disk::collect(config, &place, deadline),
        services: services::collect(&config.dir, &file.db_instance, &place),
        overcommit: number("/proc/sys/vm/overcommit_memory").and_then(|number: i64| u32::try_from(number).ok()),
        oom_score_adj: postmaster
            .and_then(|postmaster| number(&format!("/proc/{}/oom_score_adj", postmaster.pid)))
            .and_then(|number| i32::try_from(number).ok()),
    }
}

/// What is left, at most [`LIMIT`].
fn limit(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).min(LIMIT)
}

/// Of `network.conf` and `mc.key` what must be the same on both, and of `ID.conf` every parameter that stands in it, but the
/// password: what is found besides may be another before and after the first start.
pub fn digests(config: &Config) -> Vec<(String, String)> {
    let network = &config.network;
    let members = || network.servers.iter().chain(&network.arbiter);
    let lines: Vec<_> = members().map(|l| (&l.id, l.addresses())).collect();
    let keys: Vec<_> = members().filter_map(|l| l.key).collect();
    // Without keys as in versions that know none.
    let keys = if keys.is_empty() { String::new() } else { format!("{keys:?}") };
    let own = config.own_key.as_ref().map(|key| key.public().to_string()).unwrap_or_default();
    let written = config.parameters().into_iter().filter(|p| p.source.starts_with("line "));
    let parameters: Vec<_> = written.map(|p| (p.name, p.value)).collect();
    let of = |name: &str, content: &[u8]| (name.to_owned(), digest(name, content));
    vec![
        of("network.conf", format!("{lines:?}{keys}").as_bytes()),
        of("mc.key", config.key.as_bytes()),
        of(&config::key::file_name(&config.id), own.as_bytes()),
        of(&format!("{}.conf", config.id), format!("{parameters:?}").as_bytes()),
    ]
}

/// BLAKE2s, cut to 64 bits: nothing of a random key can be learnt from it.
fn digest(name: &str, content: &[u8]) -> String {
    let Some(mut hash) = DefaultResolver.resolve_hash(&HashChoice::Blake2s) else { return String::new() };
    let mut out = [0; 64];
    hash.input(b"mc_ctl check ");
    hash.input(name.as_bytes());
    hash.input(&[0]);
    hash.input(content);
    let length = hash.hash_len();
    hash.result(&mut out[..length]);
    out[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn members(config: &Config, deadline: Instant) -> Vec<Member> {
    let network = &config.network;
    let hosts = |line: &config::MemberLine| {
        line.hosts.iter().map(|host| (host.clone(), resolve(host, limit(deadline)))).collect()
    };
    let lines = network.servers.iter().chain(&network.arbiter);
    lines.map(|line| Member { id: line.id.clone(), hosts: hosts(line) }).collect()
}

pub(super) fn resolve(host: &str, limit: Duration) -> Result<BTreeSet<IpAddr>, String> {
    if let Ok(address) = host.parse() {
        return Ok(BTreeSet::from([address]));
    }
    let name = host.to_owned();
    let found = bounded::call(&format!("resolve \"{host}\""), limit, &Cancel::never(), move || {
        let found = (name.as_str(), 0).to_socket_addrs();
        found.map(|found| found.map(|address| address.ip()).collect()).map_err(|cause| Error::new(cause.to_string()))
    });
    found.map_err(|error| error.message)
}

fn tool(place: &Place, name: &str, deadline: Instant) -> Result<u32, String> {
    let output = commands::program(place, name, ["--version".into()]).run(limit(deadline), None);
    let output = output.map_err(|error| error.message)?;
    let number = version::version_num(&output);
    number.map(|number| number / 10000).ok_or_else(|| format!("its version is not understood: \"{}\"", output.trim()))
}

/// What else than the controller starts the instance when the host boots.
pub fn autostarts(config: &Config) -> Vec<Autostart> {
    services::collect(&config.dir, &config.server.db_instance, &Place::new(config)).autostarts
}

/// What is wrong on both servers.
pub fn examine(seen: &Seen, found: &mut Vec<Finding>) {
    for server in seen.servers() {
        let (id, host) = (&server.id, &server.host);
        if let Some((why, hint)) = &host.refused {
            found.push(REFUSED_CONFIGURATION.found(id, why.as_str(), hint.as_str()));
        }
        examine_tools(id, host, found);
        if let Some((low, high)) = host.ephemeral {
            let what = format!(
                "port {} of the instance is in the range that the system assigns to any program ({low} to {high})",
                host.port
            );
            let fix =
                format!("choose another port, or as root: sysctl -w net.ipv4.ip_local_reserved_ports={}", host.port);
            found.push(INSTANCE_PORT.found(id, what, fix));
        }
        disk::examine(id, &host.disk, found);
        services::examine(id, &host.directory, &host.services, found);
        if let (Some(overcommit @ (0 | 1)), Some(score @ 0..)) = (host.overcommit, host.oom_score_adj) {
            let what = format!("vm.overcommit_memory is {overcommit}, and oom_score_adj of the postmaster is {score}");
            let fix =
                "as root: sysctl -w vm.overcommit_memory=2 (and in /etc/sysctl.d), or OOMScoreAdjust=-900 in the unit";
            found.push(OOM_KILLER.found(id, what, fix));
        }
        examine_restart(server, found);
    }
    examine_names(seen, found);
    examine_pair(seen, found);
    examine_versions(seen, found);
    if let Some(clock) = seen.clock
        && clock.ahead_ms.unsigned_abs() > clock.within_ms.saturating_add(CLOCKS_MS)
    {
        let word = if clock.ahead_ms < 0 { "behind" } else { "ahead of" };
        let seconds = clock.ahead_ms.unsigned_abs() as f64 / 1000.0;
        let what = format!("its clock is {seconds:.1} s {word} \"{}\" (to within {} ms)", seen.own.id, clock.within_ms);
        found.push(CLOCK_OFFSET.found(
            &seen.peer_id,
            what,
            "run a time service on both hosts: chronyc tracking, or timedatectl",
        ));
    }
}

fn examine_tools(id: &str, host: &Facts, found: &mut Vec<Finding>) {
    for (name, told) in &host.tools {
        let path = format!("{}/{name}", host.bin_dir);
        match told {
            Err(why) => {
                let fix = format!(
                    "install it from the packages of PostgreSQL {}, or correct bin_dir in {id}.conf",
                    host.major
                );
                found.push(TOOL_MISSING.found(id, format!("\"{path}\" does not run: {why}"), fix));
            }
            Ok(major) if *major != host.major => {
                let what = format!("\"{path}\" is of PostgreSQL {major}, and the data directory of {}", host.major);
                let fix = format!("set bin_dir in {id}.conf to the directory of version {}", host.major);
                found.push(TOOL_VERSION.found(id, what, fix));
            }
            Ok(_) => {}
        }
    }
}

fn examine_restart(server: &super::Facts, found: &mut Vec<Finding>) {
    let Some(pace) = &server.pace else { return };
    for (name, started_with) in &pace.started_with {
        let now = server.host.digests.iter().find(|(other, _)| other == name);
        if server.host.refused.is_none() && now.is_some_and(|(_, now)| now != started_with) {
            let what = format!("{name} has been changed since the controller was started");
            // Only parameters can change while the controller runs.
            let fix = match *name == format!("{}.conf", server.id) {
                true => "mc_ctl reload, which names the parameters that need a restart of the controller",
                false => {
                    "mc_ctl reload && mc_ctl stop --mc-only && mc_ctl start --mc-only -f (the instance continues to run; \
                     without -f if failover is to be disabled)"
                }
            };
            found.push(RESTART_NEEDED.found(&server.id, what, fix).at(format!("{}/{name}", server.host.directory), 0));
        }
    }
}

fn examine_names(seen: &Seen, found: &mut Vec<Finding>) {
    for server in seen.servers() {
        for (member, (host, told)) in server.host.members.iter().flat_map(|m| m.hosts.iter().map(move |host| (m, host)))
        {
            if let Err(why) = told {
                let what = format!("could not resolve host \"{host}\" of member \"{}\": {why}", member.id);
                let fix = "write its address into network.conf on all members, or its name into /etc/hosts or the name service";
                found.push(NAME_UNRESOLVED.found(&server.id, what, fix));
            }
        }
    }
    if let Some([own, peer]) = seen.both() {
        for (host, here) in own.host.members.iter().flat_map(|member| &member.hosts) {
            let there = peer.host.members.iter().flat_map(|member| &member.hosts).find(|(other, _)| other == host);
            if let (Ok(here), Some((_, Ok(there)))) = (here, there)
                && here != there
            {
                let list = |all: &BTreeSet<IpAddr>| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let (one, other) = (&own.id, &peer.id);
                let what = format!("host \"{host}\" is {} on \"{one}\" and {} on \"{other}\"", list(here), list(there));
                let fix = "make /etc/hosts the same on both, or write addresses into network.conf on all members";
                found.push(NAME_DIFFERS.found("", what, fix));
            }
        }
    }
    let members = &seen.own.host.members;
    for (index, one) in members.iter().enumerate() {
        for other in &members[index + 1..] {
            let addresses = |member: &Member| {
                member
                    .hosts
                    .iter()
                    .filter_map(|(_, told)| told.as_ref().ok())
                    .flatten()
                    .copied()
                    .collect::<BTreeSet<_>>()
            };
            if let Some(address) = addresses(one).intersection(&addresses(other)).next() {
                let what = format!("members \"{}\" and \"{}\" are both on the host of {address}", one.id, other.id);
                found.push(SHARED_HOST.found("", what, "place each member on a separate host"));
            }
        }
    }
}

fn examine_pair(seen: &Seen, found: &mut Vec<Finding>) {
    if let Some(init) = &seen.own.host.no_member_keys {
        let fix = format!("{init}, on the other server too, and mc_arb init; then as network.conf(5) describes");
        found.push(NO_MEMBER_KEYS.found("", "network.conf lists no keys of the members", fix));
    }
    for server in seen.servers().filter(|server| server.host.isolated_waits) {
        let what = "isolated_primary_action is 'wait' together with heartbeat_error_action = 'switch'";
        let fix = "set isolated_primary_action = 'stop' in ID.conf, and restart the controller";
        found.push(ISOLATED_PRIMARY_WAITS.found(&server.id, what, fix));
    }
    let Some([own, peer]) = seen.both() else { return };
    let (one, other) = (&own.id, &peer.id);
    let digest = |facts: &Facts, name: &str| facts.digests.iter().find(|(n, _)| n == name).map(|(_, d)| d.clone());
    for (name, entry) in [("network.conf", NETWORK_CONF_DIFFERS), ("mc.key", KEY_DIFFERS)] {
        let [here, there] = [&own.host, &peer.host].map(|facts| digest(facts, name));
        // A server whose files are refused has told what it was started with.
        if peer.host.refused.is_none() && here.is_some() && there.is_some() && here != there {
            let what = format!("{name} differs between \"{one}\" and \"{other}\"");
            let fix =
                format!("copy the correct {}/{name} to all members and restart their controllers", own.host.directory);
            found.push(entry.found("", what, fix));
        }
    }
    if own.host.on_silence != peer.host.on_silence
        && let (Some(here), Some(there)) = (own.host.on_silence, peer.host.on_silence)
    {
        let word = |action: OnSilence| format!("{action:?}").to_lowercase();
        let what =
            format!("heartbeat_error_action is '{}' on \"{one}\" and '{}' on \"{other}\"", word(here), word(there));
        let fix = format!("in {one}.conf or {other}.conf, set it to the other's value, and restart that controller");
        found.push(ERROR_ACTION_DIFFERS.found("", what, fix));
    }
    if own.host.heartbeat != peer.host.heartbeat {
        let word = |t: Timing| format!("{} ms, {} ms, {}", t.interval_ms, t.timeout_ms, t.retry);
        let (here, there) = (word(own.host.heartbeat), word(peer.host.heartbeat));
        let what =
            format!("heartbeat_interval, _timeout and _retry are {here} on \"{one}\" and {there} on \"{other}\"");
        let fix = format!("make them the same in {one}.conf and {other}.conf, and restart the controllers");
        found.push(HEARTBEAT_TIMES_DIFFER.found("", what, fix));
    }
}

fn examine_versions(seen: &Seen, found: &mut Vec<Finding>) {
    let program = &seen.own.host.version;
    for server in seen.servers() {
        let running = server.pace.as_ref().map(|pace| &pace.version).filter(|version| !version.is_empty());
        if let Some(running) = running.filter(|running| *running != program) {
            let what = format!("its controller has version {running}, and this mc_ctl has version {program}");
            let fix = "install the same version, then: mc_ctl stop --mc-only && mc_ctl start --mc-only -f (the standby's first)";
            found.push(VERSIONS_DIFFER.found(&server.id, what, fix));
        }
    }
    let Some(arbiter) = &seen.arbiter else { return };
    let heard =
        seen.own.pace.as_ref().and_then(|pace| pace.arbiter.as_ref()).is_some_and(|arbiter| arbiter.within(3000));
    let what = match &arbiter.version {
        Ok(version) if version != program => {
            format!("mc_arb has version {version}, and this mc_ctl has version {program}")
        }
        Err(_) if heard => "mc_arb does not report its version, and is therefore older".to_owned(),
        _ => return,
    };
    found.push(VERSIONS_DIFFER.found(
        &arbiter.id,
        what,
        "install this version on its host, then: mc_arb stop; mc_arb start",
    ));
}

#[cfg(test)]
mod tests {
    use super::super::{Clock, Facts as Server};
    use super::*;

    fn server(id: &str) -> Server {
        Server { id: id.to_owned(), ..Server::default() }
    }

    fn found(own: Server, peer: Server, clock: Option<Clock>) -> Vec<&'static str> {
        let seen = Seen { own, peer_id: peer.id.clone(), peer: Ok(peer), clock, arbiter: None };
        let mut found = Vec::new();
        examine(&seen, &mut found);
        found.into_iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn nothing_is_wrong_with_nothing() {
        assert!(found(server("nd1"), server("nd2"), None).is_empty());
    }

    #[test]
    fn clocks_are_apart_only_where_that_is_certain() {
        let check = |ahead_ms, within_ms, expected: &[&str]| {
            assert_eq!(found(server("nd1"), server("nd2"), Some(Clock { ahead_ms, within_ms })), expected);
        };
        check(900, 10, &[]);
        check(1500, 10, &["clock-offset"]);
        check(-1500, 10, &["clock-offset"]);
        check(1500, 600, &[]);
        check(i64::MIN, u64::MAX, &[]);
        check(i64::MIN, 5, &["clock-offset"]);
    }

    #[test]
    fn a_digest_is_of_the_content_and_of_the_file() {
        assert_eq!(digest("mc.key", b"x").len(), 16);
        assert_eq!(digest("mc.key", b"x"), digest("mc.key", b"x"));
        assert_ne!(digest("mc.key", b"x"), digest("mc.key", b"y"));
        assert_ne!(digest("mc.key", b"x"), digest("network.conf", b"x"));
    }

    #[test]
    fn what_must_agree() {
        let with = |id: &str, key: &str, on_silence, retry| {
            let mut server = server(id);
            server.host.digests = vec![("mc.key".to_owned(), key.to_owned())];
            server.host.on_silence = Some(on_silence);
            server.host.heartbeat.retry = retry;
            server
        };
        let one = with("nd1", "a", OnSilence::Switch, 2);
        let all = ["key-differs", "error-action-differs", "heartbeat-times-differ"];
        assert_eq!(found(one.clone(), with("nd2", "b", OnSilence::Disconnect, 3), None), all);
        assert!(found(one.clone(), with("nd2", "a", OnSilence::Switch, 2), None).is_empty());
        // What an older version does not tell is not compared.
        let mut older = with("nd2", "a", OnSilence::Switch, 2);
        (older.host.digests, older.host.on_silence) = (Vec::new(), None);
        assert!(found(one, older, None).is_empty());
    }

    #[test]
    fn members_without_keys() {
        let mut one = server("nd1");
        one.host.no_member_keys = Some("mc_ctl init".to_owned());
        assert_eq!(found(one, server("nd2"), None), ["no-member-keys"]);
    }

    #[test]
    fn an_isolated_primary_that_waits() {
        let mut one = server("nd1");
        one.host.isolated_waits = true;
        assert_eq!(found(one, server("nd2"), None), ["isolated-primary-waits"]);
    }

    #[test]
    fn names_are_compared_by_what_they_stand_for() {
        let with = |id: &str, address: [u8; 4]| {
            let mut server = server(id);
            let host = |host: &str, address: [u8; 4]| (host.to_owned(), Ok(BTreeSet::from([IpAddr::from(address)])));
            server.host.members = vec![
                Member { id: "nd1".into(), hosts: vec![host("one", address)] },
                Member { id: "nd2".into(), hosts: vec![host("two", [10, 0, 0, 2])] },
            ];
            server
        };
        assert!(found(with("nd1", [10, 0, 0, 1]), with("nd2", [10, 0, 0, 1]), None).is_empty());
        assert_eq!(found(with("nd1", [127, 0, 1, 1]), with("nd2", [10, 0, 0, 1]), None), ["name-differs"]);
        assert_eq!(found(with("nd1", [10, 0, 0, 2]), with("nd2", [10, 0, 0, 2]), None), ["shared-host"]);
    }
}
