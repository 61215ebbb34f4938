//! What is asked of the own instance in SQL: the probe's one look, and the single questions of the runner.
//!
//! Everything goes through [`Session`], so every question ends within its time limit. It decides nothing.

use super::connect::{Refusal, Row, Session};
use crate::fsm::event::{Instance, Names, StandbyRow};
use crate::fsm::types::{Lsn, Timeline};
use std::collections::BTreeMap;
use std::time::Duration;

/// The `wait_event` of a commit that waits for its standby.
const WAITERS: &str = "FROM pg_stat_get_activity(NULL) WHERE wait_event = 'SyncRep'";

/// What one look at the instance has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Look {
    /// Its role and positions.
    pub instance: Instance,
    /// On a standby: how far its WAL receiver has flushed WAL, in the files of the timeline that it receives. After a change of
    /// timeline the receiver starts at the beginning of a segment, so this is less than what the standby has replayed.
    pub streamed: Lsn,
}

/// One look at the instance, in one round trip, on a primary as on a standby.
///
/// The timeline of a primary is taken from the name of the WAL segment that it writes (right from the moment of a
/// promotion; `pg_control` follows only with the next checkpoint); that of a standby from its WAL receiver, else from
/// `pg_control`. `peer` is the other server's `application_name`.
///
/// # Errors
///
/// As [`Session::query`]; [`Refusal::Other`] also for an answer that makes no sense.
pub fn probe(session: &mut Session, peer: &str, limit: Duration) -> Result<Look, Refusal> {
    let rows = session.query(&probe_sql(peer), limit)?;
    let row = rows.first().ok_or_else(|| nonsense("no row"))?;
    let column = |index: usize| row.get(index).and_then(|value| value.as_deref());
    let number = |index: usize| column(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let truth = |index: usize| column(index) == Some("t");
    if truth(0) {
        let timeline = number(13).max(if number(13) == 0 { number(14) } else { 0 });
        let instance = Instance::Standby {
            timeline: Timeline(u32::try_from(timeline).map_err(|_| nonsense("timeline"))?),
            received: Lsn(number(11).max(number(12))),
            replayed: Lsn(number(12)),
            streaming: truth(15),
            contact: number(16),
        };
        return Ok(Look { instance, streamed: Lsn(number(11)) });
    }
    // A standby that was promoted between two columns of the row: look again next time.
    let segment = column(1).ok_or_else(|| nonsense("no WAL segment"))?;
    let timeline = segment.get(..8).and_then(|hex| u32::from_str_radix(hex, 16).ok());
    let names = column(3).ok_or_else(|| nonsense("no synchronous_standby_names"))?;
    let instance = Instance::Primary {
        timeline: Timeline(timeline.ok_or_else(|| nonsense(segment))?),
        flushed: Lsn(number(2)),
        names: classify_names(names, peer, truth(4)),
        waiting: truth(5),
        standby: (number(6) == 1).then(|| StandbyRow {
            streaming: truth(7),
            sync: truth(8),
            flushed: Lsn(number(9)),
            reply: number(10),
        }),
    };
    Ok(Look { instance, streamed: Lsn(0) })
}

fn nonsense(what: &str) -> Refusal {
    Refusal::Other(format!("could not understand the instance's response: {what}"))
}

/// Columns: 0 in recovery; 1 segment, 2 flushed, 3 names (none if `max_wal_senders` is 0, since no commit waits then), 4 names
/// from the main file, 5 commits wait; of the rows of the peer's name 6 count, 7 streaming, 8 sync, 9 flushed, 10 reply; of the
/// WAL receiver 11 received, 12 replayed, 13 timeline, 14 timeline in `pg_control`, 15 streaming, 16 last message.
fn probe_sql(peer: &str) -> String {
    format!(
        "SELECT pg_is_in_recovery(), \
         CASE WHEN NOT pg_is_in_recovery() THEN pg_walfile_name(pg_current_wal_flush_lsn()) END, \
         CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_flush_lsn() - '0/0' END, \
         CASE current_setting('max_wal_senders') WHEN '0' THEN '' ELSE \
         current_setting('synchronous_standby_names') END, \
         CASE current_setting('synchronous_standby_names') WHEN '' THEN true ELSE \
         (SELECT sourcefile = current_setting('config_file') FROM pg_settings \
         WHERE name = 'synchronous_standby_names') END, \
         EXISTS (SELECT {WAITERS}), \
         s.n, s.streaming, s.sync, s.flushed, s.reply, \
         pg_last_wal_receive_lsn() - '0/0', pg_last_wal_replay_lsn() - '0/0', \
         r.received_tli, \
         CASE WHEN r.received_tli IS NULL AND pg_is_in_recovery() THEN \
         (SELECT greatest(c.timeline_id, m.min_recovery_end_timeline) \
         FROM pg_control_checkpoint() c, pg_control_recovery() m) END, \
         r.status = 'streaming', \
         (extract(epoch FROM r.last_msg_receipt_time) * 1000000)::int8 \
         FROM (SELECT count(*) AS n, bool_and(state = 'streaming') AS streaming, bool_and(sync_state = 'sync') AS sync, \
         min(flush_lsn) - '0/0' AS flushed, max((extract(epoch FROM reply_time) * 1000000)::int8) AS reply \
         FROM pg_stat_replication WHERE {}) s \
         LEFT JOIN pg_stat_wal_receiver r ON true",
        named(peer)
    )
}

/// The condition that a walsender has this `application_name`, compared as `synchronous_standby_names` does: ignoring
/// ASCII case alone.
fn named(name: &str) -> String {
    format!("lower(application_name COLLATE \"C\") = lower({} COLLATE \"C\")", literal(name))
}

/// An SQL string. Every session has `standard_conforming_strings` on.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\0', "").replace('\'', "''"))
}

