//! The one test binary: everything that is more than a unit. `lab` needs the real parts, which `./test` starts.

mod architecture;
mod contract;
mod golden;
mod lab;
mod proof;
mod round_trip;
mod sim;
mod support;
