//! What the service managers of the host do with the instance and with the controller: files of systemd, of rc scripts and of
//! Debian's postgresql-common. Only reads; asks no service manager, since what matters is the next boot.

use super::super::{Entry, Finding};
use crate::error::Error;
use crate::pg::bounded::{self, Cancel};
use crate::pg::files::entries;
use crate::pg::{Place, debian};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) const AUTOSTART: Entry = Entry::error(
    "autostart",
    "Another program than the controller starts the instance when the host boots: systemd, an rc script, or Debian's \
     start.conf. It would also start the instance of a server that has lost its role.",
);
pub(super) const NOT_STARTED_AT_BOOT: Entry = Entry::notice(
    "not-started-at-boot",
    "systemd runs on this host, and no enabled unit, rc script or @reboot line of a crontab starts the controller. After a \
     restart of the host, this server stays down until an operator runs mc_ctl start.",
);
pub(super) const UNIT_KILL_MODE: Entry = Entry::warning(
    "unit-kill-mode",
    "KillMode of the systemd unit that starts the controller is not process: whenever the controller ends, systemd kills the \
     instance too.",
);
pub(super) const UNIT_RESTART: Entry = Entry::warning(
    "unit-restart",
    "The systemd unit runs the controller in the foreground, without a watcher, and does not restart it after a failure.",
);
pub(super) const REMOVE_IPC: Entry = Entry::warning(
    "remove-ipc",
    "systemd-logind removes the shared memory and semaphores of a user who is not a system user at logout, which breaks the \
     PostgreSQL instance of that user.",
);

/// Where systemd looks for units, the strongest first.
const UNIT_DIRS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Where systemd-logind's configuration is, the strongest last.
const LOGIND_DIRS: [&str; 3] =
    ["/usr/lib/systemd/logind.conf.d", "/run/systemd/logind.conf.d", "/etc/systemd/logind.conf.d"];

/// Where systemd is the service manager that runs, see `sd_booted(3)`.
pub(super) const BOOTED: &str = "/run/systemd/system";

/// The highest user id of a system user where `/etc/login.defs` names none.
const SYS_UID_MAX: u32 = 999;

/// How long `crontab` may take.
const CRONTAB: Duration = Duration::from_secs(1);

/// No unit or script is longer, in bytes.
const LONGEST: u64 = 256 * 1024;

/// What is read.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// What starts the instance at boot.
    pub autostarts: Vec<Autostart>,
    /// The units that start this controller.
    pub units: Vec<Unit>,
    /// Something starts the controller at boot; `None` if that is not known, as where systemd does not run.
    pub starts_at_boot: Option<bool>,
    /// What systemd-logind does, where it is installed and this user is no system user.
    pub remove_ipc: Option<RemoveIpc>,
}

/// Something that starts the instance.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Autostart {
    /// In words.
    pub what: String,
    /// The file that says so.
    pub file: String,
    /// Its line; 0 for the whole.
    pub line: u32,
    /// What fixes it.
    pub fix: String,
}

/// A systemd unit that starts a controller.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// `ExecStart`.
    pub exec: String,
    /// `KillMode`, with the file and line that sets it.
    pub kill_mode: Option<(String, String, u32)>,
    /// `Restart`, likewise.
    pub restart: Option<(String, String, u32)>,
    /// The unit's file.
    pub file: String,
    /// The line of `ExecStart`.
    pub line: u32,
}

/// `RemoveIPC` of systemd-logind.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RemoveIpc {
    /// As it is set; empty where it is not.
    pub value: String,
    /// The file that sets it.
    pub file: String,
    /// The line.
    pub line: u32,
    /// This user's id.
    pub uid: u32,
}

