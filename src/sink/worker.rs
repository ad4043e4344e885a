//! The loop that runs the stages, and the drain.

mod lost;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use metrics::{Counter, Histogram, counter, gauge, histogram};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{
    Settings,
    ack::Acks,
    ask::{self, Answer, Asked, Held, Question},
    batch::{Batches, Limits, Outcome, Settled, Ticket, max_bytes},
    dead_letter::{self, Burial, DeadLetters, Origin},
    decode::{Decoder, Record},
    map::{Target, key_json, map},
    mode::{OnConditionFailure, Shaped, is_as_written},
    order::Order,
    poison::{Poison, Reason},
    receive::Room,
    write::{Answer as Answered, Drive, Verdict, Writer},
};
use crate::{
    error::{Error, Kind, Limit, Result, Retry},
    metrics::{health::Health, names},
    ports::{EntryId, Fate, InboundMessage, Inbox, ItemTables, KeySchema, Moment, Publisher, Schemas, Vehicle, Write},
};

/// How long a write may fail, or stay unanswered, before health turns red (H1).
const RED_AFTER: Duration = Duration::from_secs(30);
/// How often health and gauges are brought up to date.
const TICK: Duration = Duration::from_secs(1);
/// Messages that are taken in a row, at most: a batch or two. Answers wait for as long.
const BURST: usize = 50;
/// What the Pulsar client may hold beside the worker: its receiver queue, and as much on the way.
const CLIENT_MESSAGES: usize = 2_000;
const STAGE: &str = "sink/write";
const DEAD_LETTERS: &str = "sink/dead_letter";

pub struct Worker<I, S, T> {
    settings: Settings,
    /// The keys of the tables that are written to, one at least for each message in work.
    tables: HashMap<Arc<str>, KeySchema>,
    inbox: I,
    asked: Asked<S, T>,
    decoder: Decoder,
    held: Option<Held>,
    room: Room,
    order: Order,
    acks: Acks,
    batches: Batches,
    /// Topic partitions that are another consumer's now, with writes of this one still unanswered.
    leaving: BTreeSet<Arc<str>>,
    writer: Writer<T>,
    dead_letters: Option<DeadLetters>,
    health: Health,
    last_error: Option<String>,
    meters: Meters,
    started: Instant,
    /// Since when a batch waits for its turn.
    waiting: Option<Moment>,
}

/// What is recorded for each message.
struct Meters {
    received: Counter,
    sent: Counter,
    retried: Counter,
    put: Counter,
    deleted: Counter,
    updated: Counter,
    skipped: Counter,
    ignored: Counter,
    coalesced: Counter,
    acked: Counter,
    end_to_end: Histogram,
}

impl<I: Inbox, S: Schemas, T: ItemTables> Worker<I, S, T> {
    pub fn new<P: Publisher>(
        settings: Settings,
        tables: HashMap<Arc<str>, KeySchema>,
        inbox: I,
        asked: Asked<S, T>,
        dead_letters: Option<P>,
    ) -> Self {
        let vehicle = settings.mode.vehicle();
        let max_batch = if vehicle == Vehicle::Single { 1 } else { settings.max_batch };
        let limits = Limits {
            max_batch,
            max_bytes: max_bytes(vehicle),
            coalesce: settings.coalesce && settings.mode.may_coalesce(),
            flush: settings.flush_timeout,
            remember: settings.max_buffered.saturating_add(CLIENT_MESSAGES),
        };
        let drive = Drive {
            batch: max_batch,
            max_in_flight: settings.max_in_flight,
            capacity: settings.max_write_capacity,
            backoff: settings.backoff,
        };
        Self {
            tables,
            inbox,
            decoder: Decoder::new(settings.rules.clone()),
            held: None,
            room: Room::new(settings.max_buffered, settings.max_buffered_bytes),
            order: Order::new(settings.by_key),
            acks: Acks::default(),
            batches: Batches::new(limits),
            leaving: BTreeSet::new(),
            writer: Writer::new(asked.tables.clone(), vehicle, drive),
            dead_letters: dead_letters.map(|publisher| DeadLetters::new(publisher, settings.max_buffered)),
            settings,
            health: asked.health.clone(),
            asked,
            last_error: None,
            meters: Meters {
                received: counter!(names::SINK_RECEIVED),
                sent: counter!(names::SINK_SENT),
                retried: counter!(names::SINK_RETRIED),
                put: counter!(names::SINK_WRITTEN, "op" => "put"),
                deleted: counter!(names::SINK_WRITTEN, "op" => "delete"),
                updated: counter!(names::SINK_WRITTEN, "op" => "update"),
                skipped: counter!(names::SINK_SKIPPED),
                ignored: counter!(names::SINK_IGNORED),
                coalesced: counter!(names::SINK_COALESCED),
                acked: counter!(names::SINK_ACKED),
                end_to_end: histogram!(names::SINK_END_TO_END_SECONDS),
            },
            started: Instant::now(),
            waiting: None,
        }
    }

