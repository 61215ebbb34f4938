//! Does the decision thread's jobs, one at a time.
