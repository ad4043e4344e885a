//! Random stream records as the service writes them: JSON text, so that escapes, number forms and the order of members vary too.

use base64::{Engine, prelude::BASE64_STANDARD};

/// What has occurred. A run in which something has not proves nothing about it.
#[derive(Debug, Default)]
pub struct Seen {
    /// Maps for which Java's hash table grows.
    grown: usize,
    /// Maps with names of one and the same hash.
    colliding: usize,
    /// Maps with so many of them that Java's table grows early, or makes trees.
    crowded: usize,
    identities: usize,
    surrogates: usize,
    /// Of each attribute type.
    types: [usize; 10],
}

impl Seen {
    pub fn is_complete(&self) -> bool {
        let counts = [self.grown, self.colliding, self.crowded, self.identities, self.surrogates];
        counts.iter().chain(&self.types).all(|count| *count > 0)
    }
}

pub struct Generator {
    random: fastrand::Rng,
    pub seen: Seen,
}

/// Two letters each, of the same Java hash: all texts of four of these pairs have one hash.
const TWINS: [&str; 2] = ["Aa", "BB"];
const SPECIAL: [char; 22] = [
    '"', '\\', '/', '\u{8}', '\t', '\n', '\u{c}', '\r', '\0', '\u{1}', '\u{1f}', '\u{7f}', 'é', 'ß', '中', '\u{2028}', '\u{2029}',
    '\u{feff}', '\u{fffd}', '😀', '𝔘', '<',
];

