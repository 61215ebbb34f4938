//! A host's syslog: the socket behind its `/dev/log`, remembered line by line.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// What has been logged so far.
#[derive(Clone, Default)]
pub struct Syslog {
    lines: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Syslog {
    /// Listens at `path` until the test process ends.
    pub fn listen(path: &Path) -> Syslog {
        let socket = UnixDatagram::bind(path).unwrap_or_else(|e| panic!("could not bind {path:?}: {e}"));
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).expect("could not chmod");
        let log = Syslog::default();
        let lines = Arc::clone(&log.lines);
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            while let Ok(length) = socket.recv(&mut buffer) {
                let line = String::from_utf8_lossy(&buffer[..length]).trim_end().to_string();
                lines.lock().expect("not poisoned").push((Instant::now(), line));
            }
        });
        log
    }

    /// The first line since `since` that contains `text`.
    pub fn find(&self, since: Instant, text: &str) -> Option<(Instant, String)> {
        self.lines.lock().expect("not poisoned").iter().find(|(at, l)| *at >= since && l.contains(text)).cloned()
    }

    /// All lines since then.
    pub fn since(&self, since: Instant) -> Vec<(Instant, String)> {
        self.lines.lock().expect("not poisoned").iter().filter(|(at, _)| *at >= since).cloned().collect()
    }
}
