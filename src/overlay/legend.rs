//! The legend: a swatch and a name for each listed class, in the bottom left corner. It covers at most the lower half and two
//! fifths of the width of the image; what does not fit is left out, and its number is written below.

use std::collections::BTreeMap;

use super::bitmap::{CachedBitmap, Canvas, DARK, OverlayBitmap, WHITE, same_format, short_side};
use super::labels::DrawnClass;
use super::presence::Presence;
use super::text::Text;
use crate::config;
use crate::frame::{ClassId, ImageMut, Mask, Rgb, VideoInfo, Weight};

/// Smallest height in pixels of an image with a legend. In smaller images it would be illegible or cover too much.
const MIN_HEIGHT: usize = 120;
/// Smallest height of capitals in pixels.
const MIN_CAPITALS: usize = 8;

/// A class that may be listed.
struct Entry {
    class: ClassId,
    name: String,
    color: Rgb,
    weight: Weight,
}

/// The names of classes as they are rendered. Kept, because the classes in the frame change much more often than the size.
#[derive(Default)]
struct Names {
    /// Height of capitals in pixels.
    size: usize,
    texts: BTreeMap<ClassId, Text>,
}

impl Names {
    /// The names of `classes` in their order, with capitals of `size` pixels.
    fn rendered(&mut self, classes: &[&Entry], size: usize) -> Vec<&Text> {
        if self.size != size {
            *self = Names { size, texts: BTreeMap::new() };
        }
        for entry in classes {
            self.texts.entry(entry.class).or_insert_with(|| Text::new(&entry.name, size));
        }
        classes.iter().filter_map(|entry| self.texts.get(&entry.class)).collect()
    }
}

/// The legend of one stream. It is rendered when the listed classes or the format of the frames change.
pub(super) struct Legend {
    listed: config::Legend,
    /// The drawn classes by class index.
    entries: Vec<Entry>,
    presence: Presence,
    /// Counts the changes of the classes in the frame.
    version: u64,
    /// The classes in the newest bitmap.
    shown: Vec<ClassId>,
    names: Names,
    bitmap: CachedBitmap<(u64, VideoInfo)>,
}

impl Legend {
    /// `classes` has the drawn classes by class index, `None` for a hidden one.
    pub fn new(listed: config::Legend, classes: &[Option<DrawnClass>]) -> Legend {
        let entry = |(class, drawn): (ClassId, &Option<DrawnClass>)| {
            let DrawnClass { name, color, weight } = drawn.clone()?;
            Some(Entry { class, name, color, weight })
        };
        Legend {
            listed,
            entries: (0..=255).zip(classes).filter_map(entry).collect(),
            presence: Presence::default(),
            version: 0,
            shown: Vec::new(),
            names: Names::default(),
            bitmap: CachedBitmap::default(),
        }
    }

    /// Draws the legend. `mask` is the mask that is drawn on the image: without one, no class is in the frame.
    pub fn draw(&mut self, mask: Option<&Mask>, target: &mut ImageMut<'_>) {
        match (self.listed, mask) {
            (config::Legend::Off, _) | (config::Legend::Visible, None) => return,
            (config::Legend::Visible, Some(mask)) => self.version += u64::from(self.presence.update(mask)),
            (config::Legend::All, _) => {}
        }
        let Legend { listed, entries, presence, version, shown, names, bitmap } = self;
        let info = target.info;
        let render = || {
            let is_listed = |entry: &&Entry| *listed == config::Legend::All || presence.contains(entry.class);
            let mut classes: Vec<&Entry> = entries.iter().filter(is_listed).collect();
            // The first ones are shown if not all fit. Those that are shown stay, so that entries do not alternate.
            classes.sort_by(|a, b| {
                let rank = |entry: &Entry| (shown.contains(&entry.class), presence.pixels(entry.class));
                b.weight.get().total_cmp(&a.weight.get()).then(rank(b).cmp(&rank(a)))
            });
            let drawn = draw(&classes, names, &info);
            shown.clear();
            shown.extend(classes.iter().take(drawn.as_ref().map_or(0, |(count, _)| *count)).map(|entry| entry.class));
            ((*version, info), drawn.map(|(_, bitmap)| bitmap))
        };
        bitmap.blend(|(made, image)| made == version && same_format(image, &info), render, target);
    }
}

