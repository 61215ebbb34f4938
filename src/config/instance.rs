//! The instance that `ID.conf` names: its version, its `postgresql.conf`, its programs.
//!
//! Looks at files and asks programs for their version; starts no instance and connects to none.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The oldest major version that is supported (CONTRACT section 10).
pub const OLDEST: u32 = 12;
/// Programs that the controller runs.
const PROGRAMS: [&str; 3] = ["postgres", "pg_ctl", "pg_controldata"];

/// The major version of a data directory, of its `PG_VERSION`.
pub fn major_version(data: &Path) -> Result<u32> {
    let path = data.join("PG_VERSION");
    if let Ok(meta) = data.metadata() {
        super::perms::check_data_directory(data, &meta)?;
    }
    let text = std::fs::read_to_string(&path).map_err(|cause| no_data_directory(data, &path, cause))?;
    let text = text.trim();
    // 9.6 and older have two numbers.
    let version: u32 = text
        .split('.')
        .next()
        .and_then(|major| major.parse().ok())
        .ok_or_else(|| Error::new(format!("file \"{}\" does not hold a version of PostgreSQL", path.display())))?;
    if version < OLDEST {
        return Err(Error::new(format!("data directory \"{}\" is of PostgreSQL {text}", data.display()))
            .hint(format!("PostgreSQL {OLDEST} or later is needed: upgrade it with pg_upgrade.")));
    }
    Ok(version)
}

fn no_data_directory(data: &Path, path: &Path, cause: std::io::Error) -> Error {
    let make = "Make the primary with initdb and the standby with pg_basebackup, or correct db_instance.";
    if cause.kind() != std::io::ErrorKind::NotFound {
        return Error::io("read file", path, cause);
    }
    let what = match data.read_dir().map(|mut entries| entries.next().is_none()) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => "does not exist",
        Err(cause) => return Error::io("read directory", data, cause),
        Ok(true) => "is empty",
        Ok(false) => "has no file PG_VERSION, so it is no data directory of PostgreSQL",
    };
    Error::new(format!("data directory \"{}\" {what}", data.display())).hint(make)
}

/// The `postgresql.conf` of a data directory: in it, or where Debian keeps it (under `/etc/postgresql`, here `etc`).
pub fn find_config_file(data: &Path, major_version: u32, etc: &Path) -> Result<PathBuf> {
    let inside = data.join("postgresql.conf");
    if inside.is_file() {
        return Ok(inside);
    }
    let clusters = etc.join(major_version.to_string());
    let wanted = canonical(data);
    let names = std::fs::read_dir(&clusters).into_iter().flatten().flatten();
    let found = names
        .map(|name| name.path().join("postgresql.conf"))
        .find(|path| data_directory_of(path).is_some_and(|its| canonical(&its) == wanted));
    found.ok_or_else(|| {
        Error::new(format!(
            "there is no \"{}\", and no \"{}/NAME/postgresql.conf\" whose data_directory it is",
            inside.display(),
            clusters.display()
        ))
        .hint("Set config_file.")
    })
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
            Error::new(format!("program \"{}\" does not tell its version: {}", path.display(), version.trim()))
        })?;
        if found != major_version {
            return Err(Error::new(format!(
                "program \"{}\" is of PostgreSQL {found}, and the data directory of {major_version}",
                path.display()
            ))
            .hint("Correct bin_dir, or leave it out: the programs are then looked for."));
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
        check(None, Err("is empty\nHINT: Make the primary with initdb and the standby with pg_basebackup"));
        std::fs::write(dir.path().join("x"), "").unwrap();
        check(None, Err("no data directory of PostgreSQL"));
        check(Some("15\n"), Ok(15));
        check(Some("12\n"), Ok(12));
        check(Some("11\n"), Err("is of PostgreSQL 11\nHINT: PostgreSQL 12 or later"));
        check(Some("9.6\n"), Err("is of PostgreSQL 9.6"));
        check(Some("junk\n"), Err("does not hold a version"));
        let error = major_version(Path::new("/nonexistent/data")).unwrap_err();
        assert_eq!(error.message, "data directory \"/nonexistent/data\" does not exist");
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
        assert_eq!(find_config_file(&data, 15, &etc).unwrap(), data.join("postgresql.conf"));
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
