//! The order of a Java `HashMap`, in which the Java connector writes attributes: by bucket, and within a bucket as inserted. Where a bucket is crowded,
//! [`java_map`](super::java_map) tells.

/// `String.hashCode`, spread as `HashMap.hash` does.
pub(super) fn java_hash(name: &[u8]) -> u32 {
    let hash = |hash: u32, unit: u32| hash.wrapping_mul(31).wrapping_add(unit);
    let hash = if name.is_ascii() {
        name.iter().fold(0, |sum, byte| hash(sum, u32::from(*byte)))
    } else {
        utf16(name).fold(0, |sum, unit| hash(sum, u32::from(unit)))
    };
    hash ^ (hash >> 16)
}

/// UTF-16 units, of a lone surrogate too.
pub(super) fn utf16(name: &[u8]) -> impl Iterator<Item = u16> {
    wtf8_characters(name).flat_map(|chunk| {
        let mut units = [0; 2];
        let count = match std::str::from_utf8(chunk).ok().and_then(|text| text.chars().next()) {
            Some(character) => character.encode_utf16(&mut units).len(),
            None => {
                units[0] = 0xD000 | (u16::from(chunk[1] & 0x3F) << 6) | u16::from(chunk[2] & 0x3F);
                1
            }
        };
        units.into_iter().take(count)
    })
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
