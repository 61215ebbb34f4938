//! The table of the parameters of `ID.conf` (mc_server.conf(5)): a row a key, with its kind, range and default; and
//! how one value is read by its row. Text in, values out; reads no file.

use super::network::check_host;

/// The largest number of the guide's ranges.
const MAX: u64 = 2_147_483_647;

/// One parameter as it applies, for `mc_ctl check`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parameter {
    /// Its key.
    pub name: &'static str,
    /// Its value, as it would be written; passwords as `********`; empty for none.
    pub value: String,
    /// Where it came from: `line N`, `default`, `heartbeat_interval` and the like, `found`.
    pub source: String,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The key.
    pub name: &'static str,
    /// What its value may be.
    pub kind: Kind,
    /// What applies where the file does not set it.
    pub preset: Preset,
}

/// What a value may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Milliseconds, from this number; or with a unit (`'500ms'`, `'2s'`).
    Ms(u64),
    /// Seconds, from this number; or with a unit.
    Seconds(u64),
    /// A count from 0.
    Count,
    /// A count from 1.
    Number,
    /// Bytes per second as pg_basebackup takes them: a number with the unit k or M.
    Rate,
    /// One of these words.
    Word(&'static [&'static str]),
    /// One of these words, whatever its case.
    WordAnyCase(&'static [&'static str]),
    /// An absolute path of printable ASCII without spaces.
    Path,
    /// Printable ASCII without spaces, of at most so many bytes.
    Text(usize),
    /// The same, never shown.
    Secret,
    /// A host name or an address.
    Host,
    /// A path of a program that the controller runs.
    Command,
    /// `host:port` to listen on.
    Address,
    /// Means something on Windows only.
    Windows,
}

