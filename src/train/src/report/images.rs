//! The images of a report: selects them, and draws them with their masks.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maskcast::frame::{Label, Mask, Rgb};
use opencv::core::{Mat, Size, Vec3b, Vector};
use opencv::imgcodecs::{IMWRITE_JPEG_QUALITY, imencode};
use opencv::imgproc::{COLOR_RGB2BGR, INTER_AREA, cvt_color_def, resize};
use opencv::prelude::*;
use serde::{Deserialize, Serialize};

use super::ReportError;
use crate::data::{LabelledImage, VOID};
use crate::metrics::ConfusionMatrix;

/// The rank of an image by its mIoU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rank {
    Best,
    Median,
    Worst,
}

impl Rank {
    pub const ALL: [Rank; 3] = [Rank::Best, Rank::Median, Rank::Worst];

    /// The name on the page.
    pub fn name(self) -> &'static str {
        match self {
            Rank::Best => "best",
            Rank::Median => "median",
            Rank::Worst => "worst",
        }
    }
}

/// Selects up to `count` images of each rank by their scores, each image once. The best images begin with the best one, the
/// worst with the worst one, and those around the median are sorted by score. Returns indices into `scores`. Images without
/// a score are not selected.
pub fn choose(scores: &[Option<f64>], count: usize) -> Vec<(Rank, usize)> {
    choose_apart(scores, count, |_, _| false)
}

/// The number of candidates for each image of a rank. Images further away from the rank are not selected.
const WINDOW: usize = 16;

/// [`choose`], but without two images of a rank for which `alike` returns true (by their indices), such as frames of one
/// recording. If there are too few other images, similar ones with a distance in the ranking are selected.
pub fn choose_apart(
    scores: &[Option<f64>],
    count: usize,
    mut alike: impl FnMut(usize, usize) -> bool,
) -> Vec<(Rank, usize)> {
    let mut order: Vec<(f64, usize)> =
        scores.iter().enumerate().filter_map(|(index, score)| Some(((*score)?, index))).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    // The candidates of each rank are a third of the images.
    let third = order.len().div_ceil(3);
    let worst = order.len() - third.min(order.len() - third);
    let median = third..worst;
    let middle = (third + worst).saturating_sub(1) / 2;
    let mut outward: Vec<usize> = median.collect();
    outward.sort_by_key(|place| place.abs_diff(middle));
    let candidates = [
        (Rank::Best, (0..third).collect()),
        (Rank::Median, outward),
        (Rank::Worst, (worst..order.len()).rev().collect::<Vec<_>>()),
    ];
    let mut chosen = Vec::new();
    for (rank, places) in candidates {
        let window = &places[..places.len().min(WINDOW * count)];
        let mut picked = apart(window, count, |a, b| alike(order[a].1, order[b].1));
        picked.sort_unstable();
        if rank == Rank::Worst {
            picked.reverse();
        }
        chosen.extend(picked.into_iter().map(|place| (rank, order[place].1)));
    }
    chosen
}

/// The first `count` of `places` of which no two are alike. If there are fewer, others, spread over the rest.
fn apart(places: &[usize], count: usize, mut alike: impl FnMut(usize, usize) -> bool) -> Vec<usize> {
    let (mut picked, mut passed) = (Vec::new(), Vec::new());
    for &place in places {
        if picked.len() == count {
            break;
        }
        let side = if picked.iter().any(|&other| alike(other, place)) { &mut passed } else { &mut picked };
        side.push(place);
    }
    let lacking = (count - picked.len()).min(passed.len());
    picked.extend((1..=lacking).map(|n| passed[n * passed.len() / (lacking + 1)]));
    picked
}

/// The mIoU of one image, over the classes in its labels.
///
/// # Errors
/// Labels and prediction do not fit: see [`ConfusionMatrix::add`].
pub fn image_miou(classes: usize, labels: &[u8], prediction: &[u8]) -> Result<Option<f64>, ReportError> {
    let mut confusion = ConfusionMatrix::new(classes);
    confusion.add(labels, prediction)?;
    Ok(confusion.miou())
}

/// An image with its label, prediction and errors. The JSON contains only its name and score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageFacts {
    pub name: String,
    pub rank: Rank,
    /// See [`image_miou`].
    pub miou: f64,
    #[serde(skip)]
    pub panels: Panels,
}

