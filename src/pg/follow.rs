//! Makes a data directory a standby's: `standby.signal`, and `primary_conninfo` in `postgresql.auto.conf` as
//! `pg_basebackup -R` writes it. Text to text but for [`follow`], which writes. Called by the runner.

use super::conf::{self, Elsewhere};
use super::{Place, commands, files};
use crate::error::{Error, Result};
use std::ffi::OsString;
use std::time::Duration;

const CONNINFO: &str = "primary_conninfo";

/// Where the primary is, and as what this server connects.
#[derive(Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Database user; only used where no `primary_conninfo` gives one.
    pub user: String,
    /// This server's name in the primary's `synchronous_standby_names`.
    pub application_name: String,
    /// The user's password. It replaces the one in `primary_conninfo`, unless that names another user or only a password file.
    pub password: Option<String>,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Upstream { host, port, user, application_name, .. } = self;
        write!(f, "Upstream {{ {user:?}, {host}:{port}, {application_name:?} }}")
    }
}

impl Upstream {
    /// Takes `host:port` apart; an IPv6 address stands in brackets.
    pub fn parse(address: &str, user: &str, application_name: &str) -> Result<Upstream> {
        let bad = || Error::new(format!("\"{address}\" is not of the form host:port"));
        let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().map_err(|_| bad())?;
        if host.is_empty() {
            return Err(bad());
        }
        Ok(Upstream {
            host: host.into(),
            port,
            user: user.into(),
            application_name: application_name.into(),
            password: None,
        })
    }
}

/// Writes `standby.signal` and `primary_conninfo`, durably: first the signal, so that a directory that is half done
/// starts as a standby.
pub fn follow(place: &Place, upstream: &Upstream) -> Result<()> {
    files::touch(&place.data.join("standby.signal"))?;
    let auto = place.data.join("postgresql.auto.conf");
    if !auto.exists() {
        files::touch(&auto)?;
    }
    let main = std::fs::read(&place.config_file).unwrap_or_default();
    let included = conf::elsewhere(CONNINFO, &place.config_file, &place.data);
    let outside = included.into_iter().rfind(|entry: &Elsewhere| entry.file != auto).map(|entry| entry.value);
    let outside = outside.or_else(|| present(&main));
    files::edit(&auto, |text| set_conninfo(text, outside.as_deref(), upstream))?;
    Ok(())
}

/// The `application_name` with which the instance connects to a primary, as its files say: of `primary_conninfo`, else
/// `cluster_name` (which Debian sets), as the WAL receiver does. `None` where there is no `primary_conninfo`, or it cannot
/// be read: the name is then what [`follow`] will write.
pub fn application_name(place: &Place) -> Option<String> {
    let value = |name| conf::effective(name, &place.config_file, &place.data);
    named(&value(CONNINFO)?, value("cluster_name"))
}

fn named(conninfo: &str, cluster_name: Option<String>) -> Option<String> {
    let keys = parse_conninfo(conninfo).filter(|keys| !keys.is_empty())?;
    // Of a key that is there twice, libpq takes the last.
    let given = keys.into_iter().rfind(|(key, _)| key == "application_name").map(|(_, value)| value);
    given.or(cluster_name).filter(|name| !name.is_empty())
}

fn present(text: &[u8]) -> Option<String> {
    let mut settings = text.split(|b| *b == b'\n').filter_map(conf::parse_line);
    settings.rfind(|setting| setting.name == CONNINFO).map(|setting| setting.value())
}

/// The text of `postgresql.auto.conf` with `primary_conninfo` set for `upstream`. Other keys of the present value, there
/// or else `outside`, are kept (password, passfile, sslmode).
fn set_conninfo(text: &[u8], outside: Option<&str>, upstream: &Upstream) -> Result<Vec<u8>> {
    let old = present(text).filter(|value| !value.is_empty()).or_else(|| outside.map(str::to_owned));
    let kept = old.as_deref().and_then(parse_conninfo).unwrap_or_default();
    replace_conninfo(text, &conninfo(kept, upstream))
}

