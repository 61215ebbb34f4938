//! The same faults for Mirroring Controller, Patroni, pg_auto_failover and repmgr, in turn, on the same hosts with the same
//! client. Each product has the two servers and the third host of [`Pair`] with an arbiter.
//!
//! A shell script in `peers` sets up each other product. Everything that it starts belongs to the hosts and ends with them;
//! everything that it writes is in the directory of the pair.

use crate::harness::client::Style;
use crate::harness::host::Host;
use crate::harness::net::{ADDRESSES, ADMIN};
use crate::harness::pair::{Pair, Setup, own};
use crate::harness::run::{Answer, run};
use crate::harness::{bin_dir, s, wait_for};
use crate::{Run, measure, until_served};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// A product; without a script in `peers` it is Mirroring Controller.
struct Product {
    key: &'static str,
    name: &'static str,
    script: Option<&'static str>,
    /// A further line of both `postgresql.conf`.
    pg: &'static str,
}

const PRODUCTS: &[Product] = &[
    Product { key: "mc", name: "Mirroring Controller", script: None, pg: "" },
    Product { key: "patroni", name: "Patroni", script: Some("patroni"), pg: "" },
    Product { key: "auto-failover", name: "pg_auto_failover", script: Some("pg_auto_failover"), pg: "" },
    Product { key: "repmgr", name: "repmgr", script: Some("repmgr"), pg: "shared_preload_libraries = 'repmgr'" },
];

/// A fault. The other products always have their fast settings, except where `defaults` is set; Mirroring Controller has its
/// default settings, except where `fast` is set.
struct Fault {
    key: &'static str,
    title: &'static str,
    defaults: bool,
    fast: bool,
    style: Style,
    inflict: fn(&Product, &mut Pair),
}

const FAULTS: &[Fault] = &[
    Fault {
        key: "postmaster",
        title: "SIGKILL of the primary's postmaster: outage",
        defaults: false,
        fast: false,
        style: Style::OneSession,
        inflict: |_, pair| kill(pair, 0),
    },
    Fault {
        key: "host",
        title: "the primary's host stops responding, default settings: outage",
        defaults: true,
        fast: false,
        style: Style::PerHost,
        inflict: |_, pair| lose_host(pair),
    },
    Fault {
        key: "host-fast",
        title: "the primary's host stops responding, fast settings: outage",
        defaults: false,
        fast: true,
        style: Style::PerHost,
        inflict: |_, pair| lose_host(pair),
    },
    Fault {
        key: "standby",
        title: "SIGKILL of the standby's postmaster: longest wait of a commit",
        defaults: false,
        fast: false,
        style: Style::OneSession,
        inflict: |_, pair| kill(pair, 1),
    },
    Fault {
        key: "switch",
        title: "planned switchover: outage",
        defaults: false,
        fast: false,
        style: Style::OneSession,
        inflict: Product::switch,
    },
];

fn kill(pair: &Pair, server: usize) {
    pair.kill_postmaster(server);
}

/// The host stops responding, then loses power.
fn lose_host(pair: &mut Pair) {
    pair.net.cut(0);
    pair.host_mut(0).power_off();
}

/// The cases as `PRODUCT-FAULT`, each with the title of its row.
pub fn names() -> Vec<(String, String)> {
    let name =
        |fault: &Fault, p: &Product| (format!("{}-{}", p.key, fault.key), format!("{}: {}", p.name, fault.title));
    FAULTS.iter().flat_map(|fault| PRODUCTS.iter().map(move |product| name(fault, product))).collect()
}

/// Measures the cases that are wanted, fault by fault and product by product.
pub fn measure_all(wanted: impl Fn(&str) -> bool, runs: usize) {
    let each = FAULTS.iter().flat_map(|fault| PRODUCTS.iter().map(move |product| (fault, product)));
    for ((fault, product), (key, title)) in each.zip(names()) {
        if wanted(&key) {
            measure(&key, [&title, "", "s"], runs, || product.run(fault));
        }
    }
}

