//! Why a view is what it is, for people, and from which member that is known.

use super::cause::Cause;
use std::fmt;

/// How much of a reason is sent to another member, in characters.
const LENGTH: usize = 160;

/// A member, as reasons name it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Who {
    /// The peer of the server that reports the reason.
    OtherServer,
    /// The arbiter.
    Arbiter,
    /// One of the two servers, for the arbiter.
    AServer,
    /// The server that proposed a view, for the arbiter.
    ThatServer,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Who::OtherServer => "the other server",
            Who::Arbiter => "the arbiter",
            Who::AServer => "a server",
            Who::ThatServer => "that server",
        })
    }
}

/// From where a reason is known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Source {
    /// This member.
    Own,
    /// Another member reported the view.
    Reported(Who),
    /// Another member proposed the view.
    Requested(Who),
}

/// Why a view was entered.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Reason {
    text: String,
    source: Source,
}

impl Reason {
    /// A reason of this member's own.
    pub fn own(text: impl Into<String>) -> Reason {
        Reason { text: text.into(), source: Source::Own }
    }

    /// The reason that another member reports; it may be empty.
    pub fn reported(who: Who, text: &str) -> Reason {
        Reason { text: clean(text), source: Source::Reported(who) }
    }

    /// The reason for which another member proposed a view; it may be empty.
    pub fn requested(who: Who, text: &str) -> Reason {
        Reason { text: clean(text), source: Source::Requested(who) }
    }

    /// The reason itself, without its source.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// From where it is known.
    pub fn source(&self) -> Source {
        self.source
    }

    /// The reason as it is sent to other members.
    pub fn sent(&self) -> String {
        clean(&self.text)
    }
}

impl From<Cause> for Reason {
    fn from(cause: Cause) -> Reason {
        Reason::own(cause.text())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (how, who) = match self.source {
            Source::Own => return f.write_str(&self.text),
            Source::Reported(who) => ("reported", who),
            Source::Requested(who) => ("requested", who),
        };
        match self.text.as_str() {
            "" => write!(f, "{how} by {who}"),
            text => write!(f, "{text}; {how} by {who}"),
        }
    }
}

/// A text as it is sent to other members and received from them: nothing but the text of a line.
pub(super) fn clean(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(LENGTH).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_names_its_source_once() {
        let reported = Reason::reported(Who::OtherServer, "a (b)");
        assert_eq!(reported.to_string(), "a (b); reported by the other server");
        assert_eq!(reported.sent(), "a (b)");
        assert_eq!(Reason::requested(Who::ThatServer, &reported.sent()).to_string(), "a (b); requested by that server");
        assert_eq!(Reason::reported(Who::Arbiter, "a\nb").to_string(), "ab; reported by the arbiter");
        assert_eq!(Reason::requested(Who::ThatServer, "").to_string(), "requested by that server");
        assert_eq!(Reason::own("a; the arbiter consented").sent(), "a; the arbiter consented");
    }
}