// -------------------------------------------------------------------------------------------------------------- names

/// What a value of `synchronous_standby_names` means to us (PROTOCOL R9): `ours` where it comes from the main
/// configuration file.
pub fn classify_names(value: &str, peer: &str, ours: bool) -> Names {
    if value.trim().is_empty() {
        return Names::Unset;
    }
    match single_name(value) {
        Some(name) if ours && name.eq_ignore_ascii_case(peer) => Names::Peer,
        _ => Names::Other,
    }
}

/// The one name that `value` consists of, without its quotes; `None` for a list, a priority or quorum clause, and `*`,
/// which stands for everyone even in quotes. PostgreSQL's `syncrep_scanner.l`.
pub fn single_name(value: &str) -> Option<String> {
    let value = value.trim_matches([' ', '\t', '\n', '\r', '\u{b}', '\u{c}']);
    let name = match value.strip_prefix('"') {
        Some(rest) => {
            let inner = rest.strip_suffix('"')?;
            if inner.replace("\"\"", "").contains('"') {
                return None;
            }
            inner.replace("\"\"", "\"")
        }
        None => {
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii();
            let digits = value.bytes().all(|b| b.is_ascii_digit());
            let starts = value.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || !c.is_ascii());
            if !(value.chars().all(word) && (starts || digits)) {
                return None;
            }
            value.to_owned()
        }
    };
    (!name.is_empty() && name != "*").then_some(name)
}

// ---------------------------------------------------------------------------------------------- questions of the runner

fn one(session: &mut Session, sql: &str, limit: Duration) -> Result<Option<String>, Refusal> {
    Ok(session.query(sql, limit)?.into_iter().next().and_then(|row| row.into_iter().next().flatten()))
}

fn number(session: &mut Session, sql: &str, limit: Duration) -> Result<u64, Refusal> {
    let text = one(session, sql, limit)?.unwrap_or_default();
    text.parse().map_err(|_| nonsense(&text))
}

/// The value of a setting, as this session sees it.
///
/// # Errors
///
/// As [`Session::query`], like all questions below.
pub fn show(session: &mut Session, setting: &str, limit: Duration) -> Result<String, Refusal> {
    Ok(one(session, &format!("SELECT current_setting({})", literal(setting)), limit)?.unwrap_or_default())
}

/// `synchronous_standby_names`, as this session sees it. Only the checkpointer puts it in effect: what a new session sees
/// is necessary, not sufficient.
pub fn show_names(session: &mut Session, limit: Duration) -> Result<String, Refusal> {
    show(session, "synchronous_standby_names", limit)
}

/// How many backends wait for the standby.
pub fn waiters(session: &mut Session, limit: Duration) -> Result<u64, Refusal> {
    number(session, &format!("SELECT count(*) {WAITERS}"), limit)
}

/// `pg_current_wal_flush_lsn()`; an error on a standby.
pub fn flush_lsn(session: &mut Session, limit: Duration) -> Result<Lsn, Refusal> {
    number(session, "SELECT pg_current_wal_flush_lsn() - '0/0'", limit).map(Lsn)
}

/// The timeline on which a primary writes; an error on a standby.
pub fn primary_timeline(session: &mut Session, limit: Duration) -> Result<Timeline, Refusal> {
    let name = one(session, "SELECT pg_walfile_name(pg_current_wal_flush_lsn())", limit)?.unwrap_or_default();
    let timeline = name.get(..8).and_then(|hex| u32::from_str_radix(hex, 16).ok());
    timeline.map(Timeline).ok_or_else(|| nonsense(&name))
}

/// Whether it is a standby.
pub fn is_in_recovery(session: &mut Session, limit: Duration) -> Result<bool, Refusal> {
    Ok(one(session, "SELECT pg_is_in_recovery()", limit)?.as_deref() == Some("t"))
}