impl Product {
    fn run(&self, fault: &Fault) -> Run {
        let mut pair = self.up(if self.script.is_some() { !fault.defaults } else { fault.fast });
        let client = pair.client(fault.style);
        std::thread::sleep(s(2));
        let at = Instant::now();
        (fault.inflict)(self, &mut pair);
        until_served(&client, at, s(240));
        let gap = client.longest_gap(at).as_secs_f64();
        let writable = |n: &usize| pair.try_sql(*n, "SHOW transaction_read_only").is_ok_and(|word| word == "off");
        let primary = [1, 0].into_iter().find(writable).expect("a primary");
        Run { values: vec![gap], lost: client.lost_on(&pair, primary).len(), ..Run::default() }
    }

    /// The pair with this product, mirrored.
    fn up(&self, fast: bool) -> Pair {
        let setup = Setup::default().arbiter();
        let Some(script) = self.script else { return if fast { setup.fast() } else { setup }.up() };
        let path = format!("{}/tests/postgres/peers/{script}.sh", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("could not read {path}: {e}"));
        let pair = setup.pg("synchronous_standby_names = ''").pg(self.pg).make();
        let hosts = [pair.host(0), pair.host(1), pair.third()];
        for host in hosts {
            let dir = host.dir.join("peer");
            std::fs::create_dir(&dir).expect("could not create a directory");
            let functions = "start() { setsid -f \"$@\" </dev/null >>\"$DIR/${1##*/}.log\" 2>&1; }";
            std::fs::write(dir.join("script"), format!("set -e\n{functions}\n{text}\n\"$1\"\n"))
                .expect("could not write");
            own(&dir);
            // sockets and numbers of processes are the host's own
            let mut mount = host.command("sh");
            mount.args(["-ec", "mount -t tmpfs none /run; install -d -o postgres /run/postgresql"]);
            run(mount, s(10)).expect(0, "mount");
            if text.contains("\nroot() {") {
                self.step(&pair, host, host.command("env"), fast, "root").expect(0, "root");
            }
        }
        let step = |host: &Host, step: &str| self.step(&pair, host, host.admin("env"), fast, step);
        step(hosts[2], "third").expect(0, "third");
        hosts[..2].iter().for_each(|host| drop(step(host, "node").expect(0, "node")));
        for host in hosts.into_iter().rev() {
            wait_for(&format!("{} is ready on {}", self.name, host.name), s(90), || {
                (step(host, "ready").code == 0).then_some(())
            });
        }
        assert_eq!(pair.sql(0, "SHOW transaction_read_only"), "off", "the first server is the primary");
        pair
    }

    /// Runs a function of the script on a host.
    fn step(&self, pair: &Pair, host: &Host, mut command: Command, fast: bool, step: &str) -> Answer {
        let dir = host.dir.join("peer");
        let number = ADDRESSES[ADMIN].iter().position(|address| *address == host.address).expect("a host");
        let data = pair.servers.get(number).map_or(dir.join("data"), |server| server.data.clone());
        let paths: [(&str, &Path); 4] = [
            ("DIR", &dir),
            ("DATA", &data),
            ("BIN", bin_dir()),
            ("KEYS", dir.parent().and_then(Path::parent).expect("a parent")),
        ];
        command.args(paths.map(|(name, path)| format!("{name}={}", path.display())));
        command.args([
            format!("NAME={}", ["nd1", "nd2", "arb"][number]),
            format!("ME={}", host.address),
            format!("THIRD={}", ADDRESSES[ADMIN][2]),
            format!("FAST={}", u8::from(fast)),
        ]);
        command.arg("sh").arg(dir.join("script")).arg(step);
        run(command, s(90))
    }

    fn switch(&self, pair: &mut Pair) {
        match self.script {
            None => pair.mc(0, &["switch"]),
            Some(_) => self.step(pair, pair.host(1), pair.host(1).admin("env"), true, "switch"),
        }
        .expect(0, "the switchover");
    }
}
