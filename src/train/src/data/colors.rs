//! Colours for classes without a colour.

use maskcast::frame::Rgb;

use super::appearance;

/// Names of the background class, which is black by convention.
const BACKGROUND: [&str; 6] = ["background", "_background_", "backgr", "bg", "unlabeled", "unlabelled"];
/// Smallest distance (sum over red, green and blue) between colours that can be distinguished.
const MIN_DISTANCE: u32 = 30;
/// Distance between colours that are chosen here, as long as there are enough of them.
const CLEAR_DISTANCE: u32 = 60;

/// Whether a class's name means background.
pub fn is_background(name: &str) -> bool {
    BACKGROUND.iter().any(|other| other.eq_ignore_ascii_case(name))
}

/// Whether all colours can be distinguished; those of a grey ramp cannot.
pub fn distinct(colors: &[Rgb]) -> bool {
    colors.iter().enumerate().all(|(n, a)| colors[..n].iter().all(|b| distance(*a, *b) >= MIN_DISTANCE))
}

/// The colour map of Pascal VOC (`VOClabelcolormap` of its development kit): the bits of the index, distributed over
/// the high bits of red, green and blue.
pub fn voc(index: u8) -> Rgb {
    let channel =
        |first: u8| (0..3).fold(0u8, |value, level| value | ((index >> (first + 3 * level)) & 1) << (7 - level));
    // Blue has two levels: a third one would read bit 8.
    let blue = (0..2).fold(0u8, |value, level| value | ((index >> (2 + 3 * level)) & 1) << (7 - level));
    Rgb(channel(0), channel(1), blue)
}

/// Returns a colour for each class: its own, that of its name ([`appearance::colors`]), or a generated one. Each colour that
/// is not given differs from all others. The result depends only on the input.
pub fn complete(given: &[(String, Option<Rgb>)]) -> Vec<Rgb> {
    let set: Vec<Rgb> = given.iter().filter_map(|(_, color)| *color).collect();
    let mut taken = set.clone();
    let by_name = |(name, given): &(String, Option<Rgb>)| {
        let is_clear_of =
            |others: &[Rgb], color: Rgb| others.iter().all(|other| distance(color, *other) >= CLEAR_DISTANCE);
        // The first colours of two kinds of names can be told apart, although their distance may be shorter: floor and wall.
        let first = appearance::colors(name).next().filter(|color| is_clear_of(&set, *color) && !taken.contains(color));
        let color = given.or(first).or_else(|| appearance::colors(name).find(|color| is_clear_of(&taken, *color)));
        taken.extend(color.filter(|_| given.is_none()));
        color
    };
    let named: Vec<Option<Rgb>> = given.iter().map(by_name).collect();
    let mut next = 0;
    let mut fill = |name: &str| {
        if is_background(name) && !taken.contains(&Rgb(0, 0, 0)) {
            taken.push(Rgb(0, 0, 0));
            return Rgb(0, 0, 0);
        }
        // Hues in steps of the golden angle never repeat. The required distance decreases with each attempt, so that
        // the loop ends.
        for attempt in 0.. {
            let color = hue(next);
            next += 1;
            let nearest = taken.iter().map(|other| distance(color, *other)).min().unwrap_or(u32::MAX);
            if nearest >= CLEAR_DISTANCE.saturating_sub(attempt) {
                taken.push(color);
                return color;
            }
        }
        Rgb(0, 0, 0)
    };
    given.iter().zip(named).map(|((name, _), color)| color.unwrap_or_else(|| fill(name))).collect()
}

/// Generates colour `index`: the hue advances by the golden angle; brightness and saturation alternate.
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
    fn voc_colours_equal_the_published_ones() {
        assert_eq!(voc(0), Rgb(0, 0, 0));
        assert_eq!(voc(1), Rgb(128, 0, 0));
        assert_eq!(voc(15), Rgb(192, 128, 128));
        assert_eq!(voc(20), Rgb(0, 64, 128));
        assert_eq!(voc(255), Rgb(224, 224, 192));
    }

    #[test]
    fn generated_colours_differ_from_each_other_and_from_given_ones() {
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
    fn well_known_names_have_the_colour_that_people_expect() {
        let names = ["thing", "sky", "car", "bus", "person"].map(|name| (name.to_owned(), None));
        let colors = complete(&names);
        let expected = |name: &str| appearance::colors(name).next().unwrap();
        assert_eq!(colors[1..3], [expected("sky"), expected("vehicle")]);
        assert_eq!(colors[4], expected("person"));
        let Rgb(r, _, b) = colors[3];
        assert!(b > r && colors[3] != colors[2], "a bus has another shade of blue: {colors:?}");
        assert!((0..5).all(|n| (0..n).all(|m| distance(colors[n], colors[m]) >= CLEAR_DISTANCE)), "{colors:?}");
        let given = [("x".to_owned(), Some(expected("sky"))), ("sky".to_owned(), None)];
        assert_ne!(complete(&given)[1], expected("sky"), "the colour is taken");
    }

    #[test]
    fn the_everyday_classes_have_the_first_colour_of_their_name() {
        let manifest = include_str!("../../../../models/everyday.toml");
        let value = |line: &str| line.split('"').nth(1).map(str::to_owned);
        let values = |key: &str| -> Vec<String> {
            let labels = manifest.lines().skip_while(|line| *line != "[[labels]]");
            labels.filter(|line| line.starts_with(key)).filter_map(value).collect()
        };
        let names: Vec<(String, Option<Rgb>)> = values("name").into_iter().map(|name| (name, None)).collect();
        let colors: Vec<String> =
            complete(&names).iter().map(|Rgb(r, g, b)| format!("#{r:02x}{g:02x}{b:02x}")).collect();
        assert_eq!(names.len(), 16);
        assert_eq!(colors, values("color"));
    }

    #[test]
    fn background_is_black_unless_another_class_is() {
        let name = |name: &str, color| (name.to_string(), color);
        assert_eq!(complete(&[name("BG", None), name("car", None)])[0], Rgb(0, 0, 0));
        assert_ne!(complete(&[name("bg", None), name("car", Some(Rgb(0, 0, 0)))])[0], Rgb(0, 0, 0));
    }
}
