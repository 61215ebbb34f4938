//! Findings of who is the synchronous standby: `synchronous_standby_names`, `primary_conninfo`, receivers of WAL, slots.

use super::super::{Entry, Facts as Server, Finding};
use super::facts::Facts;
use super::{addresses_of_other, set};
use crate::pg::queries;

pub(super) const STANDBY_NAMES_OVERRIDDEN: Entry = Entry::error(
    "standby-names-overridden",
    "synchronous_standby_names is set outside postgresql.conf (ALTER SYSTEM, an included file, the command line). The \
     controller edits only its line in postgresql.conf: a setting elsewhere overrides it, or takes effect when the line is \
     commented out.",
);
pub(super) const STANDBY_NAMES_REPEATED: Entry = Entry::warning(
    "standby-names-repeated",
    "postgresql.conf sets synchronous_standby_names in several lines. The last one counts, and the controller comments the \
     others out at its next change.",
);
pub(super) const STANDBY_NAMES_NOT_ONE: Entry = Entry::error(
    "standby-names-not-one",
    "synchronous_standby_names is not the name of one standby, but a list, a quorum, or an asterisk, with which any WAL \
     receiver acknowledges commits.",
);
pub(super) const STANDBY_NAMES_NOT_PEER: Entry = Entry::error(
    "standby-names-not-peer",
    "synchronous_standby_names does not name the other server: commits wait for a standby that does not connect, or another \
     WAL receiver acknowledges them.",
);
pub(super) const FOREIGN_WAL_RECEIVER: Entry = Entry::error(
    "foreign-wal-receiver",
    "A WAL receiver other than the other server (a second standby, pg_receivewal) uses its name and acknowledges commits in \
     its place: a failover may lose them.",
);
pub(super) const CONNINFO_NAME: Entry = Entry::error(
    "conninfo-name",
    "primary_conninfo has no application_name (nor is cluster_name set), so that this standby is not the synchronous standby.",
);
pub(super) const CONNINFO_HOST: Entry = Entry::error(
    "conninfo-host",
    "primary_conninfo of this standby names a host or port that is not that of the other server's instance.",
);
pub(super) const CONNINFO_UNREADABLE: Entry = Entry::warning(
    "conninfo-unreadable",
    "primary_conninfo is a URI or not well formed: the controller replaces it when the server becomes a standby, and its \
     passwords and certificates are lost.",
);
pub(super) const SLOT_UNLIMITED: Entry = Entry::warning(
    "slot-unlimited",
    "A replication slot retains WAL without limit (max_slot_wal_keep_size = -1): if its client is disconnected, the disk fills \
     up and the primary stops.",
);
pub(super) const SLOT_INACTIVE: Entry =
    Entry::warning("slot-inactive", "No client is connected to a replication slot, which retains WAL.");

pub(super) fn examine(server: &Server, other: Option<&Server>, found: &mut Vec<Finding>) {
    names(server, other, found);
    senders(server, other, found);
    conninfo(server, other, found);
    slots(server, found);
}

fn names(server: &Server, other: Option<&Server>, found: &mut Vec<Finding>) {
    let (id, facts) = (&server.id, &server.instance);
    let name = "synchronous_standby_names";
    for line in facts.files.names.iter().filter(|line| !line.ours) {
        let fix = match line.file.ends_with("postgresql.auto.conf") && facts.told.is_some() {
            true => format!("psql -c \"ALTER SYSTEM RESET {name}\" -c \"SELECT pg_reload_conf()\""),
            false => format!("remove the line from \"{}\", and reload", line.file),
        };
        let what = format!("{name} is set to \"{}\" outside postgresql.conf", line.value);
        found.push(STANDBY_NAMES_OVERRIDDEN.found(id, what, fix).at(&line.file, line.line));
    }
    let setting = facts.setting(name);
    if setting.command_line {
        let what = format!("{name} is set to \"{}\" on the postmaster's command line", setting.value);
        found.push(STANDBY_NAMES_OVERRIDDEN.found(
            id,
            what,
            "start the instance only with mc_ctl, without that option",
        ));
    }
    let ours: Vec<_> = facts.files.names.iter().filter(|line| line.ours).collect();
    if let [first, .., last] = ours.as_slice() {
        let what = format!("{name} is set in {} lines, of which line {} counts", ours.len(), last.line);
        found.push(STANDBY_NAMES_REPEATED.found(id, what, "remove the others").at(&first.file, first.line));
    }
    if setting.value.trim().is_empty() {
        return;
    }
    let peer = other.map_or(&*facts.own.peer, |other| other.instance.application_name());
    let good = crate::pg::conf::names_value(peer);
    let fix = format!("write {name} = '{good}' in its place in \"{}\", and reload", facts.own.config_file);
    match queries::single_name(&setting.value) {
        None => {
            let what = format!("{name} is \"{}\", and not one name", setting.value);
            found.push(STANDBY_NAMES_NOT_ONE.found(id, what, fix).at(setting.file, setting.line));
        }
        Some(given) if other.is_some() && !given.eq_ignore_ascii_case(peer) => {
            let what = format!("{name} is \"{given}\", and {} connects as \"{peer}\"", facts.own.peer);
            found.push(STANDBY_NAMES_NOT_PEER.found(id, what, fix).at(setting.file, setting.line));
        }
        Some(_) => {}
    }
}

