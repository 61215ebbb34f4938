//! What `postgresql.conf` must say for a pair, and putting it there. Reads files alone: an instance that is down can be made
//! ready too.

use super::find;
use crate::config::Config;
use crate::error::Result;
pub use crate::pg::conf::{PORT, port};
use crate::pg::version::Major;
use crate::pg::{Place, commands, conf, control, files};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long `pg_controldata` may take.
const LIMIT: Duration = Duration::from_secs(10);

/// What precedes lines that are added.
pub(super) const HEAD: &str = "# for Mirroring Controller: mc_ctl init --apply";

/// A setting that is not as it must be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Need {
    /// The parameter.
    pub name: &'static str,
    /// The value that it needs, as it stands in the file.
    pub value: String,
    /// What it is now.
    pub found: String,
    /// Why it is needed.
    pub why: &'static str,
    /// A change takes effect with a restart of the instance; else with a reload.
    pub restart: bool,
    /// The line that wins over every line of `postgresql.conf`: that of an `ALTER SYSTEM`.
    pub beaten_by: Option<(PathBuf, usize)>,
}

/// What a value must be.
enum Must {
    /// One of these words.
    Be(&'static [&'static str]),
    /// A boolean that is true.
    BeOn,
    /// A number of at least so much; units are not looked at.
    BeAtLeast(u64),
    /// Addresses of which one is this server's.
    Listen,
    /// A boolean that is true, but where data checksums do the same.
    Hint,
}

/// Parameter, PostgreSQL's default, what it must be, what else is written, whether a change takes a restart, and why.
type Row<'a> = (&'static str, &'static str, Must, &'a str, bool, &'static str);

/// `keep` is the version's parameter that keeps WAL, with its value ([`wal_kept`]).
#[rustfmt::skip]
fn table<'a>(keep: (&'static str, &'a str), major: u32) -> Vec<Row<'a>> {
    let mut rows = vec![
        //                     default      must be                                  else            restart why
        ("listen_addresses",   "localhost", Must::Listen,                            "'*'",          true,  "the other server and the clients connect to it"),
        ("wal_level",          "replica",   Must::Be(&["replica", "hot_standby", "archive", "logical"]), "replica", true, "required for a standby"),
        ("max_wal_senders",    "10",        Must::BeAtLeast(4),                      "10",           true,  "the standby uses one, a rebuild two more"),
        ("hot_standby",        "on",        Must::BeOn,                              "on",           true,  "the standby's controller monitors it with queries"),
        ("wal_log_hints",      "off",       Must::Hint,                              "on",           true,  "pg_rewind requires it, or data checksums"),
        ("full_page_writes",   "on",        Must::BeOn,                              "on",           false, "pg_rewind requires it"),
        (keep.0,               "0",         Must::BeAtLeast(1),                      keep.1,         false, "a standby that was disconnected catches up with it"),
        ("synchronous_commit", "on",        Must::Be(&["on", "remote_apply", "true", "yes", "1"]), "on", false, "commits wait for the standby"),
    ];
    if major < 14 {
        rows.push(("password_encryption", "md5", Must::Be(&["scram-sha-256"]),       "scram-sha-256", false, "pg_hba.conf requires it; set passwords again after the change"));
    }
    rows
}

/// What is not as it must be, in the order of the table. Empty where `postgresql.conf` is still to come with a copy.
pub fn needs(config: &Config) -> Vec<Need> {
    let place = Place::new(config);
    if !place.config_file.exists() {
        return Vec::new();
    }
    let (keep, megabytes) = Major(place.major).wal_keep_setting();
    let keep = (keep, &*wal_kept(&place.data, megabytes));
    let own: Vec<IpAddr> = [&config.server.replication_address, &config.server.client_address]
        .into_iter()
        .flat_map(|host| find::addresses(host).unwrap_or_default())
        .collect();
    let checksums = || {
        let told = commands::controldata(&place).run(LIMIT, None).unwrap_or_default();
        control::value(&told, "Data page checksum version").is_some_and(|value| value != "0")
    };
    let mut needs = Vec::new();
    for (name, preset, must, value, restart, why) in table(keep, place.major) {
        let set = conf::effective(name, &place.config_file, &place.data);
        let now = set.clone().unwrap_or_else(|| preset.to_owned());
        let good = match must {
            Must::Be(words) => words.iter().any(|word| word.eq_ignore_ascii_case(&now)),
            Must::BeOn => is_on(&now),
            Must::Hint => is_on(&now) || checksums(),
            Must::BeAtLeast(least) => number(&now).is_none_or(|number| number >= least),
            Must::Listen => listens(&now, &own),
        };
        if good {
            continue;
        }
        let auto = place.data.join("postgresql.auto.conf");
        let mut elsewhere = conf::elsewhere(name, &place.config_file, &place.data);
        elsewhere.retain(|line| line.file == auto);
        needs.push(Need {
            name,
            value: value.to_owned(),
            found: if set.is_some() { now } else { format!("{now}, the default") },
            why,
            restart,
            beaten_by: elsewhere.pop().map(|line| (line.file, line.line)),
        });
    }
    needs
}

