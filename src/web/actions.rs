//! What a user can have done: each action is a command of `mc_ctl`, except for the removal of the set-up, and this file has
//! its parameters, its plan and its risk.
//!
//! Decides nothing that `mc_ctl` and the controller decide: what they refuse fails. What is refused here is what would fail
//! now, so that the page can show it.

use super::jobs::Work;
use super::logs::servers;
use super::peer::{self, Order as PeerOrder};
use super::run::{Ended, of_mc_ctl, run};
use super::{Failed, StatusSource, removal};
use crate::check::host::unit;
use crate::config::web::WebConfig;
use crate::fsm::report::Word;
use crate::status::Status;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The action whose lines contain the key of the pair.
pub const SETUP: &str = "setup";

/// The names, in the order of the manual.
pub const NAMES: [&str; 11] = [
    "start",
    "stop",
    "enable-failover",
    "disable-failover",
    "switch",
    "detach",
    "rebuild",
    "backup",
    "recover",
    SETUP,
    "delete",
];

/// How long a plan may take that `mc_ctl` makes.
const PLAN_LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Side {
    #[default]
    Own,
    Other,
}

#[derive(Clone, Default, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Start {
    server: Side,
    failover: Option<bool>,
    mc_only: bool,
}

#[derive(Clone, Default, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Stop {
    server: Side,
    all: bool,
    mc_only: bool,
}

#[derive(Clone, Default, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Nothing {}

#[derive(Clone, Default, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Change {
    force: bool,
    no_fencing: bool,
}

