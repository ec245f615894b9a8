//! Work on the house itself. Never part of what users run.

pub mod tidy;
