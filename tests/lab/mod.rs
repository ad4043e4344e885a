//! Real parts: the connector's own process between Pulsar and DynamoDB Local. `./test` starts them and sets the environment;
//! without them these tests say SKIPPED, or fail where `LAB=required`.

mod authentication;
mod broker;
mod chunks;
#[cfg(feature = "cloudwatch")]
mod cloudwatch;
mod connector;
mod every_type;
mod fleet;
mod functions;
mod kill;
mod leases;
mod memory;
mod modes;
mod nar;
mod nar_backlog;
mod nar_crash;
mod nar_services;
mod nar_threads;
mod nar_transform;
mod once;
mod own_pulsar;
mod poison;
mod rebalance;
mod schemas;
mod shop;
mod soak;
mod streams;
mod table;
mod throttle;
mod timing;
mod topic;
mod upgrade;
mod workers;

use std::{
    env,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::sync::{Mutex, MutexGuard};

/// The parts, for one test at a time: several connectors at once would only slow each other down on a small machine.
pub struct Lab {
    pub pulsar_url: String,
    pub dynamodb_endpoint: String,
    /// Stands for a database of DynamoDB Local's that nobody else uses: a table's changes take the longer the more records older streams have.
    pub access_key: String,
    /// Differs for each test and run, so that tables and topics are new.
    pub unique: String,
    _turn: MutexGuard<'static, ()>,
}

/// The parts, or `None` (said loudly) where `./test --fast` left them out.
pub async fn lab(test: &str) -> Option<Lab> {
    static TURN: Mutex<()> = Mutex::const_new(());
    let (Ok(pulsar_url), Ok(dynamodb_endpoint)) = (env::var("PULSAR_URL"), env::var("DYNAMODB_ENDPOINT")) else {
        assert!(env::var("LAB").as_deref() != Ok("required"), "{test}: PULSAR_URL and DYNAMODB_ENDPOINT are not set; run ./test");
        eprintln!("SKIPPED: lab::{test} needs the real parts; ./test starts them");
        return None;
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970").as_millis();
    let unique = format!("{test}-{now}");
    // Letters and digits are all that it takes.
    let access_key = unique.replace('-', "");
    Some(Lab { pulsar_url, dynamodb_endpoint, access_key, unique, _turn: TURN.lock().await })
}

/// The seed of a random test: `SEED`, or a new one. Printed, so that a failing run can be repeated.
pub fn seed(test: &str) -> u64 {
    let seed = match env::var("SEED") {
        Ok(seed) => seed.parse().expect("SEED is a number"),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970").as_nanos() as u64 & 0xFFFF_FFFF,
    };
    println!("{test}: SEED={seed}");
    seed
}

/// A small generator (xorshift64*): the same numbers for the same seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

/// Asks again and again until there is an answer; fails, naming what was awaited, at the deadline.
pub async fn eventually<T>(what: &str, limit: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
