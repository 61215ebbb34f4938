//! How quickly heartbeats and probes were answered, as histograms, against the detection times; and who is heard at all.

use super::histogram::Histogram;
use super::pair::State;
use super::{Entry, Facts as Server, Finding, Seen};
use crate::backup::Survey;
use crate::fsm::report::{ArbiterDisk, Rebuilding};
use crate::status::ConnectionFailure;
use serde::{Deserialize, Serialize};

/// What there can be found here.
#[rustfmt::skip]
pub const CATALOGUE: &[Entry] = &[
    PEER_NO_HEARTBEAT, CONNECTION_REJECTED, ARBITER_NO_HEARTBEAT, ARBITER_DISK_FULL, LINK_UNSTEADY,
    HEARTBEAT_LATE, ARBITER_LATE, INSTANCE_LATE, DISK_LATE, DETECTION_SLOW,
];

/// What a caller reports whose connection is closed because of a different key: mc.key, its own key, or that in network.conf.
const PROVING: &str = "proving its key";

/// Readings without which nothing is concluded from how long they took.
const ENOUGH: u64 = 100;

/// Connections with one member in one to two days that are too many.
const MANY_CONNECTIONS: u32 = 6;

const PEER_NO_HEARTBEAT: Entry = Entry::error(
    "peer-no-heartbeat",
    "The controllers of the servers do not receive each other's heartbeats, in one or both directions. A link is up only while \
     both directions work.",
);
const CONNECTION_REJECTED: Entry = Entry::warning(
    "connection-rejected",
    "Within the last ten minutes this controller refused a connection to its port. The caller is a member with a different \
     mc.key or network.conf, or is not a member.",
);
const ARBITER_NO_HEARTBEAT: Entry = Entry::warning(
    "arbiter-no-heartbeat",
    "network.conf names an arbiter, and a server does not receive its heartbeats. Without the arbiter, neither server \
     continues alone when the other server does not respond.",
);
const ARBITER_DISK_FULL: Entry = Entry::warning(
    "arbiter-disk-full",
    "The arbiter reports that the file system of its directory is full or nearly full. An arbiter that cannot write its ledger \
     cannot consent to a change.",
);
const LINK_UNSTEADY: Entry = Entry::notice(
    "link-unsteady",
    "The connection with another member was lost repeatedly in the last one to two days: members were restarted, or the \
     network between them fails temporarily.",
);
const HEARTBEAT_LATE: Entry = Entry::warning(
    "heartbeat-late",
    "Heartbeats of the other server were late by more than half of heartbeat_timeout: with slightly longer delays, a working \
     server counts as failed.",
);
const ARBITER_LATE: Entry = Entry::warning(
    "arbiter-late",
    "Heartbeats of the arbiter were late by more than half of arbiter_alive_timeout: with slightly longer delays, a working \
     arbiter counts as lost.",
);
const INSTANCE_LATE: Entry = Entry::warning(
    "instance-late",
    "The instance took more than half of db_instance_check_timeout to respond to a check: with slightly longer delays, \
     db_instance_check_retry times in succession, it counts as failed.",
);
const DISK_LATE: Entry = Entry::warning(
    "disk-late",
    "A disk took more than half of disk_check_timeout to write, flush and read one block: with slightly longer delays, \
     disk_check_retry times in succession, it counts as failed.",
);
const DETECTION_SLOW: Entry = Entry::notice(
    "detection-slow",
    "A detection time is longer than the default, and its timeout is more than twenty times the longest measured time: \
     failures could be detected sooner.",
);

/// (timeout + interval) x (retry + 1) finds a failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Timing {
    /// The time between two, ms.
    pub interval_ms: u64,
    /// How late an answer may be, ms.
    pub timeout_ms: u64,
    /// How often beyond the first that may be exceeded.
    pub retry: u32,
}

impl Timing {
    /// The detection time, ms.
    pub fn detection_ms(self) -> u64 {
        crate::config::detection_ms(self.interval_ms, self.timeout_ms, self.retry)
    }
}

