//! Formats numbers for the pages.

/// The text for a missing number.
pub(super) const NONE: &str = "–";

/// A share (0 to 1) as a percentage with one decimal, without the sign.
pub(super) fn percent(share: impl Into<Option<f64>>) -> String {
    share.into().filter(|share| share.is_finite()).map_or_else(|| NONE.into(), |share| format!("{:.1}", 100.0 * share))
}

/// A share (0 to 1) as a percentage, with two decimals below one per cent, without the sign.
pub(super) fn small_percent(share: f64) -> String {
    let percent = 100.0 * share;
    if percent == 0.0 || percent >= 1.0 { format!("{percent:.1}") } else { format!("{percent:.2}") }
}

/// A number with at least three significant digits if it is 1 or more, else with three decimals.
pub(super) fn number(value: impl Into<Option<f64>>) -> String {
    let Some(value) = value.into().filter(|value| value.is_finite()) else { return NONE.into() };
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// A learning rate: `1.2e-3`.
pub(super) fn scientific(value: f64) -> String {
    if value == 0.0 { "0".into() } else { format!("{value:.1e}").replace(".0e", "e") }
}

/// A duration: `1 d 3 h`, `2 h 5 min`, `57 min`, `4 min 10 s`, `8.2 s`.
pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds.round().max(0.0) as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    match whole {
        86_400.. => format!("{days} d {hours} h"),
        3600.. => format!("{hours} h {minutes} min"),
        600.. => format!("{minutes} min"),
        60.. => format!("{minutes} min {} s", whole % 60),
        10.. => format!("{whole} s"),
        _ => format!("{seconds:.1} s"),
    }
}

/// A whole number with narrow no-break spaces: `5 417 312`.
pub(super) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_to_a_few_digits() {
        assert_eq!(percent(0.72849), "72.8");
        assert_eq!(percent(None), NONE);
        assert_eq!(percent(f64::NAN), NONE);
        assert_eq!(small_percent(0.0004), "0.04");
        assert_eq!(number(0.0123), "0.012");
        assert_eq!(number(123.4), "123");
        assert_eq!(scientific(4e-4), "4e-4");
        assert_eq!(scientific(1.24e-3), "1.2e-3");
        assert_eq!(duration(8.24), "8.2 s");
        assert_eq!(duration(250.4), "4 min 10 s");
        assert_eq!(duration(3420.0), "57 min");
        assert_eq!(duration(7500.0), "2 h 5 min");
        assert_eq!(duration(97_200.0), "1 d 3 h");
        assert_eq!(count(5_417_312), "5\u{202f}417\u{202f}312");
        assert_eq!(count(12), "12");
    }
}
