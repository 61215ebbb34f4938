//! The health endpoint as load balancers and monitoring meet it: what each path says through failover and cuts, what clients
//! that mean no good can do to it, and a real HAProxy before the pair.

use crate::harness::client::Style;
use crate::harness::host::signal;
use crate::harness::pair::{Pair, Setup};
use crate::harness::run::{Beside, run};
use crate::harness::writer::Writer;
use crate::harness::{s, wait_for};
use postgres::{Client, Config, NoTls};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Of both servers, on all their addresses of both families.
pub const ADDRESS: &str = "health_check_address = '[::]:8008'";
const PORT: u16 = 8008;

/// Answers of `/primary`, `/standby`, `/healthy`; 0 for none.
const PRIMARY: [u16; 3] = [200, 503, 200];
const STANDBY: [u16; 3] = [503, 200, 200];
const NEITHER: [u16; 3] = [503; 3];

/// How long a view may take to be reached and shown, on a loaded test machine.
const SOON: Duration = Duration::from_secs(30);

/// An answer: its status, its head, its body.
struct Told {
    status: u16,
    head: String,
    body: String,
}

/// Sends these bytes and reads to the end of the connection; `None` where nothing, or no whole answer, comes.
fn send(to: &str, bytes: &[u8], patience: Duration) -> Option<Told> {
    let address = to.parse().expect("an address");
    let mut stream = TcpStream::connect_timeout(&address, patience).ok()?;
    stream.set_read_timeout(Some(patience)).expect("a limit");
    stream.write_all(bytes).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Told { status, head: head.into(), body: body.into() })
}

fn endpoint(pair: &Pair, server: usize) -> String {
    format!("{}:{PORT}", pair.servers[server].address)
}

#[track_caller]
fn ask(pair: &Pair, server: usize, method: &str, path: &str) -> Told {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n\r\n", pair.servers[server].id);
    send(&endpoint(pair, server), request.as_bytes(), s(10)).unwrap_or_else(|| panic!("no answer to {method} {path}"))
}

/// As a load balancer asks, from its own place.
pub fn codes(pair: &Pair, server: usize) -> [u16; 3] {
    ["/primary", "/standby", "/healthy"].map(|path| {
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        send(&endpoint(pair, server), request.as_bytes(), s(3)).map_or(0, |told| told.status)
    })
}

#[track_caller]
fn wait_codes(pair: &Pair, server: usize, expected: [u16; 3]) {
    let mut last = [0; 3];
    let begin = Instant::now();
    while last != expected {
        assert!(begin.elapsed() < SOON, "server {server} says {last:?}, not {expected:?}");
        std::thread::sleep(Duration::from_millis(20));
        last = codes(pair, server);
    }
}

fn primary(pair: &Pair, server: usize) -> bool {
    let told = send(&endpoint(pair, server), b"GET /primary HTTP/1.0\r\n\r\n", s(3));
    told.is_some_and(|told| told.status == 200)
}

/// Each path on either server: a well pair, the primary killed, the old primary rebuilt, the standby killed; and the forms
/// of HTTP that are in use.
#[test]
fn paths_through_a_failover_and_back() {
    let pair = Setup::default().conf(ADDRESS).up();
    wait_codes(&pair, 0, PRIMARY);
    wait_codes(&pair, 1, STANDBY);
    forms(&pair);

    let client = pair.client(Style::OneSession);
    let at = pair.kill_postmaster(0);
    while !primary(&pair, 1) {
        assert!(at.elapsed() < SOON, "no primary");
    }
    assert!(!primary(&pair, 0), "the killed one says that it is the primary");
    wait_codes(&pair, 1, PRIMARY);
    wait_codes(&pair, 0, NEITHER);
    client.wait_ack(Instant::now(), s(20));
    pair.rebuild(0, &[]);
    wait_codes(&pair, 0, STANDBY);
    wait_codes(&pair, 1, PRIMARY);

    pair.kill_postmaster(0);
    wait_for("the dead standby says so", SOON, || (codes(&pair, 0) == NEITHER).then_some(()));
    wait_codes(&pair, 1, PRIMARY);
    client.check(&pair, 1, &[0, 1]);
}

