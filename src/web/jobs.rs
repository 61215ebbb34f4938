//! The actions that were started: what each prints, how it ended, and the record of them that outlives the console.

use super::feed::Feed;
use super::run::Ended;
use crate::daemon::lock;
use crate::error::Result;
use crate::messages::{self, Tell, utc};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

/// Jobs that are remembered, and that run at a time.
const MAX_JOBS: usize = 32;
const MAX_RUNNING: usize = 4;
/// Lines of a job, and bytes of a line.
const MAX_LINES: usize = 1000;
const MAX_LINE: usize = 2000;
/// Size at which the record is renamed to `actions.1`, in bytes.
const RECORD_LIMIT: u64 = 1 << 20;

/// One action that was started.
#[derive(Clone, Serialize)]
pub struct Job {
    /// Names it.
    pub id: String,
    /// The action.
    pub action: String,
    /// The command line.
    pub command: String,
    /// The server on which it runs.
    pub server: String,
    /// Who started it.
    pub user: String,
    /// When.
    pub started: String,
    /// When it ended.
    pub ended: Option<String>,
    /// Its exit status.
    pub exit: Option<u8>,
    /// What it prints.
    #[serde(skip)]
    pub lines: VecDeque<String>,
}

impl Job {
    /// With its lines.
    pub fn whole(&self) -> serde_json::Value {
        let mut value = self.short();
        value["lines"] = serde_json::json!(self.lines);
        value
    }

    /// Without them.
    pub fn short(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// A line of the record: the begin of an action, or its end, which has `ended`.
#[derive(Clone, Serialize, Deserialize)]
pub struct Record {
    /// The job.
    pub job: String,
    /// When this happened.
    pub time: String,
    /// Who; empty at the end.
    #[serde(default)]
    pub user: String,
    /// What; empty at the end.
    #[serde(default)]
    pub command: String,
    /// Where.
    #[serde(default)]
    pub server: String,
    /// When it ended.
    pub ended: Option<String>,
    /// Its exit status.
    pub exit: Option<u8>,
}

/// All of them.
pub struct Jobs {
    jobs: Mutex<VecDeque<Job>>,
    record: PathBuf,
    feed: Arc<Feed>,
}

/// What a job does: it passes on each line, and returns how it ended.
pub type Work = Box<dyn FnOnce(&mut dyn FnMut(&str)) -> Result<Ended> + Send>;

impl Jobs {
    /// None yet; `record`: the file of the record.
    pub fn new(record: PathBuf, feed: Arc<Feed>) -> Jobs {
        Jobs { jobs: Mutex::default(), record, feed }
    }

    /// The newest first.
    pub fn list(&self) -> Vec<serde_json::Value> {
        lock(&self.jobs).iter().rev().map(Job::short).collect()
    }

    /// One.
    pub fn find(&self, id: &str) -> Option<Job> {
        lock(&self.jobs).iter().find(|job| job.id == id).cloned()
    }

    /// Whether one runs.
    pub fn is_any_running(&self) -> bool {
        lock(&self.jobs).iter().any(|job| job.ended.is_none())
    }

    /// Starts one, on a thread of its own; `None` where too many run. `from`: the user's address.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(self: &Arc<Jobs>, job: Job, from: String, work: Work) -> Result<Option<String>> {
        let id = job.id.clone();
        {
            let mut jobs = lock(&self.jobs);
            if jobs.iter().filter(|job| job.ended.is_none()).count() >= MAX_RUNNING {
                return Ok(None);
            }
            jobs.push_back(job.clone());
            while jobs.len() > MAX_JOBS {
                let Some(at) = jobs.iter().position(|job| job.ended.is_some()) else { break };
                jobs.remove(at);
            }
        }
        let Job { user, command, server, started: time, .. } = job.clone();
        messages::tell(&Tell::WebAction { user: user.clone(), from, command: command.clone(), server: server.clone() });
        self.note(&Record { job: id.clone(), time, user, command, server, ended: None, exit: None });
        self.feed.job(&job, None);
        let jobs = self.clone();
        crate::daemon::spawn("web-job", move || jobs.perform(job, work))?;
        Ok(Some(id))
    }

    fn perform(&self, job: Job, work: Work) {
        let id = job.id;
        let result = work(&mut |line| self.line(&id, line));
        let exit = match result {
            Ok(ended) => ended.exit,
            Err(error) => {
                error.to_string().lines().for_each(|line| self.line(&id, line));
                1
            }
        };
        let time = utc(SystemTime::now());
        let Some(job) = self.change(&id, |job| (job.ended, job.exit) = (Some(time.clone()), Some(exit))) else {
            return;
        };
        let last = job.lines.back().cloned();
        messages::tell(&Tell::WebActionEnded { user: job.user.clone(), command: job.command.clone(), exit });
        let [user, command, server] = [const { String::new() }; 3];
        self.note(&Record { job: id, time: time.clone(), user, command, server, ended: Some(time), exit: Some(exit) });
        self.feed.job(&job, last);
    }

    fn line(&self, id: &str, line: &str) {
        let line: String = line.chars().take(MAX_LINE).collect();
        let changed = self.change(id, |job| {
            job.lines.push_back(line.clone());
            if job.lines.len() > MAX_LINES {
                job.lines.pop_front();
            }
        });
        if let Some(job) = changed {
            self.feed.job(&job, Some(line));
        }
    }

    /// Changes one; a copy of it.
    fn change(&self, id: &str, change: impl FnOnce(&mut Job)) -> Option<Job> {
        let mut jobs = lock(&self.jobs);
        let job = jobs.iter_mut().find(|job| job.id == id)?;
        change(job);
        Some(job.clone())
    }

    /// One more line of the record. If it cannot be written, syslog still has the action.
    fn note(&self, record: &Record) {
        if self.record.metadata().is_ok_and(|meta| meta.len() > RECORD_LIMIT) {
            let _ = std::fs::rename(&self.record, self.record.with_extension("1"));
        }
        let file = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&self.record);
        let line = serde_json::to_string(record).unwrap_or_default() + "\n";
        if let Err(cause) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
            log::debug!("could not write \"{}\": {cause}", self.record.display());
        }
    }
}

/// The actions in the record, as rows of the history.
pub fn history(record: &Path) -> Vec<serde_json::Value> {
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let text = read(&record.with_extension("1")) + &read(record);
    let mut actions: Vec<Record> = Vec::new();
    for line in text.lines().filter_map(|line| serde_json::from_str::<Record>(line).ok()) {
        match (line.ended.is_some(), actions.iter_mut().rev().find(|begun| begun.job == line.job)) {
            (true, Some(begun)) => (begun.ended, begun.exit) = (line.ended, line.exit),
            (true, None) => (),
            (false, _) => actions.push(line),
        }
    }
    let row = |action: Record| {
        let Record { job, time, user, command, server, ended, exit } = action;
        let outcome = match exit {
            None => String::new(),
            Some(0) => ", which succeeded".to_owned(),
            Some(exit) => format!(", which failed with exit status {exit}"),
        };
        serde_json::json!({
            "time": time, "reason": format!("user \"{user}\" of the web console ran \"{command}\" on server \"{server}\"{outcome}"),
            "from": null, "to": null, "lost": null,
            "action": { "user": user, "command": command, "server": server, "job": job, "ended": ended, "exit": exit },
        })
    };
    actions.into_iter().map(row).collect()
}