    pub fn into_inbox(self) -> I {
        self.inbox
    }

    /// Works until `stop` or an error. The arms, in their order:
    /// 1. the stop, which nothing may delay;
    /// 2. answers and 3. receipts, since they make room and let entries be acknowledged;
    /// 4. batches that have waited long enough (sent at the loop's start), and 5. health;
    /// 6. what a message waits for that came before all others, and
    /// 7. new messages last, and only while there is room (M1).
    ///
    /// Before anything is sent, it is looked whether it is still this consumer's (K1).
    pub async fn serve(&mut self, stop: &CancellationToken) -> Result<()> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.look()?;
            self.send(false)?;
            let (wake, started) = (self.wake(), self.started);
            let has_room = self.has_room();
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Some(answer) = self.writer.answer(|| started.elapsed()) => self.answered(answer?)?,
                Some((burial, receipt)) = receipt(&mut self.dead_letters) => self.buried(burial, receipt)?,
                () = sleep_until(started, wake) => {}
                _ = tick.tick() => self.report(),
                Some(answer) = ask::answered(&mut self.held) => self.told(answer?)?,
                received = self.inbox.receive(has_room) => {
                    self.received(received?)?;
                    self.receive_more()?;
                }
            }
        }
    }

    fn has_room(&self) -> bool {
        self.held.is_none() && self.room.has_room() && !self.acks.is_full(self.settings.max_buffered)
    }

    /// Takes what is there already: to look at everything else for each message costs as much as the message.
    fn receive_more(&mut self) -> Result<()> {
        for _ in 1..BURST {
            if !self.has_room() {
                break;
            }
            let Some(received) = self.inbox.receive(true).now_or_never() else { break };
            self.received(received?)?;
        }
        Ok(())
    }

    /// Z1: takes no more messages; sends what waits, and waits for answers and receipts until the deadline. An error on the way does
    /// not keep the rest from being finished; the first one is returned.
    pub async fn drain(&mut self) -> Result<()> {
        let deadline = tokio::time::sleep(self.settings.drain_timeout);
        tokio::pin!(deadline);
        let mut outcome = Ok(());
        loop {
            outcome = outcome.and(self.look()).and(self.send(true));
            let (wake, started) = (self.wake(), self.started);
            let buried = self.dead_letters.as_ref().is_none_or(DeadLetters::is_idle);
            if self.writer.is_idle() && buried && wake.is_none() {
                return outcome;
            }
            let step = tokio::select! {
                biased;
                Some(answer) = self.writer.answer(|| started.elapsed()) => answer.and_then(|answer| self.answered(answer)),
                Some((burial, receipt)) = receipt(&mut self.dead_letters) => self.buried(burial, receipt),
                () = sleep_until(started, wake) => Ok(()),
                () = &mut deadline => {
                    let messages = self.room.messages();
                    tracing::warn!(messages, "the stop did not wait for all writes; messages in work stay unacknowledged and come again");
                    return outcome;
                }
            };
            outcome = outcome.and(step);
        }
    }

    /// When something is to be sent, if nothing else happens.
    fn wake(&self) -> Option<Moment> {
        Some(self.batches.next_due()?.max(self.writer.slot_at()?))
    }

    /// Sends what is ready, to the table and to the dead-letter topic.
    fn send(&mut self, hurry: bool) -> Result<()> {
        let now = self.started.elapsed();
        while let Some(most) = self.writer.room(now)
            && let Some(batch) = self.batches.next(now, hurry, most)
        {
            histogram!(names::SINK_WAIT_SECONDS).record(now.saturating_sub(self.waiting.take().unwrap_or(now)));
            self.meters.sent.increment(batch.writes.len() as u64);
            self.meters.retried.increment(batch.retried as u64);
            self.writer.send(batch, now);
        }
        let waits = self.batches.next_due().is_some_and(|due| due <= now);
        self.waiting = waits.then(|| self.waiting.unwrap_or(now));
        while let Some(grave) = self.batches.next_grave() {
            let schema = self.tables.get(&grave.write.table);
            let poison = Poison { item_key: schema.map(|schema| key_json(grave.write.item(), schema)), ..grave.poison };
            self.bury(grave.ticket, poison, Some(grave.key))?;
        }
        Ok(())
    }

    fn accept(&mut self, message: Box<InboundMessage>) -> Result<()> {
        let mapped = match self.read(&message) {
            Ok(mapped) => mapped,
            Err(question) => {
                self.held = Some(Held::new(message, question, &self.asked));
                return Ok(());
            }
        };
        self.admit(message, mapped)
    }

    /// Takes a message into work.
    fn admit(&mut self, message: Box<InboundMessage>, mapped: Result<Option<Shaped>, Poison>) -> Result<()> {
        self.meters.received.increment(1);
        if !self.settings.mode.is_versioned()
            && let Some(why) = self.order.lost(&message)
        {
            let doing = format!("write message {} of {} to table {}", message.id(), message.entry.topic, self.settings.table_name);
            let what = "older changes of an item may be written over newer ones: write `writeMode: conditional`; or let the source publish with \
                        `messageKey: itemKey`; or use a topic without partitions and `retainOrdering: true`";
            return Err(Error::new(Kind::Configuration, doing, format!("{why}; {what}")));
        }
        let (slot, free) = self.acks.received(&message.entry, message.batch_index, message.batch_size);
        self.acknowledge(free)?;
        let place = (message.entry.clone(), message.batch_index);
        let ticket = self.room.admit(message, slot);
        match mapped {
            Ok(None) => {
                self.meters.ignored.increment(1);
                self.confirm(ticket)
            }
            Ok(Some(mapped)) => {
                if let Some(slot) = slot {
                    self.acks.writes(slot, &mapped.key);
                }
                match self.batches.add(ticket, place, mapped, self.started.elapsed()) {
                    Some(done) => {
                        self.meters.coalesced.increment(1);
                        self.confirm(done.ticket)
                    }
                    None => Ok(()),
                }
            }
            Err(poison) => self.bury(ticket, poison, None),
        }
    }

    /// The write that a message asks for, or what has to be found out first.
    fn read(&self, message: &InboundMessage) -> Result<Result<Option<Shaped>, Poison>, Question> {
        if let Some(id) = self.decoder.missing(message) {
            return Err(Question::Schema(id));
        }
        Ok(match self.addressed(message) {
            Err(poison) => Err(poison),
            Ok((record, table)) => {
                let Some(schema) = self.tables.get(&table) else { return Err(Question::Table(table)) };
                let Settings { shape, mode, .. } = &self.settings;
                let now = epoch_millis();
                let mapped = shape.shape(record, message, schema, now).and_then(|shaped| map(shaped, &table, schema));
                mapped.and_then(|mapped| mapped.map(|mapped| mode.shape(mapped, schema, message, now / 1000)).transpose())
            }
        })
    }

    /// A message, read, and the table that it is for.
    fn addressed(&self, message: &InboundMessage) -> Result<(Record, Arc<str>), Poison> {
        let record = self.decoder.decode(message)?;
        let table = self.settings.shape.table(&record, message).unwrap_or_else(|| Ok(self.settings.table_name.clone()))?;
        Ok((record, table))
    }

    /// The held message goes on with what was found out.
    fn told(&mut self, (message, answer): (Box<InboundMessage>, Answer)) -> Result<()> {
        match answer {
            Answer::Schema(id, schema) => self.decoder.learn(id, schema)?,
            Answer::Table(table, Some(schema)) => {
                let schema = super::usable(&self.settings, &table, schema)?;
                self.tables.insert(table, schema);
            }
            Answer::Table(table, None) => {
                let why = format!("table {table} is not there; autoCreate: true makes such tables");
                return self.admit(message, Err(Poison::new(Reason::Table, why)));
            }
        }
        self.accept(message)
    }

    fn answered(&mut self, answer: Answered) -> Result<()> {
        let now = self.started.elapsed();
        let Answered { batch, took, verdict } = answer;
        counter!(names::SINK_BATCHES).increment(1);
        histogram!(names::SINK_WRITE_SECONDS).record(took);
        match verdict {
            Verdict::Written { fates, consumed } => {
                counter!(names::SINK_CONSUMED).increment(consumed.unwrap_or_default().ceil() as u64);
                let unprocessed = fates.iter().filter(|fate| **fate == Fate::Unprocessed).count();
                if unprocessed > 0 {
                    counter!(names::SINK_UNPROCESSED).increment(unprocessed as u64);
                    self.last_error = Some("DynamoDB returns them unprocessed: the table's or the partition's capacity is used up".into());
                }
                let policy = self.settings.mode.on_condition_failure;
                let settled = batch.writes.iter().zip(fates).map(|(write, fate)| settled(write, fate, policy)).collect();
                let done = self.batches.answered(batch.id, settled, now, |attempts| self.writer.retry_at(attempts, now));
                for done in done {
                    match done.outcome {
                        Outcome::Put => self.meters.put.increment(1),
                        Outcome::Deleted => self.meters.deleted.increment(1),
                        Outcome::Updated => self.meters.updated.increment(1),
                        Outcome::Skipped => self.meters.skipped.increment(1),
                        Outcome::Coalesced => self.meters.coalesced.increment(1),
                    }
                    self.confirm(done.ticket)?;
                }
            }
            Verdict::Failed(error) => {
                self.failed(&error);
                tracing::warn!(table = %self.settings.table_name, attempts = batch.attempts + 1, %error, "a batch failed, trying again");
                let key_range = error.kind() == Kind::Throttled && error.limit() == Limit::KeyRange;
                self.batches.failed(batch.id, now, |attempts| self.writer.retry_at(attempts, now), key_range);
                if error.retry() == Retry::Manual {
                    self.health.red(STAGE, &error);
                }
                if error.kind() == Kind::Throttled {
                    counter!(names::SINK_THROTTLED, "reason" => error.limit().name()).increment(1);
                } else if self.settings.fail_on_error {
                    return Err(error);
                }
            }
            Verdict::Refused(error) => {
                self.failed(&error);
                tracing::debug!(table = %self.settings.table_name, writes = batch.writes.len(), %error, "a batch was refused");
                self.batches.refused(batch.id, &error, now);
            }
            Verdict::Fatal(error) => {
                self.failed(&error);
                return Err(error);
            }
        }
        Ok(())
    }

    fn failed(&mut self, error: &Error) {
        counter!(names::ERRORS, "stage" => STAGE, "kind" => format!("{:?}", error.kind())).increment(1);
        self.last_error = Some(error.to_string());
    }

    /// Starts a message's way into the dead-letter topic; without one, the worker ends.
    fn bury(&mut self, ticket: Ticket, poison: Poison, key: Option<Target>) -> Result<()> {
        let Some(message) = self.room.get(ticket) else { return Ok(()) };
        let worker_id = &self.settings.worker_id;
        let table_name = key.as_ref().map_or(&self.settings.table_name, |key| &key.table);
        let doing = || format!("write message {} of {} to table {table_name}", message.id(), message.entry.topic);
        let ends = poison.reason == Reason::ConditionFailed && self.settings.mode.on_condition_failure == OnConditionFailure::Fail;
        if ends {
            let why = format!("{poison}. It stays unacknowledged, as onConditionFailure: fail says");
            return Err(Error::new(Kind::Poison, doing(), why));
        }
        let Some(dead_letters) = &mut self.dead_letters else {
            if self.inbox.give_back(&message.entry)? {
                tracing::warn!(topic = %message.entry.topic, id = message.id(), %poison, "a message is given back");
                counter!(names::SINK_GIVEN_BACK, "reason" => poison.reason.name()).increment(1);
                if let Some(key) = key {
                    self.batches.buried(key, self.started.elapsed());
                }
                // Acknowledging what was given back does nothing.
                return self.confirm(ticket);
            }
            let why = format!("{poison}. It stays unacknowledged; configure a dead-letter topic, or remove the message");
            return Err(Error::new(Kind::Poison, doing(), why));
        };
        tracing::warn!(topic = %message.entry.topic, id = message.id(), %poison, "a message goes to the dead-letter topic");
        let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        let copy = dead_letter::copy(Origin { message, table: table_name, worker: worker_id, now: &now }, &poison);
        dead_letters.bury(Burial { ticket, poison, key }, copy)
    }

    fn buried(&mut self, burial: Burial, receipt: Result<()>) -> Result<()> {
        let Burial { ticket, poison, key } = burial;
        if let Err(error) = receipt {
            let id = self.room.get(ticket).map(InboundMessage::id).unwrap_or_default();
            let why = format!("{}; the message stays unacknowledged", error.why());
            return Err(Error::new(error.kind(), format!("copy message {id} to the dead-letter topic ({poison})"), why));
        }
        counter!(names::SINK_DEAD_LETTERED, "reason" => poison.reason.name()).increment(1);
        if let Some(key) = key {
            self.batches.buried(key, self.started.elapsed());
        }
        self.confirm(ticket)
    }

    /// A1: the message is stored or dead-lettered.
    fn confirm(&mut self, ticket: Ticket) -> Result<()> {
        let Some((message, slot)) = self.room.release(ticket) else { return Ok(()) };
        self.meters.end_to_end.record(seconds_since(message.publish_time));
        let free = slot.map(|slot| self.acks.confirmed(slot)).unwrap_or_default();
        self.acknowledge(free)
    }

    fn acknowledge(&mut self, entries: Vec<EntryId>) -> Result<()> {
        for entry in entries {
            self.inbox.ack(&entry)?;
            self.meters.acked.increment(1);
        }
        Ok(())
    }

    /// H1: red while writes have been failing, or a call or a copy has been unanswered, for too long.
    fn report(&self) {
        gauge!(names::SINK_BUFFERED).set(self.room.messages() as f64);
        gauge!(names::SINK_BUFFERED_BYTES).set(self.room.bytes() as f64);
        gauge!(names::SINK_LAG).set(self.room.oldest().map_or(0.0, seconds_since));
        gauge!(names::SINK_IN_FLIGHT).set(self.writer.in_flight() as f64);
        gauge!(names::SINK_WINDOW).set(self.writer.window() as f64);
        let now = self.started.elapsed();
        let late = |since: Moment| now.saturating_sub(since) >= RED_AFTER;
        let failing = self.batches.failing();
        let table = &self.settings.table_name;
        if let Some((items, since)) = failing.filter(|(_, since)| late(*since)) {
            let seconds = now.saturating_sub(since).as_secs();
            let last = self.last_error.as_deref().unwrap_or("unknown");
            self.health.red(STAGE, format!("{items} items cannot be written to table {table} since {seconds} s; last: {last}"));
        } else if let Some(since) = self.writer.waiting_since().filter(|since| late(*since)) {
            let seconds = now.saturating_sub(since).as_secs();
            self.health.red(STAGE, format!("a write to table {table} is unanswered since {seconds} s"));
        } else if !self.writer.is_paused() {
            self.health.green(STAGE);
        }
        match self.dead_letters.as_ref().and_then(DeadLetters::silent_for).filter(|silent| *silent >= RED_AFTER) {
            Some(silent) => self.health.red(DEAD_LETTERS, format!("the dead-letter topic has not answered for {} s", silent.as_secs())),
            None => self.health.green(DEAD_LETTERS),
        }
    }
}