fn forms(pair: &Pair) {
    let status = ask(pair, 0, "GET", "/status");
    assert!(status.head.contains("\r\nContent-Type: application/json\r\n"), "{}", status.head);
    let told: serde_json::Value = serde_json::from_str(&status.body).expect("JSON");
    let said: serde_json::Value =
        serde_json::from_str(&pair.mc(0, &["status", "--format", "json"]).expect(0, "mc_ctl status").out)
            .expect("JSON");
    for field in ["mirroring_status", "local_server", "view", "servers", "health"] {
        let fixed = |value: &serde_json::Value| match field {
            "view" => value[field]["term"].clone(),
            "servers" => value[field][0]["host_role"].clone(),
            _ => value[field].clone(),
        };
        assert_eq!(fixed(&told), fixed(&said), "{field}");
    }
    let metrics = ask(pair, 0, "GET", "/metrics?collect=all");
    assert!(metrics.head.contains("\r\nContent-Type: text/plain; version=0.0.4"), "{}", metrics.head);
    for line in ["mirroring_status{status=\"switchable\"} 1", "mirroring_health{path=\"primary\"} 1"] {
        assert!(metrics.body.lines().any(|l| l == line), "{line} is missing in\n{}", metrics.body);
    }
    for method in ["GET", "HEAD", "OPTIONS"] {
        let told = ask(pair, 0, method, "/primary");
        assert_eq!((told.status, told.body.is_empty()), (200, method == "HEAD"), "{method}");
        assert!(told.head.contains("\r\nConnection: close"), "{}", told.head);
        assert_eq!(ask(pair, 1, method, "/primary").status, 503, "{method}");
    }
    for (method, path, status) in [
        ("GET", "/", 404),
        ("OPTIONS", "/", 404),
        ("GET", "/primary/", 404),
        ("POST", "/primary", 405),
        ("DELETE", "/status", 405),
    ] {
        assert_eq!(ask(pair, 0, method, path).status, status, "{method} {path}");
    }
    let six = pair.net.hosts[0].inside(|| send("[::1]:8008", b"GET /primary HTTP/1.0\r\n\r\n", s(10)));
    assert_eq!(six.map(|told| told.status), Some(200));
    let curl = |words: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["-sf", "-o", "/dev/null", "-w", "%{http_code}"]).args(words);
        run(command, s(20)).out
    };
    assert_eq!(curl(&[&format!("http://{}/healthy", endpoint(pair, 0))]), "200");
    assert_eq!(curl(&["-I", &format!("http://{}/standby", endpoint(pair, 0))]), "503");
    assert_eq!(curl(&["--data", "x=1", &format!("http://{}/primary", endpoint(pair, 0))]), "405");
}

/// The servers do not hear each other, the load balancer hears both. The standby takes over by its half; the old primary
/// does not know, acknowledges nothing, and stops to say that it is the primary at about the time at which it cannot be sure.
#[test]
fn an_old_primary_that_is_cut_off_says_no() {
    let pair = Setup::default().conf(ADDRESS).conf("heartbeat_error_action = switch").up();
    wait_codes(&pair, 0, PRIMARY);
    let at = Instant::now();
    pair.net.cut_between(0, 1);
    let mut both = Duration::ZERO;
    let mut last = Instant::now();
    let mut until = None;
    while until.is_none_or(|until| Instant::now() < until) {
        assert!(at.elapsed() < SOON * 2, "no change: {:?} {:?}", codes(&pair, 0), codes(&pair, 1));
        let (old, new) = (primary(&pair, 0), primary(&pair, 1));
        let passed = last.elapsed();
        last = Instant::now();
        if old && new {
            both += passed;
        }
        if new && !old && until.is_none() {
            until = Some(Instant::now() + s(5));
        }
    }
    assert!(both < s(2), "both said for {both:?} that they are the primary");
    assert_eq!(codes(&pair, 0), NEITHER);
    assert_eq!(codes(&pair, 1), PRIMARY);
    assert_eq!(pair.sql(0, "SELECT pg_is_in_recovery()"), "f", "the old primary was stopped: this shows nothing");
    pair.net.heal_between(0, 1);
    wait_for("the old primary is stopped", SOON, || (!pair.instance_runs(0)).then_some(()));
    assert_eq!(codes(&pair, 0), NEITHER);
}

/// The same with an arbiter, which lets the primary continue: it is asked within the detection time, so that the primary is
/// away for a moment at most; the standby, which hears nothing, is none that reads should be sent to.
#[test]
fn a_primary_whom_the_arbiter_lets_go_on_says_yes() {
    let pair = Setup::default().conf(ADDRESS).arbiter().up();
    pair.net.cut_between(0, 1);
    wait_codes(&pair, 1, NEITHER);
    wait_for("the primary continues alone", SOON, || (pair.view(0)?["mode"] == "degraded").then_some(()));
    wait_codes(&pair, 0, PRIMARY);
    pair.net.heal_between(0, 1);
    wait_codes(&pair, 1, STANDBY);
    wait_codes(&pair, 0, PRIMARY);
}

