//! A recovery after an earlier recovery, which has begun a timeline beside that of newer backups.

use crate::backup::{archived, backups, destination, pair};
use crate::check::check as doctor;
use crate::harness::pair::{Pair, Setup};
use crate::harness::{s, wait_for};
use crate::recover::recover;
use serde_json::Value;

fn insert(pair: &Pair, rows: &[u32]) {
    rows.iter().for_each(|row| _ = pair.sql(0, &format!("INSERT INTO kept VALUES ({row})")));
}

#[track_caller]
fn has(pair: &Pair, rows: &str) {
    for server in [0, 1] {
        assert_eq!(pair.sql(server, "SELECT string_agg(id::text, ' ' ORDER BY id) FROM kept"), rows);
    }
    pair.as_root(0, &["sh", "-c", "rm -rf \"$0\".old-*", pair.data(0)]);
}

fn plan(pair: &Pair, target: &[&str]) -> Value {
    let words = [&["recover", "--dry-run", "--format", "json"], target].concat();
    serde_json::from_str(&pair.mc(0, &words).expect(0, "the plan").out).expect("JSON")
}

/// The newest backup is on the timeline that a recovery has abandoned. The commits since then are kept, the backup is marked, and
/// the discarded commits can be recovered.
#[test]
fn after_a_recovery_to_an_earlier_state() {
    let pair = pair(Setup::default().pg("autovacuum = off"));
    pair.sql(0, "CREATE TABLE kept (id int)");
    pair.mc(0, &["backup", "--fast-checkpoint"]).expect(0, "mc_ctl backup");
    insert(&pair, &[1]);
    let kept_until = pair.sql(0, "SELECT clock_timestamp()");
    insert(&pair, &[2]);
    pair.sql(0, "SELECT pg_create_restore_point('here')");
    insert(&pair, &[3]);
    archived(&pair, 0);
    let discarded = pair.sql(0, "SELECT clock_timestamp()");
    insert(&pair, &[4]);
    pair.mc(0, &["backup", "--fast-checkpoint"]).expect(0, "mc_ctl backup");
    insert(&pair, &[5]);
    let names = backups(&pair, 0);
    let lost = plan(&pair, &["--name", "here"]);
    assert_eq!((&lost["lost_transactions"], &lost["lost_incomplete"]), (&3.into(), &Value::Null), "{lost:#}");
    let lost = plan(&pair, &["--time", &discarded]);
    assert_eq!(lost["lost_transactions"], 2, "{lost:#}");
    let answer = recover(&pair, 0, &["--name", "here"]);
    assert!(answer.err.contains("restore point \"here\": 3 transactions, committed from"), "{answer:?}");
    let kept = answer.err.lines().find_map(|line| line.split("the old one is kept as \"").nth(1)?.split('"').next());
    let kept = kept.expect("the name of the old directory");
    let (target, backup) = (answer.err.find("If the target was wrong"), answer.err.find("make a backup"));
    assert!(target.is_some() && target < backup, "{answer:?}");
    let history = pair.mc(0, &["history"]).expect(0, "mc_ctl history").out;
    assert_eq!(history.matches("; the data was recovered to restore point \"here\"\n").count(), 1, "{history}");
    assert!(answer.err.contains(&format!("rm -r '{kept}'")), "another name: {answer:?}");
    has(&pair, "1 2");

    insert(&pair, &[10, 11]);
    archived(&pair, 0);
    let list = pair.mc(0, &["backup", "--list", "--format", "json"]).expect(0, "mc_ctl backup --list").out;
    let list: Vec<Value> = serde_json::from_str(&list).expect("JSON");
    let marked = |name: &str| list.iter().find(|row| row["name"] == name).expect("the backup")["abandoned_for"].clone();
    assert_eq!((marked(&names[0]), marked(&names[1])), (Value::Null, 2.into()), "{list:#?}");
    let text = pair.mc(0, &["backup", "--list"]).out;
    assert!(text.lines().any(|line| line.contains(&names[1]) && line.contains("abandoned for timeline 2")), "{text}");
    let monitored = pair.mc(0, &["backup", "--check"]).expect(0, "mc_ctl backup --check").out;
    assert!(monitored.contains(&format!("OK - backup {} of nd1 is", names[0])), "{monitored}");
    let marked = format!("backup {} of nd1 leads only to timeline 1", names[1]);
    assert!(monitored.contains(&marked), "{monitored}");
    assert!(monitored.contains(&format!("the next backup of this server removes {}", names[1])), "{monitored}");
    wait_for("mc_ctl check names it", s(150), || {
        doctor(&pair, 0).find("backup-abandoned", "").is_some_and(|found| found.what.contains(&marked)).then_some(())
    });

    let second = plan(&pair, &["--time", &discarded]);
    let warned = |plan: &Value| plan["warnings"].to_string().contains("add --timeline 1");
    assert!(warned(&second) && second["backup"] == names[0].as_str(), "{second:#}");
    assert!(!warned(&plan(&pair, &["--name", "here"])));
    assert!(!warned(&plan(&pair, &["--time", &kept_until])), "before the first recovery ended");
    // Only the archive of the other server has the WAL of that timeline.
    let dirs = [destination(&pair, 0).join("archived_wal"), pair.servers[0].data.join("pg_wal")];
    for dir in &dirs {
        let aside = format!("mkdir {0}.aside && mv {0}/00000001* {0}.aside/", dir.display());
        pair.as_root(0, &["sh", "-c", &aside]);
    }
    let second = plan(&pair, &["--time", &discarded]);
    assert!(warned(&second) && second["warnings"].to_string().contains("only the archive of the other"), "{second:#}");
    for dir in &dirs {
        pair.as_root(0, &["sh", "-c", &format!("mv {0}.aside/* {0}/ && rmdir {0}.aside", dir.display())]);
    }
    recover(&pair, 0, &["--latest"]);
    has(&pair, "1 2 10 11");
    let other = plan(&pair, &["--time", &discarded, "--timeline", "1"]);
    assert_eq!((&other["wal_timeline"], &other["lost_transactions"]), (&1.into(), &2.into()), "{other:#}");
    assert_eq!(
        (&other["last_recovered_commit"], other["lost"].as_str()),
        (&Value::Null, Some("every commit since timeline 1 was left"))
    );
    let answer = recover(&pair, 0, &["--time", &discarded, "--timeline", "1"]);
    assert!(answer.err.contains("abandoned for timeline"), "{answer:?}");
    has(&pair, "1 2 3");
    let none = pair.mc(0, &["recover", "--dry-run", "--latest", "--timeline", "99"]);
    assert!(none.code == 4 && none.text().contains("does not lead to timeline 99"), "{none:?}");
    recover(&pair, 0, &["--latest", "--timeline", "1"]);
    has(&pair, "1 2 3 4 5");
    insert(&pair, &[12]);
    recover(&pair, 0, &["--latest"]);
    has(&pair, "1 2 3 4 5 12");
    // A backup of the present timeline: nothing that precedes it is of interest.
    pair.mc(0, &["backup", "--fast-checkpoint"]).expect(0, "mc_ctl backup");
    insert(&pair, &[13]);
    let now = pair.sql(0, "SELECT clock_timestamp()");
    insert(&pair, &[14]);
    let plan = plan(&pair, &["--time", &now]);
    assert!(!plan["warnings"].to_string().contains("add --timeline"), "{plan:#}");
}
