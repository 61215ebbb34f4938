//! Who may read and change the files of the management directory (mc_ctl(8), FILES), and reading them.
//!
//! A file is read through the handle that was checked. Called by [`super::Config`] alone.

use crate::error::{Error, Result};
use rustix::fs::OFlags;
use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// No configuration file is larger, in bytes.
const SIZE_LIMIT: u64 = 1 << 20;

/// The text of a file that only its owner, the running user, may read. `missing` is the hint where it does not exist.
/// Bytes that are not UTF-8 come as U+FFFD: they are allowed in comments, and in values nothing beyond ASCII is.
pub fn read_private(path: &Path, missing: &str) -> Result<String> {
    // Without NONBLOCK the opening of a named pipe would wait for a writer.
    let nonblock = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let opened = OpenOptions::new().read(true).custom_flags(nonblock).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(cause) => {
            if cause.kind() == std::io::ErrorKind::PermissionDenied {
                // If only the owner or the mode is wrong, the error names the correction.
                path.metadata().map_or(Ok(()), |meta| check_file(path, &meta))?;
            }
            let hint = if cause.kind() == std::io::ErrorKind::NotFound { missing } else { "" };
            return Err(Error::io("open file", path, cause).hint(hint));
        }
    };
    let meta = file.metadata().map_err(|cause| Error::io("read the attributes of file", path, cause))?;
    if !meta.is_file() {
        return Err(Error::new(format!("\"{}\" is not a regular file", path.display())));
    }
    check_file(path, &meta)?;
    read_text(file, path)
}

fn read_text(file: File, path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    file.take(SIZE_LIMIT + 1).read_to_end(&mut bytes).map_err(|cause| Error::io("read file", path, cause))?;
    if bytes.len() as u64 > SIZE_LIMIT {
        return Err(Error::new(format!("file \"{}\" is larger than {SIZE_LIMIT} bytes", path.display())));
    }
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.strip_prefix('\u{feff}').unwrap_or(&text).to_string())
}

fn check_file(path: &Path, meta: &Metadata) -> Result<()> {
    let me = rustix::process::geteuid().as_raw();
    if meta.uid() != me {
        return Err(Error::new(format!(
            "file \"{}\" is owned by {}, and must be owned by {}, who runs this",
            path.display(),
            user(meta.uid()),
            user(me)
        ))
        .hint(format!("Run as root: chown {} \"{}\"", user(me), path.display())));
    }
    let mode = meta.mode() & 0o7777;
    if mode != 0o600 && mode != 0o400 {
        return Err(Error::new(format!(
            "file \"{}\" has mode {mode:04o}, and must have 0600 or 0400, so that no other user can read or change it",
            path.display()
        ))
        .hint(format!("Run: chmod 600 \"{}\"", path.display())));
    }
    Ok(())
}

/// Refuses a directory in which anyone but the running user (or root) could exchange a file, or that is closed to it.
pub fn check_directory(path: &Path, meta: &Metadata) -> Result<()> {
    let me = rustix::process::geteuid().as_raw();
    if !meta.is_dir() {
        return Err(Error::new(format!("\"{}\" is not a directory", path.display())));
    }
    if meta.uid() != me && meta.uid() != 0 {
        return Err(Error::new(format!(
            "directory \"{}\" is owned by {}, and must be owned by {}, who runs this",
            path.display(),
            user(meta.uid()),
            user(me)
        ))
        .hint(format!("Run as root: chown {} \"{}\"", user(me), path.display())));
    }
    if path.read_dir().is_err() {
        return Err(Error::new(format!("directory \"{}\" is closed to {}, who runs this", path.display(), user(me)))
            .hint(format!("Run as root: chown {me} \"{0}\" && chmod 700 \"{0}\"", path.display(), me = user(me))));
    }
    let mode = meta.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(Error::new(format!(
            "directory \"{}\" has mode {mode:04o}, and must not be writable for its group or for others",
            path.display()
        ))
        .hint(format!("Run: chmod go-w \"{}\"", path.display())));
    }
    Ok(())
}

