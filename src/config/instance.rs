//! The instance that `ID.conf` names: its version, its `postgresql.conf`, its programs.
//!
//! Looks at files and asks programs for their version; starts no instance and connects to none.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The oldest major version that is supported.
pub const OLDEST: u32 = 12;
/// Programs that the controller runs.
const PROGRAMS: [&str; 3] = ["postgres", "pg_ctl", "pg_controldata"];

/// How `PG_VERSION` begins while a rebuild of the directory is under way; the version follows.
const REBUILDING: &str = "rebuilding ";
/// The only files that a directory may hold and still count as empty: those of the disk check.
const OF_DISK_CHECK: &str = "pgsql_tmp_mirroring_controller_";

/// The major version of a data directory, of its `PG_VERSION`. If a power loss has left only a part of what a rebuild writes there,
/// each database has the version too; the controller then treats the directory as incomplete.
pub fn major_version(data: &Path) -> Result<u32> {
    let path = data.join("PG_VERSION");
    if let Ok(meta) = data.metadata() {
        super::perms::check_data_directory(data, &meta)?;
    }
    let text = std::fs::read(&path).map_err(|cause| no_data_directory(data, &path, cause))?;
    let text = String::from_utf8_lossy(&text);
    let text = text.trim();
    let version = version_in_file(text).or_else(|| version_of_databases(data));
    let version = version
        .ok_or_else(|| Error::new(format!("file \"{}\" does not hold a version of PostgreSQL", path.display())))?;
    if version < OLDEST {
        return Err(Error::new(format!("data directory \"{}\" belongs to PostgreSQL {text}", data.display()))
            .hint(format!("PostgreSQL {OLDEST} or later is required. Upgrade it with pg_upgrade.")));
    }
    Ok(version)
}

/// The version in a `PG_VERSION`. 9.6 and older have two numbers.
fn version_in_file(text: &str) -> Option<u32> {
    let number = match text.strip_prefix(REBUILDING) {
        Some(rest) => rest.split_once(' ')?.0,
        None => text.split('.').next()?,
    };
    number.parse().ok()
}

/// The version in the `PG_VERSION` of a database.
fn version_of_databases(data: &Path) -> Option<u32> {
    let databases = data.join("base").read_dir().ok()?.flatten();
    databases
        .filter_map(|database| std::fs::read_to_string(database.path().join("PG_VERSION")).ok())
        .find_map(|text| version_in_file(text.trim()))
}

/// Whether there is no data directory, or an empty one, in a directory that exists: where `mc_ctl rebuild` can make one.
pub fn is_vacant(data: &Path) -> bool {
    match data.read_dir() {
        Ok(entries) => {
            let ours = |name: std::ffi::OsString| name.as_encoded_bytes().starts_with(OF_DISK_CHECK.as_bytes());
            entries.into_iter().all(|entry| entry.is_ok_and(|entry| ours(entry.file_name())))
        }
        Err(cause) => {
            cause.kind() == std::io::ErrorKind::NotFound
                && data.symlink_metadata().is_err()
                && data.parent().is_some_and(Path::is_dir)
        }
    }
}

fn no_data_directory(data: &Path, path: &Path, cause: std::io::Error) -> Error {
    if cause.kind() != std::io::ErrorKind::NotFound {
        return Error::io("read file", path, cause);
    }
    let make = "If its file system is not mounted, mount it. On a standby, run \"mc_ctl rebuild\"; on the first primary, run \
                initdb. Or correct db_instance.";
    let (what, hint) = match data.read_dir() {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => ("does not exist", make),
        Err(cause) => return Error::io("read directory", data, cause),
        Ok(_) if is_vacant(data) => ("is empty", make),
        Ok(_) => (
            "has no file PG_VERSION, so it is not a data directory of PostgreSQL",
            "Correct db_instance, or empty the directory if its files are not needed.",
        ),
    };
    Error::new(format!("data directory \"{}\" {what}", data.display())).hint(hint)
}