#[derive(Clone, Default, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Rebuild {
    method: Option<Method>,
    old_data: Option<OldData>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Method {
    Auto,
    Rewind,
    Basebackup,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OldData {
    Keep,
    Delete,
}

#[derive(Clone, Default, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Backup {
    fast_checkpoint: bool,
    incremental: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recover {
    target: Target,
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    backup: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Target {
    Latest,
    Time,
    Name,
    Lsn,
    Xid,
    Immediate,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Setup {
    peer: Option<String>,
    arbiter: Option<String>,
    #[serde(rename = "self")]
    own: Option<String>,
    data: Option<String>,
    join: Option<String>,
    password: Option<String>,
    apply: bool,
    show_join: bool,
    rebuild_action: Option<String>,
}

#[derive(Clone)]
enum What {
    Start(Start),
    Stop(Stop),
    Failover(bool),
    Switch(Change),
    Detach(Change),
    Rebuild(Rebuild),
    Backup(Backup),
    Recover(Recover),
    Setup(Box<Setup>),
    Delete,
}

/// An action with its parameters.
#[derive(Clone)]
pub struct Action {
    /// Its name.
    pub name: &'static str,
    what: What,
}

/// What an action would do, as JSON.
#[derive(Clone, serde::Serialize)]
pub struct Plan {
    /// What it does, in short.
    pub title: String,
    /// The command line.
    pub command: String,
    /// The steps, a sentence or a line of `mc_ctl` each.
    pub plan: Vec<String>,
    /// What it costs.
    pub risk: Option<String>,
    /// The server's name that the user must enter.
    pub confirm: Option<String>,
    /// Why it is not possible now.
    pub refused: Option<String>,
}

/// What a plan is made from.
pub struct Present {
    /// The identifiers of this server and of the other server; `None` before a set-up.
    pub servers: Option<(String, String)>,
    status: Result<Box<Status>, Failed>,
}

impl Present {
    /// Now.
    pub fn of(dir: &Path, status: StatusSource) -> Present {
        Present { servers: servers(dir), status: status(dir) }
    }

    fn own(&self) -> String {
        self.servers.as_ref().map_or_else(|| "this server".to_owned(), |(own, _)| own.clone())
    }

    fn id(&self, side: Side) -> String {
        match (side, &self.servers) {
            (Side::Other, Some((_, other))) => other.clone(),
            _ => self.own(),
        }
    }

    fn role(&self, side: Side) -> Option<&'static str> {
        let (status, id) = (self.status.as_ref().ok()?, self.id(side));
        status.servers.iter().find(|server| server.server_id == id).map(|server| server.host_role)
    }

    /// Why a planned change of roles is not possible.
    fn not_mirrored(&self) -> Option<String> {
        let status = match &self.status {
            Ok(status) => status,
            Err(failed) => return Some(failed.error.message.clone()),
        };
        let mirrored = status.view.as_ref().is_some_and(|view| view.mode == "mirrored");
        if mirrored && matches!(status.mirroring_status, Word::Switchable | Word::FailoverDisabled) {
            return None;
        }
        let reason = status.advice.first().map_or(String::new(), |advice| format!(": {advice}"));
        Some(format!("the pair is {}{reason}", status.mirroring_status.text()))
    }
}

fn parse<T: DeserializeOwned>(parameters: Value) -> Result<T, String> {
    serde_json::from_value(parameters).map_err(|cause| format!("parameters: {cause}"))
}

impl Action {
    /// From its name and its parameters.
    ///
    /// # Errors
    /// A parameter is not one; `None` for a name that is none.
    pub fn parse(name: &str, parameters: Value) -> Option<Result<Action, String>> {
        let name = *NAMES.iter().find(|known| **known == name)?;
        let parameters = if parameters.is_null() { Value::Object(Default::default()) } else { parameters };
        let what = match name {
            "start" => parse(parameters).map(What::Start),
            "stop" => parse(parameters).and_then(|stop: Stop| match stop.all && stop.server == Side::Other {
                true => Err("parameters: all requires server \"own\"".to_owned()),
                false => Ok(What::Stop(stop)),
            }),
            "enable-failover" => parse::<Nothing>(parameters).map(|_| What::Failover(true)),
            "disable-failover" => parse::<Nothing>(parameters).map(|_| What::Failover(false)),
            "switch" => parse(parameters).and_then(forced).map(What::Switch),
            "detach" => parse(parameters).and_then(forced).map(What::Detach),
            "rebuild" => parse(parameters).map(What::Rebuild),
            "backup" => parse(parameters).map(What::Backup),
            "recover" => parse(parameters).map(What::Recover),
            SETUP => parse(parameters).map(|setup| What::Setup(Box::new(setup))),
            _ => parse::<Nothing>(parameters).map(|_| What::Delete),
        };
        Some(what.map(|what| Action { name, what }))
    }

    /// All, with their default parameters, for the page's buttons; with the side that each is for.
    pub fn defaults() -> Vec<(Action, &'static str)> {
        let own = |name: &&'static str| Some((Action::parse(name, Value::Null)?.ok()?, "own"));
        let other = ["start", "stop"]
            .into_iter()
            .filter_map(|name| Some((Action::parse(name, serde_json::json!({ "server": "other" }))?.ok()?, "other")));
        let recover = Action::parse("recover", serde_json::json!({ "target": "latest" })).and_then(Result::ok);
        NAMES.iter().filter_map(own).chain(recover.map(|action| (action, "own"))).chain(other).collect()
    }

    fn side(&self) -> Side {
        match &self.what {
            What::Start(Start { server, .. }) | What::Stop(Stop { server, .. }) => *server,
            _ => Side::Own,
        }
    }

    /// The server on which it runs.
    pub fn server(&self, present: &Present) -> String {
        present.id(self.side())
    }

    /// The arguments of `mc_ctl`.
    fn words(&self) -> Vec<String> {
        let mut words = vec![if let What::Setup(_) = self.what { "init" } else { self.name }.to_owned()];
        let mut add = |word: &str| words.push(word.to_owned());
        match &self.what {
            What::Start(start) => {
                match start.failover {
                    Some(true) => add("-f"),
                    Some(false) => add("-F"),
                    None => (),
                }
                start.mc_only.then(|| add("--mc-only"));
            }
            What::Stop(stop) => {
                stop.all.then(|| add("-a"));
                stop.mc_only.then(|| add("--mc-only"));
            }
            What::Failover(_) | What::Delete => (),
            What::Switch(change) | What::Detach(change) => {
                change.force.then(|| add("--force"));
                change.no_fencing.then(|| add("--no-fencing"));
                change.force.then(|| add("--yes"));
            }
            What::Rebuild(rebuild) => {
                match rebuild.method {
                    Some(Method::Auto) => add("--method=auto"),
                    Some(Method::Rewind) => add("--method=rewind"),
                    Some(Method::Basebackup) => add("--method=basebackup"),
                    None => (),
                }
                match rebuild.old_data {
                    Some(OldData::Keep) => add("--old-data=keep"),
                    Some(OldData::Delete) => add("--old-data=delete"),
                    None => (),
                }
                add("--yes");
            }
            What::Backup(backup) => {
                backup.fast_checkpoint.then(|| add("--fast-checkpoint"));
                backup.incremental.then(|| add("--incremental"));
            }
            What::Recover(recover) => {
                let value = recover.value.as_deref().unwrap_or_default();
                match recover.target {
                    Target::Latest => add("--latest"),
                    Target::Immediate => add("--immediate"),
                    Target::Time => add(&format!("--time={value}")),
                    Target::Name => add(&format!("--name={value}")),
                    Target::Lsn => add(&format!("--lsn={value}")),
                    Target::Xid => add(&format!("--xid={value}")),
                }
                recover.backup.iter().for_each(|backup| add(&format!("--backup={backup}")));
                add("--dry-run");
            }
            What::Setup(setup) => {
                let Setup { peer, arbiter, own, data, join, password, apply, show_join, rebuild_action } = &**setup;
                let values = [
                    ("peer", peer),
                    ("arbiter", arbiter),
                    ("self", own),
                    ("data", data),
                    ("rebuild-action", rebuild_action),
                ];
                for (name, value) in values {
                    value.iter().for_each(|value| add(&format!("--{name}={value}")));
                }
                join.iter().for_each(|_| add("--join=-"));
                password.iter().for_each(|_| add("--password-file=-"));
                apply.then(|| add("--apply"));
                show_join.then(|| add("--show-join"));
            }
        }
        words
    }

    /// Standard input: the block first, then the password.
    fn input(&self) -> String {
        let What::Setup(setup) = &self.what else { return String::new() };
        let line = |text: &Option<String>| text.as_ref().map_or(String::new(), |text| format!("{text}\n"));
        line(&setup.join) + &line(&setup.password)
    }

    /// The unit that starts the controller of this host, for a start.
    fn unit(&self, dir: &Path) -> Option<String> {
        matches!(&self.what, What::Start(Start { server: Side::Own, .. }))
            .then(|| unit::find(Some(dir)).map(|unit| unit.name))
            .flatten()
    }

    /// The command line, as it would be typed.
    pub fn command(&self, dir: &Path) -> String {
        if let What::Delete = self.what {
            return "mc_web: remove the set-up".to_owned();
        }
        if let Some(unit) = self.unit(dir) {
            return format!("systemctl start {unit}");
        }
        let quoted = |word: String| {
            let plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_=./:,@+".contains(&byte));
            if plain { word } else { format!("'{}'", word.replace('\'', "'\\''")) }
        };
        let words: Vec<String> = self.words().into_iter().map(quoted).collect();
        format!("mc_ctl {}", words.join(" "))
    }

    /// The plan. `exactly`: also what `mc_ctl` has to find out.
    pub fn plan(&self, config: &WebConfig, present: &Present, exactly: bool) -> Plan {
        let id = self.server(present);
        let (title, steps, risk) = self.text(present, &id);
        let mut plan = Plan {
            title,
            command: self.command(&config.dir),
            plan: steps,
            risk,
            confirm: self.confirm(present),
            refused: self.refused(config, present),
        };
        if exactly && plan.refused.is_none() {
            self.ask_mc_ctl(&config.dir, &mut plan);
        }
        plan
    }

    /// What it does, its steps and its risk.
    fn text(&self, present: &Present, id: &str) -> (String, Vec<String>, Option<String>) {
        let primary = present.role(self.side()) == Some("primary");
        let text = |title: &str, steps: &[&str], risk: &str| {
            let steps = steps.iter().map(|step| (*step).to_owned()).collect();
            (title.replace("{}", id), steps, Some(risk.to_owned()).filter(|risk| !risk.is_empty()))
        };
        match &self.what {
            What::Start(start) if start.mc_only => {
                text("Start the controller of {}", &["The controller starts. The instance does not."], "")
            }
            What::Start(start) => {
                let failover = match start.failover {
                    Some(true) => "Automatic switch and disconnection are enabled.",
                    Some(false) => "Automatic switch and disconnection are disabled: failures are only reported.",
                    None => "Automatic switch and disconnection stay as they are, or are disabled at the first start.",
                };
                text("Start {}", &["The controller and the instance start.", failover], "")
            }
            What::Stop(stop) if stop.mc_only => text(
                "Stop the controller of {}",
                &["The controller ends. The instance continues to run."],
                "Until the controller is started again, a failure of this server is not acted on.",
            ),
            What::Stop(stop) if stop.all => text(
                "Stop both servers",
                &["The controllers and the instances of both servers stop. Nothing is switched."],
                "The service ends.",
            ),
            What::Stop(_) if primary && self.confirm(present).is_none() => text(
                "Stop {}",
                &["The standby is promoted.", "The controller and the instance of this server stop."],
                "Clients are disconnected, and connect to the other server. It then serves alone.",
            ),
            What::Stop(_) if primary => text(
                "Stop {}",
                &["The controller and the instance of this server stop. Nothing is switched."],
                "The service ends, because this server is the primary and the other server does not take over.",
            ),
            What::Stop(_) => text(
                "Stop {}",
                &["The standby is disconnected.", "The controller and the instance of this server stop."],
                "The primary serves alone: a failure of it ends the service.",
            ),
            What::Failover(true) => {
                text("Enable failover", &["Automatic switch and disconnection are enabled on both servers."], "")
            }
            What::Failover(false) => text(
                "Disable failover",
                &["Automatic switch and disconnection are disabled on both servers. Replication remains synchronous."],
                "A failure is reported, and no server acts on it: after a failure of the primary, the service ends until an \
                 operator acts.",
            ),
            What::Switch(change) if change.force => text(
                "Force a switch to {}",
                &["This standby is promoted without the consent of the other server."],
                "If the other server still runs, both accept writes, and the commits of one of them are lost. Continue only \
                 if it is confirmed down, stays down and has not served alone: see \"Before a forced command\" in \
                 mirroring-controller(7).",
            ),
            What::Switch(_) => text(
                "Switch",
                &["The primary stops cleanly, so that the standby has all commits.", "The standby is promoted."],
                "Clients are disconnected, and connect to the new primary. The pair is mirrored again after a rebuild, or \
                 automatically (rebuild_action).",
            ),
            What::Detach(change) if change.force => text(
                "Force the disconnection of the standby",
                &["This server continues alone without the consent of the other server."],
                "If the other server was promoted, both accept writes, and the commits of one of them are lost. Continue only \
                 if it is confirmed down, stays down and has not served alone: see \"Before a forced command\" in \
                 mirroring-controller(7).",
            ),
            What::Detach(_) => text(
                "Detach the standby",
                &["The standby is disconnected. The primary continues alone."],
                "A failure of the primary ends the service until the standby is attached again.",
            ),
            What::Rebuild(_) => text(
                "Rebuild {}",
                &["This server becomes the standby of the other server."],
                "What only this server has is removed from its data directory. The other server serves meanwhile.",
            ),
            What::Backup(_) => {
                text("Back up now", &["The primary makes a backup in backup_destination, and verifies it."], "")
            }
            What::Recover(_) => text("Show the plan of a recovery", &["Nothing is changed."], ""),
            What::Setup(setup) => {
                let mut steps =
                    vec!["The files of Mirroring Controller that are missing are created in the management directory."];
                if setup.apply {
                    steps.push("Missing settings are written to postgresql.conf and pg_hba.conf.");
                } else {
                    steps.push("The settings that postgresql.conf and pg_hba.conf lack are shown.");
                }
                text("Set up", &steps, "")
            }
            What::Delete => text(
                "Delete the set-up of {}",
                &[
                    "network.conf, the configuration, the key and the ledger of this server are removed.",
                    "The instance and its data are not touched.",
                ],
                "This server then has no right to run under a controller: after a new set-up, it must be rebuilt, or its data \
                 adopted. Delete the set-up of both servers.",
            ),
        }
    }

    /// The name that must be entered.
    fn confirm(&self, present: &Present) -> Option<String> {
        let dangerous = match &self.what {
            What::Stop(stop) if stop.mc_only => false,
            What::Stop(stop) => {
                let switches = present.status.as_ref().is_ok_and(|status| status.mirroring_status == Word::Switchable);
                stop.all || !(switches || present.role(self.side()).is_some_and(|role| role != "primary"))
            }
            What::Switch(change) | What::Detach(change) => change.force,
            What::Rebuild(_) | What::Delete => true,
            _ => false,
        };
        dangerous.then(|| self.server(present))
    }

    /// Why it would fail now, as far as that is known without asking.
    fn refused(&self, config: &WebConfig, present: &Present) -> Option<String> {
        if let What::Setup(_) = self.what {
            return None;
        }
        if present.servers.is_none() {
            return Some(format!("there is no set-up in \"{}\"", config.dir.display()));
        }
        let not_running = || present.status.as_ref().err().map(|failed| failed.error.message.clone());
        match &self.what {
            What::Start(start) if start.server == Side::Other => peer::refused(config),
            What::Stop(stop) if stop.server == Side::Other => peer::refused(config),
            What::Start(start) => {
                self.unit(&config.dir).filter(|_| start.failover.is_some() || start.mc_only).map(|unit| {
                    format!("unit \"{unit}\" starts the controller with its own options; start it without options")
                })
            }
            What::Stop(_) | What::Failover(_) => not_running(),
            What::Switch(change) | What::Detach(change) if change.force => not_running(),
            What::Switch(_) | What::Detach(_) => present.not_mirrored(),
            What::Delete => removal::refused(&config.dir, &present.own()),
            What::Rebuild(_) | What::Backup(_) | What::Recover(_) | What::Setup(_) => None,
        }
    }

    /// What only `mc_ctl` knows: the plan of a rebuild and of a recovery, and whether there can be one.
    fn ask_mc_ctl(&self, dir: &Path, plan: &mut Plan) {
        let mut words = match &self.what {
            What::Rebuild(_) | What::Recover(_) => self.words(),
            _ => return,
        };
        words.retain(|word| word != "--yes");
        if let What::Rebuild(_) = self.what {
            words.push("--dry-run".to_owned());
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match run(of_mc_ctl(dir, &words), b"", Some(PLAN_LIMIT), |_| ()) {
            Ok(ended) if ended.exit == 0 => plan.plan.extend(ended.out.lines().map(str::to_owned)),
            Ok(ended) => {
                let (message, hint) = ended.failure();
                plan.refused = Some([message, hint].join(" ").trim().to_owned());
            }
            Err(error) => plan.refused = Some(error.message),
        }
    }

    /// What carries it out. `user`: who, for the other server's log.
    pub fn work(&self, config: &WebConfig, user: &str) -> Work {
        let (action, config, user) = (self.clone(), config.clone(), user.to_owned());
        let order = match (&self.what, self.side()) {
            (What::Start(start), Side::Other) => {
                Some(PeerOrder::Start { failover: start.failover, mc_only: start.mc_only, user })
            }
            (What::Stop(stop), Side::Other) => Some(PeerOrder::Stop { mc_only: stop.mc_only, user }),
            _ => None,
        };
        Box::new(move |line| {
            if let Some(order) = &order {
                return peer::send(&config, order, line);
            }
            if let What::Delete = action.what {
                return removal::perform(&config.dir, line).map(|()| Ended::default());
            }
            run(action.process(&config.dir), action.input().as_bytes(), None, line)
        })
    }

    fn process(&self, dir: &Path) -> Command {
        let words = self.words();
        process(dir, &words.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

/// `mc_ctl` with these words, or the unit that starts the controller, for a start without options.
pub fn process(dir: &Path, words: &[&str]) -> Command {
    let unit = if words == ["start"] { unit::find(Some(dir)) } else { None };
    let Some(unit) = unit else { return of_mc_ctl(dir, words) };
    let mut command = Command::new("systemctl");
    command.args(["--no-ask-password", "start", &format!("{}.service", unit.name)]);
    command
}

fn forced(change: Change) -> Result<Change, String> {
    match change.no_fencing && !change.force {
        true => Err("parameters: no_fencing requires force".to_owned()),
        false => Ok(change),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn command(name: &str, parameters: Value) -> Result<String, String> {
        Action::parse(name, parameters).unwrap().map(|action| action.command(Path::new("/nowhere")))
    }

    #[test]
    fn commands_of_actions() {
        for (name, parameters, expected) in [
            ("start", json!({}), "mc_ctl start"),
            ("start", json!({"failover": true, "mc_only": true}), "mc_ctl start -f --mc-only"),
            ("stop", json!({"all": true}), "mc_ctl stop -a"),
            ("enable-failover", Value::Null, "mc_ctl enable-failover"),
            ("switch", json!({}), "mc_ctl switch"),
            ("switch", json!({"force": true, "no_fencing": true}), "mc_ctl switch --force --no-fencing --yes"),
            ("detach", json!({"force": true}), "mc_ctl detach --force --yes"),
            ("rebuild", json!({"method": "rewind"}), "mc_ctl rebuild --method=rewind --yes"),
            ("backup", json!({"incremental": true}), "mc_ctl backup --incremental"),
            ("recover", json!({"target": "name", "value": "--yes; x"}), "mc_ctl recover '--name=--yes; x' --dry-run"),
            (
                "setup",
                json!({"peer": "h", "password": "secret", "join": "block"}),
                "mc_ctl init --peer=h --join=- --password-file=-",
            ),
        ] {
            assert_eq!(command(name, parameters).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn unknown_names_and_parameters_are_rejected() {
        assert!(Action::parse("sh", json!({})).is_none());
        for (name, parameters) in [
            ("start", json!({"force": true})),
            ("delete", json!({"yes": 1})),
            ("stop", json!({"server": "other", "all": true})),
            ("switch", json!({"no_fencing": true})),
            ("recover", json!({})),
            ("rebuild", json!({"method": "x"})),
            ("backup", json!([1])),
            ("start", json!("x")),
        ] {
            assert!(command(name, parameters.clone()).is_err(), "{name} {parameters}");
        }
    }

    #[test]
    fn the_block_comes_before_the_password() {
        let action = Action::parse("setup", json!({"password": "p", "join": "a\nb"})).unwrap().unwrap();
        assert_eq!(action.input(), "a\nb\np\n");
        assert_eq!(Action::defaults().len(), 13);
    }
}
