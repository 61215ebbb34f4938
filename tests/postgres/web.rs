//! The web console's server: logins and roles, actions with and without their confirmation, events through a failover, the
//! other server's controller, a set-up and its removal, and clients that mean no good.

use crate::harness::pair::{Pair, Setup, program, readable, write_private};
use crate::harness::run::Answer;
use crate::harness::{s, wait_for};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

const PASSWORD: &str = "correct horse";
/// How long an answer may take on a loaded test machine.
const SOON: Duration = Duration::from_secs(60);

/// A browser of a server's console.
struct Browser<'a> {
    pair: &'a Pair,
    server: usize,
    cookie: String,
    csrf: String,
}

/// An answer.
struct Got {
    status: u16,
    head: String,
    body: String,
}

impl Got {
    #[track_caller]
    fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}\n{}", self.head, self.body);
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

fn connect(pair: &Pair, server: usize) -> TcpStream {
    let stream = pair.net.hosts[server].inside(|| TcpStream::connect("127.0.0.1:27515").expect("a console"));
    stream.set_read_timeout(Some(SOON)).expect("a limit");
    stream
}

/// Sends these bytes, and reads to the end of the connection; `None` where nothing comes.
fn raw(pair: &Pair, server: usize, bytes: &[u8]) -> Option<Got> {
    let mut stream = connect(pair, server);
    // A request that is rejected early is not read to its end.
    let _ = stream.write_all(bytes);
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Got { status, head: head.into(), body: body.into() })
}

impl Browser<'_> {
    fn request(&self, method: &str, path: &str, more: &str, body: &str) -> String {
        format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost:27515\r\nCookie: {}\r\n{more}Content-Length: {}\r\n\r\n{body}",
            self.cookie,
            body.len()
        )
    }

    #[track_caller]
    fn send(&self, method: &str, path: &str, more: &str, body: &str) -> Got {
        let request = self.request(method, path, more, body);
        raw(self.pair, self.server, request.as_bytes()).unwrap_or_else(|| panic!("no answer to {method} {path}"))
    }

    #[track_caller]
    fn get(&self, path: &str) -> Got {
        self.send("GET", path, "", "")
    }

    #[track_caller]
    fn post(&self, path: &str, body: Value) -> Got {
        let more = format!("Content-Type: application/json\r\nX-CSRF-Token: {}\r\n", self.csrf);
        self.send("POST", path, &more, &body.to_string())
    }

    /// Runs an action to its end: its exit status and its lines.
    #[track_caller]
    fn act(&self, name: &str, body: Value) -> (u64, String) {
        let job = self.post(&format!("/api/actions/{name}"), body).expect(200);
        let path = format!("/api/jobs/{}", job["job"].as_str().expect("an id"));
        let ended = wait_for("the job ends", s(180), || {
            Some(self.get(&path).expect(200)).filter(|job| !job["ended"].is_null())
        });
        let lines = ended["lines"].as_array().expect("lines").iter().filter_map(Value::as_str);
        (ended["exit"].as_u64().expect("an exit status"), lines.collect::<Vec<_>>().join("\n"))
    }
}

/// The program under test, beside `mc_ctl`.
fn console() -> &'static Path {
    static COPY: std::sync::OnceLock<std::path::PathBuf> = std::sync::OnceLock::new();
    program();
    COPY.get_or_init(|| readable(Path::new(env!("CARGO_BIN_EXE_mc_web"))))
}

#[track_caller]
fn mc_web(pair: &Pair, server: usize, words: &[&str], input: &str) -> Answer {
    let mut command = pair.host(server).admin(console().to_str().expect("ASCII"));
    command.args(words).arg("-M").arg(&pair.servers[server].management);
    let begin = Instant::now();
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("mc_web");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("could not write");
    let output = child.wait_with_output().expect("could not wait");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap_or(-1);
    Answer { code, out: text(&output.stdout), err: text(&output.stderr), took: begin.elapsed() }
}

/// Starts the console of a server, with an operator `dba` and a viewer `eve`.
#[track_caller]
fn serve(pair: &Pair, server: usize, conf: &str) {
    write_private(&pair.servers[server].management.join("web.conf"), conf);
    let password = format!("{PASSWORD}\n");
    mc_web(pair, server, &["passwd", "dba", "--role", "operator"], &password).expect(0, "mc_web passwd");
    mc_web(pair, server, &["passwd", "eve"], &password).expect(0, "mc_web passwd");
    mc_web(pair, server, &["start"], "").expect(0, "mc_web start");
}

fn try_login(pair: &Pair, server: usize, user: &str, password: &str) -> Got {
    let browser = Browser { pair, server, cookie: String::new(), csrf: String::new() };
    let body = json!({ "user": user, "password": password }).to_string();
    browser.send("POST", "/api/login", "Content-Type: application/json\r\n", &body)
}

