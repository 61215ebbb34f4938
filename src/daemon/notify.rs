//! What a service manager that started this process with `--foreground` is told: sd_notify(3), `Type=notify`.
//!
//! Sent by the decision thread alone, so that a watchdog is never fed while it stands still. Datagrams, never waited for: a
//! service manager that does not read must not stop a controller. Without `NOTIFY_SOCKET` nothing is sent. Nothing that this
//! process starts inherits the variables (`pg::commands`, `user_command`): PostgreSQL would speak in our name.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The way to the service manager.
#[derive(Debug, Default)]
pub struct Notify {
    socket: Option<UnixDatagram>,
    /// Half of what the watchdog allows, ms; `None` where there is none.
    period_ms: Option<u64>,
    /// When the watchdog was last fed, ms.
    fed: u64,
    status: String,
    owed: Owed,
}

/// What is still to be told: where there was no room, it is told with the next beat.
#[derive(PartialEq, Eq, Debug, Default)]
struct Owed {
    ready: bool,
    stopping: bool,
    status: bool,
}

impl Notify {
    /// As the environment says. An address that cannot be reached is as good as none.
    pub fn from_environment() -> Notify {
        let text = |name: &str| std::env::var(name).ok();
        let socket = std::env::var_os("NOTIFY_SOCKET").and_then(|address| connect(&address).ok());
        let mine = text("WATCHDOG_PID").is_none_or(|pid| pid.parse() == Ok(std::process::id()));
        let period_ms = text("WATCHDOG_USEC").filter(|_| mine).as_deref().and_then(period_ms);
        Notify { socket, period_ms, ..Notify::default() }
    }

    /// It serves.
    pub fn ready(&mut self) {
        self.owed.ready = true;
        self.send("");
    }

    /// It ends.
    pub fn stopping(&mut self) {
        self.owed.stopping = true;
        self.send("");
    }

    /// Shown by `systemctl status`.
    pub fn status(&mut self, status: &str) {
        if status != self.status {
            status.clone_into(&mut self.status);
            self.owed.status = true;
            self.send("");
        }
    }

    /// The decision thread goes round; `at` in ms.
    pub fn beat(&mut self, at: u64) {
        if self.period_ms.is_some_and(|period| at.saturating_sub(self.fed) >= period) {
            self.fed = at;
            self.send("WATCHDOG=1\n");
        } else if self.owed != Owed::default() {
            self.send("");
        }
    }

    fn send(&mut self, food: &str) {
        let Some(socket) = &self.socket else { return };
        let Owed { ready, stopping, status } = self.owed;
        let status = if status { format!("STATUS={}\n", self.status) } else { String::new() };
        let [ready, stopping] =
            [(ready, "READY=1\n"), (stopping, "STOPPING=1\n")].map(|(is, text)| if is { text } else { "" });
        let text = format!("{ready}{status}{stopping}{food}");
        if !socket.send(text.as_bytes()).is_err_and(|cause| cause.kind() == std::io::ErrorKind::WouldBlock) {
            self.owed = Owed::default();
        }
    }
}

/// A path, or a name in the abstract name space, which begins with `@`.
fn connect(address: &OsStr) -> std::io::Result<UnixDatagram> {
    let address = match address.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// Half of the microseconds that this names, in ms: the rate that sd_watchdog_enabled(3) recommends.
fn period_ms(usec: &str) -> Option<u64> {
    usec.parse::<u64>().ok().filter(|usec| *usec > 0).map(|usec| usec / 2000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Notify, UnixDatagram, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_nonblocking(true).unwrap();
        let socket = Some(connect(path.as_os_str()).unwrap());
        (Notify { socket, period_ms: Some(500), ..Notify::default() }, manager, dir)
    }

    fn heard(manager: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 8192];
        let mut heard = Vec::new();
        while let Ok(length) = manager.recv(&mut buffer) {
            heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        heard
    }

    #[test]
    fn what_is_told() {
        let (mut notify, manager, _dir) = pair();
        notify.ready();
        for at in [1000, 1100, 1499, 1500, 1999, 2300] {
            notify.beat(at);
        }
        notify.status("switchable");
        notify.status("switchable");
        notify.stopping();
        let expected = ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1", "STATUS=switchable", "STOPPING=1"];
        assert_eq!(heard(&manager), expected.map(|line| format!("{line}\n")));
    }

    #[test]
    fn a_manager_that_does_not_read_is_not_waited_for() {
        let (mut notify, manager, _dir) = pair();
        for round in 0..10_000 {
            notify.beat(round * 1000);
        }
        notify.ready();
        notify.stopping();
        let full = heard(&manager).len();
        assert!(full < 10_000, "{full}");
        notify.beat(20_000_000);
        assert_eq!(heard(&manager), ["READY=1\nSTOPPING=1\nWATCHDOG=1\n"]);
    }

    #[test]
    fn a_name_in_the_abstract_name_space() {
        let name = format!("mc-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let mut notify =
            Notify { socket: Some(connect(OsStr::new(&format!("@{name}"))).unwrap()), ..Notify::default() };
        notify.ready();
        manager.set_nonblocking(true).unwrap();
        assert_eq!(heard(&manager), ["READY=1\n"]);
    }

    #[test]
    fn half_of_the_watchdogs_time() {
        assert_eq!(["10000000", "3000", "0", "", "x"].map(period_ms), [Some(5000), Some(1), None, None, None]);
    }
}
