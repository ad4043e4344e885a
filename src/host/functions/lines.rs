//! The log topic: what is logged is published there as well, a line a message, as Pulsar's own instances do. It holds up nothing: what there is no room
//! for is left out, and told.

use std::{
    borrow::Cow,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{Layer as _, fmt::MakeWriter};

use super::instance::Instance;
use crate::{
    error::Result,
    logging::More,
    metrics::health::Health,
    ports::{OutboundMessage, Publisher},
    pulsar::{
        client::{Settings, connect},
        publisher::{Compression, Options, TopicPublisher},
    },
};

/// Lines that wait to be published. With [`MAX_LINE`], 16 MB at most.
const ROOM: usize = 1_000;
/// Bytes of one line; the rest is cut off.
const MAX_LINE: usize = 16 * 1024;
/// For the last lines, when all else has ended.
const LAST_LINES: Duration = Duration::from_millis(500);

/// Takes what the log writes; each event is one write.
#[derive(Clone)]
struct Sender {
    lines: mpsc::Sender<Vec<u8>>,
    left_out: Arc<AtomicU64>,
}

/// What is to be published.
pub struct Lines {
    lines: mpsc::Receiver<Vec<u8>>,
    left_out: Arc<AtomicU64>,
}

/// What the log is given, and the other end of it.
pub fn lines() -> (More, Lines) {
    let (lines, receiver) = mpsc::channel(ROOM);
    let left_out = Arc::<AtomicU64>::default();
    let sender = Sender { lines, left_out: left_out.clone() };
    (tracing_subscriber::fmt::layer().with_ansi(false).with_writer(sender).boxed(), Lines { lines: receiver, left_out })
}

impl io::Write for Sender {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let kept = line.trim_ascii_end();
        if self.lines.try_send(kept[..kept.len().min(MAX_LINE)].to_vec()).is_err() {
            self.left_out.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Sender {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Publishes lines until `stop` is cancelled, and then for a moment what is left. A topic that cannot be written to is none of the worker's troubles: it is
/// told on standard error.
pub async fn publish(mut lines: Lines, topic: String, pulsar: Settings, whose: Vec<(Cow<'static, str>, String)>, stop: CancellationToken) {
    let publishing = async {
        let health = Health::default();
        let client = connect(&pulsar, &health).await?;
        let options = Options { compression: Compression::Lz4, ..Options::default() };
        let (publisher, lanes) = TopicPublisher::open(client, Some(&topic), options, health).await?;
        lines.pass_on(&publisher, &whose, &stop).await?;
        drop(publisher);
        lanes.finished().await;
        Result::<()>::Ok(())
    };
    let ended = async {
        stop.cancelled().await;
        tokio::time::sleep(LAST_LINES).await;
    };
    tokio::select! {
        outcome = publishing => if let Err(error) = outcome {
            eprintln!("the log is not published to {topic} any more: {error}");
        },
        () = ended => {}
    }
}

impl Lines {
    async fn pass_on(&mut self, publisher: &impl Publisher, whose: &[(Cow<'static, str>, String)], stop: &CancellationToken) -> Result<()> {
        let message = |payload| OutboundMessage { payload, properties: whose.to_vec(), ..OutboundMessage::default() };
        // Nothing waits for them, but a message whose receipt is dropped is one that nobody wants any more.
        let mut receipts = FuturesUnordered::new();
        loop {
            let line = tokio::select! {
                biased;
                Some(_) = receipts.next() => continue,
                line = self.lines.recv() => line,
                () = stop.cancelled() => None,
            };
            let left_out = self.left_out.swap(0, Relaxed);
            if left_out > 0 {
                let told = format!("{left_out} lines of the log are left out here: they came faster than the topic takes them");
                receipts.push(publisher.publish(message(told.into_bytes())).await.map_err(|refusal| refusal.error)?.0);
            }
            let Some(line) = line else { break };
            receipts.push(publisher.publish(message(line)).await.map_err(|refusal| refusal.error)?.0);
        }
        while receipts.next().await.is_some() {}
        Ok(())
    }
}

/// The properties that tell whose line it is, as Pulsar's own instances have them.
pub fn whose(instance: &Instance) -> Vec<(Cow<'static, str>, String)> {
    [("fqn", instance.full_name()), ("instance", instance.id.to_string())].map(|(name, value)| (name.into(), value)).into()
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::ports::{Receipt, Refusal};

    #[test]
    fn a_line_is_a_message_and_what_there_is_no_room_for_is_counted() {
        let (layer, mut lines) = lines();
        let log = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(log, || {
            tracing::info!(number = 1, "first");
            tracing::info!("{}", "x".repeat(2 * MAX_LINE));
            (0..ROOM).for_each(|_| tracing::info!("more"));
        });
        let first = String::from_utf8(lines.lines.try_recv().expect("a line")).expect("text");
        assert!(first.ends_with("first number=1") && !first.contains('\u{1b}'), "{first:?}");
        assert_eq!(lines.lines.try_recv().expect("a line").len(), MAX_LINE);
        assert_eq!(lines.left_out.load(Relaxed), 2);
    }

    type Stored = tokio::sync::oneshot::Sender<Result<(), Refusal>>;

    /// Takes messages, and stores them when it is told to.
    #[derive(Clone, Default)]
    struct Slow(Arc<std::sync::Mutex<Vec<Stored>>>);

    impl Publisher for Slow {
        async fn publish(&self, _: OutboundMessage) -> Result<Receipt, Refusal> {
            let (stored, receipt) = tokio::sync::oneshot::channel();
            self.0.lock().expect("one at a time").push(stored);
            Ok(Receipt(receipt))
        }
    }

    /// A publisher leaves out what nobody waits for.
    #[tokio::test(start_paused = true)]
    async fn each_line_is_wanted_until_it_is_stored() {
        let (lines, receiver) = mpsc::channel(ROOM);
        let mut passed_on = Lines { lines: receiver, left_out: Arc::default() };
        let (topic, stop) = (Slow::default(), CancellationToken::new());
        for line in ["first", "second"] {
            lines.try_send(line.into()).expect("room");
        }
        let look = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let accepted = std::mem::take(&mut *topic.0.lock().expect("one at a time"));
            assert_eq!(accepted.iter().map(|stored| stored.is_closed()).collect::<Vec<_>>(), [false, false]);
            stop.cancel();
            tokio::time::sleep(Duration::from_secs(1)).await;
            accepted.into_iter().for_each(|stored| drop(stored.send(Ok(()))));
        };
        let (passed, ()) = tokio::join!(passed_on.pass_on(&topic, &[], &stop), look);
        passed.expect("all are stored");
    }
}
