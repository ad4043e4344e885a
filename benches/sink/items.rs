//! The items: number n of each kind is the same here and in `flink/FlinkSink.java`.

use clap::ValueEnum;
use serde::Serialize;

/// Of the hot kinds.
const HOT: u64 = 1_000;
/// Fills an item to about 500 bytes.
const NOTE: usize = 400;

/// Which item a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Keys {
    /// Each its own.
    Unique,
    /// A thousand, as often as each other.
    Hot,
    /// A thousand: the second is half as often as the first, the third a third, …
    Zipf,
}

impl Keys {
    pub fn name(self) -> &'static str {
        match self {
            Keys::Unique => "unique",
            Keys::Hot => "hot",
            Keys::Zipf => "zipf",
        }
    }

    /// The key's number in each of so many items.
    pub fn all(self, items: u64) -> Vec<u64> {
        let sums: Vec<u64> = (1..=HOT)
            .scan(0, |sum, rank| {
                *sum += 1_000_000 / rank;
                Some(*sum)
            })
            .collect();
        let key = |number: u64| match self {
            Keys::Unique => number,
            Keys::Hot => mix(number) % HOT,
            Keys::Zipf => sums.partition_point(|sum| *sum <= mix(number) % sums[sums.len() - 1]) as u64,
        };
        (0..items).map(key).collect()
    }
}

/// SplitMix64: numbers in a row become numbers all over the place.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

pub fn key(number: u64) -> String {
    format!("item-{number:08}")
}

/// The message: `seq` is its place among all.
pub fn message(key_number: u64, seq: u64) -> Vec<u8> {
    format!(r#"{{"pk":"{}","seq":{seq},"price":12.5,"active":true,"note":"{:n<NOTE$}"}}"#, key(key_number), "").into_bytes()
}
