//! Every metric's name, once. `_total` counts up, `_seconds` and `_bytes` are units, everything else is a gauge.

use metrics::{describe_counter, describe_gauge, describe_histogram};

macro_rules! names {
    ($($kind:ident $name:ident = $text:literal: $meaning:literal;)*) => {
        $(#[doc = $meaning] pub const $name: &str = $text;)*

        /// Tells the exporter what each metric means.
        pub fn describe() {
            $($kind!($name, $meaning);)*
        }

        /// Each metric, for its page.
        pub const ALL: &[Metric] = &[$(Metric { name: $text, kind: stringify!($kind), meaning: $meaning }),*];
    };
}

/// The label of recordings about one shard. It does not reach Prometheus (`fork.rs`).
pub const SHARD: &str = "shard";

/// One metric as people read of it.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    pub name: &'static str,
    kind: &'static str,
    pub meaning: &'static str,
}

impl Metric {
    /// counter, gauge or histogram.
    pub fn kind(&self) -> &'static str {
        self.kind.trim_start_matches("describe_")
    }
}

/// What a metric means.
pub fn meaning(name: &str) -> &'static str {
    ALL.iter().find(|metric| metric.name == name).map_or("", |metric| metric.meaning)
}

names! {
    describe_counter SOURCE_RECORDS = "dynamodb_source_records_total": "Records read from the stream.";
    describe_counter SOURCE_RECORD_BYTES = "dynamodb_source_record_bytes_total": "Bytes of records read from the stream, as JSON text.";
    describe_counter SOURCE_PUBLISHED = "dynamodb_source_published_total": "Records that Pulsar has acknowledged.";
    describe_counter SOURCE_PUBLISHED_BYTES = "dynamodb_source_published_bytes_total": "Payload bytes that Pulsar has acknowledged.";
    describe_counter SOURCE_SKIPPED = "dynamodb_source_skipped_total": "Records left out on purpose, by reason (label `reason`).";
    describe_counter SOURCE_POISON = "dynamodb_source_poison_total": "Records that cannot be published: unreadable, too large, or refused by the broker, by what was done (label `policy`: stopShard, deadLetter, skip) and why (label `reason`: UNREADABLE, TOO_LARGE, REFUSED).";
    describe_counter SOURCE_GAPS = "dynamodb_source_gaps_total": "Times that records were gone before they were read (G1). How many records there were, nobody can say; the log has the bounds.";
    describe_counter SOURCE_GET_RECORDS = "dynamodb_source_get_records_total": "GetRecords calls, by outcome (label `outcome`: full, partial, empty, error).";
    describe_counter SOURCE_ITERATORS_EXPIRED = "dynamodb_source_iterators_expired_total": "Shard iterators that were older than 15 minutes when used.";
    describe_counter SOURCE_CHECKPOINTS = "dynamodb_source_checkpoints_total": "Checkpoints written.";
    describe_counter SOURCE_LEASES_TAKEN = "dynamodb_source_leases_taken_total": "Leases taken, by whose they were (label `from`: nobody, self: an earlier start of this worker, asked: handed over by their owner, silent: an owner that has stopped renewing, living: a Java worker that had more than its share).";
    describe_counter SOURCE_LEASES_LOST = "dynamodb_source_leases_lost_total": "Leases that another worker took from this one, or that could not be renewed in time.";
    describe_counter SOURCE_LEASES_DELETED = "dynamodb_source_leases_deleted_total": "Rows of finished shards that nobody needs any more, deleted from the lease table.";
    describe_gauge SOURCE_LEASES_HELD = "dynamodb_source_leases_held": "Leases that this worker holds.";
    describe_gauge SOURCE_LEASES = "dynamodb_source_leases": "Leases in the table whose shards are not finished, of all workers.";
    describe_gauge SOURCE_LEASES_FREE = "dynamodb_source_leases_free": "Unfinished leases that nobody holds at the last look: without owner, or not renewed in time.";
    describe_gauge SOURCE_WORKERS = "dynamodb_source_workers": "Workers that hold a lease in the table, this one included.";
    describe_gauge SOURCE_IN_FLIGHT = "dynamodb_source_in_flight_records": "Records handed to Pulsar and not yet acknowledged.";
    describe_gauge SOURCE_IN_FLIGHT_BYTES = "dynamodb_source_in_flight_bytes": "Payload bytes handed to Pulsar and not yet acknowledged.";
    describe_gauge SOURCE_LAG = "dynamodb_source_lag_seconds": "Age of the oldest record that is not in Pulsar yet: not read, or not acknowledged; by the stream's clock (1 s steps), 0 at the tip. The worst of all shards.";
    describe_gauge SOURCE_SHARD_LAG = "dynamodb_source_shard_lag_seconds": "The same for one shard (label `shard`), for the 10 that lag most.";
    describe_gauge SOURCE_UNACKED_AGE = "dynamodb_source_unacked_age_seconds": "How long the oldest record without an acknowledgement of Pulsar waits for it. The worst of all shards.";
    describe_gauge SOURCE_TIME_TO_TRIM = "dynamodb_source_time_to_trim_seconds": "Until the stream drops a record that is not in Pulsar yet: 24 hours less its age. The worst of all shards; 86400 at the tip.";
    describe_gauge SOURCE_CHECKPOINT_AGE = "dynamodb_source_checkpoint_age_seconds": "How long records are acknowledged that no checkpoint covers; they come again after a crash. The worst of all shards.";
    describe_histogram SOURCE_PUBLISH_SECONDS = "dynamodb_source_publish_seconds": "Time from handing a record to the publisher to its receipt.";
    describe_histogram SOURCE_PAGE_SECONDS = "dynamodb_source_page_seconds": "Time from calling for a page to handing its last record to the publisher.";
    describe_histogram SOURCE_HAND_ON_SECONDS = "dynamodb_source_hand_on_seconds": "Time from the arrival of a page with records to handing its last one to the publisher, which waits for room.";
    describe_histogram SOURCE_CALL_SECONDS = "dynamodb_source_call_seconds": "Duration of one call of AWS (labels `call`, and `outcome`: ok, error, abandoned). For DescribeStream: `list_shards` and `children`.";
    describe_histogram SOURCE_DESCRIBE_WAIT = "dynamodb_source_describe_stream_wait_seconds": "How long a DescribeStream call waited for its place in this worker's budget of five a second.";
    describe_histogram SOURCE_ROLLOVER_GAP = "dynamodb_source_rollover_gap_seconds": "Time from reading a shard's end to calling for the first page of its child, where this worker reads both.";
    describe_counter SINK_RECEIVED = "dynamodb_sink_messages_received_total": "Messages received.";
    describe_counter SINK_WRITTEN = "dynamodb_sink_items_written_total": "Items written, by operation (label `op`: put, delete, update).";
    describe_counter SINK_COALESCED = "dynamodb_sink_coalesced_total": "Writes that a newer write of the same item replaced before it was sent.";
    describe_counter SINK_SKIPPED = "dynamodb_sink_skipped_total": "Writes whose condition was not met and that were left out, as configured.";
    describe_counter SINK_IGNORED = "dynamodb_sink_ignored_total": "Messages that ask for nothing to be written, as configured (`tombstones`, `onMissingImage`, `replayTtlDeletes`).";
    describe_counter SINK_SENT = "dynamodb_sink_writes_sent_total": "Writes in requests, each time they are sent: over the requests, how full they are.";
    describe_counter SINK_RETRIED = "dynamodb_sink_writes_retried_total": "Writes that were sent again, since they were not stored the time before.";
    describe_counter SINK_BATCHES = "dynamodb_sink_batches_total": "Requests with writes.";
    describe_counter SINK_UNPROCESSED = "dynamodb_sink_unprocessed_total": "Items that DynamoDB returned as unprocessed; they are sent again.";
    describe_counter SINK_THROTTLED = "dynamodb_sink_throttled_total": "Requests that DynamoDB throttled as a whole, by the limit that they met (label `reason`: key_range, index_key_range, provisioned, on_demand_maximum, account, unknown).";
    describe_counter SINK_CONSUMED = "dynamodb_sink_consumed_write_units_total": "Write capacity units consumed, as DynamoDB says; failed conditions, of which it says nothing, are not in it.";
    describe_counter SINK_DEAD_LETTERED = "dynamodb_sink_dead_lettered_total": "Messages copied to the dead-letter topic, by reason (label `reason`).";
    describe_counter SINK_GIVEN_BACK = "dynamodb_sink_given_back_total": "Messages that cannot be written, given back to Pulsar IO, which moves them to its dead-letter topic in the end; by reason (label `reason`).";
    describe_counter SINK_ACKED = "dynamodb_sink_entries_acked_total": "Broker entries acknowledged.";
    describe_gauge SINK_BUFFERED = "dynamodb_sink_buffered_messages": "Messages received and not yet stored.";
    describe_gauge SINK_BUFFERED_BYTES = "dynamodb_sink_buffered_bytes": "Payload bytes received and not yet stored.";
    describe_gauge SINK_IN_FLIGHT = "dynamodb_sink_in_flight_requests": "Requests that are not answered yet.";
    describe_gauge SINK_WINDOW = "dynamodb_sink_window_writes": "How many writes may be unanswered at once: less than maxInFlightRequests times maxBatchSize while the table throttles.";
    describe_gauge SINK_LAG = "dynamodb_sink_lag_seconds": "Age of the oldest message that is received and not stored, from its publish time; 0 when there is none.";
    describe_histogram SINK_END_TO_END_SECONDS = "dynamodb_sink_end_to_end_seconds": "Time from a message's publishing to its being stored or dead-lettered, by both machines' clocks.";
    describe_histogram SINK_WAIT_SECONDS = "dynamodb_sink_wait_seconds": "How long a batch that was due waited for its turn: for an answer, for the table's capacity, or for maxWriteCapacity.";
    describe_histogram SINK_WRITE_SECONDS = "dynamodb_sink_write_seconds": "Duration of one request with writes.";
    describe_gauge HEALTH_REASONS = "dynamodb_health_reasons": "Reasons why the worker makes no progress, as /healthz tells them; 0 is healthy.";
    describe_gauge PROCESS_MEMORY = "process_resident_memory_bytes": "Resident memory of the process.";
    describe_counter PROCESS_CPU = "process_cpu_seconds_total": "CPU time of the process, user and system, in whole seconds.";
    describe_counter ERRORS = "dynamodb_errors_total": "Failed calls, by stage and kind (labels `stage`, `kind`); most are retried.";
}
