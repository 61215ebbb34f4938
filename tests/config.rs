//! The management directory as a whole: what loads, what is refused and how that is said, the samples and the manual.

use mirroring_controller::config::params::{Kind, Preset, TABLE};
use mirroring_controller::config::{Config, InEffect, Level, Network, Parameter};
use mirroring_controller::error::Error;
use mirroring_controller::fsm::event::{Hooks, OnInstanceSilence, OnSilence};
use mirroring_controller::fsm::types::Server;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const SAMPLE_NETWORK: &str = include_str!("../samples/network.conf");
const SAMPLE_SERVER: &str = include_str!("../samples/server.conf");
const MAN_SERVER: &str = include_str!("../man/mc_server.conf.5");
const MAN_NETWORK: &str = include_str!("../man/network.conf.5");

/// A management directory and the head of a data directory of PostgreSQL 15, on this host.
struct Mc {
    root: tempfile::TempDir,
}

impl Mc {
    fn new() -> Mc {
        let mc = Mc { root: tempfile::tempdir().unwrap() };
        std::fs::create_dir(mc.dir()).unwrap();
        std::fs::set_permissions(mc.dir(), Permissions::from_mode(0o700)).unwrap();
        std::fs::create_dir(mc.data()).unwrap();
        std::fs::write(mc.data().join("PG_VERSION"), "15\n").unwrap();
        std::fs::write(mc.data().join("postgresql.conf"), "").unwrap();
        mc.write("network.conf", "server1 127.0.0.1 27540\nserver2 203.0.113.77 27540\n");
        mc.write("mc.key", &format!("{}\n", "0f".repeat(31) + "1e"));
        mc.server("");
        mc
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("mc")
    }

    fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir().join(name), text).unwrap();
        self.mode(name, 0o600);
    }

    /// `server1.conf` with `db_instance` and these lines (from line 2).
    fn server(&self, lines: &str) {
        self.write("server1.conf", &format!("db_instance = '{}'\n{lines}", self.data().display()));
    }

    fn mode(&self, name: &str, mode: u32) {
        std::fs::set_permissions(self.dir().join(name), Permissions::from_mode(mode)).unwrap();
    }

    fn load(&self) -> Config {
        Config::load(&self.dir(), None).unwrap()
    }

    /// What is said about a directory that does not load, with its own path as `DIR`.
    fn error(&self) -> String {
        let error = Config::load(&self.dir(), None).expect_err("this must not load").to_string();
        error.replace(&self.dir().canonicalize().unwrap().display().to_string(), "DIR")
    }

    fn refuses(&self, server_lines: &str, parts: &[&str]) {
        self.server(server_lines);
        let error = self.error();
        for part in parts {
            assert!(error.contains(part), "{server_lines:?}: {error}");
        }
    }
}

#[test]
fn defaults() {
    let mc = Mc::new();
    let config = mc.load();
    assert_eq!((config.id.as_str(), config.me), ("server1", Server::First));
    assert_eq!((config.own().id.as_str(), config.peer().id.as_str()), ("server1", "server2"));
    assert_eq!(config.run_dir(), mc.dir().canonicalize().unwrap().join("server1"));
    let file = &config.server;
    assert_eq!(file.db_instance, mc.data());
    assert_eq!(file.config_file, mc.data().join("postgresql.conf"));
    assert!(file.bin_dir.join("pg_ctl").is_file());
    assert_eq!(file.major_version, 15);
    assert_eq!(file.target_db, "postgres");
    assert_eq!((file.client_address.as_str(), file.replication_address.as_str()), ("127.0.0.1", "127.0.0.1"));
    assert_eq!(file.core_file_path, config.dir);
    assert_eq!((file.syslog_facility, file.syslog_ident.as_str()), (0, "MirroringControllerOpen"));
    assert_eq!((file.remote_call_timeout_ms, file.agent_alive_timeout_ms), (Some(70_000), Some(10_000)));
    let settings = config.settings(7);
    assert_eq!((settings.me, settings.arbiter, settings.seed), (Server::First, false, 7));
    assert_eq!((settings.heartbeat_interval_ms, settings.heartbeat_timeout_ms), (800, 1000));
    let detections = [settings.heartbeat_detection_ms, settings.instance_detection_ms, settings.disk_detection_ms];
    assert_eq!(detections, [5400; 3]);
    assert_eq!((settings.on_silence, settings.on_instance_silence), (OnSilence::Fallback, OnInstanceSilence::Failover));
    assert_eq!((settings.startup_wait_ms, settings.rebuild_auto), (60_000, false));
    let [remark] = &config.remarks[..] else { panic!("{:?}", config.remarks) };
    assert_eq!(remark.level, Level::Warning);
    assert!(remark.text.contains("fallback") && remark.hint.contains("'switch'"), "{remark:?}");
}

