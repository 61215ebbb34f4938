//! The JSON interface (mc_web(8), JSON API): who may ask what, and the answers.

use super::actions::{Action, Present, SETUP};
use super::jobs::{self, Job};
use super::sessions::{LIFE, Session};
use super::transport::{Connection, Request, Response};
use super::users::{self, Refused};
use super::{Shared, feed, logs, page, run};
use crate::check::{self, remedies};
use crate::config::web::WebConfig;
use crate::daemon::http::Head;
use crate::daemon::lock;
use crate::error::Result;
use crate::messages::{self, Tell, catalogue, commands, utc};
use crate::random;
use crate::status::Form;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often a stream sends a comment.
const COMMENT: Duration = Duration::from_secs(5);
/// How long a query of `mc_ctl` may take.
const QUERY_LIMIT: Duration = Duration::from_secs(70);
/// Queries of `mc_ctl` at a time.
const MAX_QUERIES: usize = 6;

/// What a request is answered with.
pub enum Reply {
    /// An answer.
    Whole(Response),
    /// The events for the session of this token.
    Events(String),
}

/// How many queries run.
#[derive(Default)]
pub struct Queries(AtomicUsize);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    user: String,
    password: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    #[serde(default)]
    parameters: Value,
    #[serde(default)]
    confirm: Option<String>,
}