/// What a controller has measured since its start, or in the last one to two days if that was earlier; with what it was
/// started with.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// Version of the running controller.
    pub version: String,
    /// The other server.
    pub peer: Heard,
    /// The arbiter, where `network.conf` has one.
    pub arbiter: Option<Heard>,
    /// How long the instance took to answer through the session that stays open.
    pub instance: Histogram,
    /// How long it took to open a fresh session and to answer through that.
    pub session: Histogram,
    /// How long a disk took to write, sync and read back.
    pub disk: Histogram,
    /// `heartbeat_*`.
    pub heartbeat: Timing,
    /// `arbiter_alive_*`.
    pub arbiter_alive: Timing,
    /// `db_instance_check_*`.
    pub instance_check: Timing,
    /// `disk_check_*`.
    pub disk_check: Timing,
    /// Digests of what the controller's files said when it was started (`host::digests`).
    pub started_with: Vec<(String, String)>,
    /// The last caller that was not let in, within ten minutes, and why.
    pub refused: Option<String>,
    /// Connections that its checks in the background have found to fail.
    pub failing: Vec<ConnectionFailure>,
    /// Where a rebuild stands; `None` of an older version.
    pub rebuilding: Option<Rebuilding>,
    /// The backups of both servers; `None` if `backup_destination` is not set.
    pub backups: Option<Survey>,
    /// Why its ledger cannot be written.
    #[serde(with = "crate::optional_text")]
    pub ledger_error: Option<String>,
    /// The arbiter's disk, as the arbiter reports it to this server.
    pub arbiter_disk: ArbiterDisk,
    /// The state of the pair; `None` without a view, or of an older version.
    pub state: Option<State>,
}

/// Another member, as it is heard.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Heard {
    /// How long ago the last heartbeat came, ms; `None` where none ever did.
    pub silent_ms: Option<u64>,
    /// Connections on which heartbeats came, in the last one to two days.
    pub connections: u32,
    /// The times between two of them on one connection.
    pub gaps: Histogram,
    /// Why it cannot be dialled; empty where it can.
    pub unreached: String,
}

impl Heard {
    /// Whether a heartbeat came within this time.
    pub fn within(&self, ms: u64) -> bool {
        self.silent_ms.is_some_and(|silent| silent < ms)
    }

    /// That it is not heard, and what is known of the reason.
    fn silence(&self) -> String {
        let since = match self.silent_ms {
            Some(ms) => format!("no heartbeat for {} s", ms / 1000),
            None => "no heartbeat since the controller's start".to_owned(),
        };
        if self.unreached.is_empty() { since } else { format!("{since}; {}", self.unreached) }
    }
}

/// What is wrong between the members.
pub fn examine(seen: &Seen, found: &mut Vec<Finding>) {
    let own = &seen.own.id;
    examine_peer(seen, found);
    examine_arbiter(seen, found);
    for server in seen.servers() {
        let Some(pace) = &server.pace else { continue };
        if let Some(why) = &pace.refused {
            let fix = format!(
                "check whether the caller is a member: compare the address with network.conf, and identify the administrator \
                 of that host; only if it is a member, copy network.conf and mc.key of \"{own}\" to it and restart its \
                 controller (mc_ctl reload && mc_ctl stop --mc-only && mc_ctl start --mc-only -f); otherwise block the caller \
                 with a firewall"
            );
            found.push(CONNECTION_REJECTED.found(&server.id, format!("a connection was refused: {why}"), fix));
        }
        examine_times(seen, server, pace, found);
    }
}

fn examine_peer(seen: &Seen, found: &mut Vec<Finding>) {
    let (Some(pace), peer) = (&seen.own.pace, &seen.peer_id) else { return };
    // Longer than a restart of the other controller by its watcher takes.
    let limit_ms = pace.heartbeat.detection_ms().max(3000);
    // A controller that cannot write its ledger sends nothing.
    let theirs = seen.peer.as_ref().ok().and_then(|facts| facts.pace.as_ref());
    if pace.ledger_error.is_some() || theirs.is_some_and(|theirs| theirs.ledger_error.is_some()) {
        return;
    }
    if !pace.peer.within(limit_ms) {
        let what = format!("this controller receives no heartbeats from \"{peer}\": {}", pace.peer.silence());
        found.push(PEER_NO_HEARTBEAT.found(peer, what, fix_of_silence(peer, &pace.peer)));
    } else if let Some(theirs) = seen.peer.as_ref().ok().and_then(|facts| facts.pace.as_ref())
        && !theirs.peer.within(limit_ms)
    {
        let own = &seen.own.id;
        let what = format!("its controller receives no heartbeats from \"{own}\": {}", theirs.peer.silence());
        found.push(PEER_NO_HEARTBEAT.found(peer, what, fix_of_silence(own, &theirs.peer)));
    } else if !pace.peer.unreached.is_empty() {
        let what = format!(
            "this controller receives heartbeats from \"{peer}\" but cannot connect to it: {}",
            pace.peer.unreached
        );
        let fix = format!(
            "compare host and port of \"{peer}\" in network.conf on both servers and on the arbiter; correct the file that \
             differs, and restart its controller (mc_ctl reload && mc_ctl stop --mc-only && mc_ctl start --mc-only -f); if \
             they are the same, open that port in the firewalls between this server and \"{peer}\""
        );
        found.push(PEER_NO_HEARTBEAT.found(peer, what, fix));
    }
}

