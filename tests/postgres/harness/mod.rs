//! A pair of real PostgreSQL servers on two hosts of their own, an arbiter on a third, faults to do to them, and clients
//! that remember every row that was acknowledged to them.
//!
//! Used by the test target `postgres` and by the bench of the same name. It drives `mc_ctl` as an administrator would,
//! from outside, and must not use anything of the library: what it finds is what a user would find.
//!
//! A host is a set of namespaces (network, processes, mounts, IPC, host name) whose first process dies with the thread
//! that made it, so nothing outlives a test, however the test ends.

pub mod arbiter;
pub mod browser;
pub mod client;
#[path = "../../common/mod.rs"]
mod common;
pub mod console;
pub mod disk;
pub mod document;
pub mod evidence;
pub mod far;
pub mod host;
pub mod names;
pub mod net;
pub mod pair;
pub mod rebuild;
pub mod remedy;
pub mod run;
pub mod script;
pub mod syslog;
pub mod systemd;
pub mod template;
pub mod writer;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The directory of this test process; removed at its end, or at the start of a later one.
pub fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        require();
        remove_leftovers();
        let root = PathBuf::from(format!("/tmp/mc-pg-{}", std::process::id()));
        std::fs::create_dir(&root).unwrap_or_else(|e| panic!("could not create directory {root:?}: {e}"));
        remove_at_the_end(&root);
        root
    })
}

/// Fails with what to install, or whom to be.
fn require() {
    assert!(
        rustix::process::geteuid().is_root(),
        "these tests make network namespaces and drop to the user postgres: run them as root"
    );
    for (program, package) in [
        ("nsenter", "util-linux"),
        ("unshare", "util-linux"),
        ("setpriv", "util-linux"),
        ("ip", "iproute2"),
        ("bridge", "iproute2"),
        ("systemctl", "systemd"),
    ] {
        need(program, package);
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    assert!(
        passwd.lines().any(|l| l.starts_with("postgres:")),
        "there is no user postgres: apt-get install postgresql"
    );
    bin_dir();
}

/// Fails with what to install where there is no such program.
pub fn need(program: &str, package: &str) {
    let found = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].iter().any(|dir| Path::new(dir).join(program).exists());
    assert!(found, "{program} is missing: apt-get install {package}");
}

/// The text of a sample.
pub fn sample(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("could not read {path:?}: {e}"))
}

/// PostgreSQL's programs, as the other tests take them.
pub fn bin_dir() -> &'static Path {
    static BIN: OnceLock<PathBuf> = OnceLock::new();
    BIN.get_or_init(common::bin_dir)
}

/// Their major version.
pub fn major() -> u32 {
    common::major()
}

/// A child that waits for the end of this process, whatever ends it, and then removes the directory.
fn remove_at_the_end(root: &Path) {
    if std::env::var_os("MC_TEST_KEEP").is_some() {
        return;
    }
    let child = Command::new("sh")
        .args(["-c", "trap '' INT TERM HUP; cat; sleep 1; rm -rf \"$1\"; find \"$2\" -depth -type d -exec rmdir {} + 2>/dev/null", "sh"])
        .arg(root)
        .arg(systemd::mount().unwrap_or_default().join(root.file_name().expect("a name")))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("could not run sh");
    std::mem::forget(child); // its standard input stays open until this process ends
}

/// Directories and control groups of test processes that ended without removing them.
fn remove_leftovers() {
    let parents = [Some(PathBuf::from("/tmp")), systemd::mount()];
    for entry in parents.into_iter().flatten().filter_map(|parent| std::fs::read_dir(parent).ok()).flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.strip_prefix("mc-pg-")).and_then(|p| p.parse::<u32>().ok()) else {
            continue;
        };
        if !Path::new(&format!("/proc/{pid}")).exists() {
            let _ = std::fs::remove_dir_all(entry.path());
            systemd::remove_groups(&entry.path());
        }
    }
}

/// Polls until `look` answers, or fails with what was waited for.
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < limit, "waited {limit:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Seconds, for the tests' readability.
pub const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// How often to repeat a case that depends on chance: `$MC_TEST_ROUNDS`, or so often.
pub fn rounds(usually: usize) -> usize {
    std::env::var("MC_TEST_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(usually)
}
