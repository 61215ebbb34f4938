//! The probes and sessions against real PostgreSQL: what freezes, dies, fills up or lets nobody in.
//!
//! PostgreSQL refuses to run as root; where the tests are started by root, those that need it start themselves again as
//! user `postgres`.

#[allow(dead_code, reason = "other tests need the rest of it")]
mod common;

use common::as_postgres;
use crossbeam_channel::{Receiver, unbounded};
use mirroring_controller::daemon::resolver::Resolver;
use mirroring_controller::daemon::{db_probe, disk_probe, peer_probe};
use mirroring_controller::fsm::event::{Contains, Disk, Event, Instance, Names, PeerInstance, WalReading};
use mirroring_controller::fsm::types::{Lsn, Timeline};
use mirroring_controller::pg::connect::{Refusal, Session, Target};
use mirroring_controller::pg::wal::Segments;
use mirroring_controller::pg::{queries, version};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(400);

// ------------------------------------------------------------------------------------------------------------ harness

fn program(name: &str) -> Command {
    Command::new(common::bin_dir().join(name))
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}{text}", String::from_utf8_lossy(&output.stdout));
}

/// An instance in a directory of its own, stopped and removed at the end of its test.
struct Server {
    dir: TempDir,
    port: u16,
}

impl Server {
    fn new() -> Server {
        let server = Server::empty();
        run(program("initdb").args(["-N", "-A", "trust", "-U", "postgres", "-D"]).arg(server.data()));
        server.configure();
        server
    }

    fn started() -> Server {
        let server = Server::new();
        server.start();
        server
    }

    fn empty() -> Server {
        let dir = tempfile::Builder::new().prefix("probes-").tempdir().unwrap();
        Server { dir, port: common::free_port() }
    }

    fn configure(&self) {
        self.set(&format!(
            "port = {}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nfsync = off\n\
             wal_keep_size = 64\n",
            self.port,
            self.dir.path().display()
        ));
    }

