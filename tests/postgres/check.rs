//! `mc_ctl check` on real servers: each finding is provoked, with its file and line, and gone when it is mended.
//!
//! Codes: "configuration" "peer-not-seen"
