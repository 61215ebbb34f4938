//! PostgreSQL: commands.
