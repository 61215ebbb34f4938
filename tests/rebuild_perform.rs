//! Rebuilds of a real PostgreSQL's data directory: what they leave is a standby with this server's own configuration, and
//! wherever one is killed, the directory is untouched, cannot be started, or starts as a standby (`rebuild_perform/kills.rs`).

mod common;
#[path = "rebuild_perform/kills.rs"]
mod kills;

use common::as_postgres;
use mirroring_controller::fsm::event::Rebuild;
use mirroring_controller::fsm::types::{Method, OldData, RebuildOrder, SystemId};
use mirroring_controller::pg::bounded::Cancel;
use mirroring_controller::pg::{Place, control, process};
use mirroring_controller::rebuild::{self, Board, Journal, Setup};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

/// What the lost side of a split wrote, and what the other one did.
const LOST: &str = "lost";

/// An instance, running or not; killed when dropped.
struct Db {
    dir: PathBuf,
    place: Place,
    port: u16,
    setup: Setup,
}

/// Two instances; `a` was the primary, and `b` is.
struct Pair {
    a: Db,
    b: Db,
    _dir: tempfile::TempDir,
}

fn pg(program: &str, args: &[&str]) -> String {
    common::run(&common::bin_dir().join(program), args)
}

/// What `PG_VERSION` holds.
fn pg_version() -> String {
    format!("{}\n", common::major())
}

fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().to_str().unwrap().to_owned()
}