#[track_caller]
fn login<'a>(pair: &'a Pair, server: usize, user: &str) -> Browser<'a> {
    let got = try_login(pair, server, user, PASSWORD);
    let cookie = got.head.lines().find_map(|line| line.strip_prefix("Set-Cookie: ")).expect("a cookie");
    assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().expect("a value").to_owned();
    let session = got.expect(200);
    Browser { pair, server, cookie, csrf: session["csrf"].as_str().expect("a token").to_owned() }
}

/// The stream of events, from now on.
fn events(browser: &Browser<'_>) -> impl Iterator<Item = (String, Value)> + use<> {
    let mut stream = connect(browser.pair, browser.server);
    stream.write_all(browser.request("GET", "/api/events", "", "").as_bytes()).expect("could not write");
    let mut lines = BufReader::new(stream).lines().map(|line| line.expect("the next event in time"));
    std::iter::from_fn(move || {
        let name = lines.by_ref().find_map(|line| line.strip_prefix("event: ").map(str::to_owned))?;
        let data = lines.next()?;
        let data = serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
        Some((name, data))
    })
}

/// Who may do what: sessions, roles, tokens, other sites, other names, and too many failed logins.
#[test]
fn users_sessions_and_other_sites() {
    let pair = Setup::default().make();
    serve(&pair, 0, "");
    mc_web(&pair, 0, &["start"], "").expect(4, "a second start");
    assert!(mc_web(&pair, 0, &["status"], "").expect(0, "mc_web status").out.contains("http://127.0.0.1:27515/"));
    let stranger = Browser { pair: &pair, server: 0, cookie: String::new(), csrf: String::new() };
    for path in ["session", "status", "history", "events", "actions", "jobs/1", "explain/62"] {
        stranger.get(&format!("/api/{path}")).expect(401);
    }
    let page = stranger.get("/");
    assert_eq!(page.status, 200);
    for header in
        ["frame-ancestors 'none'", "default-src 'none'", "nosniff", "Referrer-Policy: no-referrer", "no-store"]
    {
        assert!(page.head.contains(header), "{}", page.head);
    }
    try_login(&pair, 0, "dba", "wrong").expect(401);
    try_login(&pair, 0, "unknown", PASSWORD).expect(401);

    let (dba, eve) = (login(&pair, 0, "dba"), login(&pair, 0, "eve"));
    assert_eq!(dba.get("/api/session").expect(200)["role"], "operator");
    assert_eq!(eve.get("/api/session").expect(200)["server"], "nd1");
    eve.post("/api/actions/enable-failover", json!({})).expect(403);
    eve.post("/api/actions/backup/plan", json!({})).expect(200);
    let json = "Content-Type: application/json\r\n";
    let token = format!("X-CSRF-Token: {}\r\n", dba.csrf);
    let start = "/api/actions/start";
    dba.send("POST", start, json, "{}").expect(403);
    dba.send("POST", start, &format!("{json}X-CSRF-Token: {}\r\n", eve.csrf), "{}").expect(403);
    dba.send("POST", start, &token, "{}").expect(415);
    dba.send("POST", start, &format!("{json}{token}Origin: http://evil.example\r\n"), "{}").expect(403);
    dba.send("POST", start, &format!("{json}{token}Origin: null\r\n"), "{}").expect(403);
    dba.send("GET", "/api/status", "Sec-Fetch-Site: cross-site\r\n", "").expect(403);
    let rebound = format!("GET /api/status HTTP/1.1\r\nHost: evil.example:27515\r\nCookie: {}\r\n\r\n", dba.cookie);
    raw(&pair, 0, rebound.as_bytes()).expect("an answer").expect(403);
    assert_eq!(dba.get("/api/jobs").expect(200), json!([]), "nothing was started");

    // A new role ends the sessions of that user only.
    mc_web(&pair, 0, &["passwd", "eve", "--role", "operator"], &format!("{PASSWORD}\n")).expect(0, "mc_web passwd");
    eve.get("/api/session").expect(401);
    dba.post("/api/logout", json!({})).expect(200);
    dba.get("/api/session").expect(401);

    let limited = wait_for("failed logins are limited", SOON, || {
        Some(try_login(&pair, 0, "dba", "wrong")).filter(|got| got.status == 429)
    });
    assert!(limited.head.contains("\r\nRetry-After: "), "{}", limited.head);
    let denied = try_login(&pair, 0, "dba", PASSWORD);
    assert!([429, 200].contains(&denied.status), "{}", denied.status);
    mc_web(&pair, 0, &["stop"], "").expect(0, "mc_web stop");
    mc_web(&pair, 0, &["status"], "").expect(3, "mc_web status");
}

