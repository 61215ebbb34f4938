//! What `mc_ctl check` finds by comparing both servers, whose controllers run and whose instances need not.

use crate::check::{Edit, apart, check, expect, expect_gone, id_conf, in_data, setup};
use crate::harness::pair::Pair;
use crate::harness::{s, wait_for};

/// A directory of programs that tell another version.
fn programs_of(pair: &Pair, server: usize, name: &str, version: &str) -> String {
    let dir = pair.host(server).dir.join(name);
    let dir = dir.to_str().expect("ASCII").to_owned();
    let bin = crate::harness::bin_dir().to_str().expect("ASCII");
    let make = "mkdir \"$0\" && for p in \"$1\"/*; do ln -s \"$p\" \"$0\"; done && for p in postgres pg_ctl pg_controldata; do \
                rm \"$0/$p\"; printf '%s\\n' '#!/bin/sh' \"[ \\\"\\$1\\\" = --version ] && exec echo '$p (PostgreSQL) $2'\" \
                \"exec $1/$p \\\"\\$@\\\"\" > \"$0/$p\"; chmod 755 \"$0/$p\"; done && chmod 755 \"$0\"";
    pair.as_root(server, &["sh", "-c", make, &dir, bin, version]);
    dir
}

#[test]
fn of_both_servers() {
    let pair = setup().make();
    apart(&pair);
    for n in [0, 1] {
        pair.mc(n, &["start", "--mc-only"]).expect(0, "mc_ctl start --mc-only");
    }
    wait_for("both are looked at", s(40), || check(&pair, 0).find("peer-not-seen", "nd1").is_none().then_some(()));
    let major: u32 = pair.read(0, "PG_VERSION").trim().parse().expect("a version");

    let other = programs_of(&pair, 1, "minor", &format!("{major}.99"));
    {
        let _edit = Edit::append(&pair, 1, &id_conf(&pair, 1), &format!("bin_dir = '{other}'"));
        assert!(expect(&pair, 0, "minor-versions", "").what.contains(&format!("nd2 has {major}.99")));
    }
    expect_gone(&pair, 0, "minor-versions", "");

    let other = programs_of(&pair, 1, "major", &format!("{}.1", major + 1));
    {
        let from = format!("db_instance = '{}'", pair.data(1));
        let to = format!("db_instance = '{}.none'\nbin_dir = '{other}'", pair.data(1));
        let _edit = Edit::change(&pair, 1, &id_conf(&pair, 1), |old| old.replace(&from, &to));
        assert!(expect(&pair, 0, "major-versions", "").what.contains(&format!("nd2 has {}", major + 1)));
    }
    expect_gone(&pair, 0, "major-versions", "");

    {
        let names = "synchronous_standby_names = 'somebody'";
        let path = in_data(&pair, 0, "postgresql.conf");
        let edit = Edit::change(&pair, 0, &path, |old| old.replace("synchronous_standby_names = 'nd2'", names));
        // the other server tells the same
        for n in [0, 1] {
            let found = expect(&pair, n, "standby-names-not-peer", "nd1");
            assert_eq!((found.file.as_str(), found.line), (path.as_str(), edit.line(names)), "{found:?}");
        }
    }
    expect_gone(&pair, 0, "standby-names-not-peer", "nd1");

    {
        let path = in_data(&pair, 0, "pg_hba.conf");
        let edit = Edit::change(&pair, 0, &path, |old| old.replace("192.0.2.0/24 trust", "192.0.2.0/24 scram-sha-256"));
        let report = check(&pair, 0);
        let found: Vec<_> =
            report.findings().into_iter().filter(|f| f.code == "hba-password" && f.member == "nd1").collect();
        // for a rebuild, and for replication
        let lines = ["host all all 192.0.2.0/24", "host replication all 192.0.2.0/24"].map(|rule| edit.line(rule));
        let mut seen: Vec<_> = found.iter().map(|found| found.line).collect();
        seen.sort_unstable();
        assert_eq!(seen, lines, "{:#}", report.json);
        let _password = Edit::append(&pair, 1, &id_conf(&pair, 1), "db_instance_password = 'x'");
        let _auto = Edit::change(&pair, 1, &in_data(&pair, 1, "postgresql.auto.conf"), |old| {
            old.replace("user=postgres", "user=postgres password=x")
        });
        expect_gone(&pair, 0, "hba-password", "nd1");
    }

    {
        let path = in_data(&pair, 0, "pg_hba.conf");
        let rule = "host shop web 203.0.113.0/24 scram-sha-256";
        // the pair's own need no counterpart, nor does whom nobody else lets in
        let edit =
            Edit::append(&pair, 0, &path, &format!("host all all 192.0.2.100/32 md5\nhost x x ::1/128 md5\n{rule}"));
        for n in [0, 1] {
            let found = expect(&pair, n, "hba-clients", "nd2");
            assert!(found.what.contains(&format!("\"{rule}\" (line {} there)", edit.line(rule))), "{found:?}");
            assert_eq!(found.what.matches(" there)").count(), 1, "{found:?}");
            assert_eq!(found.file, in_data(&pair, 1, "pg_hba.conf"));
            assert!(check(&pair, n).find("hba-clients", "nd1").is_none());
        }
        // one that covers it
        let _here =
            Edit::append(&pair, 1, &in_data(&pair, 1, "pg_hba.conf"), "host all web 203.0.112.0 255.255.254.0 md5");
        expect_gone(&pair, 0, "hba-clients", "nd2");
    }
    expect_gone(&pair, 0, "hba-clients", "nd2");

    // made elsewhere: the controller writes into the data directory
    let anew = "setpriv --reuid postgres --regid postgres --clear-groups \"$1/initdb\" -D \"$0.new\" -A trust -N >/dev/null && \
                rm -rf \"$0\" && mv \"$0.new\" \"$0\"";
    pair.as_root(1, &["sh", "-c", anew, pair.data(1), crate::harness::bin_dir().to_str().expect("ASCII")]);
    let found = expect(&pair, 0, "system-identifiers", "");
    assert!(found.what.contains("nd1 has ") && found.what.contains("nd2 has "), "{found:?}");
}