/// Refuses a data directory that is not the running user's, as PostgreSQL would.
pub fn check_data_directory(path: &Path, meta: &Metadata) -> Result<()> {
    let me = rustix::process::geteuid().as_raw();
    if meta.uid() == me {
        return Ok(());
    }
    let hint = match meta.uid() {
        // PostgreSQL refuses to run as root.
        0 => format!("Run as root: chown -R {} \"{}\"", user(me), path.display()),
        owner => format!("Run it as {}.", user(owner)),
    };
    let (owner, me) = (user(meta.uid()), user(me));
    Err(Error::new(format!("data directory \"{}\" is owned by {owner}, but this command runs as {me}", path.display()))
        .hint(hint))
}

/// Refuses a program of the user's that cannot be run, or that others could exchange. Called at a start, not when it is
/// needed (mc_hooks(5)).
pub fn check_program(path: &Path) -> Result<()> {
    let refused = |why: String, hint: String| Err(Error::new(format!("\"{}\" {why}", path.display())).hint(hint));
    let meta = match path.metadata() {
        Ok(meta) => meta,
        Err(cause) => return refused(format!("cannot be run: {cause}"), "Specify an existing program.".into()),
    };
    let me = rustix::process::geteuid().as_raw();
    if !meta.is_file() {
        return refused("is not a regular file".into(), "Specify a program or a script.".into());
    }
    if rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_err() {
        return refused(
            format!("cannot be executed by {}, who runs this", user(me)),
            format!("Run: chmod u+x \"{}\"; it belongs to {}", path.display(), user(meta.uid())),
        );
    }
    if meta.uid() != me && meta.uid() != 0 {
        return refused(
            format!("is owned by {}, and must be owned by {} or root", user(meta.uid()), user(me)),
            format!("Run as root: chown root \"{}\"", path.display()),
        );
    }
    let mode = meta.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return refused(
            format!("has mode {mode:04o}, and must not be writable for its group or for others"),
            format!("Run: chmod go-w \"{}\"", path.display()),
        );
    }
    let exchangeable = links(path).iter().chain(path.canonicalize().iter()).find_map(|path| exchangeable(path, me));
    exchangeable.map_or(Ok(()), |(why, hint)| refused(why, hint))
}

/// The path, and where it leads if it is a symbolic link: each file that is looked up by its name.
fn links(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![path.to_owned()];
    while let Some(target) = found.last().filter(|_| found.len() < 40).and_then(|last| {
        let parent = last.parent()?;
        Some(parent.join(std::fs::read_link(last).ok()?))
    }) {
        found.push(target);
    }
    found
}

/// Why another user could put another file in this one's place, and the remedy. In a sticky directory each file belongs to its
/// owner.
fn exchangeable(path: &Path, me: u32) -> Option<(String, String)> {
    let trusted = |uid: u32| uid == me || uid == 0;
    path.ancestors().skip(1).zip(path.ancestors()).find_map(|(dir, file)| {
        let meta = dir.metadata().ok()?;
        let (shown, mode) = (dir.display(), meta.mode() & 0o7777);
        let open = mode & 0o022 != 0;
        let owner = file.symlink_metadata().map_or(0, |meta| meta.uid());
        if !trusted(meta.uid()) {
            let why = format!("is in directory \"{shown}\", which is owned by {}", user(meta.uid()));
            Some((why, format!("Move the program, or run as root: chown root \"{shown}\"")))
        } else if open && (mode & 0o1000 == 0 || !trusted(owner)) {
            let why = format!("is in directory \"{shown}\" with mode {mode:04o}, where other users can replace it");
            Some((why, format!("Move the program, or run: chmod go-w \"{shown}\"")))
        } else {
            None
        }
    })
}

/// The name of an OS user, or the number where it has none in `/etc/passwd`.
fn user(uid: u32) -> String {
    name_in_passwd(uid).unwrap_or_else(|| uid.to_string())
}

fn name_in_passwd(uid: u32) -> Option<String> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    let uid = uid.to_string();
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_string())
    })
}

