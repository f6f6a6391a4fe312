//! Adapts a trained model to the images of a camera: how a run is set up for the number of its images and the speed of the
//! machine, and how much of the old weights its result keeps.

use std::path::Path;
use std::time::Instant;

use clap::Parser;

use super::checkpoint::{Progress, ValidationScores};
use super::config::{BatchNormMode, FitOptions, Strategy};
use super::run::{Accumulation, FitError, Rates};
use super::schedule::Schedule;
use super::session::{Session, SessionError};
use super::{optimizer::Optimizer, plan};
use crate::distil::DistilOn;
use crate::export::MAX_MIOU_LOSS;
use crate::loader::Loader;
use crate::weights::{ModelDescription, ModelFile, average};

/// Name of the file with the weights before the first step, in the folder of a run.
pub const START: &str = "start.safetensors";

/// Images of the data set in a batch.
const BATCH: usize = 4;
/// Stages of the encoder that are not trained, up to a quarter of the input size.
const FROZEN_STAGES: u8 = 3;
/// Number of validations in a run, about.
const EPOCHS: u64 = 10;
/// Batches for each training image, and their limits.
const BATCHES_PER_IMAGE: u64 = 8;
const FEWEST_BATCHES: u64 = 100;
const MOST_BATCHES: u64 = 600;
/// A run with fewer batches than this trains only the decoder, which takes half the time.
const BATCHES_TO_FINE_TUNE: u64 = 60;
/// Share of the time that is left for validation, export and report.
const REST: f64 = 0.2;
/// Batches that are timed, after one to warm up.
const TIMED: u64 = 2;
/// Shares of the old weights that are tried.
const SHARES: [f64; 6] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6];
/// A larger share of the old weights is preferred to a validation mIoU that is better by less than this, or by less than this share
/// of the gain.
const NEGLIGIBLE: f64 = 0.003;
const NEGLIGIBLE_OF_GAIN: f64 = 0.05;

/// Share of the gain that int8 may lose, and the largest loss of mIoU.
const ACCEPTED_LOSS_OF_GAIN: f64 = 0.2;
const MOST_INT8_LOSS: f64 = 0.03;

/// The defaults of `fit`.
#[derive(Parser)]
struct Defaults {
    #[command(flatten)]
    options: FitOptions,
}

/// The options of a run that adapts the model with this description in the file `from`. `images` is the number of training images,
/// `adds_classes` whether the data set has classes that the model does not have.
pub fn options(about: &ModelDescription, from: &Path, images: usize, adds_classes: bool) -> FitOptions {
    let mut options = Defaults::parse_from(["adapt"]).options;
    options.net.encoder = about.encoder;
    options.net.flavour = Some(about.flavour);
    options.net.decoder_kind = about.decoder.kind;
    options.net.decoder_widths.clone_from(&about.decoder.widths);
    options.net.input = about.input;
    options.net.init = Some(from.to_owned());
    options.strategy = Strategy::Finetune;
    // A batch of frames of one camera has no useful statistics.
    options.batch_norm = BatchNormMode::Fixed;
    // Edges and textures are the same everywhere, and these stages take most of the time.
    options.frozen_stages = FROZEN_STAGES;
    options.schedule = Schedule::Cosine;
    options.warm_up = 0.1;
    options.lr = 5e-4;
    options.encoder_lr = 1.5e-4;
    if adds_classes {
        // The weights of new classes begin at 0, far from those of the others.
        (options.lr, options.head_rate, options.frozen_stages) = (2e-3, 5.0, 0);
    }
    options.weight_decay = 1e-3;
    options.ema = 0.97;
    options.clip = 1.0;
    options.batch = BATCH;
    options.patience = 5;
    options.repeat = 1;
    // A fixed camera: objects keep their size, light and weather change.
    let augment = &mut options.augment;
    (augment.scale_min, augment.scale_max, augment.stretch) = (1.0, 1.5, 0.1);
    (augment.brightness, augment.contrast, augment.saturation) = (0.15, 0.25, 0.3);
    (augment.blur, augment.noise) = (0.2, 0.02);
    augment.cut_mix = if images < 20 { 0.0 } else { 0.3 };
    options.distil.distil_on = DistilOn::Agreed;
    options.distil.by_name = true;
    options
}

/// The length of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Length {
    pub epochs: u64,
    /// Passes over the images in an epoch.
    pub repeat: usize,
    pub strategy: Strategy,
    /// Batches in all epochs.
    pub batches: u64,
    /// Seconds of training and validation, about.
    pub seconds: f64,
    /// Whether the time is less than the number of images asks for.
    pub is_short: bool,
}

/// The length of a run of `images` training images, `own` of them in a batch that takes `seconds`, in at most `limit` seconds.
/// `adds_classes` is as for [`options`].
pub fn length(images: usize, own: usize, seconds: f64, limit: f64, adds_classes: bool) -> Length {
    let wanted = (BATCHES_PER_IMAGE * images as u64).clamp(FEWEST_BATCHES, MOST_BATCHES);
    let wanted = if adds_classes { 2 * wanted } else { wanted };
    let possible = (limit * (1.0 - REST) / seconds.max(1e-3)) as u64;
    let strategy = if possible < BATCHES_TO_FINE_TUNE { Strategy::Frozen } else { Strategy::Finetune };
    let possible = if strategy == Strategy::Frozen { 2 * possible } else { possible };
    let batches = wanted.min(possible).max(1);
    // Batches of one pass over the images.
    let pass = (images as f64 / own.max(1) as f64).max(1.0);
    let repeat = (batches as f64 / EPOCHS as f64 / pass).round().max(1.0);
    let per_epoch = (pass * repeat).floor().max(1.0);
    let epochs = ((batches as f64 / per_epoch).round() as u64).max(1);
    let batches = epochs * per_epoch as u64;
    let each = if strategy == Strategy::Frozen { seconds / 2.0 } else { seconds };
    let seconds = batches as f64 * each / (1.0 - REST);
    Length { epochs, repeat: repeat as usize, strategy, batches, seconds, is_short: batches < wanted * 9 / 10 }
}