impl Generator {
    pub fn new(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), seen: Seen::default() }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.u32(0..100) < percent
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.random.usize(0..choices.len())]
    }

    /// One record, on one line.
    pub fn record(&mut self) -> String {
        let event = self.pick(&["INSERT", "MODIFY", "REMOVE"]);
        let view = self.pick(&["KEYS_ONLY", "NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES"]);
        let both = view == "NEW_AND_OLD_IMAGES";
        let seconds = self.random.u64(1_500_000_000..2_000_000_000);
        let created = match self.random.u8(0..4) {
            0 => format!("{seconds}.{}", self.random.u32(0..1000)),
            1 => format!("{}.{:09}E9", seconds / 1_000_000_000, seconds % 1_000_000_000),
            _ => seconds.to_string(),
        };
        let mut change = vec![member("ApproximateCreationDateTime", created), member("Keys", self.keys())];
        if (both || view == "NEW_IMAGE") && event != "REMOVE" {
            let image = self.image();
            change.push(member("NewImage", image));
        }
        if (both || view == "OLD_IMAGE") && event != "INSERT" {
            let image = self.image();
            change.push(member("OldImage", image));
        }
        let sequence = format!("{}{:020}", self.random.u64(1..), self.random.u64(..));
        change.push(member("SequenceNumber", format!("{sequence:?}")));
        change.push(member("SizeBytes", self.random.u32(..400_000).to_string()));
        change.push(member("StreamViewType", format!("{view:?}")));
        let mut record = vec![
            member("eventID", format!("\"{:032x}\"", self.random.u128(..))),
            member("eventName", format!("{event:?}")),
            member("eventVersion", "\"1.1\"".into()),
            member("eventSource", "\"aws:dynamodb\"".into()),
            member("awsRegion", "\"eu-west-1\"".into()),
        ];
        if event == "REMOVE" && self.chance(30) {
            self.seen.identities += 1;
            let (principal, kind) = (self.text(), self.text());
            record.push(member("userIdentity", object(&[member("PrincipalId", principal), member("Type", kind)])));
        }
        for members in [&mut change, &mut record] {
            if self.chance(20) {
                self.random.shuffle(members);
            }
            if self.chance(10) {
                members.push(member("unknown", r#"{"a":[1,null,{"b":true}]}"#.into()));
            }
        }
        record.push(member("dynamodb", object(&change)));
        if self.chance(20) {
            self.random.shuffle(&mut record);
        }
        object(&record)
    }

    fn keys(&mut self) -> String {
        let mut names = vec![self.name(), self.name()];
        names.dedup();
        let count = self.random.usize(1..=names.len());
        let keys: Vec<String> = names[..count]
            .iter()
            .map(|name| {
                let kind = self.random.usize(..3);
                member_escaped(name, &self.value_of(kind, 0))
            })
            .collect();
        object(&keys)
    }

    /// An item; one of ten has many attributes.
    fn image(&mut self) -> String {
        let count = if self.chance(10) { self.random.usize(13..120) } else { self.random.usize(..13) };
        self.map(count, 0)
    }

    fn map(&mut self, count: usize, depth: usize) -> String {
        let mut names: Vec<String> = (0..count).map(|_| self.name()).collect();
        if self.chance(15) {
            let twins = self.random.usize(2..=16);
            let mut all: Vec<String> = (0..16).map(|bits| (0..4).map(|at| TWINS[bits >> at & 1]).collect()).collect();
            self.random.shuffle(&mut all);
            names.extend(all.into_iter().take(twins));
            self.seen.colliding += 1;
            self.seen.crowded += usize::from(twins > 8);
        }
        names.sort();
        names.dedup();
        self.random.shuffle(&mut names);
        self.seen.grown += usize::from(names.len() > 12);
        let attributes: Vec<String> = names.iter().map(|name| member_escaped(name, &self.value(depth))).collect();
        object(&attributes)
    }

    fn value(&mut self, depth: usize) -> String {
        let kind = self.random.usize(..if depth < 4 { 10 } else { 8 });
        self.value_of(kind, depth)
    }

    fn value_of(&mut self, kind: usize, depth: usize) -> String {
        self.seen.types[kind] += 1;
        let (tag, value) = match kind {
            0 => ("S", self.text()),
            1 => ("N", self.number()),
            2 => ("B", self.binary()),
            3 => ("SS", self.list(Self::text)),
            4 => ("NS", self.list(Self::number)),
            5 => ("BS", self.list(Self::binary)),
            6 => ("BOOL", self.random.bool().to_string()),
            7 => ("NULL", "true".into()),
            8 => {
                let count = self.random.usize(..6);
                ("M", self.map(count, depth + 1))
            }
            _ => ("L", self.list(|generator| generator.value(depth + 1))),
        };
        object(&[member(tag, value)])
    }

    fn list(&mut self, mut one: impl FnMut(&mut Self) -> String) -> String {
        let count = self.random.usize(..4);
        let values: Vec<String> = (0..count).map(|_| one(self)).collect();
        format!("[{}]", values.join(","))
    }

    fn number(&mut self) -> String {
        let digits = self.random.u64(..);
        let text = match self.random.u8(0..6) {
            0 => "0".into(),
            1 => format!("-{digits}.{:03}", digits % 1000),
            2 => format!("{}E+{}", digits % 10, digits % 125),
            3 => format!("1{digits}{}", digits % 1_000_000_000),
            4 => format!("0.00{digits}"),
            _ => (digits % 1000).to_string(),
        };
        format!("{text:?}")
    }

    fn binary(&mut self) -> String {
        let bytes: Vec<u8> = (0..self.random.usize(..20)).map(|_| self.random.u8(..)).collect();
        format!("{:?}", BASE64_STANDARD.encode(bytes))
    }

    /// A string value, quoted: mostly plain, some with what has to be escaped, a few with half of a surrogate pair.
    fn text(&mut self) -> String {
        let mut text = String::from("\"");
        for _ in 0..self.random.usize(..30) {
            let character = if self.chance(15) { SPECIAL[self.random.usize(..SPECIAL.len())] } else { self.random.alphanumeric() };
            self.write(character, &mut text);
        }
        if self.chance(2) {
            self.seen.surrogates += 1;
            text += self.pick(&["\\ud83d", "\\ude00", "\\ud83dx"]);
        }
        text + "\""
    }

    /// An attribute's name, without quotes but escaped.
    fn name(&mut self) -> String {
        let mut name = String::new();
        for _ in 0..self.random.usize(1..12) {
            let character = if self.chance(4) { SPECIAL[self.random.usize(..SPECIAL.len())] } else { self.random.alphanumeric() };
            // One name is written in one way, so that names which are told apart are different.
            escape(character, &mut name);
        }
        name
    }

    /// As it is where it may be, or escaped.
    fn write(&mut self, character: char, text: &mut String) {
        match character {
            _ if self.chance(5) => character.encode_utf16(&mut [0; 2]).iter().for_each(|unit| *text += &format!("\\u{unit:04x}")),
            '/' if self.random.bool() => *text += "\\/",
            _ => escape(character, text),
        }
    }
}

fn escape(character: char, text: &mut String) {
    match character {
        '"' | '\\' => text.extend(['\\', character]),
        '\n' => *text += "\\n",
        '\t' => *text += "\\t",
        _ if character < ' ' => *text += &format!("\\u{:04x}", u32::from(character)),
        _ => text.push(character),
    }
}

fn member(name: &str, value: String) -> String {
    format!("{name:?}:{value}")
}

fn member_escaped(name: &str, value: &str) -> String {
    format!("\"{name}\":{value}")
}

fn object(members: &[String]) -> String {
    format!("{{{}}}", members.join(","))
}
