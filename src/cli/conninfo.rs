//! `mc_ctl conninfo`: how clients connect with whichever server is the primary, and readers with the standby.
//!
//! Where each server is reached, the controllers tell each other in their heartbeats; where none runs, or the other one has not
//! been heard yet, the files of this host say as much as they can, and a notice says so. No password is ever in it.
//!
//! Each string has time limits ([`Limits`]): without them a client that waits for the answer of a host that lost power waits
//! for minutes.

use super::{Ended, Failure, call, print, say_remark};
use crate::config::{Config, Remark};
use crate::fsm::event::Settings;
use crate::init::settings;
use clap::{Args as Arguments, ValueEnum};
use serde_json::json;

/// The shortest `connect_timeout` that libpq accepts, s.
const MIN_CONNECT_S: u64 = 2;
/// The longest time after which a client leaves a silent server, s; the kernel limits the idle time of keepalives.
const MAX_LEAVE_S: u64 = 3600;

#[derive(Arguments, Debug)]
pub(super) struct Args {
    #[command(flatten)]
    common: super::args::Common,
    /// Output format: all, or one line for a program
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    format: Format,
    /// Database [default: target_db]
    #[arg(long, value_name = "NAME")]
    dbname: Option<String>,
    /// Database user [default: not specified]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// With a format of one line: for clients that only read, with the standby before the primary
    #[arg(long)]
    read_only: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Format {
    Text,
    Uri,
    Keywords,
    Jdbc,
    Json,
}

pub(super) fn run(args: &Args) -> Ended {
    let config = args.common.client_config()?;
    let dbname = args.dbname.clone().unwrap_or_else(|| config.server.target_db.clone());
    let settings = config.settings(0);
    let detection_ms = settings.heartbeat_detection_ms;
    let limits = Limits::new(detection_ms);
    let clients = Clients { places: places(&config), dbname, user: args.user.clone(), limits };
    if args.format == Format::Jdbc {
        say_remark("mc_ctl", &Remark::notice(limits.statements(), STATEMENTS_HINT));
    }
    let text = match args.format {
        Format::Text => clients.text() + &limits.text(detection_ms) + &isolated(&settings),
        Format::Uri => clients.uri(args.read_only) + "\n",
        Format::Keywords => clients.keywords(args.read_only) + "\n",
        Format::Jdbc => clients.jdbc(args.read_only) + "\n",
        Format::Json => clients.json(&config).map_err(|cause| {
            Failure::failed(crate::error::Error::new(format!("could not write the connection strings: {cause}")))
        })?,
    };
    print(&text);
    Ok(0)
}

/// Host and port of both servers, in the order of `network.conf`.
fn places(config: &Config) -> [(String, u16); 2] {
    let told = call::status(config).map(|snapshot| snapshot.clients).unwrap_or_default();
    if let [Some(one), Some(two)] = told.each_ref().map(|told| split(told)) {
        return [one, two];
    }
    let own_port = told[config.me.index()].rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let own_port = own_port.unwrap_or_else(|| port(config));
    [(0, config.me.index() == 0), (1, config.me.index() == 1)].map(|(server, own)| {
        if let Some(place) = told.get(server).and_then(|told| split(told)) {
            return place;
        }
        if own {
            return (config.server.client_address.clone(), own_port);
        }
        // Both on one host: its files are here.
        let line = config.peer();
        if let Ok(other) = Config::load_for_client(&config.dir, Some(&line.id)) {
            return (other.server.client_address.clone(), port(&other));
        }
        let host = line.hosts.first().cloned().unwrap_or_default();
        let text =
            format!("the client address of server \"{}\" is not known: {host} port {own_port} is assumed", line.id);
        let hint = "The host is that of network.conf, and the port that of this server. Run this command again when both \
                    controllers run.";
        say_remark("mc_ctl", &Remark::notice(text, hint));
        (host, own_port)
    })
}

/// The port that the instance's files set.
fn port(config: &Config) -> u16 {
    let whole = Config::load(&config.dir, Some(&config.id));
    whole.map_or(settings::PORT, |whole| settings::port(&whole.server.config_file, &whole.server.db_instance))
}

/// `host:port`, an IPv6 address in brackets.
fn split(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some((host.to_owned(), port.parse().ok()?))
}

/// What to do where [`Limits::statements`] is too short.
const STATEMENTS_HINT: &str = "If statements take longer, remove socketTimeout, and set net.ipv4.tcp_keepalive_time, _intvl \
                               and _probes on the client's host.";

/// The time limits of a client, which follow from the heartbeat detection time.
///
/// A client leaves a silent server and then waits in vain for a connection with it. The two times together are a little
/// longer than the detection time, so that the client reaches the other server when that one has been promoted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Limits {
    /// How long a connection may take to be made, s.
    connect_s: u64,
    /// How long a server may be silent, s.
    leave_s: u64,
}

