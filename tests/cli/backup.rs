//! `mc_ctl backup`, `archive-wal` and `restore-wal` without a server: destinations and files that are refused, and a full disk.

use super::user::is_root;
use super::{Ran, Site};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A segment of 1 MB of the cluster with this system identifier.
fn segment(system: u64, filler: u8) -> Vec<u8> {
    let mut bytes = vec![filler; 1 << 20];
    bytes[2..4].copy_from_slice(&2_u16.to_ne_bytes());
    bytes[24..32].copy_from_slice(&system.to_ne_bytes());
    bytes[32..36].copy_from_slice(&(1_u32 << 20).to_ne_bytes());
    bytes
}

fn name(number: u32) -> String {
    format!("0000000100000000{number:08X}")
}

/// A site whose destination is this directory below it.
fn site(destination: &str) -> (Site, PathBuf) {
    let site = Site::new();
    let path = site.root.path().join(destination);
    let conf = fs::read_to_string(site.dir().join("nd1.conf")).unwrap();
    site.write("nd1.conf", &format!("{conf}backup_destination = '{}'\n", path.display()));
    (site, path)
}

/// A site with an empty destination.
fn empty() -> (Site, PathBuf) {
    let (site, path) = site("backup");
    fs::create_dir(&path).unwrap();
    site.own(&path, 0o700);
    (site, path)
}

fn wal(site: &Site, bytes: &[u8]) -> PathBuf {
    let path = site.root.path().join("wal");
    fs::write(&path, bytes).unwrap();
    site.own(&path, 0o600);
    path
}

fn archive(site: &Site, from: &Path, name: &str) -> Ran {
    site.run(&format!("archive-wal {} {name}", from.display()))
}

/// The files below a directory with their contents.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        match entry.is_dir() {
            true => found.extend(contents(&entry)),
            false => found.push((entry.clone(), fs::read(&entry).unwrap())),
        }
    }
    found.sort();
    found
}

#[test]
fn without_a_destination() {
    let site = Site::new();
    let to = site.root.path().join("to");
    let file = site.dir().join("nd1.conf").display().to_string();
    let restore = format!("restore-wal {} {}", name(2), to.display());
    let archive = format!("archive-wal {} {}", wal(&site, &segment(7, 1)).display(), name(2));
    for args in ["backup --list", "backup --delete x", &restore, &archive] {
        site.run(args).refused(2, &[&file, "backup_destination is not set", "Set it to a directory on another disk"]);
    }
    let check = site.run("backup --check");
    assert!(check.code == 3 && check.out.starts_with("MC BACKUP UNKNOWN - "), "{check:?}");
    assert!(!to.exists());
}

#[test]
fn a_destination_that_is_not_mounted() {
    let (site, path) = site("backup");
    let missing = path.display().to_string();
    let to = site.root.path().join("to");
    let restore = format!("restore-wal {} {}", name(2), to.display());
    let archive = format!("archive-wal {} {}", wal(&site, &segment(7, 1)).display(), name(2));
    for args in ["backup --list", "backup --delete x", &restore, &archive] {
        site.run(args).refused(1, &[&missing, "Mount its file system"]);
    }
    assert_eq!(site.run("backup --check").code, 2, "CRITICAL");
    assert!(!path.exists() && !to.exists());
}

#[test]
fn a_destination_that_is_not_ours() {
    let (site, path) = empty();
    let from = wal(&site, &segment(7, 1));
    fs::write(path.join("letters"), "private").unwrap();
    archive(&site, &from, &name(2))
        .refused(1, &["is not empty", "letters", "Set backup_destination to an empty directory"]);
    assert_eq!(contents(&path).len(), 1);
    fs::remove_file(path.join("letters")).unwrap();

    // A directory that others can write to.
    site.own(&path, 0o770);
    archive(&site, &from, &name(2)).refused(1, &["must belong to the instance administrator user", "chmod 0700"]);
    site.own(&path, 0o700);

    assert_eq!(archive(&site, &from, &name(2)).code, 0);
    let before = contents(&path);
    let other = wal(&site, &segment(8, 1));
    archive(&site, &other, &name(3)).refused(1, &["belongs to another cluster", "is 7", "is 8"]);
    assert_eq!(contents(&path), before);
}

