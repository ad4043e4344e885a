//! The order of a Java `HashMap`, in which the Java connector writes attributes. Not imitated: a bucket of more than eight
//! colliding names, where Java grows the table early or makes a tree of it.

/// `String.hashCode`, spread as `HashMap.hash` does: over UTF-16 units, of a lone surrogate too.
pub(super) fn java_hash(name: &[u8]) -> u32 {
    let mut hash = 0u32;
    let mut add = |unit: u16| hash = hash.wrapping_mul(31).wrapping_add(u32::from(unit));
    for chunk in wtf8_characters(name) {
        match std::str::from_utf8(chunk).ok().and_then(|text| text.chars().next()) {
            Some(character) => character.encode_utf16(&mut [0; 2]).iter().copied().for_each(&mut add),
            None => add(0xD000 | (u16::from(chunk[1] & 0x3F) << 6) | u16::from(chunk[2] & 0x3F)),
        }
    }
    hash ^ (hash >> 16)
}

/// The byte sequences of the single characters of UTF-8 or WTF-8 text.
fn wtf8_characters(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.chunk_by(|_, next| next & 0xC0 == 0x80)
}

/// How many buckets a `HashMap` has after so many insertions: 16, doubled each time that three quarters are exceeded.
pub(super) fn java_buckets(entries: usize) -> u32 {
    let mut buckets = 16;
    while entries > buckets / 4 * 3 {
        buckets *= 2;
    }
    u32::try_from(buckets).unwrap_or(1 << 31)
}
