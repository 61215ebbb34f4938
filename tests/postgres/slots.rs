//! Replication slots of a server that becomes a standby.

use crate::harness::pair::Setup;
use crate::harness::{major, s};
use std::time::Instant;

const SLOTS: &str = "SELECT coalesce(string_agg(slot_name, ',' ORDER BY slot_name), '') FROM pg_replication_slots \
                     WHERE slot_name NOT LIKE 'mirroring_controller_%'";

/// A slot that a server has created as the primary keeps WAL for ever when it is a standby, since no client advances it
/// there. It is removed before the server starts as a standby, after a planned switch and after a failover. A slot that was
/// created on the standby stays when the standby is restarted.
#[test]
fn of_its_time_as_the_primary_are_removed() {
    let pair = Setup::default().up();
    pair.sql(0, "SELECT pg_create_physical_replication_slot('archive', true)");
    if major() >= 13 {
        pair.sql(0, "SELECT pg_create_physical_replication_slot('unused', false)");
    }
    pair.fill(0, 40);
    let since = Instant::now();
    pair.mc(0, &["switch"]).expect(0, "mc_ctl switch");
    pair.wait_switched(0);
    pair.rebuild(0, &[]);
    assert_eq!(pair.sql(0, SLOTS), "", "slots of the new standby");
    pair.wait_log(0, since, "removed replication slot \"archive\"", s(5));
    let (_, line) = pair.host(0).syslog.find(since, "removed replication slot \"archive\"").expect("a message");
    let kept: u64 = line.split_once("kept ").and_then(|(_, rest)| rest.split_once(" MB")?.0.parse().ok()).expect(&line);
    assert!(kept >= 20 && line.contains("MCA01170"), "{line}");
    pair.wait_log(0, since, "removed replication slot \"unused\"", s(5));

    pair.sql(0, "SELECT pg_create_physical_replication_slot('cascade', true)");
    pair.mc(0, &["stop"]).expect(0, "mc_ctl stop");
    pair.start(0, &[]).expect(0, "mc_ctl start");
    pair.wait_roles(1, "switchable", ["standby", "primary"]);
    assert_eq!(pair.sql(0, SLOTS), "cascade", "a slot that was created on the standby");

    pair.sql(1, "SELECT pg_create_physical_replication_slot('archive', true)");
    pair.fail_over_from(1);
    pair.wait_switched(1);
    assert_eq!(pair.sql(0, SLOTS), "cascade", "a promoted server keeps its slots");
    pair.sql(0, "SELECT pg_drop_replication_slot('cascade')");
    pair.rebuild(1, &[]);
    assert_eq!(pair.sql(1, SLOTS), "", "slots of the new standby");
}

/// A rebuild that copies has none of the slots of the data directory that it replaces: a message names each of them.
#[test]
fn of_a_replaced_data_directory_are_named() {
    let pair = Setup::default().pg("wal_level = logical").pg("wal_keep_size = 1GB").up();
    for method in ["rewind", "basebackup"] {
        pair.sql(0, "SELECT pg_create_physical_replication_slot('archive', true)");
        pair.sql(0, "SELECT pg_create_logical_replication_slot('changes', 'test_decoding')");
        pair.sql(0, "SELECT pg_switch_wal()");
        pair.fail_over_from(0);
        let since = Instant::now();
        pair.rebuild(0, &["--method", method]);
        for slot in ["archive", "changes"] {
            pair.wait_log(0, since, &format!("removed replication slot \"{slot}\""), s(5));
        }
        assert_eq!(pair.sql(0, SLOTS), "", "slots after {method}");
        pair.mc(1, &["switch"]).expect(0, "mc_ctl switch");
        pair.wait_switched(1);
        pair.rebuild(1, &[]);
    }
}
