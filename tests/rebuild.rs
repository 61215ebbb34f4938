//! The plan of a rebuild on a real PostgreSQL: two servers on one host that part for real, and what is made of it.

mod common;

use common::as_postgres;
use mirroring_controller::fsm::event::Rebuild;
use mirroring_controller::fsm::types::{Method, OldData, RebuildOrder, SystemId};
use mirroring_controller::pg::Place;
use mirroring_controller::pg::bounded::Cancel;
use mirroring_controller::pg::connect::{Session, Target};
use mirroring_controller::rebuild::{self, Board, Chosen, Plan, Setup};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

/// An instance; stopped when dropped.
struct Server {
    data: PathBuf,
    port: u16,
    dir: tempfile::TempDir,
}

fn dir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("rebuild-").tempdir_in("/tmp").unwrap()
}

fn program(name: &str, args: &[&str]) -> String {
    common::run(&common::bin_dir().join(name), args)
}

impl Server {
    /// A primary that runs.
    fn primary(initdb: &[&str], settings: &str) -> Server {
        let dir = dir();
        let data = dir.path().join("data");
        let args = ["-A", "trust", "-N", "-U", "postgres", "-D", data.to_str().unwrap()];
        // by default there are checksums since version 18, and an option that says otherwise
        let plain: &[&str] = if common::major() >= 18 { &["--no-data-checksums"] } else { &[] };
        program("initdb", &[&args[..], plain, initdb].concat());
        let server = Server { data, port: common::free_port(), dir };
        server.configure(&format!("listen_addresses = '127.0.0.1'\nshared_buffers = 16MB\nfsync = off\n{settings}\n"));
        server.start();
        server
    }

    /// Its standby, which runs and has caught up.
    fn standby(&self, more: &[&str]) -> Server {
        let dir = dir();
        let data = dir.path().join("data");
        let port_of_primary = self.port.to_string();
        let args = ["-h", "127.0.0.1", "-p", &port_of_primary, "-U", "postgres", "-c", "fast", "-N", "-R", "-D"];
        program("pg_basebackup", &[&args[..], &[data.to_str().unwrap()], more].concat());
        let standby = Server { data, port: common::free_port(), dir };
        standby.configure("");
        standby.start();
        // Of a standby that starts there is no row for a moment.
        self.wait_for("SELECT bool_and(state = 'streaming') FROM pg_stat_replication", "t");
        self.caught_up();
        standby
    }