/// The four images of the page as `data:` URLs, of the same size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Panels {
    pub width: usize,
    pub height: usize,
    pub image: String,
    pub label: String,
    pub prediction: String,
    /// The image in grey, with wrong pixels in red.
    pub errors: String,
}

/// The largest width of a panel in pixels.
const WIDTH: usize = 480;
const JPEG_QUALITY: i32 = 80;
/// The colour of wrong pixels.
const WRONG: Rgb = Rgb(235, 52, 60);
/// The colours of the hatching of void. A single colour might be that of a class.
const HATCH: [Rgb; 2] = [Rgb(70, 70, 70), Rgb(190, 190, 190)];
/// The width of a line of the hatching in pixels, as in the legend of the page.
const HATCH_WIDTH: usize = 4;
/// The index of the second colour in the palette. That of the first is [`VOID`].
const HATCH_INDEX: u8 = 254;

impl ImageFacts {
    /// Draws the panels. `prediction` has the size of the label. Classes are drawn in the colours of `classes`, void is hatched.
    ///
    /// # Errors
    /// An image cannot be encoded.
    pub fn new(
        name: impl Into<String>,
        rank: Rank,
        miou: f64,
        labelled: &LabelledImage,
        prediction: &[u8],
        classes: &[Label],
    ) -> Result<Self, ReportError> {
        let (width, height) = (labelled.width, labelled.height);
        let small = width.min(WIDTH);
        let low = (height * small).div_ceil(width).max(1);
        let shrunk = |of: &[u8]| nearest(of, (width, height), (small, low));
        let (labels, predicted) = (shrunk(&labelled.labels), shrunk(prediction));
        let rgb = shrink(&labelled.rgb, (width, height), (small, low))?;
        let panels = Panels {
            width: small,
            height: low,
            label: png(&labels, small, low, classes)?,
            prediction: png(&predicted, small, low, classes)?,
            errors: jpeg(&errors(&rgb, &labels, &predicted), small, low)?,
            image: jpeg(&rgb, small, low)?,
        };
        Ok(ImageFacts { name: name.into(), rank, miou, panels })
    }
}

/// An image with its proposed mask. The JSON contains only its name and share of void.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProposalFacts {
    pub name: String,
    /// Of the images, those with the least void are the best.
    pub rank: Rank,
    /// Share of the pixels that are void, 0 to 1.
    pub void_share: f64,
    #[serde(skip)]
    pub panels: ProposalPanels,
}

/// The images of a proposal on the page as `data:` URLs, of the same size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProposalPanels {
    pub width: usize,
    pub height: usize,
    pub image: String,
    pub mask: String,
    /// The image with the mask on it.
    pub both: String,
}

impl ProposalFacts {
    /// Draws the panels of a labelled image.
    ///
    /// # Errors
    /// An image cannot be encoded.
    pub fn new(
        name: impl Into<String>,
        rank: Rank,
        labelled: &LabelledImage,
        classes: &[Label],
    ) -> Result<Self, ReportError> {
        let (width, height) = (labelled.width, labelled.height);
        let small = width.min(WIDTH);
        let low = (height * small).div_ceil(width).max(1);
        let labels = nearest(&labelled.labels, (width, height), (small, low));
        let rgb = shrink(&labelled.rgb, (width, height), (small, low))?;
        let blend = |(pixel, &label): (&[u8], &u8)| match classes.get(usize::from(label)) {
            Some(&Label { color: Rgb(r, g, b), .. }) => {
                let half = |own: u8, color: u8| ((u16::from(own) + u16::from(color)) / 2) as u8;
                [half(pixel[0], r), half(pixel[1], g), half(pixel[2], b)]
            }
            None => [pixel[0], pixel[1], pixel[2]],
        };
        let both: Vec<u8> = rgb.chunks_exact(3).zip(&labels).flat_map(blend).collect();
        let void = labelled.labels.iter().filter(|&&label| label == VOID).count();
        let panels = ProposalPanels {
            width: small,
            height: low,
            mask: png(&labels, small, low, classes)?,
            both: jpeg(&both, small, low)?,
            image: jpeg(&rgb, small, low)?,
        };
        let void_share = void as f64 / labelled.labels.len().max(1) as f64;
        Ok(ProposalFacts { name: name.into(), rank, void_share, panels })
    }
}