#[test]
fn values_that_are_set() {
    let mc = Mc::new();
    mc.server(
        "heartbeat_interval = 100\nheartbeat_timeout = '300ms' # soon\nheartbeat_retry = 1\n\
         disk_check_timeout = 5\ndb_instance_check_retry = 0\nheartbeat_error_action = switch\n\
         db_instance_timeout_action = 'message'\nisolated_primary_action = stop\nstartup_wait = 0\n\
         rebuild_action = auto\nshutdown_detached_synchronous_standby = on\naccept_startup_race = on\n\
         remote_call_timeout = 0\nagent_alive_timeout = 0\nsyslog_facility = LOCAL3\nsyslog_ident = 'mc1'\n\
         tablespace_directory_error_action = message\ndb_instance_username = 'fsep'\ndb_instance_password = 'a#b'\n\
         target_db = template1\nclient_address = db1\nreplication_address = 2001:db8::1\ncore_file_path = /var/tmp/\n",
    );
    let config = mc.load();
    let settings = config.settings(1);
    assert_eq!(settings.heartbeat_detection_ms, 800);
    assert_eq!((settings.instance_detection_ms, settings.disk_detection_ms), (400, 10_200));
    assert_eq!((settings.on_silence, settings.on_instance_silence), (OnSilence::Switch, OnInstanceSilence::Message));
    assert!(settings.isolated_primary_stops && settings.rebuild_auto && settings.stop_detached_standby);
    assert_eq!(settings.startup_wait_ms, 0);
    let file = &config.server;
    assert!(file.accept_startup_race && !file.tablespace_error_is_failure);
    assert_eq!((file.remote_call_timeout_ms, file.agent_alive_timeout_ms), (None, None));
    assert_eq!((file.syslog_facility, file.syslog_ident.as_str()), (3, "mc1"));
    assert_eq!(file.db_instance_username, "fsep");
    assert_eq!(file.db_instance_password.as_ref().map(|secret| secret.expose()), Some("a#b"));
    assert_eq!((file.target_db.as_str(), file.client_address.as_str()), ("template1", "db1"));
    assert_eq!(file.replication_address, "2001:db8::1");
    assert_eq!(file.core_file_path, Path::new("/var/tmp"));
    assert_eq!(config.remarks, []);
    assert!(!format!("{config:?}").contains("a#b"));
}

#[test]
fn examples_of_the_guide() {
    let mc = Mc::new();
    mc.server(
        "db_instance_password = 'secret'\nremote_call_timeout = 70000\nsyslog_facility = LOCAL0\n\
         syslog_ident = 'MirroringControllerOpen'\nheartbeat_interval = 800\nheartbeat_timeout = 1\n\
         heartbeat_retry = 2\nmc_service_name = 'MirroringControllerOpen'\nevent_source = 'MC'\n",
    );
    let config = mc.load();
    assert_eq!(config.settings(1).heartbeat_detection_ms, 5400);
    let notices: Vec<&str> =
        config.remarks.iter().filter(|r| r.level == Level::Notice).map(|r| r.text.as_str()).collect();
    assert_eq!(notices.len(), 2, "{notices:?}");
    assert!(notices[0].starts_with("parameter mc_service_name of file"), "{notices:?}");
}

