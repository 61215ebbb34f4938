//! Helpers of the tests that need a real PostgreSQL.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

/// The directory of PostgreSQL's server programs: `$PGBIN`, or the newest that is installed; fails and says what to install where there is none.
pub fn bin_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("PGBIN") {
        return dir.into();
    }
    let found = (12..=18).rev().map(|major| PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")));
    let found = found.into_iter().find(|dir| dir.join("initdb").exists());
    found.expect("no PostgreSQL found: install it (apt-get install postgresql), or set PGBIN")
}

/// The major version of those programs.
pub fn major() -> u32 {
    static MAJOR: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *MAJOR.get_or_init(|| {
        let told = run(&bin_dir().join("postgres"), &["--version"]);
        let version = told.split("(PostgreSQL) ").nth(1).expect("a version");
        version.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().expect("a version")
    })
}

/// PostgreSQL refuses to run as root. Run by root, this runs the named test again as the user `postgres`, fails if that
/// fails, and returns false: nothing is left to do. Else it returns true.
pub fn as_postgres(test: &str) -> bool {
    if !rustix::process::geteuid().is_root() {
        return true;
    }
    let exe = std::env::current_exe().unwrap();
    let status = Command::new("setpriv")
        .args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups", "--"])
        .arg(exe)
        .args(["--exact", test, "--nocapture", "--test-threads", "1"])
        .current_dir("/")
        .env("HOME", "/tmp")
        .status()
        .expect("setpriv is needed to run as the user postgres: apt-get install util-linux");
    assert!(status.success(), "{test} failed as the user postgres");
    false
}

/// A free port below those that the kernel gives to clients. Tests run beside each other, each in a process of its own where
/// the user is changed.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = (std::process::id() % 1000) as u16 * 8;
    let ports = std::iter::repeat_with(|| 20_000 + (own + NEXT.fetch_add(1, Ordering::Relaxed)) % 8000);
    ports.take(8000).find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

/// Runs a program to its end and returns its output; fails with what it said.
pub fn run(program: &Path, args: &[&str]) -> String {
    let out = Command::new(program).args(args).current_dir("/").output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{} {args:?}: {said}", program.display());
    String::from_utf8_lossy(&out.stdout).into_owned()
}
