//! The arbiter's process: the real program, with members that speak the real protocol to it over the loopback interface.
//!
//! The members are the controllers' own links with a heartbeat each 0.4 s; what a controller's core would decide is said
//! by the test. Each cluster has addresses, a key and a system identifier of its own.

#[path = "arbiter/callers.rs"]
mod callers;
#[allow(dead_code, reason = "other tests need the rest of it")]
mod common;

use crossbeam_channel::Receiver;
use mirroring_controller::config::PrivateKey;
use mirroring_controller::config::arbiter::ArbiterConfig;
use mirroring_controller::daemon::Inbox;
use mirroring_controller::daemon::links::{Bystander, Links, Peer, Settings};
use mirroring_controller::fsm::arbiter::{Arbiter, ArbiterSettings};
use mirroring_controller::fsm::event::{Action, Event, Heartbeat, Message};
use mirroring_controller::fsm::types::*;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(40);

/// Time between two heartbeats, ms: an unoptimised program takes its time to encrypt.
const BEAT_MS: u64 = 400;
const DETECTION_MS: u64 = 3000;

// -------------------------------------------------------------------------------------------------------- the program

/// An arbiter's directory, and the arbiter that runs in it.
struct Arb {
    dir: tempfile::TempDir,
    process: Option<Child>,
    port: u16,
}

/// The addresses of cluster `number`, which differ from every other's, and from those of tests next door.
fn address(number: usize, last: u8) -> String {
    format!("127.{}.{number}.{last}", 100 + std::process::id() % 100)
}

fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn key(number: usize) -> [u8; 32] {
    std::array::from_fn(|at| (number * 7 + at) as u8)
}

impl Arb {
    /// A directory with clusters 1 to `count`, all but the first below `clusters`.
    fn new(count: usize) -> Arb {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        private(&dir.path().join("arbitration.conf"), &format!("port = {port}\nmy_address = '127.0.0.1'\n"));
        for number in 1..=count {
            let place = match number {
                1 => dir.path().to_owned(),
                _ => dir.path().join(format!("clusters/c{number:02}")),
            };
            fs::create_dir_all(&place).unwrap();
            let [one, two] = [1, 2].map(|last| address(number, last));
            let lines = format!("nd1 {one} {port}\nnd2 {two} {port}\narb 127.0.0.1 {port} arbiter\n");
            private(&place.join("network.conf"), &lines);
            let hex: String = key(number).iter().map(|byte| format!("{byte:02x}")).collect();
            private(&place.join("mc.key"), &hex);
        }
        Arb { dir, process: None, port }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mc_arb"));
        command.args(arguments).arg("-M").arg(self.dir.path()).current_dir("/");
        command
    }

    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
        (status.code().unwrap(), said)
    }

    fn start(&mut self) {
        let child = self.command(&["start", "--foreground"]).stderr(Stdio::null()).spawn().unwrap();
        self.process = Some(child);
        // 1: a cluster is not served.
        until("the arbiter answers", || self.run(&["status"]).0 <= 1);
    }

    fn stop(&mut self) {
        let (code, said) = self.run(&["stop"]);
        assert_eq!((code, said.as_str()), (0, "the arbiter is stopped\n"));
        assert!(self.process.take().unwrap().wait().unwrap().success());
    }

    fn status(&self) -> serde_json::Value {
        let (code, said) = self.run(&["status", "--format", "json"]);
        assert!(code <= 1, "{said}");
        serde_json::from_str(&said).unwrap()
    }

    /// What the status says of cluster `number`.
    fn cluster(&self, number: usize) -> serde_json::Value {
        self.status()["clusters"][number - 1].clone()
    }

    fn ledger(&self, number: usize) -> PathBuf {
        self.dir.path().join("run").join(system(number).0.to_string()).join("ledger")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("run/log")).unwrap()
    }

    fn member(&self, number: usize, server: Server) -> Member {
        Member::new(number, server, self.port, key(number), system(number), None)
    }
}

