//! How commands talk: tables and colour for people, JSON for machines.

use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::failure::Result;

/// Where and how to print.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
    color: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        let color =
            std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) && io::stdout().is_terminal();
        Self { json, color }
    }

    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// A line for people; nothing under `--json`.
    pub(crate) fn say(self, line: impl AsRef<str>) {
        if !self.json {
            self.line(line.as_ref());
        }
    }

    /// A line as it is.
    pub(crate) fn line(self, line: &str) {
        // A closed pipe is the reader's business.
        let _ = writeln!(io::stdout().lock(), "{line}");
    }

    /// One JSON document under `--json`; what `people` prints otherwise.
    pub(crate) fn result<T: Serialize + ?Sized>(
        self,
        value: &T,
        people: impl FnOnce(Self),
    ) -> Result<()> {
        if self.json {
            self.line(&serde_json::to_string_pretty(value)?);
        } else {
            people(self);
        }
        Ok(())
    }

    /// One JSON document on one line, for streams.
    pub(crate) fn json_line<T: Serialize + ?Sized>(self, value: &T) -> Result<()> {
        self.line(&serde_json::to_string(value)?);
        Ok(())
    }

    pub(crate) fn table(self, head: &[&str], rows: Vec<Vec<String>>) {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(head.iter().map(|h| self.dim(h)));
        for row in rows {
            table.add_row(row);
        }
        for line in table.to_string().lines() {
            self.line(line.trim_end());
        }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    pub(crate) fn secret(self, text: &str) -> String {
        self.paint("33", text)
    }
}

/// A Unix time in seconds as `2026-11-22 01:02:03 UTC`.
pub(crate) fn date(secs: u64) -> String {
    let days = secs / 86_400;
    let (h, m, s) = (secs / 3600 % 24, secs / 60 % 60, secs % 60);
    // Civil date from days since 1970-01-01, in eras of 400 years beginning in March.
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_the_calendars() {
        assert_eq!(date(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(date(951_782_399), "2000-02-28 23:59:59 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(date(1_795_305_600), "2026-11-22 00:00:00 UTC");
    }
}
