//! Fakes of the source's ports.
