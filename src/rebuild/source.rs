//! What is known of the other server's instance, asked in SQL. Only reads.

use super::Setup;
use super::divergence::History;
use super::wal;
use crate::error::{Error, Result};
use crate::fsm::event::Rebuild;
use crate::fsm::types::{Lsn, SystemId, Timeline};
use crate::pg::bounded::{self, Cancel};
use crate::pg::conf;
use crate::pg::connect::{PASSWORD_HINT, Refusal, Remote, Row, Session};
use crate::pg::follow::{self, Upstream};
use crate::pg::tls::Tls;
use std::path::PathBuf;
use std::time::Duration;

/// How long opening a session to the other server may take.
const OPEN: Duration = Duration::from_secs(10);

/// How long a short question may take.
const SHORT: Duration = Duration::from_secs(30);

/// How long counting its bytes may take: a walk over all of its files.
const LONG: Duration = Duration::from_secs(600);

/// A tablespace with a directory of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tablespace {
    /// Its OID, the name of its link in `pg_tblspc`.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// Its directory on the other server.
    pub location: PathBuf,
    /// Its size.
    pub bytes: u64,
}

/// What is known of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    /// Its cluster.
    pub system: SystemId,
    /// Its way to its timeline.
    pub history: History,
    /// Where it writes.
    pub insert: Lsn,
    /// The timeline that its control file tells: an older one between a promotion and the first checkpoint.
    pub control_timeline: Timeline,
    /// Bytes of a segment of its WAL.
    pub segment: u64,
    /// `full_page_writes`.
    pub full_page_writes: bool,
    /// `max_wal_size`, bytes.
    pub max_wal_size: u64,
    /// `max_slot_wal_keep_size`, bytes; `None` for no bound, or none that this version knows.
    pub max_slot_wal_keep_size: Option<u64>,
    /// Its segments.
    pub wal: Vec<(Timeline, u64)>,
    /// Bytes in its data directory, without WAL and without `tablespaces`.
    pub bytes: u64,
    /// Tablespaces elsewhere.
    pub tablespaces: Vec<Tablespace>,
    /// What an earlier rebuild of it has put aside where `pg_rewind` would copy it.
    pub aside: Option<String>,
}

/// Who is asked, and where.
pub fn remote(setup: &Setup, source: &str) -> Result<Remote> {
    let upstream = Upstream::parse(source, &setup.user, &setup.name)?;
    Ok(Remote {
        user: setup.user.clone(),
        password: setup.password.clone(),
        dbname: setup.dbname.clone(),
        host: upstream.host,
        port: upstream.port,
        tls: Tls::parse(&own_conninfo(setup)?, setup.place.major)?,
    })
}

/// What this server's own `primary_conninfo` says. One that cannot be read is an error: it may require TLS.
fn own_conninfo(setup: &Setup) -> Result<Vec<(String, String)>> {
    let place = &setup.place;
    let present = conf::effective("primary_conninfo", &place.config_file, &place.data).unwrap_or_default();
    follow::parse_conninfo(&present).ok_or_else(|| {
        Error::new("could not read primary_conninfo").hint(
            "Write it as \"key=value ...\", not as a URI; host, port and application_name are set by the rebuild.",
        )
    })
}

/// The connection string of PostgreSQL's programs, without a password; with what the standby's own has of certificates and
/// of a password file.
pub fn conninfo(setup: &Setup, remote: &Remote) -> String {
    let carried = |key: &str| ["ssl", "gss", "krb", "passfile", "channel_binding"].iter().any(|p| key.starts_with(p));
    let mut keys = own_conninfo(setup).unwrap_or_default();
    // Arguments are seen by everybody on this host.
    keys.retain(|(key, _)| carried(key) && key != "sslpassword");
    let mut add = |key: &str, value: &str| keys.push((key.to_owned(), value.to_owned()));
    add("host", &remote.host);
    add("port", &remote.port.to_string());
    add("user", &remote.user);
    add("dbname", &remote.dbname);
    add("connect_timeout", "10");
    // A server that is gone without a word is noticed within half a minute.
    for (key, value) in [("idle", "10"), ("interval", "5"), ("count", "3")] {
        add(&format!("keepalives_{key}"), value);
    }
    add("tcp_user_timeout", "30000");
    add("options", "-c statement_timeout=0");
    let quoted = |value: &str| value.replace('\\', "\\\\").replace('\'', "\\'");
    keys.iter().map(|(key, value)| format!("{key}='{}'", quoted(value))).collect::<Vec<_>>().join(" ")
}

