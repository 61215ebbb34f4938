//! What tests of the rebuild need: a primary that dies with more than its standby has, deaths of everything that a rebuild
//! consists of, and what a rebuilt standby must be.

use super::host::{Process, signal};
use super::pair::{Pair, own};
use super::run::{Answer, run};
use super::{s, wait_for};
use rustix::process::Signal;
use std::path::PathBuf;
use std::time::Instant;

/// Programs that a rebuild runs, besides the controller.
const PROGRAMS: [&str; 3] = ["pg_rewind", "pg_basebackup", "pg_waldump"];

impl Pair {
    /// `mc_ctl rebuild --yes …`, which must succeed; then what [`Pair::check_rebuilt`] checks.
    #[track_caller]
    pub fn rebuild(&self, server: usize, more: &[&str]) -> Answer {
        let answer = self.mc(server, &[&["rebuild", "--yes"], more].concat()).expect(0, "mc_ctl rebuild");
        self.check_rebuilt(server);
        answer
    }

    /// The server is the synchronous standby of the other one on its timeline, the pair is mirrored, and nothing of the
    /// rebuild is left but what it keeps.
    #[track_caller]
    pub fn check_rebuilt(&self, server: usize) {
        let (me, primary) = (&self.servers[server], 1 - server);
        let roles = if server == 0 { ["standby", "primary"] } else { ["primary", "standby"] };
        [0, 1].iter().for_each(|n| self.wait_roles(*n, "switchable", roles));
        // The controller of the standby tries the replication connection now and then.
        let rows = "SELECT string_agg(application_name || ' ' || state || ' ' || sync_state, ',') FROM pg_stat_replication \
                    WHERE application_name <> 'mirroring_controller'";
        assert_eq!(self.sql(primary, rows), format!("{} streaming sync", me.id));
        let own = self.sql(server, "SELECT status || ' ' || received_tli FROM pg_stat_wal_receiver");
        let timeline = self.sql(primary, "SELECT timeline_id FROM pg_control_checkpoint()");
        assert_eq!(own, format!("streaming {timeline}"));
        let slots = || self.sql(primary, "SELECT string_agg(slot_name, ',') FROM pg_replication_slots");
        wait_for("no slot is left", s(10), || slots().is_empty().then_some(()));
        assert_eq!(self.read(server, "PG_VERSION").trim().parse::<u32>().ok(), self.major_version(primary));
        let names = format!("synchronous_standby_names = '{}'", self.servers[primary].id);
        let conf = self.read(server, "postgresql.conf");
        assert!(conf.lines().any(|l| l == names), "the names of a standby are set:\n{conf}");
        let left = self.beside(server).into_iter().filter(|p| p.contains(".rebuild")).collect::<Vec<_>>();
        assert!(left.is_empty() && !self.run_dir(server).join("rebuild.json").exists(), "left behind: {left:?}");
    }

    fn major_version(&self, server: usize) -> Option<u32> {
        self.sql(server, "SELECT current_setting('server_version_num')::int / 10000").parse().ok()
    }

    /// The run-time directory of the server's controller.
    pub fn run_dir(&self, server: usize) -> PathBuf {
        self.servers[server].management.join(self.servers[server].id)
    }

    /// A file of the server's data directory as its host sees it; empty where there is none.
    pub fn read(&self, server: usize, file: &str) -> String {
        std::fs::read_to_string(self.host(server).path(&self.servers[server].data).join(file)).unwrap_or_default()
    }

