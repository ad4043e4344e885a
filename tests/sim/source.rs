//! The source over fakes.
