//! Whole workers over fakes, with paused time and seeded faults.

mod seeds;
mod sink;
mod sink_capacity;
mod sink_schemas;
mod sink_tables;
mod source;