/// The version that a data directory will have which is not there yet: that of a copy in the making beside it, of the
/// programs in `bin_dir`, or the newest that is installed.
pub fn coming_version(data: &Path, bin_dir: Option<&Path>) -> Result<u32> {
    let mut beside = data.as_os_str().to_owned();
    beside.push(".rebuild-new");
    if let Ok(version) = major_version(Path::new(&beside)) {
        return Ok(version);
    }
    let version_of = |dir: &Path| version_in(&output_of(&dir.join("postgres"), "--version").ok()?);
    if let Some(dir) = bin_dir {
        return version_of(dir).ok_or_else(|| {
            Error::new(format!("program \"{}\" does not report its version", dir.join("postgres").display()))
        });
    }
    let installed = |parent: &str, under: &str| {
        let names = std::fs::read_dir(parent).into_iter().flatten().flatten();
        let under = under.to_owned();
        names.map(move |name| name.path().join(&under)).collect::<Vec<_>>()
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let candidates = std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .chain(installed("/usr/lib/postgresql", "bin"))
        .chain(installed("/usr", "bin"))
        .chain([PathBuf::from("/usr/local/pgsql/bin")])
        .chain(std::iter::once_with(pg_config_bin_dir).flatten());
    let newest = candidates.filter(|dir| dir.join("postgres").is_file()).filter_map(|dir| version_of(&dir)).max();
    newest.filter(|version| *version >= OLDEST).ok_or_else(|| {
        Error::new("the programs of PostgreSQL were not found")
            .hint("Install those of the other server's version, or set bin_dir to their directory.")
    })
}

/// The `postgresql.conf` of a data directory: where Debian keeps it (under `/etc/postgresql`, here `etc`), or in it.
/// Debian's comes first, as it does for its `pg_ctlcluster`: the other may be one that a base backup of a server of another
/// layout brought along.
pub fn find_config_file(data: &Path, major_version: u32, etc: &Path) -> Result<PathBuf> {
    let inside = data.join("postgresql.conf");
    let clusters = etc.join(major_version.to_string());
    let wanted = canonical(data);
    let names = std::fs::read_dir(&clusters).into_iter().flatten().flatten();
    let found = names
        .map(|name| name.path().join("postgresql.conf"))
        .find(|path| data_directory_of(path).is_some_and(|its| canonical(&its) == wanted));
    found.or_else(|| inside.is_file().then(|| inside.clone())).ok_or_else(|| {
        Error::new(format!(
            "there is no \"{}\", and no \"{}/NAME/postgresql.conf\" whose data_directory it is",
            inside.display(),
            clusters.display()
        ))
        .hint("Set config_file.")
    })
}

/// Where Debian's `pg_ctlcluster` has the log of the cluster to which this `postgresql.conf` (below `etc`) belongs: the target
/// of the link `log` beside it, else a file in `logs`. `None` if it is no cluster of Debian's, or that directory is missing.
pub fn find_log_file(config_file: &Path, etc: &Path, logs: &Path) -> Option<PathBuf> {
    let cluster = config_file.parent()?;
    let version = cluster.parent().filter(|version| version.parent() == Some(etc))?;
    let by_name = || {
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        Some(logs.join(format!("postgresql-{}-{}.log", name(version)?, name(cluster)?)))
    };
    let linked = std::fs::read_link(cluster.join("log")).ok().filter(|target| target.is_absolute());
    let found = linked.or_else(by_name)?;
    (found.parent().is_some_and(Path::is_dir) && not_for_shell(&found).is_none()).then_some(found)
}

fn canonical(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

/// The last `data_directory` of a `postgresql.conf`.
fn data_directory_of(path: &Path) -> Option<PathBuf> {
    let bytes = std::fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    text.lines().rev().find_map(|line| {
        let rest = line.trim_start().strip_prefix("data_directory")?;
        let rest = rest.trim_start();
        let value = rest.strip_prefix('=').unwrap_or(rest).trim_start().strip_prefix('\'')?;
        value.split('\'').next().map(PathBuf::from)
    })
}

/// The first character of a path that `pg_ctl` cannot pass to the shell that starts the postmaster: the shell would expand it,
/// or end the quoted path there (`start_postmaster` in `pg_ctl.c`).
pub fn not_for_shell(path: &Path) -> Option<char> {
    path.to_string_lossy().chars().find(|c| "$`\"'\\\n\r".contains(*c))
}

/// The directory of the version's programs. `set` is `bin_dir` of the file.
pub fn find_bin_dir(major_version: u32, set: Option<&Path>) -> Result<PathBuf> {
    if let Some(dir) = set {
        return check_programs(dir, major_version).map(|()| dir.to_path_buf());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = [
        PathBuf::from(format!("/usr/lib/postgresql/{major_version}/bin")),
        PathBuf::from(format!("/usr/pgsql-{major_version}/bin")),
        PathBuf::from(format!("/usr/lib/postgresql{major_version}/bin")),
        PathBuf::from("/usr/local/pgsql/bin"),
    ];
    let candidates = std::env::split_paths(&path).filter(|dir| dir.is_absolute()).chain(usual);
    candidates
        .chain(std::iter::once_with(pg_config_bin_dir).flatten())
        .find(|dir| PROGRAMS.iter().all(|name| dir.join(name).is_file()) && check_programs(dir, major_version).is_ok())
        .ok_or_else(|| {
            Error::new(format!("the programs of PostgreSQL {major_version} ({}) were not found", PROGRAMS.join(", ")))
                .hint(format!(
                    "Install them (Debian, Ubuntu: apt-get install postgresql-{major_version}; Red Hat: dnf install \
                     postgresql{major_version}-server), or set bin_dir to their directory."
                ))
        })
}

fn pg_config_bin_dir() -> Option<PathBuf> {
    let text = output_of(Path::new("pg_config"), "--bindir").ok()?;
    Some(PathBuf::from(text.trim())).filter(|dir| dir.is_absolute())
}

/// Whether a directory holds the programs, of this version.
fn check_programs(dir: &Path, major_version: u32) -> Result<()> {
    for name in PROGRAMS {
        let path = dir.join(name);
        let version = output_of(&path, "--version")?;
        let found = version_in(&version).ok_or_else(|| {
            Error::new(format!("program \"{}\" does not report its version: {}", path.display(), version.trim()))
        })?;
        if found != major_version {
            return Err(Error::new(format!(
                "program \"{}\" belongs to PostgreSQL {found}, and the data directory to {major_version}",
                path.display()
            ))
            .hint("Correct bin_dir, or remove it; the programs are then searched for."));
        }
    }
    Ok(())
}

/// The major version in `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn version_in(text: &str) -> Option<u32> {
    let rest = text.split("(PostgreSQL) ").nth(1)?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn output_of(program: &Path, argument: &str) -> Result<String> {
    let output = Command::new(program).arg(argument).stdin(Stdio::null()).output();
    let output = output.map_err(|cause| Error::io("run program", program, cause))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).trim().to_string();
        return Err(Error::new(format!("program \"{}\" failed ({}): {why}", program.display(), output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_pg_ctl_cannot_pass_to_a_shell() {
        for c in "$`\"'\\\n\r".chars() {
            assert_eq!(not_for_shell(Path::new(&format!("/srv/a{c}b"))), Some(c));
        }
        assert_eq!(not_for_shell(Path::new("/srv/a b-c.d~é")), None);
    }

    #[test]
    fn versions_of_data_directories() {
        let dir = tempfile::tempdir().unwrap();
        let check = |text: Option<&str>, expected: std::result::Result<u32, &str>| {
            if let Some(text) = text {
                std::fs::write(dir.path().join("PG_VERSION"), text).unwrap();
            }
            match (major_version(dir.path()), expected) {
                (Ok(got), Ok(wanted)) => assert_eq!(got, wanted),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (got, wanted) => panic!("{text:?}: got {got:?}, wanted {wanted:?}"),
            }
        };
        check(
            None,
            Err("is empty\nHINT: If its file system is not mounted, mount it. On a standby, run \"mc_ctl rebuild\""),
        );
        std::fs::write(dir.path().join("x"), "").unwrap();
        check(None, Err("not a data directory of PostgreSQL"));
        check(Some("15\n"), Ok(15));
        check(Some("12\n"), Ok(12));
        check(Some("11\n"), Err("belongs to PostgreSQL 11\nHINT: PostgreSQL 12 or later"));
        check(Some("9.6\n"), Err("belongs to PostgreSQL 9.6"));
        check(Some("junk\n"), Err("does not hold a version"));
        check(Some("rebuilding 15 (Mirroring Controller; see mc_ctl status)\n"), Ok(15));
        check(Some("rebuilding\n"), Err("does not hold a version"));
        let database = dir.path().join("base/1");
        std::fs::create_dir_all(&database).unwrap();
        std::fs::write(database.join("PG_VERSION"), "16\n").unwrap();
        for part in ["reb", "", "rebuilding 1", "15\n\0\0", "15\nuilding 15 (Mirroring Controller"] {
            check(Some(part), Ok(16));
        }
        check(Some("15\n"), Ok(15));
        let error = major_version(Path::new("/nonexistent/data")).unwrap_err();
        assert_eq!(error.message, "data directory \"/nonexistent/data\" does not exist");
    }

    #[test]
    fn places_for_a_data_directory() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        assert!(is_vacant(&data));
        std::fs::create_dir(&data).unwrap();
        assert!(is_vacant(&data));
        std::fs::write(data.join("pgsql_tmp_mirroring_controller_1f"), "").unwrap();
        assert!(is_vacant(&data));
        std::fs::write(data.join("x"), "").unwrap();
        assert!(!is_vacant(&data));
        assert!(!is_vacant(&data.join("x")) && !is_vacant(&data.join("y/z")));
        let staged = dir.path().join("data.rebuild-new");
        std::fs::create_dir(&staged).unwrap();
        std::fs::write(staged.join("PG_VERSION"), "13\n").unwrap();
        assert_eq!(coming_version(&data, None), Ok(13));
        assert!(coming_version(&data.join("y"), Some(Path::new("/nonexistent/bin"))).is_err());
    }

    #[test]
    fn config_files() {
        let dir = tempfile::tempdir().unwrap();
        let (data, etc) = (dir.path().join("data"), dir.path().join("etc"));
        let cluster = etc.join("15/main");
        std::fs::create_dir_all(&data).unwrap();
        std::fs::create_dir_all(&cluster).unwrap();
        let error = find_config_file(&data, 15, &etc).unwrap_err();
        assert_eq!(error.hint, "Set config_file.");
        let conf = cluster.join("postgresql.conf");
        let text = format!("#data_directory = 'ConfigDir'\ndata_directory = '{}/' # x\n", data.display());
        std::fs::write(&conf, text).unwrap();
        assert_eq!(find_config_file(&data, 15, &etc).unwrap(), conf);
        assert!(find_config_file(&data, 16, &etc).is_err());
        std::fs::write(data.join("postgresql.conf"), "").unwrap();
        assert_eq!(find_config_file(&data, 15, &etc).unwrap(), conf);
        assert_eq!(find_config_file(&data, 16, &etc).unwrap(), data.join("postgresql.conf"));
    }

    #[test]
    fn log_files() {
        let dir = tempfile::tempdir().unwrap();
        let (etc, logs) = (dir.path().join("etc"), dir.path().join("log"));
        let cluster = etc.join("15/main");
        std::fs::create_dir_all(&cluster).unwrap();
        let find = |conf: &Path| find_log_file(conf, &etc, &logs);
        assert_eq!(find(&cluster.join("postgresql.conf")), None, "its directory is missing");
        std::fs::create_dir(&logs).unwrap();
        assert_eq!(find(&cluster.join("postgresql.conf")), Some(logs.join("postgresql-15-main.log")));
        assert_eq!(find(&dir.path().join("data/postgresql.conf")), None);
        std::os::unix::fs::symlink(logs.join("other"), cluster.join("log")).unwrap();
        assert_eq!(find(&cluster.join("postgresql.conf")), Some(logs.join("other")));
    }

    #[test]
    fn versions_of_programs() {
        assert_eq!(version_in("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(version_in("pg_ctl (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(version_in("busybox"), None);
        let error = find_bin_dir(15, Some(Path::new("/nonexistent/bin"))).unwrap_err();
        assert!(error.message.contains("\"/nonexistent/bin/postgres\""), "{error}");
        let error = find_bin_dir(99, None).unwrap_err();
        assert!(error.hint.contains("apt-get install postgresql-99"), "{error}");
    }
}
