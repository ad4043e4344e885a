//! What a table has to hold after these messages, by the mode in which they are written: computed apart from the code under test.

use std::collections::BTreeMap;

use pulsar_io_dynamodb::{
    dynamodb::attribute::{Item, Value},
    sink::mode::{Deletes, Mode, VersionSource, Versioning, What},
};

use super::{Effect, Message};

/// How messages change an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rule {
    #[default]
    Put,
    Insert,
    Update,
    /// The greatest sequence number wins, a delete leaves a tombstone.
    Newest,
    /// As `Put`, in transactions.
    Transact,
}

pub const RULES: [Rule; 5] = [Rule::Put, Rule::Insert, Rule::Update, Rule::Newest, Rule::Transact];

impl Rule {
    pub fn mode(self) -> Mode {
        let what = match self {
            Rule::Put | Rule::Transact => What::Put,
            Rule::Insert => What::Insert,
            Rule::Update => What::Update,
            Rule::Newest => What::Newest(Versioning {
                attribute: "_version".into(),
                source: VersionSource::SequenceNumber,
                deletes: Deletes::Tombstone(None),
            }),
        };
        Mode { what, transact: self == Rule::Transact, ..Mode::default() }
    }
}

/// An item's numbers, without its key.
pub type Row = BTreeMap<String, u64>;

pub fn row(item: &Item) -> Row {
    let number = |(name, value): (&String, &Value)| match value {
        Value::N(text) if name != "pk" => Some((name.clone(), text.parse().expect("a whole number"))),
        Value::S(text) => Some((name.clone(), text.parse().expect("a whole number"))),
        Value::Bool(truth) => Some((name.clone(), u64::from(*truth))),
        _ => None,
    };
    item.iter().filter_map(number).collect()
}

/// What a message carries: its number, and under one of three names once more.
pub fn carried(message: &Message) -> Option<Row> {
    match message.effect {
        Effect::Put(number) => Some(Row::from([("v".into(), number)])),
        Effect::Set(number) => Some(Row::from([("v".into(), number), (format!("a{}", number % 3), number)])),
        _ => None,
    }
}

fn writable(message: &Message) -> bool {
    matches!(message.effect, Effect::Put(_) | Effect::Set(_) | Effect::Delete)
}

fn after(rule: Rule, before: Option<Row>, message: &Message) -> Option<Row> {
    match (rule, carried(message), before) {
        (_, _, before) if !writable(message) => before,
        (_, None, _) => None,
        (Rule::Insert, Some(_), Some(there)) => Some(there),
        (Rule::Update, Some(new), Some(mut there)) => {
            there.extend(new);
            Some(there)
        }
        (_, Some(new), _) => Some(new),
    }
}

fn versioned(message: &Message) -> Row {
    let mut row = carried(message).unwrap_or_else(|| Row::from([("_deleted".into(), 1)]));
    row.insert("_version".into(), message.sequence);
    row
}

/// What is left of an item after all messages about it, in the order in which they were published.
pub fn expected(rule: Rule, messages: &[&Message]) -> Option<Row> {
    if rule == Rule::Newest {
        let newest = messages.iter().filter(|message| writable(message)).max_by_key(|message| message.sequence);
        return newest.map(|message| versioned(message));
    }
    messages.iter().fold(None, |before, message| after(rule, before, message))
}

/// A1: whether the item shows that the message at `at` was written, or one that came after it.
pub fn is_stored(rule: Rule, messages: &[&Message], at: usize, there: Option<&Row>) -> bool {
    match rule {
        Rule::Newest => messages[at].effect != Effect::Poison && there.is_some_and(|row| row["_version"] >= messages[at].sequence),
        Rule::Update => shows_update(messages, at, there),
        Rule::Insert => shows_insert(messages, at, there),
        Rule::Put | Rule::Transact => {
            let mut row = None;
            messages.iter().enumerate().any(|(position, message)| {
                row = after(rule, row.take(), message);
                position >= at && writable(message) && row.as_ref() == there
            })
        }
    }
}

/// An insert is done once an item is there, its own or another; a delete once none is but a later one. After a crash an insert that had found an item
/// may come again after the delete of that item, and the delete comes again too: which item is there in between is no matter.
fn shows_insert(messages: &[&Message], at: usize, there: Option<&Row>) -> bool {
    let later = &messages[at + 1..];
    match (carried(messages[at]), messages[at].effect) {
        (Some(_), _) => there.is_some() || later.iter().any(|message| message.effect == Effect::Delete),
        (None, Effect::Delete) => there.is_none() || later.iter().any(|message| carried(message).as_ref() == there),
        _ => false,
    }
}

/// Each attribute that the message sets has its value or a later one's; or a later delete took it. After a crash older updates come again, and
/// until all have, the item is in no state that it ever was in.
fn shows_update(messages: &[&Message], at: usize, there: Option<&Row>) -> bool {
    let position = |number: u64| messages.iter().position(|message| carried(message).is_some_and(|row| row["v"] == number));
    let since = |number: u64| position(number).is_some_and(|position| position >= at);
    let deleted_later = messages[at + 1..].iter().any(|message| message.effect == Effect::Delete);
    match carried(messages[at]) {
        Some(set) => set.keys().all(|name| match there.and_then(|row| row.get(name)) {
            Some(number) => since(*number),
            None => deleted_later,
        }),
        None if messages[at].effect == Effect::Delete => there.is_none_or(|row| row.values().all(|number| since(*number))),
        // A refused update is in nothing that is stored, unless a delete took its place before it was sent.
        None => deleted_later,
    }
}
