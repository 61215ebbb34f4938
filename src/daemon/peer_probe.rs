//! Looks at the other's instance while heartbeats are missed.
