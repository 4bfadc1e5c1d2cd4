//! From the first byte to an open connection.

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

use super::error::{AmqpError, DialError, Malformed};
use super::frame::{self, FRAME_MAX, FRAME_MIN, Parsed};
use super::method::{CLOSE_OK, Incoming, OPEN, START_OK, TUNE_OK, Value};
use super::uri::Mechanism;
use super::write::{long, method, short, table};

/// The reply code of a broker that is shutting down.
const CONNECTION_FORCED: u16 = 320;
/// How many channels we ask for, if the broker sets no limit.
const CHANNELS: u16 = 2047;

/// Who we are.
pub(crate) struct Credentials {
    pub(crate) mechanism: Mechanism,
    pub(crate) user: String,
    pub(crate) password: Zeroizing<String>,
}

/// What we say at the beginning.
pub(crate) struct Hello<'a> {
    pub(crate) credentials: Credentials,
    pub(crate) vhost: &'a str,
    /// What the broker's operator sees this connection as.
    pub(crate) name: &'a str,
    /// In seconds; 0 for none.
    pub(crate) heartbeat: u16,
    pub(crate) frame_max: Option<u32>,
}

/// What both sides agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tuned {
    pub(super) channel_max: u16,
    pub(super) frame_max: u32,
    pub(super) heartbeat: u16,
}

/// Opens the connection over a socket; what it read too much of is left in `read`.
pub(super) async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut S,
    read: &mut BytesMut,
    hello: &Hello<'_>,
) -> Result<Tuned, DialError> {
    socket.write_all(b"AMQP\x00\x00\x09\x01").await?;
    socket.flush().await?;
    let mechanism = match hello.credentials.mechanism {
        Mechanism::Plain => "PLAIN",
        Mechanism::External => "EXTERNAL",
    };
    next(socket, read, |incoming| match incoming {
        Incoming::Start { mechanisms } => {
            let offered = mechanisms.split(|byte| *byte == b' ');
            if offered.into_iter().any(|name| name == mechanism.as_bytes()) {
                return Ok(());
            }
            let text = format!("it does not offer the mechanism {mechanism}");
            Err(DialError::Refused { text })
        }
        _ => Err(Malformed("it did not begin with connection.start").into()),
    })
    .await?;
    send(socket, |out| start_ok(out, hello, mechanism)).await?;
    let tuned = next(socket, read, |incoming| match incoming {
        Incoming::Tune { channel_max, frame_max, heartbeat } => {
            agree(hello, Tuned { channel_max, frame_max, heartbeat })
        }
        Incoming::Secure => {
            let text = "it asks for more than the mechanism gives".to_owned();
            Err(DialError::Refused { text })
        }
        _ => Err(Malformed("it did not go on with connection.tune").into()),
    })
    .await?;
    send(socket, |out| {
        method(out, 0, TUNE_OK, |out| {
            out.extend_from_slice(&tuned.channel_max.to_be_bytes());
            out.extend_from_slice(&tuned.frame_max.to_be_bytes());
            out.extend_from_slice(&tuned.heartbeat.to_be_bytes());
            Ok(())
        })?;
        method(out, 0, OPEN, |out| {
            short(out, hello.vhost)?;
            out.extend_from_slice(&[0, 0]);
            Ok(())
        })
    })
    .await?;
    next(socket, read, |incoming| match incoming {
        Incoming::OpenOk => Ok(()),
        _ => Err(Malformed("it did not open the connection").into()),
    })
    .await?;
    Ok(tuned)
}

/// The smaller of what both want, where 0 is no limit.
fn agree(hello: &Hello<'_>, offered: Tuned) -> Result<Tuned, DialError> {
    let smaller = |ours: u32, theirs: u32| if theirs == 0 { ours } else { ours.min(theirs) };
    let ours = hello.frame_max.filter(|limit| *limit != 0).unwrap_or(FRAME_MAX);
    let frame_max = smaller(ours.clamp(FRAME_MIN, 16 << 20), offered.frame_max);
    if frame_max < FRAME_MIN {
        return Err(Malformed("it wants frames that are smaller than the protocol allows").into());
    }
    let channel_max = smaller(CHANNELS.into(), offered.channel_max.into());
    let heartbeat = match hello.heartbeat {
        // Who wants none gets none: the broker would end a connection that is silent.
        0 => 0,
        ours => smaller(ours.into(), offered.heartbeat.into()),
    };
    Ok(Tuned {
        channel_max: u16::try_from(channel_max).unwrap_or(CHANNELS),
        frame_max,
        heartbeat: u16::try_from(heartbeat).unwrap_or(hello.heartbeat),
    })
}

fn start_ok(out: &mut Vec<u8>, hello: &Hello<'_>, mechanism: &str) -> Result<(), AmqpError> {
    let capabilities = [
        "publisher_confirms",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "authentication_failure_close",
    ]
    .map(|name| (name, Value::Bool(true)));
    let properties = [
        ("product", Value::Text("bulla")),
        ("version", Value::Text(env!("CARGO_PKG_VERSION"))),
        ("connection_name", Value::Text(hello.name)),
        ("capabilities", Value::Table(&capabilities)),
    ];
    let response = match hello.credentials.mechanism {
        Mechanism::Plain => {
            let (user, password) = (&hello.credentials.user, &hello.credentials.password);
            // Its final size at once: nothing of a password stays behind where it grew.
            let mut response = Zeroizing::new(Vec::with_capacity(user.len() + password.len() + 2));
            for part in [user, &**password] {
                response.push(0);
                response.extend_from_slice(part.as_bytes());
            }
            response
        }
        Mechanism::External => Zeroizing::default(),
    };
    method(out, 0, START_OK, |out| {
        table(out, &properties)?;
        short(out, mechanism)?;
        long(out, &response);
        short(out, "en_US")
    })
}