fn append(path: &Path, more: &str) {
    let old = std::fs::read_to_string(path).unwrap();
    std::fs::write(path, old + more).unwrap();
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LONG;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waiting for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Db {
    /// The instance `name` in `dir/name/data`, whose port is named outside of its data directory.
    fn new(dir: &Path, name: &str) -> Db {
        let dir = dir.join(name);
        std::fs::create_dir_all(dir.join("run")).unwrap();
        let port = common::free_port();
        let own = format!("port = {port}\nunix_socket_directories = '{}'\n", dir.display());
        std::fs::write(dir.join("own.conf"), own).unwrap();
        Db::there(&dir, port)
    }

    /// One that is there already.
    fn there(dir: &Path, port: u16) -> Db {
        let (dir, run_dir) = (dir.to_path_buf(), dir.join("run"));
        let name = text(dir.file_name().unwrap());
        let data = dir.join("data");
        let place = Place {
            config_file: data.join("postgresql.conf"),
            bin_dir: common::bin_dir(),
            major: common::major(),
            log_file: run_dir.join("startup.log"),
            startup_log: run_dir.join("startup.log"),
            data,
        };
        let setup = Setup {
            place: place.clone(),
            user: "postgres".into(),
            password: None,
            dbname: "postgres".into(),
            name,
            host: "127.0.0.1".into(),
            run_dir,
            archive: None,
        };
        Db { dir, place, port, setup }
    }

    fn start(&self) {
        let options = format!("-c config_file={}", self.place.config_file.display());
        let (data, log) = (text(&self.place.data), text(&self.place.startup_log));
        pg("pg_ctl", &["start", "-w", "-s", "-o", &options, "-D", &data, "-l", &log]);
    }

    /// A plain start in another port and another log; its end, and what it logged.
    fn plain_start(data: &Path) -> (bool, String) {
        let log = data.with_extension("plain.log");
        let _ = std::fs::remove_file(&log);
        let options = format!("-p {}", common::free_port());
        let args = ["start", "-w", "-t", "20", "-s", "-o", &options, "-D", &text(data), "-l", &text(&log)];
        let out: Output = Command::new(common::bin_dir().join("pg_ctl")).args(args).current_dir("/").output().unwrap();
        let said =
            String::from_utf8_lossy(&out.stderr).into_owned() + &std::fs::read_to_string(&log).unwrap_or_default();
        (out.status.success(), said)
    }

    fn stop(&self, mode: &str) {
        pg("pg_ctl", &["stop", "-w", "-s", "-m", mode, "-D", &text(&self.place.data)]);
    }

    /// As by `kill -9` of everything.
    fn kill(&self) {
        process::stop(&self.place, Duration::ZERO, &Cancel::never()).unwrap();
    }

    fn sql(&self, sql: &str) -> String {
        sql_at(self.port, sql)
    }

    fn fill(&self, what: &str, rows: u32) {
        self.sql(&format!("INSERT INTO t SELECT '{what}', g, repeat('x', 500) FROM generate_series(1, {rows}) g"));
    }

    fn rows(&self, what: &str) -> u32 {
        self.sql(&format!("SELECT count(*) FROM t WHERE what = '{what}'")).parse().unwrap()
    }

    fn conf(&self, name: &str) -> String {
        std::fs::read_to_string(self.place.data.join(name)).unwrap()
    }

    /// No rebuild is under way, and none keeps it from being started.
    #[track_caller]
    fn is_not_being_rebuilt(&self) {
        assert_eq!((self.conf("PG_VERSION"), Journal::load(&self.setup.run_dir)), (pg_version(), Ok(None)));
    }

    /// Nobody can start it.
    #[track_caller]
    fn is_guarded(&self) {
        let version = self.conf("PG_VERSION");
        assert!(version.starts_with(&format!("rebuilding {}", common::major())), "{version}");
    }
}

fn sql_at(port: u16, sql: &str) -> String {
    let port = port.to_string();
    pg("psql", &["-X", "-A", "-t", "-q", "-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-c", sql, "postgres"])
        .trim()
        .to_owned()
}

/// Of the postmaster that runs in this data directory.
fn port_of(data: &Path) -> u16 {
    std::fs::read_to_string(data.join("postmaster.pid")).unwrap().lines().nth(3).unwrap().parse().unwrap()
}

impl Drop for Db {
    fn drop(&mut self) {
        let _ = process::stop(&self.place, Duration::ZERO, &Cancel::never());
    }
}

impl Pair {
    /// `a` and its standby `b`, with this many rows.
    fn new(rows: u32) -> Pair {
        Pair::with(rows, |_| {})
    }

    /// The same; `prepare` does more to `a` before there is `b`.
    fn with(rows: u32, prepare: impl FnOnce(&Db)) -> Pair {
        let dir = tempfile::Builder::new().prefix("rebuilt-").tempdir_in("/tmp").unwrap();
        let (a, b) = (Db::new(dir.path(), "a"), Db::new(dir.path(), "b"));
        pg("initdb", &["-A", "trust", "-N", "-U", "postgres", "-D", &text(&a.place.data)]);
        let conf = "listen_addresses = '127.0.0.1'\nshared_buffers = 16MB\nwal_log_hints = on\nmax_wal_size = 256MB\nwal_keep_size = 256MB\n\
                    autovacuum = off\nlog_min_messages = warning\ninclude_if_exists '../own.conf'\ninclude_dir 'conf.d'\n";
        append(&a.place.config_file, conf);
        std::fs::create_dir(a.place.data.join("conf.d")).unwrap();
        std::fs::write(a.place.data.join("conf.d/more.conf"), "work_mem = 5MB\n").unwrap();
        a.start();
        prepare(&a);
        a.sql("CREATE TABLE IF NOT EXISTS t (what text, n int, pad text)");
        a.fill("common", rows);
        let mut args: Vec<String> = ["-X", "stream", "-c", "fast", "-R", "-D"].map(str::to_owned).into();
        args.extend([text(&b.place.data), "-d".into()]);
        args.push(format!("host=127.0.0.1 port={} user=postgres application_name=b", a.port));
        let spaces = a.sql("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE oid >= 16384");
        args.extend(spaces.lines().map(|space| format!("-T{space}={}", space.replace("/a/", "/b/"))));
        pg("pg_basebackup", &args.iter().map(String::as_str).collect::<Vec<_>>());
        for (db, name) in [(&a, "a"), (&b, "b")] {
            append(&db.place.config_file, &format!("# this is {name}'s\n"));
            append(&db.place.data.join("pg_hba.conf"), &format!("# this is {name}'s\n"));
        }
        std::fs::write(b.place.data.join("conf.d/more.conf"), "work_mem = 6MB\n").unwrap();
        std::fs::write(b.place.data.join("conf.d/only_b.conf"), "work_mem = 7MB\n").unwrap();
        b.start();
        Pair { a, b, _dir: dir }
    }

    /// `b` is promoted while `a` continues; each writes what the other one has not. Then `a` ends in this `mode`, or is
    /// killed.
    fn diverge(self, rows: u32, mode: &str) -> Pair {
        let Pair { a, b, .. } = &self;
        until("the standby", || (a.sql("SELECT state FROM pg_stat_replication") == "streaming").then_some(()));
        pg("pg_ctl", &["promote", "-w", "-s", "-D", &text(&b.place.data)]);
        a.fill(LOST, rows);
        b.fill("new", rows);
        if mode == "kill" {
            a.kill()
        } else {
            a.stop(mode)
        }
        self
    }

    fn order(&self, method: Method, old_data: OldData) -> Rebuild {
        Rebuild {
            order: RebuildOrder { method, old_data },
            source: format!("127.0.0.1:{}", self.b.port),
            system: system(&self.b),
            names: "b".into(),
            doubt: Default::default(),
        }
    }

    fn perform(&self, method: Method) -> mirroring_controller::error::Result<Board> {
        let board = Board::default();
        let order = self.order(method, OldData::Keep);
        rebuild::perform(&self.a.setup, &order, &board, &Cancel::never()).map(|()| board)
    }

    /// `a` is a whole standby of `b`'s: its files, and what it does when started.
    fn is_mirrored(&self) {
        let Pair { a, b, .. } = self;
        assert!(a.place.data.join("standby.signal").exists());
        a.is_not_being_rebuilt();
        assert!(!a.dir.join("data.rebuild-new").exists());
        self.start_streaming("streaming");
        assert_eq!(a.sql("SELECT pg_is_in_recovery()"), "t");
        b.fill("after", 10);
        until("rows", || (a.rows("after") == b.rows("after")).then_some(()));
        let sum = "SELECT count(*), sum(hashtext(t::text)) FROM t";
        assert_eq!(a.sql(sum), b.sql(sum));
        assert_eq!(a.sql("SELECT received_tli FROM pg_stat_wal_receiver"), "2");
        // The slot goes as soon as it is seen streaming.
        until("the slot's end", || (b.sql("SELECT count(*) FROM pg_replication_slots") == "0").then_some(()));
    }

    /// Starts `a`, and waits until it streams from `b`.
    fn start_streaming(&self, what: &str) {
        self.a.start();
        let streams = "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'a' AND state = 'streaming'";
        until(what, || (self.b.sql(streams) == "1").then_some(()));
    }

    /// The configuration is `a`'s own.
    fn has_own_configuration(&self) {
        let a = &self.a;
        for file in ["postgresql.conf", "pg_hba.conf"] {
            assert!(a.conf(file).contains("# this is a's") && !a.conf(file).contains("# this is b's"), "{file}");
        }
        assert_eq!(a.conf("conf.d/more.conf"), "work_mem = 5MB\n");
        assert!(!a.place.data.join("conf.d/only_b.conf").exists());
        let auto = a.conf("postgresql.auto.conf");
        let source = format!("host=127.0.0.1 port={} application_name=a", self.b.port);
        assert!(auto.contains(&source), "{auto}");
        assert!(a.conf("postgresql.conf").contains("\nsynchronous_standby_names = 'b'"));
    }
}

fn system(db: &Db) -> SystemId {
    control::inspect(&db.place).unwrap().system
}

#[test]
fn rewind_makes_a_standby() {
    if !as_postgres("rewind_makes_a_standby") {
        return;
    }
    let pair = Pair::new(1000).diverge(500, "fast");
    let board = pair.perform(Method::Rewind).unwrap().read().unwrap();
    assert_eq!(board.chosen, Some(rebuild::Chosen::Rewind));
    assert!(board.done > 0 && board.done == board.total, "{board:?}");
    let lost = board.lost.unwrap();
    assert!(lost.kept.join("summary.json").exists() && lost.transactions >= 1, "{lost:?}");
    pair.has_own_configuration();
    pair.is_mirrored();
    assert_eq!((pair.a.rows(LOST), pair.a.rows("new")), (0, 500));
}

/// Puts `pg_wal` and two tablespaces elsewhere, one of them among files that are not PostgreSQL's.
fn elsewhere(a: &Db) {
    for (space, foreign) in [("one", false), ("two", true)] {
        let at = a.dir.join("space").join(space);
        std::fs::create_dir_all(&at).unwrap();
        a.sql(&format!("CREATE TABLESPACE {space} LOCATION '{}'", at.display()));
        a.sql(&format!("CREATE TABLE {space} TABLESPACE {space} AS SELECT 1 AS n"));
        if foreign {
            std::fs::write(at.join("readme"), "not PostgreSQL's").unwrap();
        }
    }
    a.stop("fast");
    let (wal, at) = (a.place.data.join("pg_wal"), a.dir.join("wal"));
    std::fs::rename(&wal, &at).unwrap();
    std::os::unix::fs::symlink(&at, &wal).unwrap();
    a.start();
}

#[test]
fn base_backup_replaces_what_lies_elsewhere() {
    if !as_postgres("base_backup_replaces_what_lies_elsewhere") {
        return;
    }
    let pair = Pair::with(1000, elsewhere).diverge(500, "fast");
    let a = &pair.a;
    let board = pair.perform(Method::BaseBackup).unwrap().read().unwrap();
    assert_eq!(board.chosen, Some(rebuild::Chosen::BaseBackup));
    assert!(board.done > 0 && board.lost.is_some(), "{board:?}");
    pair.has_own_configuration();
    assert_eq!(std::fs::read_link(a.place.data.join("pg_wal")).unwrap(), a.dir.join("wal"));
    assert!(a.dir.join("space/two/readme").exists());
    assert!(!a.dir.join("space/two/rebuild-new").exists() && !a.dir.join("space/one.rebuild-new").exists());
    pair.b.sql("INSERT INTO one VALUES (2); INSERT INTO two VALUES (2)");
    pair.is_mirrored();
    assert_eq!(a.sql("SELECT sum(one.n) + sum(two.n) FROM one, two"), "12");
    assert_eq!((a.rows(LOST), a.rows("new")), (0, 500));
    // The old directory is whole, with its WAL and its tablespaces, and starts, while the new one runs.
    let old = old_directories(a).pop().unwrap();
    let (started, said) = Db::plain_start(&old);
    assert!(started, "{said}");
    let port = port_of(&old);
    assert_eq!(sql_at(port, "SELECT pg_is_in_recovery()"), "f");
    assert_eq!(sql_at(port, &format!("SELECT count(*) FROM t WHERE what = '{LOST}'")), "500");
    assert_eq!(sql_at(port, "SELECT one.n + two.n FROM one, two"), "2");
    pg("pg_ctl", &["stop", "-w", "-s", "-m", "immediate", "-D", &text(&old)]);
}

/// As on Debian: of the configuration nothing lies in the data directory.
#[test]
fn a_configuration_elsewhere_is_left_alone() {
    if !as_postgres("a_configuration_elsewhere_is_left_alone") {
        return;
    }
    let mut pair = Pair::new(10).diverge(10, "fast");
    let etc = pair.a.dir.join("etc");
    std::fs::create_dir(&etc).unwrap();
    for file in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf", "conf.d"] {
        std::fs::rename(pair.a.place.data.join(file), etc.join(file)).unwrap();
    }
    let file = etc.join("postgresql.conf");
    let more = format!("hba_file = '{0}/pg_hba.conf'\nident_file = '{0}/pg_ident.conf'\n", etc.display());
    append(&file, &more);
    pair.a.place.config_file.clone_from(&file);
    pair.a.setup.place.config_file.clone_from(&file);
    for method in [Method::Rewind, Method::BaseBackup] {
        let before = fingerprint(&etc);
        pair.perform(method).unwrap();
        let changed = fingerprint(&etc).into_iter().filter(|now| !before.contains(now)).collect::<Vec<_>>();
        assert!(changed.iter().all(|path| path.contains("/postgresql.conf ")), "{changed:?}");
        let conf = std::fs::read_to_string(&file).unwrap();
        assert!(conf.contains("\nsynchronous_standby_names = 'b'") && conf.ends_with(&more));
        for file in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
            assert!(!pair.a.place.data.join(file).exists(), "{file}");
        }
        pair.is_mirrored();
        pair.a.stop("fast");
    }
}

