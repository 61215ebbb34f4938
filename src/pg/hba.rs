//! `pg_hba.conf`: its rules with the lines they stand in, and which of them a connection meets (PostgreSQL documentation,
//! "The pg_hba.conf File"). Reads files, resolves no name and asks no server. Called by `init` and by `check`.

use super::conf;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// How deep files may include each other; PostgreSQL's own limit.
const MAX_DEPTH: u32 = 10;

/// One rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// The file.
    pub file: PathBuf,
    /// Its line, from 1.
    pub line: usize,
    /// `local`, `host`, `hostssl`, `hostnossl`, `hostgssenc` or `hostnogssenc`.
    pub kind: String,
    /// As written; [`Word::quoted`] ones are names even where they look like keywords.
    pub databases: Vec<Word>,
    /// The same.
    pub users: Vec<Word>,
    /// Empty for `local`; the mask, where it is written apart, follows after a slash.
    pub address: String,
    /// Such as `scram-sha-256`, `trust`, `reject`. What follows it is not kept.
    pub method: String,
}

/// A word of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Word {
    /// Without its quotes.
    pub text: String,
    /// It stood in quotes.
    pub quoted: bool,
}

/// How someone connects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// The Unix socket.
    Socket,
    /// TCP without encryption, from this address.
    Plain(IpAddr),
    /// TCP with TLS, from this address.
    Tls(IpAddr),
}

/// What someone connects to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Database<'a> {
    /// A database.
    Named(&'a str),
    /// The WAL.
    Replication,
}

/// The `pg_hba.conf` of an instance: `hba_file`, else that of the data directory.
pub fn file(config_file: &Path, data: &Path) -> PathBuf {
    match conf::effective("hba_file", config_file, data).filter(|file| !file.is_empty()) {
        Some(file) => data.join(file),
        None => data.join("pg_hba.conf"),
    }
}

/// The rules of a file and of what it includes, in PostgreSQL's order. Lines that PostgreSQL would not understand, and
/// included files that cannot be read, are passed over: it reports them itself.
///
/// # Errors
/// The file itself cannot be read.
pub fn read(file: &Path) -> std::io::Result<Vec<Rule>> {
    read_all(file).map(|(rules, _)| rules)
}

/// A line that is no rule: its file and its number.
pub type Broken = (PathBuf, usize);

/// The same, and every line that is no rule. (Methods, and addresses, are not looked at.)
///
/// # Errors
/// The file itself cannot be read.
pub fn read_all(file: &Path) -> std::io::Result<(Vec<Rule>, Vec<Broken>)> {
    let text = std::fs::read(file)?;
    let (mut rules, mut broken) = (Vec::new(), Vec::new());
    collect(file, &String::from_utf8_lossy(&text), 0, &mut rules, &mut broken);
    Ok((rules, broken))
}

/// The first rule that a connection meets; it decides, whatever comes after. Rules for groups (`+name`) and patterns
/// (`/regex`), and hosts by name, are met by nobody here: that takes a server, or a resolver.
pub fn first_match<'a>(rules: &'a [Rule], way: Way, database: Database<'_>, user: &str) -> Option<&'a Rule> {
    rules.iter().find(|rule| {
        rule.is_for(way)
            && rule.databases.iter().any(|word| is_database(word, database, user))
            && rule.users.iter().any(|word| (!word.quoted && word.text == "all") || word.text == user)
    })
}

impl Rule {
    fn is_for(&self, way: Way) -> bool {
        let (address, kinds): (_, &[&str]) = match way {
            Way::Socket => return self.kind == "local",
            Way::Plain(address) => (address, &["host", "hostnossl", "hostnogssenc"]),
            Way::Tls(address) => (address, &["host", "hostssl", "hostnogssenc"]),
        };
        kinds.contains(&self.kind.as_str()) && covers(&self.address, address)
    }
}

fn is_database(word: &Word, asked: Database<'_>, user: &str) -> bool {
    match (asked, word.text.as_str(), word.quoted) {
        (Database::Replication, text, quoted) => text == "replication" && !quoted,
        (Database::Named(_), "all", false) => true,
        (Database::Named(name), "sameuser", false) => name == user,
        (Database::Named(_), "replication" | "samerole" | "samegroup", false) => false,
        (Database::Named(name), text, _) => text == name,
    }
}