fn fix_of_silence(id: &str, heard: &Heard) -> String {
    let why = &heard.unreached;
    if why.contains(PROVING) {
        return format!(
            "compare mc.key and network.conf with those of \"{id}\" (cksum): copy the file that differs from the correct server, and \
             restart the controller; if none differs, its private key is not the one that network.conf lists: network.conf(5)"
        );
    }
    if why.contains("authenticating") {
        return format!(
            "copy the correct mc.key to the other member and restart its controller (\"{id}\" has a different key)"
        );
    }
    if why.contains("network.conf") {
        return "copy the correct network.conf to the other member and restart its controller".to_owned();
    }
    if why.contains("refuses") {
        return format!(
            "on \"{id}\": mc_ctl start; if \"{id}\" is not set up yet: mc_ctl init --join there, then mc_ctl rebuild"
        );
    }
    format!(
        "on \"{id}\": mc_ctl status; if its controller runs, open the port of its line in network.conf in the firewalls"
    )
}

fn examine_arbiter(seen: &Seen, found: &mut Vec<Finding>) {
    let Some(arbiter) = &seen.arbiter else { return };
    for server in seen.servers() {
        let Some(pace) = &server.pace else { continue };
        let (id, from) = (&arbiter.id, &server.id);
        let Some(heard) = &pace.arbiter else { continue };
        if heard.within(pace.arbiter_alive.detection_ms().max(3000)) {
            let ArbiterDisk { space, failure, .. } = &pace.arbiter_disk;
            let known = found.iter().any(|finding| finding.code == ARBITER_DISK_FULL.code);
            if (space, failure) != (&String::new(), &String::new()) && !known {
                let ledger = match failure.as_str() {
                    "" => String::new(),
                    why => format!("its ledger cannot be written, and it cannot consent to a change ({why}); "),
                };
                let fix = format!("free space on the host of \"{id}\"");
                found.push(ARBITER_DISK_FULL.found(id, format!("{ledger}{space}").trim_end_matches("; "), fix));
            }
            continue;
        }
        // It does not send, and the arbiter does not answer, until the ledger is written.
        if pace.ledger_error.is_some() {
            continue;
        }
        let what = format!("server \"{from}\" receives no heartbeats from arbiter \"{id}\": {}", heard.silence());
        let fix = match heard.unreached.as_str() {
            why if why.contains(PROVING) => {
                "compare mc.key and network.conf with those in the arbiter's directory (cksum), and copy the file that differs; then on \
                 its host: mc_arb stop; mc_arb start"
            }
            why if why.contains("authenticating") => {
                "copy mc.key to the arbiter's directory, then on its host: mc_arb stop; mc_arb start"
            }
            why if why.contains("refuses") => "on its host: mc_arb start",
            // A server without a view is not of the arbiter's pair before its first rebuild.
            _ if pace.state.is_none() => continue,
            why if why.contains("closes the connection") => {
                "on its host: mc_arb status; if this server has not been the standby yet, run mc_ctl rebuild on it: the \
                 arbiter serves it after the rebuild"
            }
            _ => "on its host: mc_arb status; if it serves this pair, open its port in the firewalls",
        };
        found.push(ARBITER_NO_HEARTBEAT.found(id, what, fix));
    }
}

/// A kind of answer, how long it took, and the parameters that say how long it may.
struct Reading<'a> {
    of: &'static str,
    late: Entry,
    /// The first part of the parameters' names.
    parameters: &'static str,
    timing: Timing,
    took: &'a Histogram,
    /// How much of each is the regular pause between two, ms.
    pause_ms: u64,
}

