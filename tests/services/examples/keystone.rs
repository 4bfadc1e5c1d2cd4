//! A private Keystone for what is not written in Rust: prints its address, reads a line with the address
//! of a messaging service, puts that into the catalogue, prints `ready`, and ends with its input.
//!
//! There are the users `ada` (roles `member` and `messaging`) and `bob` (`member`), each with a project
//! of its own (`analytics`, `builds`), and `bulla`, who validates tokens. Passwords are names, twice.

use std::error::Error;
use std::io::{BufRead, Write, stdin, stdout};

use bulla_services::Keystone;

fn main() -> Result<(), Box<dyn Error>> {
    let keystone = Keystone::start()?;
    keystone.add("bulla", "service", &["service"])?;
    keystone.add("ada", "analytics", &["member", "messaging"])?;
    keystone.add("bob", "builds", &["member"])?;
    let mut out = stdout();
    writeln!(out, "{}", keystone.url())?;
    out.flush()?;
    let mut lines = stdin().lock().lines();
    if let Some(url) = lines.next().transpose()? {
        keystone.offer("messaging", url.trim())?;
        writeln!(out, "ready")?;
        out.flush()?;
        for line in lines {
            line?;
        }
    }
    Ok(())
}
