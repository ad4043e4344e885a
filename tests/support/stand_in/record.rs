//! Records as text: one page is rendered once, and each answer is a copy of it with the digits of its own records written in.

use bytes::Bytes;

/// GetRecords gives that many at most.
pub const PAGE: usize = 1_000;
/// Items of a lineage: its records change them in turn.
const ITEMS: u64 = 1_000;
/// Versions begin here, so that all have the same number of digits.
const FIRST_VERSION: u64 = 1_000_000_000_000;

/// What differs from record to record: where it stands, and with how many digits.
#[derive(Clone, Copy)]
struct Field {
    at: usize,
    width: usize,
}

/// The text of a page of one record size.
pub struct Template {
    page: Vec<u8>,
    /// With the comma that follows.
    record: usize,
    lineage: Field,
    number: Field,
    seconds: Field,
    keys: Vec<Field>,
    created: Vec<Field>,
    versions: Vec<Field>,
    sequence: Field,
}

/// What a record tells: enough to find each again in a topic.
pub struct Record {
    /// Shard after shard, each the only child of the one before.
    pub lineage: u64,
    /// Its place in the lineage, from 0.
    pub number: u64,
    /// Epoch milliseconds.
    pub created: u64,
}

/// The event id, which becomes the message's key.
pub fn event_id(lineage: u64, number: u64) -> String {
    format!("{lineage:016x}{number:016x}")
}

/// Lineage and number of an event id.
pub fn from_event_id(id: &str) -> Option<(u64, u64)> {
    let part = |range| u64::from_str_radix(id.get(range)?, 16).ok();
    (id.len() == 32).then_some((part(0..16)?, part(16..32)?))
}

/// 24 digits: too many for a machine integer, as the service's.
pub fn sequence(number: u64) -> String {
    format!("1{number:023}")
}

/// The number of a record's sequence number.
pub fn number(sequence: &str) -> Option<u64> {
    sequence.get(1..).filter(|_| sequence.len() == 24)?.parse().ok()
}

impl Template {
    /// A record's JSON text has `bytes` bytes; 1,000 at least.
    pub fn new(bytes: usize) -> Self {
        let empty = text("").len();
        let record = text(&"n".repeat(bytes.saturating_sub(empty)));
        let all = |mark: &str, width| -> Vec<Field> {
            record.match_indices(mark).map(|(at, _)| Field { at: at + mark.len() - width, width }).collect()
        };
        let one = |mark: &str, width| *all(mark, width).first().expect("the template has the field");
        let mut page = Vec::with_capacity((record.len() + 1) * PAGE);
        for _ in 0..PAGE {
            page.extend_from_slice(record.as_bytes());
            page.push(b',');
        }
        Self {
            record: record.len() + 1,
            lineage: one(r#""eventID":"0000000000000000"#, 16),
            number: one(r#""eventID":"00000000000000000000000000000000"#, 16),
            seconds: one(r#""ApproximateCreationDateTime":0000000000"#, 10),
            keys: all(r#""pk":{"S":"item-00000000"#, 8),
            created: all(r#""created":{"N":"0000000000000"#, 13),
            versions: all(r#""version":{"N":"0000000000000"#, 13),
            sequence: one(r#""SequenceNumber":"100000000000000000000000"#, 23),
            page,
        }
    }

    /// The answer of GetRecords. At most a page of records.
    pub fn answer(&self, records: impl ExactSizeIterator<Item = Record>, next_iterator: Option<&str>) -> Bytes {
        let count = records.len().min(PAGE);
        let mut out = Vec::with_capacity(count * self.record + 256);
        out.extend_from_slice(br#"{"Records":["#);
        let begin = out.len();
        out.extend_from_slice(&self.page[..count * self.record]);
        for (at, record) in records.take(count).enumerate() {
            let text = &mut out[begin + at * self.record..][..self.record];
            digits::<16>(text, self.lineage, record.lineage);
            digits::<16>(text, self.number, record.number);
            digits::<10>(text, self.seconds, record.created / 1000);
            digits::<10>(text, self.sequence, record.number);
            self.keys.iter().for_each(|field| digits::<10>(text, *field, record.lineage * ITEMS + record.number % ITEMS));
            self.created.iter().for_each(|field| digits::<10>(text, *field, record.created));
            self.versions.iter().for_each(|field| digits::<10>(text, *field, FIRST_VERSION + record.number));
        }
        if count > 0 {
            out.pop();
        }
        out.push(b']');
        if let Some(iterator) = next_iterator {
            out.extend_from_slice(format!(r#","NextShardIterator":"{iterator}""#).as_bytes());
        }
        out.push(b'}');
        out.into()
    }
}

fn digits<const BASE: u64>(text: &mut [u8], field: Field, mut number: u64) {
    for byte in text[field.at..field.at + field.width].iter_mut().rev() {
        *byte = b"0123456789abcdef"[(number % BASE) as usize];
        number /= BASE;
    }
}

/// A changed order: eight attributes of five types.
fn text(note: &str) -> String {
    let image = r#"{"pk":{"S":"item-00000000"},"version":{"N":"0000000000000"},"created":{"N":"0000000000000"},"active":{"BOOL":true},"tags":{"SS":["new","paid"]},"price":{"N":"12.50"},"address":{"M":{"city":{"S":"Växjö"},"zip":{"S":"35231"}}},"note":{"S":"#;
    let (new, old) = note.split_at(note.len() / 2);
    [
        r#"{"eventID":"00000000000000000000000000000000","eventName":"MODIFY","eventVersion":"1.1","eventSource":"aws:dynamodb","#,
        r#""awsRegion":"us-east-1","dynamodb":{"ApproximateCreationDateTime":0000000000,"Keys":{"pk":{"S":"item-00000000"}},"#,
        &format!(r#""NewImage":{image}"{new}"}}}},"OldImage":{image}"{old}"}}}},"#),
        r#""SequenceNumber":"100000000000000000000000","SizeBytes":900,"StreamViewType":"NEW_AND_OLD_IMAGES"}}"#,
    ]
    .concat()
}
