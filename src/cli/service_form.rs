//! The form of the commands in hints: on a host on which a systemd unit runs the controller, `systemctl` keeps it in its unit.

use crate::check::host::unit;
use crate::messages::commands::Form;
use std::path::Path;

/// For a command that found no controller: the unit starts it.
pub(super) fn when_stopped(directory: &Path) -> Form {
    form(unit::find(Some(directory)))
}

/// For a command that the controller answered, if the unit has started that controller.
pub(super) fn when_running(directory: &Path) -> Form {
    form(unit::find(Some(directory)).filter(|unit| unit.active))
}

/// For an explanation, which depends on no controller.
pub(super) fn of_host(directory: Option<&Path>) -> Form {
    form(unit::find(directory))
}

fn form(unit: Option<unit::RunsController>) -> Form {
    unit.map_or(Form::Direct, |unit| Form::Unit(unit.name))
}
