//! A message's id as Pulsar's clients serialise it.

use prost::Message;
use pulsar::message::proto::MessageIdData;

/// Ledger, entry, place in the batch and the batch's size from what `MessageId.toByteArray` of the Java client makes: `MessageIdData` of Pulsar's `PulsarApi.proto`.
///
/// # Errors
/// The bytes are no message id.
pub fn decode(bytes: &[u8]) -> Result<(u64, u64, Option<u32>, u32), prost::DecodeError> {
    let id = MessageIdData::decode(bytes)?;
    // -1: none.
    let index = id.batch_index.and_then(|index| u32::try_from(index).ok());
    // Old clients do not tell the size: a batch that ends with this message, then.
    let least = index.map_or(1, |index| index.saturating_add(1));
    let size = id.batch_size.and_then(|size| u32::try_from(size).ok()).unwrap_or_default();
    Ok((id.ledger_id, id.entry_id, index, size.max(least)))
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn a_message_of_a_batch_is_told_from_the_others() {
        assert_eq!(decode(&[8, 7, 16, 0, 32, 5]), Ok((7, 0, Some(5), 6)));
        assert_eq!(decode(&[8, 7, 16, 0, 32, 5, 48, 9]), Ok((7, 0, Some(5), 9)));
        // With the first chunk's id, as chunked messages have it.
        assert_eq!(decode(&[8, 7, 16, 0, 58, 4, 8, 9, 16, 1, 32, 5]), Ok((7, 0, Some(5), 6)));
        // As the Java client writes the lack of a place: -1 in all 64 bits.
        assert_eq!(decode(&[8, 7, 16, 0, 32, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]), Ok((7, 0, None, 1)));
    }

    #[test]
    fn what_is_cut_off_or_too_long_is_an_error() {
        decode(&[8, 7, 16, 0, 58, 4, 8]).expect_err("too short");
        decode(&[0xff; 12]).expect_err("too long");
    }
}