/// The password is in no argument, and in the `primary_conninfo` of a server that had none.
#[test]
fn a_password_is_passed_on() {
    if !as_postgres("a_password_is_passed_on") {
        return;
    }
    let mut pair = Pair::new(10).diverge(10, "fast");
    let b = &pair.b;
    b.sql("SET password_encryption = 'scram-sha-256'; CREATE ROLE admin SUPERUSER LOGIN PASSWORD 'pass word'");
    let trust = b.conf("pg_hba.conf");
    let hba = "host all,replication admin 127.0.0.1/32 scram-sha-256\n".to_owned() + &trust;
    std::fs::write(b.place.data.join("pg_hba.conf"), hba).unwrap();
    b.sql("SELECT pg_reload_conf()");
    pair.a.setup.user = "admin".into();
    let why = pair.perform(Method::Auto).unwrap_err();
    assert!(why.message.contains("password"), "{why}");
    pair.a.setup.password = Some("pass word".into());
    for (method, program) in [(Method::Rewind, "pg_rewind"), (Method::BaseBackup, "pg_basebackup")] {
        std::thread::scope(|scope| {
            let performed = scope.spawn(|| pair.perform(method).unwrap());
            let child = stop_program(program, &pair.a.dir);
            let line = std::fs::read(format!("/proc/{child}/cmdline")).unwrap();
            assert!(!String::from_utf8_lossy(&line).contains("pass word"));
            signal(child, "CONT");
            performed.join().unwrap();
        });
        assert!(pair.a.conf("postgresql.auto.conf").contains("user=admin password=''pass word''"));
        let log = std::fs::read_to_string(pair.a.setup.run_dir.join("rebuild.log")).unwrap();
        assert!(log.contains(program) && !log.contains("pass word"), "{log}");
        pair.is_mirrored();
        pair.a.stop("fast");
    }
}

