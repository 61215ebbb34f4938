//! Events for browsers: one thread looks at the controller for all of them, and only while one looks at the page.

use super::StatusSource;
use super::jobs::Job;
use super::logs::{self, Tail};
use crate::daemon::lock;
use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime};

/// How often the controller is asked.
const INTERVAL: Duration = Duration::from_millis(200);
/// Streams at a time.
const MAX_STREAMS: usize = 24;
/// Events that wait for one browser; one that does not read them is disconnected, and connects again.
const QUEUE: usize = 128;
/// How often a job's lines are passed on; the browser reads the rest from the job.
const JOB_INTERVAL: Duration = Duration::from_millis(200);

/// The streams.
#[derive(Default)]
pub struct Feed {
    streams: Mutex<Vec<(u64, Sender<Arc<str>>)>>,
    number: AtomicU64,
    any: Condvar,
    job_sent: Mutex<Option<(String, Instant)>>,
}

/// One event as it goes out.
pub fn event(name: &str, data: &Value) -> Arc<str> {
    format!("event: {name}\ndata: {data}\n\n").into()
}

impl Feed {
    /// One more stream; `None` where there are too many.
    pub fn subscribe(&self) -> Option<(u64, Receiver<Arc<str>>)> {
        let mut streams = lock(&self.streams);
        if streams.len() >= MAX_STREAMS {
            return None;
        }
        let (sender, receiver) = bounded(QUEUE);
        let number = self.number.fetch_add(1, Ordering::SeqCst);
        streams.push((number, sender));
        self.any.notify_all();
        Some((number, receiver))
    }

    /// Sends to all. A stream whose queue is full is dropped.
    fn send(&self, text: &Arc<str>) {
        lock(&self.streams).retain(|(_, stream)| stream.try_send(text.clone()).is_ok());
    }

    /// A stream has ended.
    pub fn unsubscribe(&self, number: u64) {
        lock(&self.streams).retain(|(found, _)| *found != number);
    }

    /// A job has changed.
    pub fn job(&self, job: &Job, line: Option<String>) {
        let now = Instant::now();
        let mut sent = lock(&self.job_sent);
        let soon = sent.as_ref().is_some_and(|(id, at)| *id == job.id && now.duration_since(*at) < JOB_INTERVAL);
        if soon && job.ended.is_none() {
            return;
        }
        *sent = Some((job.id.clone(), now));
        drop(sent);
        let mut value = job.short();
        value["line"] = line.filter(|_| job.action != super::actions::SETUP).into();
        self.send(&event("job", &value));
    }

    /// Watches the controller as long as the process lives.
    pub fn run(&self, dir: &Path, status: StatusSource) {
        let mut seen = Seen::default();
        loop {
            let mut streams = lock(&self.streams);
            if streams.is_empty() {
                seen = Seen::default();
                while streams.is_empty() {
                    streams = self.any.wait(streams).unwrap_or_else(std::sync::PoisonError::into_inner);
                }
            }
            drop(streams);
            let begin = Instant::now();
            seen.look(dir, status).iter().for_each(|event| self.send(event));
            std::thread::sleep(INTERVAL.saturating_sub(begin.elapsed()).max(INTERVAL / 4));
        }
    }
}

/// A file, with its size and the time of its last change.
type Stamp = (PathBuf, Option<(u64, SystemTime)>);

/// What was sent last.
#[derive(Default)]
struct Seen {
    status: Option<Value>,
    history: Option<Vec<Stamp>>,
    tails: Vec<Tail>,
}

impl Seen {
    fn look(&mut self, dir: &Path, source: StatusSource) -> Vec<Arc<str>> {
        let mut events = Vec::new();
        let value = status(dir, source);
        let lasting = without_ages(value.clone());
        if self.status.as_ref() != Some(&lasting) {
            events.push(event("status", &value));
            self.status = Some(lasting);
        }
        let files = logs::Files::of(dir);
        let stamp = |path: PathBuf| {
            let stamp = path.metadata().ok().and_then(|meta| Some((meta.len(), meta.modified().ok()?)));
            (path, stamp)
        };
        let history: Vec<_> = files.history.into_iter().map(stamp).collect();
        if self.history.as_ref().is_some_and(|before| *before != history) {
            events.push(event("history", &serde_json::json!({})));
        }
        self.history = Some(history);
        let logs: Vec<&Path> = self.tails.iter().map(Tail::path).collect();
        if logs != files.logs {
            self.tails = files.logs.into_iter().map(Tail::at_end).collect();
        }
        for message in self.tails.iter_mut().flat_map(Tail::new_messages) {
            events.push(event("message", &message));
        }
        events
    }
}

/// The status, or why there is none.
pub fn status(dir: &Path, source: StatusSource) -> Value {
    match source(dir) {
        Ok(status) => serde_json::to_value(&*status).unwrap_or_default(),
        Err(failed) => failed.json(),
    }
}

/// Without what changes by itself: ages, in seconds.
fn without_ages(mut value: Value) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|name, value| !(name.ends_with("seconds") && value.is_number()));
                fields.values_mut().for_each(strip);
            }
            Value::Array(values) => values.iter_mut().for_each(strip),
            _ => (),
        }
    }
    strip(&mut value);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_ends_leaves_the_others() {
        let feed = Feed::default();
        let [(one, _one), (_, two)] = [feed.subscribe().unwrap(), feed.subscribe().unwrap()];
        feed.unsubscribe(one);
        assert_eq!(lock(&feed.streams).len(), 1);
        feed.send(&event("x", &serde_json::json!({})));
        assert_eq!(&*two.recv().unwrap(), "event: x\ndata: {}\n\n");
        drop(two);
        feed.send(&event("x", &serde_json::json!({})));
        assert_eq!(lock(&feed.streams).len(), 0);
    }

    #[test]
    fn ages_are_no_change() {
        let at = |seconds: u64, lag: u64| {
            without_ages(serde_json::json!({"view": {"seconds": seconds, "term": 1}, "lag_bytes": lag}))
        };
        assert_eq!(at(1, 2), at(2, 2));
        assert_ne!(at(1, 2), at(1, 3));
    }
}
