//! The data directories that every pair begins with: a primary made by `initdb` and a standby made from it by
//! `pg_basebackup`, once per test process, then copied.

use super::run::{must, run};
use super::{bin_dir, root};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// Settings of both servers, as the guide's chapter 3 asks for them; what differs is added by the pair. `fsync` is on.
const SETTINGS: &str = "
listen_addresses = '*'
wal_level = replica
hot_standby = on
max_wal_senders = 10
wal_keep_size = 128MB
wal_log_hints = on
shared_buffers = 32MB
password_encryption = 'scram-sha-256'
max_connections = 40
logging_collector = on
log_directory = 'log'
log_filename = 'postgresql.log'
log_line_prefix = '%m [%p] '
";

const CLIENTS: &str = "
local all all trust
host all all 127.0.0.1/32 trust
host all all 192.0.2.0/24 trust
host all all 198.51.100.0/24 trust
local replication all trust
host replication all 127.0.0.1/32 trust
host replication all 192.0.2.0/24 trust
host replication all 198.51.100.0/24 trust
";

/// The directory that holds `primary` and `standby`, both stopped.
pub fn template() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let dir = root().join("template");
        std::fs::create_dir(&dir).expect("could not create a directory");
        must("chown", &["postgres:postgres", dir.to_str().expect("ASCII")]);
        make(&dir);
        dir
    })
}

fn step(program: &str, arguments: &[&str]) {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups", "env", "-C", "/tmp"]);
    command.arg(bin_dir().join(program)).args(arguments);
    run(command, Duration::from_secs(120)).expect(0, program);
}

fn append(file: &Path, text: &str) {
    use std::io::Write;
    let mut open = std::fs::OpenOptions::new().append(true).open(file).expect("could not open");
    open.write_all(text.as_bytes()).expect("could not write");
}

fn make(dir: &Path) {
    let text = |name: &str| dir.join(name).to_str().expect("ASCII").to_string();
    let (primary, standby, here) = (text("primary"), text("standby"), text(""));
    step("initdb", &["-D", &primary, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "-N"]);
    append(&dir.join("primary/postgresql.conf"), SETTINGS);
    std::fs::write(dir.join("primary/pg_hba.conf"), CLIENTS).expect("could not write");
    let options = format!("-c listen_addresses= -c unix_socket_directories={here} -c logging_collector=off");
    step("pg_ctl", &["-D", &primary, "-w", "-o", &options, "-l", &text("log"), "start"]);
    let table = "CREATE TABLE written (id bigint PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp())";
    step("psql", &["-h", &here, "-U", "postgres", "-qXc", table, "postgres"]);
    step("pg_basebackup", &["-h", &here, "-U", "postgres", "-D", &standby, "-c", "fast", "-N", "-R"]);
    step("pg_ctl", &["-D", &primary, "-w", "-m", "fast", "stop"]);
    let _ = std::fs::remove_file(dir.join("standby/postmaster.opts"));
}