fn old_directories(db: &Db) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(&db.dir).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| text(path).contains("/data.old-") && path.is_dir()).collect()
}

#[test]
fn the_first_standby_is_made() {
    if !as_postgres("the_first_standby_is_made") {
        return;
    }
    let pair = Pair::new(10).diverge(10, "immediate");
    let a = &pair.a;
    std::fs::remove_dir_all(&a.place.data).unwrap();
    pair.perform(Method::Auto).unwrap();
    pair.is_mirrored();
    assert!(old_directories(a).is_empty());
    // Once more, with an empty directory, in which the disk probe's file lies.
    a.kill();
    std::fs::remove_dir_all(&a.place.data).unwrap();
    std::fs::create_dir(&a.place.data).unwrap();
    std::fs::write(a.place.data.join("pgsql_tmp_mirroring_controller_1"), "").unwrap();
    pair.perform(Method::Auto).unwrap();
    pair.is_mirrored();
    assert!(old_directories(a).is_empty());
    // A directory of somebody else's is not touched.
    a.kill();
    std::fs::remove_dir_all(&a.place.data).unwrap();
    std::fs::create_dir(&a.place.data).unwrap();
    std::fs::write(a.place.data.join("letter"), "dear").unwrap();
    let why = pair.perform(Method::Auto).unwrap_err();
    assert!(why.message.contains("letter"), "{why}");
    assert_eq!(a.conf("letter"), "dear");
}