/// Reads it.
pub(super) fn collect(directory: &Path, data: &Path, place: &Place) -> Facts {
    // As it is written, and without symbolic links.
    let data = [data, &place.data];
    let mut autostarts = Vec::new();
    let debian = debian_cluster(place);
    if let Some((version, name)) = &debian {
        autostarts.extend(debian_start(version, name));
    }
    autostarts.extend(enabled_units().iter().filter_map(|link| unit_start(link, data, debian.as_ref())));
    autostarts.extend(rc_links().iter().filter_map(|link| rc_start(link, data)));
    let starts_at_boot = Path::new(BOOTED).is_dir().then(|| controller_starts(directory));
    Facts { autostarts, units: controller_units(Some(directory)), starts_at_boot, remove_ipc: remove_ipc() }
}

fn read(path: &Path) -> Option<String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let meta = path.metadata().ok().filter(std::fs::Metadata::is_file)?;
    std::fs::File::open(path).ok()?.take(LONGEST.min(meta.len())).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

pub(super) fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Lines `key = value` that are no comment, with their numbers from 1.
fn assignments(text: &str) -> impl Iterator<Item = (u32, &str, &str)> {
    text.lines().zip(1u32..).filter_map(|(line, number)| {
        let (key, value) = line.split_once('=')?;
        let key = key.trim();
        (!key.starts_with(['#', ';'])).then(|| (number, key, value.trim()))
    })
}