/// The standbys that are connected under this `application_name`, each with its process.
pub fn standby_rows(session: &mut Session, name: &str, limit: Duration) -> Result<Vec<(i32, StandbyRow)>, Refusal> {
    let sql = format!(
        "SELECT pid, state = 'streaming', sync_state = 'sync', flush_lsn - '0/0', \
         (extract(epoch FROM reply_time) * 1000000)::int8 FROM pg_stat_replication WHERE {}",
        named(name)
    );
    let rows = session.query(&sql, limit)?;
    let read = |row: &Vec<Option<String>>| {
        let column = |index: usize| row.get(index).and_then(|value| value.as_deref()).unwrap_or_default();
        let found = StandbyRow {
            streaming: column(1) == "t",
            sync: column(2) == "t",
            flushed: Lsn(column(3).parse().unwrap_or(0)),
            reply: column(4).parse().unwrap_or(0),
        };
        (column(0).parse().unwrap_or(0), found)
    };
    Ok(rows.iter().map(read).collect())
}

/// `CHECKPOINT`, which may take as long as `limit`, whatever the session's `statement_timeout` is.
pub fn checkpoint(session: &mut Session, limit: Duration) -> Result<(), Refusal> {
    session.query("SET statement_timeout = 0", limit)?;
    session.query("CHECKPOINT", limit).map(drop)
}

/// `CHECKPOINT`, which may take as long as `wanted` holds; `limit` is for the other statements. The backend ends soon after the
/// session (from version 14 on), although the checkpointer does not answer it.
pub fn checkpoint_while(session: &mut Session, limit: Duration, wanted: impl Fn() -> bool) -> Result<(), Refusal> {
    let watch_client =
        "SELECT set_config(name, '5s', false) FROM pg_settings WHERE name = 'client_connection_check_interval'";
    session.query("SET statement_timeout = 0", limit)?;
    session.query(watch_client, limit)?;
    session.query_while("CHECKPOINT", wanted).map(drop)
}

/// The wait event of the checkpointer; `None` if it waits for nothing.
pub fn checkpointer_waits_for(session: &mut Session, limit: Duration) -> Result<Option<String>, Refusal> {
    let sql = "SELECT wait_event_type || ': ' || wait_event FROM pg_stat_activity WHERE backend_type = 'checkpointer'";
    Ok(session.query(sql, limit)?.into_iter().flatten().next().flatten())
}

/// The tablespaces that have a directory of their own: OID and name.
pub fn tablespaces(session: &mut Session, limit: Duration) -> Result<BTreeMap<String, String>, Refusal> {
    // 16384: FirstNormalObjectId.
    let rows = session.query("SELECT oid, spcname FROM pg_tablespace WHERE oid >= 16384", limit)?;
    let pair = |row: Row| {
        let mut columns = row.into_iter();
        Some((columns.next()??, columns.next()??))
    };
    Ok(rows.into_iter().filter_map(pair).collect())
}

/// `max_wal_senders`.
pub fn max_wal_senders(session: &mut Session, limit: Duration) -> Result<u64, Refusal> {
    number(session, "SELECT current_setting('max_wal_senders')", limit)
}