    /// What lies beside the server's data directory.
    pub fn beside(&self, server: usize) -> Vec<String> {
        let parent = self.servers[server].data.parent().expect("a parent");
        let entries = std::fs::read_dir(self.host(server).path(parent)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// The server's instance dies at once, and has a committed row that the other one has not, nor a client was told of.
    #[track_caller]
    pub fn crash_with_more(&self, server: usize) -> Instant {
        let sender = self.host(server).backend("walsender").expect("a walsender runs");
        signal(sender.pid, Signal::STOP);
        self.sql(server, &format!("INSERT INTO written (id) VALUES ({})", self.first_id()));
        let at = self.kill_postmaster(server);
        signal(sender.pid, Signal::KILL);
        at
    }

    /// The same; then the other one serves alone.
    #[track_caller]
    pub fn fail_over_from(&self, server: usize) {
        let at = self.crash_with_more(server);
        self.wait_log(1 - server, at, "MCA00062", s(20));
        self.wait_switched(server);
    }

    /// Waits until both servers say that this one has lost its role, and is down.
    #[track_caller]
    pub fn wait_switched(&self, server: usize) {
        let mut roles = ["primary"; 2];
        roles[server] = "none(inactivated primary)";
        [0, 1].iter().for_each(|n| self.wait_roles(*n, "switched", roles));
        assert!(!self.instance_runs(server));
    }

    /// Makes a table of so many megabytes.
    #[track_caller]
    pub fn fill(&self, server: usize, megabytes: u32) {
        let rows = megabytes * 1024;
        self.sql(server, "CREATE TABLE bulk (id int, filler text)");
        for from in (0..rows).step_by(8192) {
            let to = (from + 8191).min(rows - 1);
            let row = "SELECT g, rpad(md5(g::text), 980, 'x')";
            self.sql(server, &format!("INSERT INTO bulk {row} FROM generate_series({from}, {to}) g"));
        }
    }

    /// A tablespace, each server's on its own disk under the same path; answers that path.
    #[track_caller]
    pub fn tablespace(&self, primary: usize) -> PathBuf {
        let at = self.servers[0].data.ancestors().nth(3).expect("the pair's directory").join("space");
        std::fs::create_dir(&at).expect("could not create a directory");
        for n in [0, 1] {
            let disk = self.host(n).dir.join("space");
            std::fs::create_dir(&disk).expect("could not create a directory");
            own(&disk);
            self.as_root(n, &["mount", "--bind", disk.to_str().expect("ASCII"), at.to_str().expect("ASCII")]);
        }
        self.sql(primary, &format!("CREATE TABLESPACE apart LOCATION '{}'", at.display()));
        // The standby has it before a crash that follows at once.
        self.sql(primary, "SET synchronous_commit = on; CREATE TABLE in_space TABLESPACE apart AS SELECT generate_series(1, 10000) AS id");
        at
    }

    /// What of a rebuild runs on the server's host: controllers, then programs.
    pub fn rebuilders(&self, server: usize) -> Vec<Process> {
        let mut found = self.host(server).controllers();
        found.extend(PROGRAMS.iter().flat_map(|program| self.host(server).running(program)));
        found.extend(self.host(server).processes().into_iter().filter(|p| p.command.contains("--single")));
        found
    }

    /// Waits for one of PostgreSQL's programs, which the rebuild has started, and stops it (SIGSTOP).
    #[track_caller]
    pub fn freeze_program(&self, server: usize, program: &str) -> Process {
        let found = wait_for(&format!("{program} runs"), s(30), || {
            self.host(server).running(program).into_iter().find(|p| !p.command.contains("--dry-run"))
        });
        signal(found.pid, Signal::STOP);
        found
    }

    /// `kill -9` of all [`Pair::rebuilders`], until none is left.
    #[track_caller]
    pub fn kill_rebuilders(&self, server: usize) {
        let mut quiet = 0;
        wait_for("none is left", s(10), || {
            let found = self.rebuilders(server);
            found.iter().for_each(|p| signal(p.pid, Signal::KILL));
            quiet = if found.is_empty() { quiet + 1 } else { 0 };
            (quiet == 3).then_some(())
        });
    }

    /// Starts the instance as an rc script would, which must fail, or bring up a standby; then it is stopped again.
    /// Answers what it saw.
    #[track_caller]
    pub fn start_behind_the_controller(&self, server: usize) -> &'static str {
        let standby = || self.sql_beside(server, "SELECT pg_is_in_recovery()");
        if self.instance_runs(server) {
            assert_ne!(standby().as_deref(), Ok("f"), "a second primary");
            return "the standby ran already";
        }
        let guarded = self.read(server, "PG_VERSION").starts_with("rebuilding");
        let signal = self.host(server).path(&self.servers[server].data).join("standby.signal").exists();
        if !guarded && !signal {
            assert!(!self.run_dir(server).join("rebuild.json").exists(), "a rebuild continues without a guard");
            return "nothing was changed yet";
        }
        let log = self.host(server).dir.join("run/log");
        let data = self.data(server);
        let words = ["-D", data, "-w", "-t", "3", "-l", log.to_str().expect("ASCII"), "start"];
        let mut start = self.host(server).admin(super::bin_dir().join("pg_ctl").to_str().expect("ASCII"));
        // a postmaster that is still starting keeps what it inherited open
        start.args(words).stdout(std::process::Stdio::null());
        let answer = run(start, s(20));
        assert!(!(guarded && answer.code == 0), "pg_ctl starts a guarded directory: {}", answer.text());
        assert_ne!(standby().as_deref(), Ok("f"), "a second primary");
        let _ = self.host(server).pg("pg_ctl", &["-D", data, "-w", "-t", "20", "-m", "immediate", "stop"]);
        if guarded { "pg_ctl start failed" } else { "pg_ctl start brought up a standby" }
    }
}
