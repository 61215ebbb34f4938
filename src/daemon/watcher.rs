//! Starts the controller again when it dies or hangs.
