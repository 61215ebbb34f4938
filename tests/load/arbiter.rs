//! What one arbiter costs with many clusters: CPU seconds in 10 s, and memory.
//!
//! `cargo bench --bench arbiter_load` runs one `mc_arb` with 1,000 clusters (or `$ARB_CLUSTERS`), and in this process both
//! servers of each, which speak the real protocol over the loopback interface: a heartbeat each 800 ms, each pair
//! mirrored, from addresses of their own. Then a tenth of the primaries asks for the right to run alone. Fails where the
//! arbiter takes more than 1 core-second in 10 s, or 64 MiB, or answers wrongly.

use mirroring_controller::daemon::noise::{Identity, Writer};
use mirroring_controller::fsm::event::{Heartbeat, Message};
use mirroring_controller::fsm::types::*;
use mirroring_controller::wire::{self, Hello};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketType};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

const THREADS: usize = 4;
const INTERVAL: Duration = Duration::from_millis(800);
const DETECTION_MS: u64 = 5400;
const WINDOW: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(60);
const MAX_CPU_SECONDS: f64 = 1.0;
const MAX_KIB: u64 = 64 * 1024;

/// The address of a cluster's server: of its own, as on real hosts.
fn address(cluster: usize, server: Server) -> Ipv4Addr {
    Ipv4Addr::new(127, (1 + cluster / 250) as u8, (cluster % 250) as u8, 1 + server.index() as u8)
}

fn key(cluster: usize) -> [u8; 32] {
    std::array::from_fn(|at| (cluster >> (at % 2 * 8)) as u8 ^ (at * 37) as u8)
}

fn system(cluster: usize) -> SystemId {
    SystemId(7_000_000_000_000_000_000 + cluster as u64)
}

// --------------------------------------------------------------------------------------------------------- the arbiter

struct Arb {
    dir: PathBuf,
    process: Child,
    /// The user that it runs as; it refuses root.
    user: u32,
}

