//! Fakes, scripted by name.

pub mod sink;
pub mod source;
#[allow(dead_code, reason = "the benchmark and each test need a part of it")]
pub mod stand_in;
