//! Ways of being started. A host supplies configuration, a publisher or an inbox, and tells the worker's state; workers know no host.

pub mod bridge;
pub mod check;
pub mod functions;
pub mod standalone;
pub mod workers;
