//! What is told to the operator: every message has a number, a type, a cause and a remedy, kept in one catalogue.
//!
//! The decision core says ([`crate::fsm::event::Say`]) and the daemon tells ([`Tell`]); [`log`] and [`tell`] turn either
//! into `programName[pid]: TYPE: text (MCAnnnnn)` (mc_messages(7)) and hand it to the sink: syslog through the local
//! socket, the server's own bounded log file, and standard error with `--foreground`. Neither ever blocks the caller nor
//! fails: a full or dying disk and a stuck syslog daemon lose messages, not the controller. `mc_ctl explain` prints what
//! the catalogue knows. Must not decide anything, and must never be given a password or a key.

pub mod catalogue;
pub mod commands;
mod said;
mod sink;

pub use said::{Names, Tell};
pub(crate) use sink::utc;
pub use sink::{Facility, Output, flush, init};

use crate::fsm::event::CoreMessage;

/// The type of a message, as PostgreSQL and the guide name them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Type {
    /// Information.
    Info,
    /// What happened, for administrators.
    Log,
    /// What an operator may want to change.
    Notice,
    /// Something that may become a failure.
    Warning,
    /// Something failed.
    Error,
    /// The controller cannot continue.
    Fatal,
    /// Data may be lost; an operator must act now.
    Panic,
}

impl Type {
    /// As it stands in a message.
    pub fn word(self) -> &'static str {
        match self {
            Type::Info => "INFO",
            Type::Log => "LOG",
            Type::Notice => "NOTICE",
            Type::Warning => "WARNING",
            Type::Error => "ERROR",
            Type::Fatal => "FATAL",
            Type::Panic => "PANIC",
        }
    }

    /// The severity for syslog (mc_messages(7); numbers of RFC 3164, section 4.1.1).
    pub fn severity(self) -> u8 {
        match self {
            Type::Info | Type::Log => 6,
            Type::Notice => 5,
            Type::Warning => 4,
            Type::Error => 3,
            Type::Fatal => 2,
            Type::Panic => 1,
        }
    }
}

/// One message of the catalogue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The digits of `MCAnnnnn`.
    pub number: u32,
    /// Its type.
    pub kind: Type,
    /// The text; each `{name}` stands for a value.
    pub text: &'static str,
    /// What leads to it.
    pub cause: &'static str,
    /// What the controller has done or will do.
    pub action: &'static str,
    /// What an operator does.
    pub remedy: &'static str,
}

/// A message that is ready to be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// The digits of `MCAnnnnn`.
    pub number: u32,
    /// Its type.
    pub kind: Type,
    /// The text, without type and number.
    pub text: String,
}

impl std::fmt::Display for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} (MCA{:05})", self.kind.word(), self.text, self.number)
    }
}

impl Message {
    /// The message of this number with these values in the order of its `{name}`s. A number that the catalogue does not
    /// hold is a mistake of ours that a unit test finds.
    fn new(number: u32, values: &[&str]) -> Message {
        let Some(entry) = catalogue::find(number) else {
            return Message { number, kind: Type::Error, text: values.join(": ") };
        };
        Message { number, kind: entry.kind, text: fill(entry.text, values) }
    }
}

/// Puts the values in the place of the `{name}`s, in order. Line breaks in values become spaces: a message is one line.
fn fill(text: &str, values: &[&str]) -> String {
    let mut out = String::with_capacity(text.len() + 64);
    let mut rest = text;
    let mut values = values.iter();
    while let Some((before, after)) = rest.split_once('{') {
        let Some((_, after)) = after.split_once('}') else { break };
        out.push_str(before);
        let value = values.next().copied().unwrap_or("?");
        let value = value.trim_end().replace("\nHINT: ", "; ");
        out.extend(value.chars().map(|c| if c.is_control() { ' ' } else { c }));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The message of what the core says.
pub fn of_say(say: &CoreMessage, names: &Names) -> Message {
    said::of_say(say, names)
}

/// The message of what the daemon tells.
pub fn of_tell(tell: &Tell) -> Message {
    said::of_tell(tell)
}

/// Writes what the core says. Never blocks, never fails.
pub fn log(say: &CoreMessage, names: &Names) {
    sink::write(&of_say(say, names));
}

/// As [`log`], with a cause that the core does not know at the end of the text.
pub fn log_with_cause(say: &CoreMessage, names: &Names, cause: &str) {
    let mut message = of_say(say, names);
    message.text = format!("{}; {cause}", message.text);
    sink::write(&message);
}

/// As [`log`], for one of several clusters: the text begins with its title.
pub fn log_for(title: &str, say: &CoreMessage, names: &Names) {
    sink::write(&said::titled(title, of_say(say, names)));
}

/// Writes what the daemon tells. Never blocks, never fails.
pub fn tell(tell: &Tell) {
    sink::write(&of_tell(tell));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fill_the_text_in_order_on_one_line() {
        assert_eq!(fill("a {x} b {y}", &["1", "2\n3\n"]), "a 1 b 2 3");
        assert_eq!(fill("a {x}", &["failed\nHINT: Repair it."]), "a failed; Repair it.");
        assert_eq!(fill("a {x} b {y}", &["1"]), "a 1 b ?");
        assert_eq!(fill("no values", &[]), "no values");
    }

    #[test]
    fn the_guides_promotion_message_reads_exactly_so() {
        let names =
            Names { ids: ["nd1".into(), "nd2".into()], me: crate::fsm::types::Server::First, arbiter: String::new() };
        let text = of_say(&CoreMessage::PromotionCompleted, &names).to_string();
        assert_eq!(text, "LOG: promotion processing completed (MCA00062)");
    }
}