impl Limits {
    fn new(detection_ms: u64) -> Limits {
        let detection_s = detection_ms / 1000;
        let connect_s = (detection_s / 3).clamp(MIN_CONNECT_S, 10);
        Limits { connect_s, leave_s: (detection_s + 1).saturating_sub(connect_s).clamp(2, MAX_LEAVE_S) }
    }

    /// libpq's parameters. With `tcp_user_timeout`, Linux closes the connection at the first keepalive after that time: half a
    /// second less makes that the last one.
    fn libpq(self) -> [(&'static str, u64); 5] {
        let Limits { connect_s, leave_s } = self;
        let count = (leave_s - 1).min(3);
        [
            ("connect_timeout", connect_s),
            ("tcp_user_timeout", leave_s * 1000 - 500),
            ("keepalives_idle", leave_s - count),
            ("keepalives_interval", 1),
            ("keepalives_count", count),
        ]
    }

    fn text(self, detection_ms: u64) -> String {
        format!(
            "time limits, for a detection time of {} s (libpq 12 or later):\n  a client abandons a server that does not \
             respond for {} s, and tries each server for {} s\n  JDBC: {}\n  {}\n",
            seconds(detection_ms),
            self.leave_s,
            self.connect_s,
            self.statements(),
            STATEMENTS_HINT.trim_end_matches('.').replacen("Where", "JDBC: where", 1)
        )
    }

    /// What JDBC's `socketTimeout` does besides.
    fn statements(self) -> String {
        format!("socketTimeout also ends each statement that takes longer than {} s", self.leave_s)
    }
}

/// What `isolated_primary_action` means for clients.
fn isolated(settings: &Settings) -> String {
    let after = seconds(settings.heartbeat_detection_ms.saturating_mul(2));
    let arbiter = if settings.arbiter { " and from the arbiter" } else { "" };
    let (action, what) = match settings.isolated_primary_stops {
        true => (
            "stop",
            format!("stops after {after} s\n  a client that still reaches it then connects to the new primary"),
        ),
        false => (
            "wait",
            format!(
                "continues to accept connections, and its commits wait\n  a client that still reaches it does not connect to \
                 the new primary; \"stop\" on both servers ends this after {after} s"
            ),
        ),
    };
    format!(
        "isolated_primary_action = '{action}':\n  a primary that is cut off from the other server{arbiter} {what}\n"
    )
}

/// A time in ms, as seconds.
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

struct Clients {
    places: [(String, u16); 2],
    dbname: String,
    user: Option<String>,
    limits: Limits,
}

impl Clients {
    fn uri(&self, read_only: bool) -> String {
        let user = self.user.as_ref().map_or(String::new(), |user| format!("{}@", percent(user)));
        let attribute = if read_only { "prefer-standby" } else { "read-write" };
        let limits = self.limits.libpq().map(|(name, value)| format!("&{name}={value}")).concat();
        format!(
            "postgresql://{user}{}/{}?target_session_attrs={attribute}{limits}",
            self.authority(),
            percent(&self.dbname)
        )
    }

    fn keywords(&self, read_only: bool) -> String {
        let [(one, one_port), (other, other_port)] = &self.places;
        let user = self.user.as_ref().map_or(String::new(), |user| format!(" user={}", keyword(user)));
        let attribute = if read_only { "prefer-standby" } else { "read-write" };
        let limits = self.limits.libpq().map(|(name, value)| format!(" {name}={value}")).concat();
        format!(
            "host={one},{other} port={one_port},{other_port} dbname={}{user} target_session_attrs={attribute}{limits}",
            keyword(&self.dbname)
        )
    }

    fn jdbc(&self, read_only: bool) -> String {
        let user = self.user.as_ref().map_or(String::new(), |user| format!("user={}&", percent(user)));
        let kind = if read_only { "preferSecondary" } else { "primary" };
        let Limits { connect_s, leave_s } = self.limits;
        format!(
            "jdbc:postgresql://{}/{}?{user}targetServerType={kind}&connectTimeout={connect_s}&socketTimeout={leave_s}\
             &tcpKeepAlive=true",
            self.authority(),
            percent(&self.dbname)
        )
    }