/// Cookies know no port: each console of a host has a name of its own for its cookie.
pub fn cookie_name(config: &WebConfig) -> String {
    let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let digest = Sha256::digest(format!("{node} {}", config.dir.display()));
    let prefix = if config.tls.is_some() { "__Host-" } else { "" };
    format!("{prefix}mc_web_{}", digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn error(status: u16, text: &str) -> Response {
    Response::error(status, text, "", None)
}

fn ok(body: &impl serde::Serialize) -> Response {
    Response::json(200, body)
}

impl Shared {
    /// Answers a request.
    pub fn route(&self, request: &Request, from: IpAddr) -> Reply {
        let head = &request.head;
        if let Err(response) = self.guard(head) {
            return Reply::Whole(response);
        }
        let path: Vec<&str> = head.path.trim_start_matches('/').split('/').collect();
        Reply::Whole(match (head.method.as_str(), path.as_slice()) {
            ("GET", ["" | "index.html"]) => Response {
                status: 200,
                content_type: "text/html; charset=utf-8",
                headers: String::new(),
                body: page::PAGE.to_owned(),
            },
            ("POST", ["api", "login"]) => self.login(request, from),
            ("GET" | "POST", ["api", rest @ ..]) => return self.with_session(request, rest, from),
            ("GET" | "POST", _) => error(404, "there is no such page"),
            _ => error(405, "allowed: GET and POST"),
        })
    }

    /// What holds for every request: no other name than this console's, and nothing from another site.
    fn guard(&self, head: &Head) -> std::result::Result<(), Response> {
        let header = |name: &str| head.header(name).map_err(|why| error(400, &why));
        let host = header("host")?.unwrap_or_default();
        if !self.is_own_name(host) {
            return Err(Response::error(
                403,
                "the request is for another host name",
                "If this is a name of this host, add it to host_names in web.conf.",
                None,
            ));
        }
        let scheme = if self.config.tls.is_some() { "https" } else { "http" };
        let foreign =
            header("origin")?.is_some_and(|origin| !origin.eq_ignore_ascii_case(&format!("{scheme}://{host}")));
        let site = header("sec-fetch-site")?;
        let cross = site.is_some_and(|site| !["same-origin", "none"].contains(&site));
        if (foreign || cross) && (head.method != "GET" || head.path.starts_with("/api/")) {
            return Err(error(403, "the request comes from another site"));
        }
        if head.method == "POST" {
            let json = header("content-type")?.is_some_and(|kind| {
                kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
            });
            if !json {
                return Err(error(415, "the body must be JSON, with Content-Type: application/json"));
            }
        }
        Ok(())
    }

    /// Against DNS rebinding: a page of another site cannot have an IP address or one of these names.
    fn is_own_name(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => host
                .rsplit_once(':')
                .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
                .map_or(host, |(name, _)| name),
        };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if name.parse::<IpAddr>().is_ok() || name == "localhost" {
            return true;
        }
        let node = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
        let own = [self.config.listen.host.as_str(), &node].map(str::to_ascii_lowercase);
        let of_pair = || {
            let hosts = logs::network(&self.config.dir).map(|(network, me)| network.servers[me].hosts.clone());
            hosts.unwrap_or_default().iter().any(|host| host.eq_ignore_ascii_case(&name))
        };
        own.contains(&name) || self.config.host_names.contains(&name) || of_pair()
    }

    // ------------------------------------------------------------------------------------------------------- sessions

    fn login(&self, request: &Request, from: IpAddr) -> Response {
        let Ok(Login { user, password }) = serde_json::from_slice(&request.body) else {
            return error(400, "the body must be {\"user\": NAME, \"password\": TEXT}");
        };
        let wrong = || error(401, "unknown user or wrong password");
        if !users::is_name(&user) || password.len() > users::MAX_PASSWORD {
            lock(&self.limits).failed(from, "", Instant::now());
            return wrong();
        }
        let busy = |status: u16, text: &str, seconds: u64| {
            let mut response = error(status, text);
            response.headers = format!("Retry-After: {seconds}\r\n");
            response
        };
        let blocked = lock(&self.limits).blocked(from, &user, Instant::now());
        if let Some(seconds) = blocked {
            return busy(429, "too many logins have failed", seconds);
        }
        // Counted before it is known, so that many at once are not more than allowed.
        lock(&self.limits).failed(from, &user, Instant::now());
        match self.verifier.verify(&self.config.users, &user, &password) {
            Ok(found) => {
                lock(&self.limits).succeeded(from, &user);
                messages::tell(&Tell::WebLogin { user, from: from.to_string() });
                self.begin(found).unwrap_or_else(|failed| error(500, &failed.message))
            }
            Err(Refused::Busy) => {
                lock(&self.limits).succeeded(from, &user);
                busy(503, "too many logins at the same time", 1)
            }
            Err(Refused::Wrong) => {
                messages::tell(&Tell::WebLoginFailed { user, from: from.to_string() });
                wrong()
            }
            Err(Refused::Failed(failed)) => Response::error(500, &failed.message, &failed.hint, None),
        }
    }

    fn begin(&self, user: users::User) -> Result<Response> {
        let (token, csrf) = (random::digits()?, random::digits()?);
        let expires = SystemTime::now() + LIFE;
        let expires_ms = expires.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64);
        lock(&self.sessions).add(&token, csrf, user.clone(), expires_ms, Instant::now());
        let session = lock(&self.sessions).find(&token, &[user], Instant::now());
        let mut response = ok(&session.map(|session| self.describe(&session)));
        response.headers = self.cookie(&token, LIFE.as_secs());
        Ok(response)
    }

    fn cookie(&self, token: &str, seconds: u64) -> String {
        let secure = if self.config.tls.is_some() { "; Secure" } else { "" };
        format!("Set-Cookie: {}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}\r\n", self.cookie)
    }

    fn describe(&self, session: &Session) -> Value {
        let servers = logs::servers(&self.config.dir);
        let expires = UNIX_EPOCH + Duration::from_millis(session.expires_ms);
        json!({
            "user": session.user.name, "role": session.user.role.word(), "csrf": session.csrf, "expires": utc(expires),
            "server": servers.as_ref().map(|(own, _)| own), "other": servers.as_ref().map(|(_, other)| other),
            "version": env!("CARGO_PKG_VERSION"),
        })
    }

    /// The session of a token, as long as its user is in the file as at the login.
    fn session(&self, token: &str) -> Option<Session> {
        let users = users::load(&self.config.users).ok()?;
        lock(&self.sessions).find(token, &users, Instant::now())
    }

    fn with_session(&self, request: &Request, path: &[&str], from: IpAddr) -> Reply {
        let head = &request.head;
        let cookies = head.header("cookie").ok().flatten().unwrap_or_default();
        let token = cookies
            .split(';')
            .filter_map(|cookie| cookie.trim().split_once('='))
            .find(|(name, _)| *name == self.cookie);
        let token = token.map_or("", |(_, token)| token);
        let Some(session) = self.session(token) else { return Reply::Whole(error(401, "not logged in")) };
        let posts = head.method == "POST";
        if posts && !head.header("x-csrf-token").is_ok_and(|given| given == Some(&session.csrf)) {
            return Reply::Whole(error(403, "the header X-CSRF-Token is missing or wrong"));
        }
        Reply::Whole(match (posts, path) {
            (false, ["events"]) => return Reply::Events(token.to_owned()),
            (false, ["session"]) => ok(&self.describe(&session)),
            (true, ["logout"]) => {
                lock(&self.sessions).remove(token);
                let mut response = ok(&json!({}));
                response.headers = self.cookie("", 0);
                response
            }
            (false, ["status"]) => self.status(),
            (false, ["history"]) => self.history(),
            (false, ["messages"]) => {
                let limit = parameter(head, "limit").and_then(|limit| limit.parse().ok());
                ok(&logs::newest(&self.config.dir, limit.unwrap_or(logs::MOST).min(logs::MOST)))
            }
            (false, ["explain", what]) => explain(what),
            (false, ["check"]) => self.query(&["check", "--format", "json"]),
            (false, ["backups"]) => self.query(&["backup", "--list", "--format", "json"]),
            (false, ["what-if"]) => self.what_if(head),
            (false, ["actions"]) => self.actions(),
            (true, ["actions", name, "plan"]) => self.action(request, name, None),
            (true, ["actions", name]) if session.is_operator() => self.action(request, name, Some((&session, from))),
            (true, ["actions", _]) => error(403, "this requires the role operator"),
            (false, ["jobs"]) => ok(&self.jobs.list()),
            (false, ["jobs", id]) => match self.jobs.find(id) {
                Some(job) if job.action == SETUP && !session.is_operator() => {
                    error(403, "this requires the role operator")
                }
                Some(job) => ok(&job.whole()),
                None => error(404, "there is no such job"),
            },
            _ => error(404, "there is no such page"),
        })
    }

    // ---------------------------------------------------------------------------------------------------------- state

    fn status(&self) -> Response {
        match (self.status)(&self.config.dir) {
            Ok(status) => ok(&*status),
            Err(failed) => Response::raw(of_exit(failed.exit), failed.json().to_string()),
        }
    }

    /// What a command of `mc_ctl` prints as JSON.
    fn query(&self, words: &[&str]) -> Response {
        if self.queries.0.fetch_add(1, Ordering::SeqCst) >= MAX_QUERIES {
            self.queries.0.fetch_sub(1, Ordering::SeqCst);
            return error(503, "too many requests at the same time");
        }
        let ended = run::run(run::of_mc_ctl(&self.config.dir, words), b"", Some(QUERY_LIMIT), |_| ());
        self.queries.0.fetch_sub(1, Ordering::SeqCst);
        match ended {
            // Findings and a refused prediction have an exit status of their own, and an answer.
            Ok(ended) if serde_json::from_str::<Value>(&ended.out).is_ok() => Response::raw(200, ended.out),
            Ok(ended) => {
                let (message, hint) = ended.failure();
                Response::error(of_exit(ended.exit), &message, &hint, Some(ended.exit))
            }
            Err(failed) => error(500, &failed.message),
        }
    }

    fn history(&self) -> Response {
        let mut response = self.query(&["history", "--format", "json"]);
        let mut rows = match serde_json::from_str(&response.body) {
            Ok(Value::Array(rows)) if response.status == 200 => rows,
            // Before a set-up, and after it was deleted, there are only actions.
            _ if logs::servers(&self.config.dir).is_none() => Vec::new(),
            _ => return response,
        };
        rows.iter_mut().for_each(|row| row["action"] = Value::Null);
        let actions = jobs::history(&logs::record(&self.config.dir));
        let time = |row: &Value| row["time"].as_str().unwrap_or_default().to_owned();
        // The changes stay in their order, whatever the clock did.
        let mut merged: Vec<Value> = Vec::with_capacity(rows.len() + actions.len());
        let mut actions = actions.into_iter().peekable();
        for row in rows {
            while let Some(action) = actions.next_if(|action| time(action) < time(&row)) {
                merged.push(action);
            }
            merged.push(row);
        }
        merged.extend(actions);
        response = ok(&merged);
        response
    }

    fn what_if(&self, head: &Head) -> Response {
        let faults = parameter(head, "fault").unwrap_or_default();
        let mut words = vec!["what-if", "--format", "json", "--"];
        words.extend(faults.split([',', ' ']).filter(|fault| !fault.is_empty()));
        if words.len() == 4 {
            return error(400, "the parameter fault is missing");
        }
        self.query(&words)
    }

    // -------------------------------------------------------------------------------------------------------- actions

    fn actions(&self) -> Response {
        let present = Present::of(&self.config.dir, self.status);
        let row = |(action, side): (Action, &str)| {
            let plan = action.plan(&self.config, &present, false);
            json!({ "name": action.name, "server": side, "command": plan.command, "title": plan.title,
                    "risk": plan.risk, "confirm": plan.confirm, "refused": plan.refused })
        };
        ok(&Action::defaults().into_iter().map(row).collect::<Vec<Value>>())
    }

    /// Its plan; with a user, carries it out.
    fn action(&self, request: &Request, name: &str, user: Option<(&Session, IpAddr)>) -> Response {
        let Ok(order) = serde_json::from_slice::<Order>(&request.body) else {
            return error(400, "the body must be {\"parameters\": {...}, \"confirm\": ID | null}");
        };
        let action = match Action::parse(name, order.parameters) {
            None => return error(404, "there is no such action"),
            Some(Err(why)) => return error(400, &why),
            Some(Ok(action)) => action,
        };
        let present = Present::of(&self.config.dir, self.status);
        let plan = action.plan(&self.config, &present, user.is_none());
        let Some((session, from)) = user else { return ok(&plan) };
        if let Some(why) = plan.refused {
            return Response::error(409, &why, "", Some(4));
        }
        if plan.confirm.is_some() && plan.confirm != order.confirm {
            let text = format!("this requires \"confirm\": \"{}\"", plan.confirm.unwrap_or_default());
            return Response::error(409, &text, "Enter the name of the server.", None);
        }
        if name == "delete" && self.jobs.is_any_running() {
            return error(409, "another action is running");
        }
        let Ok(id) = random::bytes::<8>() else { return error(500, "could not read /dev/urandom") };
        let job = Job {
            id: id.iter().map(|byte| format!("{byte:02x}")).collect(),
            action: name.to_owned(),
            command: plan.command,
            server: action.server(&present),
            user: session.user.name.clone(),
            started: utc(SystemTime::now()),
            ended: None,
            exit: None,
            lines: Default::default(),
        };
        match self.jobs.start(job, from.to_string(), action.work(&self.config, &session.user.name)) {
            Ok(Some(id)) => ok(&json!({ "job": id })),
            Ok(None) => error(503, "too many actions are running"),
            Err(failed) => error(500, &failed.message),
        }
    }

    // --------------------------------------------------------------------------------------------------------- events

    /// Sends events until the browser or the session is gone.
    pub fn stream(&self, connection: &mut Connection, token: &str) {
        let Some((number, events)) = self.feed.subscribe() else {
            let _ = connection.send(&error(503, "too many streams of events").bytes(&self.security, false));
            return;
        };
        let head =
            Response { status: 200, content_type: "text/event-stream", headers: String::new(), body: String::new() };
        let first = feed::event("status", &feed::status(&self.config.dir, self.status));
        let mut begun =
            connection.send(&head.bytes(&self.security, true)).is_ok() && connection.send(first.as_bytes()).is_ok();
        let mut next = Instant::now() + COMMENT;
        while begun {
            let event: Option<Arc<str>> = match events.recv_deadline(next) {
                Ok(event) => Some(event),
                Err(crossbeam_channel::RecvTimeoutError::Timeout) => None,
                Err(crossbeam_channel::RecvTimeoutError::Disconnected) => break,
            };
            if self.session(token).is_none() {
                let _ = connection.send(feed::event("logout", &json!({})).as_bytes());
                break;
            }
            begun = match event {
                Some(event) => connection.send(event.as_bytes()).is_ok(),
                None => {
                    next = Instant::now() + COMMENT;
                    connection.send(b": alive\n\n").is_ok()
                }
            };
        }
        self.feed.unsubscribe(number);
    }
}