/// What applies where the file does not set a parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Preset {
    /// The file must set it.
    Required,
    /// This, as it would be written in the file.
    Is(&'static str),
    /// The value of that other parameter.
    Like(&'static str),
    /// Worked out from elsewhere, or none.
    Elsewhere,
}

use Kind::{Address, Command, Count, Host, Ms, Number, Path, Rate, Seconds, Secret, Text, Windows, Word, WordAnyCase};
use Preset::{Elsewhere, Is, Like, Required};

const ON_OFF: Kind = Word(&["on", "off"]);
pub(super) const FACILITIES: &[&str] =
    &["LOCAL0", "LOCAL1", "LOCAL2", "LOCAL3", "LOCAL4", "LOCAL5", "LOCAL6", "LOCAL7"];
const SILENCE: &[&str] = &["arbitration", "command", "message", "fallback", "switch", "disconnect"];

const fn row(name: &'static str, kind: Kind, preset: Preset) -> Row {
    Row { name, kind, preset }
}

/// Every parameter, in the order of the manual. A key in `Like` stands above the rows that name it.
#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    //  key                                      kind                                      default
    row("db_instance",                           Path,                                     Required),
    row("db_instance_username",                  Text(63),                                 Elsewhere),
    row("db_instance_password",                  Secret,                                   Elsewhere),
    row("target_db",                             Text(63),                                 Is("postgres")),
    row("config_file",                           Path,                                     Elsewhere),
    row("bin_dir",                               Path,                                     Elsewhere),
    row("log_file",                              Path,                                     Elsewhere),
    row("client_address",                        Host,                                     Elsewhere),
    row("replication_address",                   Host,                                     Elsewhere),
    row("heartbeat_interval",                    Ms(1),                                    Is("800")),
    row("heartbeat_timeout",                     Seconds(1),                               Is("1")),
    row("heartbeat_retry",                       Count,                                    Is("2")),
    row("heartbeat_error_action",                Word(SILENCE),                            Elsewhere),
    row("isolated_primary_action",               Word(&["wait", "stop"]),                  Is("wait")),
    row("isolated_restart",                      ON_OFF,                                   Is("off")),
    row("startup_wait",                          Seconds(0),                               Is("60")),
    row("accept_startup_race",                   ON_OFF,                                   Is("off")),
    row("db_instance_check_interval",            Ms(1),                                    Like("heartbeat_interval")),
    row("db_instance_check_timeout",             Seconds(1),                               Like("heartbeat_timeout")),
    row("db_instance_check_retry",               Count,                                    Like("heartbeat_retry")),
    row("db_instance_timeout_action",            Word(&["none", "message", "failover"]),   Is("failover")),
    row("disk_check_interval",                   Ms(1),                                    Like("heartbeat_interval")),
    row("disk_check_timeout",                    Seconds(1),                               Like("heartbeat_timeout")),
    row("disk_check_retry",                      Count,                                    Like("heartbeat_retry")),
    row("tablespace_directory_error_action",     Word(&["message", "failover"]),           Is("failover")),
    row("rebuild_action",                        Word(&["manual", "auto"]),                Is("manual")),
    row("shutdown_detached_synchronous_standby", ON_OFF,                                   Is("off")),
    row("remote_call_timeout",                   Ms(0),                                    Is("70000")),
    row("agent_alive_timeout",                   Seconds(0),                               Is("10")),
    row("arbiter_alive_interval",                Ms(1),                                    Like("heartbeat_interval")),
    row("arbiter_alive_timeout",                 Seconds(1),                               Like("heartbeat_timeout")),
    row("arbiter_alive_retry",                   Count,                                    Like("heartbeat_retry")),
    row("arbiter_connect_timeout",               Seconds(1),                               Is("20")),
    row("fencing_command",                       Command,                                  Elsewhere),
    row("fencing_command_timeout",               Seconds(1),                               Is("20")),
    row("arbitration_command",                   Command,                                  Elsewhere),
    row("arbitration_command_timeout",           Seconds(1),                               Is("30")),
    row("post_switch_command",                   Command,                                  Elsewhere),
    row("pre_detach_command",                    Command,                                  Elsewhere),
    row("post_attach_command",                   Command,                                  Elsewhere),
    row("status_change_command_timeout",         Seconds(1),                               Is("20")),
    row("health_check_address",                  Address,                                  Elsewhere),
    row("backup_command",                        Command,                                  Elsewhere),
    row("recover_command",                       Command,                                  Elsewhere),
    row("backup_destination",                    Path,                                     Elsewhere),
    row("backup_generations",                    Number,                                   Is("2")),
    row("backup_max_age",                        Number,                                   Is("26")),
    row("backup_max_rate",                       Rate,                                     Elsewhere),
    row("syslog_facility",                       WordAnyCase(FACILITIES),                  Is("LOCAL0")),
    row("syslog_ident",                          Text(64),                                 Is("MirroringControllerOpen")),
    row("core_file_path",                        Path,                                     Elsewhere),
    row("db_instance_service_name",              Windows,                                  Elsewhere),
    row("mc_service_name",                       Windows,                                  Elsewhere),
    row("event_source",                          Windows,                                  Elsewhere),
];

/// A value that has passed its row's check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// A duration, ms.
    Ms(u64),
    /// A count.
    Count(u32),
    /// A text; words in the table's spelling.
    Text(String),
}