/// The standby's controller is gone and nobody starts it again: WAL still flows, commits are acknowledged, and the primary
/// is the primary, also after its own controller was started anew.
#[test]
fn a_lost_controller_of_the_standby_takes_no_primary_away() {
    let pair = Setup::default().conf(ADDRESS).up();
    let client = pair.client(Style::OneSession);
    pair.mc(1, &["stop", "-e"]).expect(0, "mc_ctl stop -e");
    let until = Instant::now() + s(10);
    while Instant::now() < until {
        assert!(primary(&pair, 0), "{}", ask(&pair, 0, "GET", "/primary").body);
        std::thread::sleep(Duration::from_millis(100));
    }
    signal(pair.controller(0).pid, Signal::KILL);
    wait_codes(&pair, 0, PRIMARY);
    client.wait_ack(Instant::now(), s(10));
    client.check(&pair, 0, &[0]);
}

/// A controller that is stopped answers nothing, and one that its watcher has started again answers.
#[test]
fn a_stopped_controller_does_not_answer() {
    let pair = Setup::default().conf(ADDRESS).conf("agent_alive_timeout = 4").up();
    wait_codes(&pair, 0, PRIMARY);
    let controller = pair.controller(0).pid;
    signal(controller, Signal::STOP);
    // the signal takes a moment to reach every thread
    wait_for("it does not answer", s(3), || {
        send(&endpoint(&pair, 0), b"GET /primary HTTP/1.0\r\n\r\n", s(1)).is_none().then_some(())
    });
    wait_for("the watcher starts another", SOON, || {
        pair.host(0).controllers().last().filter(|process| process.pid != controller).map(drop)
    });
    wait_codes(&pair, 0, PRIMARY);
    assert!(pair.instance_runs(0));
}

fn count(pid: u32, what: &str) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/{what}")).map_or(0, Iterator::count)
}

/// Slow clients, silent ones, a thousand of them, endless headers and junk: others are answered all the while, nothing grows,
/// and the pair is none the worse.
#[test]
fn clients_that_mean_no_good() {
    let pair = Setup::default().conf(ADDRESS).up();
    wait_codes(&pair, 0, PRIMARY);
    let controller = pair.controller(0).pid;
    let before = (count(controller, "fd"), count(controller, "task"));
    let to = endpoint(&pair, 0);
    let at = Instant::now();

    let mut slow = TcpStream::connect(&to).expect("a connection");
    slow.write_all(b"GET /primary HTTP/1.0\r\nX: ").expect("written");
    let mut junk = Vec::new();
    for n in 0..1000 {
        let Ok(mut stream) = TcpStream::connect(&to) else { continue };
        let _ = match n % 4 {
            0 => stream.write_all(b"\x16\x03\x01\0\xff\xfe\xfd"),
            1 => stream.write_all(b"GET /primary HTTP/1.1\r\n"),
            2 => stream.write_all(&[b'A'; 3000]),
            _ => Ok(()),
        };
        junk.push(stream);
        if n % 100 == 99 {
            assert!(primary(&pair, 0), "no answer behind {n} connections");
            let now = (count(controller, "fd"), count(controller, "task"));
            assert!(now.0 <= before.0 + 64 + 16 + 4, "descriptors: {before:?}, now {now:?}");
            assert!(now.1 <= before.1 + 2, "threads: {before:?}, now {now:?}");
        }
    }
    drop(junk);

    // one byte at a time, for ever: the time is that of the whole request
    let mut dripping = TcpStream::connect(&to).expect("a connection");
    dripping.set_read_timeout(Some(Duration::from_millis(200))).expect("a limit");
    let begin = Instant::now();
    let mut closed = false;
    while !closed && begin.elapsed() < SOON {
        closed = dripping.write_all(b"G").is_err() || matches!(dripping.read(&mut [0; 16]), Ok(0));
    }
    assert!(closed, "a dripping client is served for ever");
    assert!(begin.elapsed() > s(3), "closed after {:?}", begin.elapsed());

    let big = [b"GET /primary HTTP/1.0\r\nX: ".as_slice(), &[b'a'; 8 << 10], b"\r\n\r\n"].concat();
    assert_eq!(send(&to, &big, s(10)).map(|told| told.status), Some(400));
    let many = [b"GET /primary HTTP/1.0\r\n".as_slice(), &b"a: b\r\n".repeat(200), b"\r\n"].concat();
    assert_eq!(send(&to, &many, s(10)).map(|told| told.status), Some(400));
    assert_eq!(send(&to, b"\x16\x03\x01\x02\0\x01", s(10)).map(|told| told.status), Some(400));
    assert_eq!(send(&to, b"GET /primary HTTP/1.1\r\n\r\n", s(10)).map(|told| told.status), Some(400));
    // an answer reaches who is still sending
    let body = [b"POST /primary HTTP/1.0\r\nContent-Length: 50000\r\n\r\n".as_slice(), &[b'x'; 50_000]].concat();
    assert_eq!(send(&to, &body, s(10)).map(|told| told.status), Some(405));

    wait_codes(&pair, 0, PRIMARY);
    assert_eq!(pair.controller(0).pid, controller, "it was started anew");
    assert_eq!(pair.wait_word(0, "switchable").rows[0].role, "primary");
    assert!(pair.host(0).syslog.find(at, "MCA00062").is_none(), "a switch");
    drop(slow);
}

