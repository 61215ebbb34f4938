//! How a run begins: settings, hosts, the new pair's first start, and the plan of faults.

use crate::plan;
use crate::rng::Rng;
use crate::wal::{CHECKPOINT, Pos};
use crate::world::*;
use mirroring_controller::fsm::event::*;
use mirroring_controller::fsm::types::*;
use std::collections::VecDeque;

/// Settings of both servers, and whether they make views without consent.
pub fn settings(rng: &mut Rng, arbiter: bool, broken: Broken) -> ([Settings; 2], bool) {
    let interval = rng.pick(&[100, 200, 400, 800]);
    let timeout = rng.pick(&[300, 500, 1000]);
    let retry = rng.pick(&[1, 2, 2]);
    let detection = (timeout + interval) * (retry + 1);
    let forced = broken == Broken::No && rng.chance(80);
    // Both ask the arbitration command: one that asks the arbiter might be serving when it is fenced.
    let command = !forced && (broken == Broken::LyingScript || arbiter && rng.chance(120));
    let fences = !command && rng.chance(250) || command && rng.chance(500);
    // Forced views are made by `fallback`, or by operators.
    let fallback = forced && rng.chance(500);
    let half = rng.pick(&[OnSilence::Switch, OnSilence::Disconnect]);
    let differ = rng.chance(50);
    let mut on_silence = |other: bool| match (fallback, arbiter) {
        (true, _) => OnSilence::Fallback,
        _ if command => OnSilence::Command,
        (_, true) if rng.chance(950) => OnSilence::Arbitration,
        (_, true) => OnSilence::Message,
        _ if rng.chance(100) => OnSilence::Message,
        _ if other && differ => rng.pick(&[OnSilence::Switch, OnSilence::Disconnect]),
        _ => half,
    };
    let silences = [on_silence(false), on_silence(true)];
    let stops = rng.chance(300);
    let startup_wait_ms = rng.pick(&[5_000, 20_000, 60_000]);
    let one = |server: Server, rng: &mut Rng| Settings {
        me: server,
        arbiter,
        heartbeat_interval_ms: interval,
        heartbeat_timeout_ms: timeout,
        heartbeat_detection_ms: detection,
        instance_detection_ms: detection,
        disk_detection_ms: detection,
        on_silence: silences[server.index()],
        on_instance_silence: if rng.chance(900) { OnInstanceSilence::Failover } else { OnInstanceSilence::Message },
        isolated_primary_stops: stops,
        isolated_restart: broken == Broken::RestartsUnheard,
        startup_wait_ms,
        rebuild_auto: rng.chance(333),
        stop_detached_standby: rng.chance(200),
        fencing: fences,
        hooks: Hooks::default(),
        seed: 0,
    };
    ([one(Server::First, rng), one(Server::Second, rng)], forced)
}

/// A primary's data directory on one server, its copy as a standby's on the other.
pub fn hosts(rng: &mut Rng, pos: Pos) -> [Host; 2] {
    let primary = rng.index(2);
    [0, 1].map(|s| {
        let dir = Dir {
            fingerprint: rng.next() | 1,
            checkpoint: (pos.lsn - CHECKPOINT, 1),
            min_recovery: if s == primary { 0 } else { 1 },
            state: if s == primary { ControlState::ShutDown } else { ControlState::InArchiveRecovery },
            standby_signal: s != primary,
            backup_label: s != primary,
            mark: None,
            names: Names::Unset,
            line: NAMES[1 - s],
            follows: s != primary,
            pos,
            exchanged: false,
            went_back: false,
            incomplete: false,
            torn: false,
            missing: false,
            hollow: false,
        };
        Host {
            dir,
            backup: None,
            cold: None,
            journal: Journal::None,
            staged: None,
            run: Run::Down,
            epoch: 0,
            life: 0,
            loaded: Names::Unset,
            effect: Names::Unset,
            last_commit: 0,
            released: 0,
            unnamed: false,
            unmirrored: None,
            noticed: false,
            unheard: false,
            restarted_unheard: false,
            frozen: false,
            frozen_postmaster: false,
            frozen_receiver: false,
            stuck_checkpointer: false,
            full: false,
            disk_failed: false,
            contacts: 1,
        }
    })
}

/// A member's process that was never started.
pub fn process(rng: &mut Rng) -> Process {
    let permille = if rng.chance(200) { rng.range(900, 1100) } else { 1000 };
    Process {
        core: Core::None,
        epoch: 0,
        start_id: 0,
        disk: None,
        high_water: None,
        past: Vec::new(),
        ordered: None,
        writes: VecDeque::new(),
        writing: false,
        job: None,
        script: None,
        hook: None,
        answered: None,
        answer_lost: false,
        orders_unmirrored: false,
        answer_at: 0,
        look_at: 0,
        reading_at: 0,
        paused: false,
        held: Vec::new(),
        watch: false,
        exited: false,
        clock: Clock { base: rng.range(1_000, 100_000_000), since: 0, permille },
        ticking: false,
    }
}

/// The first start of the pair, and everything that is to happen by itself.
pub fn begin(world: &mut World) {
    let by = StartedBy::Operator { instance: true, failover: Some(true) };
    let late = world.rng.time(500, 15_000);
    let first = world.rng.index(2);
    world.after(0, Ev::StartProcess { m: first, by });
    world.after(late, Ev::StartProcess { m: 1 - first, by });
    if world.arbiter {
        let ms = world.rng.time(500, 10_000);
        world.after(ms, Ev::StartProcess { m: ARBITER, by });
    }
    for s in 0..2 {
        world.after(s as u64, Ev::Connect { s });
        world.after(s as u64, Ev::Commit { s });
    }
    // A background of imperfection that lasts until the healing.
    let loss = if world.rng.chance(300) { world.rng.range(1, 200) } else { 0 };
    let repeat = if world.rng.chance(300) { world.rng.range(1, 200) } else { 0 };
    let slow = if world.rng.chance(200) { world.rng.range(20, 400) } else { 0 };
    let stale = if world.rng.chance(200) { world.rng.range(1, 100) } else { 0 };
    world.links = [[Link { cut: false, loss, repeat, slow, stale }; 3]; 3];
    plan::plan(world);
}
