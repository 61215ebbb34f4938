//! The message logs of the controller and of the console: their last lines, and what is new.

use crate::config::Network;
use crate::config::web::run_dir;
use crate::config::{client_server, read_private};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How much of a log is looked at, in bytes.
const LAST: u64 = 256 << 10;
/// Messages of one answer.
pub const MOST: usize = 500;

/// The files that are watched.
pub struct Files {
    /// Those that the history is made from.
    pub history: Vec<PathBuf>,
    /// The logs.
    pub logs: Vec<PathBuf>,
}

impl Files {
    /// Of a management directory.
    pub fn of(dir: &Path) -> Files {
        let web = run_dir(dir);
        let mut files = Files { history: vec![record(dir)], logs: vec![web.join("log")] };
        if let Some((own, _)) = servers(dir) {
            let run_dir = dir.join(own);
            files.history.extend(["history", "lost"].map(|name| run_dir.join(name)));
            files.logs.push(run_dir.join("log"));
        }
        files
    }
}

/// The record of actions.
pub fn record(dir: &Path) -> PathBuf {
    run_dir(dir).join("actions")
}

/// The identifiers of this server and of the other; `None` before a set-up.
pub fn servers(dir: &Path) -> Option<(String, String)> {
    let (network, me) = network(dir)?;
    let id = |n: usize| network.servers[n].id.clone();
    Some((id(me), id(1 - me)))
}

/// `network.conf`, and which line this server is.
pub fn network(dir: &Path) -> Option<(Network, usize)> {
    let path = dir.join("network.conf");
    let network = Network::parse(&path, &read_private(&path, "").ok()?).ok()?;
    let me = client_server(dir, &path, &network, None).ok()?.index();
    Some((network, me))
}

/// The newest messages of all logs, the newest first.
pub fn newest(dir: &Path, limit: usize) -> Vec<Value> {
    let mut messages: Vec<Value> = Vec::new();
    for log in Files::of(dir).logs {
        for path in [log.with_extension("1"), log] {
            let text = end_of(&path).unwrap_or_default();
            messages.extend(text.lines().filter_map(message));
        }
    }
    let time = |message: &Value| message["time"].as_str().unwrap_or_default().to_owned();
    // Of one log they stay in their order, whatever the clock did.
    messages.sort_by_key(time);
    messages.reverse();
    messages.truncate(limit);
    messages
}

fn end_of(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let begin = file.metadata()?.len().saturating_sub(LAST);
    file.seek(SeekFrom::Start(begin))?;
    let mut bytes = Vec::new();
    file.take(LAST).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    // The first line may be cut.
    Ok(if begin == 0 { text } else { text.split_once('\n').map_or(String::new(), |(_, rest)| rest.to_owned()) })
}

/// `TIME PROGRAM[PID]: TYPE: TEXT (MCAnnnnn)`.
fn message(line: &str) -> Option<Value> {
    let (time, rest) = line.split_once(' ')?;
    let (program, rest) = rest.split_once(": ")?;
    let (kind, text) = rest.split_once(": ")?;
    let number = text.strip_suffix(')').and_then(|text| text.rsplit_once(" (MCA"));
    let (text, number) = match number.and_then(|(text, digits)| Some((text, digits.parse::<u32>().ok()?))) {
        Some((text, number)) => (text, Some(number)),
        None => (text, None),
    };
    Some(json!({ "time": time, "program": program, "type": kind, "text": text, "number": number }))
}

/// Where a log was last read.
pub struct Tail {
    path: PathBuf,
    at: u64,
    inode: u64,
}

impl Tail {
    /// Only what is written from now on.
    pub fn at_end(path: PathBuf) -> Tail {
        let (at, inode) = path.metadata().map_or((0, 0), |meta| (meta.len(), meta.ino()));
        Tail { path, at, inode }
    }

    /// Of this file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The messages since the last call; of very many the last ones.
    pub fn new_messages(&mut self) -> Vec<Value> {
        let Ok(meta) = self.path.metadata() else { return Vec::new() };
        if meta.ino() != self.inode || meta.len() < self.at {
            (self.inode, self.at) = (meta.ino(), 0);
        }
        if meta.len() == self.at {
            return Vec::new();
        }
        self.at = self.at.max(meta.len().saturating_sub(LAST / 4));
        let Ok(mut file) = File::open(&self.path) else { return Vec::new() };
        let mut bytes = Vec::new();
        if file.seek(SeekFrom::Start(self.at)).and_then(|_| file.take(LAST / 4).read_to_end(&mut bytes)).is_err() {
            return Vec::new();
        }
        // A line that is being written comes with the next call.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.at += whole as u64;
        String::from_utf8_lossy(&bytes[..whole]).lines().filter_map(message).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_log() {
        let line = "2026-12-01T04:00:00.000Z MirroringControllerOpen[7]: LOG: promotion: done (x) (MCA00062)";
        let found = message(line).unwrap();
        assert_eq!(
            (&found["type"], &found["text"], &found["number"]),
            (&json!("LOG"), &json!("promotion: done (x)"), &json!(62))
        );
        assert_eq!(message("t p[1]: LOG: no number").unwrap()["number"], Value::Null);
        assert!(message("half a li").is_none());
    }

    #[test]
    fn a_tail_reads_whole_new_lines_through_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "t p[1]: LOG: old\n").unwrap();
        let mut tail = Tail::at_end(path.clone());
        let append = |text: &str| {
            use std::io::Write;
            let mut file = std::fs::OpenOptions::new().append(true).create(true).open(&path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        let mut texts =
            || tail.new_messages().iter().map(|m| m["text"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
        assert!(texts().is_empty());
        append("t p[1]: LOG: one\nt p[1]: LO");
        assert_eq!(texts(), ["one"]);
        append("G: two\n");
        assert_eq!(texts(), ["two"]);
        std::fs::rename(&path, dir.path().join("log.1")).unwrap();
        append("t p[1]: LOG: three\n");
        assert_eq!(texts(), ["three"]);
    }
}
