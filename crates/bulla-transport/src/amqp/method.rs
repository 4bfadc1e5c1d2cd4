//! Methods: what is asked and answered.

use std::sync::Arc;

use super::error::{AmqpError, Malformed};
use super::read::Cursor;
use super::write::{bits, short, table};

/// Class and number of a method.
pub(super) type MethodId = (u16, u16);

pub(super) const START: MethodId = (10, 10);
pub(super) const START_OK: MethodId = (10, 11);
pub(super) const SECURE: MethodId = (10, 20);
pub(super) const TUNE: MethodId = (10, 30);
pub(super) const TUNE_OK: MethodId = (10, 31);
pub(super) const OPEN: MethodId = (10, 40);
pub(super) const OPEN_OK: MethodId = (10, 41);
pub(super) const CLOSE: MethodId = (10, 50);
pub(super) const CLOSE_OK: MethodId = (10, 51);
pub(super) const BLOCKED: MethodId = (10, 60);
pub(super) const UNBLOCKED: MethodId = (10, 61);
pub(super) const CHANNEL_OPEN: MethodId = (20, 10);
pub(super) const CHANNEL_FLOW: MethodId = (20, 20);
pub(super) const CHANNEL_FLOW_OK: MethodId = (20, 21);
pub(super) const CHANNEL_CLOSE: MethodId = (20, 40);
pub(super) const CHANNEL_CLOSE_OK: MethodId = (20, 41);
pub(super) const EXCHANGE_DECLARE: MethodId = (40, 10);
pub(super) const EXCHANGE_DELETE: MethodId = (40, 20);
pub(super) const QUEUE_DECLARE: MethodId = (50, 10);
pub(super) const QUEUE_BIND: MethodId = (50, 20);
pub(super) const QUEUE_DELETE: MethodId = (50, 40);
pub(super) const QOS: MethodId = (60, 10);
pub(super) const CONSUME: MethodId = (60, 20);
pub(super) const CANCEL: MethodId = (60, 30);
pub(super) const CANCEL_OK: MethodId = (60, 31);
pub(super) const RETURN: MethodId = (60, 50);
pub(super) const DELIVER: MethodId = (60, 60);
pub(super) const ACK: MethodId = (60, 80);
pub(super) const REJECT: MethodId = (60, 90);
pub(super) const NACK: MethodId = (60, 120);
pub(super) const CONFIRM_SELECT: MethodId = (85, 10);

/// The answer to a method that is answered: the next number of its class, in all of them.
pub(super) fn answer_to((class, method): MethodId) -> MethodId {
    (class, method + 1)
}

/// A value in a table of ours.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'a> {
    Bool(bool),
    Number(i64),
    Text(&'a str),
    Table(&'a [(&'a str, Value<'a>)]),
}

/// An exchange to declare, or to look for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExchangeDeclare<'a> {
    pub(crate) name: &'a str,
    /// `topic`, `fanout` …
    pub(crate) kind: &'a str,
    pub(crate) passive: bool,
    pub(crate) durable: bool,
    pub(crate) auto_delete: bool,
}

impl ExchangeDeclare<'_> {
    pub(super) fn write(&self, out: &mut Vec<u8>) -> Result<(), AmqpError> {
        out.extend_from_slice(&[0, 0]);
        short(out, self.name)?;
        short(out, self.kind)?;
        bits(out, &[self.passive, self.durable, self.auto_delete, false, false]);
        table(out, &[])
    }
}

/// A queue to declare, or to look for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct QueueDeclare<'a> {
    /// Empty for a name of the broker's choice.
    pub(crate) name: &'a str,
    pub(crate) passive: bool,
    pub(crate) durable: bool,
    pub(crate) exclusive: bool,
    pub(crate) auto_delete: bool,
    pub(crate) arguments: &'a [(&'a str, Value<'a>)],
}

impl QueueDeclare<'_> {
    pub(super) fn write(&self, out: &mut Vec<u8>) -> Result<(), AmqpError> {
        out.extend_from_slice(&[0, 0]);
        short(out, self.name)?;
        bits(out, &[self.passive, self.durable, self.exclusive, self.auto_delete, false]);
        table(out, self.arguments)
    }
}

/// What the broker says of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueueState {
    pub(crate) name: String,
    pub(crate) messages: u32,
    pub(crate) consumers: u32,
}

/// What came with an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    Queue(QueueState),
    /// The consumer's tag.
    Consumer(String),
}

/// A method that arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming<'a> {
    Start {
        mechanisms: &'a [u8],
    },
    Secure,
    Tune {
        channel_max: u16,
        frame_max: u32,
        heartbeat: u16,
    },
    OpenOk,
    Close {
        code: u16,
        text: Arc<str>,
    },
    CloseOk,
    Blocked {
        why: String,
    },
    Unblocked,
    ChannelClose {
        code: u16,
        text: Arc<str>,
    },
    Flow {
        active: bool,
    },
    Cancelled {
        tag: &'a [u8],
        nowait: bool,
    },
    Return {
        exchange: &'a [u8],
        routing_key: &'a [u8],
    },
    Deliver {
        tag: u64,
        redelivered: bool,
        exchange: &'a [u8],
        routing_key: &'a [u8],
    },
    Confirm {
        tag: u64,
        multiple: bool,
        taken: bool,
    },
    /// The answer to something that was asked, which has this id.
    Answer(MethodId, Answer),
}