impl Row {
    /// The row of a key.
    pub fn find(name: &str) -> Option<&'static Row> {
        TABLE.iter().find(|row| row.name == name)
    }

    /// What may be written, for errors.
    pub fn allowed(&self) -> String {
        match self.kind {
            Ms(min) => format!("allowed: {min} to {MAX} milliseconds, or with a unit, as in '500ms' or '2s'"),
            Seconds(min) => format!("allowed: {min} to {MAX} seconds, or with a unit, as in '500ms' or '2s'"),
            Count => format!("allowed: {} to {MAX}", 0),
            Number => format!("allowed: 1 to {MAX}"),
            Rate => "allowed: 32k to 1024M per second, with the unit k or M, as in '50M'".into(),
            Word(words) | WordAnyCase(words) => format!("allowed: {}", words.join(", ")),
            Path | Command => "allowed: an absolute path of printable ASCII characters without spaces".into(),
            Text(limit) => format!("allowed: 1 to {limit} printable ASCII characters without spaces"),
            Secret => "allowed: printable ASCII characters without spaces".into(),
            Host => "allowed: a host name, or an IPv4 or IPv6 address".into(),
            Address => "allowed: host:port, as in 127.0.0.1:8008 or [::1]:8008".into(),
            Windows => "allowed: any value".into(),
        }
    }

    /// Reads a value; `None` where it is not what [`Row::allowed`] says.
    pub fn read(&self, text: &str) -> Option<Value> {
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        let whole = |good: bool| good.then(|| Value::Text(text.to_string()));
        match self.kind {
            Ms(min) => duration(text, 1, min).map(Value::Ms),
            Seconds(min) => duration(text, 1000, min).map(Value::Ms),
            Count => number(text).and_then(|n| u32::try_from(n).ok()).map(Value::Count),
            Number => number(text).filter(|n| *n > 0).and_then(|n| u32::try_from(n).ok()).map(Value::Count),
            Rate => whole(is_rate(text)),
            Word(words) => whole(words.contains(&text)),
            WordAnyCase(words) => {
                words.iter().find(|word| word.eq_ignore_ascii_case(text)).map(|word| Value::Text(word.to_string()))
            }
            Path | Command => whole(plain && text.starts_with('/')),
            Text(limit) => whole(plain && text.len() <= limit),
            Secret => whole(plain),
            Host => whole(check_host(text).is_ok()),
            Address => whole(host_and_port(text).is_some()),
            Windows => whole(true),
        }
    }

    /// A value as it is shown to the operator.
    pub fn show(&self, value: &Value) -> String {
        match (value, self.kind) {
            (_, Secret) => "********".into(),
            (Value::Ms(ms), Seconds(_)) if ms % 1000 == 0 => format!("{} s", ms / 1000),
            (Value::Ms(ms), _) => format!("{ms} ms"),
            (Value::Count(n), _) => n.to_string(),
            (Value::Text(text), _) => text.clone(),
        }
    }
}

/// A number of the guide's range.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|n| digits && *n <= MAX)
}

/// A duration in ms: a number of `unit` ms, or one with its own unit. At least `min`, in whichever unit is written.
fn duration(text: &str, unit: u64, min: u64) -> Option<u64> {
    let (digits, unit) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(digits), _) => (digits, 1),
        (None, Some(digits)) => (digits, 1000),
        (None, None) => (text, unit),
    };
    number(digits.trim_end_matches(' ')).filter(|n| *n >= min).map(|n| n * unit)
}

/// Whether pg_basebackup takes this for `--max-rate`.
fn is_rate(text: &str) -> bool {
    let (digits, unit) = match (text.strip_suffix('k'), text.strip_suffix('M')) {
        (Some(digits), _) => (digits, 1),
        (None, Some(digits)) => (digits, 1024),
        (None, None) => return false,
    };
    number(digits).is_some_and(|n| (32..=1 << 20).contains(&(n * unit)))
}

/// The host, without brackets, and the port of `host:port` or `[address]:port`.
pub(super) fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').filter(|host| host.contains(':'))?,
        None => Some(host).filter(|host| !host.contains(':'))?,
    };
    let port = number(port).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)?;
    let good = matches!(host, "0.0.0.0" | "::") || check_host(host).is_ok();
    good.then_some((host, port))
}

