//! Leases: which worker reads which shard. [`plan`] decides what to take from what [`sightings`] has noted, [`keeper`] keeps what was
//! taken, [`mark`] numbers its records.
//!
//! The rows are KCL 1.x's (L3), and so is the way to tell that an owner is gone without comparing clocks: its row has not changed for
//! longer than the failover time by the clock of whoever looks. Between workers of ours a lease changes hands without a gap and without
//! duplicates (`docs/decisions/`): who wants it leaves a note in the row; the owner sees it with its next renewal, stops reading, waits for
//! the receipts, writes the checkpoint, and writes the other as the owner.

pub mod keeper;
pub mod mark;
pub mod plan;
pub mod sightings;
