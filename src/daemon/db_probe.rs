//! Looks at the own instance.
