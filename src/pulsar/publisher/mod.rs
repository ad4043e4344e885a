//! Publishes to topics: for each topic a lane for each partition ([`lane`]), one unanswered batch in each lane (`docs/decisions/002`).
//!
//! A batch is encoded once ([`entry`]) and sent by a producer of our own ([`producer`]).

pub(super) mod entry;
mod lane;
mod options;
mod producer;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    sync::{OnceCell, Semaphore},
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

use self::lane::LaneFront;
pub use self::options::{Batching, Compression, Options};
pub use super::connection::DEFAULT_MAX_MESSAGE_SIZE;
use crate::{
    error::{Error, Kind, Result},
    metrics::health::Health,
    ports::{OutboundMessage, Publisher, Receipt, Refusal},
    pulsar::{
        client::{Attempts, Client},
        lookup, partitions,
    },
};

/// Queued and unanswered bytes, over all lanes (M1).
const QUEUE_BYTES: usize = 32 * 1024 * 1024;
/// Topics of one publisher. Each partition of each costs a producer and a task.
const MAX_TOPICS: usize = 64;

/// Publishes to any number of topics up to 64, each opened with its first message; cheap to clone.
#[derive(Clone)]
pub struct TopicPublisher(Arc<Shared>);

struct Shared {
    workshop: Workshop,
    /// Where messages go that name no topic.
    own: Option<Topic>,
    others: Mutex<HashMap<Arc<str>, Arc<OnceCell<Topic>>>>,
    room: Arc<Semaphore>,
}

struct Topic {
    name: Arc<str>,
    /// One at least. They become more when the topic gets partitions.
    lanes: Arc<RwLock<Vec<Arc<LaneFront>>>>,
    /// For messages without a key.
    next_lane: AtomicUsize,
    _growing: AbortOnDropHandle<()>,
}

