//! The catalogue: number, type, text, cause, what was done, what to do. `mc_ctl explain` and the manual print it.
//!
//! Numbers are never reused. Those below 1000 are the guide's own, everything else begins at 1000.

use super::Entry;
use super::Type::{self, Error, Fatal, Log, Notice, Panic, Warning};
use super::commands::{self, Command, Form};

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
    /// What `mc_ctl explain` prints, with the command in this form.
    pub fn explain(&self, form: &Form) -> String {
        let Entry { number, text, cause, action, remedy, .. } = self;
        let kind = self.kind.word();
        let command = commands::find(*number)
            .map(|command| format!("Command:        {}\nRun it on:      {}\n", command.line_in(form), command.on));
        format!(
            "MCA{number:05}  {kind}: {text}\n\nCause:          {cause}\nSystem action:  {action}\nWhat to do:     {remedy}\n{}",
            command.unwrap_or_default()
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
        if let Some(Command { line, on, .. }) = commands::find(*number) {
            out += &format!(".It Command\n{}", mdoc(&format!("\"{line}\" on {on}.")));
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
        "No heartbeat of the other server's controller has been received for the detection time, and its instance does not respond either.",
        "The controller acts as heartbeat_error_action defines; the end of the message states what it does.",
        "Find out whether the other host or only the admin network is down. Until then, do not use --force on either server."),
    e(62, Log, "promotion processing completed",
        "This server's instance was a standby and has become the primary.",
        "The instance accepts writes and runs alone.",
        "Repair the other server, then run \"mc_ctl rebuild\" on it. If both servers have logged this message, the server with the latest one was the last primary."),
    e(152, Error, "failed to connect to arbitration server \"{arbiter}\" event:\"{event}\"",
        "When \"mc_ctl start\" ran, the arbiter did not respond within arbiter_connect_timeout (timeout), or the connection failed or was not authenticated (communication error).",
        "Nothing was started.",
        "Run \"mc_arb status\" on the host of the arbiter. Check that the arbiter's line in network.conf and mc.key are the same on all members, and that no firewall blocks the port. To start without the arbiter, run \"mc_ctl start --async-connect-arbiter\"."),
    e(157, Warning, "communication error with the arbitration server \"{arbiter}\" occurred",
        "The controller has received no message from the arbiter for the detection time: the arbiter is down, paused or cut off.",
        "The pair continues, and the controller tries to connect until it succeeds (MCA01037). While both servers communicate, they need no arbiter. If the other server stops responding meanwhile, the controller does not act, because that requires the consent of the arbiter.",
        "Run \"mc_arb status\" on the host of the arbiter, and check the network. If the arbiter is permanently lost, run \"mc_arb start\" with a directory that contains only its configuration; the pair accepts the new arbiter automatically."),
    e(213, Warning, "values of parameters for abnormality monitoring in \"{file}\" are too small for heartbeat_interval in arbitration definition file of arbitration server \"{arbiter}\"",
        "Later editions of the guide define this message for an arbiter that monitors the servers at an interval of its own. This version never issues it, because its arbiter receives the detection time with the heartbeats of the servers.",
        "None.",
        "Nothing."),

    // ------------------------------------------------------------------------------------------ the decision core
    e(1000, Log, "view: {from} -> {to}: {why}",
        "The right to acknowledge commits changed. Mirrored(x): x is the primary, and the other server has every acknowledged commit. Degraded(x): x serves alone. The number after @ counts the changes.",
        "The change is stored in the ledger. The controller then adapts the instance to it.",
        "After Degraded(x), restore the other server: run \"mc_ctl rebuild\" on it if it was the primary, \"mc_ctl start\" if it was the standby."),
    e(1001, Log, "heartbeats from server \"{server}\" have resumed",
        "The controller receives the heartbeats of the other server again.", "Monitoring continues.", NOTHING),
    e(1002, Warning, "no heartbeat from server \"{server}\", but its instance responds: nothing is switched",
        "The controller of the other server has failed, was stopped or is cut off, while its instance still responds or WAL still streams.",
        "Nothing is switched or disconnected while the instance responds.",
        "Run \"mc_ctl start --mc-only\" on the other server, or repair the admin network."),
    e(1003, Error, "the instance of server \"{server}\" has failed: {how}",
        "The postmaster ended without a command of mc_ctl, or did not respond for its detection time.",
        "If failover is enabled, the other server continues alone: a standby is promoted; a primary disconnects the failed standby.",
        "Read the log of the instance for the cause. Then make the server the standby: run \"mc_ctl rebuild\" on it if it was the primary, or \"mc_ctl start\" if it was the standby."),
    e(1004, Log, "the instance of server \"{server}\" responds",
        "The instance responds for the first time, or again after a failure.", "Monitoring continues.", NOTHING),
    e(1005, Warning, "the instance of server \"{server}\" rejects the controller's connection",
        "Too many clients are connected, the password is wrong, a role or database is missing, or another instance uses the socket. The message before this one contains the error of the server.",
        "The instance does not count as failed. The controller cannot detect a failure of the instance until it can connect.",
        "Correct db_instance_username, db_instance_password, target_db or pg_hba.conf, or increase max_connections."),
    e(1006, Error, "a disk of server \"{server}\" has failed: {what}",
        "Writing, flushing or reading a small file failed, or did not end within the detection time. \"data\" is the data directory, \"tran_log\" is pg_wal.",
        "The controller acts as for a failed instance (MCA01003), unless tablespace_directory_error_action is 'message'.",
        "Check the disk and the log of the kernel (dmesg). A full disk is not a failure; see MCA01240."),
    e(1007, Log, "the disks of server \"{server}\" have recovered",
        "The disk check succeeds again.", "Monitoring continues.", NOTHING),
    e(1008, Warning, "the standby on server \"{server}\" has stopped confirming WAL",
        "Both controllers communicate, but the standby does not stream, or is connected and does not flush WAL. If its WAL receiver cannot connect again, the primary rejects its password, its certificate or its address, or no longer has the WAL.",
        "If failover is enabled, the controller disconnects the standby, so that commits do not wait.",
        "Run \"mc_ctl check\" on either server: it names a password, a certificate or a line of pg_hba.conf that is rejected, and WAL that is missing. If it finds none, check the log of the standby, and the log transfer network."),
    e(1009, Notice, "{why}; automatic switch and disconnection are disabled; the controller would have done this: {what}",
        "Something failed that would have led to a switch or a disconnection.",
        "Nothing was done.",
        "Run \"mc_ctl enable-failover\", unless --force, --adopt-data or \"mc_ctl recover\" was used on the other server since the pair was last switchable: the controller then does what the message names. To keep failover disabled, and if the controller of the other server responds, run \"mc_ctl switch\" or \"mc_ctl detach\" instead."),
    e(1010, Log, "{why}: {what}",
        "The controller has decided on an action; the message states the reason before the colon.", "The controller performs the action that the message states after the colon.", NOTHING),
    e(1011, Log, "promotion of the instance of server \"{server}\" has started",
        "This server has the right to run alone and its instance is a standby.",
        "The controller comments out synchronous_standby_names and promotes the instance. MCA00062 follows.",
        "If MCA00062 does not follow, read the log of the instance: it first replays all the WAL that it has received."),
    e(1012, Warning, "the standby on server \"{standby}\" was disconnected; server \"{server}\" serves alone",
        "The primary has the right to run alone.",
        "The controller comments out synchronous_standby_names and reloads the instance. Commits no longer wait for the standby.",
        "Repair the standby, then run \"mc_ctl start\" on it if its instance is down. When it streams, the pair becomes mirrored automatically."),
    e(1013, Log, "the pair is mirrored: every acknowledged commit is also on server \"{server}\"",
        "The standby streams, and the controller has verified that it is synchronous.", "Either server can now take over from the other.", NOTHING),
    e(1014, Warning, "server \"{standby}\" did not take over: {why}; server \"{server}\" keeps the role of the primary",
        "A planned switch, or a failover after a failure of the primary, did not succeed. The message gives the reason.",
        "The roles do not change. If the instance is down, the controller starts it if that is safe; otherwise mc_ctl status gives the reason.",
        "Repair the cause that the message states, such as a full disk of the primary, which has no space for the checkpoint before a switch. To repeat a planned switch, run \"mc_ctl switch\"."),
    e(1015, Error, "server \"{server}\": {job} failed: {why}",
        "A step on the instance failed. The message contains the reason and a hint. If the disk is full (MCA01240), a checkpoint fails and can end in a PANIC of the instance.",
        "The controller repeats the step at increasing intervals as long as the step is required.",
        "Follow the hint in the message. \"mc_ctl status\" shows the state of the instance."),
    e(1016, Warning, "the instance of server \"{server}\" was stopped: server \"{other}\" has the right to run; \"mc_ctl rebuild\" makes it the standby and copies nothing",
        "A switch was completed, and this server handed over the role of the primary.",
        "The instance stays down (status: none(inactivated primary)). If rebuild_action is 'auto', the controller makes it the standby.",
        "Run \"mc_ctl rebuild\" on it. The pair is mirrored again within seconds."),
    e(1017, Warning, "the instance of server \"{server}\" was stopped: server \"{other}\" has the right to run",
        "The other server runs alone, and this instance runs as a primary, for example because a program other than mc_ctl started it. If both servers ran, their data would diverge.",
        "The instance stays down (status: none(inactivated primary)).",
        "Run \"mc_ctl rebuild\" on this server when the other server runs as the primary. Do not start the instance with pg_ctl or its own service."),
    e(1018, Warning, "server \"{server}\" needs a rebuild before it can be the standby of server \"{other}\"",
        "This data directory belonged to a primary, and the other server has since continued alone.",
        "The instance is not started.",
        "Run \"mc_ctl rebuild\" on it. \"mc_ctl rebuild --dry-run\" shows the steps."),
    e(1019, Warning, "server \"{server}\" cannot take part in a switch: {why}",
        "Its data directory is not the one that the ledger records: it was rebuilt, restored or exchanged.",
        "The controller does not promote the instance, and does not start it as a primary.",
        "Leave it streaming as the standby until the pair is mirrored. If it is the only remaining copy, run \"mc_ctl start --adopt-data\" on it: see \"Adopting the data\" in mirroring-controller(7)."),
    e(1020, Error, "the instance of server \"{server}\" failed after each of several starts; it is started again after ten detection times",
        "The instance failed three times after a start within ten detection times. A start that a command ended does not count.",
        "After ten detection times the controller starts the instance again (MCA01180).",
        "Read the log of the instance and repair the cause. Run \"mc_ctl start\" to start the instance earlier."),
    e(1021, Error, "the instance of server \"{server}\" is not started: {why}",
        "A start could make two primaries run or lose acknowledged commits, or is not possible. The message states which.",
        "The controller continues to run, and the instance stays down.",
        "Follow the hint in the message. Do not start the instance with pg_ctl."),
    e(1022, Warning, "commits on server \"{server}\" are waiting for server \"{standby}\", which does not confirm them; if that server is down and stays down, and was not promoted, run \"mc_ctl detach --force\"",
        "The other server does not respond or does not flush WAL, and this server must not continue alone without its consent or that of the arbiter.",
        "Commits wait; queries work. The message is repeated every minute.",
        "Repair the other server or the network. This server cannot determine whether the other server was promoted. If it was, \"mc_ctl detach --force\" makes both servers acknowledge commits, and those of one of them are lost. Use it only if the other server is down, stays down, and has not served alone: see \"Commits wait\" in mirroring-controller(7)."),
    e(1023, Warning, "synchronous_standby_names on server \"{server}\" was changed by another program or user; it is reset",
        "The setting was edited, or overridden in postgresql.auto.conf, an include or on the command line.",
        "The controller resets it. No switch is possible until the controller has verified that the pair is mirrored: commits since the change may be only on this server.",
        "Do not change this setting. Remove the lines that override it. Use \"mc_ctl detach\" to run without the standby."),
    e(1024, Panic, "split brain: server \"{server}\" ({position}) and server \"{other}\" ({other_position}) have both run alone; the instance of server \"{stopped}\" stays down",
        "Both servers accepted writes separately: one of them after \"--force\", or because heartbeat_error_action is 'fallback' or 'command'.",
        "The controller stops the server that was not promoted, so that the data does not diverge further. Nothing is deleted.",
        "Stop the applications and decide which data to keep. To keep the data of the running server, run \"mc_ctl rebuild --method basebackup\" on the stopped server, which keeps its data directory beside the new one. To keep that of the stopped server, see \"Both servers have run alone\" in mirroring-controller(7)."),
    e(1025, Warning, "the controller was paused for {ms} ms; its failure counters are reset",
        "The process or the whole host was not running (SIGSTOP, a frozen virtual machine, a stalled disk).",
        "Heartbeats that are missing from that time do not count as a failure of the other server.",
        "If this is repeated, check the load of the host and of its hypervisor, or increase heartbeat_timeout."),
    e(1026, Log, "automatic switch and disconnection are enabled", "An operator ran \"mc_ctl start -f\" or \"mc_ctl enable-failover\".", "Both servers store the setting.", NOTHING),
    e(1027, Log, "automatic switch and disconnection are disabled", "An operator ran \"mc_ctl start -F\" or \"mc_ctl disable-failover\".", "Both servers store the setting. Failures are only reported.", "Run \"mc_ctl enable-failover\" when the work is done."),
    e(1028, Error, "could not write the ledger: {why}",
        "The disk of the management directory is full or has failed.",
        "The controller does nothing that depends on the ledger. It can still stop the instance.",
        "Free space on the file system of the management directory, or replace the disk."),
    e(1029, Error, "server \"{server}\" belongs to another cluster: its system identifier is {theirs}, ours {ours}",
        "Its data directory is not a copy of this server's data directory, or network.conf names the wrong host.",
        "The servers do not form a pair.",
        "Check network.conf on both servers, then run \"mc_ctl rebuild\" on the server that is to be the standby. If an arbiter reports this because the cluster was initialized again, run \"mc_arb forget IDENTIFIER\" with the old system identifier."),
    e(1030, Warning, "the data directory of server \"{server}\" has been exchanged: {why}",
        "It was rebuilt, restored from a backup, or copied.",
        "The ledger records a new identity for it. The server is not promoted until the pair is mirrored with this data directory.",
        "After a rebuild, nothing. If the only copy was restored, run \"mc_ctl start --adopt-data\": see \"Adopting the data\" in mirroring-controller(7)."),
    e(1031, Log, "an operator detached the standby; \"mc_ctl start\" on the standby attaches it again",
        "\"mc_ctl detach\" was run, or \"mc_ctl stop\" on the standby.", "The primary serves alone. Commits do not wait for the standby, and the standby does not take over.", "Run \"mc_ctl start\" on the standby to attach it again."),
    e(1032, Log, "the standby is attached again", "\"mc_ctl start\" was run on the detached standby.", "The pair becomes mirrored when the standby streams.", NOTHING),
    e(1033, Warning, "server \"{server}\" is isolated from the other server and the arbiter: its instance is stopped",
        "isolated_primary_action is 'stop', and neither member has responded for twice the detection time. The other server may have been promoted.",
        "The instance stays down until one of these members responds.",
        "Repair the network between this server and the other members. If the other server is down, stays down and was not promoted, \"mc_ctl detach --force\" on this server starts the instance, which then serves alone: see \"Commits wait\" in mirroring-controller(7)."),
    e(1034, Log, "calling {command} for server \"{server}\": {why}",
        "The other server does not respond, or an operator forces a change, and a command is configured that fences the other server or confirms that it is down.",
        "The change waits until the command ends, or until its time limit.",
        NOTHING),
    e(1035, Log, "{command} for server \"{server}\" has succeeded",
        "It ended with exit status 0.",
        "The controller continues with the change: it requests the consent of the arbiter, or gives or takes the right to run alone.",
        NOTHING),
    e(1036, Error, "{command} for server \"{server}\" has failed: {why}",
        "The exit status of the command was not 0, the command was ended at its time limit, or it could not be run.",
        "The change is not made. The controller runs the command again after ten detection times, if it is still required.",
        "Read the output of the command (MCA01112, before this message), and run the command manually as the same user. If the other server is down, stays down, and has not served alone since its last heartbeat, run \"mc_ctl switch --force --no-fencing\" on the standby or \"mc_ctl detach --force --no-fencing\" on the primary: see \"Before a forced command\" in mirroring-controller(7). Commits that the other server acknowledged alone are lost."),
    e(1037, Log, "arbitration server \"{arbiter}\" responds again",
        "The arbiter responds again after MCA00157.",
        "The controller can request its consent again.",
        NOTHING),
    e(1038, Panic, "both servers have the right to run alone: this server by {mine}, and, as the arbiter reports, server \"{peer}\" by {theirs}",
        "One server runs alone after \"--force\", or because heartbeat_error_action is 'fallback' or 'command', and the other server has the right as well. The two servers cannot communicate.",
        "Nothing; a report of the arbiter does not stop a server. When the servers can communicate again, one of them is stopped.",
        "Decide which server's commits to keep, and, while the network is cut, stop the other server: \"systemctl disable --now mirroring-controller\", or without systemd \"mc_ctl stop\". Then repair the network. When it is back, MCA01024 follows, and no stop is needed. See \"Both serve while the network is cut\" in mirroring-controller(7)."),
    e(1039, Warning, "server \"{server}\" requested the right to run alone and was refused: {why}",
        "A server that receives no heartbeats from the other server requested the right, and a rule of the arbiter does not allow it; the message states the rule. Usually only the network between the two servers is cut: the arbiter then prefers the primary.",
        "Nothing changes. The server repeats the request while the cause remains.",
        "Repair the network between the two servers. If the message states that the fencing command failed, see MCA01036 before it. Do not use --force on the server that was refused."),
    e(1040, Log, "heartbeats from server \"{server}\" are received", "The arbiter receives the heartbeats of the server.", "None.", NOTHING),
    e(1041, Warning, "heartbeats from server \"{server}\" are no longer received",
        "The arbiter has received no heartbeat from the server for the detection time.",
        "If the other server requests the right to run alone, the arbiter gives it.",
        "Check that host, its controller (\"mc_ctl status\"), and the network between it and the arbiter."),
    e(1042, Error, "the ledger of this arbiter, at term {now}, is older than the term {was} that a server has received from it: it was restored",
        "The directory or the host of the arbiter was restored from a backup or a snapshot. The restored ledger may lack a right to run alone that the arbiter has given.",
        "The arbiter continues as a new arbiter. It gives no rights until both servers have accepted it, which they do automatically while both work.",
        "Run \"mc_ctl status\" on a server. Never restore the directory of an arbiter; run \"mc_arb start\" with a directory that contains only its configuration."),
    e(1043, Warning, "arbitration server \"{arbiter}\" refused server \"{server}\" the right to run alone",
        "The arbiter still receives heartbeats from the other server, has given it the right, or has not received heartbeats for long enough since its own start.",
        "This server repeats the request while the cause remains.",
        "Read the log of the arbiter (MCA01039) for the reason. Do not use --force while the arbiter refuses: the other server may be serving, and commits are lost if both servers serve. See \"A failover does not succeed\" in mirroring-controller(7)."),
    e(1044, Log, "a rebuild of server \"{server}\" from server \"{other}\" has started, {how}",
        "An operator ran \"mc_ctl rebuild\", or rebuild_action is 'auto'. The other server reports that it runs alone as the primary.",
        "No program can start an instance from the data directory until it is that of a standby. \"mc_ctl status\" shows the progress, and MCA01124 reports what was copied.", NOTHING),
    e(1045, Log, "the rebuild has made server \"{server}\" a standby of server \"{other}\"; the instance is started",
        "The rebuild is completed.", "The standby catches up; then the pair is mirrored again (MCA01013).", NOTHING),
    e(1046, Error, "the rebuild of server \"{server}\" failed: {why}",
        "A step of the rebuild failed; the message states which and why.",
        "The controller restores the former data directory if it can. A data directory that pg_rewind has started to change stays as it is, and cannot be started. If rebuild_action is 'auto', the controller tries again (MCA01181).",
        "Repair the cause, then run \"mc_ctl rebuild\" on this server; if pg_rewind failed, run \"mc_ctl rebuild --method basebackup\" instead. \"mc_ctl rebuild --dry-run\" shows what it would do. A rebuild never changes the other server."),
    e(1047, Warning, "a rebuild of server \"{server}\" was interrupted and cannot continue",
        "The controller ended during the rebuild, and since then the other server has not reported that it runs as the primary.",
        "The former data directory is restored if possible. The instance is not started.", "When the other server runs as the primary, run \"mc_ctl rebuild\" on this server."),
    e(1048, Log, "calling {command}: {why}",
        "The state of the pair has changed, and a command is configured for this change.",
        "The change does not wait for the command, except that \"mc_ctl detach\" waits for pre_detach_command. \"mc_ctl stop\" waits for commands that still run.", NOTHING),
    e(1049, Log, "{command} has succeeded", "It ended with exit status 0.", "None.", NOTHING),
    e(1050, Notice, "{command} was ended: the state of the pair has changed since it was called",
        "The command was still running when the state for which it was run had ended.",
        "The controller killed the process group of the command. It then runs the command for the new state.",
        "If this is repeated, shorten the work of the command."),
    e(1051, Warning, "{command} has failed: {why}",
        "The exit status of the command was not 0, the command was killed at status_change_command_timeout, or it could not be run.",
        "The pair continues as if the command had succeeded. The command is not run again for this change. \"mc_ctl status\" shows the failure until a later run succeeds or the controller is restarted.",
        "Read the output of the command (MCA01112, before this message). Do its work manually, or run it again with the same arguments."),
    e(1053, Error, "the data of server \"{server}\" ends at {end} and no longer contains the WAL up to {lsn}: {witness}",
        "The data directory was restored to an older state, its newest WAL was lost, or its disk has lost writes.",
        "The data directory is treated as exchanged: this server neither keeps nor takes the role of the primary with it. A mirrored primary hands over to its standby if the standby has all WAL. A standby catches up from its primary.",
        "Find the cause of the change of the data directory, and check the disk. If failover is disabled, run \"mc_ctl switch\" to make the other server the primary. If this is a standby whose primary is lost, \"mc_ctl start --adopt-data\" on it makes it the primary; transactions between the two positions are lost: see \"Adopting the data\" in mirroring-controller(7)."),
    e(1054, Error, "server \"{primary}\" does not contain the WAL up to {lsn} that standby \"{server}\" holds",
        "The data of the primary returned to an older state, or the standby has WAL that the primary never wrote.",
        "The standby does not follow this primary, and the pair is not mirrored.",
        "If the pair was mirrored, the primary hands over automatically; if failover is disabled, run \"mc_ctl switch\". Otherwise run \"mc_ctl rebuild\" on the standby; it lists what would be lost."),
    e(1055, Panic, "neither server has all transactions: server \"{server}\" no longer contains the WAL that it had up to {lsn}, and the WAL of server \"{other}\" ends at {theirs}",
        "The data directories of both servers were restored to older states, or have lost WAL.",
        "Nothing is promoted. Nothing is deleted.",
        "Compare the data of both servers. Run \"mc_ctl start --adopt-data\" on the server whose data is to be kept, then \"mc_ctl rebuild\" on the other server. Transactions after the end of the data that is kept are lost."),
    e(1056, Panic, "server \"{server}\" is not started and does not hand over: its data directory was exchanged, and commits may not have waited for server \"{other}\"",
        "synchronous_standby_names was changed on the primary, and later its data directory was restored, renamed or exchanged. Transactions that did not wait may exist only in the former data directory.",
        "Nothing is promoted. Nothing is deleted.",
        "Find the former data directory, and if it is complete, move it to its place. Decide which server's data to keep; the data of the standby may lack transactions that did not wait. Run \"mc_ctl start --adopt-data\" on the server whose data is to be kept, then \"mc_ctl rebuild\" on the other server. Transactions that only the rebuilt server has are lost."),

    // ------------------------------------------------------------------------------------------------- the daemon
    e(1100, Log, "mirroring controller {version} of server \"{server}\" is started", "An operator ran \"mc_ctl start\", or the watcher restarted the controller.", "Monitoring starts.", NOTHING),
    e(1101, Log, "mirroring controller of server \"{server}\" ends", "An operator ran \"mc_ctl stop\", or the controller received a signal.", "Monitoring ends.", NOTHING),
    e(1102, Error, "the controller of server \"{server}\" ended unexpectedly ({how}); it is started again",
        "The controller crashed or was killed.", "The watcher starts it again; the instance continues to run.",
        "If no operator killed it, report the problem together with the messages before this one."),
    e(1103, Error, "the controller of server \"{server}\" did not respond for {ms} ms; it is ended and started again",
        "The decision thread of the controller did nothing for agent_alive_timeout.", "The watcher starts it again; the instance continues to run.",
        "Check the load of the host. If the host was not overloaded, report the problem together with the messages before this one."),
    e(1104, Warning, "{text}",
        "heartbeat_error_action is 'fallback'. Two servers without an arbiter cannot distinguish a failed server from a failed network.",
        "If the other server does not respond for the detection time, each server with failover enabled acts alone.",
        "Set heartbeat_error_action in ID.conf on both servers: 'switch' if service must continue after the failure of the primary's host, 'disconnect' if it must continue after the failure of the standby's host. Neither loses acknowledged commits. Or set 'fallback' explicitly to accept the risk."),
    e(1105, Notice, "automatic switch and disconnection are disabled: failures are only reported; run \"mc_ctl enable-failover\" to enable them",
        "The controller was started with neither -f nor -F, and failover is not enabled on the other server.",
        "Synchronous replication is kept. A failure is reported, and nothing is switched.",
        "Run \"mc_ctl enable-failover\". If the other server has failed, the controller then acts as heartbeat_error_action defines. To start without this notice, use \"mc_ctl start -F\"."),
    e(1106, Notice, "{note}", "A configuration file contains a setting that has no effect or deserves attention.", "None.", "Correct the setting that the message names, if necessary."),
    e(1107, Log, "connected with \"{member}\"", "Both members have authenticated each other.", "The members exchange heartbeats.", NOTHING),
    e(1108, Warning, "not connected with \"{member}\": {why}",
        "The member is not running, cannot be reached, or the connection broke.", "The controller tries to connect until it succeeds.",
        "Run \"mc_ctl status\" (on the arbiter \"mc_arb status\") on that member. Check that network.conf is the same on both, and check the firewalls and the network."),
    e(1109, Warning, "a connection from \"{from}\" was refused: {why}",
        "The caller does not have mc.key of this cluster, or is not a member.", "The connection was closed without an answer.",
        "Check whether the caller is a member: compare the address with network.conf, and identify the administrator of that host. Only if it is a member, copy mc.key to it from the other server."),
    e(1110, Warning, "{text}",
        "A check of the instance or of a disk failed; the message contains the error of the server or of the operating system.",
        "MCA01003, MCA01005 or MCA01006 reports the consequence. A rejected session does not count as a failure.",
        "Repair the cause that the message states. If the session is rejected, check db_instance_username, db_instance_password, target_db, pg_hba.conf and max_connections."),
    e(1111, Log, "request of an operator: {what}", "An operator ran a command of mc_ctl.", "The controller executes or refuses the request; the command shows the result.", NOTHING),
    e(1112, Log, "{program}: {line}", "A program that the controller has run wrote this line.", "None.", NOTHING),
    e(1113, Warning, "PostgreSQL {version} may acknowledge commits before synchronous_standby_names takes effect while it starts (accept_startup_race = 'on')",
        "That version has a defect, and the parameter accepts it.", "The pair becomes mirrored. A crash just after such a start can lose commits.",
        "Update PostgreSQL to at least 17.5, 16.9, 15.13, 14.18 or 13.21."),
    e(1114, Warning, "management directory \"{directory}\" is on the file system of data directory \"{data}\"",
        "One file system contains both directories.",
        "The controller starts. If that file system fails, this server cannot write its ledger, and therefore cannot consent to a takeover by the other server.",
        "Move the management directory to another file system while this server is the standby: \"Moving the management directory\" in mirroring-controller(7)."),
    e(1115, Notice, "the file system of \"{path}\" does not store birth times of files",
        "statx() returns no birth time.", "The controller has less evidence to detect a ledger that was restored from a backup.", "Never restore the contents of the management directory from a backup. ext4, XFS and Btrfs store birth times."),
    e(1116, Warning, "{text}", "An operation failed; the message states which and why.", "The controller continues.", "Repair the cause that the message states."),
    e(1117, Error, "{text}", "An operation failed; the message states which and why.", "The controller continues without the result of the operation.", "Repair the cause that the message states."),
    e(1118, Fatal, "{text}", "The controller cannot continue; the message states why.", "The controller ends. The instance continues to run.", "Repair the cause that the message states, then run \"mc_ctl start\"."),
    e(1119, Panic, "internal error: {text}", "A defect of the controller.", "The controller ends, and its watcher starts it again. The instance continues to run.", "Report the problem together with the messages before this one."),
    e(1120, Warning, "{count} messages are missing from this file", "The disk of the management directory did not accept them in time.", "Syslog contains them.", "Check the disk of the management directory."),
    e(1121, Warning, "could not open a file to check the disk of \"{path}\" ({place}): {why}",
        "This process cannot open more files, or the system has no memory.",
        "The disk does not count as failed. The check is repeated at the next interval.",
        "Increase the limit of open files (ulimit -n), or free memory."),
    e(1122, Log, "the file system of \"{path}\" ({place}) has free space again", "Space was freed after MCA01240.",
        "The alarm ends. The controller continues to measure the free space.", NOTHING),
    e(1123, Warning, "heartbeat_error_action is \"{mine}\" here and \"{theirs}\" on server \"{server}\"",
        "The two ID.conf files differ, or network.conf has an arbiter on one of the servers only.",
        "Each server acts by its own setting; 'switch' and 'disconnect' have effect only while both servers have the same value.",
        "Set the same value on both servers, then run \"mc_ctl stop --mc-only\" and \"mc_ctl start --mc-only\" on both."),
    e(1124, Log, "the data directory was made in {seconds} s: {copied}; {why}",
        "A rebuild (MCA01044) is completed. Nothing has to be copied if this server has no data that the other server lacks.",
        "The instance is started as the standby.", "If the former directory was kept beside the new one, remove it when you no longer need it."),
    e(1125, Warning, "this server has WAL that the new primary never received: {what}; saved in \"{kept}\"",
        "When this server lost its role, it had WAL that the other server had not received. Commits that waited for the standby were never acknowledged to clients.",
        "The rebuild saves this WAL with a summary before it overwrites anything. \"mc_ctl history\" shows it.",
        "Use pg_waldump to read the saved WAL. Remove the directory when you no longer need it."),

    // ---------------------------------------------------------------------------------------- the arbiter's process
    e(1130, Log, "arbiter {version} is started; clusters: {clusters}", "An operator ran \"mc_arb start\", or the watcher restarted the arbiter.", "The arbiter accepts connections. For one detection time of each pair, it gives no right to run alone.", NOTHING),
    e(1131, Log, "arbiter ends", "An operator ran \"mc_arb stop\", or the arbiter received a signal.", "Pairs without a fault continue. If a server stops responding, the other server cannot act until the arbiter runs again.", "Run \"mc_arb start\" soon."),
    e(1132, Error, "the arbiter ended unexpectedly ({how}); it is started again",
        "The arbiter crashed or was killed.", "The watcher starts it again. Pairs without a fault are not affected.",
        "If no operator killed it, report the problem together with the messages before this one."),
    e(1133, Error, "the arbiter did not respond for {ms} ms; it is ended and started again",
        "The arbiter handled no event for 10 s.", "The watcher starts it again. Pairs without a fault are not affected.",
        "Check the load of the host. If the host was not overloaded, report the problem together with the messages before this one."),
    e(1134, Log, "system identifier {system} is served from now on",
        "A server has reported its state to this arbiter for the first time.", "The arbiter creates a ledger for the cluster. Its consent counts as soon as the pair is mirrored with it.", NOTHING),
    e(1135, Error, "not served: {why}",
        "The ledger cannot be read, is damaged, was copied or restored, or belongs to another cluster.",
        "The servers of this cluster have no arbiter. Other clusters are served.",
        "If the file was moved, run \"mc_arb stop\", move the original file to its place, and run \"mc_arb start\". Otherwise run \"mc_arb forget IDENTIFIER\" with the system identifier in the message; the servers then accept this arbiter as a new one."),
    e(1136, Error, "a server has system identifier {theirs}, and the ledger is of {ours}",
        "The pair was initialized again, or network.conf names the wrong host.",
        "The arbiter does nothing for that server.",
        "If the old cluster no longer exists, run \"mc_arb forget IDENTIFIER\" with the system identifier of the ledger."),
    e(1137, Log, "the ledger of the cluster with system identifier {system} was removed", "An operator ran \"mc_arb forget IDENTIFIER\".", "The arbiter no longer knows the cluster. If a server reports the identifier again, the arbiter creates a new ledger.", NOTHING),
    e(1140, Warning, "could not resolve host name \"{host}\": {why}; {known}",
        "The name service does not have the name, does not answer, or returns an error. The message is logged once until the name resolves again.",
        "The lookup is repeated every second. Connections use the last known addresses; without any, the member cannot be reached until the name resolves.",
        "Check the name service of this host (/etc/hosts, /etc/resolv.conf, /etc/nsswitch.conf), or write addresses instead of names in network.conf."),
    e(1141, Notice, "host name \"{host}\" resolves again: {addresses}",
        "The name service has answered after MCA01140.", "Connections use these addresses.", NOTHING),
    e(1142, Warning, "{text}; this is tried again until it succeeds",
        "The address is not on an interface of this host, or the name does not resolve, for example because the network is not up yet at boot. A second pair of host and port may also be in use by another program.",
        "The program continues and tries again every second. Until then other members cannot connect to this address.",
        "If this does not end soon after the boot, check the interfaces of this host, and its line in network.conf (for the arbiter also my_address in arbitration.conf)."),
    e(1143, Notice, "listening on {address}",
        "The program now listens on the address of MCA01142.", "Other members can connect.", NOTHING),
    // ---------------------------------------------------------------------------------------- keys of the members
    e(1150, Warning, "a connection from \"{from}\" as member {members} was refused: {why}",
        "The caller has mc.key, but does not prove that it has the private key that belongs to the key in network.conf. The caller is either another program that has read mc.key, or the member itself with a different network.conf or private key.",
        "The connection was closed without an answer.",
        "If the caller is the member itself, copy the same network.conf to all members and restart its controller (\"mc_ctl stop --mc-only\", \"mc_ctl start --mc-only\"). Otherwise find the caller, and create a new mc.key and new keys for all members."),
    // ---------------------------------------------------------------------------------------- files
    e(1170, Notice, "removed replication slot \"{name}\", which no client advances on a standby; it kept {kept}",
        "The server becomes a standby, or a rebuild copied the primary's data directory, which copies no slots. On a standby no client advances the slots that it created as the primary. They would keep WAL until the disk is full. A logical slot would also stop the synchronization of slots (version 17).",
        "The slot is removed before the server starts. Slots that PostgreSQL synchronizes from the primary (version 17) stay, and a restart of a standby removes nothing.",
        "If a client needs the slot, create it on the new primary."),
    e(1171, Error, "the file system of the ledger is full; the ledger uses the space that file \"{path}\" reserves for it",
        "The file system of the management directory is full. Without the reserved space the server could neither switch nor disconnect.",
        "A part of the reserved space is released for each write of the ledger that needs it; there is enough for about 16 writes.",
        "Free space on the file system soon. Place the management directory on a file system of its own."),
    e(1172, Log, "file \"{path}\" reserves space for the ledger again", "There is free space again.", "The reserved space is complete.", NOTHING),
    e(1173, Log, "removed the oldest {removed} entries of the history \"{path}\"", "The history has reached 1 MiB.",
        "The older half is removed. The newest entries stay.", NOTHING),
    e(1174, Notice, "removed \"{kept}\", which an earlier rebuild saved: {what}",
        "Rebuilds have saved WAL more than 16 times, or more than 4 GiB of it.",
        "The oldest directories are removed. The newest one always stays.",
        "Copy the directories in DIR/ID/lost that you need to another place."),
    // ------------------------------------------------------------------------------------ operations of the operator
    e(1180, Log, "the instance of server \"{server}\" is started again after repeated failures",
        "Ten detection times have passed since the last start that failed (MCA01020).",
        "The controller starts the instance. If it fails three more times, it stays down again.", NOTHING),
    e(1181, Log, "the controller retries the rebuild of server \"{server}\" in at most {seconds} s (attempt {attempt} of {limit})",
        "The automatic rebuild failed (MCA01046) and rebuild_action is \"auto\".",
        "The pauses grow from 10 seconds to 5 minutes. If the data directory was not changed, the controller retries as soon as the primary returns.",
        "Repair the cause that MCA01046 reports. After the last attempt run \"mc_ctl rebuild\" on this server."),
    e(1185, Warning, "the instance of server \"{server}\" is not started, because no other member responds",
        "The instance crashed and isolated_restart is 'off': commits that waited would become visible, and would be lost if the standby has taken over. Or its commits may not wait for the standby, because synchronous_standby_names was changed or max_wal_senders is 0, and no other member has learned that.",
        "When one of these members responds, the controller starts the instance or hands over to the standby.",
        "Repair the network. \"mc_ctl status\" on the other server and \"mc_arb status\" on the arbiter show whether the other server serves. Only if it is down, stays down and has not served alone, run \"mc_ctl detach --force\" on this server: see \"Commits wait\" in mirroring-controller(7). If the other server serves, both servers acknowledge commits, and those of one server are lost."),
    e(1186, Warning, "commits on server \"{server}\" can be lost: {found}",
        "With this setting, commits are acknowledged before they are durable on both servers, or before they are durable on disk.",
        "The status shows it. Nothing else changes.",
        "Set synchronous_commit to 'on' or 'remote_apply' for all roles, databases and functions, and fsync to 'on'."),
    e(1187, Log, "no setting of server \"{server}\" endangers commits any longer", "The settings of MCA01186 were corrected.", "None.", NOTHING),
    e(1200, Log, "waiting for checkpoint {number} of {count} on this server: {far}",
        "Before the pair is mirrored, or before a switch, the primary makes checkpoints. The checkpointer makes progress.",
        "The controller waits as long as the checkpointer makes progress. It stops waiting after 20 detection times without progress.",
        "If the checkpoint is too slow, check the disk. Otherwise nothing."),
    e(1220, Error, "arbitration server \"{arbiter}\" records another cluster: its system identifier is {theirs}, ours {ours}",
        "The arbiter has served another pair with this mc.key, or network.conf names the wrong arbiter.",
        "This server does not form a pair. The arbiter does not give the right to run alone.",
        "Check network.conf and db_instance. If the other cluster no longer exists, run \"mc_arb forget IDENTIFIER\" with its system identifier on the arbiter."),
    e(1230, Log, "configuration files reloaded; {changed}",
        "An operator has run \"mc_ctl reload\", or SIGHUP was received.", "The new values are in effect.", "Nothing."),
    e(1231, Warning, "{what} cannot be changed without restarting the controller",
        "The configuration files contain a change that a reload cannot make.", "The value that the controller was started with remains in effect.",
        "Run \"mc_ctl stop --mc-only\" and \"mc_ctl start --mc-only\". The instance continues to run."),
    e(1232, Error, "configuration files not reloaded: {why}",
        "The configuration files contain an error, or could not be read.", "No value has changed.",
        "Correct the file and run \"mc_ctl reload\"."),
    e(1233, Warning, "{failure}",
        "A password, a certificate or pg_hba.conf has changed. Existing connections continue; new connections fail. The message contains the error of the server or of libpq.",
        "mc_ctl status shows the failure, and --check is WARNING. The controller tests the connection again every 60 seconds, and mc_ctl check tests it at once.",
        "Set db_instance_password in ID.conf on both servers to the password of the database user and run \"mc_ctl reload\" on both, or correct the certificate or pg_hba.conf."),
    e(1234, Log, "{what}", "The cause of MCA01233 is repaired, or the connection is not needed now.", "The warning ends.", NOTHING),
    e(1235, Log, "the password of ID.conf was written to primary_conninfo, and the instance was reloaded",
        "primary_conninfo of this standby had another password for the user db_instance_username, and the primary accepts that of ID.conf.",
        "The WAL receiver reconnects with the password.", NOTHING),
    e(1236, Warning, "{why}; PostgreSQL's log goes to \"{instead}\"",
        "The user that runs the controller cannot write log_file, or its directory is missing.",
        "The instance was started nevertheless. Until its next start, it writes its log to the file that the message names.",
        "Correct the owner and mode of the file or of its directory, or set log_file in ID.conf."),
    e(1237, Warning, "{what}",
        "The standby was down or cut off for longer than the primary keeps WAL (wal_keep_size, or the limit of a replication slot).",
        "The WAL receiver repeats its request, which fails. The pair is not mirrored.",
        "Run \"mc_ctl rebuild\" on the standby."),
    e(1240, Error, "no disk space is left: {what}",
        "The file system, or the user's quota, has no space for the next write, which is a WAL segment in pg_wal and 1 MB elsewhere. The message names the file system, the directory, and what uses the space.",
        "mc_ctl status shows the disk as full, and --check is CRITICAL. The health endpoint does not answer /primary with 200 while writes fail. No switch is made: a full disk is not a failed disk. If pg_wal is full, PostgreSQL stops, and the controller acts as after a crash.",
        "Free space, or enlarge the file system. Drop replication slots that no client uses, repair archive_command, remove old log files. Never delete files in pg_wal."),
    e(1241, Warning, "little disk space is left: {what}",
        "Less than 5 percent and less than 10 GB of the file system are free, or less than twice the space of the next write (a WAL segment in pg_wal, 1 MB elsewhere). If at most twice this limit is free, the warning is also given if the rate of the last minutes would fill the file system within an hour.",
        "mc_ctl status shows a hint, and --check is WARNING.",
        "Free space, or enlarge the file system, before it is full (MCA01240)."),
    e(1242, Log, "the file system of \"{path}\" ({place}) is no longer nearly full", "Space was freed after MCA01241.",
        "The warning ends.", NOTHING),
    e(1250, Log, "server \"{other}\" has not responded since this server was started; if it does not respond within {seconds} s, server \"{server}\" requests the right to run alone from the arbiter",
        "Both servers were down, for example after a power failure, and only the standby has started.",
        "If the primary does not respond by then (startup_wait), the standby requests the consent of the arbiter, and is promoted if the arbiter consents.",
        "Start the other server if it is to remain the primary. Otherwise nothing."),
    e(1300, Log, "the web console serves on {at}", "\"mc_web start\" was run.", "Users can log in.", NOTHING),
    e(1301, Log, "user \"{user}\" has logged in to the web console from {address}", "The password was correct.", "A session begins.", NOTHING),
    e(1302, Warning, "a login to the web console as user \"{user}\" from {address} failed",
        "There is no such user, or the password was wrong.",
        "After ten failures, the address and the name are each limited to one attempt every 6 seconds.",
        "If the user forgot the password, run \"mc_web passwd USER\". Otherwise find out who tries to log in from that address."),
    e(1303, Notice, "user \"{user}\" of the web console ({address}) runs \"{command}\" on server \"{server}\"",
        "An operator has confirmed an action. In place of the address, the server is named whose console has sent the order.",
        "The command is run as the instance administrator user. MCA01304 or MCA01305 reports its end.", NOTHING),
    e(1304, Log, "\"{command}\" of user \"{user}\" of the web console succeeded", "The command of MCA01303 ended with exit status 0.", "None.", NOTHING),
    e(1305, Warning, "\"{command}\" of user \"{user}\" of the web console failed with exit status {status}",
        "The command of MCA01303 failed, or was refused.",
        "None. The console shows the lines of the command.",
        "Run \"mc_ctl status\", and the command in a terminal. mc_ctl(8) lists the exit statuses."),
    e(1306, Warning, "the web console rejected a connection from {address} to peer_port: {why}",
        "The caller is not the other server's web console, its mc.key or network.conf is different, or its version is not compatible.",
        "The connection is closed. Further rejections are not reported for 60 seconds.",
        "Copy mc.key and network.conf from one server to the other, and compare \"mc_web --version\" on both. If the address is not the other server's, find out who connects."),
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
