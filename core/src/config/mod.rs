//! Reads configuration files.
