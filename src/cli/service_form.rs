//! Hints for a host on which a systemd unit runs the controller: they name `systemctl`, which keeps the controller in its unit.

use crate::check::host::unit;
use std::path::Path;

/// A hint of a command that found no controller: the unit starts it.
pub(super) fn when_stopped(hint: &str, directory: &Path) -> String {
    replace(hint, &["start"], unit::find(Some(directory)))
}

/// A hint of a command that the controller answered. `mc_ctl start` remains, since it starts the instance alone.
pub(super) fn when_running(hint: &str, directory: &Path) -> String {
    const VERBS: [&str; 2] = ["stop", "reload"];
    if !VERBS.iter().any(|verb| hint.contains(&quoted(verb))) {
        return hint.to_owned();
    }
    replace(hint, &VERBS, unit::find(Some(directory)).filter(|unit| unit.active))
}

fn quoted(verb: &str) -> String {
    format!("\"mc_ctl {verb}\"")
}

fn replace(hint: &str, verbs: &[&str], unit: Option<unit::RunsController>) -> String {
    let Some(unit) = unit else { return hint.to_owned() };
    let in_form =
        |text: String, verb: &&str| text.replace(&quoted(verb), &format!("\"systemctl {verb} {}\"", unit.name));
    verbs.iter().fold(hint.to_owned(), in_form)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_commands_are_replaced() {
        let unit = || Some(unit::RunsController { name: "mc".into(), active: true });
        let hint = "Run \"mc_ctl stop\", \"mc_ctl stop --mc-only\" or \"mc_ctl start\".";
        assert_eq!(
            replace(hint, &["stop"], unit()),
            "Run \"systemctl stop mc\", \"mc_ctl stop --mc-only\" or \"mc_ctl start\"."
        );
        assert_eq!(replace(hint, &["stop"], None), hint);
    }
}