#[test]
fn parameters_tell_value_and_source() {
    let mc = Mc::new();
    mc.server("heartbeat_timeout = '300ms'\ndb_instance_password = 'sesame'");
    let parameters = mc.load().parameters();
    assert_eq!(parameters.len(), TABLE.len());
    let show = |name: &str| {
        let parameter = parameters.iter().find(|parameter| parameter.name == name).unwrap();
        format!("{} ({})", parameter.value, parameter.source)
    };
    assert_eq!(show("heartbeat_timeout"), "300 ms (line 2)");
    assert_eq!(show("disk_check_timeout"), "300 ms (heartbeat_timeout)");
    assert_eq!(show("db_instance_password"), "******** (line 3)");
    assert_eq!(show("startup_wait"), "60 s (default)");
    assert_eq!(show("heartbeat_error_action"), "fallback (default)");
    assert_eq!(show("client_address"), "127.0.0.1 (network.conf)");
    assert_eq!(show("fencing_command"), " (default)");
    assert!(show("bin_dir").ends_with("(found)"));
}

#[test]
fn values_that_are_refused() {
    let mc = Mc::new();
    mc.refuses(
        "\nheartbeat_retry = -1",
        &["file \"DIR/server1.conf\", line 3: heartbeat_retry: \"-1\" is not valid", "(allowed: 0 to 2147483647)"],
    );
    mc.refuses("heartbeat_timeout = 0", &["line 2: heartbeat_timeout", "allowed: 1 to 2147483647 seconds"]);
    mc.refuses("rebuild_action = yes", &["line 2: rebuild_action", "allowed: manual, auto"]);
    mc.refuses("agent_alive_timeout = '10ms'", &["agent_alive_timeout", "0, or at least 1 second"]);
    mc.refuses(
        "core_file_path = '/my dir'",
        &["core_file_path", "absolute path of printable ASCII characters without"],
    );
    mc.refuses(
        "heartbeat_intervall = 1",
        &["line 2: unknown parameter \"heartbeat_intervall\"", "Perhaps you meant heartbeat_int"],
    );
    mc.refuses("a = 1\na = 2", &["line 3: duplicate key"]);
    mc.refuses("db_instance_password = 'open sesame'", &["db_instance_password: the value is not valid"]);
    assert!(!mc.error().contains("sesame"));
    mc.write("server1.conf", "# nothing\n");
    assert!(mc.error().contains("db_instance is not set"), "{}", mc.error());
    mc.write("server1.conf", "db_instance = 'data'");
    assert!(mc.error().contains("db_instance: \"data\" is not valid (allowed: an absolute path"), "{}", mc.error());
}

#[test]
fn the_health_address_is_a_host_and_a_port() {
    let mc = Mc::new();
    let read = |value: &str| {
        mc.server(&format!("health_check_address = {value}"));
        mc.load().server.health_check_address.map(|at| (at.host.clone(), at.port, at.error("x").message))
    };
    let (host, port, error) = read("127.0.0.1:8008").unwrap();
    assert_eq!((host.as_str(), port), ("127.0.0.1", 8008));
    assert!(error.ends_with("server1.conf\", line 2: x"), "{error}");
    assert_eq!(read("'[::1]:80'").map(|(host, port, _)| (host, port)), Some(("::1".into(), 80)));
    mc.server("");
    assert_eq!(mc.load().server.health_check_address, None);
    for bad in ["127.0.0.1", "::1:80", "'a b:1'", "x:0"] {
        mc.refuses(&format!("health_check_address = {bad}"), &["line 2: health_check_address", "host:port"]);
    }
}

const ARBITER: &str = "server1 127.0.0.1,127.0.0.2 1,2\nserver2 203.0.113.77 1\narb 203.0.113.78 1 arbiter\n";

#[test]
fn an_arbiter_is_asked_by_default() {
    let mc = Mc::new();
    mc.write("network.conf", ARBITER);
    let config = mc.load();
    let settings = config.settings(1);
    assert_eq!((settings.arbiter, settings.on_silence), (true, OnSilence::Arbitration));
    assert_eq!(config.remarks, []);
    let arbiter = config.network.arbiter.as_ref().unwrap();
    assert_eq!((arbiter.id.as_str(), arbiter.line), ("arb", 3));
    let own: Vec<(String, u16)> = vec![("127.0.0.1".into(), 1), ("127.0.0.2".into(), 2)];
    assert_eq!(config.own().addresses(), own);
    mc.server("heartbeat_error_action = 'arbitration'\narbiter_connect_timeout = 3\n");
    let config = mc.load();
    assert_eq!((config.remarks, config.server.arbiter_connect_timeout_ms), (Vec::new(), 3000));
}