    /// A standby of this one, under this `application_name`, not started yet.
    fn standby(&self, name: &str) -> Server {
        let standby = Server::empty();
        run(program("pg_basebackup").args(["-c", "fast", "-U", "postgres", "-h", "127.0.0.1", "-p"]).args([
            self.port.to_string().as_ref(),
            "-D".as_ref(),
            standby.data().as_os_str(),
        ]));
        fs::write(standby.data().join("standby.signal"), "").unwrap();
        standby.configure();
        standby.set(&format!(
            "primary_conninfo = 'host=127.0.0.1 port={} user=postgres application_name={name}'\n\
             wal_receiver_status_interval = 1\n",
            self.port
        ));
        standby
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn set(&self, lines: &str) {
        let mut file = fs::OpenOptions::new().append(true).open(self.data().join("postgresql.conf")).unwrap();
        file.write_all(lines.as_bytes()).unwrap();
    }

    fn pg_ctl(&self, args: &[&str]) -> Command {
        let mut command = program("pg_ctl");
        command.args(args).arg("-D").arg(self.data()).arg("-l").arg(self.dir.path().join("log"));
        command
    }

    fn start(&self) {
        run(&mut self.pg_ctl(&["start", "-w"]));
    }

    fn stop(&self) {
        run(&mut self.pg_ctl(&["stop", "-w", "-m", "fast"]));
    }

    fn reload(&self) {
        run(&mut self.pg_ctl(&["reload"]));
    }

    fn target(&self) -> Target {
        Target::new("postgres", None, "postgres", self.data())
    }

    fn session(&self) -> Session {
        Session::open(&self.target(), LIMIT, "a test").unwrap()
    }

    fn sql(&self, sql: &str) {
        self.session().query(sql, LIMIT).unwrap();
    }

    fn postmaster(&self) -> i32 {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        text.lines().next().unwrap().parse().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill(self.postmaster(), signal);
    }

    /// A probe of this instance, and what it reports.
    fn probe(&self, timeout: Duration) -> (crossbeam_channel::Sender<db_probe::Command>, Receiver<Event>) {
        let (seen, readings) = unbounded();
        // Settings and WAL are of no interest here: these servers run without fsync.
        let report = move |event, _| {
            if !matches!(event, Event::Weakened(_) | Event::Wal(_)) {
                let _ = seen.send(event);
            }
        };
        (db_probe::spawn(self.probe_settings(timeout), Arc::new(report)).unwrap(), readings)
    }

    fn probe_settings(&self, timeout: Duration) -> db_probe::Settings {
        db_probe::Settings {
            target: self.target(),
            interval: Duration::from_millis(50),
            timeout,
            peer: "nd2".into(),
            tablespaces: db_probe::Tablespaces::default(),
            pace: Arc::default(),
            connections: Default::default(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(text) = fs::read_to_string(self.data().join("postmaster.pid")) {
            if let Some(pid) = text.lines().next().and_then(|line| line.parse().ok()).and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::CONT);
            }
            let _ = self.pg_ctl(&["stop", "-m", "immediate", "-w"]).output();
        }
    }
}

fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

fn backend(session: &mut Session) -> i32 {
    session.query("SELECT pg_backend_pid()", LIMIT).unwrap()[0][0].as_ref().unwrap().parse().unwrap()
}

/// Looks until what is seen is as wanted.
fn until<T: std::fmt::Debug>(mut look: impl FnMut() -> T, wanted: impl Fn(&T) -> bool) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        let seen = look();
        if wanted(&seen) {
            return seen;
        }
        assert!(Instant::now() < end, "in vain: {seen:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn next(readings: &Receiver<Event>) -> Event {
    readings.recv_timeout(LIMIT).expect("the probe reports nothing")
}

fn wait_for(readings: &Receiver<Event>, wanted: impl Fn(&Event) -> bool) -> Event {
    until(|| next(readings), wanted)
}

fn is_primary(event: &Event) -> bool {
    matches!(event, Event::Instance(Instance::Primary { .. }))
}

fn refusal(target: &Target) -> Refusal {
    match Session::open(target, LIMIT, "a test") {
        Ok(_) => panic!("it was let in"),
        Err(refusal) => refusal,
    }
}

// ----------------------------------------------------------------------------------------------------------- sessions

#[test]
fn who_is_not_let_in_is_told_so() {
    if !as_postgres("who_is_not_let_in_is_told_so") {
        return;
    }
    let server = Server::started();
    server.sql("SET password_encryption = 'scram-sha-256'; CREATE ROLE app LOGIN PASSWORD 'right'");
    let target = |user: &str, password: Option<&str>, dbname: &str| {
        Target::new(user, password.map(str::to_owned), dbname, server.data())
    };
    let closed = |target: &Target, word: &str| match refusal(target) {
        Refusal::Closed(why) | Refusal::Password(why) => {
            assert!(why.contains(word), "{why}");
            assert!(!why.contains("wrong!"), "a password in {why}");
        }
        other => panic!("{other:?}"),
    };
    closed(&target("postgres", None, "missing"), "\"missing\" does not exist");
    closed(&target("nobody_such", None, "postgres"), "\"nobody_such\" does not exist");

    // The Unix socket asks for an operating system user that we are not, TCP for a password.
    let hba = "local all app peer\nlocal all all trust\nhost all app all scram-sha-256\nhost all all all trust\n";
    fs::write(server.data().join("pg_hba.conf"), hba).unwrap();
    server.reload();
    until(|| refusal(&target("app", Some("wrong!"), "postgres")), |seen| matches!(seen, Refusal::Password(_)));
    closed(&target("app", Some("wrong!"), "postgres"), "authentication failed");
    closed(&target("app", None, "postgres"), "");
    let right = target("app", Some("right"), "postgres");
    for _ in 0..2 {
        let mut session = Session::open(&right, LIMIT, "a test").unwrap();
        assert!(!queries::is_superuser(&mut session, LIMIT).unwrap());
        let refused = session.query("CHECKPOINT", LIMIT).unwrap_err();
        assert!(matches!(refused, Refusal::Closed(_)), "{refused:?}");
    }

    server.stop();
    assert_eq!(refusal(&server.target()), Refusal::NotRunning);
}

/// Hosts that share the directory of the sockets, as containers may: each start takes it over.
#[test]
fn a_socket_that_another_instance_took_over_is_not_taken_for_ours() {
    if !as_postgres("a_socket_that_another_instance_took_over_is_not_taken_for_ours") {
        return;
    }
    let (ours, other) = (Server::started(), Server::new());
    ours.sql("CREATE TABLE public.ours ()");
    let socket = ours.dir.path().join(format!(".s.PGSQL.{}", ours.port));
    fs::remove_file(&socket).unwrap();
    fs::remove_file(socket.with_extension(format!("{}.lock", ours.port))).unwrap();
    let directory = ours.dir.path().display();
    other.set(&format!("port = {}\nlisten_addresses = ''\nunix_socket_directories = '{directory}'\n", ours.port));
    other.start();
    assert_eq!(other.session().query("SELECT 1 FROM pg_class WHERE relname = 'ours'", LIMIT), Ok(vec![]));
    // By TCP it is reached.
    let (_probe, readings) = ours.probe(LIMIT);
    wait_for(&readings, is_primary);
    ours.sql("SELECT FROM public.ours");
    fs::write(ours.data().join("pg_hba.conf"), "local all all trust\n").unwrap();
    ours.reload();
    let taken = |seen: &Option<Refusal>| match seen {
        Some(Refusal::Closed(why)) => why.contains(socket.to_str().unwrap()) && why.contains("unix_socket_directories"),
        _ => false,
    };
    until(|| Session::open(&ours.target(), LIMIT, "a test").err(), taken);
}

#[test]
fn too_many_clients_is_no_failure() {
    if !as_postgres("too_many_clients_is_no_failure") {
        return;
    }
    let server = Server::new();
    server.set("max_connections = 4\nsuperuser_reserved_connections = 0\nmax_wal_senders = 0\n");
    server.start();
    let (_probe, readings) = server.probe(LIMIT);
    wait_for(&readings, is_primary);
    let mut sessions = Vec::new();
    let closed = loop {
        match Session::open(&server.target(), LIMIT, "a test") {
            Ok(session) => sessions.push(session),
            Err(refusal) => break refusal,
        }
    };
    assert!(matches!(&closed, Refusal::Closed(why) if why.contains("too many clients")), "{closed:?}");
    // The probe's own session continues, whatever happens to the fresh ones.
    let (_second, refused) = server.probe(LIMIT);
    wait_for(&refused, |event| *event == Event::Instance(Instance::Closed));
    for _ in 0..100 {
        let event = next(&readings);
        assert!(is_primary(&event), "{event:?}");
    }
}

#[test]
fn a_session_pins_what_it_depends_on() {
    if !as_postgres("a_session_pins_what_it_depends_on") {
        return;
    }
    let server = Server::started();
    server.sql(
        "ALTER ROLE postgres SET search_path = public; ALTER ROLE postgres SET synchronous_commit = on; \
         ALTER ROLE postgres SET standard_conforming_strings = off; ALTER ROLE postgres SET statement_timeout = 1",
    );
    let mut session = server.session();
    let check = |session: &mut Session, setting: &str, expected: &str| {
        assert_eq!(queries::show(session, setting, LIMIT).unwrap(), expected, "{setting}");
    };
    check(&mut session, "search_path", "pg_catalog");
    check(&mut session, "synchronous_commit", "local");
    check(&mut session, "standard_conforming_strings", "on");
    check(&mut session, "statement_timeout", "20s");
    check(&mut session, "lock_timeout", "20s");
    check(&mut session, "idle_in_transaction_session_timeout", "20s");
    check(&mut session, "application_name", "mirroring_controller");
    let num = queries::server_version_num(&mut session, LIMIT).unwrap();
    assert_eq!(version::Major::of_server(num), version::Major::of_data_directory(&server.data()));
    assert!(queries::is_superuser(&mut session, LIMIT).unwrap());
    assert_eq!(queries::max_wal_senders(&mut session, LIMIT).unwrap(), 10);
    queries::checkpoint(&mut session, LIMIT).unwrap();
}

#[test]
fn a_frozen_postmaster_answers_old_sessions_and_no_new_ones() {
    if !as_postgres("a_frozen_postmaster_answers_old_sessions_and_no_new_ones") {
        return;
    }
    let server = Server::started();
    let mut old = server.session();
    server.signal(Signal::STOP);
    let began = Instant::now();
    let opened = Session::open(&server.target(), SHORT, "a test");
    assert_eq!(opened.err(), Some(Refusal::Silent));
    assert!(began.elapsed() < SHORT * 4, "{:?}", began.elapsed());
    assert!(!queries::is_in_recovery(&mut old, LIMIT).unwrap());
    let address = format!("127.0.0.1:{}", server.port);
    assert_eq!(peer_probe::look(&Resolver::start([], || ()).unwrap(), &address, SHORT), PeerInstance::Silent);
    server.signal(Signal::CONT);
    server.session();
    assert_eq!(peer_probe::look(&Resolver::start([], || ()).unwrap(), &address, LIMIT), PeerInstance::Answered);
    server.stop();
    assert_eq!(peer_probe::look(&Resolver::start([], || ()).unwrap(), &address, LIMIT), PeerInstance::Refused);
}

#[test]
fn a_frozen_backend_does_not_hold_us_up() {
    if !as_postgres("a_frozen_backend_does_not_hold_us_up") {
        return;
    }
    let server = Server::started();
    let mut session = server.session();
    let pid = backend(&mut session);
    kill(pid, Signal::STOP);
    let began = Instant::now();
    assert_eq!(session.query("SELECT 1", SHORT), Err(Refusal::Silent));
    assert!(began.elapsed() < SHORT * 4, "{:?}", began.elapsed());
    assert!(session.is_closed());
    assert!(matches!(session.query("SELECT 1", SHORT), Err(Refusal::Other(_))));
    kill(pid, Signal::CONT);
    server.sql("SELECT 1");
}

// ----------------------------------------------------------------------------------------------------------- readings

#[test]
fn readings_of_a_primary_and_of_its_standby() {
    if !as_postgres("readings_of_a_primary_and_of_its_standby") {
        return;
    }
    let primary = Server::started();
    let standby = primary.standby("ND2");
    standby.start();
    let mut session = primary.session();
    let look = |session: &mut Session| queries::probe(session, "nd2", LIMIT).unwrap().instance;
    let names = |session: &mut Session| match look(session) {
        Instance::Primary { names, .. } => names,
        other => panic!("{other:?}"),
    };

    assert_eq!(names(&mut session), Names::Unset);
    primary.set("synchronous_standby_names = 'nd2'\n");
    primary.reload();
    let synced = |seen: &Instance| matches!(seen, Instance::Primary { standby: Some(row), .. } if row.sync);
    let Instance::Primary { timeline, flushed, names: set, waiting, standby: Some(row) } =
        until(|| look(&mut session), synced)
    else {
        unreachable!()
    };
    assert_eq!((timeline, set, waiting, row.streaming), (Timeline(1), Names::Peer, false, true));
    assert!(flushed > Lsn(0) && row.flushed > Lsn(0));
    assert_eq!(queries::standby_rows(&mut session, "nd2", LIMIT).unwrap().len(), 1);
    assert_eq!(queries::standby_rows(&mut session, "nd'3", LIMIT).unwrap(), []);

    // Idle, but it replies: another sign of life.
    until(
        || look(&mut session),
        |seen| matches!(seen, Instance::Primary { standby: Some(now), .. } if now.reply != row.reply),
    );

    let mut replica = standby.session();
    primary.sql("CREATE TABLE public.t (); CHECKPOINT");
    let end = queries::flush_lsn(&mut session, LIMIT).unwrap();
    let caught_up = |seen: &Instance| {
        matches!(seen, Instance::Standby { timeline: Timeline(1), received, replayed, streaming: true, contact }
            if *received >= end && *replayed >= end && *contact > 0)
    };
    until(|| queries::probe(&mut replica, "nd1", LIMIT).unwrap().instance, caught_up);

    // The same value from a file that is not ours, and other values.
    primary.sql("ALTER SYSTEM SET synchronous_standby_names = 'nd2'");
    primary.reload();
    until(|| names(&mut session), |seen| *seen == Names::Other);
    let source = queries::setting_source(&mut session, "synchronous_standby_names", LIMIT).unwrap();
    assert!(source.file.unwrap().ends_with("postgresql.auto.conf"));
    assert_eq!(source.line, 3);
    primary.sql("ALTER SYSTEM RESET synchronous_standby_names");
    for (value, expected) in
        [("nd2, nd3", Names::Other), ("*", Names::Other), ("\"nd2\"", Names::Peer), ("", Names::Unset)]
    {
        primary.set(&format!("synchronous_standby_names = '{value}'\n"));
        primary.reload();
        until(|| names(&mut session), |seen| *seen == expected);
    }
    primary.set("work_mem = 'nonsense'\n");
    let errors = queries::file_errors(&mut session, LIMIT).unwrap();
    assert!(errors.iter().any(|error| error.contains("work_mem")), "{errors:?}");

    // Promoted: the new timeline is told at once, long before pg_control follows with a checkpoint.
    run(&mut standby.pg_ctl(&["promote", "-w"]));
    let promoted = |seen: &Instance| matches!(seen, Instance::Primary { timeline: Timeline(2), .. });
    until(|| queries::probe(&mut replica, "nd1", LIMIT).unwrap().instance, promoted);
    assert_eq!(queries::primary_timeline(&mut replica, LIMIT), Ok(Timeline(2)));
}

/// A former primary follows the new one. Its WAL receiver writes the new timeline to a new file, from the beginning of the segment,
/// and has received less of it than the standby has replayed of the old one. A point there would be a digest of zeros.
#[test]
fn wal_of_a_new_timeline_is_read_where_it_was_received() {
    if !as_postgres("wal_of_a_new_timeline_is_read_where_it_was_received") {
        return;
    }
    let first = Server::started();
    let second = first.standby("nd2");
    second.start();
    first.sql("SELECT pg_switch_wal()");
    first.sql("CREATE TABLE public.t AS SELECT generate_series(1, 50000) AS n");
    first.stop();
    run(&mut second.pg_ctl(&["promote", "-w"]));
    second.sql("INSERT INTO public.t VALUES (0)");
    let old = Segments::of(&first.data()).unwrap().unwrap();
    let new = Segments::of(&second.data()).unwrap().unwrap();

    // The rest of the old timeline, which the new primary sends first, and then a part of the new one.
    let end = control_end(&first);
    let link = Throttle::to(second.port, end.0 % (16 << 20) + (300 << 10));
    fs::write(first.data().join("standby.signal"), "").unwrap();
    first.set(&format!("primary_conninfo = 'host=127.0.0.1 port={} user=postgres application_name=nd1'\n", link.port));
    first.start();

    let (seen, readings) = unbounded();
    let report = move |event, _| drop(seen.send(event));
    let _probe = db_probe::spawn(first.probe_settings(LIMIT), Arc::new(report)).unwrap();
    let follows = |event: &Event| {
        matches!(event, Event::Instance(Instance::Standby { timeline: Timeline(2), streaming: true, replayed, .. })
            if *replayed >= end)
    };
    let mut points = Vec::new();
    let mut looks = 0;
    while looks < 5 {
        let event = next(&readings);
        looks += usize::from(follows(&event));
        if let Event::Wal(WalReading { point: Some(point), .. }) = event {
            points.push(point);
        }
    }
    let contained = |segments: &Segments, point| segments.contains(point, Lsn(0)).unwrap() == Contains::Yes;
    assert!(points.iter().all(|point| contained(&new, point)), "of the part that has arrived: {points:?}");
    link.open();
    let whole = until(
        || next(&readings),
        |event| matches!(event, Event::Wal(WalReading { point: Some(point), .. }) if point.timeline == Timeline(2) && point.lsn > end),
    );
    let Event::Wal(WalReading { point: Some(point), .. }) = whole else { unreachable!() };
    assert!(contained(&new, &point) && contained(&old, &point));
}

/// Where the WAL of an instance that was shut down ends: its last checkpoint.
fn control_end(server: &Server) -> Lsn {
    let output = program("pg_controldata").arg("-D").arg(server.data()).env("LC_ALL", "C").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Latest checkpoint location:")).unwrap();
    line.trim().parse().unwrap()
}

/// A proxy that passes so many bytes of a server to its client, and more only when it is opened.
struct Throttle {
    port: u16,
    opened: Arc<AtomicBool>,
}

impl Throttle {
    fn to(port: u16, bytes: u64) -> Throttle {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let throttle = Throttle { port: listener.local_addr().unwrap().port(), opened: Arc::default() };
        let opened = Arc::clone(&throttle.opened);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let (mut up, mut down) = ((client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client));
                std::thread::spawn(move || io::copy(&mut up.0, &mut up.1).map(|_| up.1.shutdown(Shutdown::Write)));
                let opened = Arc::clone(&opened);
                std::thread::spawn(move || {
                    let (mut left, mut part) = (bytes, [0; 8192]);
                    while let Ok(length @ 1..) = down.0.read(&mut part) {
                        while left < length as u64 && !opened.load(Ordering::Relaxed) {
                            std::thread::sleep(Duration::from_millis(20));
                        }
                        left = left.saturating_sub(length as u64);
                        down.1.write_all(&part[..length])?;
                    }
                    down.1.shutdown(Shutdown::Both)
                });
            }
        });
        throttle
    }

    fn open(&self) {
        self.opened.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_commit_that_waits_is_seen() {
    if !as_postgres("a_commit_that_waits_is_seen") {
        return;
    }
    let server = Server::started();
    server.set("synchronous_standby_names = 'nd2'\n");
    server.reload();
    let mut session = server.session();
    until(|| queries::show_names(&mut session, LIMIT).unwrap(), |names| names == "nd2");
    let mut psql: Child = program("psql")
        .args(["-X", "-h", "127.0.0.1", "-U", "postgres", "-p", &server.port.to_string(), "-c", "CREATE TABLE t ()"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let waits = |seen: &Instance| matches!(seen, Instance::Primary { waiting: true, standby: None, .. });
    until(|| queries::probe(&mut session, "nd2", LIMIT).unwrap().instance, waits);
    assert_eq!(queries::waiters(&mut session, LIMIT).unwrap(), 1);
    server.set("synchronous_standby_names = ''\n");
    server.reload();
    assert!(psql.wait().unwrap().success());
    assert_eq!(queries::waiters(&mut session, LIMIT).unwrap(), 0);
}

// -------------------------------------------------------------------------------------------------------------- probe

#[test]
fn the_probe_follows_an_instance_up_and_down() {
    if !as_postgres("the_probe_follows_an_instance_up_and_down") {
        return;
    }
    let server = Server::new();
    let (probe, readings) = server.probe(LIMIT);
    assert_eq!(next(&readings), Event::Instance(Instance::Down));
    server.start();
    probe.send(db_probe::Command::Kick).unwrap();
    wait_for(&readings, is_primary);
    server.stop();
    let mut died = false;
    loop {
        match next(&readings) {
            Event::Died { signal } => {
                assert_eq!(signal, None, "a shutdown");
                died = true;
            }
            Event::Instance(Instance::Down) if died => break,
            Event::Instance(_) => {}
            other => panic!("{other:?}"),
        }
    }
    drop(probe);
    until(|| readings.recv_timeout(LIMIT).is_err(), |ended| *ended);
}

#[test]
fn a_frozen_postmaster_is_silence_though_the_old_session_answers() {
    if !as_postgres("a_frozen_postmaster_is_silence_though_the_old_session_answers") {
        return;
    }
    let server = Server::started();
    let (_probe, readings) = server.probe(SHORT);
    wait_for(&readings, is_primary);
    server.signal(Signal::STOP);
    wait_for(&readings, |event| *event == Event::Instance(Instance::Silent));
    for _ in 0..3 {
        assert_eq!(next(&readings), Event::Instance(Instance::Silent));
    }
    server.signal(Signal::CONT);
    wait_for(&readings, is_primary);
}

#[test]
fn death_is_told_at_once_even_while_a_look_hangs() {
    if !as_postgres("death_is_told_at_once_even_while_a_look_hangs") {
        return;
    }
    let server = Server::started();
    // A look may take longer than this test: what is told of the death does not come from a look.
    let (probe, readings) = server.probe(LIMIT * 10);
    wait_for(&readings, is_primary);
    let mut session = server.session();
    let sql =
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'mirroring_controller' AND pid <> pg_backend_pid()";
    // The probe's session is replaced now and then; one that stays is found when its answers cease.
    let frozen = until(
        || {
            let pid = session.query(sql, LIMIT).unwrap().first().and_then(|row| row[0].clone()?.parse::<i32>().ok())?;
            kill(pid, Signal::STOP);
            while readings.recv_timeout(Duration::from_millis(600)).is_ok() {}
            Some(pid)
        },
        Option::is_some,
    );
    server.signal(Signal::KILL);
    let told = next(&readings);
    assert!(matches!(told, Event::Died { signal: None | Some(9) }), "{told:?}");
    kill(frozen.unwrap(), Signal::KILL);
    // The session is lost, the postmaster gone, and so, soon, is the rest.
    wait_for(&readings, |event| *event == Event::Instance(Instance::Down));
    drop(probe);
}

#[test]
fn a_process_that_took_the_number_of_a_dead_postmaster_is_not_one() {
    if !as_postgres("a_process_that_took_the_number_of_a_dead_postmaster_is_not_one") {
        return;
    }
    let server = Server::new();
    let mut sleeper = Command::new("sleep").arg("1000").spawn().unwrap();
    let pid_file = server.data().join("postmaster.pid");
    let text = format!("{}\n{}\n1\n{}\n{}\n\n\nready\n", sleeper.id(), server.data().display(), server.port, "/tmp");
    fs::write(&pid_file, text).unwrap();
    let (_probe, readings) = server.probe(LIMIT);
    assert_eq!(next(&readings), Event::Instance(Instance::Down));
    fs::remove_file(pid_file).unwrap();
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
}

// -------------------------------------------------------------------------------------------------------------- disks

struct Mount(PathBuf);

impl Mount {
    fn tmpfs(path: &Path) -> Mount {
        Mount::sized(path, "64k")
    }

    fn sized(path: &Path, size: &str) -> Mount {
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"]).arg(path));
        Mount(path.to_owned())
    }

    fn read_only(&self, on: bool) {
        run(Command::new("mount").args(["-o", if on { "remount,ro" } else { "remount,rw" }]).arg(&self.0));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).output();
    }
}

/// A directory laid out as a data directory, and the settings of a probe that waits for a disk that other processes keep busy.
fn disks() -> (TempDir, disk_probe::Settings) {
    let (dir, settings) = disks_in(&std::env::temp_dir());
    (dir, disk_probe::Settings { timeout: LIMIT / 2, ..settings })
}

/// The same in memory, where only what a test makes hang is late.
fn disks_in_memory() -> (TempDir, disk_probe::Settings) {
    disks_in(Path::new("/dev/shm"))
}

fn disks_in(parent: &Path) -> (TempDir, disk_probe::Settings) {
    let dir = tempfile::Builder::new().prefix("probes-").tempdir_in(parent).unwrap();
    let data = dir.path().join("data");
    let management = dir.path().join("management");
    for name in ["data/pg_wal", "data/pg_tblspc", "space", "management"] {
        fs::create_dir_all(dir.path().join(name)).unwrap();
    }
    std::os::unix::fs::symlink(dir.path().join("space"), data.join("pg_tblspc/16384")).unwrap();
    let journal = dir.path().join("rebuild.json");
    let interval = Duration::from_millis(20);
    (dir, disk_probe::Settings { data, management, journal, interval, timeout: SHORT, pace: Arc::default() })
}

fn look_at(settings: disk_probe::Settings) -> (crossbeam_channel::Sender<()>, Receiver<disk_probe::Round>) {
    let (seen, rounds) = unbounded();
    (disk_probe::spawn(settings, move |round| drop(seen.send(round))).unwrap(), rounds)
}

fn wait_for_disk(rounds: &Receiver<disk_probe::Round>, expected: &Disk) -> disk_probe::Round {
    let look = || rounds.recv_timeout(LIMIT).expect("the probe reports nothing");
    until(look, |round| round.clone().fold(true) == *expected)
}

fn failed(what: &str) -> Disk {
    Disk::Failed(what.into())
}

#[test]
fn a_place_that_is_gone_is_a_failure() {
    let (dir, settings) = disks();
    let (probe, rounds) = look_at(settings.clone());
    assert_eq!(rounds.recv_timeout(LIMIT).unwrap().fold(true), Disk::Good);
    let space = dir.path().join("space");
    fs::rename(&space, dir.path().join("moved")).unwrap();
    let round = wait_for_disk(&rounds, &failed("tablespace 16384"));
    assert_eq!(round.fold(false), Disk::Good, "tablespace_directory_error_action = message");
    fs::rename(dir.path().join("moved"), &space).unwrap();
    wait_for_disk(&rounds, &Disk::Good);
    let wal = settings.data.join("pg_wal");
    fs::rename(&wal, dir.path().join("moved")).unwrap();
    wait_for_disk(&rounds, &failed("tran_log"));
    fs::rename(dir.path().join("moved"), &wal).unwrap();
    wait_for_disk(&rounds, &Disk::Good);
    fs::rename(&settings.data, dir.path().join("moved")).unwrap();
    wait_for_disk(&rounds, &failed("data"));
    drop(probe);
    until(|| rounds.recv_timeout(LIMIT).is_err(), |ended| *ended);
}

/// A directory that a rebuild is to make is no failure, and stays as empty as it is.
#[test]
fn a_data_directory_that_is_not_made_yet_is_not_looked_at() {
    let (dir, settings) = disks();
    let (data, moved) = (settings.data.clone(), dir.path().join("moved"));
    fs::rename(&data, &moved).unwrap();
    let (_probe, rounds) = look_at(settings.clone());
    let good = |rounds: &Receiver<disk_probe::Round>| {
        while rounds.try_recv().is_ok() {}
        (0..10).all(|_| rounds.recv_timeout(LIMIT).unwrap().fold(true) == Disk::Good)
    };
    assert!(good(&rounds), "missing");
    fs::create_dir(&data).unwrap();
    let written = fs::metadata(&data).unwrap().modified().unwrap();
    assert!(good(&rounds), "empty");
    assert_eq!(fs::metadata(&data).unwrap().modified().unwrap(), written, "something was put into it");
    // It is made, and from then on looked at like any other.
    fs::rename(&moved, &data).unwrap();
    assert!(good(&rounds), "made");
    fs::rename(&data, &moved).unwrap();
    wait_for_disk(&rounds, &failed("data"));
    // It is being made anew.
    fs::write(&settings.journal, "").unwrap();
    wait_for_disk(&rounds, &Disk::Good);
    fs::create_dir_all(data.join("base")).unwrap();
    assert!(good(&rounds), "half deleted");
    fs::remove_file(&settings.journal).unwrap();
    wait_for_disk(&rounds, &failed("tran_log"));
}

#[test]
fn a_look_leaves_nothing_behind() {
    let (_dir, settings) = disks();
    let (probe, rounds) = look_at(settings.clone());
    wait_for_disk(&rounds, &Disk::Good);
    drop(probe);
    while rounds.recv_timeout(LIMIT).is_ok() {}
    for place in ["", "pg_wal", "pg_tblspc/16384"] {
        let names = fs::read_dir(settings.data.join(place)).unwrap().map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with("pgsql_tmp")).collect();
        assert_eq!(left, Vec::<std::ffi::OsString>::new(), "{place:?}");
    }
}

#[test]
fn read_only_is_a_failure_and_full_is_not() {
    assert!(geteuid().is_root(), "this test mounts a tmpfs: run it as root");
    let (_dir, settings) = disks();
    let wal = settings.data.join("pg_wal");
    let mount = Mount::tmpfs(&wal);
    let (_probe, rounds) = look_at(settings);
    wait_for_disk(&rounds, &Disk::Good);
    mount.read_only(true);
    wait_for_disk(&rounds, &failed("tran_log"));
    mount.read_only(false);
    wait_for_disk(&rounds, &Disk::Good);
    let full = fs::write(wal.join("filler"), vec![0; 1 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    while rounds.try_recv().is_ok() {}
    for _ in 0..10 {
        assert_eq!(rounds.recv_timeout(LIMIT).unwrap().fold(true), Disk::Good);
    }
}

/// Each directory that is full is reported, with what is free, until it has space again.
#[test]
fn full_directories_are_reported() {
    assert!(geteuid().is_root(), "this test mounts a tmpfs: run it as root");
    let (_dir, settings) = disks();
    let places = [settings.data.join("pg_tblspc/16384"), settings.management.clone()];
    let _mounts = places.clone().map(|place| Mount::sized(&place, "64m"));
    let (_probe, rounds) = look_at(settings);
    let full = |expected: &str| until(|| rounds.recv_timeout(LIMIT).unwrap(), |round| round.full() == expected);
    let free = |round: disk_probe::Round, directory: &str| {
        let space =
            round.space.into_iter().find(|space| space.directory.to_string() == directory).expect("a directory");
        assert!(places.iter().any(|place| place.canonicalize().unwrap().display().to_string() == space.mount_point));
        space.free_bytes
    };
    assert_eq!(free(full(""), "management"), 64 << 20);
    for (place, name) in places.iter().zip(["tablespace 16384", "management"]) {
        let filler = place.join("filler");
        assert!(fs::write(&filler, vec![0; 65 << 20]).is_err());
        let round = full(name);
        assert_eq!(round.clone().fold(true), Disk::Good, "a full disk is no failure");
        assert!(free(round, name) < 1 << 20);
        fs::remove_file(&filler).unwrap();
        assert_eq!(free(full(""), name), 64 << 20);
    }
}

/// The probe's file, whose name is its own; it is found by looking on.
fn file_of_the_probe(settings: &disk_probe::Settings) -> std::ffi::OsString {
    let (probe, rounds) = look_at(settings.clone());
    let find = || {
        let mut entries = fs::read_dir(&settings.data).unwrap().flatten();
        entries.find(|entry| entry.file_name().to_string_lossy().starts_with("pgsql_tmp"))
    };
    let file = loop {
        assert!(rounds.len() < 1000, "no file was seen");
        if let Some(entry) = find() {
            break entry.file_name();
        }
    };
    drop(probe);
    while rounds.recv_timeout(LIMIT).is_ok() {}
    file
}

/// Another process holds a lease on the file: the kernel makes whoever opens it wait, as a dying disk does.
fn lease(path: &std::path::Path) -> std::process::Child {
    fs::write(path, "").unwrap();
    // F_SETLEASE is 1024, F_WRLCK 1.
    let script =
        "$SIG{IO} = 'IGNORE'; open(F, '+<', $ARGV[0]) or die; fcntl(F, 1024, 1) or die; $| = 1; print 'x'; sleep 1000";
    let mut holder = Command::new("perl").args(["-e", script]).arg(path).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    holder
}

#[test]
fn a_place_that_hangs_is_a_failure_each_round_and_holds_one_thread() {
    let (_dir, settings) = disks_in_memory();
    let file = file_of_the_probe(&settings);
    let mut holder = lease(&settings.data.join("pg_wal").join(file));
    let (_probe, rounds) = look_at(settings);
    let threads = || fs::read_dir("/proc/self/task").unwrap().count();
    wait_for_disk(&rounds, &failed("tran_log"));
    let before = threads();
    for _ in 0..10 {
        assert_eq!(rounds.recv_timeout(LIMIT).unwrap().fold(true), failed("tran_log"));
    }
    assert!(threads() < before + 10, "a hanging place gets no further threads");
    holder.kill().unwrap();
    holder.wait().unwrap();
    wait_for_disk(&rounds, &Disk::Good);
}

/// After a pause of the whole host, or a stall of the one disk under everything, no place is left that is in time.
#[test]
fn places_that_all_hung_at_once_are_well_again() {
    let (_dir, settings) = disks_in_memory();
    let mut holder = lease(&settings.data.join(file_of_the_probe(&settings)));
    // the other places are not known before this one has answered
    let (_probe, rounds) = look_at(settings);
    for _ in 0..3 {
        assert_eq!(rounds.recv_timeout(LIMIT).unwrap().fold(true), failed("data"));
    }
    holder.kill().unwrap();
    holder.wait().unwrap();
    let well = rounds.iter().take(200).any(|round| round.fold(true) == Disk::Good);
    assert!(well, "a late answer was not taken");
}