/// The name of the OS user that runs this: of `/etc/passwd`, else what `id` finds in directories such as LDAP.
pub fn running_user() -> Result<String> {
    let uid = rustix::process::geteuid().as_raw();
    if let Some(name) = name_in_passwd(uid) {
        return Ok(name);
    }
    let output = std::process::Command::new("id").arg("-un").output();
    match output {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).trim().to_string()),
        _ => Err(Error::new(format!("OS user {uid} has no name"))
            .hint("Set db_instance_username, or give the user a name in /etc/passwd.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn modes_of_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mc.key");
        std::fs::write(&path, "text").unwrap();
        let check = |mode: u32, expected: Option<&str>| {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            match (read_private(&path, ""), expected) {
                (Ok(text), None) => assert_eq!(text, "text"),
                (Err(error), Some(part)) => {
                    assert!(error.message.contains(part), "{error}");
                    assert_eq!(error.hint, format!("Run: chmod 600 \"{}\"", path.display()));
                }
                (got, _) => panic!("{mode:o}: {got:?}"),
            }
        };
        check(0o600, None);
        check(0o400, None);
        check(0o640, Some("0640"));
        check(0o604, Some("0604"));
        check(0o700, Some("0700"));
        check(0o4600, Some("4600"));
    }

    #[test]
    fn modes_of_directories() {
        let dir = tempfile::tempdir().unwrap();
        let check = |mode: u32, good: bool| {
            std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(mode)).unwrap();
            let result = check_directory(dir.path(), &std::fs::metadata(dir.path()).unwrap());
            assert_eq!(result.is_ok(), good, "{mode:o}: {result:?}");
        };
        check(0o700, true);
        check(0o755, true);
        check(0o770, false);
        check(0o1777, false);
    }

    #[test]
    fn programs_that_others_can_replace() {
        let dir = tempfile::tempdir().unwrap();
        let set = |path: &Path, mode: u32| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        let parent = dir.path().join("bin");
        std::fs::create_dir(&parent).unwrap();
        let program = parent.join("hook");
        std::fs::write(&program, "#!/bin/sh\n").unwrap();
        set(&program, 0o755);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&program, &link).unwrap();
        let check = |path: &Path, expected: Option<&str>| match (check_program(path), expected) {
            (Ok(()), None) => {}
            (Err(error), Some(part)) => {
                assert!(error.message.contains(part), "{error}");
                assert!(!error.hint.is_empty());
            }
            (got, _) => panic!("{path:?}: {got:?}"),
        };
        for (mode, refused) in
            [(0o755, None), (0o700, None), (0o775, Some("0775")), (0o757, Some("0757")), (0o1777, None)]
        {
            set(&parent, mode);
            check(&program, refused);
            // The directory of a link's target counts too.
            check(&link, refused);
        }
        set(&parent, 0o755);
        set(dir.path(), 0o777);
        check(&program, Some("can replace it"));
        set(dir.path(), 0o755);
        check(&program, None);
        if !rustix::process::geteuid().is_root() {
            return;
        }
        std::os::unix::fs::chown(&parent, Some(65534), None).unwrap();
        check(&program, Some("which is owned by"));
        std::os::unix::fs::chown(&parent, Some(0), None).unwrap();
        std::os::unix::fs::chown(&program, Some(65534), None).unwrap();
        check(&program, Some("must be owned by"));
        // In a sticky directory its owner can replace it.
        std::os::unix::fs::chown(&program, Some(0), None).unwrap();
        std::os::unix::fs::lchown(&link, Some(65534), None).unwrap();
        set(dir.path(), 0o1777);
        check(&link, Some("can replace it"));
        check(&program, None);
    }

    #[test]
    fn what_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let error = read_private(&dir.path().join("x"), "Make it.").unwrap_err();
        assert_eq!(error.hint, "Make it.");
        assert!(read_private(dir.path(), "").unwrap_err().message.contains("not a regular file"));
        let large = dir.path().join("large");
        std::fs::write(&large, vec![b'#'; SIZE_LIMIT as usize + 1]).unwrap();
        std::fs::set_permissions(&large, PermissionsExt::from_mode(0o600)).unwrap();
        assert!(read_private(&large, "").unwrap_err().message.contains("larger"));
        let odd = dir.path().join("odd");
        std::fs::write(&odd, b"\xef\xbb\xbf# \xff\n").unwrap();
        std::fs::set_permissions(&odd, PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(read_private(&odd, "").unwrap(), "# \u{fffd}\n");
    }

    #[test]
    fn a_foreign_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mc.key");
        std::fs::write(&path, "text").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        if std::os::unix::fs::chown(&path, Some(65534), None).is_ok() {
            let error = read_private(&path, "").unwrap_err();
            assert!(error.message.contains("is owned by"), "{error}");
            assert!(error.hint.starts_with("Run as root: chown"), "{error}");
        }
    }
}