/// Whether a rule's address, such as `192.0.2.0/24`, covers this one.
pub fn covers(rule: &str, address: IpAddr) -> bool {
    let address = address.to_canonical();
    if rule == "all" {
        return true;
    }
    // The server's own networks: this host is in them for certain.
    if matches!(rule, "samehost" | "samenet") {
        return address.is_loopback();
    }
    let alone = network(&address.to_string());
    network(rule)
        .zip(alone)
        .is_some_and(|((net, mask, width), (address, _, other))| width == other && net & mask == address & mask)
}

/// Whether a rule's address covers all of another's. Names, and the server's own networks, are covered by themselves alone.
pub fn includes(wide: &str, narrow: &str) -> bool {
    let networks = network(wide).zip(network(narrow));
    wide == "all"
        || wide == narrow
        || networks.is_some_and(|((wide, wide_mask, width), (narrow, narrow_mask, other))| {
            width == other && wide_mask & narrow_mask == wide_mask && wide & wide_mask == narrow & wide_mask
        })
}

/// Address, mask and width in bits; `None` for a name or a keyword. Without a mask it is one address.
fn network(rule: &str) -> Option<(u128, u128, u32)> {
    let (net, mask) = rule.split_once('/').unwrap_or((rule, ""));
    let (net, width) = match net.parse().ok()? {
        IpAddr::V4(net) => (u128::from(net.to_bits()), 32),
        IpAddr::V6(net) => (net.to_bits(), 128),
    };
    let mask = match (mask.parse::<u32>(), mask.parse::<IpAddr>()) {
        (Ok(bits), _) if bits <= width => u128::MAX.checked_shl(width - bits).unwrap_or(0),
        (_, Ok(IpAddr::V4(mask))) => u128::from(mask.to_bits()) | !u128::from(u32::MAX),
        (_, Ok(IpAddr::V6(mask))) => mask.to_bits(),
        _ => u128::MAX,
    };
    Some((net, mask, width))
}

/// The line that lets somebody in from this address, with a password.
pub fn line(database: Database<'_>, user: &str, address: IpAddr) -> String {
    let database = match database {
        Database::Named(name) => quote(name),
        Database::Replication => "replication".to_owned(),
    };
    let bits = if address.is_ipv4() { 32 } else { 128 };
    format!("host {database} {} {address}/{bits} scram-sha-256", quote(user))
}

/// A name in quotes where it would mean something else.
fn quote(name: &str) -> String {
    let keyword = ["all", "replication", "sameuser", "samerole", "samegroup"].contains(&name);
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'$'));
    if plain && !keyword { name.to_owned() } else { format!("\"{name}\"") }
}

fn collect(file: &Path, text: &str, depth: u32, rules: &mut Vec<Rule>, broken: &mut Vec<Broken>) {
    if depth > MAX_DEPTH {
        return;
    }
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let mut line = line.to_owned();
        // A backslash at a line's end joins it with the next (14).
        while line.ends_with('\\') {
            line.pop();
            line += lines.next().map_or("", |(_, next)| next);
        }
        let fields = fields(&line);
        let directive = fields.first().and_then(|field| field.first()).filter(|word| !word.quoted);
        let target = || {
            let word = fields.get(1).and_then(|field| field.first())?;
            Some(file.parent().unwrap_or(Path::new("/")).join(&word.text))
        };
        let mut include = |path: PathBuf| {
            let text = std::fs::read(&path).unwrap_or_default();
            collect(&path, &String::from_utf8_lossy(&text), depth + 1, rules, broken);
        };
        match (directive.map(|word| word.text.as_str()), target()) {
            (Some("include" | "include_if_exists"), Some(path)) => include(path),
            (Some("include_dir"), Some(dir)) => conf::conf_files(&dir).into_iter().for_each(include),
            _ if fields.is_empty() => {}
            _ => match rule(file, index + 1, fields) {
                Some(rule) => rules.push(rule),
                None => broken.push((file.to_owned(), index + 1)),
            },
        }
    }
}

