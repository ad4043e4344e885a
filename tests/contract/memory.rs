//! What a shard costs while nothing happens to it. There may be ten thousand (M1).

use pulsar_io_dynamodb::{
    dynamodb::{lease_table::LeaseTable, stream_reader::StreamReader},
    metrics::calls::Timed,
    pulsar::publisher::TopicPublisher,
    source::consume::consume,
};

/// The state of what a function returns.
fn size<A, B, F>(_: impl FnOnce(A, B) -> F) -> usize {
    size_of::<F>()
}

/// A call of the SDK has ten kilobytes of state: no shard's task has room for one while it waits.
#[test]
fn m1_the_task_of_a_shard_is_small() {
    let size = size(consume::<Timed<StreamReader>, Timed<LeaseTable>, TopicPublisher>);
    assert!(size < 4 * 1024, "{size} bytes");
}