impl Reading<'_> {
    fn longest_ms(&self) -> u64 {
        self.took.longest_ms().saturating_sub(self.pause_ms)
    }

    fn permille_ms(&self, permille: u64) -> u64 {
        self.took.permille_ms(permille).saturating_sub(self.pause_ms)
    }
}

/// What a server's controller has measured, in the order in which it is shown. Heartbeats come at the sender's interval.
fn readings<'a>(seen: &Seen, server: &Server, pace: &'a Facts) -> Vec<Reading<'a>> {
    let sender = seen.servers().find(|other| other.id != server.id).and_then(|other| other.pace.as_ref());
    let pause_ms = sender.map_or(pace.heartbeat.interval_ms, |sender| sender.heartbeat.interval_ms);
    let row = |of, late, parameters, timing, took, pause_ms| Reading { of, late, parameters, timing, took, pause_ms };
    let heartbeat = row("heartbeats", HEARTBEAT_LATE, "heartbeat", pace.heartbeat, &pace.peer.gaps, pause_ms);
    let arbiter = pace.arbiter.iter().map(|arbiter| {
        let timing = pace.arbiter_alive;
        row("arbiter", ARBITER_LATE, "arbiter_alive", timing, &arbiter.gaps, timing.interval_ms)
    });
    let (instance, disk) = (pace.instance_check, pace.disk_check);
    let rest = [
        row("instance", INSTANCE_LATE, "db_instance_check", instance, &pace.instance, 0),
        row("instance, fresh session", INSTANCE_LATE, "db_instance_check", instance, &pace.session, 0),
        row("disk", DISK_LATE, "disk_check", disk, &pace.disk, 0),
    ];
    std::iter::once(heartbeat).chain(arbiter).chain(rest).collect()
}

fn examine_times(seen: &Seen, server: &Server, pace: &Facts, found: &mut Vec<Finding>) {
    let file = format!("{}.conf", server.id);
    for (heard, from) in [(Some(&pace.peer), "the other server"), (pace.arbiter.as_ref(), "the arbiter")] {
        let Some(heard) = heard.filter(|heard| heard.connections > MANY_CONNECTIONS) else { continue };
        let what =
            format!("the connection with {from} was established {} times in the last two days", heard.connections);
        let fix = "check mc_ctl history and both logs for restarts of controllers; otherwise check the network";
        found.push(LINK_UNSTEADY.found(&server.id, what, fix));
    }
    let readings = readings(seen, server, pace);
    for reading in &readings {
        let (longest, timeout) = (reading.longest_ms(), reading.timing.timeout_ms);
        if longest.saturating_mul(2) <= timeout {
            continue;
        }
        let how = if reading.pause_ms > 0 { "were late by up to" } else { "took up to" };
        let what = format!(
            "{}: {} of them {how} {longest} ms (one in a thousand {} ms or more), and {}_timeout is {timeout} ms",
            reading.of,
            reading.took.count(),
            reading.permille_ms(999),
            reading.parameters
        );
        let fix = format!(
            "in {file}: {}_timeout = '{}ms', and restart the controller",
            reading.parameters,
            enough_ms(longest)
        );
        found.push(reading.late.found(&server.id, what, fix));
    }
    for parameters in ["heartbeat", "db_instance_check", "disk_check"] {
        let of_it: Vec<&Reading<'_>> = readings.iter().filter(|reading| reading.parameters == parameters).collect();
        let Some(timing) = of_it.first().map(|reading| reading.timing) else { continue };
        let longest = of_it.iter().map(|reading| reading.longest_ms()).max().unwrap_or(0);
        let few = of_it.iter().map(|reading| reading.took.count()).sum::<u64>() < ENOUGH;
        if few || timing.detection_ms() <= DEFAULT.detection_ms() || longest.saturating_mul(20) > timing.timeout_ms {
            continue;
        }
        let what = format!(
            "{parameters}_*: a failure is detected after {} ms, and no response took longer than {longest} ms",
            timing.detection_ms()
        );
        let fix = format!(
            "in {file}: {parameters}_timeout = '{}ms', and restart the controller",
            enough_ms(longest).max(1000)
        );
        found.push(DETECTION_SLOW.found(&server.id, what, fix));
    }
}