fn rule(file: &Path, line: usize, fields: Vec<Vec<Word>>) -> Option<Rule> {
    let mut fields = fields.into_iter();
    let kind = fields.next()?.into_iter().next()?.text;
    let (databases, users) = (names(file, fields.next()?), names(file, fields.next()?));
    let mut word = || Some(fields.next()?.into_iter().next()?.text);
    let mut address = String::new();
    let mut method = word()?;
    match kind.as_str() {
        "local" => {}
        "host" | "hostssl" | "hostnossl" | "hostgssenc" | "hostnogssenc" => {
            address = method;
            method = word()?;
            // An address whose mask is a field of its own.
            if address.parse::<IpAddr>().is_ok() && method.parse::<IpAddr>().is_ok() {
                address = format!("{address}/{method}");
                method = word()?;
            }
        }
        _ => return None,
    }
    Some(Rule { file: file.to_owned(), line, kind, databases, users, address, method })
}

/// A list of names; `@file` stands for the names in that file.
fn names(file: &Path, words: Vec<Word>) -> Vec<Word> {
    let mut found = Vec::new();
    for word in words {
        match word.text.strip_prefix('@').filter(|name| !word.quoted && !name.is_empty()) {
            Some(name) => {
                let path = file.parent().unwrap_or(Path::new("/")).join(name);
                let text = std::fs::read(path).unwrap_or_default();
                found.extend(String::from_utf8_lossy(&text).lines().flat_map(fields).flatten());
            }
            None => found.push(word),
        }
    }
    found
}