impl<'a> Incoming<'a> {
    pub(super) fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Cursor::new(payload);
        let id = (r.u16()?, r.u16()?);
        let parsed = match id {
            DELIVER => {
                r.short()?;
                let (tag, redelivered) = (r.u64()?, r.u8()? & 1 != 0);
                Self::Deliver { tag, redelivered, exchange: r.short()?, routing_key: r.short()? }
            }
            ACK => Self::Confirm { tag: r.u64()?, multiple: r.u8()? & 1 != 0, taken: true },
            NACK => Self::Confirm { tag: r.u64()?, multiple: r.u8()? & 1 != 0, taken: false },
            RETURN => {
                r.u16()?;
                r.short()?;
                Self::Return { exchange: r.short()?, routing_key: r.short()? }
            }
            START => {
                if (r.u8()?, r.u8()?) != (0, 9) {
                    return Err(Malformed("it speaks another version of the protocol"));
                }
                r.long()?;
                let mechanisms = r.long()?;
                r.long()?;
                Self::Start { mechanisms }
            }
            SECURE => {
                r.long()?;
                Self::Secure
            }
            TUNE => Self::Tune { channel_max: r.u16()?, frame_max: r.u32()?, heartbeat: r.u16()? },
            OPEN_OK => {
                r.short()?;
                Self::OpenOk
            }
            CLOSE | CHANNEL_CLOSE => {
                let (code, text) = (r.u16()?, r.text()?.into());
                r.u32()?;
                if id == CLOSE {
                    Self::Close { code, text }
                } else {
                    Self::ChannelClose { code, text }
                }
            }
            CLOSE_OK => Self::CloseOk,
            BLOCKED => Self::Blocked { why: r.text()? },
            UNBLOCKED => Self::Unblocked,
            CHANNEL_FLOW => Self::Flow { active: r.u8()? & 1 != 0 },
            CANCEL => Self::Cancelled { tag: r.short()?, nowait: r.u8()? & 1 != 0 },
            other => Self::Answer(other, answer(other, &mut r)?),
        };
        r.end()?;
        Ok(parsed)
    }
}

fn answer(id: MethodId, r: &mut Cursor<'_>) -> Result<Answer, Malformed> {
    const CHANNEL_OPEN_OK: MethodId = (20, 11);
    const QUEUE_DECLARE_OK: MethodId = (50, 11);
    const QUEUE_DELETE_OK: MethodId = (50, 41);
    const CONSUME_OK: MethodId = (60, 21);
    match id {
        CHANNEL_OPEN_OK => {
            r.long()?;
        }
        QUEUE_DECLARE_OK => {
            let (name, messages, consumers) = (r.text()?, r.u32()?, r.u32()?);
            return Ok(Answer::Queue(QueueState { name, messages, consumers }));
        }
        QUEUE_DELETE_OK => {
            r.u32()?;
        }
        CONSUME_OK => return Ok(Answer::Consumer(r.text()?)),
        CANCEL_OK => {
            r.short()?;
        }
        // The others have no arguments; one that does not exist was not asked for either.
        _ => {}
    }
    Ok(Answer::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::frame::{Parsed, parse};
    use crate::amqp::write::method;

    #[test]
    fn what_is_cut_short_or_longer_is_refused() {
        let deliver = b"\0\x3c\0\x3c\x03tag\0\0\0\0\0\0\0\x09\x01\x01e\x02kk";
        let wanted =
            Incoming::Deliver { tag: 9, redelivered: true, exchange: b"e", routing_key: b"kk" };
        assert_eq!(Incoming::parse(deliver), Ok(wanted));
        let close = b"\0\x14\0\x28\x01\x93\x04text\0\0\0\0";
        let refused = Incoming::ChannelClose { code: 403, text: "text".into() };
        assert_eq!(Incoming::parse(close), Ok(refused));
        let declared = b"\0\x32\0\x0b\x01q\0\0\0\x02\0\0\0\x03";
        let state = QueueState { name: "q".to_owned(), messages: 2, consumers: 3 };
        let answer = Incoming::Answer(answer_to(QUEUE_DECLARE), Answer::Queue(state));
        assert_eq!(Incoming::parse(declared), Ok(answer));
        for whole in [&deliver[..], close, declared] {
            for cut in 0..whole.len() {
                assert!(Incoming::parse(&whole[..cut]).is_err(), "{whole:?} up to {cut}");
            }
            assert!(Incoming::parse(&[whole, &[0]].concat()).is_err(), "{whole:?}");
        }
    }

    #[test]
    fn a_declaration_is_written_as_the_protocol_says() {
        let declare = QueueDeclare {
            name: "q",
            durable: true,
            auto_delete: true,
            arguments: &[("n", Value::Number(1)), ("t", Value::Text("x"))],
            ..QueueDeclare::default()
        };
        let mut out = Vec::new();
        method(&mut out, 1, QUEUE_DECLARE, |out| declare.write(out)).unwrap();
        let Parsed::Frame(frame, _) = parse(&out, 4096).unwrap() else { panic!() };
        let arguments = b"\0\0\0\x13\x01nl\0\0\0\0\0\0\0\x01\x01tS\0\0\0\x01x";
        let wanted = [b"\0\x32\0\x0a\0\0\x01q\x0a", &arguments[..]].concat();
        assert_eq!(frame.payload, wanted);
    }
}