/// Whether a text has this path, not as a part of a longer one.
fn mentions(text: &str, path: &Path) -> bool {
    let path = path.to_string_lossy();
    let path = path.trim_end_matches('/');
    text.match_indices(path).any(|(at, _)| {
        let rest = &text[at + path.len()..];
        let after = rest.strip_prefix('/').unwrap_or(rest).chars().next();
        after.is_none_or(|c| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.')))
    })
}

// -------------------------------------------------------------------------------------------------------------- Debian

/// The version and name under which postgresql-common knows the data directory.
fn debian_cluster(place: &Place) -> Option<(String, String)> {
    let (cluster, _) = debian::clusters().find(|(_, data)| data.canonicalize().is_ok_and(|data| data == place.data))?;
    Some((name_of(cluster.parent()?), name_of(&cluster)))
}

/// `start.conf` says `auto`, or is not there, and the service that reads it is enabled.
fn debian_start(version: &str, name: &str) -> Option<Autostart> {
    let file = PathBuf::from(format!("/etc/postgresql/{version}/{name}/start.conf"));
    let text = read(&file).unwrap_or_default();
    let word = text.lines().zip(1u32..).find_map(|(line, number)| {
        let word = line.split('#').next()?.split_whitespace().next()?;
        Some((word.to_owned(), number))
    });
    let (word, line) = word.unwrap_or_else(|| ("auto".to_owned(), 0));
    if word != "auto" {
        return None;
    }
    let systemd = enabled_units().into_iter().find(|link| name_of(link) == "postgresql.service");
    let by_unit = UNIT_DIRS.iter().any(|dir| Path::new(dir).join("postgresql.service").exists());
    let rc = || rc_links().into_iter().find(|link| name_of(link).ends_with("postgresql")).filter(|_| !by_unit);
    let by = systemd.or_else(rc)?;
    let why = if line > 0 { "contains auto" } else { "does not contain manual" };
    Some(Autostart {
        what: format!(
            "start.conf of cluster {version}/{name} {why}, and \"{}\" starts such clusters at boot",
            by.display()
        ),
        fix: format!("as root: echo manual > {} (or, for all clusters: systemctl disable postgresql)", file.display()),
        file: file.display().to_string(),
        line,
    })
}

// ------------------------------------------------------------------------------------------------------------- systemd

/// The links by which units are enabled.
pub(super) fn enabled_units() -> Vec<PathBuf> {
    let targets = entries(Path::new("/etc/systemd/system")).into_iter();
    let wants = targets
        .filter(|dir| matches!(dir.extension().and_then(|e| e.to_str()), Some("wants" | "requires" | "upholds")));
    wants.flat_map(|dir| entries(&dir)).filter(|link| link.extension().is_some_and(|e| e == "service")).collect()
}

/// The files of a unit: its own, and its drop-ins.
fn unit_files(name: &str, own: Option<&Path>) -> Vec<PathBuf> {
    // nd@15-main.service is made from nd@.service.
    let template = name.split_once('@').map(|(before, _)| format!("{before}@.service"));
    let names = std::iter::once(name.to_owned()).chain(template);
    let names: Vec<String> = names.collect();
    let found = UNIT_DIRS.iter().flat_map(|dir| names.iter().map(move |name| Path::new(dir).join(name)));
    let found = found.clone().find(|path| path.is_file()).or_else(|| own.map(Path::to_owned));
    let drop_ins =
        UNIT_DIRS.iter().rev().flat_map(|dir| names.iter().map(move |name| Path::new(dir).join(format!("{name}.d"))));
    let drop_ins = drop_ins.flat_map(|dir| entries(&dir)).filter(|path| path.extension().is_some_and(|e| e == "conf"));
    found.into_iter().chain(drop_ins).collect()
}

/// A unit that is enabled and starts the instance.
fn unit_start(link: &Path, data: [&Path; 2], debian: Option<&(String, String)>) -> Option<Autostart> {
    let name = name_of(link);
    let instance = |(version, cluster): &(String, String)| format!("postgresql@{version}-{cluster}.service");
    let files = unit_files(&name, link.canonicalize().ok().as_deref());
    let texts: Vec<String> = files.iter().filter_map(|file| read(file)).collect();
    let all = texts.concat();
    let runs =
        |word: &str| assignments(&all).any(|(_, key, value)| key.starts_with("ExecStart") && value.contains(word));
    let ours = runs("mc_ctl") || runs("mc_std");
    let of_debian = debian.is_some_and(|cluster| name == instance(cluster));
    let names_it =
        (runs("postgres") || runs("pg_ctl") || runs("postmaster")) && data.iter().any(|data| mentions(&all, data));
    (!ours && (of_debian || names_it)).then(|| Autostart {
        what: format!("unit \"{name}\" is enabled, and starts the instance of \"{}\"", data[0].display()),
        file: link.display().to_string(),
        line: 0,
        fix: format!("as root: systemctl disable {name}"),
    })
}

/// The units that start a controller with this management directory, or with none that they name; `None`: with any.
pub(super) fn controller_units(directory: Option<&Path>) -> Vec<Unit> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for file in UNIT_DIRS.iter().flat_map(|dir| entries(Path::new(dir))) {
        let name = name_of(&file);
        if !name.ends_with(".service") || !seen.insert(name.clone()) {
            continue;
        }
        found.extend(controller_unit(&name, &file, directory));
    }
    found
}

fn controller_unit(name: &str, file: &Path, directory: Option<&Path>) -> Option<Unit> {
    let own = read(file)?;
    if !own.contains("mc_ctl") && !own.contains("mc_std") {
        return None;
    }
    let mut unit = Unit { name: name.to_owned(), file: file.display().to_string(), ..Unit::default() };
    let mut all = String::new();
    for file in unit_files(name, Some(file)) {
        let text = read(&file)?;
        for (line, key, value) in assignments(&text) {
            let set = || Some((value.to_owned(), file.display().to_string(), line));
            match key {
                "ExecStart" if value.contains("mc_ctl") || value.contains("mc_std") => {
                    (unit.exec, unit.line) = (value.to_owned(), line);
                }
                "KillMode" => unit.kill_mode = set(),
                "Restart" => unit.restart = set(),
                "EnvironmentFile" => all += &read(Path::new(value.trim_start_matches('-'))).unwrap_or_default(),
                _ => {}
            }
        }
        all += &text;
    }
    let names_none = !all.contains("MCCONTROLDIR=/") && !unit.exec.contains("-M");
    let ours = directory.is_none_or(|directory| names_none || mentions(&all, directory));
    (!unit.exec.is_empty() && ours).then_some(unit)
}