fn refused(remote: &Remote, why: Refusal) -> Error {
    let hint = match why {
        Refusal::Password(_) => PASSWORD_HINT,
        _ => {
            "The other server's instance must run as a primary, and its pg_hba.conf must accept this server as \
             db_instance_username, for target_db and for replication."
        }
    };
    let why = match why {
        Refusal::NotRunning => "no process listens there".to_owned(),
        other => other.to_string(),
    };
    Error::new(format!("could not query the other server's instance at {} port {}: {why}", remote.host, remote.port))
        .hint(hint)
}

/// What is asked of the other server, and its answer, within limits; ends at once when cancelled.
pub fn ask<T: Send + 'static>(
    remote: &Remote,
    limit: Duration,
    cancel: &Cancel,
    question: impl FnOnce(&mut Session) -> std::result::Result<T, Refusal> + Send + 'static,
) -> Result<T> {
    let to = remote.clone();
    bounded::call("ask the other server's instance", limit + OPEN + Duration::from_secs(1), cancel, move || {
        let mut session = Session::open_remote(&to, OPEN, limit, "a rebuild").map_err(|why| refused(&to, why))?;
        question(&mut session).map_err(|why| refused(&to, why))
    })
}

/// Finds out what is known of it.
///
/// # Errors
/// It does not answer, does not let this server in, or is not what it has to be: a primary of this version and cluster.
pub fn look(setup: &Setup, what: &Rebuild, cancel: &Cancel) -> Result<Source> {
    let remote = remote(setup, &what.source)?;
    let rows = ask(&remote, SHORT, cancel, |session| session.query(FACTS, SHORT))?;
    let row = rows.into_iter().next().unwrap_or_default();
    let told = Told(row);
    check(setup, what, &told)?;
    let segment = told.number(6)?;
    if !segment.is_power_of_two() || !((1 << 20)..=(1 << 30)).contains(&segment) {
        return Err(nonsense("wal_segment_size"));
    }
    let timeline = timeline(told.text(3)?)?;
    let names = ask(&remote, SHORT, cancel, |session| session.query("SELECT name FROM pg_ls_waldir()", SHORT))?;
    let names = names.into_iter().flatten().flatten();
    let aside = ask(&remote, SHORT, cancel, |session| session.query(ASIDE, SHORT))?;
    let aside = aside.into_iter().flatten().flatten().next();
    let (bytes, tablespaces) = sizes(&remote, cancel)?;
    let megabytes = |index: usize| told.text(index).ok().and_then(|text| text.parse::<u64>().ok()).map(|mb| mb << 20);
    Ok(Source {
        system: SystemId(told.number(2)?),
        history: history(&remote, timeline, cancel)?,
        insert: Lsn(told.number(4)?),
        control_timeline: Timeline(told.number(5)? as u32),
        segment,
        full_page_writes: told.text(7)? == "on",
        max_wal_size: megabytes(8).unwrap_or(1 << 30),
        // -1 is no number here.
        max_slot_wal_keep_size: megabytes(9),
        wal: names.filter_map(|name| wal::parse(&name, segment)).collect(),
        bytes,
        tablespaces,
        aside,
    })
}

impl Source {
    /// Whether it has the segment in which this position lies, on whichever timeline of its own.
    pub fn has_wal(&self, at: Lsn) -> bool {
        let number = at.0 / self.segment;
        self.wal.iter().any(|(timeline, known)| *known == number && self.history.holds(*timeline))
    }
}

/// Columns: 0 in recovery, 1 version, 2 system identifier, 3 segment that is written, 4 where, 5 timeline in the control
/// file, 6 segment size, 7 full_page_writes, 8 max_wal_size and 9 max_slot_wal_keep_size in MB.
const FACTS: &str = "SELECT pg_is_in_recovery(), current_setting('server_version_num'), \
    (SELECT system_identifier FROM pg_control_system()), \
    CASE WHEN NOT pg_is_in_recovery() THEN pg_walfile_name(pg_current_wal_insert_lsn()) END, \
    CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_insert_lsn() - '0/0' END, \
    (SELECT timeline_id FROM pg_control_checkpoint()), \
    (SELECT bytes_per_wal_segment FROM pg_control_init()), \
    current_setting('full_page_writes'), \
    (SELECT setting FROM pg_settings WHERE name = 'max_wal_size'), \
    (SELECT setting FROM pg_settings WHERE name = 'max_slot_wal_keep_size')";

