//! Connections between the members.
