//! PostgreSQL: conf.