#[test]
fn actions_that_the_members_do_not_allow() {
    let mc = Mc::new();
    mc.refuses(
        "\nheartbeat_error_action = 'arbitration'",
        &["file \"DIR/server1.conf\", line 3: heartbeat_error_action: \"arbitration\" requires an arbiter", "'switch'"],
    );
    mc.refuses(
        "heartbeat_error_action = command",
        &["line 2: heartbeat_error_action: \"command\" requires arbitration_c"],
    );
    mc.write("network.conf", ARBITER);
    for word in ["switch", "disconnect"] {
        let line = format!("heartbeat_error_action = {word}");
        mc.refuses(&line, &["line 2", "is intended for two servers without an arbiter", "Use \"arbitration\""]);
    }
    mc.refuses("heartbeat_error_action = command", &["line 2", "requires arbitration_command"]);
}

/// What is set and has no effect is said; what is well says nothing.
#[test]
fn commands_and_actions_that_do_not_fit_are_told() {
    let mc = Mc::new();
    let command = "arbitration_command = '/bin/true'\n";
    let fence = "fencing_command = '/bin/true'\n";
    let check = |network: &str, lines: &str, expected: &[&str]| {
        mc.write("network.conf", network);
        mc.server(lines);
        let remarks = mc.load().remarks;
        assert_eq!(remarks.len(), expected.len(), "{lines:?}: {remarks:?}");
        for (remark, part) in remarks.iter().zip(expected) {
            assert!(remark.text.contains(part), "{lines:?}: {remark:?}");
        }
    };
    let alone = "server1 127.0.0.1 1\nserver2 203.0.113.77 1\n";
    let action = |word: &str, more: &str| format!("heartbeat_error_action = {word}\n{more}");
    let both = format!("{command}{fence}");
    for network in [alone, ARBITER] {
        check(network, &action("command", &both), &[]);
        check(network, &action("command", command), &["is the only protection"]);
        check(network, &action("message", fence), &[]);
        check(network, &action("message", command), &["arbitration_command"]);
    }
    check(ARBITER, fence, &[]);
    check(ARBITER, "fencing_command_timeout = 3\narbiter_alive_retry = 3", &["parameter arbiter_alive_retry"]);
    check(
        alone,
        "heartbeat_error_action = message\narbiter_connect_timeout = 3",
        &["parameter arbiter_connect_timeout"],
    );
    for word in ["switch", "disconnect"] {
        check(alone, &action(word, fence), &["is used only by --force"]);
    }
    check(ARBITER, &action("fallback", fence), &["the arbiter is not used", "is used only by --force"]);
}

#[test]
fn commands_that_cannot_be_run_are_refused_at_the_start() {
    let mc = Mc::new();
    let script = mc.dir().join("fence");
    let line = format!("\nfencing_command = '{}'\nheartbeat_error_action = message", script.display());
    mc.refuses(&line, &["file \"DIR/server1.conf\", line 3: fencing_command: \"", "No such file"]);
    // Whoever only asks the controller does not look at it.
    Config::load_for_client(&mc.dir(), None).unwrap();
    mc.write("fence", "#!/bin/sh\n");
    mc.refuses(&line, &["line 3: fencing_command", "cannot be executed by", "chmod u+x"]);
    mc.mode("fence", 0o722);
    mc.refuses(&line, &["has mode 0722", "chmod go-w"]);
    mc.mode("fence", 0o700);
    assert_eq!(mc.load().server.fencing_command, Some(script));
    mc.refuses("arbitration_command = '/tmp'", &["line 2: arbitration_command: \"/tmp\" is not a regular file"]);
    mc.refuses("fencing_command = 'fence'", &["is not valid (allowed: an absolute path"]);
    for hook in ["post_switch", "pre_detach", "post_attach"] {
        let missing = format!("{hook}_command = '/none/{hook}'");
        mc.refuses(&missing, &["file \"DIR/server1.conf\", line 2:", hook, "No such file"]);
        mc.refuses(&format!("{hook}_command = 'true'"), &["is not valid (allowed: an absolute path"]);
    }
    mc.refuses("status_change_command_timeout = 0", &["status_change_command_timeout", "allowed: 1 to"]);
}