/// What holds where nothing is set.
const DEFAULT: Timing = Timing { interval_ms: 800, timeout_ms: 1000, retry: 2 };

/// A timeout with room for more than twice what was needed, ms: a round number.
fn enough_ms(longest: u64) -> u64 {
    (longest.saturating_mul(5) / 2).div_ceil(100).max(1).saturating_mul(100)
}

/// How quickly heartbeats and probes were answered, as lines for people; none where no controller was asked.
pub fn table(seen: &Seen) -> Vec<String> {
    let mut rows = Vec::new();
    for server in seen.servers() {
        let Some(pace) = &server.pace else { continue };
        for reading in readings(seen, server, pace) {
            rows.push([
                server.id.clone(),
                reading.of.to_owned(),
                reading.took.count().to_string(),
                reading.permille_ms(500).to_string(),
                reading.permille_ms(999).to_string(),
                reading.longest_ms().to_string(),
                reading.timing.timeout_ms.to_string(),
                reading.timing.detection_ms().to_string(),
            ]);
        }
    }
    if rows.is_empty() {
        return Vec::new();
    }
    let head = ["server_id", "late by, or took (ms)", "count", "median", "99.9 %", "longest", "timeout", "detection"];
    let rows: Vec<[String; 8]> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let line = |row: &[String; 8]| {
        let cells = row.iter().enumerate().map(|(column, cell)| match column {
            0 | 1 => format!("{cell:<width$}", width = width(column)),
            _ => format!("{cell:>width$}", width = width(column)),
        });
        cells.collect::<Vec<_>>().join("  ")
    };
    rows.iter().map(line).collect()
}

/// The same as JSON: an array of objects, times in ms.
pub fn json(seen: &Seen) -> serde_json::Value {
    let mut rows = Vec::new();
    for server in seen.servers() {
        let Some(pace) = &server.pace else { continue };
        for reading in readings(seen, server, pace) {
            rows.push(serde_json::json!({
                "server_id": server.id,
                "of": reading.of,
                "count": reading.took.count(),
                "median_ms": reading.permille_ms(500),
                "p999_ms": reading.permille_ms(999),
                "longest_ms": reading.longest_ms(),
                "timeout_ms": reading.timing.timeout_ms,
                "detection_ms": reading.timing.detection_ms(),
            }));
        }
    }
    rows.into()
}

#[cfg(test)]
mod tests {
    use super::super::histogram::tests::of;
    use super::*;
    use crate::fsm::report::Word;

    /// A server whose heartbeats come well, and everything else at once.
    fn server(id: &str) -> Server {
        let timing = DEFAULT;
        let pace = Facts {
            peer: Heard { silent_ms: Some(10), connections: 1, gaps: of(&[800; 200]), ..Heard::default() },
            heartbeat: timing,
            arbiter_alive: timing,
            instance_check: timing,
            disk_check: timing,
            ..Facts::default()
        };
        Server { id: id.to_owned(), pace: Some(pace), ..Server::default() }
    }

    fn found(edit: impl FnOnce(&mut Facts)) -> Vec<Finding> {
        let (mut own, peer) = (server("nd1"), server("nd2"));
        edit(own.pace.as_mut().unwrap());
        let seen = Seen { own, peer: Ok(peer), peer_id: "nd2".to_owned(), clock: None, arbiter: None };
        let mut found = Vec::new();
        examine(&seen, &mut found);
        found
    }

    fn check(edit: impl FnOnce(&mut Facts), expected: &[(&str, &str)]) {
        let found = found(edit);
        let short: Vec<_> = found.iter().map(|finding| (finding.code, finding.fix.as_str())).collect();
        assert_eq!(short.len(), expected.len(), "{short:?}");
        for ((code, fix), (wanted, part)) in short.into_iter().zip(expected) {
            assert!(code == *wanted && fix.contains(part), "{code}: {fix}");
        }
    }

