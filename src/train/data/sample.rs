//! What a few label pictures of a data set hold, to find out how they are meant.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::error::DataError;
use super::raw::{self, Pixels, Raw};
use crate::frame::Rgb;

/// Colours that are counted; more than this is no label picture.
const MAX_COLORS: usize = 4096;

/// Pixel counts over some label pictures.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Pictures read.
    pub files: usize,
    pub gray: [u64; 256],
    pub indexed: [u64; 256],
    /// Palette colours that pixels have.
    pub palette: HashSet<Rgb>,
    pub colors: HashMap<Rgb, u64>,
}

impl Default for Sample {
    fn default() -> Self {
        Sample { files: 0, gray: [0; 256], indexed: [0; 256], palette: HashSet::new(), colors: HashMap::new() }
    }
}

impl Sample {
    /// Reads at most `limit` of `labels`, spread evenly. Damaged ones are left out: reading them later says what is wrong.
    ///
    /// # Errors
    /// That of the first picture when none can be read.
    pub fn read(labels: &[&Path], limit: usize) -> Result<Sample, DataError> {
        let count = labels.len().min(limit);
        let chosen: Vec<&Path> = (0..count).map(|n| labels[n * labels.len() / count]).collect();
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        let parts: Vec<(Sample, Option<DataError>)> = std::thread::scope(|scope| {
            let work = |part: &[&Path]| {
                let (mut sample, mut first_error) = (Sample::default(), None);
                for path in part {
                    match raw::read(path) {
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
        let (mut sample, mut first_error) = (Sample::default(), None);
        for (part, error) in parts {
            sample.merge(part);
            first_error = first_error.or(error);
        }
        match first_error {
            Some(error) if sample.files == 0 => Err(error),
            _ => Ok(sample),
        }
    }

    pub fn add(&mut self, raw: &Raw) {
        self.files += 1;
        match &raw.pixels {
            Pixels::Gray(values) => values.iter().for_each(|&value| self.gray[usize::from(value)] += 1),
            Pixels::Indexed(values, palette) => {
                let mut used = [0u64; 256];
                values.iter().for_each(|&value| used[usize::from(value)] += 1);
                for (value, &count) in used.iter().enumerate().filter(|(_, count)| **count > 0) {
                    self.indexed[value] += count;
                    self.palette.extend(palette.get(value));
                }
            }
            Pixels::Colors(colors) => {
                // Labels come in runs: one look into the map a run.
                for run in colors.chunk_by(|a, b| a == b) {
                    if self.colors.len() < MAX_COLORS || self.colors.contains_key(&run[0]) {
                        *self.colors.entry(run[0]).or_default() += run.len() as u64;
                    }
                }
            }
        }
    }

    fn merge(&mut self, other: Sample) {
        self.files += other.files;
        for value in 0..256 {
            self.gray[value] += other.gray[value];
            self.indexed[value] += other.indexed[value];
        }
        self.palette.extend(other.palette);
        for (color, count) in other.colors {
            *self.colors.entry(color).or_default() += count;
        }
    }

    /// Whether all colour pictures are really grey ones, stored with three channels.
    pub fn colors_are_gray(&self) -> bool {
        self.colors.keys().all(|Rgb(r, g, b)| r == g && g == b)
    }

    /// Counts of all numbers, those of grey colour pictures among them.
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