/// Lengths in pixels, which all depend on the height of capitals.
struct LegendMetrics {
    /// Height of capitals, and side of a swatch.
    size: usize,
    /// Distance from an entry to the next one below.
    pitch: usize,
    /// Distance between box and entries, and between columns.
    padding: usize,
    /// Distance from the left edge of a swatch to its name.
    indent: usize,
    /// Distance from the edge of the image to the box.
    margin: usize,
}

impl LegendMetrics {
    /// All lengths are even, so that the edges of swatches are as sharp in chroma as in luma.
    fn new(size: usize) -> LegendMetrics {
        let even = |length: usize| length.next_multiple_of(2);
        LegendMetrics {
            size: even(size),
            pitch: even(size * 7 / 4),
            padding: even(size * 3 / 4),
            indent: even(size + size * 2 / 3),
            margin: even(size / 2),
        }
    }

    /// Height of a box with `rows` rows.
    fn height(&self, rows: usize) -> usize {
        2 * self.padding + (rows - 1) * self.pitch + self.size
    }
}

/// The lines of a legend: names and, if classes were left out, their number.
struct Lines<'a> {
    names: Vec<(&'a Text, Rgb)>,
    left_out: Option<Text>,
    /// Lines in a column.
    rows: usize,
    /// Left edges of the columns, and at the end the width of the box.
    edges: Vec<usize>,
}

/// Draws the legend for images of this size and format, with as many of `classes` as fit, the first ones first. Returns their
/// number; `None` when there are no classes or none fits.
fn draw(classes: &[&Entry], names: &mut Names, info: &VideoInfo) -> Option<(usize, OverlayBitmap)> {
    if classes.is_empty() || info.height < MIN_HEIGHT {
        return None;
    }
    let metrics = LegendMetrics::new((short_side(info) / 48).max(MIN_CAPITALS));
    let room = (info.width * 2 / 5, (info.height / 2).checked_sub(metrics.margin)?);
    let texts = names.rendered(classes, metrics.size);
    let (count, lines) =
        (1..=classes.len()).rev().find_map(|count| Some((count, fit(count, classes, &texts, room, &metrics)?)))?;

    let mut canvas = Canvas::new(*lines.edges.last()?, metrics.height(lines.rows));
    let (width, height) = (canvas.width(), canvas.height());
    canvas.fill((0, 0), (width, height), DARK, 0.66);
    let at = |n: usize| (lines.edges[n / lines.rows], metrics.padding + n % lines.rows * metrics.pitch);
    for (n, (name, color)) in lines.names.iter().enumerate() {
        let (left, top) = at(n);
        // The edge shows dark colours on the dark box.
        canvas.fill((left, top), (metrics.size, metrics.size), WHITE, 0.4);
        canvas.fill((left + 1, top + 1), (metrics.size - 2, metrics.size - 2), *color, 1.0);
        canvas.text((left + metrics.indent, top), name, WHITE);
    }
    if let Some(text) = &lines.left_out {
        let (left, top) = at(lines.names.len());
        canvas.text((left + metrics.indent, top), text, WHITE);
    }
    // The distance from the bottom is even, so that the top is even in images of even height. In other images,
    // `OverlayBitmap` moves the box up by a row.
    Some((count, OverlayBitmap::new(&canvas, (metrics.margin, info.height - metrics.margin - height), info)))
}

/// Arranges the first `count` classes in the order of their index, in columns of equal length; `None` if they do not fit into
/// `room` (width and height, without the lower margin).
fn fit<'a>(
    count: usize,
    classes: &[&Entry],
    texts: &[&'a Text],
    room: (usize, usize),
    metrics: &LegendMetrics,
) -> Option<Lines<'a>> {
    let left_out = classes.len() - count;
    let total = count + usize::from(left_out > 0);
    let most = (1..=total).rev().find(|&rows| metrics.height(rows) <= room.1)?;
    let rows = total.div_ceil(total.div_ceil(most));
    let mut chosen: Vec<usize> = (0..count).collect();
    chosen.sort_by_key(|&n| classes[n].class);
    let names: Vec<(&Text, Rgb)> = chosen.into_iter().map(|n| (texts[n], classes[n].color)).collect();
    // Names alone decide first: the text of the rest is rendered only when they fit.
    let is_narrow = |edges: &[usize]| edges.last().is_some_and(|width| metrics.margin + width <= room.0);
    let widths: Vec<usize> = names.iter().map(|(name, _)| name.width).collect();
    if !is_narrow(&columns(&widths, rows, metrics)) {
        return None;
    }
    let left_out = (left_out > 0).then(|| Text::new(&format!("+{left_out}"), metrics.size));
    let widths: Vec<usize> = widths.into_iter().chain(left_out.as_ref().map(|text| text.width)).collect();
    let edges = columns(&widths, rows, metrics);
    is_narrow(&edges).then_some(Lines { names, left_out, rows, edges })
}

