//! A headless Chromium on a host of a pair, driven through chromedriver by the W3C WebDriver protocol, which is JSON over HTTP.
//! Clicks and keys are those of a user: the driver fails if an element is covered or cannot be reached.

use super::net::Space;
use super::pair::Pair;
use super::run::Beside;
use super::{need, s, wait_for};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// How long the page may take to show something, on a loaded test machine.
pub const SOON: Duration = Duration::from_secs(60);

const PORT: u16 = 9515;
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Keys of the WebDriver protocol.
pub const TAB: char = '\u{E004}';
/// Enter.
pub const ENTER: char = '\u{E007}';
/// Esc.
pub const ESCAPE: char = '\u{E00C}';
/// Space.
pub const SPACE: char = ' ';
const SHIFT: char = '\u{E008}';

/// A browser with one window.
pub struct Browser<'a> {
    space: &'a Space,
    session: String,
    _driver: Beside,
}

/// Whether there is a browser; `tests/run.sh` sets MC_TEST_NO_BROWSER if none can be installed.
pub fn available() -> bool {
    if std::env::var_os("MC_TEST_NO_BROWSER").is_some() {
        eprintln!("skipped: Chromium could not be installed (MC_TEST_NO_BROWSER is set)");
        return false;
    }
    need("chromium", "chromium");
    need("chromedriver", "chromium-driver");
    true
}

