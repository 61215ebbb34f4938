//! What `mc_arb status` prints: a snapshot as a table, or as JSON.

use crate::daemon::arbiter::control::{ClusterStatus, Snapshot};
use crate::status::Level;

/// `server_id  host  status`; with several clusters a table for each below a heading.
pub(super) fn text(snapshot: &Snapshot) -> String {
    let several = snapshot.clusters.len() + snapshot.refused.len() > 1;
    let mut parts: Vec<String> = snapshot.clusters.iter().map(|cluster| cluster_text(cluster, several)).collect();
    parts.extend(snapshot.refused.iter().map(|(name, why)| format!("cluster {}\nnot served: {why}\n", shown(name))));
    if !snapshot.others.is_empty() {
        let others: Vec<String> = snapshot.others.iter().map(u64::to_string).collect();
        parts.push(format!("ledgers of no cluster: {}\n", others.join(", ")));
    }
    let scarce = snapshot.space.iter().filter(|space| space.state != Level::Normal);
    parts.extend(scarce.map(|space| format!("{}\n", space.sentence())));
    parts.join("\n")
}

/// The directory itself is the cluster `.`.
fn shown(name: &str) -> &str {
    if name.is_empty() { "." } else { name }
}

fn cluster_text(cluster: &ClusterStatus, heading: bool) -> String {
    let mut out = String::new();
    if heading {
        let name = shown(&cluster.name);
        let system = cluster.system_identifier.map_or_else(|| "unknown".to_owned(), |system| system.to_string());
        out += &format!("cluster {name}, system identifier {system}\n");
    }
    if let Some(problem) = &cluster.problem {
        out += &format!("not served: {problem}\n");
    }
    let width = |title: &str, of: &dyn Fn(usize) -> usize| (0..2).map(of).max().unwrap_or(0).max(title.len()) + 2;
    let id = width("server_id", &|at| cluster.servers[at].id.len());
    let host = width("host", &|at| cluster.servers[at].host.len());
    let title = format!("{:id$}{:host$}status", "server_id", "host");
    out += &format!("{title}\n{}\n", "-".repeat(title.len() + 1));
    for server in &cluster.servers {
        let status = if server.online { "online" } else { "offline" };
        out += &format!("{:id$}{:host$}{status}\n", server.id, server.host);
    }
    for server in &cluster.servers {
        if let Some(why) = &server.refusal {
            out += &format!("{} is not given the right to run alone: {why}\n", server.id);
        }
    }
    if let Some(view) = &cluster.view {
        out += &format!("view: {}, term {}\n", view.mode.state(&view.primary, view.forced), view.term);
    }
    out
}

/// All of it. Fields are added, never renamed.
pub(super) fn json(snapshot: &Snapshot) -> String {
    let refused = |(name, why): &(String, String)| {
        let servers: [(); 0] = [];
        serde_json::json!({ "name": name, "system_identifier": null, "problem": why, "view": null, "servers": servers })
    };
    let clusters: Vec<serde_json::Value> =
        snapshot.clusters.iter().map(cluster_json).chain(snapshot.refused.iter().map(refused)).collect();
    let value = serde_json::json!({
        "version": snapshot.version,
        "pid": snapshot.pid,
        "uptime_ms": snapshot.uptime_ms,
        "clusters": clusters,
        "disk_space": snapshot.space,
        "ledgers_of_no_cluster": snapshot.others.iter().map(u64::to_string).collect::<Vec<_>>(),
    });
    format!("{value:#}\n")
}

fn cluster_json(cluster: &ClusterStatus) -> serde_json::Value {
    let servers: Vec<serde_json::Value> = cluster
        .servers
        .iter()
        .map(|server| {
            let status = if server.online { "online" } else { "offline" };
            serde_json::json!({
                "server_id": server.id, "host": server.host, "status": status, "refusal": server.refusal,
            })
        })
        .collect();
    serde_json::json!({
        "name": cluster.name,
        // As text: it has more digits than a JSON number keeps everywhere.
        "system_identifier": cluster.system_identifier.map(|system| system.to_string()),
        "problem": cluster.problem,
        "view": cluster.view,
        "servers": servers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::arbiter::control::ServerStatus;

    fn cluster(name: &str, system: Option<u64>) -> ClusterStatus {
        let server =
            |id: &str, host: &str, online| ServerStatus { id: id.into(), host: host.into(), online, refusal: None };
        ClusterStatus {
            name: name.into(),
            system_identifier: system,
            problem: None,
            view: None,
            servers: [server("server1", "192.0.3.100", true), server("server2", "192.0.3.110", false)],
        }
    }

    fn snapshot(clusters: Vec<ClusterStatus>) -> Snapshot {
        Snapshot {
            pid: 1,
            version: "0".into(),
            uptime_ms: 5,
            clusters,
            refused: Vec::new(),
            others: Vec::new(),
            space: Vec::new(),
        }
    }

    #[test]
    fn one_cluster_is_the_guides_table() {
        let expected = "\
server_id  host         status
-------------------------------
server1    192.0.3.100  online
server2    192.0.3.110  offline
";
        assert_eq!(text(&snapshot(vec![cluster("", None)])), expected);
    }

    #[test]
    fn a_refusal_follows_the_table() {
        let mut refused = cluster("", None);
        refused.servers[1].refusal = Some("its data has regressed".into());
        let text = text(&snapshot(vec![refused]));
        assert!(
            text.ends_with("offline\nserver2 is not given the right to run alone: its data has regressed\n"),
            "{text}"
        );
    }

    #[test]
    fn several_have_headings() {
        let text = text(&snapshot(vec![cluster("", Some(7)), cluster("shop", None)]));
        assert!(text.starts_with("cluster ., system identifier 7\nserver_id"), "{text}");
        assert!(text.contains("\n\ncluster shop, system identifier unknown\nserver_id"), "{text}");
    }

    #[test]
    fn one_that_is_refused_is_shown() {
        let mut snapshot = snapshot(vec![cluster("", Some(7))]);
        snapshot.refused.push(("shop".into(), "could not open file".into()));
        let text = text(&snapshot);
        assert!(text.starts_with("cluster ., ") && text.contains("\ncluster shop\nnot served: could not"), "{text}");
        let value: serde_json::Value = serde_json::from_str(&json(&snapshot)).unwrap();
        assert_eq!(value["clusters"][1]["problem"], "could not open file");
    }

    #[test]
    fn json_keeps_every_digit() {
        let text = json(&snapshot(vec![cluster("", Some(u64::MAX))]));
        assert!(text.contains("\"system_identifier\": \"18446744073709551615\""), "{text}");
    }
}