const ASIDE: &str = "SELECT concat(place, '/', entry) \
    FROM (SELECT 'pg_wal' UNION ALL SELECT concat('pg_tblspc/', oid) FROM pg_tablespace WHERE oid >= 16384) AS p(place), \
    LATERAL pg_ls_dir(place, true, false) AS entry WHERE entry LIKE 'rebuild-%' LIMIT 1";

fn check(setup: &Setup, what: &Rebuild, told: &Told) -> Result<()> {
    let at = &what.source;
    if told.text(0)? != "f" {
        return Err(Error::new(format!("the instance at {at} is a standby, not a primary"))
            .hint("A server is rebuilt only from a server that runs as a primary (mc_ctl status)."));
    }
    let major = told.number(1)? / 10000;
    if major != u64::from(setup.place.major) {
        return Err(Error::new(format!(
            "the instance at {at} has version {major}, this server's programs have version {}",
            setup.place.major
        ))
        .hint(format!(
            "Both servers require the same major version: set bin_dir to the programs of PostgreSQL {major}."
        )));
    }
    let system = told.number(2)?;
    if what.system.0 != 0 && system != what.system.0 {
        return Err(Error::new(format!(
            "the instance at {at} belongs to another cluster: its system identifier is {system}, and that of the other server {}",
            what.system.0
        ))
        .hint("Check address and port of the servers in network.conf."));
    }
    Ok(())
}

fn timeline(segment: &str) -> Result<Timeline> {
    let number = segment.get(..8).and_then(|hex| u32::from_str_radix(hex, 16).ok());
    number.map(Timeline).ok_or_else(|| nonsense("its WAL segment"))
}

fn history(remote: &Remote, timeline: Timeline, cancel: &Cancel) -> Result<History> {
    if timeline == Timeline(1) {
        return History::parse(timeline, "").map_err(Error::new);
    }
    let sql = format!("SELECT pg_read_file('pg_wal/{:08X}.history')", timeline.0);
    let rows = ask(remote, SHORT, cancel, move |session| session.query(&sql, SHORT))?;
    let text = rows.into_iter().flatten().flatten().next().ok_or_else(|| nonsense("its timeline's history"))?;
    History::parse(timeline, &text).map_err(Error::new)
}

fn sizes(remote: &Remote, cancel: &Cancel) -> Result<(u64, Vec<Tablespace>)> {
    // 1663 and 1664 lie in the data directory itself.
    let sql = "SELECT oid, spcname, pg_tablespace_location(oid), pg_tablespace_size(oid) FROM pg_tablespace";
    let rows = ask(remote, LONG, cancel, move |session| session.query(sql, LONG))?;
    let mut bytes = 0;
    let mut elsewhere = Vec::new();
    for row in rows {
        let told = Told(row);
        let (oid, size) = (told.number(0)? as u32, told.text(3).ok().and_then(|s| s.parse().ok()).unwrap_or(0));
        let location = PathBuf::from(told.text(2)?);
        // An empty one has none; one that was made with allow_in_place_tablespaces lies in the data directory.
        if oid == 1663 || oid == 1664 || !location.is_absolute() {
            bytes += size;
        } else {
            elsewhere.push(Tablespace { oid, name: told.text(1)?.to_owned(), location, bytes: size });
        }
    }
    elsewhere.sort_by_key(|tablespace| tablespace.oid);
    Ok((bytes, elsewhere))
}

/// A row of an answer.
struct Told(Row);

impl Told {
    fn text(&self, index: usize) -> Result<&str> {
        let column = self.0.get(index).and_then(|value| value.as_deref());
        column.ok_or_else(|| nonsense(&format!("column {index} is missing")))
    }

    fn number(&self, index: usize) -> Result<u64> {
        let text = self.text(index)?;
        // A system identifier may look negative in SQL.
        text.parse().or_else(|_| text.parse::<i64>().map(|number| number as u64)).map_err(|_| nonsense(text))
    }
}

fn nonsense(what: &str) -> Error {
    Error::new(format!("could not understand the other server's instance: {what}"))
}
