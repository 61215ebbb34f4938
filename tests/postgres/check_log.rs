//! Where PostgreSQL's log goes, and what `mc_ctl check` finds in that.

use crate::check::{expect, expect_gone};
use crate::harness::pair::{Setup, own};
use crate::harness::{s, wait_for};
use std::path::Path;
use std::time::Instant;

/// `log_file` receives PostgreSQL's log. If it cannot be written, the instance is started all the same.
#[test]
fn log_file_receives_the_log() {
    let pair = Setup::default().pg("logging_collector = off").pg("log_line_prefix = 'of pg '").make();
    let dir = pair.hosts[1].dir.join("logs");
    std::fs::create_dir(&dir).expect("could not create a directory");
    own(&dir);
    let log = dir.join("pg.log");
    pair.server_line(1, &format!("log_file = '{}'", log.display()));
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let other = pair.run_dir(1).join("startup.log");
    let found = expect(&pair, 1, "server-log", "nd2");
    assert!(found.what.contains(&format!("will be \"{}\"", log.display())), "{found:?}");
    pair.bring_up();
    wait_for("the log", s(20), || read(&log).contains("of pg ").then_some(()));
    assert_eq!(read(&other), "");
    expect_gone(&pair, 1, "server-log-unwritable", "nd2");

    // renamed under the instance
    std::fs::rename(&log, dir.join("pg.log.1")).expect("could not rename");
    expect(&pair, 1, "server-log-unwritable", "nd2");
    pair.mc(1, &["stop"]).expect(0, "mc_ctl stop");
    pair.as_root(1, &["chown", "root:", dir.to_str().expect("ASCII")]);
    let found = expect(&pair, 1, "server-log-unwritable", "nd2");
    assert!(found.what.contains("Permission denied"), "{found:?}");
    let at = Instant::now();
    pair.start(1, &["-f"]);
    pair.wait_log(1, at, "MCA01236", s(20));
    pair.wait_word(1, "switchable");
    assert!(read(&other).contains("of pg "), "no log in the run-time directory");
    assert!(!log.exists());
}
