//! The commands of a script. Members are `nd1`, `nd2`, `arb`; a link is `nd1->nd2`, or `nd1-nd2` for both directions.
//!
//! - `pair [WORD…]`: first of all. `mirrored`: the pair is led to `Mirrored(nd1)` without a word. `arbiter`; `manual`
//!   (failover off); `auto` (`rebuild_action`); `halt` (`shutdown_detached_synchronous_standby`); `isolated`
//!   (`isolated_primary_action = stop`); `switch`, `disconnect`, `fallback` (`heartbeat_error_action`), or `nd2=switch`.
//! - `start M [-f] [--mc-only]`, `start M --for-rebuild` (as `mc_ctl rebuild` does), `restart M` (by the watcher), `kill M`, `pause M`, `resume M`: a controller's process.
//! - `crash M [SIGNAL]`, `pg_ctl M start|stop|promote` (behind the controller's back), `silent M`, `answers M`, `break M` (it does
//!   not start), `repair M`, `disk M failed|good`: an instance. `power M off|on`: a host; its processes stay dead.
//! - `close M`, `open M`: the instance rejects the controller's sessions, or no longer; `grow M BYTES`: clients write WAL; `fork M`:
//!   WAL that is written from here on differs from what was lost; `pg_ctl M start named`: by hand, with the names in the file.
//! - `tick MS`; `until M TEXT`: until that member has said it, a minute at most.
//! - `cut LINK`, `heal LINK`, `cut wal`, `heal wal`, `lose LINK KIND` (until `heal`), `hold LINK`, `release LINK`,
//!   `deliver LINK [KIND]`, `drop LINK [KIND]`, `repeat LINK` (the last proposal arrives again).
//! - `ruin M`: what the rebuild that runs has begun to write cannot be undone.
//! - `hold M stores|jobs`, `release M stores|jobs`, `stored M`, `done M`, `fail M TEXT`: by hand what else comes by itself; `perform M`: the job
//!   is performed, and its result is reported only by `done M`.
//! - `request M WORD…`; `names M changed`; `exchange M`, `rebuild M` (by hand), `empty M` (data directories);
//!   `initdb M` (another cluster, no ledger); `lose-ledger M`; `status M`; `advice M`
//!   (the hints of `mc_ctl status`); `lag M`.

use crate::instance::Postgres;
use crate::words::{self, NAMES};
use crate::world::World;
use mirroring_controller::fsm::event::{
    Disk, Event, Hooks, Job, Names, OnInstanceSilence, OnSilence, Outcome, Settings, StartedBy, TICK_MS,
};
use mirroring_controller::fsm::types::{Lsn, Member, Server, SystemId};

type Done = Result<(), String>;

/// Runs one command and returns what came of it.
pub fn run(world: &mut Option<World>, command: &str) -> Result<String, String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    if let ["pair", rest @ ..] = words.as_slice() {
        *world = Some(pair(rest)?);
    } else {
        let world = world.as_mut().ok_or("the first command is pair")?;
        process(world, &words)
            .or_else(|| host(world, &words))
            .or_else(|| network(world, &words))
            .or_else(|| by_hand(world, &words))
            .unwrap_or_else(|| Err(format!("cannot be done: {command}")))
            .map_err(|why| format!("{why}\n{}", world.out))?;
    }
    Ok(world.as_mut().map(|world| std::mem::take(&mut world.out)).unwrap_or_default())
}

// ----------------------------------------------------------------------------------------------------------- the pair