/// On one host the primary's own tablespaces are where the primary says that they are.
#[test]
fn what_is_another_instances_is_spared() {
    if !as_postgres("what_is_another_instances_is_spared") {
        return;
    }
    let pair = Pair::with(10, elsewhere).diverge(10, "fast");
    let Pair { a, b, .. } = &pair;
    let whole = || assert_eq!(b.sql("CHECKPOINT; SELECT one.n + two.n FROM one, two"), "2");
    // A link of this server's leads to the other one's directory.
    let oid = b.sql("SELECT oid FROM pg_tablespace WHERE spcname = 'one'");
    let link = a.place.data.join("pg_tblspc").join(oid);
    let own = std::fs::read_link(&link).unwrap();
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(b.dir.join("space/one"), &link).unwrap();
    for (method, old_data) in [(Method::Rewind, OldData::Keep), (Method::BaseBackup, OldData::Delete)] {
        let order = pair.order(method, old_data);
        let why = rebuild::perform(&a.setup, &order, &Board::default(), &Cancel::never()).unwrap_err();
        assert!(why.message.contains("is in use by the instance of"), "{why}");
        whole();
    }
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(own, &link).unwrap();
    assert!(!control::inspect(&a.place).unwrap().incomplete);
    // There is no link.
    std::fs::remove_dir_all(&a.place.data).unwrap();
    let why = pair.perform(Method::Auto).unwrap_err();
    assert!(why.message.contains("contains files of an instance"), "{why}");
    whole();
    assert!(!a.place.data.exists());
}