/// The fields of a line, each a list of words between commas. A quoted word may hold white space and commas; a comma may have
/// white space after it.
fn fields(line: &str) -> Vec<Vec<Word>> {
    let (mut fields, mut field, mut word) = (Vec::new(), Vec::new(), None::<Word>);
    let (mut inside, mut comma) = (false, false);
    for c in line.chars() {
        let begun = |word: &mut Option<Word>| {
            let _ = word.get_or_insert_with(|| Word { text: String::new(), quoted: false });
        };
        match c {
            '"' => {
                inside = !inside;
                begun(&mut word);
                word.iter_mut().for_each(|word| word.quoted = true);
                comma = false;
            }
            _ if inside => word.iter_mut().for_each(|word| word.text.push(c)),
            '#' => break,
            ',' => {
                field.extend(word.take());
                comma = true;
            }
            c if c.is_ascii_whitespace() => {
                field.extend(word.take());
                if !comma && !field.is_empty() {
                    fields.push(std::mem::take(&mut field));
                }
            }
            c => {
                comma = false;
                begun(&mut word);
                word.iter_mut().for_each(|word| word.text.push(c));
            }
        }
    }
    field.extend(word);
    if !field.is_empty() {
        fields.push(field);
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(text: &str) -> Vec<Rule> {
        let mut rules = Vec::new();
        collect(Path::new("/data/pg_hba.conf"), text, 0, &mut rules, &mut Vec::new());
        rules
    }

    /// Debian's rules, and what stands below them.
    fn check(more: &str, way: Way, database: Database<'_>, expected: Option<(usize, &str)>) {
        let text = format!(
            "local all postgres peer\n# TYPE  DATABASE\nlocal\tall all peer\nhost all all 127.0.0.1/32 scram-sha-256\n\
             host replication all ::1/128 scram-sha-256\n{more}"
        );
        let rules = rules(&text);
        let found = first_match(&rules, way, database, "postgres").map(|rule| (rule.line, rule.method.as_str()));
        assert_eq!(found, expected, "{more:?}");
    }

    #[test]
    fn the_first_rule_decides() {
        let far = |text: &str| Way::Plain(text.parse().unwrap());
        let named = Database::Named("postgres");
        check("", Way::Socket, named, Some((1, "peer")));
        check("", far("127.0.0.1"), named, Some((4, "scram-sha-256")));
        check("", far("::ffff:127.0.0.1"), named, Some((4, "scram-sha-256")));
        check("", far("127.0.0.1"), Database::Replication, None);
        check("", far("::1"), Database::Replication, Some((5, "scram-sha-256")));
        check("", far("192.0.2.110"), named, None);
        let far = far("192.0.2.110");
        check("host all all 192.0.2.0/24 md5\nhost all all all trust", far, named, Some((6, "md5")));
        check("host all all 192.0.2.0 255.255.255.0 md5 x=y", far, named, Some((6, "md5")));
        check("host all all 192.0.2.128/25 md5\nhost all all 0.0.0.0/0 reject", far, named, Some((7, "reject")));
        check("host all all 192.0.2.110 md5", far, named, Some((6, "md5")));
        check("host all all 192.0.2.110/33 md5", Way::Plain("192.0.2.111".parse().unwrap()), named, None);
        check("hostssl all all all md5", far, named, None);
        check("hostssl all all all md5", Way::Tls("192.0.2.110".parse().unwrap()), named, Some((6, "md5")));
        check("hostnossl all all all md5", far, named, Some((6, "md5")));
        check("host a,postgres, b all all md5", far, named, Some((6, "md5")));
        check("host a, \"postgres\" all all md5", far, named, Some((6, "md5")));
        check("host sameuser all all md5", far, named, Some((6, "md5")));
        check("host \"all\" all all md5", far, named, None);
        check("host \"replication\" all all md5", far, Database::Replication, None);
        check("host all,replication all all md5", far, Database::Replication, Some((6, "md5")));
        check("host all +admins,other all md5", far, named, None);
        check("host all \\\n  all all \\\n  md5\nhost", far, named, Some((6, "md5")));
        check("host all all db2.example.com md5", far, named, None);
        check("hostly all all all md5", far, named, None);
    }

    #[test]
    fn networks_in_networks() {
        for (wide, narrow, expected) in [
            ("192.0.2.0/24", "192.0.2.0/255.255.255.0", true),
            ("192.0.2.0/255.255.255.0", "192.0.2.7/32", true),
            ("192.0.2.7/32", "192.0.2.0/24", false),
            ("192.0.2.0/24", "192.0.3.0/24", false),
            ("0.0.0.0/0", "10.0.0.0/8", true),
            ("0.0.0.0/0", "2001:db8::/32", false),
            ("2001:db8::/32", "2001:db8::1", true),
            ("all", "::/0", true),
            ("0.0.0.0/0", "all", false),
            ("app.example", "app.example", true),
            ("0.0.0.0/0", "app.example", false),
            ("samenet", "samenet", true),
        ] {
            assert_eq!(includes(wide, narrow), expected, "{wide} {narrow}");
        }
    }

    #[test]
    fn names() {
        assert_eq!([quote("postgres"), quote("all"), quote("a b")], ["postgres", "\"all\"", "\"a b\""]);
    }

    #[test]
    fn a_line_lets_in_whom_it_is_for() {
        for (database, user, address) in [
            (Database::Named("shop"), "postgres", "192.0.2.1"),
            (Database::Named("replication"), "two words", "2001:db8::1"),
            (Database::Replication, "all", "192.0.2.1"),
        ] {
            let address = address.parse().unwrap();
            let rules = rules(&line(database, user, address));
            let met = |database, user| first_match(&rules, Way::Plain(address), database, user).is_some();
            assert!(met(database, user), "{rules:?}");
            assert!(!met(database, "other") && !met(Database::Named("other"), user), "{rules:?}");
        }
    }

    #[test]
    fn other_files() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        write("pg_hba.conf", "include more\ninclude_if_exists none\ninclude_dir \"d\"\nhost @list all all trust\n");
        write("more", "# x\nlocal all all peer\ninclude pg_hba.conf\n");
        write("d/1.conf", "host x all all reject");
        write("list", "y\n\"z z\", postgres\n");
        let rules = read(&dir.path().join("pg_hba.conf")).unwrap();
        let way = Way::Plain("192.0.2.1".parse().unwrap());
        let found = |name| first_match(&rules, way, Database::Named(name), "u").map(|rule| rule.method.as_str());
        assert_eq!(
            [found("x"), found("postgres"), found("z z"), found("q")],
            [Some("reject"), Some("trust"), Some("trust"), None]
        );
        assert_eq!(first_match(&rules, Way::Socket, Database::Named("q"), "u").map(|rule| rule.line), Some(2));
        assert!(read(&dir.path().join("none")).is_err());
        write("d/1.conf", "\n# x\nhost x all\nhots x all all md5\nlocal all all peer");
        let broken = read_all(&dir.path().join("pg_hba.conf")).unwrap().1;
        assert!(
            broken.contains(&(dir.path().join("d/1.conf"), 3)) && broken.contains(&(dir.path().join("d/1.conf"), 4))
        );
    }

    proptest! {
        #[test]
        fn junk_never_panics(text in "(?s)[ -~\n\\\\\"]{0,200}", rule in "[0-9a-f:./]{0,20}") {
            let rules = rules(&text);
            let way = Way::Plain("192.0.2.1".parse().unwrap());
            let _ = first_match(&rules, way, Database::Replication, "u");
            let _ = covers(&rule, "192.0.2.1".parse().unwrap());
        }
    }
}