#[test]
fn the_core_knows_which_hooks_there_are() {
    let mc = Mc::new();
    let hooks = |lines: &str| {
        mc.server(lines);
        mc.load().settings(1).hooks
    };
    assert_eq!(hooks(""), Hooks::default());
    assert_eq!(hooks("post_switch_command = '/bin/true'"), Hooks { post_switch: true, ..Hooks::default() });
    assert_eq!(hooks("pre_detach_command = '/bin/true'"), Hooks { pre_detach: true, ..Hooks::default() });
    assert_eq!(hooks("post_attach_command = '/bin/true'"), Hooks { post_attach: true, ..Hooks::default() });
    assert_eq!(mc.load().server.status_change_command_timeout_ms, 20_000);
}

#[test]
fn files_that_are_refused() {
    for name in ["network.conf", "server1.conf", "mc.key"] {
        let mc = Mc::new();
        mc.mode(name, 0o644);
        let error = mc.error();
        assert!(error.contains(&format!("file \"DIR/{name}\" has mode 0644")), "{error}");
        assert!(error.contains(&format!("chmod 600 \"DIR/{name}\"")), "{error}");
        mc.mode(name, 0o400);
        mc.load();
        std::fs::remove_file(mc.dir().join(name)).unwrap();
        let error = mc.error();
        assert!(error.contains(&format!("could not open file \"DIR/{name}\"")) && error.contains("HINT"), "{error}");
    }
    let mc = Mc::new();
    mc.write("mc.key", "0123");
    assert!(mc.error().contains("4 hexadecimal digits were found where 64 are required"), "{}", mc.error());
    assert!(mc.error().contains("openssl rand -hex 32"), "{}", mc.error());
    let mc = Mc::new();
    mc.mode("", 0o770);
    assert!(mc.error().contains("directory \"DIR\" has mode 0770"), "{}", mc.error());
    let mc = Mc::new();
    std::fs::create_dir(mc.dir().join("server1")).unwrap();
    mc.mode("server1", 0o777);
    assert!(mc.error().contains("chmod go-w \"DIR/server1\""), "{}", mc.error());
    let error = Config::load(Path::new("/nonexistent/mc"), None).unwrap_err().to_string();
    assert!(
        error.contains("could not open management directory \"/nonexistent/mc\"") && error.contains("-M"),
        "{error}"
    );
}

/// `server1.private` is looked at like `mc.key`, and must be the one whose public key `network.conf` lists.
#[test]
fn a_member_s_own_key() {
    let mc = Mc::new();
    assert!(mc.load().own_key.is_none());
    let private = format!("{}\n", "5a".repeat(31) + "01");
    mc.write("server1.private", &private);
    let own = mc.load().own_key.unwrap().public();
    for mode in [0o644, 0o640, 0o660] {
        mc.mode("server1.private", mode);
        let error = mc.error();
        assert!(error.contains(&format!("file \"DIR/server1.private\" has mode {mode:04o}")), "{error}");
        assert!(error.contains("chmod 600 \"DIR/server1.private\""), "{error}");
    }
    mc.mode("server1.private", 0o400);
    mc.load();
    std::fs::remove_file(mc.dir().join("server1.private")).unwrap();
    let other = own.to_string().chars().rev().collect::<String>();
    let network = |own: &str, other: &str| {
        let lines = format!("server1 127.0.0.1 27540 key={own}\nserver2 203.0.113.77 27540 key={other}\n");
        mc.write("network.conf", &lines);
    };
    network(&own.to_string(), &other);
    let error = mc.error();
    assert!(
        error.contains("could not open file \"DIR/server1.private\"") && error.contains("mc_ctl init -M"),
        "{error}"
    );
    mc.write("server1.private", &private);
    assert_eq!(mc.load().own_key.map(|key| key.public()), mc.load().own().key);
    network(&other, &own.to_string());
    let error = mc.error();
    assert!(error.contains("line 1: the key of member \"server1\" is not the public key of"), "{error}");
    assert!(error.contains(&own.to_string()), "{error}");
    mc.write("server1.private", "0123");
    assert!(mc.error().contains("4 hexadecimal digits were found where 64 are required"), "{}", mc.error());
}

