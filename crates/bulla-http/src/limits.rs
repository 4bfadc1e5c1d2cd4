//! How much one client may ask of a listener.

use std::time::Duration;

/// Largest request body unless told otherwise, in bytes: 16 MiB of content, the third that base64
/// adds to it, and 1 MiB of JSON around it.
pub const DEFAULT_MAX_BODY: usize = (16 << 20) / 3 * 4 + (1 << 20);

/// What a listener grants a client before it hangs up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest request body, in bytes; a larger one is answered with 413.
    pub max_body: usize,
    /// Connections served at a time; more wait in the kernel's queue.
    pub max_connections: usize,
    /// Time for the TLS handshake.
    pub handshake: Duration,
    /// Time for a request's header to arrive in full. An idle kept-alive connection is closed
    /// after the same time.
    pub header: Duration,
    /// Time for a request's body to arrive in full.
    pub body: Duration,
    /// How long requests in flight may take to end after shutdown began.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body: DEFAULT_MAX_BODY,
            max_connections: 1024,
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(15),
            body: Duration::from_secs(60),
            drain: Duration::from_secs(30),
        }
    }
}