/// The image in grey, with wrong pixels in red and void darker.
fn errors(rgb: &[u8], labels: &[u8], predicted: &[u8]) -> Vec<u8> {
    let Rgb(red, green, blue) = WRONG;
    let pixel = |((pixel, &label), &class): ((&[u8], &u8), &u8)| {
        // Weights of BT.601, in 256ths.
        let grey = (77 * u32::from(pixel[0]) + 150 * u32::from(pixel[1]) + 29 * u32::from(pixel[2])) / 256;
        let blend = |color: u8| ((grey + 3 * u32::from(color)) / 4) as u8;
        if label == VOID {
            [(grey / 3) as u8; 3]
        } else if label == class {
            [(grey / 2 + 100) as u8; 3]
        } else {
            [blend(red), blend(green), blend(blue)]
        }
    };
    rgb.chunks_exact(3).zip(labels).zip(predicted).flat_map(pixel).collect()
}

/// Resizes class indices by nearest neighbour, like the masks of the service.
fn nearest(of: &[u8], (width, height): (usize, usize), (to_width, to_height): (usize, usize)) -> Vec<u8> {
    let at = |y: usize, x: usize| of[Mask::index(y, to_height, height) * width + Mask::index(x, to_width, width)];
    (0..to_height).flat_map(|y| (0..to_width).map(move |x| (y, x))).map(|(y, x)| at(y, x)).collect()
}

fn shrink(rgb: &[u8], from: (usize, usize), to: (usize, usize)) -> Result<Vec<u8>, ReportError> {
    if from == to {
        return Ok(rgb.to_vec());
    }
    let source = Mat::new_rows_cols_with_bytes::<Vec3b>(from.1 as i32, from.0 as i32, rgb)?;
    let mut small = Mat::default();
    resize(&source, &mut small, Size::new(to.0 as i32, to.1 as i32), 0.0, 0.0, INTER_AREA)?;
    Ok(small.data_bytes()?.to_vec())
}

fn jpeg(rgb: &[u8], width: usize, height: usize) -> Result<String, ReportError> {
    let source = Mat::new_rows_cols_with_bytes::<Vec3b>(height as i32, width as i32, rgb)?;
    let mut bgr = Mat::default();
    cvt_color_def(&source, &mut bgr, COLOR_RGB2BGR)?;
    let mut bytes = Vector::<u8>::new();
    imencode(".jpg", &bgr, &mut bytes, &Vector::from_slice(&[IMWRITE_JPEG_QUALITY, JPEG_QUALITY]))?;
    Ok(format!("data:image/jpeg;base64,{}", STANDARD.encode(bytes.as_slice())))
}

