//! The name service of the hosts: each has an `/etc/hosts` and an `/etc/resolv.conf` of its own, which a test changes.

use super::host::Host;
use super::net::{ADDRESSES, ADMIN};
use super::pair::Pair;
use super::run::run;
use std::fs::write;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::Duration;

/// The names of the servers' hosts and of the arbiter's.
pub const NAMES: [&str; 3] = ["db1.test", "db2.test", "arb.test"];

/// How a name service behaves.
pub enum NameService {
    /// It knows all names.
    Answers,
    /// It fails at once: no name server runs.
    Fails,
    /// It hangs: a name server takes the question and never answers.
    Hangs,
}

impl Pair {
    fn all_hosts(&self) -> impl Iterator<Item = (usize, &Host)> {
        let servers = self.hosts.iter().enumerate();
        servers.chain(self.arbiter.iter().map(|host| (2, host)))
    }

    fn name_file(host: &Host, name: &str) -> PathBuf {
        host.dir.join(format!("etc-{name}"))
    }

    /// Gives each host its own files, on which the names resolve.
    pub(super) fn install_names(&self) {
        for (_, host) in self.all_hosts() {
            for name in ["hosts", "resolv.conf", "nsswitch.conf"] {
                let file = Pair::name_file(host, name);
                write(&file, if name == "nsswitch.conf" { "hosts: files dns\n" } else { "" }).expect("could not write");
                let mut command = host.command("mount");
                command.arg("--bind").arg(&file).arg(format!("/etc/{name}"));
                run(command, Duration::from_secs(10)).expect(0, "mount --bind");
            }
        }
        drop(self.set_names(NameService::Answers));
    }

    /// Changes the name service of all hosts. What is returned belongs to it.
    pub fn set_names(&self, service: NameService) -> Vec<UdpSocket> {
        let mut servers = Vec::new();
        for (n, host) in self.all_hosts() {
            let names = NAMES.iter().zip(ADDRESSES[ADMIN]).map(|(name, address)| format!("{address} {name}\n"));
            let hosts: String = match service {
                NameService::Answers => names.collect(),
                _ => String::new(),
            };
            if matches!(service, NameService::Hangs) {
                let bind = || UdpSocket::bind("127.0.0.1:53").expect("could not bind");
                servers.push(self.net.hosts[n].inside(bind));
            }
            // in place: the file itself is mounted
            let resolv = "nameserver 127.0.0.1\noptions timeout:20 attempts:1\n";
            write(Pair::name_file(host, "resolv.conf"), resolv).expect("could not write");
            write(Pair::name_file(host, "hosts"), format!("127.0.0.1 localhost\n{hosts}")).expect("could not write");
        }
        servers
    }
}