// ------------------------------------------------------------------------------------------- start of the controller

/// Whether a file starts the controller of this management directory. A file that names no directory, or forms its name from a
/// specifier, counts. In a script the program's name and the command can be on different lines.
fn starts_controller(text: &str, directory: &Path, is_script: bool) -> bool {
    let names_none = !text.contains("MCCONTROLDIR=/") && !text.contains("-M /");
    let is_start =
        |line: &str| line.contains("mc_std") || line.contains("mc_ctl") && (is_script || line.contains("start"));
    text.lines().any(|line| !line.trim_start().starts_with('#') && is_start(line))
        && (names_none || mentions(text, directory) || text.contains("%i") || text.contains("%I"))
}

/// Whether an enabled unit, an rc script or a crontab starts the controller when the host boots.
fn controller_starts(directory: &Path) -> bool {
    let all = |files: Vec<PathBuf>| files.iter().filter_map(|file| read(file)).collect::<Vec<_>>().concat();
    let starts = |text: &str| starts_controller(text, directory, false);
    let unit = |link: &PathBuf| {
        let target = link.canonicalize().ok();
        // A masked unit is a link to /dev/null.
        target.as_deref() != Some(Path::new("/dev/null")) && starts(&all(unit_files(&name_of(link), target.as_deref())))
    };
    let at_reboot = |text: String| {
        let lines = text.lines().filter(|line| line.trim_start().starts_with("@reboot"));
        lines.collect::<Vec<_>>().join("\n")
    };
    let crontabs = entries(Path::new("/etc/cron.d")).into_iter().chain([PathBuf::from("/etc/crontab")]);
    let mut lines = crontabs.filter_map(|file| read(&file)).chain(own_crontab());
    enabled_units().iter().any(unit)
        || rc_links().iter().filter_map(|link| read(link)).any(|text| starts_controller(&text, directory, true))
        || lines.any(|text| starts(&at_reboot(text)))
}

