//! The status model and its renderings.
