//! What lies on the disk: configuration files, `pg_hba.conf`, control data, and what the programs tell. Works before the first
//! start; changes nothing. May hang on a dying disk, so it is called on a thread that can be abandoned.

use super::facts::{Control, Files, Log, NamesLine, Place, Problem, Setting, Upstream};
use super::hba;
use crate::check::host;
use crate::config::Config;
use crate::error::Result;
use crate::pg::conf::{self, Assigned};
use crate::pg::{self, commands, control, follow, process, version};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a program may take.
const PROGRAM: Duration = Duration::from_secs(3);
/// How long a name may take to be resolved.
const RESOLVE: Duration = Duration::from_secs(2);
/// No `pg_hba.conf` or password file is read beyond this, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// So many errors are told.
const MAX_ERRORS: usize = 20;

/// In which unit `pg_settings` gives a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unit {
    Plain,
    Truth,
    Ms,
    Seconds,
    Mb,
}

use Unit::{Mb, Ms, Plain, Seconds, Truth};

/// The settings that are looked at: name, PostgreSQL's default (the same from 12 to 18), unit.
#[rustfmt::skip]
pub(super) const WANTED: &[(&str, &str, Unit)] = &[
    ("archive_command",                "",          Plain),
    ("archive_library",                "",          Plain),
    ("archive_mode",                   "off",       Truth),
    ("archive_timeout",                "0",         Seconds),
    ("fsync",                          "on",        Truth),
    ("full_page_writes",               "on",        Truth),
    ("hot_standby",                    "on",        Truth),
    ("listen_addresses",               "localhost", Plain),
    ("logging_collector",              "off",       Truth),
    ("max_connections",                "100",       Plain),
    ("max_locks_per_transaction",      "64",        Plain),
    ("max_prepared_transactions",      "0",         Plain),
    ("max_slot_wal_keep_size",         "-1",        Mb),
    ("max_wal_senders",                "10",        Plain),
    ("max_worker_processes",           "8",         Plain),
    ("port",                           "5432",      Plain),
    ("promote_trigger_file",           "",          Plain),
    ("recovery_min_apply_delay",       "0",         Ms),
    ("recovery_target",                "",          Plain),
    ("recovery_target_lsn",            "",          Plain),
    ("recovery_target_name",           "",          Plain),
    ("recovery_target_time",           "",          Plain),
    ("recovery_target_xid",            "",          Plain),
    ("restore_command",                "",          Plain),
    ("ssl",                            "off",       Truth),
    ("superuser_reserved_connections", "3",         Plain),
    ("synchronous_commit",             "on",        Plain),
    ("synchronous_standby_names",      "",          Plain),
    ("wal_keep_segments",              "0",         Plain),
    ("wal_keep_size",                  "0",         Mb),
    ("wal_level",                      "replica",   Plain),
    ("wal_log_hints",                  "off",       Truth),
    ("wal_receiver_timeout",           "60000",     Ms),
    ("wal_sender_timeout",             "60000",     Ms),
];

/// PostgreSQL's default of a setting.
pub(super) fn default(name: &str) -> &'static str {
    WANTED.iter().find(|(wanted, ..)| *wanted == name).map_or("", |(_, default, _)| default)
}

