//! Statistics of a sample of label images, from which their encoding is detected.

use std::collections::{HashMap, HashSet};

use maskcast::frame::Rgb;

use super::Pair;
use super::drawing::LabelSource;
use super::error::DataError;
use super::raw::{RawLabel, RawPixels};

/// Largest number of colours that are counted; an image with more is not a label image.
const MAX_COLORS: usize = 4096;

/// Pixel counts of a sample of label images.
#[derive(Clone, Debug)]
pub struct LabelSample {
    /// Number of label images read.
    pub files: usize,
    pub gray: [u64; 256],
    pub indexed: [u64; 256],
    /// Palette colours that occur in pixels.
    pub palette: HashSet<Rgb>,
    /// The colours by palette index, if the palettes of all images agree.
    pub palettes: Palettes,
    pub colors: HashMap<Rgb, u64>,
}

/// The colours by index of several palettes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Palettes {
    #[default]
    None,
    Same(Vec<Rgb>),
    /// An index has different colours in different palettes.
    Different,
}

impl Palettes {
    fn add(&mut self, palette: &[Rgb]) {
        match self {
            Palettes::None if !palette.is_empty() => *self = Palettes::Same(palette.to_vec()),
            // Programs omit unused colours at the end of a palette.
            Palettes::Same(known) if known.iter().zip(palette).all(|(a, b)| a == b) => {
                known.extend(palette.iter().skip(known.len()).copied().collect::<Vec<_>>());
            }
            Palettes::Same(_) => *self = Palettes::Different,
            Palettes::None | Palettes::Different => {}
        }
    }

    fn merge(&mut self, other: Palettes) {
        match other {
            Palettes::None => {}
            Palettes::Same(palette) => self.add(&palette),
            Palettes::Different => *self = Palettes::Different,
        }
    }

    /// Returns the colour of an index, if all palettes agree.
    pub fn color(&self, number: u8) -> Option<Rgb> {
        match self {
            Palettes::Same(palette) => palette.get(usize::from(number)).copied(),
            Palettes::None | Palettes::Different => None,
        }
    }
}

impl Default for LabelSample {
    fn default() -> Self {
        let (palette, palettes) = (HashSet::new(), Palettes::None);
        LabelSample { files: 0, gray: [0; 256], indexed: [0; 256], palette, palettes, colors: HashMap::new() }
    }
}

impl LabelSample {
    /// Reads the labels of at most `limit` evenly spread pairs, on all cores. Skips damaged labels; they are reported
    /// when they are read for training.
    ///
    /// # Errors
    /// The first error, if no label can be read.
    pub fn read(pairs: &[&Pair], labels: &LabelSource, limit: usize) -> Result<LabelSample, DataError> {
        let count = pairs.len().min(limit);
        let chosen: Vec<&Pair> = (0..count).map(|n| pairs[n * pairs.len() / count]).collect();
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        let parts: Vec<(LabelSample, Option<DataError>)> = std::thread::scope(|scope| {
            let work = |part: &[&Pair]| {
                let (mut sample, mut first_error) = (LabelSample::default(), None);
                for pair in part {
                    match labels.read(pair) {
                        Ok(raw) => sample.add(&raw),
                        Err(error) => {
                            first_error.get_or_insert(error);
                        }
                    }
                }
                (sample, first_error)
            };
            let parts = chosen.chunks(count.div_ceil(threads).max(1));
            let threads: Vec<_> = parts.map(|part| scope.spawn(move || work(part))).collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined.map(|part| part.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        });
        let (mut sample, mut first_error) = (LabelSample::default(), None);
        for (part, error) in parts {
            sample.merge(part);
            first_error = first_error.or(error);
        }
        match first_error {
            Some(error) if sample.files == 0 => Err(error),
            _ => Ok(sample),
        }
    }

    pub fn add(&mut self, raw: &RawLabel) {
        self.files += 1;
        match &raw.pixels {
            RawPixels::Gray(values) => values.iter().for_each(|&value| self.gray[usize::from(value)] += 1),
            RawPixels::Indexed(values, palette) => {
                self.palettes.add(palette);
                let mut used = [0u64; 256];
                values.iter().for_each(|&value| used[usize::from(value)] += 1);
                for (value, &count) in used.iter().enumerate().filter(|(_, count)| **count > 0) {
                    self.indexed[value] += count;
                    self.palette.extend(palette.get(value));
                }
            }
            RawPixels::Colors(colors) => {
                // Equal labels come in runs: one map lookup per run.
                for run in colors.chunk_by(|a, b| a == b) {
                    if self.colors.len() < MAX_COLORS || self.colors.contains_key(&run[0]) {
                        *self.colors.entry(run[0]).or_default() += run.len() as u64;
                    }
                }
            }
        }
    }

    fn merge(&mut self, other: LabelSample) {
        self.files += other.files;
        for value in 0..256 {
            self.gray[value] += other.gray[value];
            self.indexed[value] += other.indexed[value];
        }
        self.palette.extend(other.palette);
        self.palettes.merge(other.palettes);
        for (color, count) in other.colors {
            *self.colors.entry(color).or_default() += count;
        }
    }

    /// Whether all colour images contain only grey, stored in three channels.
    pub fn colors_are_gray(&self) -> bool {
        self.colors.keys().all(|Rgb(r, g, b)| r == g && g == b)
    }

    /// Whether 255 is the only number beside 0: labels are masks of one class, or contain only class 0 and void.
    pub fn only_white(&self) -> bool {
        let numbers = self.numbers();
        numbers[255] > 0 && numbers[1..255].iter().all(|count| *count == 0) && self.colors_are_gray()
    }

    /// Returns the pixel count of each number, including grey pixels of colour images.
    pub fn numbers(&self) -> [u64; 256] {
        let mut numbers = self.gray;
        for (number, indexed) in numbers.iter_mut().zip(&self.indexed) {
            *number += indexed;
        }
        for (Rgb(r, g, b), count) in &self.colors {
            if r == g && g == b {
                numbers[usize::from(*r)] += count;
            }
        }
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn palettes_are_used_while_they_agree() {
        let (black, red, blue) = (Rgb(0, 0, 0), Rgb(200, 0, 0), Rgb(0, 0, 200));
        let sample = |palettes: &[&[Rgb]]| {
            let mut sample = LabelSample::default();
            for palette in palettes {
                sample.add(&RawLabel { width: 1, height: 1, pixels: RawPixels::Indexed(vec![0], palette.to_vec()) });
            }
            sample
        };
        let mut longer = sample(&[&[black, red], &[black], &[black, red, blue]]);
        assert_eq!((longer.palettes.color(2), longer.palettes.color(3)), (Some(blue), None));
        assert_eq!(sample(&[&[black, red], &[black, blue]]).palettes, Palettes::Different);
        longer.merge(sample(&[&[red]]));
        assert_eq!(longer.palettes.color(0), None);
    }
}
