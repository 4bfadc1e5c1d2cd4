//! Private instances of real servers.