impl<'a> Browser<'a> {
    /// Starts it on a server's host.
    #[track_caller]
    pub fn open(pair: &'a Pair, server: usize) -> Browser<'a> {
        let host = pair.host(server);
        let home = host.dir.join("browser");
        std::fs::create_dir_all(&home).expect("could not create a directory");
        let mut command = host.command("env");
        command.arg(format!("HOME={}", home.display())).args(["chromedriver", &format!("--port={PORT}")]);
        command.stderr(Stdio::null());
        let driver = Beside::start(command);
        let mut browser = Browser { space: &pair.net.hosts[server], session: String::new(), _driver: driver };
        wait_for("chromedriver answers", SOON, || browser.try_call("GET", "/status", None));
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            "--lang=en-GB",
            "--hide-scrollbars",
        ];
        let data = format!("--user-data-dir={}", home.join("profile").display());
        let arguments: Vec<&str> = arguments.into_iter().chain([data.as_str()]).collect();
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": arguments, "binary": "/usr/bin/chromium"},
            "goog:loggingPrefs": {"browser": "ALL"},
            "timeouts": {"script": 120_000, "pageLoad": 120_000},
        }}});
        let session = browser.call("POST", "/session", Some(wanted));
        browser.session = format!("/session/{}", session["sessionId"].as_str().expect("a session"));
        browser.emulate(1280, false);
        browser
    }

    fn try_call(&self, method: &str, path: &str, body: Option<Value>) -> Option<Value> {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let stream = self.space.inside(|| TcpStream::connect(("127.0.0.1", PORT)));
        let mut stream = stream.ok()?;
        stream.set_read_timeout(Some(s(180))).expect("a limit");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost:{PORT}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).ok()?;
        let mut bytes = Vec::new();
        let mut chunk = [0; 65_536];
        loop {
            let text = String::from_utf8_lossy(&bytes);
            if let Some((head, rest)) = text.split_once("\r\n\r\n") {
                let length = head.to_ascii_lowercase();
                let length = length.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
                if length.is_some_and(|length: usize| rest.len() >= length) {
                    return serde_json::from_str(rest).ok();
                }
            }
            match stream.read(&mut chunk) {
                Ok(0) | Err(_) => return None,
                Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            }
        }
    }

    /// A command of the protocol; its error as text.
    fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Result<Value, String> {
        let answer = self.try_call(method, path, body).ok_or("no answer from chromedriver")?;
        let value = &answer["value"];
        match value["error"].as_str() {
            Some(error) => Err(format!("{error}: {}", value["message"].as_str().unwrap_or_default())),
            None => Ok(value.clone()),
        }
    }

    #[track_caller]
    fn call(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        self.ask(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    #[track_caller]
    fn post(&self, path: &str, body: Value) -> Value {
        self.call("POST", &format!("{}{path}", self.session), Some(body))
    }

    /// Opens an address.
    #[track_caller]
    pub fn go(&self, url: &str) {
        self.post("/url", json!({"url": url}));
    }

    /// Runs a script and returns its value.
    #[track_caller]
    pub fn script(&self, code: &str) -> Value {
        self.post("/execute/sync", json!({"script": code, "args": []}))
    }

    /// Runs a script that calls `done` with its value.
    #[track_caller]
    pub fn script_later(&self, code: &str) -> Value {
        let code = format!("const done = arguments[arguments.length - 1];\n{code}");
        self.post("/execute/async", json!({"script": code, "args": []}))
    }

    fn find(&self, selector: &str) -> Result<String, String> {
        let body = json!({"using": "css selector", "value": selector});
        let found = self.ask("POST", &format!("{}/element", self.session), Some(body))?;
        Ok(found[ELEMENT].as_str().unwrap_or_default().to_owned())
    }

    /// Does something with an element as soon as it is there and can be reached: a live page draws it again at any time.
    #[track_caller]
    fn on(&self, selector: &str, action: &str, body: &Value) {
        let mut last = String::new();
        let begin = std::time::Instant::now();
        while begin.elapsed() < SOON {
            let done = self.find(selector).and_then(|id| {
                self.ask("POST", &format!("{}/element/{id}/{action}", self.session), Some(body.clone()))
            });
            match done {
                Ok(_) => return,
                Err(error) => last = error,
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("could not {action} {selector}: {last}\n{}", self.text("body"));
    }

    /// Clicks, as soon as the element can be clicked.
    #[track_caller]
    pub fn click(&self, selector: &str) {
        self.on(selector, "click", &json!({}));
    }

    /// Enters a text in a field.
    #[track_caller]
    pub fn enter(&self, selector: &str, text: &str) {
        self.on(selector, "value", &json!({"text": text}));
    }

    /// Presses keys where the focus is.
    #[track_caller]
    pub fn keys(&self, keys: impl IntoIterator<Item = char>) {
        let actions: Vec<Value> = keys
            .into_iter()
            .flat_map(|key| {
                [
                    json!({"type": "keyDown", "value": key.to_string()}),
                    json!({"type": "keyUp", "value": key.to_string()}),
                ]
            })
            .collect();
        self.post("/actions", json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}));
    }

    /// Shift and Tab.
    #[track_caller]
    pub fn back_tab(&self) {
        let key = |kind: &str, key: char| json!({"type": kind, "value": key.to_string()});
        let actions = [key("keyDown", SHIFT), key("keyDown", TAB), key("keyUp", TAB), key("keyUp", SHIFT)];
        self.post("/actions", json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}));
    }

    /// The text that the first such element shows; empty if there is none.
    #[track_caller]
    pub fn text(&self, selector: &str) -> String {
        let code = format!("const e = document.querySelector({}); return e ? e.innerText : '';", json!(selector));
        self.script(&code).as_str().unwrap_or_default().to_owned()
    }

    /// How many such elements are shown.
    #[track_caller]
    pub fn count(&self, selector: &str) -> u64 {
        let code = format!(
            "return [...document.querySelectorAll({})].filter(e => e.getClientRects().length).length;",
            json!(selector)
        );
        self.script(&code).as_u64().expect("a number")
    }

    /// Waits until the element shows this text.
    #[track_caller]
    pub fn wait_text(&self, selector: &str, expected: &str) {
        let begin = std::time::Instant::now();
        let mut last = self.text(selector);
        while !last.contains(expected) {
            if begin.elapsed() > SOON {
                panic!("{selector} shows {last:?}, not {expected:?}; the page: {}", self.text("body"));
            }
            std::thread::sleep(Duration::from_millis(50));
            last = self.text(selector);
        }
    }

    /// Waits until so many such elements are shown.
    #[track_caller]
    pub fn wait_count(&self, selector: &str, expected: u64) {
        wait_for(&format!("{expected} {selector}"), SOON, || (self.count(selector) == expected).then_some(()));
    }

    /// The width of the window, and the colours that the user prefers. Motion is reduced.
    #[track_caller]
    pub fn emulate(&self, width: u32, dark: bool) {
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false}),
        );
        let scheme = if dark { "dark" } else { "light" };
        self.cdp(
            "Emulation.setEmulatedMedia",
            json!({"features": [{"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": "reduce"}]}),
        );
    }

    #[track_caller]
    fn cdp(&self, command: &str, parameters: Value) -> Value {
        self.post("/goog/cdp/execute", json!({"cmd": command, "params": parameters}))
    }

    /// Keeps a picture of the whole page in target/screenshots.
    #[track_caller]
    pub fn screenshot(&self, name: &str) {
        let answer = self.cdp("Page.captureScreenshot", json!({"format": "png", "captureBeyondViewport": true}));
        let dir = screenshots();
        std::fs::create_dir_all(&dir).expect("could not create a directory");
        let bytes = STANDARD.decode(answer["data"].as_str().expect("a picture")).expect("base64");
        assert!(bytes.starts_with(b"\x89PNG"), "not a picture");
        std::fs::write(dir.join(format!("{name}.png")), bytes).expect("could not write");
    }

    /// What the browser reports of the page that is an error: an exception, or a rule of the content security policy.
    #[track_caller]
    pub fn assert_no_errors(&self) {
        let log = self.post("/se/log", json!({"type": "browser"}));
        let errors: Vec<_> = log
            .as_array()
            .expect("a list")
            .iter()
            .filter(|entry| entry["level"] == "SEVERE" && entry["source"] != "network")
            .map(|entry| entry["message"].to_string())
            .collect();
        assert!(errors.is_empty(), "the page reports {errors:?}");
    }
}

impl Drop for Browser<'_> {
    fn drop(&mut self) {
        let _ = self.try_call("DELETE", &self.session, None);
    }
}

/// Where screenshots are kept.
pub fn screenshots() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots")
}

/// axe-core, which tests/run.sh places there; `None` if it could not be fetched.
pub fn axe() -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/axe-core/axe.min.js");
    let text = std::fs::read_to_string(&path);
    if text.is_err() && std::env::var_os("MC_TEST_NO_AXE").is_some() {
        eprintln!("skipped: axe-core could not be fetched (MC_TEST_NO_AXE is set)");
        return None;
    }
    Some(text.unwrap_or_else(|e| panic!("could not read {path:?}: {e}; run sh tests/axe.sh")))
}
