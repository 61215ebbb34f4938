//! The catalogue: number, type, text, cause, what was done, what to do. `mc_ctl explain` and the manual print it.
//!
//! Numbers are never reused. Those below 1000 are the guide's own, everything else begins at 1000.

use super::Entry;
use super::Type::{self, Error, Fatal, Log, Notice, Panic, Warning};

/// The message of this number.
pub fn find(number: u32) -> Option<&'static Entry> {
    CATALOGUE.iter().find(|e| e.number == number)
}

/// Reads `MCA00062`, `mca62` or `62`.
pub fn parse_number(text: &str) -> Option<u32> {
    let digits = if text.get(..3).is_some_and(|p| p.eq_ignore_ascii_case("mca")) { &text[3..] } else { text };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

impl Entry {
    /// What `mc_ctl explain` prints.
    pub fn explain(&self) -> String {
        let Entry { number, text, cause, action, remedy, .. } = self;
        let kind = self.kind.word();
        format!(
            "MCA{number:05}  {kind}: {text}\n\nCause:          {cause}\nSystem action:  {action}\nWhat to do:     {remedy}\n"
        )
    }
}

/// The list of messages for `mc_messages(7)`, in mdoc.
pub fn manual() -> String {
    let mut out = String::from(".Bl -tag -width Ds\n");
    for Entry { number, kind, text, cause, action, remedy } in CATALOGUE {
        out += &format!(".It MCA{number:05} {}\n{}", kind.word(), mdoc(text));
        out += ".Bl -tag -width \"System action\" -compact\n";
        for (head, told) in [("Cause", cause), ("System action", action), ("What to do", remedy)] {
            out += &format!(".It {head}\n{}", mdoc(told));
        }
        out += ".El\n";
    }
    out + ".El\n"
}

/// Plain text as lines of mdoc: a sentence begins a line, none is longer than 79 bytes where that can be.
pub fn mdoc(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace("--", "\\-\\-").replace(" -", " \\-");
    let (mut out, mut line) = (String::new(), String::new());
    // `\&`: whatever a line begins with is no request.
    let mut end = |line: &mut String| out += &format!("\\&{}\n", std::mem::take(line));
    for word in escaped.split(' ') {
        if !line.is_empty() && line.len() + word.len() > 76 {
            end(&mut line);
        }
        line += if line.is_empty() { "" } else { " " };
        line += word;
        if word.ends_with(['.', '?', '!']) {
            end(&mut line);
        }
    }
    if !line.is_empty() {
        end(&mut line);
    }
    out
}

const fn e(
    number: u32,
    kind: Type,
    text: &'static str,
    cause: &'static str,
    action: &'static str,
    remedy: &'static str,
) -> Entry {
    Entry { number, kind, text, cause, action, remedy }
}

const NOTHING: &str = "Nothing.";

/// All messages, by number.
#[rustfmt::skip]
pub static CATALOGUE: &[Entry] = &[
    e(19, Error, "detected an error on the monitored object \"server({server})\": no response:ping timeout: {done}",
        "No heartbeat of the other server's controller has arrived for the detection time, and there is no other sign of life of that server.",
        "What heartbeat_error_action says; the end of the message names it.",
        "Find out whether the other host is down or only the admin network is. Until then do not use --force on either side."),
    e(62, Log, "promotion processing completed",
        "This server's instance was a standby and has become the primary.",
        "The instance takes writes; it runs alone.",
        "Repair the other server, then run \"mc_ctl rebuild\" on it. In the logs of both servers the latest of these messages names the last primary."),
    e(152, Error, "failed to connect to arbitration server \"{arbiter}\" event:\"{event}\"",
        "At mc_ctl start the arbiter did not answer within arbiter_connect_timeout (timeout), or the connection could not be made or was not authenticated (communication error).",
        "The start is given up; nothing was started.",
        "See that mc_arb runs on its host (mc_arb status there), that the arbiter's line in network.conf and mc.key are the same on all members, and that no firewall is in the way. To start without it: mc_ctl start --async-connect-arbiter."),
    e(157, Warning, "communication error with the arbitration server \"{arbiter}\" occurred",
        "The arbiter has not been heard for the detection time: it is down, paused or cut off.",
        "The pair continues as it is, and the controller connects again until it succeeds (MCA01037). While both servers talk, everything is settled between the two. Meanwhile the silence of the other server, which needs the arbiter's consent, is not acted on.",
        "See that mc_arb runs on its host, and the network to it. If it was lost for good: start mc_arb with an empty directory but for its configuration; the pair takes the new one by itself."),
    e(213, Warning, "values of parameters for abnormality monitoring in \"{file}\" are too small for heartbeat_interval in arbitration definition file of arbitration server \"{arbiter}\"",
        "Of later editions of the guide, whose arbiter looks at the servers at an interval of its own. Not told by this version: the arbiter takes the detection time from the servers' heartbeats.",
        "None.",
        "Nothing."),

    // ------------------------------------------------------------------------------------------ the decision core
    e(1000, Log, "view: {from} -> {to}: {why}",
        "It changed who may acknowledge commits. Mirrored(x): x is the primary and the other holds every acknowledged commit. Degraded(x): x alone serves. The number after @ counts the changes.",
        "The change is on disk. The instance is made to agree with it.",
        "After Degraded(x), restore the other server: run \"mc_ctl rebuild\" on it if it was the primary, \"mc_ctl start\" if it was the standby."),
    e(1001, Log, "heartbeats of server \"{server}\" arrive again",
        "The other server's controller is heard again.", "Monitoring continues.", NOTHING),
    e(1002, Warning, "no heartbeat of server \"{server}\" arrives, but its instance lives: nothing is switched",
        "The other controller is dead, stopped or cut off, while its instance still answers or WAL still streams.",
        "Nothing is switched or disconnected as long as this is so.",
        "Start the other controller again, or repair the admin network."),
    e(1003, Error, "the instance of server \"{server}\" has failed: {how}",
        "The postmaster ended without an order by mc_ctl, or did not answer for its detection time.",
        "With failover enabled the other server continues alone: the standby is promoted, or a failed standby is disconnected.",
        "Read the instance's own log for the cause. Then bring the server back as the standby: mc_ctl rebuild where it was the primary, mc_ctl start where it was the standby."),
    e(1004, Log, "the instance of server \"{server}\" answers",
        "The instance was found well for the first time, or again.", "Monitoring continues.", NOTHING),
    e(1005, Warning, "the instance of server \"{server}\" answers, but does not let the controller in",
        "Too many clients, a wrong password, a role or database that is missing, or a socket that another instance took over. The message before this one has the server's own words.",
        "This is not taken for a failure of the instance. What the controller cannot see it cannot act on.",
        "Correct db_instance_username, db_instance_password, target_db or pg_hba.conf, or raise max_connections."),
    e(1006, Error, "a disk of server \"{server}\" has failed: {what}",
        "Writing, syncing or reading back a small file failed, or did not end within the detection time. \"data\" is the data directory, \"tran_log\" is pg_wal.",
        "As for a failed instance, unless tablespace_directory_error_action says message.",
        "Look at the disk and the kernel's log. A full disk is no failure: see MCA01240."),
    e(1007, Log, "the disks of server \"{server}\" are well again",
        "The disk check succeeds again.", "Monitoring continues.", NOTHING),
    e(1008, Warning, "the standby on server \"{server}\" has stopped confirming WAL",
        "Both controllers talk, but the standby does not stream, or is connected and no longer flushes.",
        "With failover enabled the standby is disconnected, so that commits do not wait.",
        "Look at the standby's WAL receiver, its log, and the log transfer network."),
    e(1009, Notice, "{why}; automatic switch and disconnection are off: this would have been done: {what}",
        "Something failed that would have led to a switch or a disconnection.",
        "Nothing was done.",
        "Run \"mc_ctl switch\" or \"mc_ctl detach\" if it is wanted; with \"mc_ctl enable-failover\" the controller acts by itself."),
    e(1010, Log, "{why}: {what}",
        "The controller has decided.", "What the message says after the colon.", NOTHING),
    e(1011, Log, "promotion of the instance of server \"{server}\" begins",
        "This server has the right to run alone and its instance is a standby.",
        "synchronous_standby_names is commented out and the instance promoted; MCA00062 follows.",
        "If MCA00062 does not follow, read the instance's log: it first replays all the WAL that it has received."),
    e(1012, Warning, "the standby on server \"{standby}\" was disconnected; server \"{server}\" serves alone",
        "The primary has the right to run alone.",
        "synchronous_standby_names is commented out and reloaded, and no commit waits for the standby any more.",
        "Repair the standby; when it streams again the pair becomes mirrored by itself."),
    e(1013, Log, "the pair is mirrored: every acknowledged commit is on server \"{server}\" too",
        "The standby streams, is synchronous, and has been proved so.", "Either server can now take over from the other.", NOTHING),
    e(1014, Warning, "server \"{standby}\" did not take over: {why}; server \"{server}\" keeps the role of the primary",
        "A planned switch, or a failover after a failure of the primary, did not succeed. The message gives the reason.",
        "The roles do not change. If the instance is down, the controller starts it if that is safe; otherwise mc_ctl status gives the reason.",
        "Remove the reason that the message gives. To repeat a planned switch, run \"mc_ctl switch\"."),
    e(1015, Error, "server \"{server}\": {job} failed: {why}",
        "A step of work on the instance did not succeed. The message has the reason and a hint.",
        "It is tried again as long as it is needed, with growing pauses.",
        "Follow the hint. The server's instance and its configuration are as the message says."),
    e(1016, Warning, "the instance of server \"{server}\" was stopped: server \"{other}\" has the right to run; \"mc_ctl rebuild\" makes it the standby and copies nothing",
        "The roles were handed over cleanly.",
        "The instance stays down (status: none(inactivated primary)), or becomes the standby with rebuild_action = 'auto'.",
        "Run \"mc_ctl rebuild\" on it. The pair is mirrored again within seconds."),
    e(1017, Warning, "the instance of server \"{server}\" was stopped: server \"{other}\" has the right to run",
        "The other server runs alone, and this instance runs as a primary, for example because another program than mc_ctl started it. If both servers ran, their data would diverge.",
        "The instance stays down (status: none(inactivated primary)).",
        "Run \"mc_ctl rebuild\" on this server when the other server runs as the primary. Do not start the instance with pg_ctl or its own service."),
    e(1018, Warning, "server \"{server}\" needs a rebuild before it can be the standby of server \"{other}\"",
        "This data directory was a primary's; the other server has since continued alone.",
        "The instance is not started.",
        "Type mc_ctl rebuild on it; mc_ctl rebuild --dry-run shows what that would do."),
    e(1019, Warning, "server \"{server}\" cannot take part in a switch: {why}",
        "Its data directory is not the one that the present view names: it was rebuilt, restored or exchanged.",
        "It proposes nothing, is not promoted, and is not started as a primary.",
        "Let it stream as the standby until the pair is mirrored. If it is the only copy left: mc_ctl(8), --adopt-data."),
    e(1020, Error, "the instance of server \"{server}\" was started several times and did not stay up; it is left down",
        "Three times within ten detection times the instance failed after its start. A start that an order ended does not count.",
        "After ten detection times the controller starts the instance again (MCA01180).",
        "Read the instance's log and repair the cause. Run \"mc_ctl start\" to start the instance earlier."),
    e(1021, Error, "the instance of server \"{server}\" is not started: {why}",
        "Starting it could let two primaries run or lose acknowledged commits, or is not possible.",
        "The controller stays up; the instance stays down.",
        "Do what the message says. Do not start the instance with pg_ctl."),
    e(1022, Warning, "commits on server \"{server}\" wait for server \"{standby}\", which does not confirm them; if that server is down and stays down, and was not promoted, run \"mc_ctl detach --force\"",
        "The other server is silent or does not flush, and this one may not continue alone without its consent.",
        "Commits wait; reads work. Repeated each minute.",
        "Repair the other server or the network. It is not known here whether the other server was promoted. If it was, \"mc_ctl detach --force\" makes both servers acknowledge commits, and those of one of them are lost. Use it only if the other server is down, stays down, and has not served alone: run \"mc_ctl status\" on it, or \"mc_arb status\" on the arbiter, first."),
    e(1023, Warning, "synchronous_standby_names on server \"{server}\" was changed by somebody else; it is set back",
        "The setting was edited, or overridden in postgresql.auto.conf, an include or on the command line.",
        "It is set back; until the pair is proved mirrored again, no switch is possible.",
        "Leave this setting to the controller. Remove overriding lines; mc_ctl switch and detach do all that is needed."),
    e(1024, Panic, "split brain: server \"{server}\" ({position}) and server \"{other}\" ({other_position}) have both run alone; the instance of server \"{stopped}\" is kept down",
        "Both servers took writes without each other: one of them by force or by heartbeat_error_action = 'fallback'.",
        "The one that was not promoted is stopped, so that they part no further. Nothing is deleted.",
        "Decide which data to keep. To keep what the running server has, save the rows of the other if they matter, then run \"mc_ctl rebuild\" on the stopped server."),
    e(1025, Warning, "the controller was paused for {ms} ms; its failure counters start anew",
        "The process or the whole host stood still (SIGSTOP, a frozen virtual machine, a stalled disk).",
        "What was not heard during that time is not held against the other server.",
        "If it repeats: look at the load of the host and of its hypervisor; raise heartbeat_timeout."),
    e(1026, Log, "automatic switch and disconnection are enabled", "mc_ctl start -f or enable-failover.", "Both servers keep it.", NOTHING),
    e(1027, Log, "automatic switch and disconnection are disabled", "mc_ctl start -F or disable-failover.", "Both servers keep it. Failures are only reported.", "mc_ctl enable-failover when the work is done."),
    e(1028, Error, "could not write the ledger: {why}",
        "The management directory's disk is full or has failed.",
        "Nothing that depends on it is done; stopping the instance still is.",
        "Make room, or replace the disk."),
    e(1029, Error, "server \"{server}\" belongs to another cluster: its system identifier is {theirs}, ours {ours}",
        "Its data directory was not made from this one's by pg_basebackup, or network.conf names the wrong host.",
        "The two do nothing together.",
        "Check network.conf on both, then rebuild the standby from the primary. Said by an arbiter of a cluster that was made anew: mc_arb forget, with the old system identifier."),
    e(1030, Warning, "the data directory of server \"{server}\" is another one than before: {why}",
        "It was rebuilt, restored from a backup, or copied.",
        "It gets a new name. As long as the view does not name it, it is not promoted.",
        "Nothing after a rebuild. After a restore of the only copy: mc_ctl(8), --adopt-data."),
    e(1031, Log, "an operator detached the standby; \"mc_ctl start\" on the standby attaches it again",
        "\"mc_ctl detach\" was run, or \"mc_ctl stop\" on the standby.", "The primary serves alone. Commits do not wait for the standby, and it does not take over.", "Run \"mc_ctl start\" on the standby to attach it again."),
    e(1032, Log, "the standby is attached again", "\"mc_ctl start\" was run on the detached standby.", "The pair becomes mirrored when the standby streams.", NOTHING),
    e(1033, Warning, "server \"{server}\" has heard neither the other server nor the arbiter for long: its instance is stopped",
        "isolated_primary_action = 'stop'; the other server may have been promoted.",
        "The instance stays down until one of them is heard.",
        "Repair the network."),
    e(1034, Log, "calling {command} for server \"{server}\": {why}",
        "The other server is silent, or an operator forces a change, and a command of yours is to fence it, or to say whether it is dead.",
        "What it goes before waits for its end, at the longest for its time limit.",
        NOTHING),
    e(1035, Log, "{command} for server \"{server}\" has succeeded",
        "It ended with exit status 0.",
        "What it goes before is done: the arbiter is asked, or the right to run alone is given or taken.",
        NOTHING),
    e(1036, Error, "{command} for server \"{server}\" has failed: {why}",
        "It ended with another exit status than 0, was ended at its time limit, or could not be run.",
        "What it goes before is not done. It is called again after ten detection times, while there is still reason to.",
        "See what it wrote, in MCA01112 just before, and run it by hand as that user. If the other server is down, stays down, and has not served alone since it was last heard, run \"mc_ctl switch --force --no-fencing\" on the standby or \"mc_ctl detach --force --no-fencing\" on the primary. Whatever it acknowledged alone is lost."),
    e(1037, Log, "arbitration server \"{arbiter}\" is heard",
        "The arbiter answers again after MCA00157.",
        "It is asked where its consent is needed.",
        NOTHING),
    e(1038, Panic, "both servers have the right to run alone: this server by {mine}, and, as the arbiter reports, server \"{peer}\" by {theirs}",
        "One of them was made the only server by force, while the arbiter gave the right to the other. The two servers do not hear each other.",
        "Nothing: the arbiter's word does not stop a server. When the two hear each other, one of them is stopped.",
        "Decide which server's commits are to be kept. Stop the other one at once: mc_ctl stop there. Then repair the network."),
    e(1039, Warning, "server \"{server}\" requested the right to run alone and was refused: {why}",
        "A server that no longer hears the other one asked, and the rules do not allow it; the message says which. Usually only the network between the two servers is cut: the arbiter then prefers the primary.",
        "Nothing changes. The server asks again while there is reason to.",
        "Repair the network between the two servers. If the message says that the fencing command failed, see MCA01036 before it."),
    e(1040, Log, "server \"{server}\" is heard", "Its heartbeats arrive at the arbiter.", "None.", NOTHING),
    e(1041, Warning, "server \"{server}\" is not heard any more",
        "None of its heartbeats has arrived for the detection time.",
        "The other server is given the right to run alone when it asks.",
        "Look at that host, its controller, and the network between it and the arbiter."),
    e(1042, Error, "the ledger of this arbiter, of term {now}, is older than what a server has heard from it, term {was}: it was put back",
        "The arbiter's directory, or its host, was put back from a backup or a snapshot. It may have forgotten to whom it gave the right to run alone.",
        "It continues as a new arbiter: it grants nothing until the two servers have taken it as that, which they do by themselves while both are well.",
        "Look at mc_ctl status. Never put an arbiter's directory back: mc_arb start with an empty one is enough."),
    e(1043, Warning, "arbitration server \"{arbiter}\" refused server \"{server}\" the right to run alone",
        "The arbiter still hears the other server, has given it the right, or has not listened for long enough since its own start.",
        "This server asks again while there is reason to.",
        "The arbiter's log says why (MCA01039). Force is for an arbiter that is lost: if this one refuses, the other server may be serving, and commits are lost if both serve."),
    e(1044, Log, "a rebuild of server \"{server}\" from server \"{other}\" begins, {how}",
        "mc_ctl rebuild, or rebuild_action = 'auto'. The other server says that it runs as the primary, and alone.",
        "Until the data directory is a standby's, nothing can start an instance from it. MCA01124 tells what was copied, and mc_ctl status how far it is.", NOTHING),
    e(1045, Log, "the data directory of server \"{server}\" is a standby's of server \"{other}\" now; the instance is started",
        "The rebuild has made it.", "It catches up; then the pair is mirrored again (MCA01013).", NOTHING),
    e(1046, Error, "the rebuild of server \"{server}\" failed: {why}",
        "As the text says.",
        "What could be undone is undone; a directory that pg_rewind has begun to change stays as it is, and cannot be started. With rebuild_action = 'auto' the controller tries again (MCA01181), otherwise it does not.",
        "Repair the cause, then run \"mc_ctl rebuild\". \"mc_ctl rebuild --dry-run\" shows what it would do. The other server is not touched by any of this."),
    e(1047, Warning, "a rebuild of server \"{server}\" was interrupted and cannot continue; what could be undone is undone",
        "The controller ended while it ran, and since then the other server has not said that it runs as the primary.",
        "The instance is not started.", "When the other server runs as the primary, type mc_ctl rebuild."),
    e(1048, Log, "calling {command}: {why}",
        "A change of the pair's state of which a command of yours is to be told.",
        "Nothing waits for its end, but mc_ctl detach for that of pre_detach_command, and mc_ctl stop at its end.", NOTHING),
    e(1049, Log, "{command} has succeeded", "It ended with exit status 0.", "None.", NOTHING),
    e(1050, Notice, "{command} was ended: the state of the pair has changed since it was called",
        "It still ran, or hung, when what it was told of was no longer so.",
        "It was killed with all that it had started in its process group. The command of the new state is called next.",
        "If it takes long regularly, let it do its work in less time."),
    e(1051, Warning, "{command} has failed: {why}",
        "It ended with another exit status than 0, was killed at status_change_command_timeout, or could not be run.",
        "The pair continues as if it had succeeded. It is not called again for this change; mc_ctl status tells of the failure until a later call succeeds, or the controller is started anew.",
        "See what it wrote, in MCA01112 just before. Do by hand what it was to do, or run it again with the same arguments."),
    e(1053, Error, "the data of server \"{server}\" ends at {end} and no longer contains the WAL up to {lsn}: {witness}",
        "The data directory was restored to an older state, its newest WAL was lost, or its disk has lost what was written.",
        "The data directory is treated as another one: this server neither keeps nor takes the role of the primary with it. A mirrored primary hands over to its standby if that holds everything; a standby catches up from its primary.",
        "Find out who has changed the data directory, and check the disk. If failover is disabled, run \"mc_ctl switch\" to make the other server the primary. If this is a standby whose primary is lost, \"mc_ctl start --adopt-data\" on it loses what was written between the two positions."),
    e(1054, Error, "server \"{primary}\" does not contain the WAL up to {lsn} that standby \"{server}\" holds",
        "The primary's data went back to an older state, or the standby has written WAL of its own.",
        "The standby does not follow this primary, and the pair is not mirrored.",
        "If the pair was mirrored, the primary hands over by itself, or with \"mc_ctl switch\" if failover is disabled. Otherwise run \"mc_ctl rebuild\" on the standby; it lists what would be lost."),
    e(1055, Panic, "neither server holds everything: server \"{server}\" lost its WAL up to {lsn}, server \"{other}\" holds {theirs}",
        "The data directories of both servers were restored to older states, or have lost WAL.",
        "Nothing is promoted. Nothing is deleted.",
        "Compare the data of both servers. Run \"mc_ctl start --adopt-data\" on the server whose data is to be kept, then \"mc_ctl rebuild\" on the other one. Transactions after the end of the data that is kept are lost."),
    e(1056, Panic, "server \"{server}\" is not started and does not hand over: its data directory was exchanged, and commits may not have waited for server \"{other}\"",
        "synchronous_standby_names was changed on the primary, and later its data directory was restored, renamed or exchanged. Transactions that did not wait may exist only in the former data directory.",
        "Nothing is promoted. Nothing is deleted.",
        "Find the former data directory. If it is complete, put it back, else keep the present one, and run \"mc_ctl start --adopt-data\" on this server. Or run it on the other server, whose data may lack transactions that did not wait. Then run \"mc_ctl rebuild\" on the server that was not chosen. Transactions that only that server holds are lost."),

    // ------------------------------------------------------------------------------------------------- the daemon
    e(1100, Log, "mirroring controller {version} of server \"{server}\" is started", "mc_ctl start, or the watcher.", "Monitoring begins.", NOTHING),
    e(1101, Log, "mirroring controller of server \"{server}\" ends", "mc_ctl stop, or a signal.", "Monitoring ends.", NOTHING),
    e(1102, Error, "the controller of server \"{server}\" ended unexpectedly ({how}); it is started again",
        "It crashed or was killed.", "The watcher starts it again; the instance is not touched.",
        "If it was not killed by hand, report it with the messages before this one."),
    e(1103, Error, "the controller of server \"{server}\" stood still for {ms} ms; it is ended and started again",
        "Its decision thread did nothing for agent_alive_timeout.", "The watcher starts it again; the instance is not touched.",
        "Look at the load of the host. If the host was well, report it with the messages before this one."),
    e(1104, Warning, "{text}",
        "Two servers alone cannot tell a dead peer from a broken network.",
        "On silence past the retries, each server with failover enabled acts alone.",
        "Set heartbeat_error_action in both ID.conf files: 'switch' where service must continue after the primary's host dies, 'disconnect' where it must continue after the standby's host dies; both never lose acknowledged commits. Or write 'fallback' to accept the risk."),
    e(1105, Notice, "automatic switch and disconnection are off: failures are only reported; mc_ctl enable-failover, or start with -f, lets the controller act",
        "The controller was started with neither -f nor -F, and the other server does not have it enabled either.",
        "Synchronous replication is kept. A failure is reported, and nothing is switched.",
        "mc_ctl enable-failover, once both servers run. -F says off without this notice."),
    e(1106, Notice, "{note}", "A configuration file has something without effect, or worth knowing.", "None.", "As the text says."),
    e(1107, Log, "connected with \"{member}\"", "Both hold the same key.", "Heartbeats are exchanged.", NOTHING),
    e(1108, Warning, "not connected with \"{member}\": {why}",
        "It does not run, cannot be reached, or the connection broke.", "The controller connects again until it succeeds.",
        "Check that its controller runs, network.conf on both, firewalls, and the network."),
    e(1109, Warning, "a connection from \"{from}\" was refused: {why}",
        "The caller does not hold this cluster's mc.key, or is no member.", "Nothing was answered.",
        "First check whether the caller is a member: compare the address with network.conf, and ask who administers that host. Only if it is a member, copy mc.key to it from the other server."),
    e(1110, Warning, "{text}",
        "A look at the instance or at a disk did not succeed; the text has the server's or the system's own words.",
        "What it means for the server is told by MCA01003, MCA01005 or MCA01006. A session that is refused is no failure.",
        "As the text says. Where a session is refused: db_instance_username, db_instance_password, target_db, pg_hba.conf, max_connections."),
    e(1111, Log, "request of an operator: {what}", "An mc_ctl command.", "It is carried out or refused; the command tells.", NOTHING),
    e(1112, Log, "{program}: {line}", "Output of a program that the controller has run.", "None.", NOTHING),
    e(1113, Warning, "PostgreSQL {version} may acknowledge commits before synchronous_standby_names takes effect while it starts (accept_startup_race = 'on')",
        "A defect of that version, allowed by the parameter.", "The pair becomes mirrored all the same; a crash just after such a start can lose commits.",
        "Install at least 17.5, 16.9, 15.13, 14.18 or 13.21."),
    e(1114, Warning, "management directory \"{directory}\" is on the filesystem of data directory \"{data}\"",
        "One filesystem holds both.",
        "The controller starts. If that filesystem fails, this server cannot write its ledger, and so cannot consent that the other server takes over.",
        "Move the management directory to another filesystem while this server is the standby: \"Moving the management directory\" in mirroring-controller(7)."),
    e(1115, Notice, "the filesystem of \"{path}\" keeps no birth times of files",
        "statx returns none.", "A ledger that is put back from a backup is recognised by less.", "Never restore the management directory's contents. ext4, xfs and btrfs keep them."),
    e(1116, Warning, "{text}", "Something did not succeed; the text says what.", "The controller continues.", "As the text says."),
    e(1117, Error, "{text}", "Something failed; the text says what.", "The controller continues without it.", "As the text says."),
    e(1118, Fatal, "{text}", "The controller cannot continue; the text says why.", "It ends. The instance is not touched.", "As the text says; then mc_ctl start."),
    e(1119, Panic, "internal error: {text}", "A mistake in the controller.", "It ends, and its watcher starts it again. The instance is not touched.", "Report it with the messages before this one."),
    e(1120, Warning, "{count} messages are missing in this file", "The disk of the management directory did not take them in time.", "Syslog has them.", "Look at the disk."),
    e(1121, Warning, "could not open a file to check the disk of \"{path}\" ({place}): {why}",
        "This process cannot open more files, or the system has no memory.",
        "The disk does not count as failed. The check is repeated at the next interval.",
        "Raise the limit of open files (ulimit -n), or free memory."),
    e(1122, Log, "the file system of \"{path}\" ({place}) has free space again", "Space was freed after MCA01240.",
        "The alarm ends. The controller continues to measure the free space.", NOTHING),
    e(1123, Warning, "heartbeat_error_action is \"{mine}\" here and \"{theirs}\" on server \"{server}\"",
        "The two ID.conf files differ, or network.conf has an arbiter on one of the servers only.",
        "Each server acts by its own, but switch and disconnect only while both servers name the same.",
        "Set the same on both servers, and start their controllers anew."),
    e(1124, Log, "the data directory was made by {how}: {bytes} bytes in {seconds} s; {why}",
        "A rebuild (MCA01044). \"no copy\": this server had nothing that the other one has not.",
        "The instance is started as the standby.", "Where an old directory was kept beside the new one, remove it when nobody needs it."),
    e(1125, Warning, "this server had what the other one has not: {what}; kept in \"{kept}\"",
        "When this server lost its role, its WAL went further than what the other one had received. Of commits that waited for the standby no client was told that they succeeded.",
        "The WAL of it is kept with a summary, before anything is overwritten. mc_ctl history shows it.",
        "If it matters: pg_waldump shows it in full. Else remove the directory."),

    // ---------------------------------------------------------------------------------------- the arbiter's process
    e(1130, Log, "arbiter {version} is started; clusters: {clusters}", "mc_arb start, or its watcher.", "It listens. For one detection time of each pair it grants nothing.", NOTHING),
    e(1131, Log, "arbiter ends", "mc_arb stop, or a signal.", "A pair that is well continues; none can switch or disconnect on silence.", "Start it again soon."),
    e(1132, Error, "the arbiter ended unexpectedly ({how}); it is started again",
        "It crashed or was killed.", "The watcher starts it again. Pairs that are well are not disturbed.",
        "If it was not killed by hand, report it with the messages before this one."),
    e(1133, Error, "the arbiter stood still for {ms} ms; it is ended and started again",
        "Its loop did nothing for 10 s.", "The watcher starts it again. Pairs that are well are not disturbed.",
        "Look at the load of the host. If the host was well, report it with the messages before this one."),
    e(1134, Log, "system identifier {system} is served from now on",
        "A server has told its view for the first time.", "It is noted in a ledger. It can be asked once the pair is mirrored with it.", NOTHING),
    e(1135, Error, "not served: {why}",
        "Its ledger cannot be read, is not whole, was copied or put back, or belongs to another cluster.",
        "This cluster's servers find no arbiter; other clusters are served.",
        "If the file was moved, stop mc_arb and put the file itself back. Else run mc_arb forget with the system identifier that is named: the servers then take this arbiter as a new one."),
    e(1136, Error, "a server has system identifier {theirs}, and the ledger is of {ours}",
        "The pair was made anew, or network.conf names the wrong host.",
        "The arbiter does nothing for that server.",
        "If the old data is gone: mc_arb forget with the ledger's system identifier."),
    e(1137, Log, "system identifier {system} is forgotten", "mc_arb forget.", "Its ledger is removed. A server that tells it again makes a new one.", NOTHING),
    e(1140, Warning, "could not resolve host name \"{host}\": {why}; {known}",
        "The name service does not know the name, does not answer, or returns an error. Reported once until the name resolves again.",
        "The lookup is repeated every second. Connections use the last known addresses; without any, the member cannot be reached until the name resolves.",
        "Check the name service of this host (/etc/hosts, /etc/resolv.conf, /etc/nsswitch.conf), or write addresses instead of names in network.conf."),
    e(1141, Notice, "host name \"{host}\" resolves again: {addresses}",
        "The name service has answered after MCA01140.", "Connections use these addresses.", NOTHING),
    e(1142, Warning, "{text}; this is tried again until it succeeds",
        "The address is not on an interface of this host, or the name does not resolve, for example because the network is not up yet at boot. A second pair of host and port may also be in use by another program.",
        "The program runs and tries again every second. Until then other members cannot connect to this address.",
        "If this does not end soon after the boot: check the interfaces of this host, and its line in network.conf (for the arbiter also my_address in arbitration.conf)."),
    e(1143, Notice, "listening on {address}",
        "The address of MCA01142 can be listened on now.", "Other members can connect.", NOTHING),
    // ---------------------------------------------------------------------------------------- keys of the members
    e(1150, Warning, "a connection from \"{from}\" as member {members} was refused: {why}",
        "The caller holds mc.key and does not prove the key that network.conf lists for the member. It is an impostor that has read mc.key, or the member itself with another network.conf or private key.",
        "The connection was closed without an answer.",
        "If the member itself calls: put the same network.conf on all members and restart its controller (mc_ctl stop --mc-only, mc_ctl start --mc-only). If not: find the caller, and make a new mc.key and new keys for all members."),
    // ---------------------------------------------------------------------------------------- files
    e(1170, Notice, "removed replication slot \"{name}\", which this server created while it was the primary; it kept {kept}",
        "The server becomes a standby. On a standby no client advances the slots that it created as the primary, and they would keep WAL until the disk is full.",
        "The slot is removed before the server starts. Slots that PostgreSQL synchronizes from the primary (version 17) stay, and a restart of a standby removes nothing.",
        "If a client needs the slot, create it on the new primary."),
    e(1171, Error, "the filesystem of the ledger is full; the ledger uses the space that file \"{path}\" reserves for it",
        "Something has filled the filesystem of the management directory. Without the reserved space the server could neither switch nor disconnect.",
        "A part of the reserved space is released for each write of the ledger that needs it; there is enough for about 16 writes.",
        "Free space on the filesystem soon. The management directory should have a filesystem of its own."),
    e(1172, Log, "file \"{path}\" reserves space for the ledger again", "There is free space again.", "The reserved space is complete.", NOTHING),
    e(1173, Log, "removed the oldest {removed} entries of the history \"{path}\"", "The history has reached 1 MiB.",
        "The older half is removed. The newest entries stay.", NOTHING),
    e(1174, Notice, "removed \"{kept}\", which an earlier rebuild saved: {what}",
        "Rebuilds have saved WAL more than 16 times, or more than 4 GiB of it.",
        "The oldest directories are removed. The newest one always stays.",
        "Copy the directories in DIR/ID/lost that you need to another place."),
    // ------------------------------------------------------------------------------------ operations of the operator
    e(1180, Log, "the instance of server \"{server}\" is started again after it was left down",
        "Ten detection times have passed since the last start that failed (MCA01020).",
        "The controller starts the instance. If it fails three more times, it is left down again.", NOTHING),
    e(1181, Log, "the controller retries the rebuild of server \"{server}\" in at most {seconds} s (attempt {attempt} of {limit})",
        "The automatic rebuild failed (MCA01046) and rebuild_action is \"auto\".",
        "The pauses grow from 10 seconds to 5 minutes. If the data directory was not changed, the controller retries as soon as the primary returns.",
        "Repair the cause that MCA01046 reports. After the last attempt run \"mc_ctl rebuild\" on this server."),
    e(1185, Warning, "the instance of server \"{server}\" crashed, and no other member is heard: it is not started",
        "isolated_restart = 'off', and neither the other server nor the arbiter was heard since the crash. Commits that waited would become visible, and would be lost if the standby has taken over.",
        "The controller starts the instance, or lets the standby take over, when it hears one of them.",
        "Repair the network. \"mc_ctl status\" on the other server and \"mc_arb status\" on the arbiter show whether the other server serves. Only if it is down, stays down and has not served alone, run \"mc_ctl detach --force\" on this server. If the other server serves, both servers acknowledge commits, and those of one server are lost."),
    e(1186, Warning, "commits on server \"{server}\" can be lost: {found}",
        "A setting lets commits return before they are safe on both servers, or before they are safe on disk.",
        "The status shows it. Nothing else changes.",
        "Set synchronous_commit to 'on' or 'remote_apply' everywhere, and fsync to 'on'."),
    e(1187, Log, "no setting of server \"{server}\" weakens commits any more", "MCA01186 does not apply any more.", "None.", NOTHING),
    e(1200, Log, "waiting for checkpoint {number} of {count} on this server: {far}",
        "Before the pair is mirrored, or before a switch, the primary makes checkpoints. The checkpointer makes progress.",
        "The controller waits as long as the checkpointer makes progress. It gives the checkpoint up after 20 detection times without any.",
        "None. If the checkpoint is too slow, look at the disk."),
    e(1220, Error, "arbitration server \"{arbiter}\" records another cluster: its system identifier is {theirs}, ours {ours}",
        "The arbiter has served another pair with this mc.key, or network.conf names the wrong arbiter.",
        "This server founds no pair. The arbiter gives no right to run alone.",
        "Check network.conf and db_instance. If the other cluster no longer exists, run \"mc_arb forget\" with its system identifier on the arbiter."),
    e(1230, Log, "configuration files reloaded; {changed}",
        "An operator has run \"mc_ctl reload\", or SIGHUP was received.", "The new values are in effect.", "Nothing."),
    e(1231, Warning, "{what} cannot be changed without restarting the controller",
        "The configuration files contain a change that a reload cannot make.", "The value that the controller was started with remains in effect.",
        "Run \"mc_ctl stop --mc-only\" and \"mc_ctl start --mc-only\". The instance continues to run."),
    e(1232, Error, "configuration files not reloaded: {why}",
        "The configuration files contain a mistake, or could not be read.", "No value has changed.",
        "Correct the file and run \"mc_ctl reload\"."),
    e(1233, Warning, "{failure}",
        "A password, a certificate or pg_hba.conf has changed. Connections that exist continue; the next one fails. The message contains the error of the server or of libpq.",
        "mc_ctl status shows the failure, and --check is WARNING. The controller tries the connection again every few seconds.",
        "Set db_instance_password in ID.conf on both servers to the password of the database user and run \"mc_ctl reload\" on both, or correct the certificate or pg_hba.conf."),
    e(1234, Log, "{what}", "The cause of MCA01233 is repaired, or the connection is not needed now.", "The warning ends.", NOTHING),
    e(1235, Log, "the password of ID.conf was written to primary_conninfo, and the instance was reloaded",
        "primary_conninfo of this standby had another password for the user db_instance_username, and the primary accepts that of ID.conf.",
        "The WAL receiver reconnects with the password.", NOTHING),
    e(1236, Warning, "{why}; PostgreSQL's log goes to \"{instead}\"",
        "The user that runs the controller cannot write log_file, or its directory is missing.",
        "The instance was started all the same. Until its next start it writes its log to the named file.",
        "Correct the owner and mode of the file or of its directory, or set log_file in ID.conf."),
    e(1240, Error, "no disk space is left: {what}",
        "The file system, or the user's quota, has no space for what is written next: a WAL segment in pg_wal, 1 MB elsewhere. The message names the file system, the directory, and what uses the space.",
        "mc_ctl status shows the disk as full, and --check is CRITICAL. The health endpoint does not answer /primary with 200 while writes fail. No switch is made: a full disk is not a failed disk. If pg_wal is full, PostgreSQL stops, and the controller acts as after a crash.",
        "Free space, or enlarge the file system. Drop replication slots that no client uses, repair archive_command, remove old log files. Never delete files in pg_wal."),
    e(1241, Warning, "little disk space is left: {what}",
        "Less than 5 percent and less than 10 GB of the file system are free, or less than two of what is written next (a WAL segment in pg_wal, 1 MB elsewhere). If at most twice as much is free, the rate of the last minutes fills the file system within an hour.",
        "mc_ctl status shows a hint, and --check is WARNING.",
        "Free space, or enlarge the file system, before it is full (MCA01240)."),
    e(1242, Log, "the file system of \"{path}\" ({place}) is no longer nearly full", "Space was freed after MCA01241.",
        "The warning ends.", NOTHING),
    e(1250, Log, "server \"{other}\" has not responded since the start of server \"{server}\", which asks the arbiter for the right to run in {seconds} s",
        "Both servers were down, for example after a power failure, and only the standby has started.",
        "If the primary does not respond by then (startup_wait), the standby asks the arbiter, and is promoted if the arbiter consents.",
        "Start the other server if it is to remain the primary. Otherwise none."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_and_every_part_is_written() {
        assert!(CATALOGUE.windows(2).all(|w| w[0].number < w[1].number));
        for e in CATALOGUE {
            assert!([e.text, e.cause, e.action, e.remedy].iter().all(|t| !t.is_empty()), "MCA{:05}", e.number);
            assert_eq!(e.text.matches('{').count(), e.text.matches('}').count(), "MCA{:05}", e.number);
            assert!(!e.text.contains('\n') && !e.text.contains("  "), "MCA{:05}: one line", e.number);
        }
    }

    #[test]
    fn numbers_are_read_as_people_type_them() {
        for text in ["MCA00062", "mca62", "62", "00062"] {
            assert_eq!(parse_number(text), Some(62), "{text}");
        }
        for text in ["", "MCA", "MCA-1", "x", "MCé62", "99999999999"] {
            assert_eq!(parse_number(text), None, "{text}");
        }
    }
}