/// The crontab of this user, which only `crontab` can read.
fn own_crontab() -> Option<String> {
    let list = || std::process::Command::new("crontab").arg("-l").stdin(std::process::Stdio::null()).output();
    let list = move || list().map_err(|cause| Error::new(format!("could not run crontab: {cause}")));
    let output = bounded::call("run crontab", CRONTAB, &Cancel::never(), list).ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

// ---------------------------------------------------------------------------------------------------------- rc scripts

/// The links by which rc scripts start something in the run levels of a server.
fn rc_links() -> Vec<PathBuf> {
    let dirs = ["/etc/rc2.d", "/etc/rc3.d", "/etc/rc4.d", "/etc/rc5.d", "/etc/rc.d/rc3.d", "/etc/rc.d/rc5.d"];
    let links = dirs.iter().flat_map(|dir| entries(Path::new(dir)));
    links.filter(|link| name_of(link).starts_with('S')).collect()
}

fn rc_start(link: &Path, data: [&Path; 2]) -> Option<Autostart> {
    let text = read(link)?;
    let starts = ["pg_ctl", "postgres", "postmaster"].iter().any(|word| text.contains(word));
    let ours = text.contains("mc_ctl") || text.contains("mc_std");
    let script = link.canonicalize().map(|script| name_of(&script)).unwrap_or_default();
    (starts && !ours && data.iter().any(|data| mentions(&text, data))).then(|| Autostart {
        what: format!("rc script \"{script}\" starts the instance of \"{}\"", data[0].display()),
        file: link.display().to_string(),
        line: 0,
        fix: format!("as root: update-rc.d {script} disable (or chkconfig {script} off)"),
    })
}

// -------------------------------------------------------------------------------------------------------------- logind

fn remove_ipc() -> Option<RemoveIpc> {
    let installed =
        ["/usr/lib/systemd/systemd-logind", "/lib/systemd/systemd-logind"].iter().any(|p| Path::new(p).exists());
    let uid = rustix::process::geteuid().as_raw();
    let highest = read(Path::new("/etc/login.defs")).and_then(|text| {
        let mut words = text.lines().filter_map(|line| line.split_once(char::is_whitespace));
        words.find(|(key, _)| *key == "SYS_UID_MAX").and_then(|(_, value)| value.trim().parse().ok())
    });
    if !installed || uid <= highest.unwrap_or(SYS_UID_MAX) {
        return None;
    }
    let mut told = RemoveIpc { uid, file: "/etc/systemd/logind.conf".to_owned(), ..RemoveIpc::default() };
    let drop_ins = LOGIND_DIRS.iter().flat_map(|dir| entries(Path::new(dir)));
    for file in std::iter::once(PathBuf::from("/etc/systemd/logind.conf")).chain(drop_ins) {
        for (line, _, value) in assignments(&read(&file).unwrap_or_default()).filter(|(_, key, _)| *key == "RemoveIPC")
        {
            (told.value, told.file, told.line) = (value.to_owned(), file.display().to_string(), line);
        }
    }
    Some(told)
}

/// What is wrong with it.
pub(super) fn examine(id: &str, directory: &str, facts: &Facts, found: &mut Vec<Finding>) {
    for start in &facts.autostarts {
        found.push(AUTOSTART.found(id, start.what.as_str(), start.fix.as_str()).at(start.file.as_str(), start.line));
    }
    if facts.starts_at_boot == Some(false) {
        let what = format!("nothing starts the controller of \"{directory}\" when this host boots");
        let enable = match facts.units.first() {
            Some(unit) => format!("as root: systemctl enable {}", unit.name.trim_end_matches(".service")),
            None => {
                "install samples/mirroring-controller.service, then, as root: systemctl enable mirroring-controller"
                    .into()
            }
        };
        found.push(NOT_STARTED_AT_BOOT.found(
            id,
            what,
            format!("{enable}; or install samples/mirroring-controller.rc"),
        ));
    }
    for unit in &facts.units {
        let name = &unit.name;
        let (value, file, line) =
            unit.kill_mode.clone().unwrap_or_else(|| ("control-group".to_owned(), unit.file.clone(), 0));
        if value != "process" && value != "none" {
            let set = if unit.kill_mode.is_some() { "is" } else { "is not set and so is" };
            let what =
                format!("unit \"{name}\" starts the controller of \"{directory}\", and its KillMode {set} {value}");
            let fix = "write KillMode=process into its [Service], then, as root: systemctl daemon-reload";
            found.push(UNIT_KILL_MODE.found(id, what, fix).at(file, line));
        }
        let restarts = unit.restart.as_ref().is_some_and(|(value, ..)| !matches!(value.as_str(), "no" | ""));
        if unit.exec.contains("--foreground") && !restarts {
            let what = format!("unit \"{name}\" runs the controller in the foreground and does not start it again");
            let fix = "write Restart=on-failure into its [Service], then, as root: systemctl daemon-reload";
            let (file, line) = unit.restart.as_ref().map_or((&unit.file, unit.line), |(_, file, line)| (file, *line));
            found.push(UNIT_RESTART.found(id, what, fix).at(file.as_str(), line));
        }
    }
    if let Some(told) = &facts.remove_ipc
        && !matches!(told.value.to_ascii_lowercase().as_str(), "no" | "false" | "off" | "0" | "n" | "f")
    {
        let set =
            if told.value.is_empty() { "is not set, which means yes".to_owned() } else { format!("is {}", told.value) };
        let what = format!("RemoveIPC of systemd-logind {set}, and user id {} is not that of a system user", told.uid);
        let fix =
            "as root: write RemoveIPC=no below [Login] in /etc/systemd/logind.conf; systemctl restart systemd-logind";
        found.push(REMOVE_IPC.found(id, what, fix).at(told.file.as_str(), told.line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_not_found_in_a_longer_one() {
        let check = |text: &str, expected| assert_eq!(mentions(text, Path::new("/data/pg")), expected, "{text}");
        check("ExecStart=/usr/bin/postgres -D /data/pg", true);
        check("PGDATA=/data/pg/", true);
        check("Environment=\"PGDATA=/data/pg\"", true);
        check("pg_ctl -D /data/pg -l /log", true);
        check("PGDATA=/data/pg2", false);
        check("PGDATA=/data/pg.old", false);
        check("/data/pg/base", false);
        check("", false);
    }

    #[test]
    fn lines_that_set_something() {
        let text = "[Service]\n# KillMode=process\n;KillMode=x\n KillMode = mixed \nRestart=\n";
        let found: Vec<_> = assignments(text).collect();
        assert_eq!(found, [(4, "KillMode", "mixed"), (5, "Restart", "")]);
    }

    #[test]
    fn what_starts_the_controller() {
        let check = |text: &str, expected| {
            assert_eq!(starts_controller(text, Path::new("/srv/mc"), false), expected, "{text}");
        };
        check("ExecStart=/usr/bin/mc_ctl start --foreground", true);
        check("Environment=MCCONTROLDIR=/srv/mc\nExecStart=/usr/bin/mc_ctl start --foreground -f", true);
        check("Environment=MCCONTROLDIR=/srv/other\nExecStart=/usr/bin/mc_ctl start --foreground -f", false);
        check("Environment=MCCONTROLDIR=/srv/%i\nExecStart=/usr/bin/mc_ctl start --foreground", true);
        check("@reboot mc_ctl start -M /srv/mc -f", true);
        check("@reboot mc_ctl start -M /srv/mc2 -f", false);
        check("mc_std start /usr /srv/mc", true);
        check("# mc_ctl start -M /srv/mc", false);
        check("mc_ctl status -M /srv/mc", false);
        check("ExecStart=/usr/bin/postgres -D /data", false);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/samples/mirroring-controller.rc");
        let script = std::fs::read_to_string(script).unwrap();
        assert!(starts_controller(&script, Path::new("/srv/mc"), true));
        assert!(!starts_controller(&script, Path::new("/srv/other"), true));
    }

    #[test]
    fn units() {
        let check = |kill: Option<&str>, restart: Option<&str>, exec: &str, expected: &[&str]| {
            let set = |value: Option<&str>| value.map(|value| (value.to_owned(), "/f".to_owned(), 3));
            let unit = Unit { exec: exec.to_owned(), kill_mode: set(kill), restart: set(restart), ..Unit::default() };
            let mut found = Vec::new();
            examine("nd1", "/mc", &Facts { units: vec![unit], ..Facts::default() }, &mut found);
            assert_eq!(found.iter().map(|finding| finding.code).collect::<Vec<_>>(), expected);
        };
        let foreground = "/usr/bin/mc_ctl start --foreground";
        check(Some("process"), Some("on-failure"), foreground, &[]);
        check(Some("process"), None, "/usr/bin/mc_std start /usr /mc", &[]);
        check(None, None, foreground, &["unit-kill-mode", "unit-restart"]);
        check(Some("mixed"), Some("no"), foreground, &["unit-kill-mode", "unit-restart"]);
    }

    #[test]
    fn logind() {
        let check = |value: &str, expected: usize| {
            let told = RemoveIpc { value: value.to_owned(), uid: 1000, ..RemoveIpc::default() };
            let mut found = Vec::new();
            examine("nd1", "/mc", &Facts { remove_ipc: Some(told), ..Facts::default() }, &mut found);
            assert_eq!(found.len(), expected, "{value}");
        };
        check("no", 0);
        check("No", 0);
        check("yes", 1);
        check("", 1);
    }
}
