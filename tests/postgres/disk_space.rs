//! What the controller and the instance write into the management directory is bounded.

use crate::harness::pair::Setup;
use crate::harness::{s, wait_for};

/// With `logging_collector = off`, `startup.log` receives PostgreSQL's whole log. The controller keeps it, and the older file
/// beside it, below 10 MiB each; the log continues in it.
#[test]
fn startup_log_is_bounded() {
    let pair = Setup::default().pg("logging_collector = off").up();
    let log = |name: &str| std::fs::read(pair.host(0).path(&pair.run_dir(0)).join(name)).ok();
    let write = |text: &str, lines: u32| {
        let raise = format!("RAISE LOG '% {text} %', i, repeat('x', 10000)");
        pair.sql(0, &format!("DO $$ BEGIN FOR i IN 1..{lines} LOOP {raise}; END LOOP; END $$"));
    };
    write("many", 4000);
    let older = wait_for("the log is bounded", s(30), || {
        let older = log("startup.log.1").filter(|older| !older.is_empty())?;
        (log("startup.log")?.len() <= 10 << 20).then_some(older)
    });
    assert!(older.len() <= 10 << 20, "{} bytes", older.len());
    assert!(String::from_utf8_lossy(&older).contains("many xxx"));
    write("one more", 1);
    wait_for("the log continues", s(10), || {
        String::from_utf8_lossy(&log("startup.log")?).contains("1 one more xxx").then_some(())
    });
    assert_eq!(pair.status(0).expect("a status").word, "switchable");
}
