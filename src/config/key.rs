//! The cluster's pre-shared key (`mc.key`), each member's own key pair, and secrets that never show in a log.

use crate::error::{Error, Result};
use snow::params::DHChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::Dh;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The pre-shared key of the members' links (network.conf(5)).
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
                "The key is 64 hexadecimal digits, the same on all members. To create one, run: openssl rand -hex 32 > \"{}\"",
                path.display()
            ))
        };
        digits(text.trim()).map(Key).map_err(bad)
    }
}

/// 32 bytes from 64 hexadecimal digits, or what is wrong with them. The error never quotes the text.
fn digits(text: &str) -> std::result::Result<[u8; 32], String> {
    if let Some(at) = text.chars().position(|c| !c.is_ascii_hexdigit()) {
        return Err(format!("character {} is not a hexadecimal digit", at + 1));
    }
    if text.len() != 64 {
        return Err(format!("{} hexadecimal digits were found where 64 are required", text.len()));
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digit = |d: u8| (d as char).to_digit(16).unwrap_or(0) as u8;
        *byte = digit(pair[0]) << 4 | digit(pair[1]);
    }
    if bytes.iter().all(|byte| *byte == bytes[0]) {
        return Err("the key is one byte repeated, which anyone can guess".into());
    }
    Ok(bytes)
}

/// A member's private key (X25519), from the file that [`file_name`] names. Clones share one copy, which is overwritten
/// when the last of them is dropped.
#[derive(Clone)]
pub struct PrivateKey(Arc<Zeroizing<[u8; 32]>>);

/// The name of the file with a member's private key, in the directory of its `network.conf`.
pub fn file_name(id: &str) -> String {
    format!("{id}.private")
}

impl PrivateKey {
    /// Parses the text of the file: 64 hexadecimal digits, and white space around them. The errors never quote the text.
    pub fn parse(path: &Path, text: &str) -> Result<PrivateKey> {
        let bytes = digits(text.trim()).map_err(|what| {
            Error::new(format!("file \"{}\": {what}", path.display())).hint(
                "Remove the file, create a new key with \"mc_ctl init\" or \"mc_arb init\", and list its public key in \
                       network.conf.",
            )
        })?;
        Ok(PrivateKey(Arc::new(Zeroizing::new(bytes))))
    }

    /// The key's bytes, for the handshake alone.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public key that belongs to it.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(exchange(self.as_bytes()).pubkey());
        PublicKey(bytes)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(hidden)")
    }
}

/// A member's public key (X25519), as `network.conf` lists it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Parses 64 hexadecimal digits.
    ///
    /// # Errors
    /// What is wrong with them. A point of small order is no key: any caller could prove that it has the private one.
    pub fn parse(text: &str) -> std::result::Result<PublicKey, String> {
        let bytes = digits(text)?;
        let mut shared = [0; 32];
        let agreed = exchange(&[1; 32]).dh(&bytes, &mut shared);
        if agreed.is_err() || shared == [0; 32] {
            return Err("it is not a public key".into());
        }
        Ok(PublicKey(bytes))
    }

    /// The key that a handshake has proved.
    pub fn proved(bytes: &[u8]) -> Option<PublicKey> {
        bytes.try_into().ok().map(PublicKey)
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// X25519 with this private key.
fn exchange(private: &[u8; 32]) -> Box<dyn Dh> {
    // The feature "use-curve25519" of Cargo.toml is what this returns.
    let Some(mut dh) = DefaultResolver.resolve_dh(&DHChoice::Curve25519) else { unreachable!("X25519 is compiled in") };
    dh.set(private);
    dh
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
        let text = format!("1f{}aB", "0".repeat(60));
        let key = Key::parse(Path::new("k"), &text).unwrap();
        assert_eq!(format!("{key:?}{:?}", Secret::new("pw")), "Key(hidden)Secret(hidden)");
        assert_eq!(format!("{:?}", PrivateKey::parse(Path::new("k"), &text).unwrap()), "PrivateKey(hidden)");
        let errors = [
            Key::parse(Path::new("k"), "hunter2").unwrap_err().to_string(),
            PrivateKey::parse(Path::new("k"), "hunter2").unwrap_err().to_string(),
        ];
        assert!(errors.iter().all(|error| !error.contains("hunter2")));
    }

    /// RFC 7748, section 5.2: the first iteration.
    #[test]
    fn a_public_key_belongs_to_its_private_key() {
        let private = PrivateKey::parse(Path::new("k"), &format!("09{}", "0".repeat(62))).unwrap();
        let public = "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079";
        assert_eq!(private.public().to_string(), public);
        assert_eq!(PublicKey::parse(public), Ok(private.public()));
    }

    #[test]
    fn public_keys() {
        let good = PrivateKey::parse(Path::new("k"), &"0123456789abcdef".repeat(4)).unwrap().public().to_string();
        assert_eq!(PublicKey::parse(&good).unwrap().to_string(), good);
        assert_eq!(PublicKey::parse(&good.to_uppercase()).unwrap().to_string(), good);
        let one = format!("01{}", "0".repeat(62));
        let order_8 = "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800";
        for (text, part) in [
            ("", "0 hexadecimal digits"),
            (&good[1..], "63 hexadecimal digits"),
            (&"0".repeat(64), "one byte repeated"),
            (&one, "not a public key"),
            (order_8, "not a public key"),
        ] {
            let error = PublicKey::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn junk_never_panics(text in ".{0,80}") {
            let _ = Key::parse(Path::new("k"), &text);
        }
    }
}