    fn configure(&self, settings: &str) {
        let path = self.data.join("postgresql.conf");
        let own = format!("port = {}\nunix_socket_directories = '{}'\n", self.port, self.dir.path().display());
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}\n{settings}\n{own}")).unwrap();
    }

    fn ctl(&self, args: &[&str]) {
        let (data, log) = (self.data.to_str().unwrap(), self.dir.path().join("log"));
        program("pg_ctl", &[args, &["-w", "-s", "-D", data, "-l", log.to_str().unwrap()]].concat());
    }

    fn start(&self) {
        self.ctl(&["start"]);
    }

    fn stop(&self) {
        self.ctl(&["stop", "-m", "fast"]);
    }

    /// As by kill -9 of all of it.
    fn crash(&self) {
        self.ctl(&["stop", "-m", "immediate"]);
    }

    fn sql(&self, sql: &str) -> String {
        let mut session = Session::open(&Target::new("postgres", None, "postgres", &self.data), LONG, "test").unwrap();
        let rows = session.query(sql, LONG).unwrap();
        rows.into_iter().flatten().flatten().collect::<Vec<_>>().join("|")
    }

    fn wait_for(&self, sql: &str, expected: &str) {
        let end = Instant::now() + LONG;
        while self.sql(sql) != expected {
            assert!(Instant::now() < end, "{sql}: {}", self.sql(sql));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until every standby has all. A standby that has received nothing new tells its position only now and then.
    fn caught_up(&self) {
        self.sql("SELECT pg_logical_emit_message(true, '', '')");
        self.wait_for("SELECT bool_and(flush_lsn >= pg_current_wal_flush_lsn()) FROM pg_stat_replication", "t");
    }

    fn promote(&self) {
        self.ctl(&["promote"]);
    }

    /// Rebuilds it from the other one, starts it, and waits until it has what that one writes then.
    fn rebuild(&self, source: &Server) {
        let setup = self.setup();
        std::fs::create_dir_all(&setup.run_dir).unwrap();
        let what = order(&format!("127.0.0.1:{}", source.port), Method::Auto, OldData::Keep);
        rebuild::perform(&setup, &what, &Board::default(), &Cancel::never()).unwrap();
        self.start();
        source.wait_for("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'", "1");
        source.caught_up();
        let count = "SELECT count(*) FROM public.t";
        self.wait_for(count, &source.sql(count));
        assert_eq!(self.sql("SELECT pg_is_in_recovery()"), "t");
    }

    fn segment(&self) -> String {
        self.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
    }

    /// Removes these segments, as recycling does.
    fn without_wal(&self, gone: impl Fn(&str) -> bool) {
        for entry in std::fs::read_dir(self.data.join("pg_wal")).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            if name.len() == 24 && gone(&name) {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
    }

    fn setup(&self) -> Setup {
        setup(&self.data, self.dir.path())
    }

    /// What a rebuild of this one from the other would be, by `plan_exactly`.
    fn plan(&self, source: &Server) -> Plan {
        self.plan_by(source, Method::Auto, OldData::Keep)
    }

    fn plan_by(&self, source: &Server, method: Method, old_data: OldData) -> Plan {
        plan(&self.setup(), source, method, old_data)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let data = self.data.to_str().unwrap();
        let args = ["stop", "-m", "immediate", "-s", "-D", data];
        let _ = Command::new(common::bin_dir().join("pg_ctl")).args(args).current_dir("/").output();
    }
}

fn setup(data: &Path, run_dir: &Path) -> Setup {
    let data = data.canonicalize().unwrap_or_else(|_| data.to_owned());
    let place = Place {
        config_file: data.join("postgresql.conf"),
        bin_dir: common::bin_dir(),
        major: common::major(),
        log_file: run_dir.join("log"),
        startup_log: run_dir.join("log"),
        data,
    };
    Setup {
        place,
        user: "postgres".into(),
        password: None,
        dbname: "postgres".into(),
        name: "nd1".into(),
        host: "127.0.0.1".into(),
        run_dir: run_dir.join("mc/nd1"),
        archive: None,
    }
}

fn order(source: &str, method: Method, old_data: OldData) -> Rebuild {
    let order = RebuildOrder { method, old_data };
    Rebuild { order, source: source.into(), system: SystemId(0), names: "nd2".into(), doubt: Default::default() }
}

fn plan(setup: &Setup, source: &Server, method: Method, old_data: OldData) -> Plan {
    let what = order(&format!("127.0.0.1:{}", source.port), method, old_data);
    let begun = Instant::now();
    let plan = rebuild::plan_exactly(setup, &what, &Cancel::never()).unwrap();
    println!("{:?} {plan:#?}", begun.elapsed());
    plan
}

#[track_caller]
fn says(text: &str, words: &str) {
    assert!(text.contains(words), "{words:?} is not in {text:?}");
}

#[track_caller]
fn can(plan: &Plan, chosen: Chosen, why: &str) {
    assert_eq!((plan.chosen, &plan.obstacles[..]), (chosen, &[][..]), "{}", plan.why);
    says(&plan.why, why);
}

/// An old primary and its standby, in this order, with a table `t`.
fn pair(initdb: &[&str], settings: &str) -> (Server, Server) {
    let old = Server::primary(initdb, &format!("wal_keep_size = 256MB\n{settings}"));
    old.sql("CREATE TABLE public.t (a int); INSERT INTO public.t SELECT generate_series(1, 1000)");
    let new = old.standby(&[]);
    (old, new)
}

/// The standby is promoted while the old primary lives on, and that writes three transactions.
fn part(old: &Server, new: &Server) {
    old.caught_up();
    new.promote();
    for _ in 0..3 {
        old.sql("INSERT INTO public.t VALUES (7)");
    }
}

#[test]
fn a_clean_switch_is_followed() {
    if !as_postgres("a_clean_switch_is_followed") {
        return;
    }
    let (old, new) = pair(&["-k"], "");
    old.stop();
    new.promote();
    new.sql("INSERT INTO public.t VALUES (1)");
    let plan = old.plan(&new);
    can(&plan, Chosen::Follow, "from timeline 1 to timeline 2");
    assert_eq!((plan.bytes, plan.lost), (Some(0), None));
    // A base backup can be had all the same.
    can(&old.plan_by(&new, Method::BaseBackup, OldData::Keep), Chosen::BaseBackup, "was requested");
    can(&old.plan_by(&new, Method::Rewind, OldData::Keep), Chosen::Follow, "nothing past");
    old.rebuild(&new);
}

#[test]
fn what_has_parted_is_rewound_and_summed_up() {
    if !as_postgres("what_has_parted_is_rewound_and_summed_up") {
        return;
    }
    let (old, new) = pair(&["-k"], "");
    part(&old, &new);
    old.sql("CREATE TABLE public.only_here (a int)");
    old.stop();
    // Right after the promotion pg_rewind would say that there is nothing to do.
    let early = old.plan(&new);
    can(&early, Chosen::Rewind, "past 0/");
    new.sql("CHECKPOINT");
    let plan = old.plan(&new);
    can(&plan, Chosen::Rewind, "past 0/");
    assert!(plan.bytes.is_some_and(|bytes| bytes > 1 << 20), "{:?}", plan.bytes);
    assert!(!plan.room.is_empty() && plan.steps.iter().any(|step| step.contains("pg_rewind")));
    let lost = plan.lost.unwrap();
    assert_eq!((lost.timeline, lost.transactions, lost.maybe_acknowledged), (1, 4, false));
    assert_eq!(lost.relations[0], "postgres.public.t");
    assert!(lost.relations.contains(&"postgres.pg_catalog.pg_class".to_owned()) && !lost.more_relations);
    assert!(lost.first_commit <= lost.last_commit && lost.first_commit.ends_with(" UTC"), "{lost:?}");
    says(&plan.why, &lost.from);
    let quick = rebuild::plan(
        &old.setup(),
        &order(&format!("127.0.0.1:{}", new.port), Method::Auto, OldData::Keep),
        &Cancel::never(),
    );
    assert_eq!(quick.map(|plan| (plan.chosen, plan.bytes)), Ok((Chosen::Rewind, None)));
}

#[test]
fn without_checksums_and_hints_it_is_a_base_backup() {
    if !as_postgres("without_checksums_and_hints_it_is_a_base_backup") {
        return;
    }
    let (old, new) = pair(&[], "");
    part(&old, &new);
    old.stop();
    let plan = old.plan(&new);
    can(&plan, Chosen::BaseBackup, "neither data checksums nor wal_log_hints");
    assert_eq!(plan.lost.unwrap().transactions, 3);
    assert!(plan.bytes.unwrap() > 10 << 20);
    let plan = old.plan_by(&new, Method::Rewind, OldData::Keep);
    says(&plan.obstacles[0], "A rewind was requested, but this server has WAL of timeline 1 past");
}

#[test]
fn a_crashed_primary_without_more_follows() {
    if !as_postgres("a_crashed_primary_without_more_follows") {
        return;
    }
    let (old, new) = pair(&["-k"], "");
    old.crash();
    // The standby had all of it.
    new.promote();
    can(&old.plan(&new), Chosen::Follow, "nothing past");
    new.sql("INSERT INTO public.t VALUES (7)");
    old.rebuild(&new);
    assert_eq!(rebuild::list_lost(&old.setup().run_dir), Ok(Vec::new()));
    old.stop();
}

#[test]
fn a_crashed_primary_that_went_on_is_rewound() {
    if !as_postgres("a_crashed_primary_that_went_on_is_rewound") {
        return;
    }
    let (old, new) = pair(&["-k"], "");
    old.crash();
    new.promote();
    new.sql("INSERT INTO public.t VALUES (7)");
    old.start();
    old.sql("INSERT INTO public.t VALUES (8)");
    old.crash();
    let plan = old.plan(&new);
    can(&plan, Chosen::Rewind, "past 0/");
    assert_eq!((plan.bytes, plan.lost.unwrap().transactions), (None, 1));
    assert!(plan.steps.iter().any(|step| step.contains("crash recovery")));
    old.start();
    let plan = old.plan(&new);
    can(&plan, Chosen::Rewind, "past 0/");
    assert_eq!(plan.steps[0], "Stop this server's instance.");
    old.crash();
    old.rebuild(&new);
    let kept = rebuild::list_lost(&old.setup().run_dir).unwrap();
    assert_eq!((kept.len(), kept[0].transactions), (1, 1));
    assert!(kept[0].kept.join("summary.json").exists());
    assert!(std::fs::read_dir(&kept[0].kept).unwrap().count() >= 2);
}

#[test]
fn missing_wal_is_seen_on_either_side() {
    if !as_postgres("missing_wal_is_seen_on_either_side") {
        return;
    }
    let (old, new) = pair(&["-k"], "");
    old.sql("CHECKPOINT");
    part(&old, &new);
    let parted = old.segment();
    old.sql("SELECT pg_switch_wal()");
    old.sql("INSERT INTO public.t VALUES (9)");
    old.stop();
    new.sql("CHECKPOINT");
    can(&old.plan(&new), Chosen::Rewind, "past 0/");

    // The other server has recycled what a standby would have to read first.
    let begin = new.segment();
    new.sql("SELECT pg_switch_wal(); CHECKPOINT; SELECT pg_switch_wal(); CHECKPOINT");
    new.without_wal(|name| name[8..] <= begin[8..]);
    can(&old.plan(&new), Chosen::BaseBackup, "the other server no longer has the WAL from");

    // This server has not what leads back to where they parted, but an archive may.
    let away = old.dir.path().join("away");
    std::fs::create_dir(&away).unwrap();
    std::fs::rename(old.data.join("pg_wal").join(&parted), away.join(&parted)).unwrap();
    let plan = old.plan(&new);
    can(&plan, Chosen::BaseBackup, "this server no longer has the WAL");
    old.configure(&format!("restore_command = 'cp {}/%f %p'", away.display()));
    let plan = old.plan(&new);
    can(&plan, Chosen::Rewind, "");
    assert!(!old.data.join("pg_wal").join(&parted).exists(), "a plan changes nothing");
}

#[test]
fn a_standby_follows_as_long_as_the_wal_is_there() {
    if !as_postgres("a_standby_follows_as_long_as_the_wal_is_there") {
        return;
    }
    let (primary, standby) = pair(&[], "wal_keep_size = 0");
    standby.stop();
    primary.sql("INSERT INTO public.t VALUES (1)");
    can(&standby.plan(&primary), Chosen::Follow, "a standby on the other server's timeline 1");
    let begin = primary.segment();
    primary.sql("SELECT pg_switch_wal(); CHECKPOINT; SELECT pg_switch_wal(); CHECKPOINT");
    primary.without_wal(|name| *name <= *begin);
    let plan = standby.plan(&primary);
    can(&plan, Chosen::BaseBackup, "no longer has the WAL");
    assert_eq!(plan.lost, None);
    // What was a primary on the same timeline is not trusted.
    let twin = dir();
    program(
        "pg_basebackup",
        &[
            "-h",
            "127.0.0.1",
            "-p",
            &primary.port.to_string(),
            "-U",
            "postgres",
            "-c",
            "fast",
            "-D",
            twin.path().join("data").to_str().unwrap(),
        ],
    );
    let label = rebuild::plan(
        &setup(&twin.path().join("data"), twin.path()),
        &order(&format!("127.0.0.1:{}", primary.port), Method::Auto, OldData::Keep),
        &Cancel::never(),
    );
    can(&label.unwrap(), Chosen::BaseBackup, "contains a backup_label");
}

#[test]
fn both_promoted_part_where_they_did() {
    if !as_postgres("both_promoted_part_where_they_did") {
        return;
    }
    let (old, new) = pair(&["-k"], "");
    let third = old.standby(&[]);
    old.caught_up();
    old.stop();
    // Both come to timeline 2, at the same place.
    new.promote();
    third.promote();
    third.sql("INSERT INTO public.t VALUES (1)");
    // Its control file may tell the timeline from before.
    third.crash();
    let plan = third.plan(&new);
    can(&plan, Chosen::BaseBackup, "the WAL of the servers already differs before");
    assert_eq!(plan.lost.unwrap().transactions, 1);
    // The other one is promoted once more: by the histories this server's timeline 2 would be an ancestor now.
    std::fs::write(new.data.join("standby.signal"), "").unwrap();
    new.stop();
    new.start();
    new.promote();
    new.sql("CHECKPOINT");
    let plan = third.plan(&new);
    can(&plan, Chosen::BaseBackup, "the WAL of the servers already differs before");
    assert_eq!(plan.lost.unwrap().transactions, 1);
}

#[test]
fn nothing_something_else_and_another_cluster() {
    if !as_postgres("nothing_something_else_and_another_cluster") {
        return;
    }
    let primary = Server::primary(&[], "");
    let place = dir();
    let data = place.path().join("data");
    let at = |method| plan(&setup(&data, place.path()), &primary, method, OldData::Keep);
    let missing = at(Method::Auto);
    can(&missing, Chosen::BaseBackup, "this server has no data directory yet");
    assert_eq!((missing.lost, missing.room.len()), (None, 1));
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("pgsql_tmp_mirroring_controller_1"), "").unwrap();
    can(&at(Method::Auto), Chosen::BaseBackup, "this server has no data directory yet");
    says(&at(Method::Rewind).obstacles[0], "A rewind was requested, but this server has no data directory yet");

    std::fs::write(data.join("letters"), "").unwrap();
    let foreign = at(Method::Auto);
    says(&foreign.obstacles[0], "is not a data directory of PostgreSQL: it contains \"letters\"");

    let other = Server::primary(&[], "");
    other.stop();
    can(&other.plan(&primary), Chosen::BaseBackup, "belongs to another cluster");
    let deleting = other.plan_by(&primary, Method::Auto, OldData::Delete);
    says(&deleting.obstacles[0], "is not deleted");
    std::fs::write(other.data.join("global/pg_control"), vec![0; 8192]).unwrap();
    can(&other.plan(&primary), Chosen::BaseBackup, "control");
}

#[test]
fn read_only_files_and_directories_are_seen() {
    if !as_postgres("read_only_files_and_directories_are_seen") {
        return;
    }
    let (old, new) = pair(&["-k"], "");
    part(&old, &new);
    old.stop();
    new.sql("CHECKPOINT");
    let key = old.data.join("server.key");
    let other = old.data.join("letters");
    std::fs::write(&key, "").unwrap();
    std::fs::write(&other, "").unwrap();
    let mode = |path: &Path, mode: u32| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    let staged = old.dir.path().join("data.rebuild-new");
    std::fs::create_dir(&staged).unwrap();
    can(&old.plan(&new), Chosen::Rewind, "past 0/");
    let blocked = old.plan_by(&new, Method::BaseBackup, OldData::Keep);
    says(&blocked.obstacles[0], "data.rebuild-new\" blocks a new copy");
    std::fs::remove_dir(&staged).unwrap();
    // What belongs to the configuration is put back afterwards anyway.
    mode(&key, 0o400);
    can(&old.plan(&new), Chosen::Rewind, "past 0/");
    mode(&other, 0o400);
    can(&old.plan(&new), Chosen::BaseBackup, "letters\" cannot be written");
    mode(old.dir.path(), 0o500);
    let plan = old.plan(&new);
    mode(old.dir.path(), 0o700);
    says(&plan.obstacles[0], "so that the new data directory cannot be created in it. To change that, as root: chown ");
}

#[test]
fn tablespaces_are_counted_and_need_their_place() {
    if !as_postgres("tablespaces_are_counted_and_need_their_place") {
        return;
    }
    let old = Server::primary(&["-k"], "wal_keep_size = 256MB");
    let (here, there) = (dir(), dir());
    old.sql(&format!("CREATE TABLESPACE space LOCATION '{}'", here.path().display()));
    old.sql("CREATE TABLE public.t (a int) TABLESPACE space; INSERT INTO public.t SELECT generate_series(1, 100000)");
    let mapping = format!("--tablespace-mapping={}={}", here.path().display(), there.path().display());
    let new = old.standby(&[&mapping]);
    part(&old, &new);
    old.stop();
    new.sql("CHECKPOINT");
    let plan = old.plan(&new);
    can(&plan, Chosen::Rewind, "past 0/");
    assert_eq!(plan.lost.unwrap().relations, ["postgres.public.t"]);
    std::fs::create_dir(there.path().join("rebuild-old-1")).unwrap();
    can(&old.plan(&new), Chosen::BaseBackup, "/rebuild-old-1\", which an earlier rebuild has saved");
    std::fs::rename(there.path().join("rebuild-old-1"), here.path().join("rebuild-old-2")).unwrap();
    can(&old.plan(&new), Chosen::BaseBackup, "/rebuild-old-2\", which an earlier rebuild has saved");
    can(&old.plan_by(&new, Method::BaseBackup, OldData::Keep), Chosen::BaseBackup, "requested");

    let fresh = dir();
    let bytes = |server: &Server| {
        let setup = setup(&fresh.path().join("data"), fresh.path());
        plan_of(&setup, server).bytes.unwrap()
    };
    assert!(bytes(&new) > 3 << 20);
    // Its place here cannot be written.
    std::fs::set_permissions(there.path(), PermissionsExt::from_mode(0o500)).unwrap();
    let plan = plan_of(&setup(&fresh.path().join("data"), fresh.path()), &new);
    std::fs::set_permissions(there.path(), PermissionsExt::from_mode(0o700)).unwrap();
    says(&plan.obstacles.join("\n"), "of tablespace \"space\" is not writable");
}

fn plan_of(setup: &Setup, source: &Server) -> Plan {
    plan(setup, source, Method::Auto, OldData::Keep)
}

#[test]
fn a_source_that_does_not_answer_is_said_within_limits() {
    if !as_postgres("a_source_that_does_not_answer_is_said_within_limits") {
        return;
    }
    let place = dir();
    let setup = setup(&place.path().join("data"), place.path());
    let fails = |source: &str, cancel: &Cancel, words: &str| {
        let begun = Instant::now();
        let error = rebuild::plan(&setup, &order(source, Method::Auto, OldData::Keep), cancel).unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
        says(&error.message, words);
    };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listener.local_addr().unwrap().to_string();
    fails(&silent, &Cancel::never(), "does not respond within the time limit");
    let (canceller, cancel) = Cancel::new();
    drop(canceller);
    fails(&silent, &cancel, "cancelled");
    drop(listener);
    fails(&silent, &Cancel::never(), "no process listens there");
    fails("nowhere", &Cancel::never(), "not of the form host:port");

    let (primary, standby) = pair(&[], "");
    fails(&format!("127.0.0.1:{}", standby.port), &Cancel::never(), "is a standby, not a primary");
    let other =
        Rebuild { system: SystemId(7), ..order(&format!("127.0.0.1:{}", primary.port), Method::Auto, OldData::Keep) };
    let error = rebuild::plan(&setup, &other, &Cancel::never()).unwrap_err();
    says(&error.message, "belongs to another cluster");
}

/// A small filesystem needs root, PostgreSQL another user: this runs twice, the second time with the filesystem's path.
#[test]
fn too_little_room_is_said_with_what_helps() {
    const SMALL: &str = "MC_TEST_SMALL_FILESYSTEM";
    let test = "too_little_room_is_said_with_what_helps";
    let Some(small) = std::env::var_os(SMALL).map(PathBuf::from) else {
        assert!(rustix::process::geteuid().is_root(), "{test} mounts a filesystem: run it as root");
        let place = dir();
        std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let path = place.path().to_str().unwrap();
        let user = common::run(Path::new("/usr/bin/id"), &["-u", "postgres"]);
        let options = format!("size=90m,mode=700,uid={}", user.trim());
        // In a namespace of its own, so that nothing is left behind.
        let exe = std::env::current_exe().unwrap();
        let script = "mount -t tmpfs -o \"$1\" none \"$2\" && exec \"$3\" --exact \"$4\" --nocapture";
        let status = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh", &options, path])
            .arg(exe)
            .arg(test)
            .env(SMALL, path)
            .status()
            .unwrap();
        assert!(status.success());
        return;
    };
    if !as_postgres(test) {
        return;
    }
    let (old, new) = pair(&[], "");
    part(&old, &new);
    old.stop();
    common::run(Path::new("/bin/cp"), &["-a", old.data.to_str().unwrap(), small.to_str().unwrap()]);
    let at = |old_data| plan(&setup(&small.join("data"), old.dir.path()), &new, Method::Auto, old_data);
    let kept = at(OldData::Keep);
    says(&kept.obstacles[0], "There is not enough space on the file system of");
    says(&kept.obstacles[0], "--old-data delete");
    can(&at(OldData::Delete), Chosen::BaseBackup, "checksums");
    new.sql("CREATE TABLE public.large AS SELECT repeat(md5(i::text), 30) FROM generate_series(1, 60000) i");
    let deleted = at(OldData::Delete);
    says(&deleted.obstacles[0], "Free space there.");
}
