//! The network: two hosts' network namespaces, wired to a bridge in a third, where the clients are.
//!
//! Addresses are the same in every pair, since no pair sees another. A cut is silent: the links stay up, frames vanish.

use super::run::run;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The hosts' addresses, those of the guide's example.
pub const ADDRESS: [&str; 2] = ["192.0.2.100", "192.0.2.110"];

/// A network namespace, alive as long as its holder, which dies with the thread that made it.
pub struct Space {
    holder: Child,
}

impl Space {
    fn new() -> Space {
        let mut holder = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--net", "sh", "-c"])
            .arg("ip link set lo up && echo ready && exec sleep infinity")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("could not run setpriv");
        let mut line = String::new();
        let _ = BufReader::new(holder.stdout.take().expect("piped")).read_line(&mut line);
        assert!(line.trim() == "ready", "could not make a network namespace (is this root, with CAP_NET_ADMIN?)");
        Space { holder }
    }

    /// A process inside.
    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    fn batch(&self, program: &str, lines: &str) {
        let mut child = Command::new("nsenter")
            .args(["-t", &self.pid().to_string(), "-n", program, "-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("could not run nsenter");
        child.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("could not write");
        assert!(child.wait().expect("could not wait").success(), "{program} failed on:\n{lines}");
    }

    /// Occupies a port inside, until the listener is dropped.
    pub fn listen(&self, port: u16) -> TcpListener {
        std::thread::scope(|scope| {
            let bind = || {
                self.enter();
                TcpListener::bind(("0.0.0.0", port)).expect("could not bind")
            };
            scope.spawn(bind).join().expect("could not bind")
        })
    }

    /// Moves the calling thread, and what it starts from now on, inside.
    fn enter(&self) {
        let file = File::open(format!("/proc/{}/ns/net", self.pid())).expect("could not open the namespace");
        rustix::thread::move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&file),
            Some(rustix::thread::LinkNameSpaceType::Network),
        )
        .expect("could not enter the network namespace");
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// The network of one pair.
pub struct Net {
    hub: Space,
    /// The hosts' ends.
    pub hosts: [Space; 2],
}

impl Net {
    /// Makes it, and moves the calling thread to where the clients are.
    pub fn new() -> Net {
        let net = Net { hub: Space::new(), hosts: [Space::new(), Space::new()] };
        let mut lines = String::from("link add br0 type bridge\nlink set br0 up\naddr add 192.0.2.1/24 dev br0\n");
        for (n, host) in net.hosts.iter().enumerate() {
            lines += &format!("link add port{n} type veth peer name eth0 netns {}\n", host.pid());
            lines += &format!("link set port{n} master br0 up\n");
        }
        net.hub.batch("ip", &lines);
        for (n, host) in net.hosts.iter().enumerate() {
            host.batch("ip", &format!("addr add {}/24 dev eth0\nlink set eth0 up\n", ADDRESS[n]));
        }
        net.hub.enter();
        net
    }

    fn port(&self, host: usize, state: &str) {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.hub.pid().to_string(), "-n", "bridge", "link", "set", "dev"]);
        command.args([&format!("port{host}"), "state", state]);
        run(command, Duration::from_secs(10)).expect(0, "bridge link set");
    }

    /// The host falls silent for everybody.
    pub fn cut(&self, host: usize) {
        self.port(host, "0");
    }

    /// Undoes [`Net::cut`].
    pub fn heal(&self, host: usize) {
        self.port(host, "3");
    }

    /// What `from` sends to the other host is lost; clients still reach both.
    pub fn cut_way(&self, from: usize) {
        let to = ADDRESS[1 - from];
        self.hosts[from].batch("ip", &format!("neigh replace {to} lladdr 02:00:00:00:00:99 dev eth0 nud permanent\n"));
    }

    /// Undoes [`Net::cut_way`].
    pub fn heal_way(&self, from: usize) {
        self.hosts[from].batch("ip", &format!("neigh del {} dev eth0\n", ADDRESS[1 - from]));
    }
}