/// The key that was probably meant.
pub fn suggest(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    if name == "post_promote_command" {
        return Some("post_switch_command");
    }
    let (distance, best) = TABLE.iter().map(|row| (distance(&name, row.name), row.name)).min()?;
    (distance <= 1 + best.len() / 6).then_some(best)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let cheapest = (corner + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            corner = row[j + 1];
            row[j + 1] = cheapest;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_table_is_sound() {
        for (index, row) in TABLE.iter().enumerate() {
            let above = &TABLE[..index];
            assert!(above.iter().all(|other| other.name != row.name), "{} twice", row.name);
            match row.preset {
                Is(text) => assert!(row.read(text).is_some(), "{}", row.name),
                Like(name) => {
                    let like = above.iter().find(|other| other.name == name).unwrap();
                    assert_eq!(like.kind, row.kind, "{}", row.name);
                }
                Required | Elsewhere => {}
            }
        }
    }

    fn check(name: &str, text: &str, expected: Option<&str>) {
        let row = Row::find(name).unwrap();
        let got = row.read(text).map(|value| row.show(&value));
        assert_eq!(got.as_deref(), expected, "{name} = {text}");
    }

    #[test]
    fn values() {
        check("heartbeat_interval", "800", Some("800 ms"));
        check("heartbeat_interval", "2s", Some("2000 ms"));
        check("heartbeat_interval", "0", None);
        check("heartbeat_interval", "2147483647", Some("2147483647 ms"));
        check("heartbeat_interval", "2147483648", None);
        check("heartbeat_interval", "99999999999999999999", None);
        check("heartbeat_interval", "-1", None);
        check("heartbeat_interval", "+1", None);
        check("heartbeat_interval", "1.5", None);
        check("heartbeat_timeout", "1", Some("1 s"));
        check("heartbeat_timeout", "500ms", Some("500 ms"));
        check("heartbeat_timeout", "500 ms", Some("500 ms"));
        check("heartbeat_timeout", "0ms", None);
        check("heartbeat_timeout", "ms", None);
        check("heartbeat_timeout", "2147483647", Some("2147483647 s"));
        check("heartbeat_retry", "0", Some("0"));
        check("heartbeat_retry", "", None);
        check("remote_call_timeout", "0", Some("0 ms"));
        check("syslog_facility", "local3", Some("LOCAL3"));
        check("syslog_facility", "LOCAL8", None);
        check("rebuild_action", "auto", Some("auto"));
        check("backup_generations", "1", Some("1"));
        check("backup_generations", "0", None);
        check("backup_max_rate", "50M", Some("50M"));
        check("backup_max_rate", "32k", Some("32k"));
        check("backup_max_rate", "31k", None);
        check("backup_max_rate", "1025M", None);
        check("backup_max_rate", "50", None);
        check("rebuild_action", "Auto", None);
        check("db_instance", "/database1/inst1", Some("/database1/inst1"));
        check("db_instance", "/database 1", None);
        check("db_instance", "/dätabase", None);
        check("db_instance", "database1", None);
        check("db_instance_password", "pa#ss", Some("********"));
        check("db_instance_password", "pa ss", None);
        check("db_instance_username", &"u".repeat(64), None);
        check("client_address", "db1.example.com", Some("db1.example.com"));
        check("client_address", "[::1]", None);
        for good in ["127.0.0.1:8008", "[::1]:8008", "[::]:1", "0.0.0.0:65535", "host:80"] {
            check("health_check_address", good, Some(good));
        }
        for bad in ["::1:80", "host", "host:0", "host:65536", "[host]:80", ":80", "[::1]80"] {
            check("health_check_address", bad, None);
        }
    }

    #[test]
    fn suggestions() {
        assert_eq!(suggest("heartbeat_intervall"), Some("heartbeat_interval"));
        assert_eq!(suggest("Heartbeat_Retry"), Some("heartbeat_retry"));
        assert_eq!(suggest("syslog_facilty"), Some("syslog_facility"));
        assert_eq!(suggest("post_promote_command"), Some("post_switch_command"));
        assert_eq!(suggest("shared_buffers"), None);
        assert_eq!(suggest(&"x".repeat(1000)), None);
    }

    proptest! {
        #[test]
        fn junk_never_panics(text in ".{0,40}", index in 0..TABLE.len()) {
            let row = &TABLE[index];
            if let Some(value) = row.read(&text) {
                row.show(&value);
            }
            suggest(&text);
        }
    }
}