/// A data directory that `mc_ctl rebuild` can make: what it will be is told as far as it can be; who starts the instance
/// looks at `no_data`.
#[test]
fn a_data_directory_that_is_not_there_yet() {
    let mc = Mc::new();
    assert_eq!(mc.load().server.no_data, None);
    mc.refuses("config_file = '/nonexistent/my.conf'\n", &["config_file", "does not exist"]);
    mc.server("");
    std::fs::write(mc.data().join("PG_VERSION"), "rebuilding 15 (Mirroring Controller; see mc_ctl status)\n").unwrap();
    assert!(mirroring_controller::pg::control::GUARD.starts_with("rebuilding"));
    assert_eq!((mc.load().server.major_version, mc.load().server.no_data), (15, None));
    let bin_dir = mc.load().server.bin_dir;
    let lines = format!("bin_dir = '{}'\nconfig_file = '{}/my.conf'\n", bin_dir.display(), mc.data().display());
    for name in ["PG_VERSION", "postgresql.conf"] {
        std::fs::remove_file(mc.data().join(name)).unwrap();
    }
    for what in ["is empty", "does not exist"] {
        mc.server("");
        let server = mc.load().server;
        let why = server.no_data.expect(what);
        assert!(why.message.contains(what) && why.hint.contains("mc_ctl rebuild"), "{why}");
        assert!(why.hint.ends_with(", line 1."), "{why}");
        assert_eq!(server.config_file, mc.data().join("postgresql.conf"));
        // The newest that is installed.
        assert!(server.major_version >= 12 && server.bin_dir.join("postgres").is_file());
        mc.server(&lines);
        let server = mc.load().server;
        assert_eq!((server.major_version, server.config_file), (15, mc.data().join("my.conf")));
        // The rebuild makes that too.
        mc.server("config_file = '/nonexistent/my.conf'\n");
        assert_eq!(mc.load().server.config_file, std::path::Path::new("/nonexistent/my.conf"));
        let _ = std::fs::remove_dir(mc.data());
    }
    std::fs::create_dir(mc.data()).unwrap();
    std::fs::write(mc.data().join("notes.txt"), "").unwrap();
    mc.refuses("", &["not a data directory of PostgreSQL", "empty the directory"]);
}

/// pg_ctl hands these paths to a shell.
#[test]
fn paths_that_a_shell_would_change() {
    let mc = Mc::new();
    for (c, shown) in [('$', "'$'"), ('`', "'`'"), ('"', "'\"'"), ('\\', "'\\\\'")] {
        let file = mc.data().join(format!("my{c}.conf"));
        std::fs::write(&file, "").unwrap();
        let line = format!("\nconfig_file = '{}'\n", file.display());
        mc.refuses(&line, &["server1.conf", "line 3: config_file: ", shown, "Move it to a path without $"]);
    }
    mc.server("");
    mc.load();
}

#[test]
fn a_failed_data_directory_does_not_stop_clients() {
    let mc = Mc::new();
    // The whole directory that held it is gone.
    mc.write("server1.conf", "db_instance = '/nonexistent/a/pg'\n");
    let error = mc.error();
    assert!(error.contains("does not exist") && error.contains("mc_ctl rebuild"), "{error}");
    let config = Config::load_for_client(&mc.dir(), None).unwrap();
    assert_eq!((config.id.as_str(), config.server.major_version), ("server1", 0));
}

/// What a controller reports to commands that cannot read the files is the configuration that it uses, without passwords.
#[test]
fn the_configuration_in_effect() {
    let mc = Mc::new();
    mc.server(
        "heartbeat_timeout = '1500ms'\nremote_call_timeout = 5s\nsyslog_ident = \"m'c\\\\\"\n\
         db_instance_password = 'very-secret'\nhealth_check_address = '[::1]:8008'\n",
    );
    let config = mc.load();
    let in_effect = InEffect::of(&config);
    assert!(!format!("{in_effect:?}").contains("very-secret"));
    let read = in_effect.for_client(&mc.dir()).unwrap();
    let lines = |config: &Config| {
        let set = |p: &Parameter| p.source.starts_with("line ") && p.name != "db_instance_password";
        config.parameters().into_iter().filter(set).map(|p| (p.name, p.value)).collect::<Vec<_>>()
    };
    assert_eq!(lines(&read), lines(&config));
    assert_eq!(read.server.syslog_ident, "m'c\\");
    assert_eq!((read.id, read.me, read.network.to_string()), (config.id, config.me, config.network.to_string()));
    for text in ["a h,g 1,2\nb 192.0.2.1 3\nc ::1 4 arbiter", "a h 1\nb i 2"] {
        let network = Network::parse(Path::new("x"), text).unwrap();
        let again = Network::parse(Path::new("x"), &network.to_string()).unwrap();
        assert_eq!(again, network);
    }
}

