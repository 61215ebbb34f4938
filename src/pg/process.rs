//! PostgreSQL: process.
