//! The arbiter's directory: `arbitration.conf`, and the `network.conf` and `mc.key` of each cluster, read and checked into
//! one configuration.
//!
//! One cluster may lie in the directory itself, any number in `clusters/NAME/`. Called once by `mc_arb` at its start.
//! Reads files alone; logs nothing (what is to be told is returned as [`Remark`]s).

use super::assignments::{self, Assignment};
use super::network::in_line;
use super::params::{FACILITIES, Kind, Preset, Row, Value};
use super::{Key, MemberLine, Network, PrivateKey, Remark, check_run_dir, management_directory, own_key, perms};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The file of the arbiter's own parameters.
pub const FILE: &str = "arbitration.conf";

/// Where further clusters lie.
const CLUSTERS: &str = "clusters";

/// The directory of run-time files.
const RUN: &str = "run";

/// Every parameter of `arbitration.conf`, in the order of the manual.
#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    Row { name: "port",                    kind: Kind::Count,       preset: Preset::Elsewhere },
    Row { name: "my_address",              kind: Kind::Text(255),   preset: Preset::Elsewhere },
    Row { name: "core_file_path",          kind: Kind::Path,        preset: Preset::Elsewhere },
    Row { name: "syslog_facility",         kind: Kind::WordAnyCase(FACILITIES), preset: Preset::Is("LOCAL0") },
    Row { name: "syslog_ident",            kind: Kind::Text(64),    preset: Preset::Is("MirroringControllerArbiter") },
    Row { name: "fencing_command",         kind: Kind::Path,        preset: Preset::Elsewhere },
    Row { name: "fencing_command_timeout", kind: Kind::Seconds(1),  preset: Preset::Is("20") },
    // Of the guide's later editions. The servers' own settings, told in heartbeats, hold instead.
    Row { name: "heartbeat_interval",      kind: Kind::Windows,     preset: Preset::Elsewhere },
    Row { name: "heartbeat_timeout",       kind: Kind::Windows,     preset: Preset::Elsewhere },
    Row { name: "heartbeat_retry",         kind: Kind::Windows,     preset: Preset::Elsewhere },
];

/// The whole configuration of an arbiter, checked.
#[derive(Clone, Debug)]
pub struct ArbiterConfig {
    /// The arbiter's directory, absolute.
    pub dir: PathBuf,
    /// Hosts and ports to listen on.
    pub listen: Vec<(String, u16)>,
    /// The clusters: that of the directory itself first, then by name.
    pub clusters: Vec<ClusterConfig>,
    /// Those whose files are not as they must be, by name, and why: a mistake in one is no reason to serve none.
    pub refused: Vec<(String, Error)>,
    /// The command that makes sure that a server acknowledges nothing any more.
    pub fencing_command: Option<PathBuf>,
    /// `fencing_command_timeout`, ms.
    pub fencing_command_timeout_ms: u64,
    /// 0 to 7, for `LOCAL0` to `LOCAL7`.
    pub syslog_facility: u8,
    /// The program's name in the system log.
    pub syslog_ident: String,
    /// Directory for core files.
    pub core_file_path: PathBuf,
    /// What is to be logged at a start.
    pub remarks: Vec<Remark>,
}

/// One cluster that the arbiter serves.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// The name of its directory below `clusters`; empty for the arbiter's directory itself.
    pub name: String,
    /// Its `network.conf`.
    pub network: Network,
    /// The arbiter's line in it.
    pub arbiter: MemberLine,
    /// Its `mc.key`.
    pub key: Key,
    /// The arbiter's private key, of this cluster; there where its `network.conf` lists keys.
    pub own_key: Option<PrivateKey>,
}

/// The arbiter's directory as an absolute path, and the directory of its run-time files.
///
/// # Errors
/// It does not exist, or others could exchange files in it.
pub fn directories(dir: &Path) -> Result<(PathBuf, PathBuf)> {
    let dir = management_directory(dir).map_err(|error| match error.hint.contains("MCCONTROLDIR") {
        true => error.hint("Specify it with -M or in ARBCONTROLDIR."),
        false => error,
    })?;
    let run_dir = dir.join(RUN);
    Ok((dir, run_dir))
}