/// What a controller is started again with while its files contain a mistake: all that they said, the password included.
#[test]
fn the_saved_configuration_replaces_files_with_a_mistake() {
    let mc = Mc::new();
    mc.server("heartbeat_retry = 7\ndb_instance_password = 'a\"b\\c'\n");
    let config = mc.load();
    let mistake = || Error::new("\"DIR/server1.conf\", line 3: unknown parameter");
    assert_eq!(Config::load_saved(&mc.dir(), "server1", true, mistake()).unwrap_err(), mistake());
    std::fs::create_dir(config.run_dir()).unwrap();
    std::fs::set_permissions(config.run_dir(), Permissions::from_mode(0o700)).unwrap();
    config.save().unwrap();
    let file = config.run_dir().join("configuration");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    mc.server("heartbeat_retry = 8\nmistake\n");
    for instance in [true, false] {
        let saved = Config::load_saved(&mc.dir(), "server1", instance, mistake()).unwrap();
        assert_eq!((saved.me, saved.network.to_string()), (config.me, config.network.to_string()));
        assert_eq!(saved.server.heartbeat_retry, 7);
        assert_eq!(saved.server.db_instance_password, config.server.db_instance_password);
        assert!(!format!("{saved:?}").contains("a\"b"));
        let remark = saved.remarks.last().unwrap();
        assert!(remark.level == Level::Warning && remark.text.ends_with(&mistake().message), "{remark:?}");
    }
    // What cannot be used is no replacement.
    std::fs::write(&file, "{").unwrap();
    assert_eq!(Config::load_saved(&mc.dir(), "server1", false, mistake()).unwrap_err(), mistake());
    config.save().unwrap();
    std::fs::remove_file(mc.dir().join("mc.key")).unwrap();
    assert_eq!(Config::load_saved(&mc.dir(), "server1", false, mistake()).unwrap_err(), mistake());
}

#[test]
fn two_identifiers_on_one_host() {
    let mc = Mc::new();
    mc.write("network.conf", "server1 127.0.0.1 27540\nserver2 127.0.0.1 27541\n");
    assert!(mc.error().contains("both \"server1\" and \"server2\""), "{}", mc.error());
    assert!(mc.error().contains("--local-server server1"), "{}", mc.error());
    mc.write("server2.conf", &format!("db_instance = '{}'", mc.data().display()));
    assert_eq!(Config::load(&mc.dir(), Some("server2")).unwrap().me, Server::Second);
    assert!(Config::load_for_client(&mc.dir(), None).is_err());
    assert_eq!(Config::load_for_client(&mc.dir(), Some("server1")).unwrap().id, "server1");
}

#[test]
fn ports_that_the_system_gives_away() {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let first = range.split_whitespace().next().unwrap();
    let mc = Mc::new();
    mc.write("network.conf", &format!("server1 127.0.0.1 {first}\nserver2 203.0.113.77 27540\n"));
    let remarks = mc.load().remarks;
    assert!(
        remarks.iter().any(|r| r.level == Level::Notice && r.text.contains(&format!("port {first}"))),
        "{remarks:?}"
    );
}

/// Both samples load as they are, but for the data directory.
#[test]
fn samples_load() {
    let mc = Mc::new();
    mc.write("network.conf", SAMPLE_NETWORK);
    let data = mc.data().display().to_string();
    let db_instance = SAMPLE_SERVER.lines().find(|line| line.starts_with("db_instance ")).unwrap();
    mc.write("server1.conf", &SAMPLE_SERVER.replace(db_instance, &format!("db_instance = '{data}'")));
    let config = Config::load(&mc.dir(), Some("server1")).unwrap();
    assert!(config.remarks.iter().all(|remark| remark.level == Level::Warning), "{:?}", config.remarks);
}

