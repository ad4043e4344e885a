//! Fakes, scripted by name.

pub mod sink;
pub mod source;