    fn authority(&self) -> String {
        let bracketed = |host: &str| if host.contains(':') { format!("[{}]", percent(host)) } else { host.to_owned() };
        let places: Vec<String> =
            self.places.iter().map(|(host, port)| format!("{}:{port}", bracketed(host))).collect();
        places.join(",")
    }

    fn text(&self) -> String {
        let lines = |read_only| {
            [self.uri(read_only), self.keywords(read_only), self.jdbc(read_only)]
                .map(|line| format!("  {line}\n"))
                .concat()
        };
        format!(
            "for the primary:\n{}for reads, the standby if available, otherwise the primary (libpq 14 or later):\n{}",
            lines(false),
            lines(true)
        )
    }

    fn json(&self, config: &Config) -> serde_json::Result<String> {
        let strings = |read_only| json!({ "uri": self.uri(read_only), "keywords": self.keywords(read_only), "jdbc": self.jdbc(read_only) });
        let servers = config.network.servers.iter().zip(&self.places);
        let servers: Vec<_> =
            servers.map(|(line, (host, port))| json!({ "id": line.id, "host": host, "port": port })).collect();
        let limits = json!({ "connect_seconds": self.limits.connect_s, "silence_seconds": self.limits.leave_s });
        let all = json!({
            "servers": servers, "primary": strings(false), "prefer_standby": strings(true), "limits": limits,
        });
        Ok(serde_json::to_string_pretty(&all)? + "\n")
    }
}

/// A part of a URI. A `:` of an IPv6 address stays.
fn percent(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// A value of libpq's keywords.
fn keyword(text: &str) -> String {
    let plain = !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c == '\'' || c == '\\');
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(hosts: [&str; 2]) -> Clients {
        Clients {
            places: [(hosts[0].into(), 5432), (hosts[1].into(), 5433)],
            dbname: "my db".into(),
            user: Some("o'x".into()),
            limits: Limits::new(5400),
        }
    }

    #[test]
    fn limits() {
        let check = |detection_ms, connect_s, leave_s, keepalives: [u64; 3]| {
            let limits = Limits::new(detection_ms);
            assert_eq!(limits, Limits { connect_s, leave_s }, "{detection_ms} ms");
            let [_, (_, user_timeout_ms), keepalives_of @ ..] = limits.libpq();
            assert_eq!((user_timeout_ms, keepalives_of.map(|(_, value)| value)), (leave_s * 1000 - 500, keepalives));
        };
        check(5400, 2, 4, [1, 1, 3]);
        check(800, 2, 2, [1, 1, 1]);
        check(30_000, 10, 21, [18, 1, 3]);
        check(u64::MAX, 10, 3600, [3597, 1, 3]);
    }

    #[test]
    fn strings() {
        let named = clients(["db1.example.com", "192.0.2.110"]);
        assert_eq!(
            named.uri(false),
            "postgresql://o%27x@db1.example.com:5432,192.0.2.110:5433/my%20db?target_session_attrs=read-write&connect_timeout=2\
             &tcp_user_timeout=3500&keepalives_idle=1&keepalives_interval=1&keepalives_count=3"
        );
        assert_eq!(
            named.keywords(false),
            "host=db1.example.com,192.0.2.110 port=5432,5433 dbname='my db' user='o\\'x' target_session_attrs=read-write \
             connect_timeout=2 tcp_user_timeout=3500 keepalives_idle=1 keepalives_interval=1 keepalives_count=3"
        );
        assert_eq!(
            named.jdbc(true),
            "jdbc:postgresql://db1.example.com:5432,192.0.2.110:5433/my%20db?user=o%27x&targetServerType=preferSecondary&connectTimeout=2\
             &socketTimeout=4&tcpKeepAlive=true"
        );
        let sixes = clients(["2001:db8::1", "fe80::1%eth0"]);
        assert!(
            sixes
                .uri(true)
                .contains("@[2001:db8::1]:5432,[fe80::1%25eth0]:5433/my%20db?target_session_attrs=prefer-standby")
        );
        assert!(sixes.keywords(true).starts_with("host=2001:db8::1,fe80::1%eth0 port"));
    }

    #[test]
    fn addresses() {
        assert_eq!(split("h:1"), Some(("h".into(), 1)));
        assert_eq!(split("[::1]:5432"), Some(("::1".into(), 5432)));
        assert_eq!([split(""), split("h"), split("h:x")], [None, None, None]);
    }
}