/// Actions of an operator on a pair, the events that follow, and the other server's controller.
#[test]
fn actions_and_events() {
    let pair = Setup::default().up();
    serve(&pair, 0, "peer_port = 27516\n");
    serve(&pair, 1, "peer_port = 27516\n");
    let dba = login(&pair, 0, "dba");
    let mut events = events(&dba);
    let mut next = |what: &str, is: &dyn Fn(&str, &Value) -> bool| {
        events.find(|(name, data)| is(name, data)).unwrap_or_else(|| panic!("the stream ended before {what}")).1
    };
    let status = next("the status", &|name, _| name == "status");
    assert_eq!((&status["mirroring_status"], &status["local_server"]), (&json!("switchable"), &json!("nd1")));
    assert_eq!(dba.get("/api/status").expect(200)["view"]["term"], status["view"]["term"]);

    // A change: the plan, the action, its job, its event, its place in the history and in the messages.
    let plan = dba.post("/api/actions/disable-failover/plan", json!({})).expect(200);
    assert_eq!(
        (&plan["command"], &plan["confirm"], &plan["refused"]),
        (&json!("mc_ctl disable-failover"), &Value::Null, &Value::Null)
    );
    assert!(plan["risk"].as_str().expect("a risk").contains("no server acts"), "{plan}");
    assert_eq!(dba.act("disable-failover", json!({ "parameters": {} })).0, 0);
    next("the status", &|name, data| name == "status" && data["mirroring_status"] == "failover-disabled");
    let history = dba.get("/api/history").expect(200);
    let action = history.as_array().expect("rows").iter().find(|row| !row["action"].is_null()).expect("the action");
    assert_eq!((&action["action"]["user"], &action["action"]["exit"]), (&json!("dba"), &json!(0)));
    let messages = dba.get("/api/messages?limit=500").expect(200);
    assert!(messages.as_array().expect("rows").iter().any(|message| message["number"] == 1303), "{messages}");
    dba.act("enable-failover", json!({}));

    // What is dangerous needs the name, and what mc_ctl refuses fails.
    let all = json!({ "all": true });
    let plan = dba.post("/api/actions/stop/plan", json!({ "parameters": all })).expect(200);
    assert_eq!(plan["confirm"], "nd1");
    for confirm in [Value::Null, json!("nd2")] {
        dba.post("/api/actions/stop", json!({ "parameters": all, "confirm": confirm })).expect(409);
    }
    dba.post("/api/actions/delete", json!({ "confirm": "nd1" })).expect(409);
    dba.post("/api/actions/stop", json!({ "parameters": { "yes": true } })).expect(400);
    dba.post("/api/actions/sh", json!({})).expect(404);
    let (exit, lines) = dba.act("switch", json!({ "parameters": { "force": true }, "confirm": "nd1" }));
    assert_eq!(exit, 4, "the primary cannot be switched to: {lines}");
    let findings = dba.get("/api/check").expect(200);
    assert!(findings["findings"].is_array(), "{findings}");
    let prediction = dba.get("/api/what-if?fault=primary-host").expect(200);
    assert!(prediction.is_object(), "{prediction}");

    // The other server's controller, over the consoles' connection.
    let (exit, lines) = dba.act("stop", json!({ "parameters": { "server": "other" } }));
    assert_eq!(exit, 0, "{lines}");
    assert!(!pair.instance_runs(1), "its instance runs");
    next("the status", &|name, data| name == "status" && data["mirroring_status"] == "not-switchable");
    let plan = dba.post("/api/actions/switch/plan", json!({})).expect(200);
    assert!(plan["refused"].is_string(), "{plan}");
    dba.post("/api/actions/switch", json!({})).expect(409);
    let (exit, lines) = dba.act("start", json!({ "parameters": { "server": "other", "failover": true } }));
    assert_eq!(exit, 0, "{lines}");
    next("the status", &|name, data| name == "status" && data["mirroring_status"] == "switchable");

    // A failover, without a reload.
    pair.kill_postmaster(0);
    let status = next("the failover", &|name, data| name == "status" && data["mirroring_status"] == "switched");
    assert_eq!(status["view"]["primary"], "nd2");
    dba.post("/api/actions/rebuild", json!({})).expect(409);
    let plan = dba.post("/api/actions/rebuild/plan", json!({})).expect(200);
    assert_eq!((&plan["confirm"], &plan["refused"]), (&json!("nd1"), &Value::Null), "{plan}");
    assert!(plan["plan"].as_array().expect("lines").len() > 1, "{plan}");
    let (exit, lines) = dba.act("rebuild", json!({ "parameters": plan["parameters"], "confirm": "nd1" }));
    assert_eq!(exit, 0, "{lines}");
    next("the status", &|name, data| name == "status" && data["mirroring_status"] == "switchable");
    next("the history", &|name, _| name == "history");
}

