//! What interrupts a rebuild: a source that dies, a cancellation, and `kill -9` at moments all over it.

use super::common::{self, as_postgres};
use super::{
    Db, Pair, elsewhere, fingerprint, old_directories, port_of, processes, signal, sql_at, stop_program, system, text,
    until,
};
use mirroring_controller::fsm::event::Rebuild;
use mirroring_controller::fsm::types::{Method, OldData, RebuildOrder, SystemId};
use mirroring_controller::pg::bounded::Cancel;
use mirroring_controller::pg::{Place, control};
use mirroring_controller::rebuild::{self, Board, Journal, Phase, Setup};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// While either program runs, a plain start fails; cancelled, a base backup leaves everything as it was.
#[test]
fn nothing_starts_a_guarded_directory() {
    if !as_postgres("kills::nothing_starts_a_guarded_directory") {
        return;
    }
    let pair = Pair::new(1000).diverge(500, "fast");
    let a = &pair.a;
    let before = fingerprint(&a.place.data);
    let version = |path: &String| path.contains("/data/PG_VERSION ");
    let interrupted = |method, program: &str, cancelled: bool| {
        let order = pair.order(method, OldData::Keep);
        let (canceller, cancel) = Cancel::new();
        std::thread::scope(|scope| {
            let performed = scope.spawn(|| rebuild::perform(&a.setup, &order, &Board::default(), &cancel));
            let child = stop_program(program, &a.dir);
            let (started, said) = Db::plain_start(&a.place.data);
            assert!(!started && said.contains("does not contain valid data"), "{said}");
            assert!(control::inspect(&a.place).unwrap().incomplete);
            let _held = if cancelled {
                drop(canceller);
                None
            } else {
                signal(child, "CONT");
                Some(canceller)
            };
            performed.join().unwrap()
        })
    };
    let begun = Instant::now();
    let why = interrupted(Method::BaseBackup, "pg_basebackup", true).unwrap_err();
    assert!(why.message.contains("cancelled"), "{why} after {:?}", begun.elapsed());
    let without = |list: &[String]| list.iter().filter(|path| !version(path)).cloned().collect::<Vec<_>>();
    assert_eq!(without(&fingerprint(&a.place.data)), without(&before));
    a.is_not_being_rebuilt();
    assert!(!a.dir.join("data.rebuild-new").exists());
    interrupted(Method::Rewind, "pg_rewind", false).unwrap();
    // A plain start right after it comes up as a standby.
    let (started, said) = Db::plain_start(&a.place.data);
    assert!(started, "{said}");
    assert_eq!(sql_at(port_of(&a.place.data), "SELECT pg_is_in_recovery()"), "t");
    a.stop("fast");
    pair.is_mirrored();
}

/// The same set-up with programs of which one stops itself before it does anything.
fn stopping_setup(db: &Db, program: &str) -> Setup {
    let bin_dir = db.dir.join("bin");
    std::fs::create_dir(&bin_dir).unwrap();
    for entry in std::fs::read_dir(common::bin_dir()).unwrap().map(Result::unwrap) {
        std::os::unix::fs::symlink(entry.path(), bin_dir.join(entry.file_name())).unwrap();
    }
    let path = bin_dir.join(program);
    std::fs::remove_file(&path).unwrap();
    let real = text(common::bin_dir().join(program));
    let script = format!("#!/bin/sh\ncase \"$*\" in *--dry-run*) ;; *) kill -STOP $$ ;; esac\nexec '{real}' \"$@\"\n");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let place = Place { bin_dir, ..db.place.clone() };
    Setup { place, ..db.setup.clone() }
}

/// Waits for the program of these that has stopped itself.
fn stopped(bin_dir: &Path) -> i32 {
    let is_stopped = |pid: i32, line: &str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        line.contains(&text(bin_dir)) && status.contains("\nState:\tT")
    };
    until("a program that stops itself", || processes(is_stopped).first().copied())
}