async fn send<S: AsyncWrite + Unpin>(
    socket: &mut S,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), AmqpError>,
) -> Result<(), DialError> {
    // Room for all of it at once, for the same reason.
    let mut out = Zeroizing::new(Vec::with_capacity(4096));
    write(&mut out).map_err(|error| DialError::Refused { text: error.to_string() })?;
    socket.write_all(&out).await?;
    Ok(socket.flush().await?)
}

/// What `take` makes of the broker's next method, unless that is the end.
async fn next<S: AsyncRead + AsyncWrite + Unpin, T>(
    socket: &mut S,
    read: &mut BytesMut,
    take: impl FnOnce(Incoming<'_>) -> Result<T, DialError>,
) -> Result<T, DialError> {
    loop {
        let before = read.len();
        let room = match frame::parse(read, FRAME_MAX)? {
            Parsed::Frame(frame, rest) => {
                let used = before - rest.len();
                if frame.kind == frame::HEARTBEAT {
                    read.advance(used);
                    continue;
                }
                if frame.kind != frame::METHOD || frame.channel != 0 {
                    return Err(Malformed("it began with something else than a greeting").into());
                }
                let incoming = Incoming::parse(frame.payload)?;
                if let Incoming::Close { code, text } = incoming {
                    let text = text.to_string();
                    // It waits for no more than that.
                    let _ = send(socket, |out| method(out, 0, CLOSE_OK, |_| Ok(()))).await;
                    return Err(if code == CONNECTION_FORCED {
                        DialError::Ended { text }
                    } else {
                        DialError::Refused { text }
                    });
                }
                let taken = take(incoming)?;
                read.advance(used);
                return Ok(taken);
            }
            Parsed::Incomplete(size) => size - before.min(size),
        };
        read.reserve(room.max(4096));
        if socket.read_buf(read).await? == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(heartbeat: u16) -> Hello<'static> {
        let credentials = Credentials {
            mechanism: Mechanism::Plain,
            user: "someone".to_owned(),
            password: Zeroizing::new("s3cret".to_owned()),
        };
        Hello { credentials, vhost: "/", name: "test", heartbeat, frame_max: None }
    }

    /// What a broker says, one piece for each read.
    async fn meet(says: &'static [&'static [u8]]) -> Result<Tuned, DialError> {
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 16);
        for part in says {
            theirs.write_all(part).await.unwrap();
        }
        theirs.shutdown().await.unwrap();
        open(&mut ours, &mut BytesMut::new(), &hello(10)).await
    }

    const GREETING: &[u8] =
        b"\x01\0\0\0\0\0\x1f\0\x0a\0\x0a\0\x09\0\0\0\0\0\0\0\x08PLAIN XX\0\0\0\x05en_US\xce";
    const TUNING: &[u8] = b"\x01\0\0\0\0\0\x0c\0\x0a\0\x1e\x07\xff\0\x02\0\0\0\x3c\xce";
    const OPENED: &[u8] = b"\x01\0\0\0\0\0\x05\0\x0a\0\x29\0\xce";

    #[tokio::test]
    async fn both_agree_on_the_smaller() {
        let tuned = meet(&[GREETING, TUNING, OPENED]).await.unwrap();
        assert_eq!(tuned, Tuned { channel_max: 2047, frame_max: FRAME_MAX, heartbeat: 10 });
        let offered = Tuned { channel_max: 0, frame_max: 0, heartbeat: 0 };
        let tuned = agree(&hello(10), offered).unwrap();
        assert_eq!(tuned, Tuned { channel_max: 2047, frame_max: FRAME_MAX, heartbeat: 10 });
        assert_eq!(agree(&hello(0), Tuned { heartbeat: 60, ..offered }).unwrap().heartbeat, 0);
        assert!(agree(&hello(10), Tuned { frame_max: 100, ..offered }).is_err());
    }

    #[tokio::test]
    async fn a_broker_that_is_none_is_told_from_one_that_refuses() {
        const REFUSED: &[u8] = b"\x01\0\0\0\0\0\x13\0\x0a\0\x32\x01\x93\x08REFUSED!\0\0\0\0\xce";
        let error = meet(&[GREETING, REFUSED]).await.unwrap_err();
        assert!(matches!(error, DialError::Refused { text } if text == "REFUSED!"));
        let other = meet(&[b"AMQP\x00\x00\x09\x00"]).await.unwrap_err();
        assert!(matches!(other, DialError::Protocol(_)), "{other}");
        let http = meet(&[b"HTTP/1.1 400 Bad Request\r\n\r\n"]).await.unwrap_err();
        assert!(matches!(http, DialError::Protocol(_)), "{http}");
        let ended = meet(&[GREETING]).await.unwrap_err();
        assert!(matches!(ended, DialError::Io(_)), "{ended}");
        let early = meet(&[OPENED]).await.unwrap_err();
        assert!(matches!(early, DialError::Protocol(_)), "{early}");
    }

    #[tokio::test]
    async fn a_mechanism_that_is_not_offered_is_not_tried() {
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 16);
        theirs.write_all(GREETING).await.unwrap();
        let mut hello = hello(10);
        hello.credentials.mechanism = Mechanism::External;
        let error = open(&mut ours, &mut BytesMut::new(), &hello).await.unwrap_err();
        assert!(error.to_string().contains("EXTERNAL"), "{error}");
        drop(ours);
        let mut said = Vec::new();
        theirs.read_to_end(&mut said).await.unwrap();
        assert_eq!(said, b"AMQP\x00\x00\x09\x01", "and no credentials were sent");
    }
}
