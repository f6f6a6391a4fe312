//! The pixels of a mask as text, for clients that request them with the message about the mask.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::Serialize;

use crate::frame::{Label, Mask, UNSEEN};

/// How a client wants the pixels of masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PixelsFormat {
    /// Run lengths of each class, as the COCO API encodes them.
    Rle,
    Png,
}

/// The pixels of a mask.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "format")]
pub enum MaskPixels {
    /// Run-length encoding of the COCO API. `pycocotools.mask.decode({"size": …, "counts": …})` returns the pixels of a class.
    #[serde(rename = "coco-rle")]
    CocoRle {
        /// Height and width in pixels.
        size: [usize; 2],
        /// The run lengths of each class in the mask, compressed as in the `counts` of the COCO API.
        classes: BTreeMap<String, String>,
    },
    /// A greyscale PNG with the size of the mask. Pixels outside of the stream's `crop` have the value 255.
    #[serde(rename = "png")]
    Png {
        /// The file in Base64. A pixel's value is the index of its class in the labels of the model.
        data: String,
    },
}

impl MaskPixels {
    /// The pixels of a mask in this format.
    ///
    /// # Errors
    /// The PNG cannot be written: the mask has no pixels.
    pub fn of(mask: &Mask, format: PixelsFormat) -> Result<Self, png::EncodingError> {
        Ok(match format {
            PixelsFormat::Rle => MaskPixels::CocoRle { size: [mask.height, mask.width], classes: coco_rle(mask) },
            PixelsFormat::Png => MaskPixels::Png { data: STANDARD.encode(mask_png(mask)?) },
        })
    }
}

/// The mask as an 8-bit greyscale PNG of its class indices.
///
/// # Errors
/// The mask has no pixels.
pub fn mask_png(mask: &Mask) -> Result<Vec<u8>, png::EncodingError> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, mask.width as u32, mask.height as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    encoder.write_header()?.write_image_data(&mask.classes)?;
    Ok(file)
}

/// The compressed run lengths of each class that is in the mask, by its name. Classes with the same name are one; a class
/// without a label is named by its index. In the mask of a crop, pixels outside of the crop ([`UNSEEN`]) belong to no class. One pass over the pixels for all classes,
/// without memory for them.
fn coco_rle(mask: &Mask) -> BTreeMap<String, String> {
    let names = first_of_name(&mask.labels);
    let mut encoders: [Option<Box<RleWriter>>; 256] = [const { None }; 256];
    let mut add = |class: u8, start: u32, end: u32| {
        let writer = encoders[usize::from(class)].get_or_insert_default();
        writer.push(start - writer.end);
        writer.push(end - start);
        writer.end = end;
    };
    // The COCO API has the pixels in the order of columns.
    let pixels = (0..mask.width).flat_map(|x| mask.classes[x..].iter().step_by(mask.width.max(1)));
    let mut run: Option<(u8, u32)> = None;
    let mut at = 0;
    for &class in pixels {
        let class = names[usize::from(class)];
        match run {
            Some((current, _)) if current == class => {}
            Some((current, start)) => {
                add(current, start, at);
                run = Some((class, at));
            }
            None => run = Some((class, at)),
        }
        at += 1;
    }
    if let Some((class, start)) = run {
        add(class, start, at);
    }
    let name = |class: usize| mask.labels.get(class).map_or_else(|| class.to_string(), |label| label.name.clone());
    if mask.seen.is_some() {
        encoders[usize::from(UNSEEN)] = None;
    }
    let finished = encoders.into_iter().enumerate().filter_map(|(class, writer)| {
        let mut writer = writer?;
        if writer.end < at {
            writer.push(at - writer.end);
        }
        Some((name(class), writer.text))
    });
    finished.collect()
}

/// For each class, the first class with the same name.
fn first_of_name(labels: &[Label]) -> [u8; 256] {
    std::array::from_fn(|class| {
        let first = labels.get(class).and_then(|label| labels.iter().position(|other| other.name == label.name));
        first.unwrap_or(class) as u8
    })
}

/// Run lengths of one class, which alternate between other pixels and pixels of the class, as compressed text.
#[derive(Debug, Default)]
struct RleWriter {
    text: String,
    /// The number of run lengths so far.
    count: usize,
    /// The last two run lengths, the newer one last.
    last: [u32; 2],
    /// The end of the last run of the class.
    end: u32,
}

