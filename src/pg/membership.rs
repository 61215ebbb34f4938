//! Whether a process belongs to the instance of a data directory.
//!
//! A process belongs to it if it runs as this user, executes `postgres`, and its working directory is the data directory,
//! which PostgreSQL holds for its whole life. Directories are compared by device and inode: in another mount namespace the
//! same path can name another directory. Called by [`super::process`], which sends the signals.

use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::io::Errno;
use std::cell::OnceCell;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What a process is to an instance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Membership {
    /// It belongs to the instance.
    Member,
    /// It does not, or it has ended.
    Foreign,
    /// A `postgres` process of this user that the kernel does not let this process inspect. It must never be signalled, and
    /// its silence is no proof that the instance has ended.
    Unknown,
}

/// Device and inode of a directory.
type Identity = (u32, u32, u64);

/// The instance of a data directory.
pub(super) struct Instance<'a> {
    home: &'a Path,
    identity: OnceCell<Result<Identity, Errno>>,
}

impl<'a> Instance<'a> {
    /// The instance of the data directory with this real path ([`super::process::home`]).
    pub fn of(home: &'a Path) -> Instance<'a> {
        Instance { home, identity: OnceCell::new() }
    }

    /// What the process is to this instance.
    pub fn membership(&self, pid: i32) -> Membership {
        match postgres(pid) {
            Membership::Member => self.by_directory(pid),
            other => other,
        }
    }

    /// Judges a `postgres` process of this user by its directory. The data directory is looked up only if there is such a
    /// process.
    fn by_directory(&self, pid: i32) -> Membership {
        let own = *self.identity.get_or_init(|| identity(self.home));
        match (identity(cwd(pid)), own) {
            (Ok(its), Ok(own)) if its == own || self.is_starting(pid, own) => Membership::Member,
            (Ok(_), Ok(_)) | (_, Err(Errno::NOENT)) | (Err(Errno::NOENT | Errno::SRCH), _) => Membership::Foreign,
            _ => self.by_path(pid),
        }
    }

    /// Where the file system answers nothing any more (XFS after an input/output error), the path decides, if both processes
    /// see the same files.
    fn by_path(&self, pid: i32) -> Membership {
        match std::fs::read_link(cwd(pid)) {
            Ok(path) if path != self.home => Membership::Foreign,
            Ok(_) if shares_files(pid) => Membership::Member,
            Err(cause) if has_ended(&cause) => Membership::Foreign,
            _ => Membership::Unknown,
        }
    }

    /// Whether it is a postmaster that has not changed its directory yet: its `-D` is the data directory.
    fn is_starting(&self, pid: i32, own: Identity) -> bool {
        let args = arguments(pid);
        let data = args.iter().position(|arg| arg == b"-D").and_then(|at| args.get(at + 1));
        is_postmaster(&args) && data.is_some_and(|data| inside(pid, data).is_ok_and(|its| its == own))
    }
}

/// Whether the directory of one of these paths is what this argument of the process names.
pub(super) fn names_one_of(pid: i32, argument: &[u8], dirs: &[&Path]) -> bool {
    let Some(dir) = dirs.iter().find(|dir| dir.as_os_str().as_encoded_bytes() == argument) else { return false };
    shares_files(pid) || identity(dir).is_ok_and(|own| inside(pid, argument) == Ok(own))
}

/// The working directory of a `postgres` process of this user, if the path names the same directory here.
pub(super) fn directory(pid: i32) -> Option<PathBuf> {
    if postgres(pid) != Membership::Member {
        return None;
    }
    let path = std::fs::read_link(cwd(pid)).ok()?;
    (identity(&path).ok()? == identity(cwd(pid)).ok()?).then_some(path)
}

/// Whether a command line is a postmaster's: not a standalone backend's, a bootstrap process's, that of a program that prints
/// the configuration, or a child's.
pub(super) fn is_postmaster(args: &[Vec<u8>]) -> bool {
    let Some(title) = args.first().filter(|title| !title.is_empty()) else { return false };
    let other_mode = args.get(1).is_some_and(|arg| {
        [&b"--single"[..], b"--boot", b"--check", b"--describe-config"].contains(&arg.as_slice())
            || arg.starts_with(b"--fork")
    });
    !title.starts_with(b"postgres:") && !other_mode && !args.iter().any(|arg| arg.starts_with(b"-C"))
}

/// The arguments of a process; none if it has ended.
pub(super) fn arguments(pid: i32) -> Vec<Vec<u8>> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
}

/// Whether the process runs `postgres` as this user; [`Membership::Member`] if so.
fn postgres(pid: i32) -> Membership {
    let me = rustix::process::geteuid().as_raw();
    // The kernel shows another owner for a process that it hides from its own user.
    let shown = std::fs::metadata(format!("/proc/{pid}")).is_ok_and(|meta| meta.uid() == me);
    let hidden = || comm(pid).as_deref() == Some("postgres") && effective_user(pid) == Some(me);
    if !shown && !hidden() {
        return Membership::Foreign;
    }
    match std::fs::read_link(format!("/proc/{pid}/exe")) {
        Ok(exe) => match exe.file_name().and_then(|name| name.to_str()) {
            Some("postgres" | "postgres (deleted)") => Membership::Member,
            _ => Membership::Foreign,
        },
        Err(cause) if has_ended(&cause) || !hidden() => Membership::Foreign,
        Err(_) => Membership::Unknown,
    }
}

fn has_ended(cause: &std::io::Error) -> bool {
    cause.kind() == ErrorKind::NotFound || cause.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

/// The name of what it executes, which the kernel shows to every process.
fn comm(pid: i32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).ok().map(|name| name.trim_end().to_owned())
}

fn effective_user(pid: i32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

fn cwd(pid: i32) -> PathBuf {
    format!("/proc/{pid}/cwd").into()
}

/// What the path names for the process itself.
fn inside(pid: i32, path: &[u8]) -> Result<Identity, Errno> {
    let path = std::str::from_utf8(path).map_err(|_| Errno::ILSEQ)?;
    identity(format!("/proc/{pid}/root/{path}"))
}

/// Whether the process has this process's mount namespace and root directory, so that a path names the same file for both.
fn shares_files(pid: i32) -> bool {
    let same = |name: &str| {
        let link = |of: &str| std::fs::read_link(format!("/proc/{of}/{name}")).ok();
        link(&pid.to_string()).is_some_and(|its| Some(its) == link("self"))
    };
    same("ns/mnt") && same("root")
}

/// Without asking a file server: the kernel knows the directory as long as a process works in it.
fn identity(path: impl AsRef<Path>) -> Result<Identity, Errno> {
    let stat = rustix::fs::statx(CWD, path.as_ref(), AtFlags::STATX_DONT_SYNC, StatxFlags::INO)?;
    Ok((stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postmasters_by_their_command_line() {
        let is = |line: &str| is_postmaster(&line.split(' ').map(|arg| arg.as_bytes().to_vec()).collect::<Vec<_>>());
        assert!(is("/usr/lib/postgresql/15/bin/postgres -D /data"));
        assert!(is("postgres -D /data -c config_file=/etc/x.conf"));
        assert!(!is("postgres --single -D /data postgres"));
        assert!(!is("postgres --boot -D /data"));
        assert!(!is("postgres --check -D /data"));
        assert!(!is("postgres -D /data -C shared_memory_size"));
        assert!(!is("postgres -D /data -Cport"));
        assert!(!is("postgres: walwriter"));
        assert!(!is(""));
    }
}