/// Writes the directory of an arbiter with so many clusters.
fn directory(dir: &Path, clusters: usize, port: u16, user: u32) {
    let own = |path: &Path, mode: u32| {
        chown(path, Some(user), None).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let private = |path: PathBuf, text: String| {
        fs::write(&path, text).unwrap();
        own(&path, 0o600);
    };
    private(dir.join("arbitration.conf"), format!("port = {port}\n"));
    fs::create_dir(dir.join("clusters")).unwrap();
    own(&dir.join("clusters"), 0o700);
    for cluster in 0..clusters {
        let place = dir.join(format!("clusters/c{cluster:05}"));
        fs::create_dir(&place).unwrap();
        own(&place, 0o700);
        let [one, two] = Server::BOTH.map(|server| address(cluster, server));
        private(
            place.join("network.conf"),
            format!("nd1 {one} {port}\nnd2 {two} {port}\narb 127.0.0.1 {port} arbiter\n"),
        );
        private(place.join("mc.key"), key(cluster).iter().map(|byte| format!("{byte:02x}")).collect());
    }
    own(dir, 0o700);
}

impl Arb {
    fn command(dir: &Path, user: u32, arguments: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_mc_arb");
        let mut command = match rustix::process::geteuid().is_root() {
            true => {
                let mut command = Command::new("setpriv");
                command.arg(format!("--reuid={user}")).args(["--clear-groups", "--", program]);
                command
            }
            false => Command::new(program),
        };
        command.args(arguments).arg("-M").arg(dir).current_dir("/");
        command
    }

    fn start(dir: &Path, user: u32) -> Arb {
        let process = Arb::command(dir, user, &["start", "--foreground"]).stderr(Stdio::null()).spawn().unwrap();
        let arb = Arb { dir: dir.to_owned(), process, user };
        let deadline = Instant::now() + LIMIT;
        while !Arb::command(dir, user, &["status"]).output().unwrap().status.success() {
            assert!(Instant::now() < deadline, "mc_arb does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        arb
    }

    fn stop(mut self) {
        let stopped = Arb::command(&self.dir, self.user, &["stop"]).output().unwrap();
        assert!(stopped.status.success(), "{}", String::from_utf8_lossy(&stopped.stderr));
        self.process.wait().unwrap();
    }

    fn online(&self) -> usize {
        let output = Arb::command(&self.dir, self.user, &["status"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.ends_with("online")).count()
    }

    /// CPU seconds that it has used.
    fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
        (ticks(11) + ticks(12)) / rustix::param::clock_ticks_per_second() as f64
    }

    /// `VmRSS` and `VmHWM`, KiB.
    fn memory(&self) -> [u64; 2] {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        ["VmRSS:", "VmHWM:"].map(|name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().split(' ').next().unwrap().parse().unwrap()
        })
    }
}

impl Drop for Arb {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

// --------------------------------------------------------------------------------------------------------- the servers

/// One server of a cluster.
struct Member {
    cluster: usize,
    me: Server,
    port: u16,
    link: Option<Writer>,
    due: Instant,
    seq: u64,
    view: View,
    /// The arbiter's ledger, as last heard.
    arbiter: Option<Ledger>,
    /// What was answered to its proposal.
    answer: Option<Option<Ledger>>,
}

/// What the threads and the measurement share.
struct Shared {
    stop: AtomicBool,
    /// Primaries of every tenth cluster ask for the right to run alone.
    ask: AtomicBool,
    mirrored: AtomicUsize,
    answered: AtomicUsize,
    dials: AtomicUsize,
    wrong: Mutex<Vec<String>>,
    begin: Barrier,
}

impl Member {
    fn new(cluster: usize, me: Server, port: u16, due: Instant) -> Member {
        let view = View {
            term: Term(1),
            primary: Server::First,
            mode: Mode::Degraded,
            data: [Some(DataId(1)), Some(DataId(2))],
            arbiter: None,
            forced: false,
        };
        let (seq, link, arbiter, answer) = ((cluster as u64 + 1) << 20, None, None, None);
        Member { cluster, me, port, link, due, seq, view, arbiter, answer }
    }

    fn ledger(&self) -> Ledger {
        let id = LedgerId(10 + self.me.index() as u64);
        let data = DataIdentity { id: DataId(1 + self.me.index() as u64), ..DataIdentity::default() };
        Ledger { system: system(self.cluster), id, data, view: self.view, promised: self.view.term }
    }

    fn dial(&mut self) -> Result<(), String> {
        let failed = |cause: &dyn std::fmt::Display| format!("cluster {}: {cause}", self.cluster);
        let own = IpAddr::V4(address(self.cluster, self.me));
        let socket =
            rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).map_err(|cause| failed(&cause))?;
        rustix::net::bind(&socket, &SocketAddr::new(own, 0)).map_err(|cause| failed(&cause))?;
        let arbiter: SocketAddr = (Ipv4Addr::LOCALHOST, self.port).into();
        rustix::net::connect(&socket, &arbiter).map_err(|cause| failed(&cause))?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true).map_err(|cause| failed(&cause))?;
        let id = ["nd1", "nd2"][self.me.index()].to_owned();
        let hello = Hello {
            version: wire::MINOR,
            member: mirroring_controller::fsm::types::Member::Server(self.me),
            id,
            to: "arb".into(),
        };
        let key = key(self.cluster);
        let identity = Identity { shared: &key, own: None };
        let link = Writer::dial(stream, identity, None, &hello, Duration::from_secs(5));
        self.link = Some(link.map_err(|cause| failed(&cause))?);
        Ok(())
    }

    fn send(&mut self, message: &Message) {
        let body = wire::encode(message).unwrap();
        if self.link.as_mut().is_some_and(|link| link.send(&body).is_err()) {
            self.link = None;
        }
    }

    fn beat(&mut self, shared: &Shared) {
        if self.link.is_none() {
            shared.dials.fetch_add(1, Ordering::SeqCst);
            if self.dial().is_err() {
                return;
            }
        }
        self.seq += 1;
        let heartbeat = Heartbeat {
            seq: self.seq,
            system: Some(system(self.cluster)),
            ledger: Some(self.ledger()),
            detection_ms: DETECTION_MS,
            name: "nd1".into(),
            address: format!("{}:5432", address(self.cluster, self.me)),
            ..Heartbeat::blank()
        };
        self.send(&Message::Heartbeat(Box::new(heartbeat)));
        let asks = self.cluster.is_multiple_of(10) && self.me == Server::First && self.answer.is_none();
        if asks && shared.ask.load(Ordering::SeqCst) && self.view.mode == Mode::Mirrored {
            let view = View { term: self.view.term.next_for(self.me), mode: Mode::Degraded, ..self.view };
            let known = self.arbiter.map_or((None, Term(0)), |ledger| (Some(ledger.id), ledger.promised));
            self.send(&Message::Propose {
                base: self.ledger(),
                view,
                received: Lsn(0),
                point: None,
                known,
                why: String::new(),
            });
        }
    }

    fn take(&mut self, shared: &Shared) {
        let Some(link) = self.link.as_mut() else { return };
        let Ok(bodies) = link.take() else {
            self.link = None;
            return;
        };
        for body in bodies {
            match wire::decode(&body) {
                Ok(Message::Heartbeat(heartbeat)) => self.heard(heartbeat.ledger, shared),
                Ok(Message::Answer { ledger }) => {
                    if self.answer.replace(ledger).is_none() {
                        shared.answered.fetch_add(1, Ordering::SeqCst);
                    }
                    let given = ledger.is_some_and(|ledger| ledger.view.is_alone(self.me));
                    if !given {
                        shared.wrong.lock().unwrap().push(format!("cluster {}: {ledger:?}", self.cluster));
                    }
                }
                other => shared.wrong.lock().unwrap().push(format!("cluster {}: {other:?}", self.cluster)),
            }
        }
    }

    fn heard(&mut self, ledger: Option<Ledger>, shared: &Shared) {
        let Some(ledger) = ledger else { return };
        if ledger.system != system(self.cluster) {
            shared.wrong.lock().unwrap().push(format!("cluster {}: {ledger:?}", self.cluster));
        }
        if self.arbiter.is_none() {
            self.view = View { term: Term(3), mode: Mode::Mirrored, arbiter: Some(ledger.id), ..self.view };
        }
        let knows = |ledger: &Ledger| ledger.view.mode == Mode::Mirrored;
        if knows(&ledger) && !self.arbiter.as_ref().is_some_and(knows) {
            shared.mirrored.fetch_add(1, Ordering::SeqCst);
        }
        self.arbiter = Some(ledger);
    }
}

/// Lets some members live: their heartbeats are spread evenly over the interval.
fn live(mut members: Vec<Member>, shared: &Shared) {
    for member in &mut members {
        while let Err(cause) = member.dial() {
            println!("{cause}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    shared.begin.wait();
    let begin = Instant::now();
    let count = members.len() as u32;
    for (place, member) in (0..).zip(&mut members) {
        member.due = begin + INTERVAL * place / count;
    }
    while !shared.stop.load(Ordering::SeqCst) {
        let now = Instant::now();
        for member in members.iter_mut().filter(|member| member.due <= now) {
            member.due += INTERVAL;
            member.beat(shared);
        }
        let linked: Vec<usize> = (0..members.len()).filter(|place| members[*place].link.is_some()).collect();
        let mut fds: Vec<PollFd<'_>> = linked
            .iter()
            .filter_map(|place| members[*place].link.as_ref())
            .map(|link| PollFd::new(link.stream(), PollFlags::IN))
            .collect();
        let _ = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        let ready: Vec<usize> =
            linked.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty()).map(|(place, _)| *place).collect();
        drop(fds);
        for place in ready {
            members[place].take(shared);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

// ------------------------------------------------------------------------------------------------------ the measurement

fn wait_for(what: &str, mut done: impl FnMut() -> bool) -> Duration {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < LIMIT, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    begin.elapsed()
}

/// CPU seconds in one window, and the resident memory at its end, KiB.
fn window(arb: &Arb, what: &str) -> (f64, u64) {
    let before = arb.cpu();
    std::thread::sleep(WINDOW);
    let cpu = arb.cpu() - before;
    let [resident, most] = arb.memory();
    println!(
        "{what}: {cpu:.2} CPU s in {} s; {:.1} MiB resident, {:.1} MiB at most",
        WINDOW.as_secs(),
        resident as f64 / 1024.0,
        most as f64 / 1024.0
    );
    (cpu, most)
}

fn main() {
    // `cargo test --benches` passes --test: nothing is measured then.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let clusters: usize = std::env::var("ARB_CLUSTERS").map_or(1000, |text| text.parse().unwrap());
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let most = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, most).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let user = if rustix::process::geteuid().is_root() { 65534 } else { rustix::process::geteuid().as_raw() };
    directory(dir.path(), clusters, port, user);
    let arb = Arb::start(dir.path(), user);
    println!("{clusters} clusters, {} servers, a heartbeat each {} ms", clusters * 2, INTERVAL.as_millis());

    let shared = Arc::new(Shared {
        stop: AtomicBool::new(false),
        ask: AtomicBool::new(false),
        mirrored: AtomicUsize::new(0),
        answered: AtomicUsize::new(0),
        dials: AtomicUsize::new(0),
        wrong: Mutex::default(),
        begin: Barrier::new(THREADS + 1),
    });
    let now = Instant::now();
    let mut all: Vec<Member> =
        (0..clusters).flat_map(|cluster| Server::BOTH.map(|server| Member::new(cluster, server, port, now))).collect();
    let share = all.len().div_ceil(THREADS);
    let mut threads = Vec::new();
    for _ in 0..THREADS {
        let members = all.split_off(all.len().saturating_sub(share));
        let shared = shared.clone();
        threads.push(std::thread::spawn(move || live(members, &shared)));
    }
    let before = arb.cpu();
    shared.begin.wait();
    println!("connected in {:.2} s, {:.2} CPU s", now.elapsed().as_secs_f64(), arb.cpu() - before);
    let took = wait_for("every pair is mirrored", || shared.mirrored.load(Ordering::SeqCst) == clusters * 2);
    println!("every pair known mirrored {:.2} s later", took.as_secs_f64());
    // From here on no connection may be lost.
    shared.dials.store(0, Ordering::SeqCst);

    let mut measured: Vec<(f64, u64)> = (1..=3).map(|run| window(&arb, &format!("steady {run}"))).collect();
    let asking = clusters.div_ceil(10);
    shared.ask.store(true, Ordering::SeqCst);
    let took = wait_for("every grant", || shared.answered.load(Ordering::SeqCst) == asking);
    println!("{asking} grants in {:.2} s", took.as_secs_f64());
    measured.push(window(&arb, "after them"));
    assert_eq!(arb.online(), clusters * 2);
    assert_eq!(shared.dials.load(Ordering::SeqCst), 0, "connections were lost");

    arb.stop();
    let arb = Arb::start(dir.path(), user);
    let took = wait_for("every server is heard after a restart", || arb.online() == clusters * 2);
    println!("restarted: every server heard after {:.2} s, {:.2} CPU s", took.as_secs_f64(), arb.cpu());
    measured.push(window(&arb, "steady after a restart"));

    shared.stop.store(true, Ordering::SeqCst);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let wrong = shared.wrong.lock().unwrap();
    assert!(wrong.is_empty(), "{} wrong answers: {}", wrong.len(), wrong[0]);
    let cpu = measured.iter().map(|(cpu, _)| *cpu).fold(0.0, f64::max);
    let memory = measured.iter().map(|(_, kib)| *kib).max().unwrap();
    assert!(cpu <= MAX_CPU_SECONDS, "{cpu:.2} CPU s in {} s are more than {MAX_CPU_SECONDS}", WINDOW.as_secs());
    assert!(memory <= MAX_KIB, "{memory} KiB are more than {MAX_KIB}");
}