impl RleWriter {
    /// Adds a run length: after the third, its difference from the one before the last, in digits of five bits, the lowest
    /// first, with a sixth bit if more follow, from the character `0`. This is `rleToString` of the COCO API
    /// (`common/maskApi.c`, <https://github.com/cocodataset/cocoapi>).
    fn push(&mut self, length: u32) {
        let mut rest = i64::from(length);
        if self.count > 2 {
            rest -= i64::from(self.last[0]);
        }
        self.count += 1;
        self.last = [self.last[1], length];
        loop {
            let digit = (rest & 0x1f) as u8;
            rest >>= 5;
            let ends = if digit & 0x10 == 0 { rest == 0 } else { rest == -1 };
            self.text.push(char::from(48 + digit + if ends { 0 } else { 0x20 }));
            if ends {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::time::{Duration, Instant};

    use sha2::{Digest, Sha256};

    use super::*;
    use crate::frame::{PixelArea, Rgb};

    fn mask(width: usize, height: usize, names: &[&str], class: impl Fn(usize, usize) -> u8) -> Mask {
        let classes = (0..width * height).map(|at| class(at % width, at / width)).collect();
        let labels = names.iter().map(|name| Label::new(*name, Rgb(1, 2, 3))).collect();
        let (seq, pts, captured_at, model) = (0, Duration::ZERO, Instant::now(), "m".into());
        Mask {
            seq,
            pts,
            captured_at,
            width,
            height,
            classes,
            labels,
            model,
            guide: None,
            probable: None,
            confirmed: false,
            seen: None,
        }
    }

    /// `rleFrString` of the COCO API, and then the pixels of the class in the order of rows.
    fn decoded(text: &str, width: usize, height: usize) -> Vec<bool> {
        let mut lengths: Vec<i64> = Vec::new();
        let mut characters = text.bytes();
        while let Some(mut character) = characters.next() {
            let (mut length, mut shift) = (0_i64, 0);
            loop {
                let digit = i64::from(character) - 48;
                length |= (digit & 0x1f) << shift;
                shift += 5;
                if digit & 0x20 == 0 {
                    if digit & 0x10 != 0 {
                        length |= -1 << shift;
                    }
                    break;
                }
                character = characters.next().unwrap();
            }
            if lengths.len() > 2 {
                length += lengths[lengths.len() - 2];
            }
            lengths.push(length);
        }
        let columns: Vec<bool> =
            lengths.iter().enumerate().flat_map(|(n, &length)| vec![n % 2 == 1; length.try_into().unwrap()]).collect();
        assert_eq!(columns.len(), width * height);
        (0..width * height).map(|at| columns[at % width * height + at / width]).collect()
    }

    /// The results of `pycocotools.mask.encode` 2.0.11 for the same pixels; of long ones, the length and the first digits of the
    /// SHA-256.
    #[test]
    fn run_lengths_are_those_of_pycocotools() {
        type IsIn = fn(usize, usize) -> bool;
        let short: [(usize, usize, IsIn, &str); 4] = [
            (7, 5, |x, y| x == 6 && y == 4, "R11"),
            (7, 5, |x, y| x == 0 && y == 0, "01R1"),
            (64, 36, |_, _| true, "0PX2"),
            (512, 288, |x, _| x < 256, "0PPX2PPX2"),
        ];
        let encoded = |width: usize, height: usize, is_in: IsIn| {
            let mask = mask(width, height, &["other", "class"], |x, y| u8::from(is_in(x, y)));
            coco_rle(&mask).remove("class").unwrap()
        };
        for (width, height, is_in, expected) in short {
            assert_eq!(encoded(width, height, is_in), expected);
        }
        let long: [(usize, usize, IsIn, usize, &str); 4] = [
            (100, 80, |x, y| x > y, 164, "7d0972d2bb2621ca"),
            (33, 21, |x, y| (x / 5 + y / 4) % 2 == 0, 193, "eb6f84be36ac7e4a"),
            (512, 288, |x, y| x.abs_diff(256).pow(2) + y.abs_diff(144).pow(2) < 10_000, 407, "0023244b50daaaa8"),
            (40, 30, |x, y| x * y % 7 < 3, 609, "b6c9ecd3aa54c265"),
        ];
        for (width, height, is_in, length, hash) in long {
            let text = encoded(width, height, is_in);
            assert_eq!((text.len(), &hex::encode(Sha256::digest(&text))[..16]), (length, hash), "{text}");
        }
    }

    #[test]
    fn run_lengths_of_all_classes_cover_the_mask() {
        let mut random = fastrand::Rng::with_seed(3);
        for (width, height) in [(1, 1), (1, 70), (70, 1), (3, 2), (64, 36), (129, 65)] {
            for length in [1, 3, 200] {
                let mut classes = Vec::new();
                while classes.len() < width * height {
                    classes.extend(std::iter::repeat_n(random.u8(0..4), random.usize(1..=length)));
                }
                let mask = mask(width, height, &["a", "b", "a"], |x, y| classes[y * width + x]);
                let rle = coco_rle(&mask);
                let name = |class: u8| ["a", "b", "a", "3"][usize::from(class)];
                for (class, text) in &rle {
                    let expected: Vec<bool> = mask.classes.iter().map(|&pixel| name(pixel) == class).collect();
                    assert_eq!(decoded(text, width, height), expected, "{class} {width}x{height}");
                    assert!(expected.contains(&true), "{class} is in the mask");
                }
                assert!(mask.classes.iter().all(|&pixel| rle.contains_key(name(pixel))));
            }
        }
        assert!(coco_rle(&mask(0, 0, &[], |_, _| 0)).is_empty());
    }

    #[test]
    fn pixels_that_the_model_did_not_see_have_no_run_lengths() {
        let mut mask = mask(6, 4, &["a", "b"], |x, y| if x < 3 { UNSEEN } else { u8::from(y > 1) });
        mask.seen = Some(PixelArea { left: 3, top: 0, width: 3, height: 4 });
        let rle = coco_rle(&mask);
        assert_eq!(rle.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(decoded(&rle["b"], 6, 4), mask.classes.iter().map(|&class| class == 1).collect::<Vec<_>>());
        // A model without a crop may return a class without a label.
        mask.seen = None;
        assert!(coco_rle(&mask).contains_key("255"));
    }

    #[test]
    fn a_png_has_the_indices_of_the_classes() {
        let mask = mask(3, 2, &["a"], |x, y| (3 * y + x) as u8 * 50);
        let MaskPixels::Png { data } = MaskPixels::of(&mask, PixelsFormat::Png).unwrap() else { panic!("a PNG") };
        let mut reader = png::Decoder::new(Cursor::new(STANDARD.decode(data).unwrap())).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height, info.color_type), (3, 2, png::ColorType::Grayscale));
        assert_eq!(pixels, mask.classes);
    }
}