fn settings(me: Server, words: &[&str]) -> Result<Settings, String> {
    let mut settings = Settings {
        me,
        arbiter: words.contains(&"arbiter"),
        heartbeat_interval_ms: 200,
        heartbeat_timeout_ms: 300,
        heartbeat_detection_ms: 1_000,
        instance_detection_ms: 1_000,
        disk_detection_ms: 1_000,
        on_silence: OnSilence::Message,
        on_instance_silence: OnInstanceSilence::Failover,
        isolated_primary_stops: false,
        isolated_restart: false,
        startup_wait_ms: 5_000,
        rebuild_auto: false,
        stop_detached_standby: false,
        fencing: false,
        hooks: Hooks::default(),
        seed: 0,
    };
    for word in words {
        let mine = word.strip_prefix(NAMES[me.index()]).and_then(|word| word.strip_prefix('='));
        match mine.unwrap_or(word) {
            "arbiter" => settings.on_silence = OnSilence::Arbitration,
            "switch" => settings.on_silence = OnSilence::Switch,
            "disconnect" => settings.on_silence = OnSilence::Disconnect,
            "fallback" => settings.on_silence = OnSilence::Fallback,
            "auto" => settings.rebuild_auto = true,
            "halt" => settings.stop_detached_standby = true,
            "isolated" => settings.isolated_primary_stops = true,
            "isolated-restart" => settings.isolated_restart = true,
            "command" => settings.on_silence = OnSilence::Command,
            "fencing" => settings.fencing = true,
            "hooks" => settings.hooks = Hooks { post_switch: true, pre_detach: true, post_attach: true },
            "arbiter-fencing" => {}
            "mirrored" | "manual" => {}
            other if other.contains('=') => {}
            other => return Err(format!("unknown setting: {other}")),
        }
    }
    Ok(settings)
}

fn pair(words: &[&str]) -> Result<World, String> {
    let mut world = World::new([settings(Server::First, words)?, settings(Server::Second, words)?]);
    world.arbiter_fences = words.contains(&"arbiter-fencing");
    if words.contains(&"arbiter") {
        world.start_arbiter();
    }
    if words.contains(&"mirrored") {
        let failover = Some(!words.contains(&"manual"));
        for m in 0..2 {
            world.start(m, StartedBy::Operator { instance: true, failover });
        }
        until(&mut world, 1, "-> Mirrored")?;
        tick(&mut world, 2_000);
        world.out.clear();
        world.began = world.time();
        world.status(0);
    }
    Ok(world)
}

fn tick(world: &mut World, ms: u64) {
    (0..ms.div_ceil(TICK_MS)).for_each(|_| world.step());
}

fn until(world: &mut World, m: usize, text: &str) -> Done {
    for _ in 0..60_000 / TICK_MS {
        let from = world.out.len();
        world.step();
        if world.out[from..].lines().any(|line| line[10..].starts_with(NAMES[m]) && line.contains(text)) {
            return Ok(());
        }
    }
    Err(format!("{} did not say \"{text}\" within a minute", NAMES[m]))
}

// ------------------------------------------------------------------------------------------------------- the commands

fn who(name: &str) -> Result<usize, String> {
    NAMES.iter().position(|known| *known == name).ok_or_else(|| format!("nobody is called {name}"))
}

fn process(world: &mut World, words: &[&str]) -> Option<Done> {
    Some(match words {
        ["tick", ms] => ms.parse().map_err(|_| format!("not a time: {ms}")).map(|ms| tick(world, ms)),
        ["until", name, text @ ..] => who(name).and_then(|m| until(world, m, &text.join(" "))),
        ["status", name] => who(name).map(|m| world.status(m)),
        ["advice", name] => who(name).map(|m| world.advice(m)),
        ["lag", name] => who(name).map(|m| world.lag(m)),
        ["start", "arb"] => {
            world.start_arbiter();
            Ok(())
        }
        ["start", name, rest @ ..] => who(name).map(|m| {
            let failover = rest.contains(&"-f").then_some(true);
            let instance = !rest.contains(&"--mc-only");
            let by = StartedBy::Operator { instance, failover };
            world.start(m, if rest.contains(&"--for-rebuild") { StartedBy::Rebuild } else { by });
        }),
        ["restart", name] => who(name).map(|m| world.start(m, StartedBy::Watcher)),
        ["kill", name] => who(name).map(|m| world.kill(m)),
        ["command", name, "succeeds"] => who(name).and_then(|m| called(world, m, Ok(()))),
        ["command", name, "fails", why @ ..] => who(name).and_then(|m| called(world, m, Err(why.join(" ")))),
        ["hook", name, "succeeds"] => who(name).and_then(|m| hooked(world, m, Ok(()))),
        ["hook", name, "fails", why @ ..] => who(name).and_then(|m| hooked(world, m, Err(why.join(" ")))),
        ["pause", name] => who(name).map(|m| world.procs[m].paused = true),
        ["resume", name] => who(name).map(|m| world.resume(m)),
        ["request", name, words @ ..] => who(name).and_then(|m| {
            let request = words::request(words).ok_or("unknown request")?;
            world.requests += 1;
            world.feed(m, Event::Request { id: world.requests, request, limit_ms: 30_000 });
            Ok(())
        }),
        _ => return None,
    })
}

