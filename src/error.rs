//! The one error type: what was tried, on which object, and why it failed, with an optional hint.

use std::fmt;

/// An operating error, in PostgreSQL style: `could not open file "x": No such file or directory`, lower case, no full
/// stop; the hint on a line of its own says what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    /// What failed, with its context.
    pub message: String,
    /// What to do about it; may be empty.
    pub hint: String,
}

/// Results with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error without a hint.
    pub fn new(message: impl Into<String>) -> Error {
        Error { message: message.into(), hint: String::new() }
    }

    /// The same error with a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = hint.into();
        self
    }

    /// `could not WHAT "PATH": CAUSE`.
    pub fn io(what: &str, path: &std::path::Path, cause: impl fmt::Display) -> Error {
        Error::new(format!("could not {what} \"{}\": {cause}", path.display()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.hint.is_empty() {
            write!(f, "\nHINT: {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