impl ArbiterConfig {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// What is missing, not as it must be, or open to others; with file, line and key.
    pub fn load(dir: &Path) -> Result<ArbiterConfig> {
        let (dir, run_dir) = directories(dir)?;
        check_run_dir(&run_dir)?;
        let path = dir.join(FILE);
        let make = format!(
            "Run \"mc_arb init -M {}\" with its arguments, as the README shows, to create it. If it is in another directory, name \
             that with -M.",
            dir.display()
        );
        let text = perms::read_private(&path, &make)?;
        let values = Values::read(&path, &text)?;
        let mut refused = Vec::new();
        let mut clusters = clusters(&dir, &mut refused)?;
        clusters.retain(|cluster| is_listened_for(&path, &dir, &values, cluster, &mut refused));
        refuse_equal_keys(&dir, &mut clusters, &mut refused);
        if let (true, Some((_, error))) = (clusters.is_empty(), refused.first()) {
            return Err(error.clone());
        }
        if let (Some(command), line) = (values.text("fencing_command"), values.line("fencing_command")) {
            perms::check_program(Path::new(&command)).map_err(|error| {
                in_line(&path, line, format!("fencing_command: {}", error.message)).hint(error.hint)
            })?;
        }
        let remarks = values.remarks.clone();
        Ok(ArbiterConfig {
            listen: listen(&values, &clusters),
            fencing_command: values.text("fencing_command").map(PathBuf::from),
            fencing_command_timeout_ms: values.ms("fencing_command_timeout"),
            syslog_facility: values
                .text("syslog_facility")
                .and_then(|word| word.bytes().last())
                .map_or(0, |d| d - b'0'),
            syslog_ident: values.text("syslog_ident").unwrap_or_default(),
            core_file_path: values.text("core_file_path").map_or_else(|| dir.clone(), PathBuf::from),
            clusters,
            refused,
            dir,
            remarks,
        })
    }

    /// `DIR/run`: control socket, pid, log, and a directory per cluster with its ledger.
    pub fn run_dir(&self) -> PathBuf {
        self.dir.join(RUN)
    }
}

/// The clusters that can be read; the others are added to `refused`.
fn clusters(dir: &Path, refused: &mut Vec<(String, Error)>) -> Result<Vec<ClusterConfig>> {
    let mut found = Vec::new();
    for name in names(dir)? {
        match ClusterConfig::load(dir, &name) {
            Ok(cluster) => found.push(cluster),
            Err(error) => refused.push((name, error)),
        }
    }
    Ok(found)
}

/// The arbiter's directory where it holds a cluster, as the empty name, and each below `clusters`, by name.
///
/// # Errors
/// They cannot be read, or others could exchange files in them.
pub fn names(dir: &Path) -> Result<Vec<String>> {
    let of_its_own = dir.join("network.conf").exists() || dir.join("mc.key").exists();
    let below = dir.join(CLUSTERS);
    let mut names = Vec::new();
    if below.exists() {
        let meta = below.metadata().map_err(|cause| Error::io("read the attributes of", &below, cause))?;
        perms::check_directory(&below, &meta)?;
        let failed = |cause| Error::io("read directory", &below, cause);
        for entry in below.read_dir().map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') && entry.path().is_dir() {
                names.push(name);
            }
        }
    }
    names.sort();
    if of_its_own || names.is_empty() {
        names.insert(0, String::new());
    }
    Ok(names)
}

/// The directory of the cluster of this name.
pub fn cluster_dir(dir: &Path, name: &str) -> PathBuf {
    if name.is_empty() { dir.to_owned() } else { dir.join(CLUSTERS).join(name) }
}

impl ClusterConfig {
    fn load(dir: &Path, name: &str) -> Result<ClusterConfig> {
        let dir = cluster_dir(dir, name);
        if !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::new(format!(
                "directory \"{}\" has a space or a character beyond ASCII in its name",
                dir.display()
            )));
        }
        let meta = dir.metadata().map_err(|cause| Error::io("read the attributes of", &dir, cause))?;
        perms::check_directory(&dir, &meta)?;
        let copy =
            |what: &str| format!("Copy {what} from one of the cluster's servers: it is the same on all members.");
        let path = dir.join("network.conf");
        let network = Network::parse(&path, &perms::read_private(&path, &copy("network.conf"))?)?;
        let arbiter = network.arbiter.clone().ok_or_else(|| {
            Error::new(format!("file \"{}\" has no arbiter", path.display()))
                .hint("Add the line \"ID HOST PORT arbiter\" to it, also on the servers.")
        })?;
        let path = dir.join("mc.key");
        let key = Key::parse(&path, &perms::read_private(&path, &copy("mc.key"))?)?;
        let own_key = own_key(&dir, &arbiter, "mc_arb init")?;
        Ok(ClusterConfig { name: name.to_owned(), network, arbiter, key, own_key })
    }
}

