//! What a receiver remembers.
