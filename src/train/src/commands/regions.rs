//! `maskcast-train regions`, and the limits of regions on a command line.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use maskcast::commands::Failure;
use maskcast::frame::Label;

use super::class_option::unknown_class;
use crate::export::{ExistingModel, RegionRejection};

#[derive(Debug, Args)]
#[command(
    after_help = "Example: maskcast-train regions model.onnx -o model-regions.onnx --reject-regions other=0.5,person=0.4"
)]
pub struct RegionsArgs {
    /// A model file that maskcast-train exported
    model: PathBuf,
    /// The ONNX file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Give this class to regions (pixels of one class in a part of the image) whose mean probability is below LIMIT, 0 to 1. The first
    /// pair names the class and the limit for all classes; further pairs set limits of single classes, as in `other=0.5,person=0.4`
    #[arg(long, value_name = "CLASS=LIMIT[,...]")]
    reject_regions: RegionLimits,
}

/// The limits of regions: `CLASS=LIMIT[,CLASS=LIMIT...]`. The first class is that of rejected regions, with the limit of all classes
/// that do not have their own.
#[derive(Clone, Debug, PartialEq)]
pub struct RegionLimits {
    class: String,
    limit: f32,
    own: Vec<(String, f32)>,
}

impl FromStr for RegionLimits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut limits: Vec<(String, f32)> = Vec::new();
        for word in text.split(',') {
            let (name, limit) = word
                .rsplit_once('=')
                .ok_or_else(|| format!("{word:?} is not a class with a limit, as in other=0.5"))?;
            let number: f32 = limit.parse().map_err(|_| format!("{limit:?} is not a number"))?;
            if !(0.0..=1.0).contains(&number) {
                return Err(format!("the limit of {name} must be between 0 and 1, not {limit}"));
            }
            if limits.iter().any(|(known, _)| known == name) {
                return Err(format!("{name} has two limits"));
            }
            limits.push((name.to_owned(), number));
        }
        let (class, limit) = limits.remove(0);
        Ok(RegionLimits { class, limit, own: limits })
    }
}

impl RegionLimits {
    /// The limits of the classes of a model.
    ///
    /// # Errors
    /// A class that the model does not have.
    pub fn of(&self, labels: &[Label]) -> Result<RegionRejection, Failure> {
        let index = |name: &str| {
            let index = labels.iter().position(|label| label.name == name);
            index.ok_or_else(|| unknown_class("--reject-regions", name, labels))
        };
        let mut limits = vec![self.limit; labels.len()];
        for (name, limit) in &self.own {
            limits[index(name)?] = *limit;
        }
        Ok(RegionRejection { class: index(&self.class)?, limits })
    }
}

/// Adds the rejection of regions to a model file.
///
/// # Errors
/// The file cannot be read or written, is not a model of the trainer, or has the step already; or a class is unknown.
pub fn regions(args: &RegionsArgs) -> Result<(), Failure> {
    let mut model = ExistingModel::read(&args.model).map_err(Failure::runtime)?;
    let rejection = args.reject_regions.of(model.labels())?;
    let changed = model.reject_regions(&rejection).map_err(Failure::runtime)?;
    let bytes = model.write(&args.output).map_err(Failure::runtime)?;
    println!("{}: {bytes} bytes", args.output.display());
    println!(
        "{:.1} % of the pixels of the golden frame (the test image in the file) changed their class",
        100.0 * changed
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use maskcast::frame::Rgb;

    use super::*;

    #[test]
    fn the_first_limit_is_that_of_all_other_classes() {
        let labels = ["other", "a=b", "c"].map(|name| Label::new(name, Rgb(0, 0, 0)));
        let of = |text: &str| text.parse::<RegionLimits>().unwrap().of(&labels);
        let rejection = |class, limits: [f32; 3]| RegionRejection { class, limits: limits.to_vec() };
        assert_eq!(of("other=0.5").unwrap(), rejection(0, [0.5; 3]));
        assert_eq!(of("c=0.5,a=b=1,other=0").unwrap(), rejection(2, [0.0, 1.0, 0.5]));
        for (text, class) in [("others=0.5", "others"), ("other=0.5,d=1", "d")] {
            let expected = format!("--reject-regions: the model has no class {class:?}; its classes are other, a=b, c");
            assert_eq!(of(text).unwrap_err().message, expected);
        }
    }

    #[test]
    fn wrong_limits_are_refused() {
        for (text, message) in [
            ("other", "\"other\" is not a class with a limit, as in other=0.5"),
            ("other=0.5,", "\"\" is not a class with a limit, as in other=0.5"),
            ("other=1.01", "the limit of other must be between 0 and 1, not 1.01"),
            ("other=0.5,car=-0.1", "the limit of car must be between 0 and 1, not -0.1"),
            ("other=nan", "the limit of other must be between 0 and 1, not nan"),
            ("other=half", "\"half\" is not a number"),
            ("other=0.5,car=0.1,car=0.2", "car has two limits"),
        ] {
            assert_eq!(text.parse::<RegionLimits>().unwrap_err(), message);
        }
    }
}
