//! Every metric's name, once. `_total` counts up, `_seconds` and `_bytes` are units, everything else is a gauge.

use metrics::{describe_counter, describe_gauge, describe_histogram};

macro_rules! names {
    ($($kind:ident $name:ident = $text:literal: $meaning:literal;)*) => {
        $(#[doc = $meaning] pub const $name: &str = $text;)*

        /// Tells the exporter what each metric means.
        pub fn describe() {
            $($kind!($name, $meaning);)*
        }

        /// Name and meaning of each metric, for the reference.
        pub const ALL: &[(&str, &str)] = &[$(($text, $meaning)),*];
    };
}

names! {
    describe_counter SOURCE_RECORDS = "dynamodb_source_records_total": "Records read from the stream.";
    describe_counter SOURCE_PUBLISHED = "dynamodb_source_published_total": "Records that Pulsar has acknowledged.";
    describe_counter SOURCE_PUBLISHED_BYTES = "dynamodb_source_published_bytes_total": "Payload bytes that Pulsar has acknowledged.";
    describe_counter SOURCE_SKIPPED = "dynamodb_source_skipped_total": "Records left out on purpose, by reason (label `reason`).";
    describe_counter SOURCE_GAPS = "dynamodb_source_gaps_total": "Times that records were gone before they were read (G1).";
    describe_counter SOURCE_GET_RECORDS = "dynamodb_source_get_records_total": "GetRecords calls, by outcome (label `outcome`: full, partial, empty, error).";
    describe_counter SOURCE_ITERATORS_EXPIRED = "dynamodb_source_iterators_expired_total": "Shard iterators that were older than 15 minutes when used.";
    describe_counter SOURCE_CHECKPOINTS = "dynamodb_source_checkpoints_total": "Checkpoints written.";
    describe_counter SOURCE_LEASES_TAKEN = "dynamodb_source_leases_taken_total": "Leases taken.";
    describe_counter SOURCE_LEASES_LOST = "dynamodb_source_leases_lost_total": "Leases that another worker took from this one.";
    describe_gauge SOURCE_LEASES_HELD = "dynamodb_source_leases_held": "Leases that this worker holds.";
    describe_gauge SOURCE_IN_FLIGHT = "dynamodb_source_in_flight_records": "Records handed to Pulsar and not yet acknowledged.";
    describe_gauge SOURCE_LAG = "dynamodb_source_lag_seconds": "Age of the newest record read, by the stream's clock (1 s steps); 0 at the tip. The worst of all shards.";
    describe_histogram SOURCE_PUBLISH_SECONDS = "dynamodb_source_publish_seconds": "Time from handing a record to the publisher to its receipt.";
    describe_counter SINK_RECEIVED = "dynamodb_sink_messages_received_total": "Messages received.";
    describe_counter SINK_WRITTEN = "dynamodb_sink_items_written_total": "Items written, by operation (label `op`: put, delete).";
    describe_counter SINK_COALESCED = "dynamodb_sink_coalesced_total": "Writes that a newer write of the same item replaced before it was sent.";
    describe_counter SINK_BATCHES = "dynamodb_sink_batches_total": "BatchWriteItem calls.";
    describe_counter SINK_UNPROCESSED = "dynamodb_sink_unprocessed_total": "Items that DynamoDB returned as unprocessed; they are sent again.";
    describe_counter SINK_DEAD_LETTERED = "dynamodb_sink_dead_lettered_total": "Messages copied to the dead-letter topic, by reason (label `reason`).";
    describe_counter SINK_ACKED = "dynamodb_sink_entries_acked_total": "Broker entries acknowledged.";
    describe_gauge SINK_BUFFERED = "dynamodb_sink_buffered_messages": "Messages received and not yet stored.";
    describe_gauge SINK_BUFFERED_BYTES = "dynamodb_sink_buffered_bytes": "Payload bytes received and not yet stored.";
    describe_gauge SINK_LAG = "dynamodb_sink_lag_seconds": "Age of the newest message stored, from its publish time.";
    describe_histogram SINK_WRITE_SECONDS = "dynamodb_sink_write_seconds": "Duration of one BatchWriteItem call.";
    describe_counter ERRORS = "dynamodb_errors_total": "Failed calls, by stage and kind (labels `stage`, `kind`); most are retried.";
}
