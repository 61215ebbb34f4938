//! Messages between members as bytes.
