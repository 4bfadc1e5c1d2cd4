//! Putting fields into a buffer.

use super::error::AmqpError;
use super::frame::{END, METHOD};
use super::method::Value;

/// The method frame of `class` and `method` on `channel`, whose arguments `body` writes. Nothing
/// stays in the buffer of one that can't be written.
pub(super) fn method(
    out: &mut Vec<u8>,
    channel: u16,
    (class, method): (u16, u16),
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), AmqpError>,
) -> Result<(), AmqpError> {
    let start = out.len();
    let mark = open_frame(out, METHOD, channel);
    out.extend_from_slice(&class.to_be_bytes());
    out.extend_from_slice(&method.to_be_bytes());
    let written = body(out);
    match written {
        Ok(()) => close_frame(out, mark),
        Err(_) => out.truncate(start),
    }
    written
}

/// Starts a frame; where its payload begins.
pub(super) fn open_frame(out: &mut Vec<u8>, kind: u8, channel: u16) -> usize {
    let [high, low] = channel.to_be_bytes();
    out.extend_from_slice(&[kind, high, low, 0, 0, 0, 0]);
    out.len()
}

/// Ends the frame whose payload begins at `mark`.
pub(super) fn close_frame(out: &mut Vec<u8>, mark: usize) {
    // Frames are smaller than what was agreed, which is a u32.
    let length = u32::try_from(out.len().saturating_sub(mark)).unwrap_or(u32::MAX);
    set_length(out, mark, length);
    out.push(END);
}

fn set_length(out: &mut [u8], mark: usize, length: u32) {
    if let Some(place) = mark.checked_sub(4).and_then(|at| out.get_mut(at..mark)) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

pub(super) fn short(out: &mut Vec<u8>, text: &str) -> Result<(), AmqpError> {
    out.push(u8::try_from(text.len()).map_err(|_| AmqpError::NameTooLong)?);
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

pub(super) fn long(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

pub(super) fn table(out: &mut Vec<u8>, entries: &[(&str, Value<'_>)]) -> Result<(), AmqpError> {
    out.extend_from_slice(&[0; 4]);
    let mark = out.len();
    for (key, value) in entries {
        short(out, key)?;
        match value {
            Value::Bool(value) => out.extend_from_slice(&[b't', u8::from(*value)]),
            Value::Number(value) => {
                out.push(b'l');
                out.extend_from_slice(&value.to_be_bytes());
            }
            Value::Text(value) => {
                out.push(b'S');
                long(out, value.as_bytes());
            }
            Value::Table(entries) => {
                out.push(b'F');
                table(out, entries)?;
            }
        }
    }
    let length = u32::try_from(out.len().saturating_sub(mark)).unwrap_or(u32::MAX);
    set_length(out, mark, length);
    Ok(())
}

/// The first eight of `bits`, the first the lowest.
pub(super) fn bits(out: &mut Vec<u8>, bits: &[bool]) {
    out.push(bits.iter().rev().fold(0, |byte, bit| (byte << 1) | u8::from(*bit)));
}
