//! PostgreSQL: control.