/// What makes a lane.
#[derive(Clone)]
struct Workshop {
    client: Client,
    options: Options,
    health: Health,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl Workshop {
    /// Starts a lane for each partition.
    fn lanes(&self, partitions: Vec<String>) -> Vec<Arc<LaneFront>> {
        let mut tasks = lock(&self.tasks);
        let lanes = partitions.into_iter().map(|partition| {
            let attempts = Attempts::new(format!("publish to {partition}"), self.health.clone());
            let (front, lane) = lane::new(self.client.clone(), partition, &self.options, attempts);
            tasks.spawn(lane);
            Arc::new(front)
        });
        lanes.collect()
    }

    /// Adds a lane for each partition that the topic gets, for as long as somebody publishes to it.
    async fn grow(self, topic: Arc<str>, lanes: Weak<RwLock<Vec<Arc<LaneFront>>>>) {
        while let Some(known) = lanes.upgrade().map(|lanes| read(&lanes).len()) {
            let partitions = partitions::added(&self.client, &topic, known, self.options.look_every).await;
            let Some(lanes) = lanes.upgrade() else { return };
            let more = self.lanes(partitions);
            lanes.write().unwrap_or_else(PoisonError::into_inner).extend(more);
        }
    }
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// The tasks behind a [`TopicPublisher`]: they end once all its clones are dropped.
pub struct Lanes(Arc<Mutex<JoinSet<()>>>);

impl Lanes {
    /// Waits until everything accepted is answered and the producers are closed.
    pub async fn finished(self) {
        let mut tasks = std::mem::take(&mut *lock(&self.0));
        while tasks.join_next().await.is_some() {}
    }
}

impl TopicPublisher {
    /// A publisher whose messages go to `topic` unless they name another one. Finds that topic's partitions first, waiting until a broker answers.
    /// Partitions that are added later are found within [`Options::look_every`]; from then on, a key's messages may go to another one.
    pub async fn open(client: Client, topic: Option<&str>, options: Options, health: Health) -> Result<(Self, Lanes)> {
        let tasks = Arc::<Mutex<JoinSet<()>>>::default();
        let workshop = Workshop { client, options, health, tasks: tasks.clone() };
        let mut shared = Shared { workshop, own: None, others: Mutex::default(), room: Arc::new(Semaphore::new(QUEUE_BYTES)) };
        if let Some(topic) = topic {
            shared.own = Some(Box::pin(shared.open(topic.into())).await?);
        }
        Ok((Self(Arc::new(shared)), Lanes(tasks)))
    }
}

impl Shared {
    /// Finds the topic's partitions and starts a lane for each.
    async fn open(&self, name: Arc<str>) -> Result<Topic> {
        let workshop = &self.workshop;
        let mut attempts = Attempts::new(format!("publish to {name}"), workshop.health.clone());
        let partitions = loop {
            match attempts.watch(lookup::partitions(&workshop.client, &name)).await {
                Ok(partitions) => break partitions,
                Err(error) => attempts.failed(error).await?,
            }
        };
        attempts.succeeded();
        let lanes = Arc::new(RwLock::new(workshop.lanes(partitions)));
        let growing = tokio::spawn(workshop.clone().grow(name.clone(), Arc::downgrade(&lanes)));
        Ok(Topic { name, lanes, next_lane: AtomicUsize::new(0), _growing: AbortOnDropHandle::new(growing) })
    }

    /// Sends a message to its lane once there is room.
    async fn send(&self, topic: &Topic, mut message: OutboundMessage) -> Result<Receipt, Refusal> {
        let bytes = lane::size(&message);
        let limit = self.workshop.client.max_message_size();
        if bytes > limit && !self.workshop.options.chunking {
            message.topic.get_or_insert_with(|| topic.name.clone());
            return Err(Refusal { error: too_large(&topic.name, bytes, limit), message: Some(Box::new(message)) });
        }
        let wanted = u32::try_from(bytes.min(QUEUE_BYTES)).unwrap_or(u32::MAX);
        let room = self.room.clone().acquire_many_owned(wanted).await.map_err(|_| stopped(&topic.name))?;
        Ok(topic.lane(&message).send(message, room).await?)
    }
}

impl Publisher for TopicPublisher {
    async fn publish(&self, message: OutboundMessage) -> Result<Receipt, Refusal> {
        let shared = &*self.0;
        let Some(name) = &message.topic else {
            let own = shared.own.as_ref().ok_or_else(|| Error::new(Kind::Fatal, "publish a message", "it names no topic"))?;
            return shared.send(own, message).await;
        };
        let cell = {
            let mut others = lock(&shared.others);
            match others.get(name) {
                Some(cell) => cell.clone(),
                None if others.len() < MAX_TOPICS => others.entry(name.clone()).or_default().clone(),
                None => {
                    let why = format!("this worker publishes to {MAX_TOPICS} other topics already, which is its limit");
                    let error = Error::new(Kind::Invalid, format!("publish to topic {name}"), why);
                    return Err(Refusal { error, message: Some(Box::new(message)) });
                }
            }
        };
        // Whoever comes first opens it; where that one gives up, the next one does. Boxed: it is large, and rare.
        let topic = cell.get_or_try_init(|| Box::pin(shared.open(name.clone()))).await?;
        shared.send(topic, message).await
    }
}

impl Topic {
    fn lane(&self, message: &OutboundMessage) -> Arc<LaneFront> {
        let at = match &message.key {
            Some(key) => java_string_hash(key) as usize,
            None => self.next_lane.fetch_add(1, Ordering::Relaxed),
        };
        let lanes = read(&self.lanes);
        lanes[at % lanes.len()].clone()
    }
}

/// The partition hash of Pulsar's Java client (`JavaStringHash`, its default): `String.hashCode` without the sign.
fn java_string_hash(key: &str) -> u32 {
    key.encode_utf16().fold(0u32, |hash, unit| hash.wrapping_mul(31).wrapping_add(u32::from(unit))) & (i32::MAX as u32)
}

fn too_large(topic: &str, bytes: usize, limit: usize) -> Error {
    let why = format!("the message has {bytes} bytes, and the broker takes {limit} (its maxMessageSize)");
    Error::new(Kind::TooLarge, format!("publish to topic {topic}"), why)
}

fn stopped(topic: &str) -> Error {
    Error::new(Kind::Fatal, format!("publish to topic {topic}"), "the publisher has stopped")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_where_the_java_client_sends_them() {
        // Java: "abc".hashCode() == 96354; "polygenelubricants".hashCode() == Integer.MIN_VALUE.
        assert_eq!(java_string_hash("abc"), 96354);
        assert_eq!(java_string_hash("polygenelubricants"), 0);
    }
}
