//! The cluster's pre-shared key (`mc.key`), and secrets that never show in a log.

use crate::error::{Error, Result};
use std::fmt;
use std::path::Path;

/// The pre-shared key of the members' links (CONTRACT section 9).
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl Key {
    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Parses the text of `mc.key`: 64 hexadecimal digits, and white space around them. The errors never quote the text.
    pub fn parse(path: &Path, text: &str) -> Result<Key> {
        let bad = |what: String| {
            Error::new(format!("file \"{}\": {what}", path.display())).hint(format!(
                "The key is 64 hexadecimal digits, the same on all members. Make one with: openssl rand -hex 32 > \"{}\"",
                path.display()
            ))
        };
        let digits = text.trim();
        if let Some(at) = digits.chars().position(|c| !c.is_ascii_hexdigit()) {
            return Err(bad(format!("character {} is not a hexadecimal digit", at + 1)));
        }
        if digits.len() != 64 {
            return Err(bad(format!("{} hexadecimal digits were found where 64 are needed", digits.len())));
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
            let digit = |d: u8| (d as char).to_digit(16).unwrap_or(0) as u8;
            *byte = digit(pair[0]) << 4 | digit(pair[1]);
        }
        if bytes.iter().all(|byte| *byte == bytes[0]) {
            return Err(bad("the key is one byte repeated, which anyone can guess".into()));
        }
        Ok(Key(bytes))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(hidden)")
    }
}

/// A password; its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a password.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The password, for the connection alone.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: std::result::Result<[u8; 2], &str>) {
        match (Key::parse(Path::new("/mc/mc.key"), text), expected) {
            (Ok(key), Ok(ends)) => assert_eq!([key.0[0], key.0[31]], ends),
            (Err(error), Err(part)) => assert!(error.message.contains(part), "{error}"),
            (got, wanted) => panic!("{text:?}: got {got:?}, wanted {wanted:?}"),
        }
    }

    #[test]
    fn keys() {
        let good = format!("1f{}aB", "0".repeat(60));
        check(&good, Ok([0x1f, 0xab]));
        check(&format!("  {good}\n"), Ok([0x1f, 0xab]));
        check("", Err("0 hexadecimal digits"));
        check(&good[1..], Err("63 hexadecimal digits"));
        check(&format!("{good}00"), Err("66 hexadecimal digits"));
        check(&format!("{}\n{}", &good[..32], &good[32..]), Err("character 33 is not"));
        check(&good.replace("1f", "1g"), Err("character 2 is not"));
        check(&"00".repeat(32), Err("guess"));
    }

    #[test]
    fn nothing_of_a_secret_is_shown() {
        let key = Key::parse(Path::new("k"), &format!("1f{}aB", "0".repeat(60))).unwrap();
        assert_eq!(format!("{key:?}{:?}", Secret::new("pw")), "Key(hidden)Secret(hidden)");
        let error = Key::parse(Path::new("k"), "hunter2").unwrap_err().to_string();
        assert!(!error.contains("hunter2"));
    }

    proptest! {
        #[test]
        fn junk_never_panics(text in ".{0,80}") {
            let _ = Key::parse(Path::new("k"), &text);
        }
    }
}