/// A value as `pg_settings` gives it. What may hold a secret becomes `(set)`.
pub(super) fn normal(name: &str, value: &str, unit: Unit) -> String {
    if ["archive_command", "restore_command"].contains(&name) {
        return if value.trim().is_empty() { "" } else { "(set)" }.to_owned();
    }
    let word = value.trim().to_ascii_lowercase();
    let truth = || conf::truth(&word).map(|is| if is { "on" } else { "off" }.to_owned());
    let scaled = |units: &[(&str, f64)]| {
        let digits = word.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(word.len());
        let (number, unit) = word.split_at(digits);
        let number: f64 = number.trim().parse().ok()?;
        let factor = units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| factor)?;
        Some(format!("{:.0}", number * factor))
    };
    let read = match unit {
        // An enumeration that also takes truth values.
        Plain if name == "synchronous_commit" => truth().or(Some(word)),
        Plain => None,
        Truth => truth().or(Some(word)),
        Ms => scaled(&[("", 1.0), ("us", 0.001), ("ms", 1.0), ("s", 1e3), ("min", 6e4), ("h", 3.6e6), ("d", 8.64e7)]),
        Seconds => {
            scaled(&[("", 1.0), ("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("min", 60.0), ("h", 3600.0), ("d", 86_400.0)])
        }
        Mb => scaled(&[
            ("", 1.0),
            ("b", 1.0 / 1_048_576.0),
            ("kb", 1.0 / 1024.0),
            ("mb", 1.0),
            ("gb", 1024.0),
            ("tb", 1_048_576.0),
        ]),
    };
    read.unwrap_or_else(|| value.to_owned())
}

/// Reads everything.
pub(super) fn read(config: &Config) -> Files {
    let file = &config.server;
    let place = pg::Place::new(config);
    let lines = conf::assigned(&place.config_file, &place.data);
    let upstream = if file.no_data.is_none() { upstream(&place, &lines) } else { None };
    let peer = config.peer().hosts.first().map_or("", String::as_str);
    let upstream_host = upstream.as_ref().map_or("", |upstream| &upstream.host);
    let [peer, replication, client, follows] =
        resolve([peer, &file.replication_address, &file.client_address, upstream_host]);
    let mut found = Files {
        version_num: version_of(&place),
        same_filesystem: pg::files::same_filesystem(&config.dir, &place.data),
        peer_addresses: peer,
        replication_addresses: replication,
        client_addresses: client,
        upstream_addresses: follows,
        upstream,
        ..Files::default()
    };
    found.incomplete = pg::control::is_incomplete(&place.data).unwrap_or(false);
    if file.no_data.is_some() {
        return found;
    }
    found.log = log(&place);
    found.standby = place.data.join("standby.signal").exists();
    found.control = control(&place).ok();
    found.unwritable = unwritable(&place.config_file);
    found.names = names(&lines, &place.config_file);
    found.settings = settings(&lines, &place.data);
    if !process::postmaster(&place.data).is_ok_and(|process| process.is_some()) {
        found.errors = errors(&place, &lines);
    }
    let hba_file = pg::hba::file(&place.config_file, &place.data);
    found.hba = hba::read(&hba_file);
    found.hba_file = hba_file.display().to_string();
    found
}

/// Where PostgreSQL's log goes, and whether it can be written there. Opens nothing, since nothing must be changed.
fn log(place: &pg::Place) -> Log {
    let file = &place.log_file;
    let target = if file.exists() { Some(file.as_path()) } else { file.parent() };
    let unwritable = match target {
        Some(target) if file.exists() && !file.is_file() => Some(format!("\"{}\" is not a file", target.display())),
        Some(target) => rustix::fs::access(target, rustix::fs::Access::WRITE_OK).err().map(|cause| cause.to_string()),
        None => None,
    };
    let postmaster = process::postmaster(&place.data).ok().flatten();
    let opened = postmaster.and_then(|it| std::fs::read_link(format!("/proc/{}/fd/2", it.pid)).ok());
    Log {
        file: file.display().to_string(),
        unwritable,
        opened: opened.map(|path| path.display().to_string()).unwrap_or_default(),
        share: pg::debian::share_log_command(file),
    }
}

fn read_some(path: &Path) -> String {
    use std::io::Read;
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(path);
    let _ = opened.and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The addresses of each host, all looked up at the same time; none of one whose name cannot be resolved in time.
fn resolve<const N: usize>(hosts: [&str; N]) -> [Vec<String>; N] {
    std::thread::scope(|scope| {
        // Not scope.spawn, which panics where there is no thread to be had: this is also run by the controller.
        let ask = |host| std::thread::Builder::new().spawn_scoped(scope, move || host::resolve(host, RESOLVE));
        hosts.map(|host| (!host.is_empty()).then(|| ask(host))).map(|asked| {
            let found = asked.and_then(|asked| asked.ok()?.join().ok()?.ok());
            found.unwrap_or_default().iter().map(ToString::to_string).collect()
        })
    })
}

fn version_of(place: &pg::Place) -> u32 {
    let output = commands::program(place, "postgres", ["--version".into()]).run(PROGRAM, None);
    output.ok().and_then(|text| version::version_num(&text)).unwrap_or(0)
}

fn control(place: &pg::Place) -> Result<Control> {
    let text = commands::controldata(place).run(PROGRAM, None)?;
    let value = |label: &str| control::value(&text, label).and_then(|value| value.parse::<u64>().ok());
    let needed = [
        ("max_connections", "max_connections setting"),
        ("max_worker_processes", "max_worker_processes setting"),
        ("max_wal_senders", "max_wal_senders setting"),
        ("max_prepared_transactions", "max_prepared_xacts setting"),
        ("max_locks_per_transaction", "max_locks_per_xact setting"),
    ];
    let needed = needed.into_iter().filter_map(|(name, label)| Some((name.to_owned(), value(label)?)));
    Ok(Control {
        system: value("Database system identifier").unwrap_or(0),
        checksums: value("Data page checksum version").is_some_and(|version| version > 0),
        needed: needed.collect(),
    })
}

/// Why the controller cannot replace the file and rename the new one over it.
fn unwritable(config_file: &Path) -> Option<String> {
    let real = config_file.canonicalize().unwrap_or_else(|_| config_file.to_path_buf());
    let refused = |path: &Path, wanted| rustix::fs::access(path, wanted).err().map(std::io::Error::from);
    let dir = real.parent().unwrap_or(Path::new("/"));
    let wanted = rustix::fs::Access::WRITE_OK;
    if let Some(why) = refused(&real, wanted) {
        return Some(format!("could not write file \"{}\": {why}", real.display()));
    }
    refused(dir, wanted | rustix::fs::Access::EXEC_OK)
        .map(|why| format!("could not create a file in directory \"{}\": {why}", dir.display()))
}

fn line_number(line: usize) -> u32 {
    u32::try_from(line).unwrap_or(0)
}

fn names(lines: &[Assigned], config_file: &Path) -> Vec<NamesLine> {
    let of_names = lines.iter().filter(|line| line.name == conf::NAMES);
    let line = |line: &Assigned| NamesLine {
        file: line.file.display().to_string(),
        line: line_number(line.line),
        value: line.value.clone(),
        ours: line.file == config_file,
    };
    of_names.map(line).collect()
}

fn settings(lines: &[Assigned], data: &Path) -> BTreeMap<String, Setting> {
    let mut found = BTreeMap::new();
    for line in lines {
        let Some((name, _, unit)) = WANTED.iter().find(|(name, ..)| *name == line.name) else { continue };
        let value = normal(name, &line.value, *unit);
        let file = line.file.display().to_string();
        found.insert((*name).to_owned(), Setting { value, file, line: line_number(line.line), command_line: false });
    }
    // The controller's sessions set this one for themselves, so that only this file tells of the command line.
    let options = data.join("postmaster.opts");
    let given = read_some(&options);
    if let Some((_, rest)) = given.rsplit_once("synchronous_commit=") {
        let value = rest.split(['"', '\'', ' ', '\n']).next().unwrap_or_default();
        let value = normal("synchronous_commit", value, Plain);
        let file = options.display().to_string();
        found.insert("synchronous_commit".into(), Setting { value, file, line: 0, command_line: true });
    }
    found
}

/// What `postgres -C` says against the files. It starts nothing.
fn errors(place: &pg::Place, lines: &[Assigned]) -> Vec<Problem> {
    let mut args: Vec<std::ffi::OsString> = vec!["-D".into(), place.data.clone().into(), "-C".into(), "port".into()];
    if place.config_elsewhere() {
        args.push("-c".into());
        args.push(format!("config_file={}", place.config_file.display()).into());
    }
    let Err(error) = commands::program(place, "postgres", args).run(PROGRAM, None) else { return Vec::new() };
    complaints(&error.message, lines)
}

/// The messages of a postmaster about its files, each with file and line, where they tell or the parameter's last line does.
fn complaints(text: &str, lines: &[Assigned]) -> Vec<Problem> {
    let said = text.lines().filter_map(|line| {
        let level = ["LOG:", "WARNING:", "ERROR:", "FATAL:"].into_iter().find_map(|level| line.split_once(level));
        level.map(|(_, text)| text.trim().to_owned())
    });
    let quoted = |text: &str, before: &str| {
        let (_, rest) = text.split_once(&format!("{before} \""))?;
        rest.split_once('"').map(|(word, rest)| (word.to_owned(), rest.to_owned()))
    };
    let place = |text: &str| {
        if let Some((file, rest)) = quoted(text, "file") {
            let number = rest.split_once("line ").map_or("", |(_, rest)| rest);
            let number = number.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
            return Place { file, line: number.parse().unwrap_or(0) };
        }
        let name = quoted(text, "parameter").map(|(name, _)| name).unwrap_or_default();
        let last = lines.iter().rev().find(|line| line.name == name);
        last.map_or_else(Place::default, |line| Place {
            file: line.file.display().to_string(),
            line: line_number(line.line),
        })
    };
    let mut found: Vec<Problem> = said.map(|text| Problem { place: place(&text), text }).collect();
    // The last one only says that there were some.
    if found.len() > 1 {
        found.retain(|problem| !problem.text.contains("contains errors"));
    }
    found.truncate(MAX_ERRORS);
    found
}

fn upstream(place: &pg::Place, lines: &[Assigned]) -> Option<Upstream> {
    let last = |name: &str| lines.iter().rev().find(|line| line.name == name);
    let set = last("primary_conninfo").filter(|line| !line.value.trim().is_empty())?;
    let at = Place { file: set.file.display().to_string(), line: line_number(set.line) };
    let Some(keys) = follow::parse_conninfo(&set.value) else {
        return Some(Upstream { unreadable: true, place: at, ..Upstream::default() });
    };
    let key = |name: &str| keys.iter().rfind(|(key, _)| key == name).map(|(_, value)| value.clone());
    let own_file = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".pgpass"));
    let passfile = key("passfile").map(PathBuf::from).or_else(own_file);
    let private = |path: &Path| {
        use std::os::unix::fs::MetadataExt;
        path.metadata().is_ok_and(|meta| meta.is_file() && meta.mode() & 0o077 == 0)
    };
    Some(Upstream {
        unreadable: false,
        host: key("hostaddr").or_else(|| key("host")).unwrap_or_default(),
        port: key("port").unwrap_or_else(|| default("port").to_owned()),
        application_name: follow::application_name(place).unwrap_or_default(),
        password: key("password").is_some_and(|word| !word.is_empty()) || passfile.is_some_and(|path| private(&path)),
        user: key("user").unwrap_or_default(),
        place: at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_pg_settings() {
        let check = |name: &str, value: &str, unit, expected: &str| {
            assert_eq!(normal(name, value, unit), expected, "{name} = {value}");
        };
        check("wal_sender_timeout", "1min", Ms, "60000");
        check("wal_sender_timeout", "5s", Ms, "5000");
        check("wal_sender_timeout", "700", Ms, "700");
        check("archive_timeout", "5min", Seconds, "300");
        check("wal_keep_size", "1GB", Mb, "1024");
        check("wal_keep_size", "1.5 GB", Mb, "1536");
        check("max_slot_wal_keep_size", "-1", Mb, "-1");
        check("wal_keep_size", "junk", Mb, "junk");
        check("fsync", "False", Truth, "off");
        check("fsync", "yes", Truth, "on");
        check("archive_mode", "ALWAYS", Truth, "always");
        check("synchronous_commit", "no", Plain, "off");
        check("synchronous_commit", "Remote_Write", Plain, "remote_write");
        check("listen_addresses", "*", Plain, "*");
        check("archive_command", "curl -u me:secret", Plain, "(set)");
        check("archive_command", " ", Plain, "");
    }

    #[test]
    fn complaints_have_a_place() {
        let lines = [Assigned { name: "wal_level".into(), value: "x".into(), file: "/d/a.conf".into(), line: 7 }];
        let text = "postgres failed: exit status: 1: 2026 [3] LOG:  syntax error in file \"/d/p.conf\" line 3, near token \"x\"\n\
                    LOG:  invalid value for parameter \"wal_level\": \"x\"\nHINT:  Available values\n\
                    FATAL:  configuration file \"/d/p.conf\" contains errors";
        let found = complaints(text, &lines);
        let seen: Vec<_> = found.iter().map(|p| (p.place.file.as_str(), p.place.line)).collect();
        assert_eq!(seen, [("/d/p.conf", 3), ("/d/a.conf", 7)]);
        assert_eq!(complaints("FATAL:  configuration file \"/d/p.conf\" contains errors", &[]).len(), 1);
    }
}
