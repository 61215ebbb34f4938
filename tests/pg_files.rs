//! The runner's jobs on a real PostgreSQL: each does what its order says, by effect, and what stands in its way is named.

mod common;

use crossbeam_channel::{Receiver, unbounded};
use mirroring_controller::daemon::runner::{Runner, Setup};
use mirroring_controller::fsm::event::{ControlState, DataDir, Event, Job, JobId, Outcome};
use mirroring_controller::fsm::types::{LedgerId, Lsn, Timeline};
use mirroring_controller::pg::connect::{Session, Target};
use mirroring_controller::pg::{Place, process};
use mirroring_controller::rebuild;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Held by each test, and alone by the one whose process would block the others' instances, which run as the same user.
static GATE: std::sync::RwLock<()> = std::sync::RwLock::new(());

/// Runs the test as the user `postgres`, beside others.
fn as_postgres(test: &str) -> bool {
    let _beside = GATE.read().unwrap_or_else(std::sync::PoisonError::into_inner);
    common::as_postgres(test)
}

const LONG: Duration = Duration::from_secs(60);

/// An instance and its runner; stopped when dropped.
struct Db {
    place: Place,
    target: Target,
    runner: Runner,
    answers: Receiver<Event>,
    next: u64,
    dir: tempfile::TempDir,
}

fn setup(place: &Place, target: &Target) -> Setup {
    let rebuild = rebuild::Setup {
        place: place.clone(),
        user: "postgres".into(),
        password: None,
        dbname: "postgres".into(),
        name: "nd2".into(),
        host: "127.0.0.1".into(),
        run_dir: place.startup_log.parent().unwrap().into(),
        archive: None,
    };
    Setup {
        place: place.clone(),
        target: target.clone(),
        name: "nd2".into(),
        rebuild,
        checkpoint_patience: std::time::Duration::from_secs(60),
        checkpoints: Default::default(),
    }
}

impl Db {
    /// A new instance, not started. It listens on a socket in its own directory, and on `port` of 127.0.0.1 unless 0.
    fn new(port: u16) -> Db {
        let dir = tempfile::Builder::new().prefix("pg-files-").tempdir_in("/tmp").unwrap();
        let data = dir.path().join("data");
        let args = ["-A", "trust", "-N", "-U", "postgres", "-D"];
        common::run(&common::bin_dir().join("initdb"), &[&args[..], &[data.to_str().unwrap()]].concat());
        Db::over(dir, port)
    }

    /// The runner of a data directory that is there.
    fn over(dir: tempfile::TempDir, port: u16) -> Db {
        let data = dir.path().join("data").canonicalize().unwrap();
        let place = Place {
            config_file: data.join("postgresql.conf"),
            bin_dir: common::bin_dir(),
            major: common::major(),
            log_file: dir.path().join("startup.log"),
            startup_log: dir.path().join("startup.log"),
            data,
        };
        let listen = if port == 0 { "" } else { "127.0.0.1" };
        let extra = format!(
            "listen_addresses = '{listen}'\nport = {}\nunix_socket_directories = '{}'\nshared_buffers = 16MB\n",
            port.max(5432),
            dir.path().display()
        );
        append(&place.config_file, &extra);
        let target = Target::new("postgres", None, "postgres", &place.data);
        let (tell, answers) = unbounded();
        let runner = Runner::start(
            setup(&place, &target),
            rebuild::Board::default(),
            Box::new(move |event| tell.send(event).unwrap()),
        )
        .unwrap();
        Db { place, target, runner, answers, next: 0, dir }
    }

    fn order(&mut self, job: Job) -> JobId {
        self.next += 1;
        self.runner.run(JobId(self.next), job);
        JobId(self.next)
    }

    fn answer(&self) -> (JobId, Outcome) {
        match self.answers.recv_timeout(LONG).expect("the runner answers") {
            Event::Done(id, outcome) => (id, outcome),
            other => panic!("{other:?}"),
        }
    }

    fn perform(&mut self, job: Job) -> Outcome {
        let id = self.order(job);
        let (answered, outcome) = self.answer();
        assert_eq!(answered, id);
        outcome
    }

