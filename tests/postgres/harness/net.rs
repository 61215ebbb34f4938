//! The networks: the hosts' network namespaces, wired to one bridge a network in another namespace, where the clients
//! of two-server cases are.
//!
//! Addresses are the same in every pair, since no pair sees another. A cut is silent: the links stay up, frames vanish.

use super::far::Far;
use super::run::run;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The admin network: controller to controller and, where there is no other, everything.
pub const ADMIN: usize = 0;
/// The log transfer network: between the instances.
pub const LOG: usize = 1;
/// The arbitration network: the second host of `network.conf`.
pub const ARBITRATION: usize = 2;

/// By network and host (two servers, then the arbiter); the admin network's are those of the guide's example.
pub const ADDRESSES: [[&str; 3]; 3] = [
    ["192.0.2.100", "192.0.2.110", "192.0.2.120"],
    ["198.51.100.100", "198.51.100.110", "198.51.100.120"],
    ["203.0.113.100", "203.0.113.110", "203.0.113.120"],
];
/// The clients' own address on the admin network.
pub const HUB: &str = "192.0.2.1";

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

    /// Runs lines of one of iproute2's programs inside.
    pub fn batch(&self, program: &str, lines: &str) {
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
        self.inside(|| TcpListener::bind(("0.0.0.0", port)).expect("could not bind"))
    }

    /// Does something on a thread that is inside.
    pub fn inside<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        let task = || {
            Space::enter(self.pid());
            what()
        };
        std::thread::scope(|scope| scope.spawn(task).join().unwrap_or_else(|e| std::panic::resume_unwind(e)))
    }

    /// Moves the calling thread, and what it starts from now on, into the network namespace of a process.
    pub fn enter(pid: u32) {
        let file = File::open(format!("/proc/{pid}/ns/net")).expect("could not open the namespace");
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

/// What is wired.
#[derive(Clone, Copy, Debug)]
pub struct Wiring {
    /// Two, or three with the arbiter's.
    pub hosts: usize,
    /// One to three: [`ADMIN`], [`LOG`], [`ARBITRATION`].
    pub networks: usize,
    /// The hosts are far from each other: what goes between them is delayed and lost as [`Net::far`] says.
    pub far: bool,
}

/// The networks of one pair.
pub struct Net {
    hub: Space,
    networks: usize,
    /// The hosts' ends: the servers', then the arbiter's.
    pub hosts: Vec<Space>,
    /// The way between hosts that are far from each other.
    pub far: Option<Far>,
}

impl Net {
    /// Makes them, and moves the calling thread to where the clients are.
    pub fn new(wiring: Wiring) -> Net {
        let hub = Space::new();
        let hosts: Vec<Space> = (0..wiring.hosts).map(|_| Space::new()).collect();
        let mut lines = String::new();
        for network in 0..wiring.networks {
            lines += &format!("link add br{network} type bridge\nlink set br{network} up\n");
            for (n, host) in hosts.iter().enumerate() {
                lines += &format!("link add port{n}{network} type veth peer name eth{network} netns {}\n", host.pid());
                lines += &format!("link set port{n}{network} master br{network} up\n");
            }
        }
        // clients reach the instances by the admin network, and where that is cut by the log transfer network
        lines += &format!("addr add {HUB}/24 dev br0\n");
        if wiring.networks > LOG {
            lines += "addr add 198.51.100.1/24 dev br1\n";
        }
        hub.batch("ip", &lines);
        for (n, host) in hosts.iter().enumerate() {
            let lines = (0..wiring.networks)
                .map(|k| format!("addr add {}/24 dev eth{k}\nlink set eth{k} up\n", ADDRESSES[k][n]))
                .collect::<String>();
            host.batch("ip", &lines);
        }
        let far = wiring.far.then(|| Far::new(&hub, &hosts));
        Space::enter(hub.pid());
        Net { hub, networks: wiring.networks, hosts, far }
    }

    fn port(&self, network: usize, host: usize, state: &str) {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.hub.pid().to_string(), "-n", "bridge", "link", "set", "dev"]);
        command.args([&format!("port{host}{network}"), "state", state]);
        run(command, Duration::from_secs(10)).expect(0, "bridge link set");
    }

    /// The host falls silent for everybody, on all networks.
    pub fn cut(&self, host: usize) {
        (0..self.networks).for_each(|network| self.cut_on(network, host));
    }

    /// Undoes [`Net::cut`].
    pub fn heal(&self, host: usize) {
        (0..self.networks).for_each(|network| self.heal_on(network, host));
    }

    /// The host falls silent on one network.
    pub fn cut_on(&self, network: usize, host: usize) {
        self.port(network, host, "0");
    }

    /// Undoes [`Net::cut_on`].
    pub fn heal_on(&self, network: usize, host: usize) {
        self.port(network, host, "3");
    }

    /// What one server sends to the other is lost; clients, and the arbiter, still reach both.
    pub fn cut_way(&self, from: usize) {
        self.cut_from_to(from, 1 - from);
    }

    /// Undoes [`Net::cut_way`].
    pub fn heal_way(&self, from: usize) {
        self.heal_from_to(from, 1 - from);
    }

    /// What this host sends to that one is lost, on all networks; what that one sends arrives.
    pub fn cut_from_to(&self, from: usize, to: usize) {
        let nobody = "lladdr 02:00:00:00:00:99";
        self.neighbours(from, |network, dev| {
            format!("neigh replace {} {nobody} dev {dev} nud permanent\n", ADDRESSES[network][to])
        });
    }

    /// Undoes [`Net::cut_from_to`].
    pub fn heal_from_to(&self, from: usize, to: usize) {
        self.neighbours(from, |network, dev| format!("neigh del {} dev {dev}\n", ADDRESSES[network][to]));
    }

    /// Two hosts do not hear each other; all others hear both.
    pub fn cut_between(&self, one: usize, other: usize) {
        self.cut_from_to(one, other);
        self.cut_from_to(other, one);
    }

    /// Undoes [`Net::cut_between`].
    pub fn heal_between(&self, one: usize, other: usize) {
        self.heal_from_to(one, other);
        self.heal_from_to(other, one);
    }

    fn neighbours(&self, host: usize, line: impl Fn(usize, &str) -> String) {
        let lines: String = (0..self.networks).map(|network| line(network, &format!("eth{network}"))).collect();
        self.hosts[host].batch("ip", &lines);
    }
}
