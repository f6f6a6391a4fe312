//! Colours for classes whose data set gives none.

use maskcast::frame::Rgb;

/// Names of the class that is everything else: black by custom.
const BACKGROUND: [&str; 6] = ["background", "_background_", "backgr", "bg", "unlabeled", "unlabelled"];
/// Colours that differ less (sum over red, green and blue) cannot be told apart on a picture.
const NEAR: u32 = 30;

/// Whether a class's name says that it is everything else.
pub fn is_background(name: &str) -> bool {
    BACKGROUND.iter().any(|other| other.eq_ignore_ascii_case(name))
}

/// Whether no two of the colours look alike: a palette that counts up in grey is no choice of colours.
pub fn distinct(colors: &[Rgb]) -> bool {
    colors.iter().enumerate().all(|(n, a)| colors[..n].iter().all(|b| distance(*a, *b) >= NEAR))
}

/// The colour map of Pascal VOC: the bits of the index, spread over the high bits of red, green and blue.
pub fn voc(index: u8) -> Rgb {
    let channel =
        |first: u8| (0..3).fold(0u8, |value, level| value | ((index >> (first + 3 * level)) & 1) << (7 - level));
    // The last level would read bit 8 of blue, which a byte does not have.
    let blue = (0..2).fold(0u8, |value, level| value | ((index >> (2 + 3 * level)) & 1) << (7 - level));
    Rgb(channel(0), channel(1), blue)
}

/// A colour for each class: its own, or one that differs well from all others. Depends on the input alone.
pub fn complete(given: &[(String, Option<Rgb>)]) -> Vec<Rgb> {
    let mut taken: Vec<Rgb> = given.iter().filter_map(|(_, color)| *color).collect();
    let mut next = 0;
    let mut fill = |name: &str| {
        if is_background(name) && !taken.contains(&Rgb(0, 0, 0)) {
            taken.push(Rgb(0, 0, 0));
            return Rgb(0, 0, 0);
        }
        // Hues at the golden angle never come back to one another; the nearness asked for shrinks so that it always ends.
        for attempt in 0.. {
            let color = hue(next);
            next += 1;
            let nearest = taken.iter().map(|other| distance(color, *other)).min().unwrap_or(u32::MAX);
            if nearest >= 60u32.saturating_sub(attempt) {
                taken.push(color);
                return color;
            }
        }
        Rgb(0, 0, 0)
    };
    given.iter().map(|(name, color)| color.unwrap_or_else(|| fill(name))).collect()
}

/// Colour number `index` of an endless row: the hue turns by the golden angle, brightness and saturation take turns.
fn hue(index: u32) -> Rgb {
    let degrees = (f64::from(index) * 137.507_764).rem_euclid(360.0);
    let (saturation, value) = [(0.85, 0.95), (0.6, 0.75), (0.95, 0.6), (0.45, 1.0)][index as usize / 8 % 4];
    let channel = |shift: f64| {
        let k = (shift + degrees / 60.0).rem_euclid(6.0);
        let level = value - value * saturation * k.min(4.0 - k).clamp(0.0, 1.0);
        (level * 255.0).round() as u8
    };
    Rgb(channel(5.0), channel(3.0), channel(1.0))
}

fn distance(a: Rgb, b: Rgb) -> u32 {
    u32::from(a.0.abs_diff(b.0)) + u32::from(a.1.abs_diff(b.1)) + u32::from(a.2.abs_diff(b.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voc_colours_are_the_known_ones() {
        assert_eq!(voc(0), Rgb(0, 0, 0));
        assert_eq!(voc(1), Rgb(128, 0, 0));
        assert_eq!(voc(15), Rgb(192, 128, 128));
        assert_eq!(voc(20), Rgb(0, 64, 128));
        assert_eq!(voc(255), Rgb(224, 224, 192));
    }

    #[test]
    fn invented_colours_are_distinct_and_keep_away_from_given_ones() {
        let mut given: Vec<(String, Option<Rgb>)> = (0..120).map(|n| (format!("c{n}"), None)).collect();
        given[7].1 = Some(hue(0));
        let colors = complete(&given);
        assert_eq!(colors[7], hue(0));
        assert_eq!(colors, complete(&given));
        let mut sorted: Vec<_> = colors.iter().map(|c| (c.0, c.1, c.2)).collect();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), 120);
        assert!((0..7).all(|n| distance(colors[n], hue(0)) >= 60));
        assert!(distinct(&colors[..24]));
        assert!(!distinct(&[Rgb(0, 0, 0), Rgb(9, 0, 0)]));
    }

    #[test]
    fn background_is_black_unless_another_class_is() {
        let name = |name: &str, color| (name.to_string(), color);
        assert_eq!(complete(&[name("BG", None), name("car", None)])[0], Rgb(0, 0, 0));
        assert_ne!(complete(&[name("bg", None), name("car", Some(Rgb(0, 0, 0)))])[0], Rgb(0, 0, 0));
    }
}