/// What is to be done about a write, given its fate.
fn settled(write: &Write, fate: Fate, policy: OnConditionFailure) -> Settled {
    match fate {
        Fate::Stored => Settled::Stored,
        Fate::Unprocessed => Settled::Again,
        Fate::RolledBack => Settled::AtOnce,
        Fate::ConditionFailed { there } if is_as_written(&write.action, there.as_ref()) => Settled::Stored,
        Fate::ConditionFailed { .. } if policy == OnConditionFailure::Skip => Settled::Skipped,
        Fate::ConditionFailed { there } => {
            let found = if there.is_some() { "the item that is there does not meet it" } else { "there is no such item" };
            let expression = write.condition.as_ref().map(|condition| condition.expression.as_str()).unwrap_or_default();
            Settled::Refused(Poison::new(Reason::ConditionFailed, format!("the condition {expression:?} is not met: {found}")))
        }
        Fate::Refused(error) => Settled::Refused(Poison::refused(&error)),
    }
}

fn epoch_millis() -> u64 {
    u64::try_from(chrono::Utc::now().timestamp_millis()).unwrap_or_default()
}

/// `millis`: epoch milliseconds.
fn seconds_since(millis: u64) -> f64 {
    epoch_millis().saturating_sub(millis) as f64 / 1000.0
}

async fn receipt(dead_letters: &mut Option<DeadLetters>) -> Option<(Burial, Result<()>)> {
    dead_letters.as_mut()?.receipt().await
}

async fn sleep_until(started: Instant, wake: Option<Moment>) {
    match wake {
        Some(at) => tokio::time::sleep_until(started + at).await,
        None => std::future::pending().await,
    }
}
