//! Fakes, scripted by name; and the Java connector's own classes.

pub mod aws;
pub mod broker;
pub mod certificates;
#[cfg(feature = "cloudwatch")]
pub mod cloudwatch;
pub mod grpc;
pub mod issuer;
pub mod java;
pub mod sink;
pub mod source;
#[allow(dead_code, reason = "the benchmark and each test need a part of it")]
pub mod stand_in;
pub mod throttle;
