//! Looks at the own disks.
