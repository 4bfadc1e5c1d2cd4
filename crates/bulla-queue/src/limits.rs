//! How much a request may ask for. The numbers are Zaqar's.

use std::ops::RangeInclusive;

/// Bounds and defaults of the service. Times are in seconds, sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest body of a request that posts messages.
    pub max_post: usize,
    /// Largest metadata of a queue.
    pub max_metadata: usize,
    /// What a message may ask to live.
    pub message_ttl: RangeInclusive<u32>,
    /// How long a message lives that does not ask.
    pub default_message_ttl: u32,
    /// How long a message may be held back.
    pub delay: RangeInclusive<u32>,
    /// How long a claim may last; operators may allow less than Zaqar's minute.
    pub claim_ttl: RangeInclusive<u32>,
    /// How long a claim lasts that does not ask.
    pub default_claim_ttl: u32,
    /// How much longer than its claim a claimed message lives.
    pub grace: RangeInclusive<u32>,
    /// The same of a claim that does not ask.
    pub default_grace: u32,
    /// Entries on a page unless asked, and at the most.
    pub default_page: usize,
    /// See [`Limits::default_page`]; also of ids in a request, of claims and of pops.
    pub max_page: usize,
    /// Longest `wait` of a request for messages.
    pub max_wait: u32,
    /// Longest project id.
    pub max_project: usize,
    /// Longest name of a queue.
    pub max_name: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_post: 262_144,
            max_metadata: 65_536,
            message_ttl: 60..=1_209_600,
            default_message_ttl: 3600,
            delay: 0..=900,
            claim_ttl: 60..=43_200,
            default_claim_ttl: 300,
            grace: 60..=43_200,
            default_grace: 60,
            default_page: 10,
            max_page: 20,
            max_wait: 30,
            max_project: 256,
            max_name: 64,
        }
    }
}
