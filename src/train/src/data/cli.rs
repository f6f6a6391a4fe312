//! Command-line options that select a data set, and `data check`.

use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use super::check::{self, CheckReport};
use super::{BySequence, DataError, Dataset, Format, LabelOrientation, OpenOptions, SplitOptions};

const CLASSES_HELP: &str = "\
Classes, one per line, instead of the data set's own file (classes.txt, label_colors.txt, labelmap.txt, …):
  road               a name; its number is the index of the line, from 0
  255,person         number in the label image, and name
  128 64 128 road    colour and name, if labels are in colours; also road,128,64,128
  truck=car          trucks count as cars
For masks of 0 and 255: two names, or `0,background` and `255,person`. The file is UTF-8; # begins a comment";

/// The data set and how to read it; shared by all commands that read one.
#[derive(Args, Clone, Debug, Serialize, Deserialize)]
#[command(next_help_heading = "Data set")]
pub struct DataArgs {
    /// The data set's folder: CamVid, CVAT ("CamVid 1.0", "Segmentation mask 1.1"), Cityscapes, COCO, labelme, YOLO
    /// polygons, Roboflow's masks, or images and masks
    #[arg(value_name = "DIR")]
    pub data: PathBuf,
    /// Layout of the folder; detected if not given
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// Classes, one per line, instead of the data set's own file: `name`, `255,name`, `128 64 128 name`; `truck=car`
    /// merges
    #[arg(long, value_name = "FILE", long_help = CLASSES_HELP)]
    pub classes: Option<PathBuf>,
    /// Orientation of the labels of images that are rotated or mirrored by their EXIF data
    #[arg(long, value_enum, value_name = "HOW", default_value_t)]
    #[serde(default)]
    pub label_orientation: LabelOrientation,
    /// Names or numbers of classes that are excluded from training, instead of void, ignore, unlabeled; `none` excludes
    /// no class
    #[arg(long, value_name = "CLASS", value_delimiter = ',')]
    pub void: Vec<String>,
    /// Share of validation images, if the data set has no split
    #[arg(long, value_name = "SHARE", default_value_t = 0.2, value_parser = share)]
    pub val: f64,
    /// Seed of the split
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub split_seed: u64,
    /// Whether all frames of one recording are in the same part
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    pub by_sequence: BySequence,
    /// Replace the data set's split (test images stay test images)
    #[arg(long)]
    pub resplit: bool,
    /// A folder with train.txt and val.txt: names of images, one per line
    #[arg(long, value_name = "DIR", conflicts_with = "resplit")]
    pub lists: Option<PathBuf>,
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "not a number".to_string())?;
    if share > 0.0 && share < 1.0 { Ok(share) } else { Err("pass a number between 0 and 1".into()) }
}

impl DataArgs {
    /// Converts the arguments to [`OpenOptions`].
    pub fn options(&self) -> OpenOptions {
        OpenOptions {
            format: self.format,
            classes: self.classes.clone(),
            void: (!self.void.is_empty()).then(|| self.void.iter().map(|name| name.trim().to_string()).collect()),
            split: SplitOptions {
                val_share: self.val,
                seed: self.split_seed,
                by_sequence: self.by_sequence,
                resplit: self.resplit,
            },
            lists: self.lists.clone(),
            label_orientation: self.label_orientation,
        }
    }

    /// Opens the data set.
    ///
    /// # Errors
    /// As [`Dataset::open`].
    pub fn open(&self) -> Result<Dataset, DataError> {
        Dataset::open(&self.data, &self.options())
    }
}

/// `maskcast-train data check`
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    #[command(flatten)]
    pub data: DataArgs,
    /// Print all findings as JSON
    #[arg(long)]
    pub json: bool,
    /// Threads that read images; 0: one per core
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub threads: usize,
    /// Write the split as train.txt and val.txt into this folder, for --lists
    #[arg(long, value_name = "DIR")]
    pub write_lists: Option<PathBuf>,
}

impl CheckArgs {
    /// Checks the data set and prints the report. A data set whose report has errors is not suitable for training.
    ///
    /// # Errors
    /// If the data set cannot be opened, or the lists cannot be written.
    pub fn run(&self) -> Result<CheckReport, DataError> {
        let dataset = Dataset::open_to_check(&self.data.data, &self.data.options())?;
        // indicatif draws nothing if there is no terminal.
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} images, {eta} left") {
            bar.set_style(style);
        }
        let report = check::check(&dataset, self.threads, &mut |done, of| {
            bar.set_length(of as u64);
            bar.set_position(done as u64);
        });
        bar.finish_and_clear();
        if let Some(dir) = &self.write_lists {
            dataset.write_lists(dir)?;
        }
        if self.json {
            let text = serde_json::to_string_pretty(&report);
            println!("{}", text.expect("a report has only text, numbers and lists of them"));
        } else {
            println!("{report}");
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::testing::{gray, noise_image, write};
    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        check: CheckArgs,
    }

    fn parse(arguments: &[&str]) -> Result<CheckArgs, clap::Error> {
        Program::try_parse_from(["program"].iter().chain(arguments)).map(|program| program.check)
    }

    #[test]
    fn arguments_become_options() {
        let arguments = parse(&["d", "--void", "sky, 11", "--val", "0.3", "--by-sequence", "never", "--format", "voc"]);
        let options = arguments.unwrap().data.options();
        assert_eq!(options.void, Some(vec!["sky".to_string(), "11".to_string()]));
        assert_eq!((options.format, options.split.val_share), (Some(Format::Voc), 0.3));
        assert_eq!(options.split.by_sequence, BySequence::Never);
        assert_eq!(parse(&["d"]).unwrap().data.options().void, None);
        for wrong in [&["d", "--val", "1"][..], &["d", "--val", "x"], &["d", "--lists", "l", "--resplit"], &[]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_check_writes_the_lists_that_it_checked() {
        let dir = tempfile::tempdir().unwrap();
        for (seed, name) in ["ant", "bee", "cat"].into_iter().enumerate() {
            noise_image(&dir.path().join(format!("images/{name}.png")), seed as u64);
            gray(&dir.path().join(format!("masks/{name}.png")), &[0, 1]);
        }
        write(&dir.path().join("classes.txt"), "sky\nroad\n");
        let (root, lists) = (dir.path().display().to_string(), dir.path().join("split").display().to_string());
        let report = parse(&[&root, "--json", "--threads", "1", "--write-lists", &lists]).unwrap().run().unwrap();
        assert_eq!((report.errors, report.images.val), (0, 1));
        let again = parse(&[&root, "--lists", &lists]).unwrap().data.open().unwrap();
        assert_eq!((again.train.len(), again.val.len()), (2, 1));
    }
}