/// Left edges of the columns of `rows` lines with these widths, and at the end the width of the box.
fn columns(widths: &[usize], rows: usize, metrics: &LegendMetrics) -> Vec<usize> {
    let mut edges = vec![metrics.padding];
    let mut left = metrics.padding;
    for column in widths.chunks(rows) {
        let widest = column.iter().copied().max().unwrap_or(0);
        left += (metrics.indent + widest + metrics.padding).next_multiple_of(2);
        edges.push(left);
    }
    edges
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::frame::{OwnedImage, PixelFormat, Pixels};

    fn drawn(name: &str, weight: f64) -> Option<DrawnClass> {
        Some(DrawnClass { name: name.into(), color: Rgb(200, 40, 40), weight: Weight::try_from(weight).unwrap() })
    }

    fn classes(count: usize) -> Vec<Option<DrawnClass>> {
        (0..count).map(|n| drawn(&format!("class {n}"), 1.0)).collect()
    }

    fn all(classes: &[Option<DrawnClass>]) -> Legend {
        Legend::new(config::Legend::All, classes)
    }

    /// The bounding box `(left, top, right, bottom)` of the luma samples that the legend changed; right and bottom are exclusive.
    fn changed(legend: &mut Legend, mask: Option<&Mask>, info: VideoInfo) -> Option<(usize, usize, usize, usize)> {
        let mut image = OwnedImage::new(info, 0);
        image.image_mut().planes[0].data.fill(200);
        legend.draw(mask, &mut image.image_mut());
        let data = image.image().planes[0].data;
        let hits = (0..data.len()).filter(|&n| data[n] != 200).map(|n| (n % info.width, n / info.width));
        let start = (usize::MAX, usize::MAX, 0, 0);
        let found = hits.fold(start, |(l, t, r, b), (x, y)| (l.min(x), t.min(y), r.max(x + 1), b.max(y + 1)));
        (found != start).then_some(found)
    }

    /// A mask of 100 × 100 pixels; each of `shares` is a class and its number of rows, the rest has class 255.
    fn mask(seq: u64, shares: &[(ClassId, usize)]) -> Mask {
        let rows = shares.iter().flat_map(|&(class, rows)| std::iter::repeat_n(class, 100 * rows));
        let classes = rows.chain(std::iter::repeat(255)).take(10_000).collect();
        let (captured_at, labels) = (Instant::now(), [].into());
        let pts = Duration::from_secs(seq);
        Mask {
            seq,
            pts,
            captured_at,
            width: 100,
            height: 100,
            classes,
            labels,
            model: "".into(),
            guide: None,
            probable: None,
            confirmed: false,
            seen: None,
        }
    }

    #[test]
    fn is_in_the_bottom_left_corner_at_every_size() {
        for (width, height) in [(480, 360), (641, 361), (1920, 1080), (1080, 1920), (320, 180), (256, 144)] {
            let info = VideoInfo::new(PixelFormat::Nv12, width, height);
            for count in [1, 4, 16, 60] {
                let (left, top, right, bottom) = changed(&mut all(&classes(count)), None, info).unwrap();
                assert!(left > 0 && left < width / 20, "{info}: left {left}");
                assert!(bottom < height && bottom > height * 9 / 10, "{info}: bottom {bottom}");
                // A box in an image of odd height is a row higher.
                assert!(right <= width * 2 / 5 && top + 1 >= height / 2, "{info} with {count}: {right}, {top}");
            }
        }
    }

    #[test]
    fn wraps_into_columns_and_leaves_out_what_does_not_fit() {
        let info = VideoInfo::new(PixelFormat::I420, 640, 360);
        let shown = |count: usize, info: VideoInfo| {
            let mut legend = all(&classes(count));
            let area = changed(&mut legend, None, info);
            (legend.shown.len(), area.map(|(_, _, right, _)| right))
        };
        let (one, narrow) = shown(5, info);
        let (two, wide) = shown(16, info);
        assert_eq!((one, two), (5, 16));
        assert!(wide.unwrap() > narrow.unwrap() + 50, "columns: {narrow:?}, {wide:?}");
        let (count, _) = shown(200, info);
        assert!((16..60).contains(&count), "{count} of 200");
        let (count, right) = shown(16, VideoInfo::new(PixelFormat::I420, 320, 180));
        assert!((4..16).contains(&count) && right.unwrap() <= 128, "{count}, {right:?}");
        assert_eq!(shown(3, VideoInfo::new(PixelFormat::I420, 160, 119)), (0, None));
        assert_eq!(shown(3, VideoInfo::new(PixelFormat::I420, 20, 400)), (0, None));
        assert_eq!(shown(0, info), (0, None));
    }

    #[test]
    fn lists_the_classes_in_the_picture() {
        let info = VideoInfo::new(PixelFormat::I420, 640, 360);
        let mut visible = Legend::new(config::Legend::Visible, &classes(16));
        assert_eq!(changed(&mut visible, None, info), None, "no mask, no class in the frame");
        assert_eq!(changed(&mut visible, Some(&mask(0, &[(200, 50)])), info), None, "only classes without a label");
        let area = changed(&mut visible, Some(&mask(1, &[(7, 20), (3, 1)])), info);
        visible.shown.sort_unstable();
        assert_eq!(visible.shown, [3, 7]);
        let two: Vec<_> = [3, 7].map(|n| classes(16)[n].clone()).into();
        assert_eq!(area, changed(&mut all(&two), None, info));
        changed(&mut visible, Some(&mask(2, &[(7, 20), (9, 30)])), info);
        visible.shown.sort_unstable();
        assert_eq!(visible.shown, [3, 7, 9], "the class that has left stays for a moment");
        changed(&mut visible, Some(&mask(9, &[(9, 30)])), info);
        assert_eq!(visible.shown, [9]);
        assert_eq!(changed(&mut visible, None, info), None);

        let mut off = Legend::new(config::Legend::Off, &classes(16));
        assert_eq!(changed(&mut off, Some(&mask(0, &[(7, 20)])), info), None);
        let hidden: Vec<_> = classes(8).into_iter().enumerate().map(|(n, class)| class.filter(|_| n != 7)).collect();
        let mut visible = Legend::new(config::Legend::Visible, &hidden);
        assert_eq!(changed(&mut visible, Some(&mask(0, &[(7, 20)])), info), None, "a hidden class");
    }

    #[test]
    fn a_small_image_shows_strong_classes_first_and_keeps_them() {
        let info = VideoInfo::new(PixelFormat::I420, 256, 144);
        let classes: Vec<_> = (0..12).map(|n| drawn(&format!("class {n}"), if n == 11 { 1.0 } else { 0.5 })).collect();
        let mut legend = Legend::new(config::Legend::Visible, &classes);
        let sizes = |first: usize| (0..12).map(|n: usize| (n as u8, 2 + n.abs_diff(first) / 2)).collect::<Vec<_>>();
        changed(&mut legend, Some(&mask(0, &sizes(0))), info);
        let mut before = legend.shown.clone();
        assert!(before[0] == 11 && before[1..].contains(&10) && !before.contains(&0), "{before:?}");
        // Now others have more pixels. A class that has just appeared and does not fit changes nothing.
        changed(&mut legend, Some(&mask(1, &sizes(11))), info);
        let mut after = legend.shown.clone();
        before.sort_unstable();
        after.sort_unstable();
        assert_eq!(before, after);
    }

    #[test]
    fn swatches_have_the_class_colour_in_all_planes() {
        let info = VideoInfo::new(PixelFormat::I420, 640, 540);
        let mut image = OwnedImage::new(info, 0);
        let red = DrawnClass { name: "red".into(), color: Rgb(255, 0, 0), weight: Weight::FULL };
        all(&[Some(red)]).draw(None, &mut image.image_mut());
        let has = |plane: usize, value: u8| image.image().planes[plane].data.contains(&value);
        assert!(has(0, 81) || has(0, 82));
        assert!(has(1, 90) && has(2, 240));
    }
}