/// The operator's command that a member has called ends.
fn called(world: &mut World, m: usize, result: Result<(), String>) -> Done {
    let id = world.procs[m].call.take().ok_or("no command was called")?;
    world.feed(m, Event::CommandDone(id, result));
    Ok(())
}

/// The hook that a member has called ends.
fn hooked(world: &mut World, m: usize, result: Result<(), String>) -> Done {
    let id = world.procs[m].hook.take().ok_or("no hook was called")?;
    world.feed(m, Event::CommandDone(id, result));
    Ok(())
}

fn host(world: &mut World, words: &[&str]) -> Option<Done> {
    let (verb, name, rest) = (words.first()?, words.get(1)?, words.get(2..)?);
    let m = match who(name) {
        Ok(m) => m,
        Err(_) => return None,
    };
    match (*verb, rest) {
        ("crash", []) => world.crash(m, None),
        ("crash", [signal]) => world.crash(m, signal.parse().ok()),
        ("pg_ctl", ["start"]) => world.meddle(m, &Job::Start { names: None, follow: None }),
        ("pg_ctl", ["stop"]) => world.meddle(m, &Job::Stop { fast_ms: 60_000, names: None }),
        ("pg_ctl", ["promote"]) => world.meddle(m, &Job::Promote),
        ("pg_ctl", ["start", "named"]) => world.meddle(m, &Job::Start { names: Some(String::new()), follow: None }),
        ("close", []) => world.hosts[m].closed = true,
        ("open", []) => world.hosts[m].closed = false,
        ("fork", []) => world.hosts[m].fork = world.hosts[m].lsn.0,
        ("grow", [bytes]) => world.hosts[m].lsn.0 += bytes.parse::<u64>().ok()?,
        ("silent", []) => world.hosts[m].silent = true,
        ("break", []) => world.hosts[m].broken = true,
        ("repair", []) => world.hosts[m].broken = false,
        ("disk", ["failed"]) => world.hosts[m].disk = Disk::Failed("data".to_owned()),
        ("disk", ["good"]) => world.hosts[m].disk = Disk::Good,
        ("answers", []) => world.hosts[m].silent = false,
        ("power", ["off"]) => {
            world.power[m] = false;
            world.kill(m);
            world.hosts.iter_mut().skip(m).take(1).for_each(Postgres::crash);
        }
        ("power", ["on"]) => world.power[m] = true,
        ("names", []) => world.names(m),
        ("names", ["changed"]) => world.hosts[m].set_names(Names::Unset),
        ("lose-wal", []) => world.hosts[m].lsn.0 -= 0x1000,
        ("lose-note", []) => world.procs[m].high_water = None,
        ("exchange", []) => world.replace_data(m, false),
        ("empty", []) => {
            world.hosts[m].missing = true;
            world.hosts[m].lsn = Lsn(0);
        }
        ("demote", []) => world.hosts[m].dir.standby_signal = true,
        ("restore", []) => {
            world.replace_data(m, false);
            world.hosts[m].dir.backup_label = true;
        }
        ("rebuild", []) => world.replace_data(m, true),
        ("initdb", []) => {
            world.hosts[m] = Postgres::new(world.hosts[m].dir.fingerprint + 10, false);
            world.hosts[m].dir.system = SystemId(8_000);
            world.procs[m].disk = None;
        }
        ("lose-ledger", []) => world.procs[m].disk = None,
        ("snapshot", []) => world.procs[m].snapshot = world.procs[m].disk,
        ("put-back", []) => world.procs[m].disk = world.procs[m].snapshot,
        _ => return None,
    }
    Some(Ok(()))
}

