//! The catalogue of messages.