/// What a sample command says, with an `ipmitool` that finds the power on or off.
fn sample_command(script: &str, arguments: &[&str], power: &str) -> (Option<i32>, String) {
    let bin = tempfile::tempdir().unwrap();
    let tool = format!("#!/bin/sh\ncase $* in *status) echo Chassis Power is {power} ;; esac\n");
    let path = bin.path().join("ipmitool");
    let write = "printf '%s' \"$1\" > \"$0\" && chmod 700 \"$0\"";
    assert!(std::process::Command::new("sh").args(["-c", write]).arg(&path).arg(tool).status().unwrap().success());
    // The waits of the script are the test's too.
    std::os::unix::fs::symlink("/bin/true", bin.path().join("sleep")).unwrap();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(script);
    let paths = format!("{}:/usr/bin:/bin", bin.path().display());
    let output = std::process::Command::new("sh").arg(sample).args(arguments).env("PATH", paths).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn sample_commands_answer_as_they_should() {
    let fence = |target: &str, power: &str| {
        sample_command("fence.sh", &["monitor", "switch", "server2", target, "primarycenter"], power)
    };
    let (code, said) = fence("server1", "off");
    assert!(code == Some(0) && said.ends_with("server1 is off\n"), "{code:?} {said}");
    let (code, said) = fence("server1", "on");
    assert!(code == Some(1) && said.ends_with("server1 is still on\n"), "{code:?} {said}");
    assert_eq!(fence("server3", "off").0, Some(1));
    let dead =
        |target: &str, power: &str| sample_command("arbitrate.sh", &["server2", target, "primarycenter"], power).0;
    assert_eq!((dead("server1", "off"), dead("server1", "on"), dead("server3", "off")), (Some(0), Some(1), Some(1)));
}

/// The sample has a line for every key but those of Windows, and it shows the default.
#[test]
fn the_sample_shows_every_default() {
    let line = |name: &str| {
        let starts =
            |line: &&str| line.trim_start_matches('#').split(['=', ' ']).next() == Some(name) && line.contains('=');
        SAMPLE_SERVER.lines().find(starts)
    };
    for row in TABLE.iter().filter(|row| row.kind != Kind::Windows) {
        let line = line(row.name).unwrap_or_else(|| panic!("samples/server.conf lacks {}", row.name));
        let value = line.split_once('=').unwrap().1.split(" #").next().unwrap().trim().trim_matches('\'');
        assert!(row.read(value).is_some(), "{line}");
        let mut preset = row.preset;
        while let Preset::Like(name) = preset {
            preset = TABLE.iter().find(|row| row.name == name).unwrap().preset;
        }
        if let Preset::Is(default) = preset {
            assert_eq!(value, default, "{line}");
        }
        assert_eq!(line.starts_with('#'), row.preset != Preset::Required, "{line}");
    }
}

/// Every key has an item of its own in the manual, which names its default and the ends of its range.
#[test]
fn the_manual_has_every_key() {
    let of_a_table = |item: &&str| item.lines().next().is_some_and(|line| line.contains(" Ta "));
    let items: Vec<&str> = MAN_SERVER.split("\n.It Cm ").skip(1).filter(|item| !of_a_table(item)).collect();
    for row in TABLE {
        let item = items
            .iter()
            .find(|item| item.lines().next().is_some_and(|line| line.split(' ').any(|word| word == row.name)));
        let item = item.unwrap_or_else(|| panic!("man/mc_server.conf.5 lacks {}", row.name));
        let words: Vec<&str> = match row.kind {
            Kind::Word(words) => words.to_vec(),
            _ => Vec::new(),
        };
        for word in words {
            assert!(item.contains(word), "the item of {} lacks \"{word}\"", row.name);
        }
        match row.preset {
            Preset::Is(text) => assert!(item.contains(text), "the item of {} lacks its default {text}", row.name),
            Preset::Like(name) => assert!(item.contains(name), "the item of {} does not name {name}", row.name),
            Preset::Required => assert!(item.contains("equired"), "the item of {}", row.name),
            Preset::Elsewhere => {}
        }
    }
    for word in ["server", "arbiter", "65535", "63 bytes", "0600"] {
        assert!(MAN_NETWORK.contains(word), "man/network.conf.5 lacks {word}");
    }
}
