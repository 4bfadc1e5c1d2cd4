//! `bulla tap`.

use bulla_api::{TapEvent, TapItem};
use futures_util::StreamExt;
use serde_json::json;

use super::api_client;
use crate::cli::TapArgs;
use crate::failure::Result;
use crate::output::{Output, date};
use crate::settings::Home;

pub(crate) async fn run(home: &Home, args: &TapArgs, out: Output) -> Result<()> {
    let client = api_client(home, &args.api)?;
    let mut items = client.tap().await?;
    out.say(out.dim("What the bus sees. Stop with Ctrl-C."));
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let Some(item) = items.next().await else { break };
        match item? {
            TapItem::Seen(event) if out.is_json() => out.json_line(&event)?,
            TapItem::Seen(event) => show(&event, out),
            TapItem::Missed(count) if out.is_json() => {
                out.json_line(&json!({ "missed": count }))?
            }
            TapItem::Missed(count) => {
                out.say(out.bad(&format!("({count} more, too fast to show)")))
            }
        }
        left -= 1;
    }
    Ok(())
}

/// Queue, size, key id, and the hex of the seal.
pub(crate) fn show(event: &TapEvent, out: Output) {
    let time = date(event.time_ms / 1000);
    let time = time.get(11..19).unwrap_or_default();
    let key = event.key_id.as_deref().unwrap_or("-");
    let offer = if event.offer { "  with an offer" } else { "" };
    out.say(format!(
        "{} {:<44} {:>6} B  key {key}{offer}",
        out.dim(time),
        out.bold(&event.queue),
        event.size
    ));
    for line in hex_lines(&event.head) {
        out.say(format!("         {}", out.secret(&line)));
    }
}

/// 24 bytes a line, in groups of four.
fn hex_lines(hex: &str) -> Vec<String> {
    let bytes: Vec<char> = hex.chars().collect();
    bytes
        .chunks(48)
        .map(|line| {
            let groups: Vec<String> = line.chunks(8).map(|group| group.iter().collect()).collect();
            groups.join(" ")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_in_groups() {
        assert_eq!(hex_lines("0102030405"), ["01020304 05"]);
        assert_eq!(hex_lines(&"ab".repeat(25)).len(), 2);
        assert!(hex_lines("").is_empty());
    }
}