    #[test]
    fn half_of_a_timeout_is_a_warning_with_a_timeout_that_would_do() {
        check(|_| (), &[]);
        check(|pace| pace.peer.gaps.add(800 + 500), &[]);
        check(|pace| pace.peer.gaps.add(800 + 501), &[("heartbeat-late", "heartbeat_timeout = '1300ms'")]);
        check(|pace| pace.session.add(999), &[("instance-late", "db_instance_check_timeout = '2500ms'")]);
        check(|pace| pace.disk.add(4000), &[("disk-late", "disk_check_timeout = '10000ms'")]);
        check(|pace| pace.disk.add(u64::MAX), &[("disk-late", "disk_check_timeout = '")]);
    }

    #[test]
    fn a_detection_that_could_be_sooner_is_told_of_where_enough_was_seen() {
        let slow = Timing { timeout_ms: 20_000, ..DEFAULT };
        let edit = |pace: &mut Facts, took: &[u64]| (pace.disk_check, pace.disk) = (slow, of(took));
        check(|pace| edit(pace, &[3; 99]), &[]);
        check(|pace| edit(pace, &[3; 100]), &[("detection-slow", "disk_check_timeout = '1000ms'")]);
        check(|pace| edit(pace, &[1001; 100]), &[]);
        check(|pace| pace.disk = of(&[3; 1000]), &[]);
    }

    #[test]
    fn silence_is_told_with_its_reason() {
        let silent = |unreached: &str| {
            let heard = Heard { silent_ms: Some(9000), unreached: unreached.to_owned(), ..Heard::default() };
            move |pace: &mut Facts| pace.peer = heard
        };
        check(silent(""), &[("peer-no-heartbeat", "open the port")]);
        check(silent("h:1 refuses connections"), &[("peer-no-heartbeat", "mc_ctl start")]);
        check(
            silent("the other end closed the connection instead of authenticating itself"),
            &[("peer-no-heartbeat", "mc.key")],
        );
        check(
            silent("h:1 refuses connections"),
            &[("peer-no-heartbeat", "mc_ctl init --join there, then mc_ctl rebuild")],
        );
        check(|pace| pace.refused = Some("192.0.2.7: so".to_owned()), &[("connection-rejected", "firewall")]);
        check(
            |pace| pace.refused = Some("192.0.2.7: so".to_owned()),
            &[("connection-rejected", "check whether the caller")],
        );
        check(|pace| pace.peer.connections = 7, &[("link-unsteady", "network")]);
        assert!(found(silent(""))[0].what.ends_with("no heartbeat for 9 s"));
    }

    #[test]
    fn an_arbiter_that_hangs_up_serves_a_new_standby_after_the_rebuild() {
        let found = |state: Option<State>, unreached: &str| {
            let mut own = server("nd2");
            let pace = own.pace.as_mut().unwrap();
            pace.arbiter = Some(Heard { unreached: unreached.to_owned(), ..Heard::default() });
            pace.state = state;
            let arbiter = Some(super::super::Arbiter { id: "arb".to_owned(), version: Ok(String::new()) });
            let seen = Seen { own, peer: Ok(server("nd1")), peer_id: "nd1".to_owned(), clock: None, arbiter };
            let mut found = Vec::new();
            examine(&seen, &mut found);
            found.into_iter().map(|finding| finding.fix).collect::<Vec<_>>()
        };
        let closes = "it closes the connection without an answer; so";
        [closes, ""].iter().for_each(|why| assert_eq!(found(None, why), [""; 0]));
        assert_eq!(found(None, "h:1 refuses connections"), ["on its host: mc_arb start"]);
        let state = || {
            let text = String::new();
            Some(State { word: Word::Switchable, text, complete: true, hints: Vec::new(), start: None })
        };
        assert!(found(state(), closes)[0].contains("after the rebuild"));
        assert!(found(state(), "")[0].contains("open its port"));
    }

    #[test]
    fn the_table_has_a_row_for_each_kind_on_each_server() {
        let seen =
            Seen { own: server("nd1"), peer: Ok(server("nd2")), peer_id: "nd2".into(), clock: None, arbiter: None };
        let lines = table(&seen);
        assert_eq!(lines.len(), 1 + 2 * 4, "{lines:?}");
        assert!(lines[1].starts_with("nd1        heartbeats"), "{lines:?}");
        assert!(lines.iter().all(|line| line.chars().count() == lines[0].chars().count()));
        assert_eq!(json(&seen).as_array().map(Vec::len), Some(8));
        let none = Seen { own: Server::default(), peer: Err(String::new()), ..seen };
        assert!(table(&none).is_empty());
    }
}
