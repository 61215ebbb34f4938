//! The samples with the names, arguments and exit statuses of the guide's commands: `pgx_dmpall`, `pgx_rcvall` and
//! `pgx_xlogcopy.cmd`.

use crate::backup::{archived, backups, destination, pair};
use crate::harness::pair::{Pair, Setup};
use crate::harness::run::{Answer, run};
use crate::harness::{s, wait_for};
use crate::hook_samples::install;
use std::path::Path;

/// Runs an installed sample as the instance administrator user.
fn call(pair: &Pair, n: usize, path: &Path, words: &[&str]) -> Answer {
    let mut command = pair.host(n).admin(path.to_str().expect("ASCII"));
    command.args(words);
    run(command, s(300))
}

#[test]
fn of_the_guide() {
    let pair = pair(Setup::default());
    let dmpall = [0, 1].map(|n| install(&pair, n, "pgx_dmpall", &[]));
    let rcvall = [0, 1].map(|n| install(&pair, n, "pgx_rcvall", &[]));
    for n in [0, 1] {
        let copy = install(&pair, n, "pgx_xlogcopy.cmd", &[]);
        let to = destination(&pair, n).join("archived_xlog/%f");
        let line = format!("archive_command = '{} \"%p\" \"{}\"'\n", copy.display(), to.display());
        pair.append(n, "postgresql.conf", &line);
        pair.sql(n, "SELECT pg_reload_conf()");
        let wrong = call(&pair, n, &copy, &["one"]);
        assert!(wrong.code == 1 && wrong.err.contains("usage"), "{wrong:?}");
    }
    archived(&pair, 0);

    call(&pair, 0, &dmpall[0], &["-D", pair.data(0), "-C", "fast"]).expect(0, "pgx_dmpall");
    assert_eq!(backups(&pair, 0).len(), 1);
    let standby = call(&pair, 1, &dmpall[1], &["-D", pair.data(1), "-C", "fast"]);
    assert_eq!((standby.code, standby.err.as_str()), (1, "ERROR:recovery is in progress (10095)\n"));
    let elsewhere = call(&pair, 0, &dmpall[0], &["-D", "/srv/another"]);
    assert!(elsewhere.code == 1 && elsewhere.err.contains("is not db_instance"), "{elsewhere:?}");

    let name = backups(&pair, 0).pop().expect("a backup");
    let to = destination(&pair, 1).display().to_string();
    let listed = call(&pair, 1, &rcvall[1], &["-l", "-B", &to]).expect(0, "pgx_rcvall -l");
    assert!(listed.out.contains(&name), "{}", listed.out);
    let both = call(&pair, 0, &rcvall[0], &["-e", "2026-11-30 12:00:00", "-n", "a"]);
    assert!(both.code == 1 && both.err.contains("exclude each other"), "{both:?}");

    // A mistake is undone as in chapter 5.5, to a time as the guide writes it, and to a restore point.
    pair.sql(0, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS id");
    std::thread::sleep(s(2));
    let mut date = pair.host(0).admin("date");
    date.arg("+%Y-%m-%d %H:%M:%S");
    let time = run(date, s(10)).expect(0, "date").out;
    std::thread::sleep(s(2));
    pair.sql(0, "SELECT pg_create_restore_point('mistake')");
    pair.sql(0, "DELETE FROM kept");
    let kept = |rows: &str| {
        for n in [0, 1] {
            wait_for("the rows are there", s(30), || (pair.sql(n, "SELECT count(*) FROM kept") == rows).then_some(()));
        }
    };
    let dir = destination(&pair, 0).display().to_string();
    let words = ["-B", &dir, "-D", pair.data(0), "-e", time.trim()];
    call(&pair, 0, &rcvall[0], &words).expect(0, "pgx_rcvall -e");
    kept("1000");
    pair.sql(0, "INSERT INTO kept VALUES (1001)");
    pair.sql(0, "SELECT pg_create_restore_point('second')");
    pair.sql(0, "DROP TABLE kept");
    call(&pair, 0, &rcvall[0], &["-n", "second"]).expect(0, "pgx_rcvall -n");
    kept("1001");
    let unknown = call(&pair, 0, &rcvall[0], &["-n", "nowhere"]);
    assert!(unknown.code == 1 && unknown.err.contains("ERROR:the recovery failed"), "{unknown:?}");
    kept("1001");
}