/// The primary dies in the middle.
#[test]
fn a_source_that_dies_is_told() {
    if !as_postgres("kills::a_source_that_dies_is_told") {
        return;
    }
    let pair = Pair::new(20_000).diverge(100_000, "fast");
    let Pair { a, b, .. } = &pair;
    // When `held` has stopped the program, the source dies.
    let dies = |setup: &Setup, method, held: &dyn Fn(&Board) -> i32| {
        let order = pair.order(method, OldData::Keep);
        let board = Board::default();
        std::thread::scope(|scope| {
            let performed = scope.spawn(|| rebuild::perform(setup, &order, &board, &Cancel::never()));
            let child = held(&board);
            b.kill();
            signal(child, "CONT");
            performed.join().unwrap()
        })
    };
    let base_backup = |_: &Board| stop_program("pg_basebackup", &a.dir);
    let why = dies(&a.setup, Method::BaseBackup, &base_backup).unwrap_err();
    assert!(why.message.contains("pg_basebackup failed"), "{why}");
    a.is_not_being_rebuilt();
    b.start();
    // Before anything was overwritten.
    let early = stopping_setup(a, "pg_rewind");
    let why = dies(&early, Method::Rewind, &|_| stopped(&early.place.bin_dir)).unwrap_err();
    assert!(why.message.contains("pg_rewind failed"), "{why}");
    a.is_not_being_rebuilt();
    b.start();
    let copying = |board: &Board| {
        until("copying", || board.read().filter(|progress| progress.total > 0));
        stop_program("pg_rewind", &a.dir)
    };
    let why = dies(&a.setup, Method::Rewind, &copying).unwrap_err();
    assert!(why.hint.contains("partly rewound"), "{why}");
    a.is_guarded();
    assert!(!Db::plain_start(&a.place.data).0);
    rebuild::abandon(&a.setup, &Cancel::never()).unwrap();
    a.is_guarded();
    b.start();
    let why = pair.perform(Method::Rewind).unwrap_err();
    assert!(why.message.contains("base backup"), "{why}");
    let why = dies(&a.setup, Method::Auto, &base_backup).unwrap_err();
    assert!(why.message.contains("pg_basebackup failed"), "{why}");
    a.is_guarded();
    b.start();
    pair.perform(Method::Auto).unwrap();
    pair.has_own_configuration();
    pair.is_mirrored();
    let old = old_directories(a).pop().unwrap();
    assert!(!Db::plain_start(&old).0, "a half rewound directory is never started");
}

// ---------------------------------------------------------------------------------------------------------------- kills

/// What a rebuild in a process of its own needs to know, in the environment.
const CHILD: &str = "MC_TEST_REBUILD";

/// Not a test: a rebuild that [`is_killed_anywhere`] kills.
#[test]
fn rebuild_in_a_process_of_its_own() {
    let Ok(words) = std::env::var(CHILD) else { return };
    let words: Vec<&str> = words.split(' ').collect();
    let [dir, own_port, source, system, method, old_data] = words[..] else { panic!("{words:?}") };
    let a = std::mem::ManuallyDrop::new(Db::there(Path::new(dir), own_port.parse().unwrap()));
    let order = RebuildOrder {
        method: if method == "rewind" { Method::Auto } else { Method::BaseBackup },
        old_data: if old_data == "delete" { OldData::Delete } else { OldData::Keep },
    };
    let system = SystemId(system.parse().unwrap());
    let what = Rebuild { order, source: source.to_owned(), system, names: "b".into(), doubt: Default::default() };
    rebuild::perform(&a.setup, &what, &Board::default(), &Cancel::never()).unwrap();
}

/// A diverged server, and how to have it back as it was.
struct Bench {
    pair: Pair,
    saved: PathBuf,
}

/// What of a server a rebuild changes.
const PARTS: [&str; 3] = ["data", "wal", "space"];

impl Bench {
    fn new(prepare: impl FnOnce(&Db)) -> Bench {
        let pair = Pair::with(2000, prepare).diverge(2000, "fast");
        let saved = pair.a.dir.join("saved");
        std::fs::create_dir(&saved).unwrap();
        for part in PARTS.iter().filter(|part| pair.a.dir.join(part).exists()) {
            copy(&pair.a.dir.join(part), &saved.join(part));
        }
        Bench { pair, saved }
    }

    fn again(&self) {
        let a = &self.pair.a;
        a.kill();
        for entry in std::fs::read_dir(&a.dir).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() && entry != self.saved {
                std::fs::remove_dir_all(entry).unwrap();
            }
        }
        std::fs::create_dir(&a.setup.run_dir).unwrap();
        for part in PARTS.iter().filter(|part| self.saved.join(part).exists()) {
            copy(&self.saved.join(part), &a.dir.join(part));
        }
    }

    fn child(&self, (method, old_data): (&str, &str)) -> Command {
        let Pair { a, b, .. } = &self.pair;
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "kills::rebuild_in_a_process_of_its_own", "--nocapture", "--test-threads", "1"]);
        let words =
            [&text(&a.dir), &a.port.to_string(), &format!("127.0.0.1:{}", b.port)].map(String::as_str).join(" ");
        command.env(CHILD, format!("{words} {} {method} {old_data}", system(b).0));
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        command
    }

    /// Whatever was killed: the directory is untouched, cannot be started, or starts as a standby.
    fn is_no_second_primary(&self, when: &str) {
        let a = &self.pair.a;
        let journal = Journal::load(&a.setup.run_dir).unwrap();
        if !Db::plain_start(&a.place.data).0 {
            assert!(journal.is_some(), "{when}: it does not start, and nothing tells why");
            return;
        }
        let port = port_of(&a.place.data);
        if sql_at(port, "SELECT pg_is_in_recovery()") == "f" {
            assert!(journal.is_none_or(|journal| journal.phase == Phase::Copying), "{when}: it is a primary");
            let rows = "SELECT string_agg(what || n, ' ') FROM (SELECT what, count(*) AS n FROM t GROUP BY what) AS c";
            let rows = sql_at(port, rows);
            assert!(rows.contains("lost2000") && !rows.contains("new"), "{when}: not what it was: {rows}");
        }
        // As an operator would: the next rebuild finds what this start has left.
        a.stop("fast");
    }

    /// The next rebuild makes a standby of it.
    fn ends_well(&self, how: (&str, &str), when: &str) {
        let out = self.child(how).stderr(std::process::Stdio::piped()).output().unwrap();
        assert!(out.status.success(), "{when}: {}", String::from_utf8_lossy(&out.stderr));
        let Pair { a, b, .. } = &self.pair;
        assert_eq!(Journal::load(&a.setup.run_dir), Ok(None), "{when}");
        assert!(a.place.data.join("standby.signal").exists(), "{when}");
        self.pair.has_own_configuration();
        self.pair.start_streaming(when);
        let sum = "SELECT count(*), sum(hashtext(t::text)) FROM t";
        until(when, || (a.sql(sum) == b.sql(sum)).then_some(()));
        if self.saved.join("space").exists() {
            assert_eq!(a.sql("SELECT one.n + two.n FROM one, two"), "2", "{when}");
        }
    }
}

