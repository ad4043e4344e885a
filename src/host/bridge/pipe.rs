//! The two pipes to the shim, a thread for each: what comes in goes to whoever waits for it, what goes out is written together.

use std::{
    collections::HashMap,
    io::{Read, Write},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    thread::{self, JoinHandle},
};

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    ends::ToldSchemas,
    frame::{self, FromShim, Numbered, Outgoing},
};
use crate::{
    error::{Error, Kind, Result},
    ports::{OutboundMessage, Refusal},
};

/// Written to the pipe at once.
const WRITE_BYTES: usize = 64 * 1024;

/// What is to be said to the shim.
#[derive(Debug)]
pub enum Said {
    Record(Sending),
    Ack(u64),
    Fail(u64),
    Metrics(Vec<(&'static str, f64)>),
    /// Last words.
    Error(String),
}

/// A record on its way, and who waits for its receipt.
#[derive(Debug)]
pub struct Sending {
    pub message: OutboundMessage,
    pub waiting: Waiting,
}

#[derive(Debug)]
pub struct Waiting {
    pub receipt: oneshot::Sender<Result<(), Refusal>>,
    /// Its room (M1), free again with the receipt.
    pub _room: OwnedSemaphorePermit,
}

/// What both threads and the worker's ends of the pipes share.
#[derive(Debug, Default)]
struct Shared {
    /// Records that the shim has and has not answered, by the number they were sent under.
    waiting: Mutex<HashMap<u64, Waiting>>,
    /// Why nothing goes through any more.
    gone: OnceLock<Error>,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is answered any more: whoever waits learns it.
    fn end(&self, error: Error) {
        let error = self.gone.get_or_init(|| error);
        for (_, waiting) in self.waiting().drain() {
            let _ = waiting.receipt.send(Err(error.clone().into()));
        }
    }

    fn answer(&self, ids: &[u64], result: impl Fn() -> Result<(), Refusal>) {
        let mut waiting = self.waiting();
        for id in ids {
            if let Some(waiting) = waiting.remove(id) {
                // Nobody waits any more: that is the worker's choice.
                let _ = waiting.receipt.send(result());
            }
        }
    }
}

/// The worker's end of the pipe to the shim. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Speaker {
    said: mpsc::Sender<Said>,
    shared: Arc<Shared>,
}

impl Speaker {
    /// Waits for room in the pipe's queue.
    pub async fn say(&self, said: Said) -> Result<()> {
        self.said.send(said).await.map_err(|_| self.why_gone())
    }

    /// Without waiting. There is a place for the answer to each message that the shim may send.
    pub fn answer(&self, said: Said) -> Result<()> {
        self.said.try_send(said).map_err(|error| match error {
            mpsc::error::TrySendError::Closed(_) => self.why_gone(),
            mpsc::error::TrySendError::Full(_) => {
                Error::new(Kind::Fatal, "answer the shim", "it has sent more messages than its credit allows")
            }
        })
    }

