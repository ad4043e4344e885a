//! The sink over fakes.