#[test]
fn a_file_is_archived_once() {
    let (site, path) = empty();
    let from = wal(&site, &segment(7, 1));
    archive(&site, &from, "postgresql.conf").refused(1, &["is not the name of a WAL file", "archive_command"]);
    for _ in 0..2 {
        let stored = archive(&site, &from, &name(2));
        assert_eq!((stored.code, stored.out.as_str(), stored.err.as_str()), (0, "", ""));
    }
    let before = contents(&path);
    let from = wal(&site, &segment(7, 2));
    let archived = path.join("archived_wal").join(name(2)).display().to_string();
    archive(&site, &from, &name(2)).refused(1, &[&archived, from.to_str().unwrap(), "never replaces a file"]);
    assert_eq!(contents(&path), before);
}

#[test]
fn restored_files() {
    let (site, _) = empty();
    assert_eq!(archive(&site, &wal(&site, &segment(7, 1)), &name(2)).code, 0);
    let to = site.root.path().join("to");
    let restore = |name: &str| site.run(&format!("restore-wal {name} {}", to.display()));
    // PostgreSQL requests these, and takes status 1 without a message for an answer.
    for missing in [name(3), "00000002.history".to_owned(), format!("{}.partial", name(2))] {
        let ran = restore(&missing);
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (1, "", ""), "{missing}");
        assert!(!to.exists());
    }
    let ran = restore(&name(2));
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "", ""));
    assert_eq!(fs::read(&to).unwrap(), segment(7, 1));
}

/// PostgreSQL takes a status up to 125 for the end of WAL, and would promote a backup without the commits in a damaged archive.
#[test]
fn a_recovery_is_aborted_by_an_error() {
    let (site, path) = empty();
    assert_eq!(archive(&site, &wal(&site, &segment(7, 1)), &name(2)).code, 0);
    fs::write(path.join("archived_wal").join(name(2)), "damaged").unwrap();
    let to = site.root.path().join("to");
    let restore = |name: &str| {
        let mut command = site.command();
        Ran::of(command.current_dir(site.data()).args(["restore-wal", "-M"]).arg(site.dir()).arg(name).arg(&to))
    };
    restore(&name(2)).refused(1, &["is not a WAL segment"]);
    fs::write(site.data().join("recovery.signal"), "").unwrap();
    restore(&name(2)).refused(126, &["is not a WAL segment"]);
    assert_eq!(restore(&name(3)).code, 1);
    let moved = path.with_extension("unmounted");
    fs::rename(&path, &moved).unwrap();
    restore(&name(3)).refused(126, &["Mount its file system"]);
    fs::write(site.data().join("standby.signal"), "").unwrap();
    restore(&name(3)).refused(1, &["Mount its file system"]);
    assert!(!to.exists());
}

/// On a full disk nothing is archived, what is archived remains, and archiving resumes when there is space.
#[test]
fn a_full_disk() {
    if !is_root() {
        return;
    }
    let (site, path) = empty();
    let (from, run) = (wal(&site, &segment(7, 1)), site.root.path().join("mc_ctl"));
    let script = r#"
        mount -t tmpfs -o size=3m,mode=0700,uid=$(stat -c %u "$3"),gid=$(stat -c %g "$3") tmpfs "$3"
        archive() { setpriv --reuid "$owner" --clear-groups "$run" archive-wal -M "$mc" "$from" "0000000100000000$1"; }
        run=$1 mc=$2 from=$4 owner=$(stat -c %u "$3")
        archive 00000002 && head -c 1500000 /dev/zero >"$3/archived_wal/filler"
        before=$(cd "$3" && find . -type f -exec sha256sum {} +)
        archive 00000003 && exit 10
        echo "status $?"
        [ "$(cd "$3" && find . -type f -exec sha256sum {} +)" = "$before" ] || exit 11
        rm "$3/archived_wal/filler"
        archive 00000003 || exit 12
        cmp "$3/archived_wal/000000010000000000000003" "$from"
    "#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-uc", script, "sh"]);
    let ran = Ran::of(command.arg(run).arg(site.dir()).arg(&path).arg(&from));
    assert_eq!((ran.code, ran.out.as_str()), (0, "status 1\n"), "{ran:?}");
    assert!(ran.err.contains("No space left on device") && ran.err.contains("000000010000000000000003"), "{ran:?}");
}