impl Drop for Arb {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn until(what: &str, mut look: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !look() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

// -------------------------------------------------------------------------------------------------------- the members

fn system(number: usize) -> SystemId {
    SystemId(7_000_000_000_000_000_000 + number as u64)
}

/// A server of a cluster, which sends what it is told to tell each [`BEAT_MS`].
struct Member {
    me: Server,
    links: Arc<Links>,
    told: Arc<Mutex<Heartbeat>>,
    heard: Arc<Mutex<Heard>>,
    beats: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

/// The arbiter's ledgers, as last heard.
#[derive(Default)]
struct Heard {
    system: SystemId,
    beat: Option<Ledger>,
    answer: Option<Option<Ledger>>,
}

/// What a server's links are set to. `keys`: its private key, and that of the arbiter.
fn settings(number: usize, me: Server, port: u16, key: [u8; 32], keys: Option<[&PrivateKey; 2]>) -> Settings {
    let own = address(number, 1 + me.index() as u8);
    let id = ["nd1", "nd2"][me.index()].to_owned();
    Settings {
        me: mirroring_controller::fsm::types::Member::Server(me),
        id,
        listen: vec![(own.clone(), port)],
        peers: vec![Peer {
            member: mirroring_controller::fsm::types::Member::Arbiter,
            id: "arb".to_owned(),
            address: ("127.0.0.1".to_owned(), port),
            hosts: vec!["127.0.0.1".to_owned()],
            from: Some(own.clone()),
            silence_ms: 10_000,
            key: keys.map(|keys| keys[1].public()),
        }],
        key,
        own_key: keys.map(|keys| keys[0].clone()),
        interval_ms: 100,
        timeout_ms: 5000,
    }
}

impl Member {
    /// `keys`: its private key, and that of the arbiter.
    fn new(
        number: usize,
        me: Server,
        port: u16,
        key: [u8; 32],
        system: SystemId,
        keys: Option<[&PrivateKey; 2]>,
    ) -> Member {
        let settings = settings(number, me, port, key, keys);
        let own = settings.listen[0].0.clone();
        let (inbox, events) = Inbox::new();
        let links = Arc::new(Links::start(settings, inbox, Bystander::default()).unwrap());
        let told = Heartbeat {
            system: Some(system),
            detection_ms: DETECTION_MS,
            // Nobody listens there.
            address: format!("{own}:{}", port - 1),
            ..Heartbeat::blank()
        };
        let member = Member {
            me,
            links,
            told: Arc::new(Mutex::new(told)),
            heard: Arc::default(),
            beats: Arc::new(AtomicBool::new(true)),
            stop: Arc::default(),
        };
        member.live(events);
        member
    }

    fn live(&self, events: Receiver<(Time, Event)>) {
        let (told, heard, links) = (self.told.clone(), self.heard.clone(), Arc::downgrade(&self.links));
        let (beats, stop) = (self.beats.clone(), self.stop.clone());
        std::thread::spawn(move || {
            let mut seq = (Instant::now().elapsed().as_nanos() as u64 | std::process::id() as u64) << 20;
            let mut next = Instant::now();
            while !stop.load(Ordering::SeqCst) {
                if Instant::now() >= next {
                    next += Duration::from_millis(BEAT_MS);
                    seq += 1;
                    let heartbeat = Heartbeat { seq, ..told.lock().unwrap().clone() };
                    let Some(links) = links.upgrade() else { return };
                    if beats.load(Ordering::SeqCst) {
                        links.send(
                            mirroring_controller::fsm::types::Member::Arbiter,
                            &Message::Heartbeat(Box::new(heartbeat)),
                        );
                    }
                }
                let Ok((_, event)) = events.recv_deadline(next) else { continue };
                match event {
                    Event::Heard(_, Message::Heartbeat(heartbeat)) => {
                        let mut heard = heard.lock().unwrap();
                        (heard.system, heard.beat) = (heartbeat.system.unwrap_or_default(), heartbeat.ledger);
                    }
                    Event::Heard(_, Message::Answer { ledger }) => heard.lock().unwrap().answer = Some(ledger),
                    _ => (),
                }
            }
        });
    }

    fn tell(&self, view: View) {
        let system = self.told.lock().unwrap().system.expect("a system identifier");
        self.told.lock().unwrap().ledger = Some(ledger(system, self.me, view));
    }

    /// The system identifier that the arbiter reported last.
    fn system(&self) -> SystemId {
        self.heard.lock().unwrap().system
    }

    /// The arbiter's ledger, as last heard.
    fn arbiter(&self) -> Option<Ledger> {
        self.heard.lock().unwrap().beat
    }

    /// Asks for the right to run alone until the arbiter answers; whether it was given.
    fn ask(&self, base: View, view: View) -> bool {
        let system = self.told.lock().unwrap().system.expect("a system identifier");
        let (base, known) = (ledger(system, self.me, base), (None, Term(0)));
        let message = Message::Propose { base, view, received: Lsn(0), point: None, known, why: String::new() };
        self.heard.lock().unwrap().answer = None;
        let mut answer = None;
        until("the arbiter answers a proposal", || {
            self.links.send(mirroring_controller::fsm::types::Member::Arbiter, &message);
            std::thread::sleep(Duration::from_millis(80));
            answer = self.heard.lock().unwrap().answer;
            answer.is_some()
        });
        answer.flatten().is_some_and(|ledger| ledger.view == view)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn ledger(system: SystemId, me: Server, view: View) -> Ledger {
    let data = DataIdentity { id: DataId(1 + me.index() as u64), ..DataIdentity::default() };
    Ledger { system, id: LedgerId(10 + me.index() as u64), data, view, promised: view.term }
}

fn view(term: u64, primary: Server, mode: Mode, arbiter: LedgerId) -> View {
    View {
        term: Term(term),
        primary,
        mode,
        data: [Some(DataId(1)), Some(DataId(2))],
        arbiter: (arbiter.0 != 0).then_some(arbiter),
        forced: false,
    }
}

/// A pair that is mirrored and has named the arbiter.
fn mirrored(arb: &Arb, number: usize) -> ([Member; 2], View) {
    let pair = Server::BOTH.map(|server| arb.member(number, server));
    let begin = view(1, Server::First, Mode::Degraded, LedgerId(0));
    pair.iter().for_each(|member| member.tell(begin));
    until("the arbiter has a ledger", || pair.iter().all(|member| member.arbiter().is_some()));
    let id = pair[0].arbiter().unwrap().id;
    let view = view(3, Server::First, Mode::Mirrored, id);
    pair.iter().for_each(|member| member.tell(view));
    until("the arbiter knows the pair mirrored", || {
        pair.iter().all(|member| member.arbiter().is_some_and(|ledger| ledger.view == view))
    });
    (pair, view)
}

fn alone(of: View, server: Server) -> View {
    View { term: of.term.next_for(server), primary: server, mode: Mode::Degraded, ..of }
}

// -------------------------------------------------------------------------------------------------- the configuration

/// What loading says after this change to the files of an arbiter with two clusters.
fn loading(change: impl Fn(&Path, u16)) -> String {
    let arb = Arb::new(2);
    change(arb.dir.path(), arb.port);
    match ArbiterConfig::load(arb.dir.path()) {
        Ok(config) => {
            let refused: String = config.refused.iter().map(|(name, why)| format!(", not {name:?}: {why}")).collect();
            format!("{} clusters, {:?}{refused}", config.clusters.len(), config.remarks)
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_sample_loads() {
    let sample = include_str!("../samples/arbitration.conf");
    assert_eq!(loading(|dir, _| private(&dir.join("arbitration.conf"), sample)), "2 clusters, []");
    // As it stands with every parameter set.
    let set = |dir: &Path, port: u16| {
        let text: String = sample
            .lines()
            .map(|line| line.strip_prefix('#').filter(|l| l.contains(" = ")).unwrap_or(line))
            .filter(|line| !line.starts_with("fencing_command ="))
            .map(|line| line.replace("27540", &port.to_string()) + "\n")
            .collect();
        private(&dir.join("arbitration.conf"), &text);
    };
    assert_eq!(loading(set), "2 clusters, []");
}

#[test]
fn what_an_arbiter_may_not_be_told() {
    let line = |line: &str| {
        let line = line.to_owned();
        move |dir: &Path, _: u16| private(&dir.join("arbitration.conf"), &format!("# c\n{line}\n"))
    };
    let check = |said: String, parts: &[&str]| assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    check(loading(line("prot = 1")), &["arbitration.conf\", line 2: unknown parameter \"prot\"", "my_address"]);
    check(loading(line("port = 0")), &["line 2: port: \"0\" is not valid (allowed: 1 to 65535)"]);
    check(loading(line("port = 70000")), &["line 2: port: \"70000\" is not valid (allowed: 1 to 65535)"]);
    check(loading(line("my_address = '[::1]'")), &["line 2: my_address: ", "allowed: a host name"]);
    check(loading(line("port = 1")), &["line 2: port: 1 is not the arbiter's port in file", "network.conf\", line 3"]);
    check(loading(line("fencing_command = '/none'")), &["line 2: fencing_command: \"/none\" cannot be run"]);
    check(loading(line("fencing_command_timeout = 0")), &["fencing_command_timeout", "allowed: 1 to"]);
    check(loading(line("syslog_facility = USER")), &["syslog_facility", "LOCAL0"]);
    check(loading(line("heartbeat_interval = 800")), &["2 clusters", "heartbeat_interval", "has no effect"]);
    check(loading(line("my_address = '0.0.0.0'")), &["2 clusters, []"]);
    let missing = |name: &'static str| move |dir: &Path, _: u16| fs::remove_file(dir.join(name)).unwrap();
    check(loading(missing("arbitration.conf")), &["could not open file", "mc_arb init -M"]);
    let shared = |dir: &Path, _: u16| {
        fs::set_permissions(dir.join("clusters"), fs::Permissions::from_mode(0o775)).unwrap();
    };
    check(loading(shared), &["clusters\" has mode 0775", "chmod go-w"]);
    // A mistake in the files of one cluster is no reason to serve no other.
    check(loading(missing("mc.key")), &["1 clusters", "not \"\": could not open file", "mc.key", "Copy mc.key"]);
    check(
        loading(missing("clusters/c02/network.conf")),
        &["1 clusters", "not \"c02\": ", "clusters/c02/network.conf", "Copy network.conf"],
    );
    check(
        loading(|dir, _| private(&dir.join("network.conf"), "a h 1\nb i 1\n")),
        &["1 clusters", "has no arbiter", "arbiter\""],
    );
    check(
        loading(|dir, _| {
            missing("mc.key")(dir, 0);
            missing("clusters/c02/mc.key")(dir, 0);
        }),
        &["could not open file"],
    );
    check(
        loading(|dir, _| drop(fs::copy(dir.join("mc.key"), dir.join("clusters/c02/mc.key")))),
        &["files \"", "contain the same key", "its own"],
    );
    let open = |dir: &Path, _: u16| {
        fs::set_permissions(dir.join("mc.key"), fs::Permissions::from_mode(0o644)).unwrap();
    };
    check(loading(open), &["1 clusters", "mc.key\" has mode 0644", "chmod 600"]);
}

#[test]
fn the_command_line_of_root_and_of_nobody() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mc_arb"));
        let Output { status, stdout, stderr } = command.args(arguments).env_remove("ARBCONTROLDIR").output().unwrap();
        let said = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
        (status.code().unwrap(), said)
    };
    let (code, said) = run(&["--help"]);
    assert!(code == 0 && said.contains("Exit status: 0 done"), "{said}");
    assert_eq!(run(&["dance"]).0, 2);
    assert_eq!(run(&["forget"]).0, 2);
    let (code, said) = run(&["status"]);
    let expected = match rustix::process::geteuid().is_root() {
        true => "cannot be run as root",
        false => "environment variable ARBCONTROLDIR unset",
    };
    assert!(code == 2 && said.contains(expected), "{said}");
}

// ---------------------------------------------------------------------------------------------------------- the tests

#[test]
fn twenty_clusters_in_one_process() {
    if !common::as_postgres("twenty_clusters_in_one_process") {
        return;
    }
    let mut arb = Arb::new(20);
    arb.start();
    let mut pairs: Vec<_> = (1..=20).map(|number| mirrored(&arb, number)).collect();
    let ids: std::collections::BTreeSet<_> = pairs.iter().map(|(pair, _)| pair[0].arbiter().unwrap().id).collect();
    assert_eq!(ids.len(), 20, "each cluster has a ledger of its own");
    for number in 1..=20 {
        let status = arb.cluster(number);
        assert_eq!(status["system_identifier"], system(number).0.to_string());
        assert_eq!((&status["view"]["mode"], &status["view"]["primary"]), (&"mirrored".into(), &"nd1".into()));
        assert!(status["servers"].as_array().unwrap().iter().all(|server| server["status"] == "online"), "{status}");
    }
    // The incumbent is heard: a standby is not given the right, the primary is, at once.
    std::thread::sleep(Duration::from_millis(DETECTION_MS));
    for (pair, view) in &pairs[..10] {
        assert!(!pair[1].ask(*view, alone(*view, Server::Second)), "the primary lives");
    }
    for (pair, view) in &mut pairs[10..15] {
        let alone = alone(*view, Server::First);
        assert!(pair[0].ask(*view, alone));
        assert!(!pair[1].ask(*view, View { term: Term(alone.term.0 + 1), ..self::alone(*view, Server::Second) }));
        *view = alone;
    }
    // An incumbent that is silent for its detection time.
    for (pair, view) in &mut pairs[..5] {
        pair[0].beats.store(false, Ordering::SeqCst);
        *view = alone(*view, Server::Second);
    }
    let begin = Instant::now();
    for (pair, view) in &pairs[..5] {
        let base = pair[1].told.lock().unwrap().ledger.unwrap().view;
        until("the standby is given the right", || pair[1].ask(base, *view));
    }
    assert!(begin.elapsed() >= Duration::from_millis(DETECTION_MS - 500), "{:?}", begin.elapsed());
    // What was given is remembered over a restart: nobody else gets it.
    let views: Vec<View> = pairs.iter().map(|(_, view)| *view).collect();
    arb.stop();
    arb.start();
    for (number, (pair, view)) in (1..).zip(&pairs) {
        let expected = if view.mode == Mode::Mirrored { "mirrored" } else { "degraded" };
        assert_eq!(arb.cluster(number)["view"]["mode"], expected);
        assert_eq!(arb.cluster(number)["view"]["term"], view.term.0);
        until("heard again", || pair[1].arbiter().is_some_and(|ledger| ledger.view == *view));
    }
    let ids_now: std::collections::BTreeSet<_> = pairs.iter().map(|(pair, _)| pair[1].arbiter().unwrap().id).collect();
    assert_eq!(ids_now, ids);
    let (pair, view) = (&pairs[0].0, views[0]);
    let base = pair[0].told.lock().unwrap().ledger.unwrap().view;
    assert!(!pair[0].ask(base, View { term: Term(view.term.0 + 1), ..alone(base, Server::First) }));
}

#[test]
fn a_host_that_refuses_is_gone_before_the_detection_time() {
    if !common::as_postgres("a_host_that_refuses_is_gone_before_the_detection_time") {
        return;
    }
    let mut arb = Arb::new(1);
    arb.start();
    let (pair, view) = mirrored(&arb, 1);
    pair.iter().for_each(|member| member.told.lock().unwrap().detection_ms = 8000);
    std::thread::sleep(Duration::from_millis(8500));
    assert!(!pair[1].ask(view, alone(view, Server::Second)));
    let [primary, standby] = pair;
    drop(primary);
    let begin = Instant::now();
    until("the standby is given the right", || standby.ask(view, alone(view, Server::Second)));
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
}

#[test]
fn a_controller_that_is_gone_while_its_instance_answers_is_not() {
    if !common::as_postgres("a_controller_that_is_gone_while_its_instance_answers_is_not") {
        return;
    }
    let mut arb = Arb::new(1);
    arb.start();
    let (pair, view) = mirrored(&arb, 1);
    let instance = TcpListener::bind((address(1, 1), 0)).unwrap();
    for member in &pair {
        let mut told = member.told.lock().unwrap();
        told.detection_ms = 4000;
        told.address = instance.local_addr().unwrap().to_string();
    }
    std::thread::sleep(Duration::from_millis(4500));
    let [primary, standby] = pair;
    drop(primary);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(3000) {
        assert!(!standby.ask(view, alone(view, Server::Second)), "{:?}", begin.elapsed());
    }
    until("its silence is enough in the end", || standby.ask(view, alone(view, Server::Second)));
}

#[test]
fn a_ledger_that_is_not_to_be_trusted_stops_its_cluster_alone() {
    if !common::as_postgres("a_ledger_that_is_not_to_be_trusted_stops_its_cluster_alone") {
        return;
    }
    let mut arb = Arb::new(3);
    arb.start();
    let pairs: Vec<_> = (1..=3).map(|number| mirrored(&arb, number)).collect();
    let old = pairs[1].0[0].arbiter().unwrap().id;
    arb.stop();
    // Restored from a backup: the same bytes, another file.
    let copy = arb.ledger(2).with_extension("backup");
    fs::copy(arb.ledger(2), &copy).unwrap();
    fs::rename(&copy, arb.ledger(2)).unwrap();
    arb.start();
    until("the others are served", || {
        [1, 3].iter().all(|number| arb.cluster(*number)["servers"][0]["status"] == "online")
    });
    let problem = arb.cluster(2)["problem"].as_str().unwrap().to_owned();
    assert!(problem.contains("restored from a backup") && problem.contains("mc_arb forget"), "{problem}");
    assert_eq!(arb.cluster(2)["servers"][0]["status"], "offline");
    let (code, said) = arb.run(&["status"]);
    assert!(code == 1 && said.contains("not served: ledger"), "{said}");
    assert!(arb.log().contains("cluster \"c02\": not served: ledger"), "{}", arb.log());
    assert!(arb.log().contains("(MCA01135)"), "{}", arb.log());
    // A cluster whose servers are connected is not forgotten.
    let (code, said) = arb.run(&["forget", &system(1).0.to_string()]);
    assert!(code == 4 && said.contains("is connected"), "{code}: {said}");
    let (code, said) = arb.run(&["forget", &system(2).0.to_string()]);
    assert_eq!(code, 0, "{said}");
    let arbiter = || pairs[1].0[0].arbiter().map(|ledger| ledger.id);
    until("it is served again, as a new arbiter", || arbiter().is_some_and(|id| id != old));
    // The view names the old one.
    std::thread::sleep(Duration::from_millis(DETECTION_MS + 200));
    let (pair, view) = &pairs[1];
    assert!(!pair[0].ask(*view, alone(*view, Server::First)));
    assert!(arb.log().contains("the view names another arbiter"));
}

#[test]
fn what_is_forgotten_while_it_does_not_run() {
    if !common::as_postgres("what_is_forgotten_while_it_does_not_run") {
        return;
    }
    let mut arb = Arb::new(1);
    arb.start();
    let (pair, _) = mirrored(&arb, 1);
    arb.stop();
    let number = system(1).0.to_string();
    let copy = arb.ledger(1).with_extension("backup");
    fs::copy(arb.ledger(1), &copy).unwrap();
    fs::rename(&copy, arb.ledger(1)).unwrap();
    // It says so at once, and loudly: nothing is left for it to serve.
    let (code, said) = arb.run(&["start"]);
    assert!(code == 1 && said.contains("ERROR: the cluster of this directory is not served: ledger"), "{code}: {said}");
    assert!(said.contains(&format!("mc_arb forget {number}")), "{said}");
    assert_eq!(arb.run(&["stop"]).0, 0);
    assert_eq!(arb.run(&["forget", &number]).0, 0);
    assert!(!arb.ledger(1).exists());
    let (code, said) = arb.run(&["forget", &number]);
    assert!(code == 4 && said.contains("there is no ledger"), "{code}: {said}");
    drop(pair);
}

#[test]
fn a_stranger_and_a_foreign_key_get_no_answer() {
    if !common::as_postgres("a_stranger_and_a_foreign_key_get_no_answer") {
        return;
    }
    let mut arb = Arb::new(2);
    arb.start();
    // The key of cluster 2 in the hands of a server with an address of cluster 1, and a key of nobody.
    let foreign = Member::new(1, Server::First, arb.port, key(2), system(2), None);
    // Who only looks whether the port is open is not reported, and does not delay the report of a stranger.
    drop(std::net::TcpStream::connect(("127.0.0.1", arb.port)).unwrap());
    let stranger = Member::new(3, Server::First, arb.port, key(3), system(3), None);
    let begin = view(1, Server::First, Mode::Degraded, LedgerId(0));
    foreign.tell(begin);
    stranger.tell(begin);
    until("cluster 2 is learned, whatever the address", || foreign.arbiter().is_some());
    assert_eq!(foreign.arbiter().unwrap().system, system(2));
    assert_eq!(arb.cluster(1)["system_identifier"], serde_json::Value::Null);
    until("the stranger is reported", || arb.log().contains("does not have the mc.key of any cluster"));
    assert!(stranger.arbiter().is_none());
    // Two clusters of one system identifier: the second is not served.
    let copy = Member::new(1, Server::Second, arb.port, key(1), system(2), None);
    copy.tell(begin);
    until("the copy is refused", || !arb.cluster(1)["problem"].is_null());
    assert!(arb.cluster(1)["problem"].as_str().unwrap().contains("is that of cluster \"c02\""));
    assert!(foreign.arbiter().is_some());
}

/// `mc_arb init` makes a key for each cluster, once, and what it prints is what is to be listed.
#[test]
fn the_arbiter_has_a_key_for_each_cluster() {
    if !common::as_postgres("the_arbiter_has_a_key_for_each_cluster") {
        return;
    }
    let arb = Arb::new(2);
    let (code, said) = arb.run(&["init"]);
    let printed: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("  key=")).collect();
    assert!(code == 0 && printed.len() == 2, "{said}");
    for (place, printed) in ["arb.private", "clusters/c02/arb.private"].into_iter().zip(printed) {
        let path = arb.dir.path().join(place);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert!(!said.contains(text.trim()));
        assert_eq!(PrivateKey::parse(&path, &text).unwrap().public().to_string(), printed);
    }
    assert_eq!(arb.run(&["init"]).1.lines().next(), Some("nothing had to be created"));
    let open = loading(|dir, _| {
        private(&dir.join("arb.private"), &"5a01".repeat(16));
        fs::set_permissions(dir.join("arb.private"), fs::Permissions::from_mode(0o640)).unwrap();
    });
    assert!(open.contains("1 clusters") && open.contains("arb.private\" has mode 0640"), "{open}");
    // A file of its own for the parameters, where there is none.
    fs::remove_file(arb.dir.path().join("arbitration.conf")).unwrap();
    assert!(arb.run(&["init"]).1.contains("arbitration.conf"));
}

#[test]
fn a_server_proves_its_own_key_to_the_arbiter() {
    if !common::as_postgres("a_server_proves_its_own_key_to_the_arbiter") {
        return;
    }
    let mut arb = Arb::new(1);
    let [one, two, three] = [1, 2, 3].map(|number| format!("{}0{number}", "5a".repeat(31)));
    private(&arb.dir.path().join("arb.private"), &three);
    let [one, two, three] = [one, two, three].map(|text| PrivateKey::parse("k".as_ref(), &text).unwrap());
    // Listed nowhere yet: a server with a key and a server without one are served alike.
    let old = arb.dir.path().join("network.conf");
    let text = fs::read_to_string(&old).unwrap();
    let begin = view(1, Server::First, Mode::Degraded, LedgerId(0));
    arb.start();
    let port = arb.port;
    // Each with an address of its own: the arbiter looks at keys.
    let new = |number, keys, server| Member::new(number, server, port, key(1), system(1), keys);
    let (first, second) = (new(1, Some([&one, &three]), Server::First), new(1, None, Server::Second));
    for member in [&first, &second] {
        member.tell(begin);
        until("both servers are heard", || member.arbiter().is_some());
    }
    drop((first, second));
    arb.stop();
    let keys = [&one, &two, &three].map(PrivateKey::public);
    private(&old, &text.lines().zip(keys).map(|(line, key)| format!("{line} key={key}\n")).collect::<String>());
    arb.start();
    // Who has only mc.key, and another server's key, is told nothing.
    let shared = new(2, None, Server::First);
    shared.tell(begin);
    until("the caller is reported", || {
        arb.log().contains("as member \"nd1\" or \"nd2\" was refused: it proves only mc.key")
    });
    let other = new(3, Some([&two, &three]), Server::First);
    other.tell(begin);
    let right = new(4, Some([&two, &three]), Server::Second);
    right.tell(begin);
    until("the server with its key is heard", || right.arbiter().is_some());
    std::thread::sleep(Duration::from_millis(2 * BEAT_MS));
    assert!(shared.arbiter().is_none() && other.arbiter().is_none());
    drop((shared, other));
    let first = new(5, Some([&one, &three]), Server::First);
    first.tell(begin);
    until("the other server is heard", || first.arbiter().is_some());
}

#[test]
fn a_mistake_in_the_files_of_one_cluster_stops_no_other() {
    if !common::as_postgres("a_mistake_in_the_files_of_one_cluster_stops_no_other") {
        return;
    }
    let mut arb = Arb::new(2);
    let key_file = arb.dir.path().join("clusters/c02/mc.key");
    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o644)).unwrap();
    arb.start();
    let (code, said) = arb.run(&["status"]);
    assert!(code == 1 && said.contains("cluster c02\nnot served: ") && said.contains("has mode 0644"), "{said}");
    assert!(arb.cluster(2)["problem"].as_str().unwrap().contains("chmod 600"));
    assert!(arb.log().contains("cluster \"c02\": not served: "), "{}", arb.log());
    // What is typed before the restart that serves it tells the same.
    let (code, said) = arb.run(&["start"]);
    assert!(
        code == 4 && said.contains("cluster \"c02\" is not served: ") && said.contains("already running"),
        "{said}"
    );
    let one = arb.member(1, Server::First);
    one.tell(view(1, Server::First, Mode::Degraded, LedgerId(0)));
    until("the other cluster is served", || one.arbiter().is_some());
    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).unwrap();
    arb.stop();
    arb.start();
    assert_eq!((arb.run(&["status"]).0, &arb.cluster(2)["problem"]), (0, &serde_json::Value::Null));
}

#[test]
fn fencing_comes_before_a_grant() {
    if !common::as_postgres("fencing_comes_before_a_grant") {
        return;
    }
    let mut arb = Arb::new(1);
    let (script, said, verdict) = {
        let place = |name: &str| arb.dir.path().join(name);
        (place("fence"), place("said"), place("verdict"))
    };
    let text = "echo \"$* $MC_TERM\" >> \"${0%fence}said\"; exit $(cat \"${0%fence}verdict\")";
    // Written by another process: a file that a thread next door has open while it forks cannot be run.
    let write = format!("printf '#!/bin/sh\\n%s\\n' '{text}' > \"$0\" && chmod 700 \"$0\"");
    assert!(Command::new("sh").args(["-c", &write]).arg(&script).status().unwrap().success());
    fs::write(&verdict, "1").unwrap();
    let conf = arb.dir.path().join("arbitration.conf");
    let more = format!("{}fencing_command = '{}'\n", fs::read_to_string(&conf).unwrap(), script.display());
    private(&conf, &more);
    arb.start();
    let (pair, view) = mirrored(&arb, 1);
    std::thread::sleep(Duration::from_millis(DETECTION_MS));
    pair[0].beats.store(false, Ordering::SeqCst);
    until("it is fenced", || {
        let given = pair[1].ask(view, alone(view, Server::Second));
        assert!(!given, "the fencing command fails");
        said.exists()
    });
    assert_eq!(fs::read_to_string(&said).unwrap(), "monitor switch arb nd1 primarycenter 3\n");
    until("the failure is told", || arb.log().contains("fencing_command for server \"nd1\" has failed"));
    fs::write(&verdict, "0").unwrap();
    until("the standby is given the right", || pair[1].ask(view, alone(view, Server::Second)));
}

/// What a server reports bounds nothing: the time until the fencing command is called again must not overflow.
#[test]
fn a_detection_time_without_bounds_is_no_overflow() {
    let (system, id) = (SystemId(5), LedgerId(7));
    let view = view(3, Server::First, Mode::Mirrored, id);
    let base = ledger(system, Server::First, view);
    let durable = Some(Durable { ledger: Ledger { id, ..base }, notes: Notes::default() });
    let mut arbiter = Arbiter::new(ArbiterSettings { pause_ms: 500, fencing: true, seed: 1, durable }, Time(1000));
    let heard = |message| Event::Heard(mirroring_controller::fsm::types::Member::Server(Server::First), message);
    let told =
        Heartbeat { seq: 1, system: Some(system), ledger: Some(base), detection_ms: u64::MAX, ..Heartbeat::blank() };
    arbiter.step(Time(1100), heard(Message::Heartbeat(Box::new(told))));
    let (known, why) = ((Some(id), Term(3)), String::new());
    let propose =
        Message::Propose { base, view: alone(view, Server::First), received: Lsn(0), point: None, known, why };
    let actions = arbiter.step(Time(1200), heard(propose));
    assert!(actions.iter().any(|action| matches!(action, Action::Call(..))), "{actions:?}");
}

#[test]
fn an_arbiter_that_was_stopped_for_a_while_listens_anew() {
    if !common::as_postgres("an_arbiter_that_was_stopped_for_a_while_listens_anew") {
        return;
    }
    let mut arb = Arb::new(1);
    arb.start();
    let (pair, view) = mirrored(&arb, 1);
    std::thread::sleep(Duration::from_millis(DETECTION_MS));
    // While it stands still the primary falls silent: what it has not heard then it does not hold against anybody.
    let process = rustix::process::Pid::from_raw(arb.process.as_ref().unwrap().id() as i32).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::STOP).unwrap();
    pair[0].beats.store(false, Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(DETECTION_MS + 500));
    rustix::process::kill_process(process, rustix::process::Signal::CONT).unwrap();
    let begin = Instant::now();
    assert!(!pair[1].ask(view, alone(view, Server::Second)));
    until("the standby is given the right", || pair[1].ask(view, alone(view, Server::Second)));
    assert!(begin.elapsed() >= Duration::from_millis(DETECTION_MS - 500), "{:?}", begin.elapsed());
    assert!(arb.log().contains("(MCA01025)"));
}

#[test]
fn one_arbiter_in_a_directory_and_a_watcher_that_starts_it_again() {
    if !common::as_postgres("one_arbiter_in_a_directory_and_a_watcher_that_starts_it_again") {
        return;
    }
    let arb = Arb::new(1);
    assert_eq!(arb.run(&["status"]).0, 3);
    let (code, text) = arb.run(&["start"]);
    assert_eq!((code, text.as_str()), (0, "the arbiter is started, for 1 cluster\n"));
    assert_eq!(arb.run(&["start"]).0, 4);
    assert_eq!(arb.run(&["start", "--foreground"]).0, 4);
    let pid = arb.status()["pid"].as_u64().unwrap();
    // Its memory contains the keys: no core file, and no other process of the same user reads it.
    let memory = fs::File::open(format!("/proc/{pid}/environ"));
    assert_eq!(memory.map(|_| ()).map_err(|cause| cause.kind()), Err(std::io::ErrorKind::PermissionDenied));
    let process = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    until("it is started again", || {
        let (code, said) = arb.run(&["status", "--format", "json"]);
        let told: Option<serde_json::Value> = serde_json::from_str(&said).ok();
        code == 0 && told.is_some_and(|told| told["pid"] != pid)
    });
    assert!(arb.log().contains("(MCA01132)"));
    assert_eq!(arb.run(&["stop", "-e"]).0, 0);
    assert_eq!(arb.run(&["stop", "-e"]).0, 3);
    assert_eq!(arb.run(&["start", "-W"]).0, 0);
    assert_eq!(arb.run(&["stop"]).0, 0);
    assert_eq!(arb.run(&["start"]).0, 0, "right after a stop nobody is there");
    assert_eq!(arb.run(&["stop"]).0, 0);
}
