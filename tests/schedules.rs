//! The simulation without the other tests; `scripts/schedules` builds it optimised.

mod sim;
#[allow(dead_code, reason = "the other tests need the rest of it")]
mod support;
