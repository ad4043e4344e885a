//! How many messages the broker may send (M1). Pure.

/// Bytes that may wait at a consumer, by the sizes seen. A topic whose messages grow all at once may exceed it once, by as many messages as were allowed
/// when they were small.
const BYTES: usize = 16 * 1024 * 1024;
/// While nothing is known about their sizes: they may be as large as a broker takes.
const FIRST: u32 = 4;

/// A consumer's messages that were asked for and not taken by the worker.
#[derive(Debug)]
pub struct Permits {
    most: u32,
    /// A batch may have more messages than were asked for.
    waiting: i64,
    /// Of a message; grows at once and shrinks slowly.
    bytes: f64,
}

impl Permits {
    /// `most`: messages that may wait, however small.
    pub fn new(most: u32) -> Self {
        Self { most, waiting: 0, bytes: BYTES as f64 / f64::from(FIRST) }
    }

    /// An entry has come.
    pub fn delivered(&mut self, messages: u32, bytes: usize) {
        let each = bytes as f64 / f64::from(messages);
        self.bytes = each.max(self.bytes - (self.bytes - each) / 8.0);
    }

    /// So many have left the consumer.
    pub fn taken(&mut self, messages: u32) {
        self.waiting -= i64::from(messages);
    }

    /// How many more to ask for, once it is worth a command.
    pub fn more(&mut self) -> Option<u32> {
        let most = i64::from(((BYTES as f64 / self.bytes.max(1.0)) as u32).clamp(1, self.most));
        if self.waiting > most / 2 {
            return None;
        }
        let more = most - self.waiting;
        self.waiting = most;
        u32::try_from(more).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m1_large_messages_are_asked_for_in_small_numbers() {
        let mut permits = Permits::new(1_000);
        assert_eq!((permits.more(), permits.more()), (Some(FIRST), None));
        for _ in 0..FIRST {
            permits.delivered(1, 5_000_000);
        }
        permits.taken(FIRST - 2);
        assert_eq!(permits.more(), None, "three of five million bytes are enough, and half of that is there");
        permits.taken(1);
        assert_eq!(permits.more(), Some(2));
    }

    #[test]
    fn small_messages_are_asked_for_in_large_numbers_and_batches_count_as_what_is_in_them() {
        let mut permits = Permits::new(1_000);
        assert_eq!(permits.more(), Some(FIRST));
        for _ in 0..100 {
            permits.delivered(500, 50_000);
        }
        permits.taken(50_000);
        assert_eq!(permits.more(), Some(51_000 - FIRST), "more came than was asked for");
        permits.taken(499);
        assert_eq!(permits.more(), None, "half of them are there");
        permits.taken(1);
        assert_eq!(permits.more(), Some(500));
    }
}