/// A caller is recognised by the key that it holds: clusters of one key cannot be told from each other.
fn refuse_equal_keys(dir: &Path, clusters: &mut Vec<ClusterConfig>, refused: &mut Vec<(String, Error)>) {
    let mut by_key: BTreeMap<[u8; 32], Vec<String>> = BTreeMap::new();
    for cluster in &*clusters {
        by_key.entry(*cluster.key.as_bytes()).or_default().push(cluster.name.clone());
    }
    for names in by_key.into_values().filter(|names| names.len() > 1) {
        let files: Vec<String> =
            names.iter().map(|name| format!("\"{}\"", cluster_dir(dir, name).join("mc.key").display())).collect();
        let error = Error::new(format!("files {} contain the same key", files.join(" and ")))
            .hint("Every cluster requires its own key: openssl rand -hex 32.");
        clusters.retain(|cluster| !names.contains(&cluster.name));
        refused.extend(names.into_iter().map(|name| (name, error.clone())));
    }
}

/// `port` is the one under which every cluster's servers dial the arbiter.
fn is_listened_for(
    path: &Path,
    dir: &Path,
    values: &Values,
    cluster: &ClusterConfig,
    refused: &mut Vec<(String, Error)>,
) -> bool {
    let line = &cluster.arbiter;
    let (ours, theirs) = (values.port(), line.ports.first().copied());
    if ours.is_none() || ours == theirs {
        return true;
    }
    let what = format!(
        "port: {} is not the arbiter's port in file \"{}\", line {}, which is {}",
        ours.unwrap_or_default(),
        cluster_dir(dir, &cluster.name).join("network.conf").display(),
        line.line,
        theirs.unwrap_or_default()
    );
    let error = in_line(path, values.line("port"), what).hint(
        "The servers connect to the port in network.conf. Use the same port in \
                                                       both files.",
    );
    refused.push((cluster.name.clone(), error));
    false
}

/// `my_address`, else the arbiter's hosts as the clusters know them.
fn listen(values: &Values, clusters: &[ClusterConfig]) -> Vec<(String, u16)> {
    let mut listen = Vec::new();
    for cluster in clusters {
        let Some(port) = cluster.arbiter.ports.first() else { continue };
        let host = values.text("my_address").or(cluster.arbiter.hosts.first().cloned());
        listen.extend(host.map(|host| (host, *port)));
    }
    listen.sort();
    listen.dedup();
    listen
}

/// The values of `arbitration.conf` by key, with the lines that set them (0: the default).
struct Values {
    of: BTreeMap<&'static str, (Value, usize)>,
    remarks: Vec<Remark>,
}

impl Values {
    fn read(path: &Path, text: &str) -> Result<Values> {
        let mut values = Values { of: BTreeMap::new(), remarks: Vec::new() };
        for assignment in assignments::parse(path, text)? {
            values.set(path, &assignment)?;
        }
        for row in TABLE {
            if let (false, Preset::Is(preset)) = (values.of.contains_key(row.name), row.preset)
                && let Some(value) = row.read(preset)
            {
                values.of.insert(row.name, (value, 0));
            }
        }
        Ok(values)
    }

    fn set(&mut self, path: &Path, assignment: &Assignment) -> Result<()> {
        let Assignment { key, value, line } = assignment;
        let Some(row) = TABLE.iter().find(|row| row.name == key) else {
            let known: Vec<&str> = TABLE.iter().filter(|row| row.kind != Kind::Windows).map(|row| row.name).collect();
            return Err(in_line(path, *line, format!("unknown parameter \"{key}\""))
                .hint(format!("The parameters are: {}.", known.join(", "))));
        };
        let (good, allowed) = match row.name {
            "port" => (value.parse::<u16>().is_ok_and(|port| port > 0), "allowed: 1 to 65535".to_owned()),
            "my_address" => (is_own_address(value), "allowed: a host name, or an IPv4 or IPv6 address".to_owned()),
            _ => (true, row.allowed()),
        };
        let Some(read) = row.read(value).filter(|_| good) else {
            return Err(in_line(path, *line, format!("{key}: \"{value}\" is not valid ({allowed})")));
        };
        if row.kind == Kind::Windows {
            let text = format!("parameter {key} of file \"{}\" has no effect", path.display());
            self.remarks.push(Remark::notice(text, "The arbiter uses the detection times that the servers report."));
            return Ok(());
        }
        self.of.insert(row.name, (read, *line));
        Ok(())
    }

    fn text(&self, name: &str) -> Option<String> {
        match self.of.get(name) {
            Some((Value::Text(text), _)) => Some(text.clone()),
            _ => None,
        }
    }

    fn ms(&self, name: &str) -> u64 {
        match self.of.get(name) {
            Some((Value::Ms(ms), _)) => *ms,
            _ => 0,
        }
    }

    fn port(&self) -> Option<u16> {
        match self.of.get("port") {
            Some((Value::Count(port), _)) => u16::try_from(*port).ok(),
            _ => None,
        }
    }

    fn line(&self, name: &str) -> usize {
        self.of.get(name).map_or(0, |(_, line)| *line)
    }
}

/// One may listen on all of the host's addresses.
fn is_own_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified()) || super::network::check_host(text).is_ok()
}