fn senders(server: &Server, other: Option<&Server>, found: &mut Vec<Finding>) {
    let facts = &server.instance;
    let Some(told) = &facts.told else { return };
    let Some(name) = queries::single_name(&facts.value("synchronous_standby_names")) else { return };
    let named: Vec<_> = told.senders.iter().filter(|sender| sender.name.eq_ignore_ascii_case(&name)).collect();
    let known = addresses_of_other(facts, other);
    let mut say = |what: String| {
        let fix = "end that WAL receiver, and give it another application_name: psql -c \"SELECT pid, application_name, \
                    client_addr FROM pg_stat_replication\"";
        found.push(FOREIGN_WAL_RECEIVER.found(&server.id, what, fix));
    };
    if named.len() > 1 {
        let from = named.iter().map(|sender| place(&sender.address)).collect::<Vec<_>>().join(" and ");
        say(format!("{} receive WAL as \"{name}\": from {from}", named.len()));
        return;
    }
    let Some(sender) = named.first() else { return };
    // A standby that is known by name alone has addresses that were not found.
    if !known.is_empty() && !known.contains(&sender.address) {
        let expected = known.join(", ");
        say(format!("\"{name}\" receives WAL from {}, and {} is {expected}", place(&sender.address), facts.own.peer));
    } else if let Some(peer) = other.and_then(|other| other.instance.told.as_ref()).filter(|told| told.superuser)
        && !(peer.standby && peer.receiving)
    {
        say(format!(
            "\"{name}\" receives WAL from {}, but the instance of {} does not",
            place(&sender.address),
            facts.own.peer
        ));
    }
}

fn place(address: &str) -> &str {
    if address.is_empty() { "this host" } else { address }
}

fn conninfo(server: &Server, other: Option<&Server>, found: &mut Vec<Finding>) {
    let (id, facts) = (&server.id, &server.instance);
    let Some(upstream) = facts.files.upstream.as_ref().filter(|_| facts.is_standby()) else { return };
    let at = |finding: Finding| finding.at(&upstream.place.file, upstream.place.line);
    if upstream.unreadable {
        let what = "primary_conninfo is not in the form key=value";
        let fix = "write it as host=... port=... user=... application_name=... in postgresql.auto.conf";
        return found.push(at(CONNINFO_UNREADABLE.found(id, what, fix)));
    }
    if upstream.application_name.is_empty() {
        let what = "primary_conninfo has no application_name";
        found.push(at(CONNINFO_NAME.found(id, what, format!("add application_name={id} to it, and reload"))));
    }
    let known = addresses_of_other(facts, other);
    let port = other.map(|other| other.instance.value("port"));
    let right = known.is_empty()
        || upstream.host == facts.own.peer_host
        || facts.files.upstream_addresses.iter().any(|address| known.contains(address));
    if !right || port.as_ref().is_some_and(|port| *port != upstream.port) {
        let host = if upstream.host.is_empty() { "this host" } else { &upstream.host };
        let there = other.map_or(&facts.own.peer_host, |other| &other.instance.own.replication_address);
        let port = port.map(|port| format!(" port {port}")).unwrap_or_default();
        let what =
            format!("primary_conninfo names {host} port {}, and {} is {there}{port}", upstream.port, facts.own.peer);
        found.push(at(CONNINFO_HOST.found(
            id,
            what,
            format!("write host={there}{} into it", port.replace(" port ", " port=")),
        )));
    }
}

fn slots(server: &Server, found: &mut Vec<Finding>) {
    let facts: &Facts = &server.instance;
    let unlimited = facts.number("max_slot_wal_keep_size") < 0 && facts.own.major >= 13;
    for slot in facts.told.iter().flat_map(|told| &told.slots) {
        let name = &slot.name;
        let kept = slot.bytes >> 20;
        if !slot.active && !slot.synced {
            let kind = if slot.logical { "logical replication slot" } else { "replication slot" };
            let what = format!("{kind} \"{name}\" is not in use and retains {kept} MiB of WAL");
            let client = if slot.logical { "subscription or other client" } else { "client" };
            let loss = if slot.logical { " (the client cannot continue without it)" } else { "" };
            let fix = format!(
                "start the {client} that uses slot \"{name}\"; only if that no longer exists, drop the slot with \
                 pg_drop_replication_slot{loss}"
            );
            found.push(SLOT_INACTIVE.found(&server.id, what, fix));
        }
        if unlimited {
            let what =
                format!("replication slot \"{name}\" may retain any amount of WAL: max_slot_wal_keep_size is -1");
            let setting = facts.setting("max_slot_wal_keep_size");
            let finding = SLOT_UNLIMITED.found(&server.id, what, set(facts, "max_slot_wal_keep_size", "10GB", false));
            found.push(finding.at(setting.file, setting.line));
        }
    }
}
