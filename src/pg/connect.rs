//! PostgreSQL: connect.
