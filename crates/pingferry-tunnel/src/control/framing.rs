//! Splits a stream into messages: the standard framing of Cap'n Proto streams, unpacked.
//!
//! A message begins with the number of its segments minus one and the length of each in words, all of 32 bits and little endian,
//! padded to a whole word. The segments follow.

use super::ControlError;

/// The longest message, in bytes, with its segment table.
pub const MAX_MESSAGE: usize = 64 << 10;
/// The largest number of segments of a message. Stock ends send one.
const MAX_SEGMENTS: usize = 64;
const WORD: usize = 8;

/// Bytes of a stream that are not yet a whole message.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: Vec<u8>,
}

impl Frames {
    /// Adds bytes of the stream. All whole messages should have been taken before, so that the buffer stays short.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes the next whole message, with its segment table. `None` if more bytes are needed.
    ///
    /// # Errors
    /// The message is too long. Then nothing more can be read from the stream.
    pub fn next_frame(&mut self) -> Result<Option<Vec<u8>>, ControlError> {
        match frame_len(&self.buffer)? {
            Some(len) if len <= self.buffer.len() => {
                let rest = self.buffer.split_off(len);
                Ok(Some(std::mem::replace(&mut self.buffer, rest)))
            }
            _ => Ok(None),
        }
    }

    /// Whether no part of a message is waiting.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

/// The length of the message that `bytes` begin with. `None` if its segment table is not complete.
fn frame_len(bytes: &[u8]) -> Result<Option<usize>, ControlError> {
    let mut numbers = bytes.chunks_exact(4).map_while(|number| number.try_into().ok().map(u32::from_le_bytes));
    let Some(last_segment) = numbers.next() else { return Ok(None) };
    let segments = usize::try_from(last_segment).unwrap_or(usize::MAX).saturating_add(1);
    if segments > MAX_SEGMENTS {
        return Err(ControlError::TooLong);
    }
    let table = (4 * (1 + segments)).next_multiple_of(WORD);
    if bytes.len() < table {
        return Ok(None);
    }
    let body = numbers.take(segments).map(|words| (words as usize).saturating_mul(WORD)).fold(0, usize::saturating_add);
    let len = table.saturating_add(body);
    if len > MAX_MESSAGE { Err(ControlError::TooLong) } else { Ok(Some(len)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &[u8] = b"\0\0\0\0\x01\0\0\0onesegm.";
    const TWO: &[u8] = b"\x01\0\0\0\x01\0\0\0\x01\0\0\0\0\0\0\0onesegm.another.";

    #[test]
    fn messages_are_found_however_the_stream_is_cut() {
        let stream = [ONE, TWO, ONE].concat();
        for piece in 1..stream.len() {
            let (mut frames, mut found) = (Frames::default(), Vec::new());
            for bytes in stream.chunks(piece) {
                frames.push(bytes);
                while let Some(frame) = frames.next_frame().unwrap() {
                    found.push(frame);
                }
            }
            assert_eq!(found, [ONE, TWO, ONE]);
            assert!(frames.is_empty());
        }
    }

    #[test]
    fn the_longest_message_passes_and_a_longer_one_ends_the_stream() {
        let header = |words: u32| [0u32.to_le_bytes(), words.to_le_bytes()].concat();
        let words = (MAX_MESSAGE / 8 - 1) as u32;
        let mut frames = Frames::default();
        frames.push(&header(words));
        assert!(frames.next_frame().unwrap().is_none());
        for words in [words + 1, u32::MAX] {
            let mut frames = Frames::default();
            frames.push(&header(words));
            assert!(matches!(frames.next_frame(), Err(ControlError::TooLong)), "{words}");
        }
        for last_segment in [64u32, u32::MAX] {
            let mut frames = Frames::default();
            frames.push(&last_segment.to_le_bytes());
            assert!(matches!(frames.next_frame(), Err(ControlError::TooLong)), "{last_segment}");
        }
    }
}