/// The disk of `pg_wal` was lost, and an empty one has taken its place: nothing tells what the old primary's files hold.
#[test]
fn a_primary_that_lost_its_wal_is_copied() {
    if !as_postgres("a_primary_that_lost_its_wal_is_copied") {
        return;
    }
    let pair = Pair::new(10).diverge(10, "kill");
    let wal = std::fs::read_dir(pair.a.place.data.join("pg_wal")).unwrap().map(|entry| entry.unwrap().path());
    wal.filter(|path| path.is_file()).for_each(|path| std::fs::remove_file(path).unwrap());
    let why = pair.perform(Method::Rewind).unwrap_err();
    assert!(why.message.contains("is missing or truncated") && why.message.contains("--method basebackup"), "{why}");
    let board = pair.perform(Method::Auto).unwrap().read().unwrap();
    assert_eq!(board.chosen, Some(rebuild::Chosen::BaseBackup));
    pair.is_mirrored();
}

/// The old primary's newest WAL segment was truncated. What can still be read of it is kept.
#[test]
fn a_primary_with_truncated_wal_is_copied() {
    if !as_postgres("a_primary_with_truncated_wal_is_copied") {
        return;
    }
    let pair = Pair::new(10).diverge(10, "kill");
    let (wal, size) = (pair.a.place.data.join("pg_wal"), 16 << 20);
    let names = std::fs::read_dir(&wal).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let begins_as_named = |name: &String| {
        let number = |at: usize| u64::from_str_radix(&name[at..at + 8], 16).unwrap();
        let bytes = std::fs::read(wal.join(name)).unwrap();
        bytes[8..16] == ((number(8) << 32) + number(16) * size).to_ne_bytes()
    };
    let newest = wal.join(names.filter(|name| name.len() == 24).filter(begins_as_named).max().unwrap());
    for left in [8192, 0] {
        std::fs::File::options().write(true).open(&newest).unwrap().set_len(left).unwrap();
        let why = pair.perform(Method::Rewind).unwrap_err();
        let named = format!("WAL file \"{}\" is missing or truncated", newest.display());
        assert!(why.message.contains(&named) && why.message.contains("--method basebackup"), "{why}");
    }
    let board = pair.perform(Method::Auto).unwrap().read().unwrap();
    assert_eq!(board.chosen, Some(rebuild::Chosen::BaseBackup));
    pair.is_mirrored();
}