    fn start(&mut self, names: Option<&str>) -> DataDir {
        match self.perform(Job::Start { names: names.map(str::to_owned), follow: None }) {
            Outcome::Started(data) => data,
            other => panic!("{other:?}"),
        }
    }

    fn started(names: Option<&str>) -> Db {
        let mut db = Db::new(0);
        db.start(names);
        db.ready();
        db
    }

    fn stop(&mut self, fast_ms: u64) -> DataDir {
        match self.perform(Job::Stop { fast_ms, names: None }) {
            Outcome::Stopped(Some(data)) => data,
            other => panic!("{other:?}"),
        }
    }

    fn failure(&mut self, job: Job) -> String {
        match self.perform(job) {
            Outcome::Failed(why) => why,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until it takes sessions.
    fn ready(&self) {
        let end = Instant::now() + LONG;
        while Session::open(&self.target, LONG, "test").is_err() {
            assert!(Instant::now() < end);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn sql(&self, sql: &str) -> String {
        let mut session = Session::open(&self.target, LONG, "test").unwrap();
        let rows = session.query(sql, LONG).unwrap();
        rows.into_iter().flatten().flatten().collect::<Vec<_>>().join("|")
    }

    fn postmaster(&self) -> process::Process {
        process::postmaster(&self.place.data).unwrap().expect("a postmaster")
    }

    fn conf(&self) -> String {
        std::fs::read_to_string(&self.place.config_file).unwrap()
    }

    /// The number of the child with this title.
    fn child(&self, title: &str) -> i32 {
        let is_it =
            |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().contains(title);
        process::scan(&self.place.data).unwrap().into_iter().find(is_it).unwrap()
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        self.order(Job::Stop { fast_ms: 0, names: None });
        while let Ok(Event::Done(id, _)) = self.answers.recv_timeout(LONG) {
            if id == JobId(self.next) {
                break;
            }
        }
    }
}

fn append(path: &Path, text: &str) {
    let old = std::fs::read_to_string(path).unwrap();
    std::fs::write(path, old + text).unwrap();
}

fn signal(pid: i32, name: &str) {
    common::run(Path::new("/bin/kill"), &[&format!("-{name}"), &pid.to_string()]);
}

struct Innocent(Child);

impl Innocent {
    fn alive(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Innocent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_stale_pid_file_harms_nobody() {
    if !as_postgres("a_stale_pid_file_harms_nobody") {
        return;
    }
    let mut db = Db::new(0);
    // Even in the data directory, with its path among the arguments.
    let data = db.place.data.to_str().unwrap().to_owned();
    let mut sleeper = Command::new("/bin/sleep");
    let mut innocent = Innocent(sleeper.arg("300").current_dir(&data).spawn().unwrap());
    let pid = innocent.0.id();
    std::fs::write(db.place.data.join("postmaster.pid"), format!("{pid}\n{data}\n1\n5432\n\n\n\nready\n")).unwrap();
    assert!(!db.stop(1000).running);
    assert!(db.failure(Job::Promote).contains("not running"));
    assert!(db.failure(Job::NamesOff).contains("not running"));
    db.start(None);
    db.ready();
    assert!(!db.stop(5000).running);
    assert!(innocent.alive());
}

#[test]
fn start_writes_names_first_and_outlives_us() {
    if !as_postgres("start_writes_names_first_and_outlives_us") {
        return;
    }
    let mut db = Db::new(0);
    let before = db.start(Some("nd-2"));
    assert_eq!((before.state, before.running, before.standby_signal), (ControlState::ShutDown, false, false));
    assert!(db.conf().contains("\nsynchronous_standby_names = '\"nd-2\"'"), "{}", db.conf());
    db.ready();
    assert_eq!(db.sql("SHOW synchronous_standby_names"), "\"nd-2\"");
    let ids = |pid: String| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<String> = text.rsplit_once(')').unwrap().1.split_whitespace().map(str::to_owned).collect();
        (fields[2].clone(), fields[3].clone())
    };
    let (ours, its) = (ids("self".into()), ids(db.postmaster().pid.to_string()));
    assert!(ours.0 != its.0 && ours.1 != its.1, "process group and session: {ours:?}, {its:?}");
    // Again: nothing to do.
    assert!(db.start(None).running);
    assert!(db.conf().contains("\n#synchronous_standby_names = '\"nd-2\"'"));
    let stopped = db.stop(10_000);
    assert_eq!((stopped.state, stopped.running), (ControlState::ShutDown, false));
    assert_eq!((stopped.system, stopped.fingerprint), (before.system, before.fingerprint));
}

#[test]
fn a_failed_start_tells_why() {
    if !as_postgres("a_failed_start_tells_why") {
        return;
    }
    let mut db = Db::new(0);
    append(&db.place.config_file, "max_connections = 'many'\n");
    let begun = Instant::now();
    let why = db.failure(Job::Start { names: None, follow: None });
    assert!(why.contains("max_connections") && why.contains("could not start the instance"), "{why}");
    assert!(begun.elapsed() < Duration::from_secs(3));
    std::fs::rename(&db.place.data, db.dir.path().join("away")).unwrap();
    let why = db.failure(Job::Inspect);
    assert!(why.contains("could not open data directory"), "{why}");
    std::fs::rename(db.dir.path().join("away"), &db.place.data).unwrap();
}

#[test]
fn the_mark_names_the_ledger() {
    if !as_postgres("the_mark_names_the_ledger") {
        return;
    }
    let mut db = Db::new(0);
    let Outcome::Data(before) = db.perform(Job::Inspect) else { panic!() };
    assert_eq!(before.mark, None);
    let Outcome::Data(after) = db.perform(Job::Mark(LedgerId(7))) else { panic!() };
    assert_eq!(after, DataDir { mark: Some(LedgerId(7)), ..before });
    assert!(after.fingerprint != 0 && after.system.0 != 0);
}

#[test]
fn a_symbolic_link_stays_a_link() {
    if !as_postgres("a_symbolic_link_stays_a_link") {
        return;
    }
    let mut db = Db::new(0);
    let real: PathBuf = db.dir.path().join("real.conf");
    std::fs::rename(&db.place.config_file, &real).unwrap();
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink(&real, &db.place.config_file).unwrap();
    db.start(None);
    db.ready();
    assert_eq!(db.perform(Job::NamesOn("nd1".into())), Outcome::Applied);
    assert_eq!(db.sql("SHOW synchronous_standby_names"), "nd1");
    assert!(db.place.config_file.is_symlink());
    assert_eq!(real.metadata().unwrap().permissions().mode() & 0o7777, 0o640);
    assert!(std::fs::read_to_string(&real).unwrap().contains("\nsynchronous_standby_names = 'nd1'"));
}

/// As on Debian: `postgresql.conf` is not in the data directory.
#[test]
fn a_configuration_elsewhere_is_used() {
    if !as_postgres("a_configuration_elsewhere_is_used") {
        return;
    }
    let mut db = Db::new(0);
    std::fs::create_dir(db.dir.path().join("etc")).unwrap();
    let file = db.dir.path().join("etc/postgresql.conf");
    std::fs::rename(&db.place.config_file, &file).unwrap();
    db.place.config_file = file;
    let (tell, answers) = unbounded();
    db.runner = Runner::start(
        setup(&db.place, &db.target),
        rebuild::Board::default(),
        Box::new(move |event| tell.send(event).unwrap()),
    )
    .unwrap();
    db.answers = answers;
    db.start(Some("nd1"));
    db.ready();
    assert_eq!(db.sql("SHOW config_file"), db.place.config_file.to_str().unwrap());
    assert_eq!(db.perform(Job::NamesOff), Outcome::Applied);
    assert!(db.conf().contains("\n#synchronous_standby_names = 'nd1'"));
}

#[test]
fn what_overrides_the_names_is_named() {
    if !as_postgres("what_overrides_the_names_is_named") {
        return;
    }
    let mut db = Db::started(None);
    db.sql("ALTER SYSTEM SET synchronous_standby_names = 'other'");
    let why = db.failure(Job::NamesOff);
    assert!(why.contains("postgresql.auto.conf\", line 3, sets it to \"other\""), "{why}");
    assert!(db.failure(Job::NamesOn("nd1".into())).contains("postgresql.auto.conf"));
    db.sql("ALTER SYSTEM RESET synchronous_standby_names");
    assert_eq!(db.perform(Job::NamesOff), Outcome::Applied);

    let included = db.dir.path().join("more.conf");
    std::fs::write(&included, "\nsynchronous_standby_names = 'late'\n").unwrap();
    append(&db.place.config_file, &format!("include '{}'\n", included.display()));
    let why = db.failure(Job::NamesOn("nd1".into()));
    assert!(why.contains("more.conf\", line 2, sets it to \"late\""), "{why}");
    std::fs::write(&included, "").unwrap();

    append(&db.place.config_file, "this is no setting\n");
    let why = db.failure(Job::NamesOff);
    assert!(why.contains("error in") && why.contains("syntax error"), "{why}");
}

/// A commit that waits for a standby, on a thread of its own.
fn waiting_commit(db: &Db) -> std::thread::JoinHandle<Duration> {
    db.sql("CREATE TABLE IF NOT EXISTS public.t (a int)");
    let target = db.target.clone();
    let waits = std::thread::spawn(move || {
        let mut session = Session::open(&target, LONG, "test").unwrap();
        session.query("SET synchronous_commit = on; SET statement_timeout = 0", LONG).unwrap();
        let begun = Instant::now();
        session.query("INSERT INTO public.t VALUES (1)", LONG).unwrap();
        begun.elapsed()
    });
    let end = Instant::now() + LONG;
    while db.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") == "0" {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(20));
    }
    waits
}

#[test]
fn names_off_frees_a_waiting_commit() {
    if !as_postgres("names_off_frees_a_waiting_commit") {
        return;
    }
    let mut db = Db::started(Some("nobody"));
    let waits = waiting_commit(&db);
    let begun = Instant::now();
    assert_eq!(db.perform(Job::NamesOff), Outcome::Applied);
    println!("names off took {:?}", begun.elapsed());
    waits.join().unwrap();
    assert_eq!(db.sql("SELECT count(*) FROM public.t"), "1");
}

#[test]
fn a_stopped_checkpointer_is_named() {
    if !as_postgres("a_stopped_checkpointer_is_named") {
        return;
    }
    let mut db = Db::started(Some("nobody"));
    let waits = waiting_commit(&db);
    let checkpointer = db.child("checkpointer");
    signal(checkpointer, "STOP");
    let why = db.failure(Job::NamesOff);
    signal(checkpointer, "CONT");
    assert!(why.contains("1 commits still wait for the standby: the checkpointer is stopped (SIGSTOP)"), "{why}");
    waits.join().unwrap();
}

#[test]
fn stop_ends_a_frozen_postmaster() {
    if !as_postgres("stop_ends_a_frozen_postmaster") {
        return;
    }
    let mut db = Db::started(None);
    signal(db.postmaster().pid, "STOP");
    let begun = Instant::now();
    let data = db.stop(20_000);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!((data.state, data.running), (ControlState::InProduction, false));
    // And it starts again.
    db.start(None);
    db.ready();
}

#[test]
fn stop_ends_orphans() {
    if !as_postgres("stop_ends_orphans") {
        return;
    }
    let mut db = Db::started(None);
    let frozen = db.child("background writer");
    signal(frozen, "STOP");
    let postmaster = db.postmaster();
    signal(postmaster.pid, "KILL");
    assert!(postmaster.wait(LONG));
    assert!(process::postmaster(&db.place.data).unwrap().is_none());
    let why = db.failure(Job::Start { names: None, follow: None });
    assert!(why.contains("are still running"), "{why}");
    assert!(!db.stop(0).running);
    assert!(process::scan(&db.place.data).unwrap().is_empty());
}

/// A process that the kernel does not let its own user inspect (here because its program is not readable) may be part of the
/// instance: nothing is started beside it, it gets no signal, and the lock file stays.
#[test]
fn a_process_that_cannot_be_inspected_is_no_proof_of_death() {
    let alone = GATE.write().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !common::as_postgres("a_process_that_cannot_be_inspected_is_no_proof_of_death") {
        return;
    }
    drop(alone);
    let mut db = Db::started(None);
    let program = db.dir.path().join("postgres");
    common::run(Path::new("/bin/cp"), &["/bin/sleep", program.to_str().unwrap()]);
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o111)).unwrap();
    let mut hidden = Innocent(Command::new(&program).arg("300").spawn().unwrap());
    let pid = hidden.0.id();
    assert!(std::fs::read_link(format!("/proc/{pid}/exe")).is_err(), "it cannot be inspected");
    // While the instance runs and when it has shut down, its own files show the state.
    assert!(!db.stop(30_000).running);
    db.start(None);
    db.ready();
    let postmaster = db.postmaster();
    signal(postmaster.pid, "KILL");
    assert!(postmaster.wait(LONG));
    let lock = db.place.data.join("postmaster.pid");
    for job in [Job::Start { names: None, follow: None }, Job::Stop { fast_ms: 0, names: None }] {
        let why = db.failure(job);
        assert!(why.contains(&format!("process {pid} cannot be inspected")), "{why}");
        assert!(why.contains(lock.to_str().unwrap()), "{why}");
    }
    assert_eq!(process::remove_stale_locks(&db.place), Ok(Vec::new()));
    assert!(lock.exists() && hidden.alive());
    drop(hidden);
    db.start(None);
    db.ready();
}

#[test]
fn a_standalone_backend_is_no_postmaster() {
    if !as_postgres("a_standalone_backend_is_no_postmaster") {
        return;
    }
    let mut db = Db::new(0);
    let mut program = Command::new(db.place.bin_dir.join("postgres"));
    program.args(["--single", "-D"]).arg(&db.place.data).arg("postgres").stdin(std::process::Stdio::piped());
    let mut backend = Innocent(program.spawn().unwrap());
    let end = Instant::now() + LONG;
    while process::scan(&db.place.data).unwrap().is_empty() {
        assert!(Instant::now() < end && backend.alive());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(process::postmaster(&db.place.data).unwrap().is_none());
    let Outcome::Data(data) = db.perform(Job::Inspect) else { panic!() };
    assert!(data.running, "it works on the data directory");
    assert!(db.failure(Job::NamesOff).contains("not running"));
}

#[test]
fn a_hanging_archive_command_does_not_hang_a_stop() {
    if !as_postgres("a_hanging_archive_command_does_not_hang_a_stop") {
        return;
    }
    let mut db = Db::new(0);
    append(&db.place.config_file, "archive_mode = on\narchive_command = 'sleep 60; false'\n");
    db.start(None);
    db.ready();
    db.sql("SELECT pg_switch_wal()");
    let begun = Instant::now();
    let data = db.stop(30_000);
    println!("stop took {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!((data.state, data.running), (ControlState::ShutDown, false));
}

/// A standby's directory, made from a running primary.
fn standby_of(primary: &Db, port: u16, standby_port: u16) -> Db {
    let dir = tempfile::Builder::new().prefix("pg-files-").tempdir_in("/tmp").unwrap();
    let data = dir.path().join("data");
    let args = ["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "postgres", "-c", "fast", "-N", "-D"];
    common::run(&primary.place.bin_dir.join("pg_basebackup"), &[&args[..], &[data.to_str().unwrap()]].concat());
    Db::over(dir, standby_port)
}

#[test]
fn a_standby_follows_is_proved_and_promoted() {
    if !as_postgres("a_standby_follows_is_proved_and_promoted") {
        return;
    }
    let (port, standby_port) = (common::free_port(), common::free_port());
    let mut primary = Db::new(port);
    primary.start(None);
    primary.ready();
    let mut standby = standby_of(&primary, port, standby_port);
    std::fs::write(standby.place.data.join("postgresql.auto.conf"), "primary_conninfo = 'sslmode=disable host=gone'\n")
        .unwrap();
    let follow = Job::Start { names: Some("nd1".into()), follow: Some(format!("127.0.0.1:{port}")) };
    let Outcome::Started(data) = standby.perform(follow) else { panic!("the standby starts") };
    assert!(data.is_standby());
    standby.ready();
    let auto = std::fs::read_to_string(standby.place.data.join("postgresql.auto.conf")).unwrap();
    let expected =
        format!("primary_conninfo = 'user=postgres sslmode=disable host=127.0.0.1 port={port} application_name=nd2'\n");
    assert_eq!(auto, expected);
    let end = Instant::now() + LONG;
    while primary.sql("SELECT application_name, state FROM pg_stat_replication") != "nd2|streaming" {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(20));
    }

    let why = primary.failure(Job::Prove("nd9".into()));
    assert!(why.contains("standby \"nd9\" did not become synchronous: 0 rows"), "{why}");
    assert_eq!(primary.sql("SHOW synchronous_standby_names"), "");
    let begun = Instant::now();
    let Outcome::Proved(position) = primary.perform(Job::Prove("nd2".into())) else { panic!("it is proved") };
    println!("proof took {:?}", begun.elapsed());
    assert!(position > Lsn(0));
    assert_eq!(primary.sql("SELECT sync_state FROM pg_stat_replication"), "sync");

    assert_eq!(standby.perform(Job::NamesOff), Outcome::Applied);
    let begun = Instant::now();
    assert_eq!(primary.perform(Job::Promote), Outcome::Promoted(Timeline(1)));
    assert_eq!(standby.perform(Job::Promote), Outcome::Promoted(Timeline(2)));
    println!("both promotions took {:?}", begun.elapsed());
    assert_eq!(standby.perform(Job::Promote), Outcome::Promoted(Timeline(2)));
    standby.sql("CREATE TABLE public.takes_writes (a int)");
}

/// Debian's clusters set `cluster_name`, and `pg_basebackup -R` names no application unless told to.
#[test]
fn a_standby_is_known_by_what_its_files_say() {
    if !as_postgres("a_standby_is_known_by_what_its_files_say") {
        return;
    }
    let (port, standby_port) = (common::free_port(), common::free_port());
    let mut primary = Db::new(port);
    primary.start(None);
    primary.ready();
    let mut standby = standby_of(&primary, port, standby_port);
    let auto = standby.place.data.join("postgresql.auto.conf");
    let line = format!("primary_conninfo = 'user=postgres sslmode=disable host=127.0.0.1 port={port}'\n");
    std::fs::write(&auto, format!("{line}cluster_name = '15/main'\n")).unwrap();
    std::fs::write(standby.place.data.join("standby.signal"), "").unwrap();
    standby.start(None);
    let name = mirroring_controller::pg::follow::application_name(&standby.place);
    assert_eq!(name.as_deref(), Some("15/main"));
    let end = Instant::now() + LONG;
    while primary.sql("SELECT application_name, state FROM pg_stat_replication") != "15/main|streaming" {
        assert!(Instant::now() < end, "{}", primary.sql("SELECT * FROM pg_stat_replication"));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_stop_interrupts_and_a_nudge_asks_again() {
    if !as_postgres("a_stop_interrupts_and_a_nudge_asks_again") {
        return;
    }
    let mut db = Db::started(None);
    let proof = db.order(Job::Prove("nobody".into()));
    let end = Instant::now() + LONG;
    while db.sql("SHOW synchronous_standby_names") != "nobody" {
        assert!(Instant::now() < end);
    }
    db.runner.nudge(proof);
    for _ in 0..2 {
        let (id, outcome) = db.answer();
        assert!(id == proof && matches!(&outcome, Outcome::Failed(why) if why.contains("cancelled")), "{outcome:?}");
    }

    let checkpointer = db.child("checkpointer");
    signal(checkpointer, "STOP");
    let checkpoint = db.order(Job::Checkpoint);
    std::thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    let stop = db.order(Job::Stop { fast_ms: 0, names: Some("nd1".into()) });
    let (id, outcome) = db.answer();
    assert!(id == checkpoint && matches!(&outcome, Outcome::Failed(why) if why.contains("cancelled")), "{outcome:?}");
    let (id, outcome) = db.answer();
    assert!(id == stop && matches!(outcome, Outcome::Stopped(_)), "{outcome:?}");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert!(db.conf().contains("\nsynchronous_standby_names = 'nd1'"));
    db.runner.nudge(stop);
    assert_eq!(db.answer(), (stop, outcome));
}