/// Measures the seconds that a batch takes. The run is unchanged.
///
/// # Errors
/// An image cannot be loaded, or the loss is not a number.
pub fn seconds_of_batch(session: &mut Session) -> Result<f64, SessionError> {
    let options = session.config.fit.clone();
    let saved = session.state.params.copied();
    let (training, state) = session.parts();
    let phases = plan::phases(&options);
    let phase = plan::at(&phases, 0);
    let mut loader = Loader::start(&training.images, &options.batches(), 0, TIMED + 1).map_err(FitError::Thread)?;
    training.prepare(state, phase, 0);
    let rates = Rates { encoder: 0.0, decoder: 0.0 };
    let mut started = Instant::now();
    let mut batches = 0.0;
    while let Some(batch) = loader.next_batch().map_err(FitError::Load)? {
        // A loss that is not a number ends the run itself, with its own message.
        let _ = training.train_batch(state, &batch, phase, 0, rates, Accumulation::SINGLE);
        if batches == 0.0 {
            started = Instant::now();
        }
        batches += 1.0;
    }
    let seconds = started.elapsed().as_secs_f64() / (batches - 1.0f64).max(1.0);
    state.average = (options.ema > 0.0).then(|| saved.copied());
    state.params = saved;
    state.optimizer = Optimizer::new(options.optimizer, options.weight_decay);
    Ok(seconds)
}

/// How much of the old weights was kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Blend {
    /// 0 to 1.
    pub share: f64,
}

/// Averages the best weights of a run with those before its first step (Wortsman et al., *Robust fine-tuning of zero-shot models*,
/// CVPR 2022): of several shares, the largest one that costs little of the gain. The average forgets less, and is often
/// better on new images too. Writes the weights and the scores of the result. Returns `None` if no epoch was better than the old
/// model, which is kept then.
///
/// # Errors
/// The weights cannot be read or written, or the model cannot be run.
pub fn blend(session: &mut Session) -> Result<Option<Blend>, SessionError> {
    if session.state.progress.best.is_none_or(|(_, epoch)| epoch == 0) {
        session.state.progress.after = session.state.progress.before.clone();
        return Ok(None);
    }
    let path = session.folder.join(START);
    let start = ModelFile::read(&path)?;
    let best = session.best()?;
    let device = session.device();
    let mut found: Vec<(f64, ModelFile, ValidationScores)> = Vec::new();
    for share in std::iter::once(0.0).chain(SHARES) {
        let mut mixed = ModelFile { description: best.description.clone(), params: best.params.copied() };
        // Both have the network of the run.
        if average(&mut mixed, &start, &path, share).is_err() {
            continue;
        }
        let params = mixed.params.to_device(device);
        let (training, _) = session.parts();
        let scores = training.scores(&params)?;
        found.push((share, mixed, scores));
    }
    let miou = |scores: &ValidationScores| scores.miou.unwrap_or(0.0);
    let highest = found.iter().map(|(_, _, scores)| miou(scores)).fold(0.0, f64::max);
    let gain = highest - session.state.progress.before.as_ref().map_or(0.0, miou);
    let cost = NEGLIGIBLE.max(NEGLIGIBLE_OF_GAIN * gain);
    let Some((share, file, scores)) = found.into_iter().rev().find(|(_, _, scores)| miou(scores) + cost >= highest)
    else {
        return Ok(None);
    };
    file.write(&session.folder.join(super::session::BEST))?;
    let progress: &mut Progress = &mut session.state.progress;
    progress.after = Some(scores);
    Ok(Some(Blend { share }))
}

/// The largest loss of validation mIoU (0 to 1) by int8 that the result of a run may have. The few frames of an adapted model often
/// have a class with few pixels, whose IoU changes by many points, while 99 % of the pixels keep their class. A model in 32-bit floats
/// would be two to four times as slow as the one that it replaces, so that up to a fifth of the gain may be lost.
pub fn accepted_int8_loss(progress: &Progress) -> f64 {
    let miou = |scores: &Option<ValidationScores>| scores.as_ref().and_then(|scores| scores.miou);
    let gain = miou(&progress.after).zip(miou(&progress.before)).map_or(0.0, |(after, before)| after - before);
    (ACCEPTED_LOSS_OF_GAIN * gain).clamp(MAX_MIOU_LOSS, MOST_INT8_LOSS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_fits_into_its_time() {
        let forty = length(32, 4, 1.5, 1500.0, false);
        assert_eq!(forty.strategy, Strategy::Finetune);
        assert!(forty.seconds <= 1500.0 && forty.batches >= 230 && !forty.is_short, "{forty:?}");
        assert!((8..=12).contains(&forty.epochs), "{forty:?}");
        let ten = length(8, 4, 1.5, 1500.0, false);
        assert!(ten.batches >= FEWEST_BATCHES * 9 / 10 && ten.batches < forty.batches, "{ten:?}");
        let slow = length(32, 4, 10.0, 1500.0, false);
        assert!(slow.is_short && slow.seconds <= 1600.0 && slow.strategy == Strategy::Finetune, "{slow:?}");
        let slower = length(32, 4, 60.0, 1500.0, false);
        assert!(slower.strategy == Strategy::Frozen && slower.seconds <= 1700.0, "{slower:?}");
        assert!(length(4000, 4, 1.0, 1500.0, false).epochs >= 1);
    }
}