/// The old primary's newest WAL segments were removed, and all of them lie past the point where the other server left its
/// timeline. The segment before them is full, which shows that there was more.
#[test]
fn a_primary_that_lost_wal_past_the_fork_is_copied() {
    if !as_postgres("a_primary_that_lost_wal_past_the_fork_is_copied") {
        return;
    }
    let more = "SELECT pg_logical_emit_message(true, 'x', repeat('x', 3000000)) FROM generate_series(1, 8)";
    for next_segment in ["SELECT pg_switch_wal()", more] {
        let pair = Pair::new(10);
        let Pair { a, b, .. } = &pair;
        until("the standby", || (a.sql("SELECT state FROM pg_stat_replication") == "streaming").then_some(()));
        pg("pg_ctl", &["promote", "-w", "-s", "-D", &text(&b.place.data)]);
        b.fill("new", 10);
        let forked = a.sql("SELECT pg_walfile_name(pg_current_wal_lsn())");
        a.sql(next_segment);
        a.fill(LOST, 10);
        a.kill();
        let wal = a.place.data.join("pg_wal");
        let names = wal.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut removed: Vec<String> = names.filter(|name| name.len() == 24 && *name > forked).collect();
        removed.sort();
        removed.iter().for_each(|name| std::fs::remove_file(wal.join(name)).unwrap());
        let why = pair.perform(Method::Rewind).unwrap_err();
        let named = format!("WAL file \"{}\" is missing or truncated", wal.join(&removed[0]).display());
        assert!(why.message.contains(&named) && why.message.contains("--method basebackup"), "{why}");
        let board = pair.perform(Method::Auto).unwrap().read().unwrap();
        assert_eq!(board.chosen, Some(rebuild::Chosen::BaseBackup));
        pair.is_mirrored();
    }
}

/// The copy was whole, and is gone: what lies in its place is the old directory.
#[test]
fn a_copy_that_is_gone_is_not_taken_for_renamed() {
    if !as_postgres("a_copy_that_is_gone_is_not_taken_for_renamed") {
        return;
    }
    let pair = Pair::new(10).diverge(10, "fast");
    let a = &pair.a;
    let journal = Journal {
        method: rebuild::Chosen::BaseBackup,
        phase: rebuild::Phase::Swapping,
        data: a.place.data.clone(),
        name: "a".into(),
        stamp: "x".into(),
        ruined: false,
        old_data: OldData::Keep,
        existed: true,
        staging: a.dir.join("data.rebuild-new"),
        old: a.dir.join("data.old-x"),
        moves: Vec::new(),
        swapped: false,
    };
    control::guard(&a.place.data, common::major()).unwrap();
    journal.write(&a.setup.run_dir).unwrap();
    let why = pair.perform(Method::Auto).unwrap_err();
    assert!(why.message.contains("data.rebuild-new\" is missing"), "{why}");
    assert!(control::inspect(&a.place).unwrap().incomplete);
    Journal::remove(&a.setup.run_dir).unwrap();
    let made = pair.perform(Method::Auto).unwrap().read().unwrap();
    assert_eq!((made.chosen, made.continued), (Some(rebuild::Chosen::BaseBackup), false));
    // As if the renames had failed: the next attempt uses the copy, and reports that.
    let put_aside = old_directories(a).pop().unwrap();
    std::fs::rename(&journal.data, &journal.staging).unwrap();
    std::fs::rename(put_aside, &journal.data).unwrap();
    [&journal.data, &journal.staging].into_iter().for_each(|dir| control::guard(dir, common::major()).unwrap());
    journal.write(&a.setup.run_dir).unwrap();
    let used = pair.perform(Method::Auto).unwrap().read().unwrap();
    assert_eq!((used.chosen, used.continued, used.done), (Some(rebuild::Chosen::BaseBackup), true, 0));
    pair.is_mirrored();
}

