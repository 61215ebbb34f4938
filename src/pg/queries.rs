//! PostgreSQL: queries.