/// A port in use is an error of the start, by file and line; for a controller that is started again by its watcher the pair
/// comes first.
#[test]
fn a_port_in_use() {
    let pair = Setup::default().conf(ADDRESS).make();
    let taken = pair.net.hosts[0].listen(PORT);
    let answer = pair.mc(0, &["start", "-w"]).expect(1, "a start with the port in use");
    for text in ["nd1.conf\", line 2: health_check_address: could not listen on [::]:8008", "HINT"] {
        assert!(answer.err.contains(text), "{}", answer.text());
    }
    assert!(!pair.instance_runs(0));
    wait_for("the controller ends", s(10), || pair.host(0).controllers().is_empty().then_some(()));
    drop(taken);
    pair.bring_up();
    wait_codes(&pair, 0, PRIMARY);

    let watcher = pair.host(0).controllers().first().expect("a watcher").pid;
    let controller = pair.controller(0).pid;
    let at = Instant::now();
    signal(watcher, Signal::STOP);
    signal(controller, Signal::KILL);
    let taken = wait_for("the port is free", s(10), || {
        pair.net.hosts[0].inside(|| std::net::TcpListener::bind(("0.0.0.0", PORT)).ok())
    });
    signal(watcher, Signal::CONT);
    pair.wait_log(0, at, "health_check_address: could not listen", SOON);
    pair.wait_word(0, "switchable");
    drop(taken);
    wait_codes(&pair, 0, PRIMARY);
}

// -------------------------------------------------------------------------------------------------------------- HAProxy

/// `samples/haproxy.cfg` as it is: the pair's addresses are the sample's.
fn proxy() -> Beside {
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/samples/haproxy.cfg");
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "haproxy", "-db", "-f", config]).stderr(Stdio::null());
    Beside::start(command)
}

fn through(port: u16) -> Result<Client, String> {
    let mut config = Config::new();
    config.host("127.0.0.1").port(port).user("postgres").dbname("postgres").connect_timeout(s(2));
    config.options("-c statement_timeout=5s").connect(NoTls).map_err(|error| error.to_string())
}

/// A real HAProxy with the sample's configuration leads writers to the primary and readers to the standby, across a
/// `kill -9` of the primary and the way back.
#[test]
fn haproxy_follows_the_primary() {
    let pair = Setup::default().conf(ADDRESS).up();
    let _proxy = proxy();
    let role = |port| through(port).ok()?.query_one("SELECT pg_is_in_recovery()", &[]).ok()?.try_get::<_, bool>(0).ok();
    wait_for("HAProxy leads to both", SOON, || (role(5000) == Some(false) && role(5001) == Some(true)).then_some(()));
    let writer = Writer::start(&pair, "127.0.0.1", 5000);
    std::thread::sleep(s(3));
    pair.kill_postmaster(0);
    std::thread::sleep(s(22));
    let (rows, longest) = writer.check(&pair, 1);
    assert!(longest < s(15), "nothing was written for {longest:?}");
    assert!(rows > 100, "{rows} acknowledged");
    assert!(role(5001).is_none(), "there is no standby now");

    pair.rebuild(0, &[]);
    wait_for("HAProxy leads readers to the rebuilt one", SOON, || (role(5001) == Some(true)).then_some(()));
    pair.mc(0, &["switch"]).expect(0, "mc_ctl switch");
    wait_for("HAProxy leads writers back", SOON, || {
        let mut open = through(5000).ok()?;
        let here: String = open.query_one("SELECT inet_server_addr()::text", &[]).ok()?.try_get(0).ok()?;
        here.starts_with(pair.servers[0].address).then_some(())
    });
    eprintln!("through HAProxy: {rows} rows acknowledged, none lost, longest gap {longest:?}");
}