/// The directions that a link's name means.
fn directions(name: &str) -> Result<Vec<(usize, usize)>, String> {
    if let Some((from, to)) = name.split_once("->") {
        return Ok(vec![(who(from)?, who(to)?)]);
    }
    let (one, other) = name.split_once('-').ok_or_else(|| format!("not a link: {name}"))?;
    Ok(vec![(who(one)?, who(other)?), (who(other)?, who(one)?)])
}

fn network(world: &mut World, words: &[&str]) -> Option<Done> {
    match words {
        ["cut", "wal"] => world.wal_cut = true,
        ["heal", "wal"] => world.wal_cut = false,
        [verb @ ("cut" | "heal" | "hold" | "release" | "lose" | "deliver" | "drop" | "repeat"), name, rest @ ..]
            if name.contains('-') =>
        {
            return Some(directions(name).and_then(|links| {
                links.into_iter().try_for_each(|(from, to)| on_link(world, verb, from, to, rest.first().copied()))
            }));
        }
        _ => return None,
    }
    Some(Ok(()))
}

fn on_link(world: &mut World, verb: &str, from: usize, to: usize, kind: Option<&str>) -> Done {
    let link = &mut world.links[from][to];
    match (verb, kind) {
        ("cut", None) => link.cut = true,
        ("heal", None) => {
            link.cut = false;
            link.lose.clear();
        }
        ("hold", None) => link.hold = true,
        ("release", None) => link.hold = false,
        ("lose", Some(kind)) => link.lose.push(kind.to_owned()),
        ("repeat", None) => return world.repeat(from, to),
        ("deliver" | "drop", kind) => {
            let chosen = |message: &_| kind.is_none_or(|kind| kind == words::kind(message));
            let (taken, left): (Vec<_>, Vec<_>) = std::mem::take(&mut link.queue).into_iter().partition(chosen);
            link.queue = left;
            if taken.is_empty() {
                return Err("there is no such message".to_owned());
            }
            if verb == "deliver" {
                taken.into_iter().for_each(|message| world.feed(to, Event::Heard(Member::ALL[from], message)));
            }
        }
        _ => return Err(format!("what is to be done on the link? {verb}")),
    }
    Ok(())
}

fn by_hand(world: &mut World, words: &[&str]) -> Option<Done> {
    let m = match who(words.get(1)?) {
        Ok(m) => m,
        Err(why) => return Some(Err(why)),
    };
    let process = &mut world.procs[m];
    match words {
        ["hold", _, "stores"] => process.hold_stores = true,
        ["hold", _, "jobs"] => process.hold_jobs = true,
        ["release", _, "jobs"] => process.hold_jobs = false,
        ["release", _, "stores"] => {
            process.hold_stores = false;
            world.stored(m);
        }
        ["stored", _] => world.stored(m),
        ["perform", _] if process.job.is_some() => world.perform_job(m),
        ["done", _] if process.job.is_some() || process.result.is_some() => world.do_job(m),
        ["ruin", _] => world.hosts[m].guard(true),
        ["fail", _, why @ ..] => {
            let Some((id, job)) = process.job.take() else { return Some(Err("no job is out".to_owned())) };
            if matches!(job, Job::Rebuild(_)) {
                world.fail_rebuild(m, id, &why.join(" "));
                return Some(Ok(()));
            }
            world.feed(m, Event::Done(id, Outcome::Failed(why.join(" "))));
        }
        _ => return None,
    }
    Some(Ok(()))
}