/// Encodes class indices as a PNG with a palette, which has a fiftieth of the size of one in RGB.
fn png(classes: &[u8], width: usize, height: usize, labels: &[Label]) -> Result<String, ReportError> {
    let mut palette: Vec<u8> = labels.iter().flat_map(|label| [label.color.0, label.color.1, label.color.2]).collect();
    palette.resize(3 * 256, 0);
    // With 255 classes the palette has no room for the second colour.
    let hatched = labels.len() <= usize::from(HATCH_INDEX);
    for (place, Rgb(r, g, b)) in [VOID, HATCH_INDEX].into_iter().zip(HATCH).take(1 + usize::from(hatched)) {
        palette[3 * usize::from(place)..][..3].copy_from_slice(&[r, g, b]);
    }
    let pixel = |(at, &class): (usize, &u8)| {
        let second = (at % width + at / width) / HATCH_WIDTH % 2 == 1;
        if class == VOID && hatched && second { HATCH_INDEX } else { class }
    };
    let pixels: Vec<u8> = classes.iter().enumerate().map(pixel).collect();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_palette(palette);
    encoder.set_compression(png::Compression::High);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&pixels)?;
    writer.finish()?;
    Ok(format!("data:image/png;base64,{}", STANDARD.encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_image_has_two_ranks() {
        let scores: Vec<Option<f64>> = (0..10).map(|n| Some(f64::from(n) / 10.0)).collect();
        use Rank::{Best, Median, Worst};
        let expected = [(Best, 9), (Best, 8), (Median, 5), (Median, 4), (Worst, 0), (Worst, 1)];
        assert_eq!(choose(&scores, 2), expected);
        assert_eq!(choose(&[Some(0.5), None, Some(0.7), Some(0.1)], 3), [(Best, 2), (Median, 0), (Worst, 3)]);
        assert_eq!(choose(&[Some(0.5), Some(0.4)], 3), [(Best, 0), (Worst, 1)]);
        assert_eq!(choose(&[Some(0.5)], 3), [(Best, 0)]);
        assert_eq!(choose(&[None], 3), []);
    }

    #[test]
    fn similar_images_are_not_selected_together() {
        use Rank::{Best, Median, Worst};
        // Recordings of ten images each.
        let scores: Vec<Option<f64>> = (0..90).map(|n| Some(f64::from(n))).collect();
        let recording = |n: usize| n / 10;
        let chosen = choose_apart(&scores, 3, |a, b| recording(a) == recording(b));
        let of = |rank| chosen.iter().filter(|(of, _)| *of == rank).map(|&(_, n)| n).collect::<Vec<_>>();
        assert_eq!((of(Best), of(Worst)), (vec![89, 79, 69], vec![0, 10, 20]));
        assert_eq!(of(Median).iter().map(|&n| recording(n)).collect::<Vec<_>>(), [5, 4, 3]);
        // All images are similar: three of each rank are selected, with a distance in the ranking.
        let chosen = choose_apart(&scores, 3, |_, _| true);
        assert_eq!(chosen.len(), 9);
        let best: Vec<usize> = chosen[..3].iter().map(|&(_, n)| n).collect();
        assert!(best[0] == 89 && best.is_sorted_by(|a, b| a > b) && best[0] - best[1] > 5, "{best:?}");
        assert!(chosen.iter().all(|(_, n)| chosen.iter().filter(|(_, other)| other == n).count() == 1));
    }

    #[test]
    fn panels_have_the_colours_of_the_classes_and_errors_in_red() {
        let (width, height) = (960, 6);
        let labelled = LabelledImage {
            width,
            height,
            rgb: [200, 100, 50].repeat(width * height),
            labels: (0..width * height).map(|n| if n % width < 400 { 0 } else { VOID }).collect(),
        };
        let classes = [("a", Rgb(1, 2, 3)), ("b", Rgb(4, 5, 6))];
        let classes = classes.map(|(name, color)| Label::new(name, color));
        let prediction: Vec<u8> = (0..width * height).map(|n| u8::from(n % width >= 200)).collect();
        let facts = ImageFacts::new("one", Rank::Best, 0.5, &labelled, &prediction, &classes).unwrap();
        assert_eq!((facts.panels.width, facts.panels.height), (480, 3));
        let bytes = |address: &str| STANDARD.decode(address.split_once(',').unwrap().1).unwrap();
        let data = bytes(&facts.panels.label);
        let mut reader = png::Decoder::new(std::io::Cursor::new(data)).read_info().unwrap();
        assert_eq!(reader.info().palette.as_deref().unwrap()[..6], [1, 2, 3, 4, 5, 6]);
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!((pixels[0], pixels[199], pixels[200]), (0, 0, VOID));
        assert_eq!((pixels[203], pixels[204], pixels[208]), (VOID, HATCH_INDEX, VOID), "void is hatched");
        assert!(facts.panels.image.starts_with("data:image/jpeg;base64,/9j/"));

        let [right, wrong, void] = [0, 300, 700].map(|x| {
            let all = errors(&labelled.rgb, &labelled.labels, &prediction);
            [all[3 * x], all[3 * x + 1], all[3 * x + 2]]
        });
        assert_eq!(right[0], right[2]);
        assert!(wrong[0] > 200 && wrong[2] < 100, "{wrong:?}");
        assert!(void[0] < 60, "{void:?}");
        let text = serde_json::to_string(&facts).unwrap();
        assert_eq!(text, r#"{"name":"one","rank":"best","miou":0.5}"#);
    }
}
