//! Findings of PostgreSQL's log.

use super::super::{Entry, Facts as Server, Finding};

pub(super) const SERVER_LOG: Entry = Entry::notice(
    "server-log",
    "With logging_collector = off PostgreSQL's log is what the instance writes to its standard error. The controller starts it \
     with the file that log_file of mc_server.conf(5) names.",
);
pub(super) const SERVER_LOG_UNWRITABLE: Entry = Entry::warning(
    "server-log-unwritable",
    "The file for PostgreSQL's log cannot be written, or was removed or renamed while the instance has it open. A rotation must \
     copy and truncate it.",
);

pub(super) fn examine(server: &Server, found: &mut Vec<Finding>) {
    let (id, facts) = (&server.id, &server.instance);
    let log = &facts.files.log;
    if log.file.is_empty() || facts.value("logging_collector") == "on" {
        return;
    }
    let conf = format!("\"{}/{id}.conf\"", facts.own.dir);
    let mut warn = |what: String, fix: String| found.push(SERVER_LOG_UNWRITABLE.found(id, what, fix));
    if let Some(why) = &log.unwritable {
        let what = format!("PostgreSQL's log cannot be written to \"{}\": {why}", log.file);
        warn(what, format!("correct the owner and mode of the file or of its directory, or set log_file in {conf}"));
    }
    let renamed = log.opened.strip_prefix(&*log.file).is_some_and(|rest| !rest.is_empty());
    if renamed {
        let what = format!("PostgreSQL's log goes to \"{}\": the file was removed or renamed", log.opened);
        warn(what, "rotate it with \"copytruncate\"; the next start of the instance opens another file".to_owned());
    }
    let what = match log.opened.as_str() {
        "" => format!("PostgreSQL's log will be \"{}\"", log.file),
        opened if opened == log.file => format!("PostgreSQL's log is \"{opened}\""),
        opened => format!("PostgreSQL's log is \"{opened}\", and \"{}\" from the next start on", log.file),
    };
    let nothing = match &log.share {
        Some(command) => format!("to let Debian's readers of logs read it, as root: {command}"),
        None => "nothing".to_owned(),
    };
    found.push(SERVER_LOG.found(id, what, format!("{nothing}, or set log_file in {conf}")));
}
