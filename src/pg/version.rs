//! PostgreSQL: version.
