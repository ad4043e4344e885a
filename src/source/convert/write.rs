//! JSON as the Java connector's Jackson writes it.

use std::io::Write;

/// Writes an object's members; absent ones are left out, as Jackson does for this class.
pub(super) struct Members<'o> {
    out: &'o mut Vec<u8>,
    separator: u8,
}

impl<'o> Members<'o> {
    pub(super) fn open(out: &'o mut Vec<u8>) -> Self {
        Self { out, separator: b'{' }
    }

    pub(super) fn name(&mut self, name: &str) -> &mut Vec<u8> {
        self.out.push(self.separator);
        self.separator = b',';
        write_string(name.as_bytes(), self.out);
        self.out.push(b':');
        self.out
    }

    pub(super) fn json(&mut self, name: &str, value: Option<&[u8]>) {
        if let Some(json) = value {
            self.name(name).extend_from_slice(json);
        }
    }

    pub(super) fn text(&mut self, name: &str, value: &Option<Text>) {
        if let Some(text) = value {
            text.write(self.name(name));
        }
    }

    pub(super) fn number(&mut self, name: &str, value: Option<i64>) {
        if let Some(number) = value {
            // A vector takes all that is written.
            let _ = write!(self.name(name), "{number}");
        }
    }

    pub(super) fn close(self) {
        if self.separator == b'{' {
            self.out.push(b'{');
        }
        self.out.push(b'}');
    }
}

/// A string as serde_json gives it in bytes: UTF-8, but lone surrogates stay, as three bytes of WTF-8.
#[derive(Debug)]
pub(super) enum Text<'r> {
    /// A part of the record's text that has no escape in it, and so needs none: a page's text is UTF-8 and JSON
    /// ([`Page`](crate::ports::Page)), which has quotes, backslashes, control characters and surrogates in escapes only.
    AsItStands(&'r [u8]),
    Unescaped(Vec<u8>),
}

impl Default for Text<'_> {
    fn default() -> Self {
        Self::AsItStands(&[])
    }
}

impl Text<'_> {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::AsItStands(text) => text,
            Self::Unescaped(text) => text,
        }
    }

    /// With Jackson's escapes.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::AsItStands(text) => {
                debug_assert!(is_plain(text) || std::str::from_utf8(text).is_ok_and(|text| !text.contains(is_escaped)));
                out.push(b'"');
                out.extend_from_slice(text);
                out.push(b'"');
            }
            Self::Unescaped(text) => write_string(text, out),
        }
    }

    pub(super) fn plain(&self) -> String {
        if let Ok(text) = std::str::from_utf8(self.bytes()) {
            return text.to_owned();
        }
        let mut utf8 = Vec::with_capacity(self.bytes().len());
        without_lone_surrogates(self.bytes(), |part| utf8.extend_from_slice(part));
        String::from_utf8_lossy(&utf8).into_owned()
    }
}

/// What JSON has in escapes only.
fn is_escaped(character: char) -> bool {
    character < ' ' || character == '"' || character == '\\'
}

/// Hands out the text in parts, with `?` for each lone surrogate, which is what Java's UTF-8 encoder makes of it.
pub(super) fn without_lone_surrogates(text: &[u8], mut write: impl FnMut(&[u8])) {
    let mut rest = text;
    // A surrogate is ED A0..BF xx; no other character has such a second byte.
    while let Some(at) = rest.windows(2).position(|pair| pair[0] == 0xED && pair[1] >= 0xA0) {
        write(&rest[..at]);
        write(b"?");
        rest = rest.get(at + 3..).unwrap_or_default();
    }
    write(rest);
}

/// Writes a JSON string with Jackson's escapes: upper-case hex below 0x20, everything else as it is.
pub(super) fn write_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    if is_plain(text) {
        out.extend_from_slice(text);
    } else {
        write_escaped(text, out);
    }
    out.push(b'"');
}

/// Whether nothing in the text needs an escape or can be a surrogate. It always looks at the whole, so that many bytes are looked at together.
fn is_plain(text: &[u8]) -> bool {
    text.iter().fold(true, |plain, &byte| plain & (byte >= 0x20) & (byte != b'"') & (byte != b'\\') & (byte != 0xED))
}

fn write_escaped(text: &[u8], out: &mut Vec<u8>) {
    without_lone_surrogates(text, |part| {
        let mut done = 0;
        for (at, &byte) in part.iter().enumerate() {
            let short = match byte {
                b'"' => b'"',
                b'\\' => b'\\',
                0x08 => b'b',
                b'\t' => b't',
                b'\n' => b'n',
                0x0C => b'f',
                b'\r' => b'r',
                0x00..=0x1F => b'u',
                _ => continue,
            };
            out.extend_from_slice(&part[done..at]);
            out.extend_from_slice(&[b'\\', short]);
            if short == b'u' {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                out.extend_from_slice(&[b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xF)]]);
            }
            done = at + 1;
        }
        out.extend_from_slice(&part[done..]);
    });
}