/// What makes commits less durable, a sentence each. The session's own `synchronous_commit` is not the server's: that is read
/// from the configuration files.
pub fn weakened(session: &mut Session, limit: Duration) -> Result<Vec<String>, Refusal> {
    const SAFE: &str = "('on', 'remote_apply', 'true', 'yes', '1')";
    let sql = format!(
        "SELECT 'fsync is off' WHERE NOT current_setting('fsync')::bool \
         UNION ALL SELECT format('synchronous_commit is \"%s\"', v) FROM (SELECT lower(setting) AS v FROM pg_file_settings \
         WHERE name = 'synchronous_commit' AND error IS NULL ORDER BY seqno DESC LIMIT 1) f WHERE v NOT IN {SAFE} \
         UNION ALL (SELECT format('synchronous_commit is \"%s\" for ', split_part(s, '=', 2)) || concat_ws(' in ', \
         CASE WHEN setrole <> 0 THEN format('role \"%s\"', (SELECT rolname FROM pg_roles r WHERE r.oid = setrole)) END, \
         CASE WHEN setdatabase <> 0 THEN format('database \"%s\"', (SELECT datname FROM pg_database d \
         WHERE d.oid = setdatabase)) END, CASE WHEN setrole = 0 AND setdatabase = 0 THEN 'all roles' END) \
         FROM pg_db_role_setting, unnest(setconfig) s WHERE split_part(s, '=', 1) = 'synchronous_commit' \
         AND lower(split_part(s, '=', 2)) NOT IN {SAFE} ORDER BY 1 LIMIT 10)"
    );
    Ok(session.query(&sql, limit)?.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
}

/// The WAL segment that contains what follows `received`, if this primary no longer has it.
pub fn removed_wal(session: &mut Session, received: Lsn, limit: Duration) -> Result<Option<String>, Refusal> {
    // The name of a position at the end of a segment is that of this segment, and the next one is required.
    let sql = format!(
        "SELECT name FROM pg_walfile_name('{}') AS name WHERE substr(name, 9) < (SELECT min(substr(file.name, 9)) FROM \
         pg_ls_waldir() AS file WHERE file.name ~ '^[0-9A-F]{{24}}$')",
        Lsn(received.0 + 1)
    );
    one(session, &sql, limit)
}

/// `server_version_num`, such as 150018.
pub fn server_version_num(session: &mut Session, limit: Duration) -> Result<u32, Refusal> {
    let found = number(session, "SELECT current_setting('server_version_num')", limit)?;
    u32::try_from(found).map_err(|_| nonsense("server_version_num"))
}

/// Whether the session's role is a superuser, which the controller needs.
pub fn is_superuser(session: &mut Session, limit: Duration) -> Result<bool, Refusal> {
    Ok(one(session, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user", limit)?.as_deref() == Some("t"))
}

/// Another text after each change of the session's role, such as that of its password.
pub fn version_of_role(session: &mut Session, limit: Duration) -> Result<Option<String>, Refusal> {
    one(session, "SELECT xmin::text FROM pg_authid WHERE rolname = current_user", limit)
}

/// Where a setting's value comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    /// The value.
    pub value: String,
    /// `pg_settings.source`: `default`, `configuration file`, `command line`, …
    pub source: String,
    /// The file, where it comes from one.
    pub file: Option<String>,
    /// The line in it; 0 where there is no file.
    pub line: u32,
}

/// Where the value of a setting comes from, as this session sees it.
pub fn setting_source(session: &mut Session, setting: &str, limit: Duration) -> Result<Source, Refusal> {
    let sql =
        format!("SELECT setting, source, sourcefile, sourceline FROM pg_settings WHERE name = {}", literal(setting));
    let row = session.query(&sql, limit)?.into_iter().next().ok_or_else(|| nonsense(setting))?;
    let mut columns = row.into_iter();
    let mut next = || columns.next().flatten();
    Ok(Source {
        value: next().unwrap_or_default(),
        source: next().unwrap_or_default(),
        file: next(),
        line: next().and_then(|line| line.parse().ok()).unwrap_or(0),
    })
}

/// What is wrong in the configuration files (`pg_file_settings.error`), each as `file:line: name: error`. Values that need
/// a restart to be applied are not meant.
pub fn file_errors(session: &mut Session, limit: Duration) -> Result<Vec<String>, Refusal> {
    let sql = "SELECT concat(sourcefile, ':', sourceline, ': ', name, ': ', error) FROM pg_file_settings f \
               WHERE error IS NOT NULL AND NOT (error = 'setting could not be applied' \
               AND EXISTS (SELECT FROM pg_settings s WHERE s.name = f.name AND s.context = 'postmaster'))";
    Ok(session.query(sql, limit)?.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_and_nothing_else_counts_as_the_peer() {
        let check = |value: &str, peer: &str, expected: Names| {
            assert_eq!(classify_names(value, peer, true), expected, "{value:?} for {peer:?}");
        };
        check("", "nd2", Names::Unset);
        check("  ", "nd2", Names::Unset);
        check("nd2", "nd2", Names::Peer);
        check(" ND2 ", "nd2", Names::Peer);
        check("\"nd2\"", "nd2", Names::Peer);
        check("\"nd-2\"", "nd-2", Names::Peer);
        check("\"a\"\"b\"", "a\"b", Names::Peer);
        check("2", "2", Names::Peer);
        check("nd-2", "nd-2", Names::Other);
        check("2a", "2a", Names::Other);
        check("nd3", "nd2", Names::Other);
        check("nd2, nd3", "nd2", Names::Other);
        check("nd2,nd2", "nd2", Names::Other);
        check("1 (nd2)", "nd2", Names::Other);
        check("FIRST 1 (nd2)", "nd2", Names::Other);
        check("ANY 1 (nd2)", "nd2", Names::Other);
        check("*", "*", Names::Other);
        check("\"*\"", "*", Names::Other);
        check("\"\"", "", Names::Other);
        check("\"nd2", "nd2", Names::Other);
        check("\"nd2\",\"nd2\"", "nd2\",\"nd2", Names::Other);
        check("Ä", "ä", Names::Other);
        assert_eq!(classify_names("nd2", "nd2", false), Names::Other, "from another file");
    }
}