/// How much WAL to keep for a standby that is away: 1 GB, but at most a tenth of the filesystem of `pg_wal`.
fn wal_kept(data: &Path, megabytes: bool) -> String {
    let size = rustix::fs::statvfs(data.join("pg_wal")).map_or(u64::MAX, |fs| fs.f_blocks.saturating_mul(fs.f_frsize));
    kept(size, megabytes)
}

/// The value for a filesystem of this many bytes; a WAL segment has 16 MB.
fn kept(bytes: u64, megabytes: bool) -> String {
    match ((bytes / 10) >> 20).clamp(64, 1024) / 16 {
        segments if !megabytes => segments.to_string(),
        64 => "'1GB'".to_owned(),
        segments => format!("'{}MB'", segments * 16),
    }
}

/// Puts them into `postgresql.conf`, whose mode, owner and other lines stay. Those that an `ALTER SYSTEM` beats are left out.
/// Returns whether the file changed.
///
/// # Errors
/// The file cannot be read or replaced.
pub fn apply(config: &Config, needs: &[Need]) -> Result<bool> {
    let place = Place::new(config);
    let mut lines = Vec::new();
    for need in needs.iter().filter(|need| need.beaten_by.is_none()) {
        let late = conf::elsewhere(need.name, &place.config_file, &place.data).iter().any(|line| line.wins);
        lines.push((need.name, need.value.as_str(), late));
    }
    if lines.is_empty() {
        return Ok(false);
    }
    files::edit(&place.config_file, |text| {
        let mut text = text.to_vec();
        let mut head = false;
        for (name, value, late) in &lines {
            let once = conf::assign(&text, name, value, *late);
            let added = once.len() > text.len() && once.starts_with(&text);
            if added && !std::mem::replace(&mut head, true) {
                text = conf::append_line(&text, HEAD.as_bytes());
                text = conf::assign(&text, name, value, *late);
            } else {
                text = once;
            }
        }
        Ok(text)
    })
}

/// Whether a boolean is true.
pub(super) fn is_on(value: &str) -> bool {
    conf::truth(value) == Some(true)
}

fn number(value: &str) -> Option<u64> {
    let digits: String = value.trim().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Whether one of the server's addresses is among these. A name stands for what it resolves to.
fn listens(value: &str, own: &[IpAddr]) -> bool {
    value.split(',').map(str::trim).any(|word| match word {
        "*" => true,
        "0.0.0.0" => own.iter().any(IpAddr::is_ipv4),
        "::" => own.iter().any(IpAddr::is_ipv6),
        "localhost" => own.iter().any(IpAddr::is_loopback),
        "" => false,
        word => find::addresses(word).unwrap_or_default().iter().any(|address| own.contains(address)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        for (value, on) in
            [("on", true), ("ON", true), ("t", true), ("1", true), ("yes", true), ("off", false), ("", false)]
        {
            assert_eq!(is_on(value), on, "{value}");
        }
        assert_eq!([number("128MB"), number("10"), number("x")], [Some(128), Some(10), None]);
    }

    #[test]
    fn kept_wal_fits_the_disk() {
        for (gigabytes, megabytes, segments) in [(1, "'96MB'", "6"), (5, "'512MB'", "32"), (100, "'1GB'", "64")] {
            assert_eq!([kept(gigabytes << 30, true), kept(gigabytes << 30, false)], [megabytes, segments]);
        }
        assert_eq!([kept(0, true), kept(u64::MAX, true)], ["'64MB'", "'1GB'"]);
    }

    #[test]
    fn addresses_to_listen_on() {
        let own = ["192.0.2.100".parse().unwrap()];
        for (value, good) in [
            ("*", true),
            ("localhost", false),
            ("localhost, 192.0.2.100", true),
            ("0.0.0.0", true),
            ("::", false),
            ("", false),
            ("192.0.2.101", false),
        ] {
            assert_eq!(listens(value, &own), good, "{value}");
        }
        assert!(listens("localhost", &["127.0.0.1".parse().unwrap()]));
    }
}
