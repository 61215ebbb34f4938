//! The users of the console: a file of one line a user, `NAME ROLE HASH`, the hash being argon2id's as a PHC string.
//!
//! A password is verified by a process of its own (`mc_web --verify`), one at a time: its memory (19 MiB) goes back to the
//! system with it, and many logins at once do not need more.

use crate::config::read_private;
use crate::daemon::lock;
use crate::error::{Error, Result};
use crate::random;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The argument of the process that verifies a password.
pub const VERIFY: &str = "--verify";
/// Memory in KiB, passes and lanes: OWASP's recommendation for argon2id.
const COST: (u32, u32, u32) = (19 * 1024, 2, 1);
/// Logins that wait for another one.
const MAX_WAITING: usize = 4;
/// The longest password, in bytes.
pub const MAX_PASSWORD: usize = 1024;

/// What a user may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Look.
    Viewer,
    /// Act, too.
    Operator,
}

impl Role {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
        }
    }

    /// From the word.
    pub fn parse(word: &str) -> Option<Role> {
        [Role::Viewer, Role::Operator].into_iter().find(|role| role.word() == word)
    }
}

/// A line of the file.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// The role.
    pub role: Role,
    /// A PHC string.
    hash: String,
}

/// Whether this may be a user's name.
pub fn is_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(good)
}

/// All users; none where there is no file.
///
/// # Errors
/// The file cannot be read, others can read it, or a line is not a user's.
pub fn load(path: &Path) -> Result<Vec<User>> {
    if path.symlink_metadata().is_err() {
        return Ok(Vec::new());
    }
    let text = read_private(path, "")?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|(index, line)| {
            parse(line).ok_or_else(|| {
                Error::new(format!("file \"{}\", line {}: this is not a user", path.display(), index + 1))
                    .hint("Remove the line, and run \"mc_web passwd USER\".")
            })
        })
        .collect()
}

fn parse(line: &str) -> Option<User> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [name, role, hash] = words.as_slice() else { return None };
    let role = Role::parse(role).filter(|_| is_name(name) && PasswordHash::new(hash).is_ok())?;
    Some(User { name: (*name).to_owned(), role, hash: (*hash).to_owned() })
}

/// Sets or removes one user. `password`: `None` removes the user; `role`: `None` keeps it, and is `viewer` for a new user.
/// Returns the role.
///
/// # Errors
/// The file cannot be read or written, or there is no such user to remove.
pub fn change(path: &Path, name: &str, role: Option<Role>, password: Option<&str>) -> Result<Role> {
    let mut users = load(path)?;
    let at = users.iter().position(|user| user.name == name);
    let role = role.or_else(|| at.map(|at| users[at].role)).unwrap_or(Role::Viewer);
    match (at, password) {
        (None, None) => return Err(Error::new(format!("there is no user \"{name}\""))),
        (Some(at), None) => drop(users.remove(at)),
        (at, Some(password)) => {
            let user = User { name: name.to_owned(), role, hash: hash(password)? };
            match at {
                Some(at) => users[at] = user,
                None => users.push(user),
            }
        }
    }
    let text: String = users.iter().map(|user| format!("{} {} {}\n", user.name, user.role.word(), user.hash)).collect();
    let new = path.with_extension("new");
    let _ = std::fs::remove_file(&new);
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|cause| Error::io("write file", &new, cause))?;
    std::fs::rename(&new, path).map_err(|cause| Error::io("replace file", path, cause))?;
    Ok(role)
}

fn argon2() -> Result<Argon2<'static>> {
    let (memory, passes, lanes) = COST;
    let params = Params::new(memory, passes, lanes, None).map_err(|cause| Error::new(format!("argon2: {cause}")))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(password: &str) -> Result<String> {
    let failed = |cause: argon2::password_hash::Error| Error::new(format!("could not hash the password: {cause}"));
    let salt = SaltString::encode_b64(&random::bytes::<16>()?).map_err(failed)?;
    Ok(argon2()?.hash_password(password.as_bytes(), &salt).map_err(failed)?.to_string())
}

/// The process that verifies: reads the hash, a line break and the password from standard input; ends with 0 if they match.
pub fn verify_process() -> u8 {
    let mut text = String::new();
    let _ = std::io::stdin().take(16 << 10).read_to_string(&mut text);
    let Some((hash, password)) = text.split_once('\n') else { return 2 };
    let verified = PasswordHash::new(hash)
        .map(|hash| argon2().is_ok_and(|a| a.verify_password(password.as_bytes(), &hash).is_ok()));
    u8::from(!verified.unwrap_or(false))
}

/// Why a login is not answered.
pub enum Refused {
    /// Too many others wait.
    Busy,
    /// No such user, or another password.
    Wrong,
    /// Of the file, or of the process.
    Failed(Error),
}

/// Verifies passwords.
#[derive(Default)]
pub struct Verifier {
    one: Mutex<()>,
    waiting: AtomicUsize,
}

impl Verifier {
    /// The user of this name and password. A name that does not exist takes as long.
    pub fn verify(&self, path: &Path, name: &str, password: &str) -> std::result::Result<User, Refused> {
        if self.waiting.fetch_add(1, Ordering::SeqCst) >= MAX_WAITING {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            return Err(Refused::Busy);
        }
        let _one = lock(&self.one);
        let verified = verify(path, name, password);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        verified
    }
}

fn verify(path: &Path, name: &str, password: &str) -> std::result::Result<User, Refused> {
    /// Of no password: for names that do not exist.
    const OTHER: &str =
        "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let users = load(path).map_err(Refused::Failed)?;
    let user = users.into_iter().find(|user| user.name == name);
    let hash = user.as_ref().map_or(OTHER, |user| &user.hash);
    let failed = |cause| Refused::Failed(Error::new(format!("could not verify a password: {cause}")));
    let program = std::env::current_exe().ok().filter(|path| path.exists()).unwrap_or_else(|| "/proc/self/exe".into());
    let mut command = Command::new(program);
    command.arg(VERIFY).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        let _ = input.write_all(format!("{hash}\n{password}").as_bytes());
    }
    let matches = child.wait().map_err(failed)?.success();
    user.filter(|_| matches).ok_or(Refused::Wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_added_changed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web.users");
        assert!(load(&path).unwrap().is_empty());
        assert_eq!(change(&path, "dba", Some(Role::Operator), Some("one")).unwrap(), Role::Operator);
        assert_eq!(change(&path, "eve", None, Some("two")).unwrap(), Role::Viewer);
        let first = load(&path).unwrap();
        assert_eq!(change(&path, "dba", None, Some("one")).unwrap(), Role::Operator);
        let second = load(&path).unwrap();
        assert_ne!(first[0].hash, second[0].hash, "the salt is another one");
        let hash = PasswordHash::new(&second[0].hash).unwrap();
        assert!(argon2().unwrap().verify_password(b"one", &hash).is_ok());
        assert!(argon2().unwrap().verify_password(b"two", &hash).is_err());
        change(&path, "eve", None, None).unwrap();
        assert!(change(&path, "eve", None, None).is_err());
        assert_eq!(load(&path).unwrap().len(), 1);
        std::fs::write(&path, "dba king x\n").unwrap();
        assert!(load(&path).is_err_and(|error| error.message.contains("line 1")));
    }

    #[test]
    fn names() {
        assert!(is_name("dba") && is_name("a.b-c@d_e"));
        assert!(!is_name("") && !is_name("a b") && !is_name("a\n") && !is_name(&"x".repeat(65)));
    }
}