/// The status of HTTP for an exit status of `mc_ctl`.
fn of_exit(exit: u8) -> u16 {
    match exit {
        3 => 503,
        4 => 409,
        5 => 504,
        _ => 500,
    }
}

/// A parameter of the query, decoded.
fn parameter(head: &Head, name: &str) -> Option<String> {
    let value = head.query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))?;
    let (mut bytes, mut rest) = (Vec::new(), value.bytes());
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn explain(what: &str) -> Response {
    let mut value = json!({ "number": null, "code": null, "command": null, "on": null });
    if let Some(entry) = remedies::find(what) {
        let found = check::catalogue().find(|entry| entry.code == what);
        value["code"] = what.into();
        value["type"] = found.map_or("", |found| found.severity.word()).into();
        value["text"] = found.map_or("", |found| found.about).into();
        value["explanation"] = entry.explain().into();
    } else if let Some(entry) = catalogue::parse_number(what).and_then(catalogue::find) {
        let command = commands::find(entry.number);
        value["number"] = entry.number.into();
        value["type"] = entry.kind.word().into();
        value["text"] = entry.text.into();
        value["cause"] = entry.cause.into();
        value["action"] = entry.action.into();
        value["remedy"] = entry.remedy.into();
        value["command"] = command.map(|command| command.line_in(&Form::Direct)).into();
        value["on"] = command.map(|command| command.on).into();
        value["explanation"] = entry.explain(&Form::Direct).into();
    } else {
        return error(404, "there is no such message or finding");
    }
    ok(&value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_a_query() {
        let head = |query: &str| {
            let text = format!("GET /x?{query} HTTP/1.0\r\n\r\n");
            crate::daemon::http::head(text.as_bytes()).unwrap().unwrap()
        };
        assert_eq!(parameter(&head("a=1&fault=host%201%2Cx"), "fault").as_deref(), Some("host 1,x"));
        assert_eq!(parameter(&head("faults=1"), "fault"), None);
        assert_eq!(parameter(&head("fault=%"), "fault"), None);
        assert_eq!(parameter(&head("fault=%ff"), "fault"), None);
    }

    #[test]
    fn messages_and_findings_are_explained() {
        assert_eq!(explain("MCA00062").status, 200);
        assert_eq!(explain(check::catalogue().next().unwrap().code).status, 200);
        assert_eq!(explain("nothing").status, 404);
    }
}
