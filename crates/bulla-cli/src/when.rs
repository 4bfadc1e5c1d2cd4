//! Times on the command line: RFC 3339, or a while from now.

/// Unix seconds of `text`: `2026-12-01T08:00:00Z`, with an offset in the place of `Z`, or a number
/// with `s`, `m`, `h` or `d` counted from `now`.
pub(crate) fn parse(text: &str, now: u64) -> Result<u64, String> {
    while_from(text, now).or_else(|| rfc3339(text)).ok_or_else(|| {
        format!(
            "`{text}` is no time: give one like 2026-12-01T08:00:00Z, or a while like 90m, 2h or 7d"
        )
    })
}

/// Unix seconds of `text` as [`parse`] has it, but a while counts back from `now`.
pub(crate) fn ago(text: &str, now: u64) -> Result<u64, String> {
    match while_from(text, 0) {
        Some(seconds) => Ok(now.saturating_sub(seconds)),
        None => parse(text, now),
    }
}

/// A while: a number with `s`, `m`, `h` or `d`.
pub(crate) fn duration(text: &str) -> Option<std::time::Duration> {
    while_from(text, 0).map(std::time::Duration::from_secs)
}

/// A while in its largest unit, for people: `45 s`, `12 min`, `3 h`, `15 d`.
pub(crate) fn while_text(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn while_from(text: &str, now: u64) -> Option<u64> {
    let unit = text.chars().next_back()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    let number = text.strip_suffix(unit)?;
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    now.checked_add(number.parse::<u64>().ok()?.checked_mul(seconds)?)
}

/// `YYYY-MM-DDThh:mm:ss` and `Z` or `+hh:mm`; fractions of a second are left out.
fn rfc3339(text: &str) -> Option<u64> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let (clock, offset) = match rest.strip_suffix(['Z', 'z']) {
        Some(clock) => (clock, 0),
        None => {
            let at = rest.rfind(['+', '-'])?;
            let (clock, zone) = rest.split_at_checked(at)?;
            let [hours, minutes] = numbers(zone.get(1..)?, ':', &[2, 2])?;
            let seconds = (hours * 3600 + minutes * 60) as i64;
            (clock, if zone.starts_with('-') { -seconds } else { seconds })
        }
    };
    let clock = clock.split_once('.').map_or(clock, |(whole, _)| whole);
    let [year, month, day] = numbers(date, '-', &[4, 2, 2])?;
    let [hour, minute, second] = numbers(clock, ':', &[2, 2, 2])?;
    let fits = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 61;
    if !fits {
        return None;
    }
    let at = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    at.checked_add_signed(-offset)
}

/// Numbers of exactly these widths.
fn numbers<const N: usize>(text: &str, between: char, widths: &[usize; N]) -> Option<[u64; N]> {
    let mut parts = text.split(between);
    let mut out = [0; N];
    for (number, width) in out.iter_mut().zip(widths) {
        let part = parts.next()?;
        if part.len() != *width || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(out)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01, counted from March so that leap days come last.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leaps = year / 4 - year / 100 + year / 400;
    year * 365 + leaps + (month * 153 + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::date;

    #[test]
    fn times_and_whiles_are_read() {
        assert_eq!(parse("2h", 100), Ok(7300));
        assert_eq!(parse("7d", 0), Ok(604_800));
        assert_eq!(parse("1970-01-01T00:00:00Z", 5), Ok(0));
        assert_eq!(parse("2000-02-29T00:00:00Z", 5), Ok(951_782_400));
        assert_eq!(parse("2026-11-22T00:00:00.25Z", 5), Ok(1_795_305_600));
        assert_eq!(parse("2026-11-22T02:00:00+02:00", 5), Ok(1_795_305_600));
        assert_eq!(parse("2026-11-21T23:30:00-00:30", 5), Ok(1_795_305_600));
        for secs in [0, 68_169_599, 951_782_399, 1_795_305_600, 4_102_444_799] {
            let text = date(secs).replace(" UTC", "Z").replacen(' ', "T", 1);
            assert_eq!(parse(&text, 0), Ok(secs), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_not() {
        for text in [
            "",
            "h",
            "-2h",
            "2w",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "tomorrow",
            "2026-11-22",
            "2026-11-22T00:00:00",
            "2026-11-22T24:00:00Z",
            "1.5h",
            "é",
            "99999999999999999999d",
        ] {
            assert!(parse(text, 0).is_err(), "{text}");
        }
    }
}
