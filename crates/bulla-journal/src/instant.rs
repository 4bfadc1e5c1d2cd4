//! Times of records.

use std::time::{SystemTime, UNIX_EPOCH};

/// The wall clock, in Unix nanoseconds.
pub fn now_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Unix nanoseconds as RFC 3339 in UTC with nine digits: `2026-11-22T22:13:45.123456789Z`. Such
/// times are in order as texts too.
pub fn rfc3339(nanos: u64) -> String {
    let mut out = Vec::with_capacity(30);
    Clock::default().write(&mut out, nanos);
    String::from_utf8(out).unwrap_or_default()
}

/// Writes times; it keeps the last second's text, which most records share.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    second: Option<u64>,
    text: Vec<u8>,
}

impl Clock {
    pub(crate) fn write(&mut self, out: &mut Vec<u8>, nanos: u64) {
        let (second, fraction) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
        if self.second != Some(second) {
            self.second = Some(second);
            self.text = text(second).into_bytes();
        }
        out.extend_from_slice(&self.text);
        let mut digits = *b".000000000Z";
        let mut left = fraction;
        for digit in digits.iter_mut().skip(1).rev().skip(1) {
            *digit = b'0' + (left % 10) as u8;
            left /= 10;
        }
        out.extend_from_slice(&digits);
    }
}

/// Date and time of day, by the days' civil calendar.
fn text(second: u64) -> String {
    let (days, rest) = (second / 86_400, second % 86_400);
    // Years begin in March here, so that the leap day is a year's last.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute) = (rest / 3600, rest / 60 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}", rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(951_827_696_000_000_001), "2000-02-29T12:34:56.000000001Z");
        assert_eq!(rfc3339(1_798_761_599_999_999_999), "2026-12-31T23:59:59.999999999Z");
        assert_eq!(rfc3339(1_798_761_600_000_000_000), "2027-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(4_107_542_400_120_000_000), "2100-03-01T00:00:00.120000000Z");
    }
}
