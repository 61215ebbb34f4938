//! Writes the ledger.
