//! Leases: which worker reads which shard. [`plan`] decides what to take, [`keeper`] keeps what was taken.
//!
//! The rows are KCL 1.x's (L3), and so is the way to tell that an owner is gone without comparing clocks: its row has not changed for
//! longer than the failover time by the clock of whoever looks.

pub mod keeper;
pub mod plan;

/// Who writes the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Me {
    /// Stable over restarts.
    pub id: String,
    /// New with each start: tells this start's rows from an earlier one's, and from those of a twin with the same id.
    pub nonce: String,
}

impl Me {
    pub fn owns(&self, lease: &crate::ports::Lease) -> bool {
        lease.owner.as_ref() == Some(&self.id) && lease.nonce.as_ref() == Some(&self.nonce)
    }
}
