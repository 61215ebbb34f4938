//! Two controllers and two real PostgreSQL servers on two hosts, with and without an arbiter on a third, under clients
//! that remember every acknowledged row.
//!
//! Needs root (for namespaces) and PostgreSQL; fails with what to install where they are missing. The cases are heavy:
//! run them with `--test-threads=4` or fewer. `MC_TEST_ROUNDS=n` repeats those that depend on chance n times.

#[allow(dead_code, reason = "the bench uses the rest")]
mod harness;

mod arbiter;
mod backup;
mod backup_kills;
mod backup_samples;
mod backup_tools;
mod check;
mod check_backups;
mod check_connections;
mod check_files;
mod check_host;
mod check_log;
mod check_mirroring;
mod check_pair;
mod check_running;
mod clients;
mod commands;
mod config_mistakes;
mod cut;
mod debian;
mod disconnected;
mod disk_space;
mod fault;
mod faults;
mod force;
mod foreign;
mod freeze;
mod health;
mod hook_samples;
mod hooks;
mod init;
mod itself;
mod keys;
mod kill;
mod manual;
mod manual_blocks;
mod matrix;
mod mistakes;
mod names;
mod orders;
mod password;
mod rebuild;
mod rebuild_kills;
mod recover;
mod recover_again;
mod recover_guards;
mod recover_kills;
mod reload;
mod remedies;
mod removal;
#[allow(dead_code, reason = "the simulator uses the rest")]
#[path = "../sim/rng.rs"]
mod rng;
mod service;
mod slots;
mod slow_checkpoints;
mod soak;
mod soak_faults;
mod strangers;
mod switch_paused;
mod switches;
mod systemd;
mod unmirrored;
mod web;
mod web_page;
mod went_back;
mod what_if;
