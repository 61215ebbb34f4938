//! The parameters of `ID.conf`.

/// One parameter as it applies, for `mc_ctl check`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parameter {
    /// Its key.
    pub name: &'static str,
    /// Its value, as it would be written; passwords as `********`; empty for none.
    pub value: String,
    /// Where it came from: `default`, `line N`, `found`, `heartbeat_interval` and the like.
    pub source: String,
}