    fn why_gone(&self) -> Error {
        self.shared.gone.get().cloned().unwrap_or_else(shim_is_gone)
    }
}

fn shim_is_gone() -> Error {
    Error::new(Kind::Fatal, "talk to Pulsar's instance", "it has ended, or closed the pipe; what it did not acknowledge comes again")
}

/// Starts the thread that writes. It ends with the last [`Speaker`], after all that was said.
pub fn speak(output: impl Write + Send + 'static, queue: usize) -> Result<(Speaker, JoinHandle<()>)> {
    let (said, saying) = mpsc::channel(queue);
    let speaker = Speaker { said, shared: Arc::default() };
    let shared = speaker.shared.clone();
    let writing = move || {
        if let Err(error) = write_all(output, saying, &shared) {
            shared.end(error);
        }
    };
    Ok((speaker, start("frames out", writing)?))
}

fn write_all(mut output: impl Write, mut saying: mpsc::Receiver<Said>, shared: &Shared) -> Result<()> {
    let (mut outgoing, mut next_id) = (Outgoing::default(), 0);
    let (mut acks, mut fails) = (Vec::new(), Vec::new());
    while let Some(first) = saying.blocking_recv() {
        let mut said = Some(first);
        while let Some(saying_now) = said {
            match saying_now {
                Said::Record(record) => send(record, &mut next_id, &mut outgoing, shared),
                Said::Ack(id) => acks.push(id),
                Said::Fail(id) => fails.push(id),
                Said::Metrics(values) => outgoing.metrics(&values),
                Said::Error(text) => outgoing.error(&text),
            }
            said = if outgoing.0.len() < WRITE_BYTES { saying.try_recv().ok() } else { None };
        }
        outgoing.acks(&acks);
        outgoing.fails(&fails);
        acks.clear();
        fails.clear();
        output.write_all(&outgoing.0).and_then(|()| output.flush()).map_err(|_| shim_is_gone())?;
        outgoing.0.clear();
    }
    Ok(())
}

/// Adds a record to what goes out, unless its lease has run out while it waited (L2) or nobody would answer.
fn send(Sending { message, waiting }: Sending, next_id: &mut u64, outgoing: &mut Outgoing, shared: &Shared) {
    let refusal = if !message.while_held.may_send() {
        Some(Error::new(Kind::LeaseLost, "publish a record", "its lease ran out while it waited for its turn"))
    } else {
        shared.gone.get().cloned()
    };
    if let Some(error) = refusal {
        let _ = waiting.receipt.send(Err(error.into()));
        return;
    }
    *next_id += 1;
    // Before the record goes out: its answer may be here before this function has ended.
    shared.waiting().insert(*next_id, waiting);
    outgoing.record(*next_id, &message);
    if let Some(error) = shared.gone.get() {
        shared.answer(&[*next_id], || Err(error.clone().into()));
    }
}

/// Where the thread that reads puts what a sink consumes.
#[derive(Debug, Clone)]
pub struct Inward {
    pub messages: mpsc::Sender<Numbered>,
    pub schemas: ToldSchemas,
}

/// Starts the thread that reads. It ends with the input, and then everything does.
///
/// `inward`: where what a sink consumes goes. `stop` is cancelled by STOP and by the input's end, `told_to_stop` by STOP alone.
pub fn listen(
    input: impl Read + Send + 'static,
    speaker: &Speaker,
    inward: Option<Inward>,
    stop: CancellationToken,
    told_to_stop: CancellationToken,
) -> Result<()> {
    let shared = speaker.shared.clone();
    start("frames in", move || {
        let error = read_all(input, &shared, inward.as_ref(), &stop, &told_to_stop).err().unwrap_or_else(shim_is_gone);
        shared.end(error);
        stop.cancel();
    })?;
    Ok(())
}

fn read_all(
    mut input: impl Read,
    shared: &Shared,
    inward: Option<&Inward>,
    stop: &CancellationToken,
    told_to_stop: &CancellationToken,
) -> Result<()> {
    while let Some(frame) = frame::read(&mut input)? {
        match frame {
            FromShim::Ack(ids) => shared.answer(&ids, || Ok(())),
            FromShim::Fail(ids) => shared.answer(&ids, || Err(not_stored().into())),
            FromShim::Stop => {
                told_to_stop.cancel();
                stop.cancel();
            }
            FromShim::Message(message) => {
                let messages = &inward.ok_or_else(|| unexpected("a message for a source"))?.messages;
                // A worker that has ended takes none any more.
                if let Err(mpsc::error::TrySendError::Full(_)) = messages.try_send(message) {
                    return Err(unexpected("more messages than its credit allows"));
                }
            }
            FromShim::Schema(id, schema) => {
                inward.ok_or_else(|| unexpected("a schema for a source"))?.schemas.learn(id, schema);
            }
            FromShim::Open(_) => return Err(unexpected("a second OPEN frame")),
        }
    }
    Ok(())
}

fn not_stored() -> Error {
    let why = "Pulsar IO did not store it; the connector's log says why. It is published again after a restart";
    Error::new(Kind::Fatal, "publish a record", why)
}

fn unexpected(what: &str) -> Error {
    Error::new(Kind::Fatal, "read the shim's frames", what)
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let thread = thread::Builder::new().name(name.into()).spawn(work);
    thread.map_err(|error| Error::new(Kind::Fatal, format!("start the thread {name}"), error))
}
