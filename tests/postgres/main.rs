//! Two controllers and two real PostgreSQL servers on two hosts, under a client that remembers every acknowledged row.
//!
//! Needs root (for namespaces) and PostgreSQL; fails with what to install where they are missing. The cases are heavy:
//! run them with `--test-threads=2`. `MC_TEST_ROUNDS=n` repeats those that depend on chance n times.

#[allow(dead_code, reason = "the bench uses the rest")]
mod harness;

mod cut;
mod force;
mod freeze;
mod itself;
mod kill;
mod mistakes;
mod orders;
