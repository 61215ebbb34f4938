//! `network.conf`: who the members are and where they listen (guide, A.3; later editions add the second host and port,
//! and the arbiter).

/// `network.conf`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Network {
    /// The two servers, in the order of their lines.
    pub servers: [MemberLine; 2],
    /// The arbiter's line.
    pub arbiter: Option<MemberLine>,
}

/// One line of `network.conf`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberLine {
    /// The identifier.
    pub id: String,
    /// One or two host names or addresses: the admin network's, and the way to the arbiter.
    pub hosts: Vec<String>,
    /// One or two ports, likewise.
    pub ports: Vec<u16>,
    /// Line number in the file, from 1.
    pub line: usize,
}
