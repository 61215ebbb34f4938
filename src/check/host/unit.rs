//! The systemd unit that runs this host's controller, for commands in its form. Only reads files; asks no service manager.

use super::services::{BOOTED, controller_units, enabled_units, name_of};
use std::path::Path;

/// A unit that starts a controller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunsController {
    /// Its name without `.service`.
    pub name: String,
    /// It has started the controller that runs now.
    pub active: bool,
}

/// The only unit that starts the controller of this management directory (of any, if `None`); `None` if systemd does not run, or
/// if there is no such unit or more than one.
pub fn find(directory: Option<&Path>) -> Option<RunsController> {
    if !Path::new(BOOTED).exists() {
        return None;
    }
    let files: Vec<String> = controller_units(directory).into_iter().map(|unit| unit.name).collect();
    let instances = enabled_units().iter().map(|link| name_of(link)).filter(|name| is_instance(name, &files)).collect();
    let plain: Vec<String> = files.iter().filter(|name| !name.contains("@.")).cloned().collect();
    let mut names: Vec<String> = [plain, instances].concat();
    names.sort();
    names.dedup();
    let [name] = names.as_slice() else { return None };
    Some(RunsController { name: name.trim_end_matches(".service").to_owned(), active: is_active(name) })
}

/// Whether `mc@nd1.service` is an instance of one of these templates.
fn is_instance(name: &str, files: &[String]) -> bool {
    let template = name.split_once('@').map(|(before, _)| format!("{before}@.service"));
    template.is_some_and(|template| files.contains(&template))
}

/// Whether a controller runs in the unit's control group.
fn is_active(name: &str) -> bool {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let read = |process: &Path, file: &str| std::fs::read_to_string(process.join(file)).unwrap_or_default();
    let mut controllers = processes.filter(|process| read(process, "comm").trim() == "mc_ctl");
    controllers.any(|process| holds(&read(&process, "cgroup"), name))
}

/// Whether `/proc/PID/cgroup` names the unit.
fn holds(cgroup: &str, name: &str) -> bool {
    cgroup.lines().any(|line| line.rsplit('/').next() == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_group_ends_with_its_unit() {
        assert!(holds("0::/system.slice/mc.service\n", "mc.service"));
        assert!(holds("2:cpu:/\n1:name=systemd:/system.slice/mc.service\n0::/\n", "mc.service"));
        assert!(!holds("0::/user.slice/user-1000.slice/session-3.scope\n", "mc.service"));
        assert!(!holds("0::/system.slice/cron.service\n", "mc.service"));
        assert!(!holds("", "mc.service"));
    }

    #[test]
    fn an_instance_has_a_template() {
        let files = ["mc@.service".to_owned(), "other.service".to_owned()];
        assert!(is_instance("mc@nd1.service", &files) && !is_instance("other.service", &files));
        assert!(!is_instance("other@nd1.service", &files));
    }
}
