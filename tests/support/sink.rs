//! Fakes of the sink's ports.