fn copy(from: &Path, to: &Path) {
    common::run(Path::new("/bin/cp"), &["-a", &text(from), &text(to)]);
}

/// `kill -9`, of the controller alone or with its children, at moments all over a rebuild.
/// `usually` so often, or `$MC_TEST_KILLS` times.
fn is_killed_anywhere(how: (&str, &str), usually: u32, prepare: impl FnOnce(&Db)) {
    let rounds = std::env::var("MC_TEST_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(usually);
    let bench = Bench::new(prepare);
    let begun = Instant::now();
    assert!(bench.child(how).status().unwrap().success());
    let whole = begun.elapsed();
    for round in 0..rounds {
        bench.again();
        let mut child = bench.child(how).spawn().unwrap();
        std::thread::sleep(whole * (2 * round + 1) / (2 * rounds));
        let children = if round % 2 == 0 { programs(&bench.pair.a.dir) } else { Vec::new() };
        child.kill().unwrap();
        child.wait().unwrap();
        children.into_iter().for_each(|pid| drop(Command::new("/bin/kill").args(["-KILL", &pid.to_string()]).output()));
        let when = format!("{how:?}, round {round} of {rounds}");
        bench.is_no_second_primary(&when);
        bench.ends_well(how, &when);
    }
}

/// PostgreSQL's programs that work in this directory.
fn programs(dir: &Path) -> Vec<i32> {
    let programs = text(common::bin_dir());
    processes(|_, line| line.starts_with(&programs) && line.contains(&text(dir)))
}

#[test]
fn a_rewind_that_is_killed_anywhere_ends_well() {
    if as_postgres("kills::a_rewind_that_is_killed_anywhere_ends_well") {
        is_killed_anywhere(("rewind", "keep"), 4, |_| {});
    }
}

#[test]
fn a_base_backup_that_is_killed_anywhere_ends_well() {
    if as_postgres("kills::a_base_backup_that_is_killed_anywhere_ends_well") {
        is_killed_anywhere(("basebackup", "keep"), 4, elsewhere);
        is_killed_anywhere(("basebackup", "delete"), 2, elsewhere);
    }
}

/// What was interrupted before anything was overwritten is undone, and what was not, is not.
#[test]
fn abandoned_it_is_as_before() {
    if !as_postgres("kills::abandoned_it_is_as_before") {
        return;
    }
    let bench = Bench::new(|_| {});
    let (a, dir) = (&bench.pair.a, &bench.pair.a.dir);
    let never = Cancel::never();
    rebuild::abandon(&a.setup, &never).unwrap();
    let mut child = bench.child(("basebackup", "keep")).spawn().unwrap();
    let orphan = stop_program("pg_basebackup", dir);
    child.kill().unwrap();
    child.wait().unwrap();
    a.is_guarded();
    rebuild::abandon(&a.setup, &never).unwrap();
    assert!(!Path::new(&format!("/proc/{orphan}/fd/0")).exists(), "it continues writing");
    a.is_not_being_rebuilt();
    assert!(!dir.join("data.rebuild-new").exists());
    bench.is_no_second_primary("abandoned");
    // A journal that cannot be read: nothing is done.
    std::fs::write(Journal::path(&a.setup.run_dir), "{").unwrap();
    let before = fingerprint(&a.place.data);
    let why = rebuild::abandon(&a.setup, &never).unwrap_err();
    assert!(why.message.contains("could not read the journal"), "{why}");
    let again = bench.pair.perform(Method::Auto).unwrap_err();
    assert!(again.message.contains("could not read the journal"), "{again}");
    assert_eq!(fingerprint(&a.place.data), before);
    Journal::remove(&a.setup.run_dir).unwrap();
    // Its directory is gone: another filesystem is to be seen, and nothing is copied into it.
    let mut child = bench.child(("basebackup", "keep")).spawn().unwrap();
    stop_program("pg_basebackup", dir);
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::rename(&a.place.data, dir.join("away")).unwrap();
    let why = bench.pair.perform(Method::Auto).unwrap_err();
    assert!(why.message.contains("missing or empty"), "{why}");
    std::fs::rename(dir.join("away"), &a.place.data).unwrap();
    bench.ends_well(("basebackup", "keep"), "after all");
}
