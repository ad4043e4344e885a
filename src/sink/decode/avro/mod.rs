//! Avro by the schema of the writer, which is the message's schema version: no schema of a reader, nothing to resolve.
//!
//! A reader of our own, straight from the bytes into attribute values: see `docs/decisions/`.

mod read;
mod schema;

pub use schema::AvroSchema;
