//! Clients that connect as `mc_ctl conninfo` prints: each holds one session until libpq, or PostgreSQL's JDBC driver, reports it as
//! lost, and then connects again with the same string.

use crate::harness::net::Space;
use crate::harness::pair::{Pair, Setup};
use crate::harness::{bin_dir, s, wait_for};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Returns the address of the server that has committed.
const COMMIT: &[u8] = b"INSERT INTO apps DEFAULT VALUES RETURNING host(inet_server_addr());\n";
/// The same by JDBC, for each line of standard input; a lost session is replaced by a new one.
const JAVA: &str = r#"
import java.sql.*;
public class App {
    static final String COMMIT = "INSERT INTO apps DEFAULT VALUES RETURNING host(inet_server_addr())";
    static final java.io.BufferedReader IN = new java.io.BufferedReader(new java.io.InputStreamReader(System.in));
    public static void main(String[] args) throws Exception {
        for (;; Thread.sleep(50)) {
            try (Connection session = DriverManager.getConnection(args[0]); Statement statement = session.createStatement()) {
                for (ResultSet row; ; IN.readLine()) {
                    row = statement.executeQuery(COMMIT);
                    row.next();
                    System.out.println(row.getString(1));
                }
            } catch (SQLException lost) {
                System.err.println(lost);
            }
        }
    }
}
"#;
/// Where Debian's package libpostgresql-jdbc-java has the driver.
const DRIVER: &str = "/usr/share/java/postgresql.jar";
/// A client without time limits waits for a silent host for many minutes.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Shared {
    program: Mutex<Option<Child>>,
    /// The server of each commit, and when it was acknowledged.
    commits: Mutex<Vec<(String, Instant)>>,
    ends: AtomicBool,
}

/// A client that commits again and again; it ends when dropped.
struct App(Arc<Shared>);

impl App {
    /// Starts psql beside the process `place`, or between the hosts, and returns after the first commit.
    fn start(pair: &Pair, place: Option<u32>) -> App {
        App::connect(pair, place, "keywords", |string| {
            let mut command = Command::new(bin_dir().join("psql"));
            command.args(["-X", "-q", "-A", "-t", "-w", string]);
            command
        })
    }

    /// The same between the hosts with the JDBC driver.
    fn start_java(pair: &Pair, driver: String) -> App {
        let source = crate::harness::root().join("App.java");
        std::fs::write(&source, JAVA).expect("could not write");
        App::connect(pair, None, "jdbc", move |string| {
            let mut command = Command::new("java");
            command.args(["-cp", &driver]).arg(&source).arg(string);
            command
        })
    }

    fn connect(
        pair: &Pair,
        place: Option<u32>,
        format: &str,
        program: impl Fn(&str) -> Command + Send + 'static,
    ) -> App {
        let string = pair.mc(1, &["conninfo", "--format", format, "--user", "postgres"]).expect(0, "conninfo").out;
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            place.into_iter().for_each(Space::enter);
            while !of_thread.ends.load(SeqCst) {
                session(&of_thread, program(string.trim()));
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let app = App(shared);
        app.wait_commit(pair, 0);
        app
    }

    /// Waits for a commit on this server that is acknowledged from now on.
    #[track_caller]
    fn wait_commit(&self, pair: &Pair, server: usize) -> Instant {
        let (since, address) = (Instant::now(), pair.servers[server].address);
        wait_for(&format!("a client commits on {address}"), LIMIT, || {
            let commits = self.0.commits.lock().expect("not poisoned");
            commits.iter().find(|(on, at)| on == address && *at >= since).map(|(_, at)| *at)
        })
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.0.ends.store(true, SeqCst);
        if let Some(program) = self.0.program.lock().expect("not poisoned").as_mut() {
            let _ = program.kill();
        }
    }
}

/// One session, until the program ends.
fn session(shared: &Shared, mut command: Command) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut program = command.spawn().expect("could not run the client");
    let (mut input, output) = (program.stdin.take().expect("piped"), program.stdout.take().expect("piped"));
    *shared.program.lock().expect("not poisoned") = Some(program);
    let mut lines = BufReader::new(output).lines();
    while !shared.ends.load(SeqCst) && input.write_all(COMMIT).is_ok() {
        let Some(Ok(server)) = lines.next() else { break };
        shared.commits.lock().expect("not poisoned").push((server, Instant::now()));
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(input);
    if let Some(mut program) = shared.program.lock().expect("not poisoned").take() {
        let _ = program.kill();
        let _ = program.wait();
    }
}

fn up(setup: Setup) -> Pair {
    let pair = setup.conf("isolated_primary_action = stop").up();
    pair.sql(0, "CREATE TABLE apps (at timestamptz DEFAULT now())");
    pair
}

/// The primary is cut off from all. A client that loses it with that cut finds the new primary while the cut lasts; a client
/// beside the old primary, cut off together with it, finds the new primary when the network is back.
#[test]
fn the_primary_is_isolated() {
    let pair = up(Setup::default().arbiter());
    let (app, beside) = (App::start(&pair, None), App::start(&pair, Some(pair.net.hosts[0].pid())));
    let cut = Instant::now();
    pair.net.cut(0);
    let elsewhere = app.wait_commit(&pair, 1) - cut;
    wait_for("the old primary stops", s(60), || (!pair.instance_runs(0)).then_some(()));
    let heal = Instant::now();
    pair.net.heal(0);
    let with_it = beside.wait_commit(&pair, 1) - heal;
    pair.wait_switched(0);
    eprintln!(
        "commits on the new primary {elsewhere:?} after the cut; a client beside the old one {with_it:?} after the cut's end"
    );
}

/// Without an arbiter and with `switch`, only the link between the servers breaks. The old primary accepts connections until
/// `isolated_primary_action` stops it; its clients then find the new primary, though the link stays broken.
#[test]
fn the_link_between_the_servers_breaks() {
    let pair = up(Setup::default().fast_network().conf("heartbeat_error_action = switch"));
    let app = App::start(&pair, None);
    let cut = Instant::now();
    pair.net.cut_between(0, 1);
    eprintln!("commits on the new primary {:?} after the cut", app.wait_commit(&pair, 1) - cut);
    pair.net.heal_between(0, 1);
    pair.wait_switched(0);
}

/// The JDBC driver with its string: the primary's host falls silent.
#[test]
fn the_primary_falls_silent_for_jdbc() {
    let driver = std::env::var("MC_TEST_JDBC").unwrap_or_else(|_| DRIVER.to_owned());
    if !Path::new(&driver).exists() {
        println!("LEFT OUT: there is no {driver} (Debian: libpostgresql-jdbc-java); MC_TEST_JDBC names another");
        return;
    }
    let pair = up(Setup::default().arbiter());
    let app = App::start_java(&pair, driver);
    let cut = Instant::now();
    pair.net.cut(0);
    eprintln!("commits on the new primary {:?} after the cut", app.wait_commit(&pair, 1) - cut);
    pair.net.heal(0);
    pair.wait_switched(0);
}
