//! Times as texts: `2026-01-31T23:59:59`, in UTC. They are read with a part of a second, too, which
//! Python's clients write, and with a `Z`.

const DAY: u64 = 86_400;

/// Seconds since 1970 of a text; `None` for anything else, and for what was before.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z').unwrap_or(text).split_once('T')?;
    let time = match time.split_once('.') {
        None => time,
        Some((time, part)) => {
            let fits = (1..=9).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
            fits.then_some(time)?
        }
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    if hour > 23 || minute > 59 || second > 59 || year < 1970 {
        return None;
    }
    let days = (1970..year).map(days_of_year).sum::<u64>();
    let before = month.checked_sub(1)?;
    let months = month_lengths(year);
    let length = months.get(usize::try_from(before).ok()?)?;
    if day == 0 || day > *length {
        return None;
    }
    let of_months: u64 = months.iter().take(usize::try_from(before).ok()?).sum();
    Some((days + of_months + day - 1) * DAY + hour * 3600 + minute * 60 + second)
}

/// The text of a time in seconds since 1970.
pub(crate) fn text(at: u64) -> String {
    let (mut days, rest) = (at / DAY, at % DAY);
    let mut year = 1970;
    while days >= days_of_year(year) {
        days -= days_of_year(year);
        year += 1;
    }
    let mut month = 1;
    for length in month_lengths(year) {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}", days + 1)
}

fn numbers(text: &str, between: char, lengths: [usize; 3]) -> Option<[u64; 3]> {
    let mut parts = text.split(between);
    let mut found = [0; 3];
    for (place, length) in found.iter_mut().zip(lengths) {
        let part = parts.next().filter(|part| part.len() == length)?;
        let digits = part.bytes().all(|b| b.is_ascii_digit());
        *place = digits.then(|| part.parse().ok()).flatten()?;
    }
    parts.next().is_none().then_some(found)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of_year(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

fn month_lengths(year: u64) -> [u64; 12] {
    let february = if is_leap(year) { 29 } else { 28 };
    [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        for (at, shown) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_400, "2000-02-29T00:00:00"),
            (1_795_413_026, "2026-11-23T05:50:26"),
            (4_102_444_799, "2099-12-31T23:59:59"),
        ] {
            assert_eq!((text(at).as_str(), parse(shown)), (shown, Some(at)));
        }
        assert_eq!(parse("2026-11-23T05:50:26.123456Z"), Some(1_795_413_026));
        for bad in [
            "",
            "2026-11-23",
            "2026-11-23 05:50:26",
            "2026-02-29T00:00:00",
            "2026-00-01T00:00:00",
            "2026-13-01T00:00:00",
            "2026-01-01T24:00:00",
            "2026-1-01T00:00:00",
            "+026-01-01T00:00:00",
            "2026-01-01T00:00:00+01:00",
            "2026-01-01T00:00:00.",
            "2026-01-01T00:00:00.x",
            "1969-01-01T00:00:00",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