/// The text of `postgresql.auto.conf` with this `primary_conninfo`.
fn replace_conninfo(text: &[u8], value: &str) -> Result<Vec<u8>> {
    let line = format!("{CONNINFO} = {}", conf::quote(value)?);
    let is_ours = |line: &[u8]| conf::parse_line(line).is_some_and(|setting| setting.name == CONNINFO);
    Ok(match text.split(|b| *b == b'\n').filter(|line| is_ours(line)).count() {
        0 => conf::append_line(text, line.as_bytes()),
        _ => conf::map_lines(text, |_, old| is_ours(old).then(|| line.clone().into_bytes())),
    })
}

/// `primary_conninfo` as the files of this instance set it, in keys and values; empty where there is none, or it cannot be
/// read.
pub fn present_keys(place: &Place) -> Vec<(String, String)> {
    let value = conf::effective(CONNINFO, &place.config_file, &place.data);
    value.as_deref().and_then(parse_conninfo).unwrap_or_default()
}

/// `primary_conninfo` with the user's present password; `None` if it does not change: it has that password, names another
/// user, or takes the password from a file alone.
pub fn with_password(keys: &[(String, String)], user: &str, password: &str) -> Option<Vec<(String, String)>> {
    let last = |name: &str| keys.iter().rfind(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let changes = last("user") == Some(user) && last("password") != Some(password) && takes_password(keys);
    changes.then(|| {
        let mut keys = keys.to_vec();
        set_password(&mut keys, password);
        keys
    })
}

/// Replaces the password in `primary_conninfo` of a standby by the user's present one (see [`with_password`]). Other keys stay
/// as they are. Returns whether the file has changed. `wanted` is asked once more before the change.
///
/// # Errors
/// The file cannot be read or written.
pub fn renew_password(place: &Place, user: &str, password: &str, wanted: impl Fn() -> bool) -> Result<bool> {
    if !place.data.join("standby.signal").exists() {
        return Ok(false);
    }
    files::edit(&place.data.join("postgresql.auto.conf"), |text| {
        match with_password(&present_keys(place), user, password).filter(|_| wanted()) {
            Some(keys) => replace_conninfo(text, &to_conninfo(&keys)),
            None => Ok(text.to_vec()),
        }
    })
}

/// The keys of `primary_conninfo` that name a file; relative to the data directory, in which the WAL receiver runs.
const FILES: [&str; 6] = ["passfile", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslcrldir"];

/// Connects once by these keys of `primary_conninfo`, as the WAL receiver does: with the same libpq, for replication. No
/// standby is named, so that the connection is none of a standby for the primary.
///
/// # Errors
/// What libpq or the primary reports; no password is in it.
pub fn try_replication(place: &Place, keys: &[(String, String)], limit: Duration) -> std::result::Result<(), String> {
    let password = keys.iter().rfind(|(key, _)| key == "password").map(|(_, value)| value.clone());
    let replaced = ["password", "dbname", "replication", "application_name", "connect_timeout"];
    let mut keys: Vec<_> = keys.iter().filter(|(key, _)| !replaced.contains(&key.as_str())).cloned().collect();
    for (key, value) in &mut keys {
        let relative = FILES.contains(&key.as_str()) && !value.is_empty() && value != "system";
        if relative && let Some(path) = place.data.join(&*value).to_str() {
            *value = path.to_owned();
        }
    }
    let seconds = limit.as_secs().saturating_sub(1).max(2).to_string();
    for (key, value) in [
        // As the WAL receiver, for password files.
        ("dbname", "replication"),
        ("replication", "true"),
        ("application_name", super::connect::APPLICATION_NAME),
        ("connect_timeout", &seconds),
    ] {
        keys.push((key.to_owned(), value.to_owned()));
    }
    let args = ["-X", "-w", "-A", "-t", "-q", "-c", "IDENTIFY_SYSTEM", "-d", &to_conninfo(&keys)].map(OsString::from);
    commands::program(place, "psql", args).password(password.as_deref()).run(limit, None).map(drop).map_err(|error| {
        let text = error.message.split_once("psql: error: ").map_or(&*error.message, |(_, said)| said);
        one_line(text)
    })
}

/// The lines in one, each once: libpq tries with and without TLS, and repeats an error of both.
fn one_line(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        if !line.is_empty() && !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines.join(" ")
}

/// Whether the password belongs into the string: not if it comes from a file alone.
fn takes_password(keys: &[(String, String)]) -> bool {
    let has = |name: &str| keys.iter().any(|(key, _)| key == name);
    has("password") || !has("passfile")
}

fn set_password(keys: &mut Vec<(String, String)>, password: &str) {
    keys.retain(|(key, _)| key != "password");
    keys.push(("password".into(), password.to_owned()));
}

/// Keys and values as a connection string.
pub fn to_conninfo(keys: &[(String, String)]) -> String {
    keys.iter().map(|(key, value)| format!("{key}={}", conninfo_value(value))).collect::<Vec<_>>().join(" ")
}

fn conninfo(mut keys: Vec<(String, String)>, upstream: &Upstream) -> String {
    if !keys.iter().any(|(key, _)| key == "user") {
        keys.insert(0, ("user".into(), upstream.user.clone()));
    }
    let ours = ["host", "hostaddr", "port", "application_name"];
    keys.retain(|(key, _)| !ours.contains(&key.as_str()));
    let same_user = keys.iter().rfind(|(key, _)| key == "user").is_some_and(|(_, user)| *user == upstream.user);
    if let Some(password) = upstream.password.as_ref().filter(|_| same_user && takes_password(&keys)) {
        set_password(&mut keys, password);
    }
    keys.push(("host".into(), upstream.host.clone()));
    keys.push(("port".into(), upstream.port.to_string()));
    keys.push(("application_name".into(), upstream.application_name.clone()));
    to_conninfo(&keys)
}

fn conninfo_value(value: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-:/@%+,".contains(&b);
    if !value.is_empty() && value.bytes().all(plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// The keys of a connection string in libpq's `key=value` form; `None` for a URI or what libpq would refuse.
pub fn parse_conninfo(text: &str) -> Option<Vec<(String, String)>> {
    let mut chars = text.chars().peekable();
    let mut keys = Vec::new();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Some(keys);
        }
        let mut key = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=' && !c.is_whitespace()) {
            key.push(c);
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if key.is_empty() || key.contains(':') || chars.next() != Some('=') {
            return None;
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let quoted = chars.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        loop {
            match chars.next() {
                Some('\\') => value.push(chars.next()?),
                Some('\'') if quoted => break,
                Some(c) if !quoted && c.is_whitespace() => break,
                Some(c) => value.push(c),
                None if quoted => return None,
                None => break,
            }
        }
        keys.push((key, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn upstream() -> Upstream {
        Upstream::parse("[::1]:5433", "postgres", "nd 2").unwrap()
    }

    fn check(text: &str, outside: Option<&str>, expected: &str) {
        assert_eq!(String::from_utf8_lossy(&set_conninfo(text.as_bytes(), outside, &upstream()).unwrap()), expected);
    }

    #[test]
    fn an_error_is_shown_once() {
        let rejected =
            "connection to server at \"nd1\", port 5432 failed: FATAL:  password authentication failed for user \"mc\"";
        let once = rejected.replace("  ", " ");
        assert_eq!(one_line(&format!("{rejected}\n{rejected}\n")), once);
        let plain = "FATAL: no pg_hba.conf entry for user \"mc\", no encryption";
        assert_eq!(one_line(&format!("{rejected}\n {plain}")), format!("{once} {plain}"));
    }

    #[test]
    fn writes_conninfo() {
        let tail = "host=::1 port=5433 application_name=''nd 2'''";
        check("", None, &format!("primary_conninfo = 'user=postgres {tail}\n"));
        check(
            "# auto\nprimary_conninfo = 'user=rep password=''s e\\\\\\\\c'' sslmode=prefer host=old hostaddr=1.2.3.4 port=1'\na = 'b'\n",
            None,
            &format!("# auto\nprimary_conninfo = 'user=rep password=''s e\\\\\\\\c'' sslmode=prefer {tail}\na = 'b'\n"),
        );
        check(
            "a = 'b'",
            Some("user=o passfile=/p"),
            &format!("a = 'b'\nprimary_conninfo = 'user=o passfile=/p {tail}\n"),
        );
        check("primary_conninfo = 'postgresql://x/y'\n", None, &format!("primary_conninfo = 'user=postgres {tail}\n"));
    }

    #[test]
    fn the_present_password_replaces_the_old_one() {
        let check = |text: &str, expected: &str| {
            let keys = parse_conninfo(text).unwrap();
            let changed = with_password(&keys, "rep", "new 1").map(|keys| to_conninfo(&keys));
            assert_eq!(changed.as_deref().unwrap_or("unchanged"), expected, "{text}");
            let upstream = Upstream { user: "rep".into(), password: Some("new 1".into()), ..upstream() };
            let written = parse_conninfo(&conninfo(keys.clone(), &upstream)).unwrap();
            let password = |keys: &[(String, String)]| {
                keys.iter().filter(|(key, _)| key == "password").map(|(_, value)| value.clone()).collect::<Vec<_>>()
            };
            if expected != "unchanged" {
                assert_eq!(password(&written), ["new 1"], "{text}");
            } else {
                assert_eq!(password(&written), password(&keys), "{text}");
            }
        };
        check("user=rep password=old host=a", "user=rep host=a password='new 1'");
        check("user=rep password=x password=old", "user=rep password='new 1'");
        check("user=rep host=a", "user=rep host=a password='new 1'");
        check("user=rep passfile=/p password=old", "user=rep passfile=/p password='new 1'");
        check("user=rep passfile=/p", "unchanged");
        check("user=other password=old", "unchanged");
        check("user=rep password='new 1'", "unchanged");
    }

    #[test]
    fn names_are_found_as_the_wal_receiver_does() {
        let check = |conninfo: &str, cluster: Option<&str>, expected: Option<&str>| {
            assert_eq!(named(conninfo, cluster.map(str::to_owned)).as_deref(), expected, "{conninfo:?}, {cluster:?}");
        };
        check("host=a port=5432 application_name=nd2", Some("15/main"), Some("nd2"));
        check("host = 'a b'  application_name = 'it\\'s' password=''", None, Some("it's"));
        check("application_name=a application_name=b", None, Some("b"));
        check("host=a", Some("15/main"), Some("15/main"));
        check("host=a", Some(""), None);
        check("host=a", None, None);
        check("host=a application_name=''", Some("15/main"), None);
        check("", Some("15/main"), None);
        check("postgresql://a/b", Some("15/main"), None);
        check("host", Some("15/main"), None);
    }

    #[test]
    fn parses_addresses() {
        let ok = |text: &str| Upstream::parse(text, "u", "a").map(|u| (u.host, u.port));
        assert_eq!(ok("h:1").unwrap(), ("h".into(), 1));
        assert_eq!(ok("[fe80::1]:5432").unwrap(), ("fe80::1".into(), 5432));
        assert!(ok("h").is_err() && ok(":5").is_err() && ok("h:70000").is_err());
    }

    proptest! {
        #[test]
        fn values_survive(value in "[ -~]{0,12}") {
            let text = format!("a={} b='2'", conninfo_value(&value));
            prop_assert_eq!(parse_conninfo(&text), Some(vec![("a".into(), value), ("b".into(), "2".into())]));
        }

        #[test]
        fn junk_does_not_panic(text in "\\PC{0,40}") {
            let _ = parse_conninfo(&text);
        }
    }
}