/// A set-up from the page, and its removal.
#[test]
fn set_up_and_delete() {
    let pair = Setup::default().make();
    let management = &pair.servers[0].management;
    for name in ["network.conf", "nd1.conf", "mc.key"] {
        std::fs::remove_file(management.join(name)).expect("the file of the set-up");
    }
    // It lacks the lines for the other server.
    std::fs::write(pair.servers[0].data.join("pg_hba.conf"), "local all all trust\n").expect("could not write");
    serve(&pair, 0, "");
    let (dba, eve) = (login(&pair, 0, "dba"), login(&pair, 0, "eve"));
    assert_eq!(dba.get("/api/session").expect(200)["server"], Value::Null);
    dba.post("/api/actions/start", json!({})).expect(409);
    let parameters = json!({
        "peer": format!("nd2={}", pair.servers[1].address), "self": format!("nd1={}", pair.servers[0].address), "data": pair.data(0),
    });
    let (exit, lines) = dba.act("setup", json!({ "parameters": parameters }));
    assert_eq!(exit, 0, "{lines}");
    assert!(lines.contains("pg_hba.conf"), "{lines}");
    let key = std::fs::read_to_string(management.join("mc.key")).expect("the key");
    assert!(lines.contains(key.trim()), "the block for the other server");
    let job = dba.get("/api/jobs").expect(200)[0]["id"].as_str().expect("an id").to_owned();
    eve.get(&format!("/api/jobs/{job}")).expect(403);
    assert_eq!(dba.get("/api/session").expect(200)["server"], "nd1");

    dba.post("/api/actions/delete", json!({})).expect(409);
    let (exit, lines) = dba.act("delete", json!({ "confirm": "nd1" }));
    assert_eq!(exit, 0, "{lines}");
    for name in ["network.conf", "nd1.conf", "mc.key", "nd1"] {
        assert!(!management.join(name).exists(), "{name}");
    }
    assert!(management.join("web.users").exists());
    let history = dba.get("/api/history").expect(200);
    assert_eq!(history.as_array().map(Vec::len), Some(2), "{history}");
}

/// Proportional set size of the console, in KiB.
fn pss(pair: &Pair, server: usize) -> u64 {
    let process = pair.host(server).running("mc_web").into_iter().next().expect("the console runs");
    let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid)).expect("its memory");
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).expect("Pss");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Slow, oversized, malformed and unknown requests: each is refused or dropped, memory stays bounded, and a user is served
/// meanwhile.
#[test]
fn hostile_requests() {
    let pair = Setup::default().make();
    serve(&pair, 0, "");
    let dba = login(&pair, 0, "dba");
    let idle = pss(&pair, 0);
    // More connections than there are places, that never send a request to its end.
    let slow: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = connect(&pair, 0);
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: ");
            stream
        })
        .collect();
    assert_eq!(dba.get("/api/session").expect(200)["user"], "dba", "while the places are taken");
    let long = "x".repeat(20_000);
    let huge = format!(
        "POST /api/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99999999\r\n\r\n{long}"
    );
    let post = "POST /api/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    for round in 0..20 {
        for (request, status) in [
            (format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"), 431),
            (huge.clone(), 413),
            (format!("{post}Content-Length: 1\r\nContent-Length: 2\r\n\r\n{{}}"), 400),
            (format!("{post}Content-Length: -1\r\n\r\n"), 400),
            (format!("{post}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
            (format!("{post}Content-Length: 10\r\n\r\n[[[[[[[[[["), 400),
            ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), 400),
            ("\0\u{1}\u{2}\r\n\r\n".to_owned(), 400),
            ("PUT / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 405),
            ("GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 404),
        ] {
            let got = raw(&pair, 0, request.as_bytes());
            // An answer to a request that is not read to its end may be lost.
            let found = got.map(|got| got.status);
            assert!(
                found == Some(status) || found.is_none() && status > 410,
                "{round}: {found:?}, not {status}: {:.60}",
                request
            );
        }
    }
    let deep = format!("{{\"user\":{}", "[".repeat(60_000));
    let deep = format!("{post}Content-Length: {}\r\n\r\n{deep}", deep.len());
    raw(&pair, 0, deep.as_bytes()).expect("an answer").expect(400);
    assert_eq!(dba.get("/api/session").expect(200)["user"], "dba");
    drop(slow);
    let after = pss(&pair, 0);
    assert!(after < idle + 16 * 1024, "{idle} KiB before, {after} KiB after");
}