#[test]
fn the_old_directory_is_deleted_first_where_that_is_ordered() {
    if !as_postgres("the_old_directory_is_deleted_first_where_that_is_ordered") {
        return;
    }
    let pair = Pair::new(10).diverge(10, "fast");
    let a = &pair.a;
    let order = pair.order(Method::BaseBackup, OldData::Delete);
    let seen = std::thread::scope(|scope| {
        let performed =
            scope.spawn(|| rebuild::perform(&a.setup, &order, &Board::default(), &Cancel::never()).unwrap());
        let child = stop_program("pg_basebackup", &a.dir);
        let left: Vec<_> = std::fs::read_dir(&a.place.data).unwrap().map(|e| e.unwrap().file_name()).collect();
        signal(child, "CONT");
        performed.join().unwrap();
        left
    });
    assert_eq!(seen, ["PG_VERSION"]);
    pair.has_own_configuration();
    pair.is_mirrored();
    assert!(old_directories(a).is_empty());
}

#[test]
fn a_crashed_primary_is_rewound() {
    if !as_postgres("a_crashed_primary_is_rewound") {
        return;
    }
    let pair = Pair::new(1000).diverge(500, "kill");
    let board = pair.perform(Method::Rewind).unwrap().read().unwrap();
    assert!(board.lost.is_some_and(|lost| lost.transactions >= 1));
    pair.has_own_configuration();
    pair.is_mirrored();
}

#[test]
fn a_read_only_file_is_refused_before_anything_is_changed() {
    if !as_postgres("a_read_only_file_is_refused_before_anything_is_changed") {
        return;
    }
    let pair = Pair::new(10).diverge(10, "fast");
    let a = &pair.a;
    let file = a.place.data.join("base/1/1259");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
    let before = fingerprint(&a.place.data);
    let why = pair.perform(Method::Rewind).unwrap_err();
    assert!(why.message.contains("base/1/1259"), "{why}");
    assert_eq!(fingerprint(&a.place.data), before);
    assert_eq!(Journal::load(&a.setup.run_dir), Ok(None));
}

/// `pg_rewind` refuses what our own look has not seen: a file that is a symbolic link here and none there.
#[test]
fn where_pg_rewind_refuses_a_base_backup_follows() {
    if !as_postgres("where_pg_rewind_refuses_a_base_backup_follows") {
        return;
    }
    let pair = Pair::new(10).diverge(10, "kill");
    let a = &pair.a;
    let (link, target) = (a.place.data.join("pg_ident.conf"), a.dir.join("ident.conf"));
    std::fs::rename(&link, &target).unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let why = pair.perform(Method::Rewind).unwrap_err();
    assert!(why.message.contains("pg_ident.conf"), "{why}");
    a.is_not_being_rebuilt();
    let board = pair.perform(Method::Auto).unwrap().read().unwrap();
    assert_eq!(board.chosen, Some(rebuild::Chosen::BaseBackup));
    assert!(board.why.contains("pg_ident.conf"), "{}", board.why);
    assert_eq!(rebuild::list_lost(&a.setup.run_dir).unwrap().len(), 1);
    assert_eq!(std::fs::read_link(&link).unwrap(), target);
    pair.has_own_configuration();
    pair.is_mirrored();
}

/// Every file of a directory with its length and its time of modification.
fn fingerprint(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let meta = entry.path().symlink_metadata().unwrap();
        if meta.is_dir() {
            found.extend(fingerprint(&entry.path()));
        } else {
            found.push(format!("{} {} {:?}", entry.path().display(), meta.len(), meta.modified().unwrap()));
        }
    }
    found.sort();
    found
}

/// Those whose number and command line are wanted.
fn processes(wanted: impl Fn(i32, &str) -> bool) -> Vec<i32> {
    let line = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| wanted(*pid, &line(*pid))).collect()
}

/// Stops a program that works in this directory as soon as it is there, and returns its number.
fn stop_program(name: &str, dir: &Path) -> i32 {
    let found = |pid: i32, line: &str| {
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        exe.file_name().is_some_and(|exe| exe == name) && line.contains(&text(dir)) && !line.contains("--dry-run")
    };
    let pid = until(name, || processes(found).first().copied());
    signal(pid, "STOP");
    pid
}

fn signal(pid: i32, name: &str) {
    common::run(Path::new("/bin/kill"), &[&format!("-{name}"), &pid.to_string()]);
}
