//! The training loop over batches and epochs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use maskcast::base::stop::Stop;
use tch::{Device, Kind};

use super::checkpoint::{self, CheckpointError, Progress, RunState, ValidationScores};
use super::config::RunConfig;
use super::optimizer;
use super::plan::{self, Phase};
use super::progress::{ProgressMeter, duration_text};
use crate::evaluate::{self, EvaluateError, LibtorchPredictor};
use crate::loader::{Batch, Images, LoadError, Loader, SoftBatch};
use crate::loss::Loss;
use crate::net::exec::{self, RunOptions};
use crate::net::{Net, Node, Params, Stage};
use crate::report::EpochRecord;
use crate::tensorboard::{EventError, EventWriter};
use crate::weights::{ModelDescription, WeightsError};

/// Smallest interval between checkpoints within an epoch.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);
/// The interval is at least this many times the time that writing a checkpoint takes.
const CHECKPOINT_SHARE: u32 = 50;

/// A validation loss above this means that training diverges: the mean probability of the correct class would be below
/// e to the power of -10000.
const MAX_VALIDATION_LOSS: f64 = 1e4;

/// Why training failed. The last checkpoint is intact in each case.
#[derive(Debug, thiserror::Error)]
pub enum FitError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    #[error("the checkpoint could not be written: {source}. {advice}", advice = checkpoint_advice(.folder))]
    Checkpoint { folder: PathBuf, source: CheckpointError },
    #[error(
        "epoch {epoch}: the validation loss is {loss}: training diverges. Start a new run with a lower --lr and \
         --encoder-lr, or try `maskcast-train lr find`"
    )]
    Diverged { epoch: u64, loss: f64 },
    #[error(
        "epoch {epoch}, batch {batch}: the {value} is not a number. The learning rate is probably too high (encoder \
         {encoder_lr:.1e}, decoder {decoder_lr:.1e}): halve --lr and --encoder-lr, or try `maskcast-train lr find`. The \
         last valid state is {state}"
    )]
    NotANumber { epoch: u64, batch: u64, value: NotFinite, encoder_lr: f64, decoder_lr: f64, state: String },
    #[error(transparent)]
    Events(#[from] EventError),
    #[error("the best weights could not be written: {0}")]
    BestWeights(WeightsError),
    #[error("cannot start a thread that loads images: {0}; check the limit of processes (`ulimit -u`)")]
    Thread(std::io::Error),
}

/// What is not a number after a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotFinite {
    Loss,
    Gradient,
}

impl fmt::Display for NotFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotFinite::Loss => "loss",
            NotFinite::Gradient => "gradient",
        })
    }
}

/// The help text for a checkpoint that could not be written into `folder`.
fn checkpoint_advice(folder: &Path) -> String {
    if folder.join(checkpoint::FILE).exists() {
        let folder = folder.display();
        format!(
            "The previous checkpoint is intact: free disk space, then continue with `maskcast-train resume {folder}`"
        )
    } else {
        "Nothing has been trained yet: free disk space, and start the run again".into()
    }
}

/// The learning rates of one step.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    pub encoder: f64,
    /// Decoder and head.
    pub decoder: f64,
}

impl Rates {
    fn of(phase: &Phase, step: u64, per_epoch: u64) -> Self {
        Rates {
            encoder: phase.rate(Stage::Encoder(0), step, per_epoch),
            decoder: phase.rate(Stage::Decoder, step, per_epoch),
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// All epochs were trained, or there was no improvement for `--patience` epochs.
    Finished,
    /// The run was stopped on request; its checkpoint is up to date.
    Stopped,
}

/// Stores weights that have a better validation mIoU than all before.
pub type StoreBest<'a> = Box<dyn FnMut(&Params, &Progress) -> Result<(), WeightsError> + 'a>;

/// The training loop of a run.
pub struct TrainingLoop<'a> {
    pub config: &'a RunConfig,
    pub about: &'a ModelDescription,
    pub images: Images,
    pub net: &'a Net,
    pub loss: Loss,
    pub device: Device,
    pub precision: Kind,
    /// The folder for checkpoints; if `None`, nothing is written.
    pub folder: Option<PathBuf>,
    /// Ends the run after the current step when it is raised.
    pub stop: Stop,
    pub store_best: StoreBest<'a>,
}

impl TrainingLoop<'_> {
    /// Trains from the position of `state` to the end.
    ///
    /// # Errors
    /// See [`FitError`].
    pub fn run(&mut self, state: &mut RunState) -> Result<RunEnd, FitError> {
        let options = &self.config.fit;
        let batches = options.batches();
        let per_epoch = batches.per_epoch(self.images.dataset.train.len()) as u64;
        let total = per_epoch * options.epochs;
        let phases = plan::phases(options);
        let mut events = match &self.folder {
            Some(folder) => {
                // Also at step 0: the folder of a restarted run has events of later steps, which TensorBoard must discard.
                Some(EventWriter::create(folder, Some(state.progress.step as i64))?)
            }
            None => None,
        };
        let mut loader = Loader::start(&self.images, &batches, state.progress.step, total).map_err(FitError::Thread)?;
        let mut meter = ProgressMeter::new("fit", state.progress.step, total);
        let mut checkpoints = CheckpointWriter::new(self.folder.clone());
        // A folder that cannot be written is an error at the start, not after the first epoch. And each run has a valid
        // checkpoint from the start.
        checkpoints.save(state, self)?;
        if self.config.adapt.is_some() && state.progress.before.is_none() {
            self.measure_start(state)?;
            checkpoints.save(state, self)?;
        }
        while state.progress.step < total && !self.out_of_patience(state) {
            let epoch = state.progress.step / per_epoch;
            let phase = plan::at(&phases, epoch);
            self.prepare(state, phase, epoch);
            while state.progress.step < (epoch + 1) * per_epoch {
                self.step(state, &mut loader, phase, epoch, per_epoch)?;
                let progress = &state.progress;
                meter.show(progress.step, || self.message(progress, epoch));
                let complete = is_step_complete(progress.step, per_epoch, options.accumulate);
                if complete && self.stop.is_raised() {
                    checkpoints.save(state, self)?;
                    return Ok(RunEnd::Stopped);
                }
                if complete && progress.step < (epoch + 1) * per_epoch {
                    checkpoints.save_if_due(state, self)?;
                }
            }
            let record = self.end_epoch(state, phase, epoch, per_epoch)?;
            meter.line(&summary(&record, options.epochs, state.progress.best));
            if let Some(events) = &mut events {
                write_events(events, &record, state.progress.step)?;
            }
            checkpoints.save(state, self)?;
        }
        Ok(RunEnd::Finished)
    }

    fn message(&self, progress: &Progress, epoch: u64) -> String {
        let loss = progress.loss_sum / progress.loss_count.max(1) as f64;
        let best = progress.best.map_or(String::new(), |(miou, at)| format!(", best mIoU {miou:.4} (epoch {at})"));
        format!("epoch {}/{}, loss {loss:.4}{best}", epoch + 1, self.config.fit.epochs)
    }

    fn out_of_patience(&self, state: &RunState) -> bool {
        let patience = self.config.fit.patience;
        let epochs = state.progress.history.0.len() as u64;
        patience > 0 && state.progress.best.is_some_and(|(_, at)| epochs >= at + patience)
    }

    /// Enables the gradients of the parameters that are trained in this epoch, and disables the others.
    pub fn prepare(&self, state: &mut RunState, phase: &Phase, epoch: u64) {
        for shape in self.net.param_specs() {
            let is_trained = shape.learned && phase.trains(shape.stage, epoch);
            let param = state.params.0.get_mut(&shape.name).expect("the state has the parameters of this network");
            *param = param.detach().set_requires_grad(is_trained);
        }
    }

    /// Trains on the next batch of the run.
    fn step(
        &self,
        state: &mut RunState,
        loader: &mut Loader,
        phase: &Phase,
        epoch: u64,
        per_epoch: u64,
    ) -> Result<(), FitError> {
        let (started, waited) = (Instant::now(), loader.waited());
        let Some(batch) = loader.next_batch()? else { unreachable!("the loader has a batch for each step of the run") };
        let step = state.progress.step;
        let rates = Rates::of(phase, step, per_epoch);
        let accumulation = Accumulation::of(step, per_epoch, self.config.fit.accumulate);
        let loss = self.train_batch(state, &batch, phase, epoch, rates, accumulation).map_err(|value| {
            FitError::NotANumber {
                epoch: epoch + 1,
                batch: step % per_epoch + 1,
                value,
                encoder_lr: rates.encoder,
                decoder_lr: rates.decoder,
                state: match &self.folder {
                    Some(folder) => folder.join(checkpoint::FILE).display().to_string(),
                    None => "not stored in this run".into(),
                },
            }
        })?;
        let progress = &mut state.progress;
        progress.step += 1;
        progress.loss_sum += loss;
        progress.loss_count += 1;
        progress.waited += (loader.waited() - waited).as_secs_f64();
        progress.seconds += started.elapsed().as_secs_f64();
        Ok(())
    }

    /// Trains on one batch: forward pass, backward pass and, at the end of an accumulation, a step of the optimizer.
    /// Returns the loss.
    ///
    /// # Errors
    /// If the loss or the gradient is not a number; the weights are then unchanged.
    pub fn train_batch(
        &self,
        state: &mut RunState,
        batch: &Batch,
        phase: &Phase,
        epoch: u64,
        rates: Rates,
        accumulation: Accumulation,
    ) -> Result<f64, NotFinite> {
        let options = &self.config.fit;
        let input = exec::input(&batch.rgb, &self.net.normalise, self.device);
        let labels = batch.labels.to_device(self.device);
        let statistics = |node: &Node| phase.batch_statistics(node.stage, epoch);
        let run = RunOptions { batch_statistics: &statistics, precision: self.precision };
        let logits = exec::forward(self.net, &state.params, &input, &run);
        let mut loss = self.loss.compute(&logits, &labels, state.progress.step);
        if let Some(SoftBatch { probabilities, weights }) = &batch.soft {
            let [probabilities, weights] = [probabilities, weights].map(|tensor| tensor.to_device(self.device));
            let distil = &options.distil;
            loss += Loss::distillation(&logits, &probabilities, &weights, distil.temperature) * distil.distil;
        }
        let value = loss.double_value(&[]);
        if !value.is_finite() {
            return Err(NotFinite::Loss);
        }
        (loss / accumulation.batches as f64).backward();
        if accumulation.ends {
            if !optimizer::clip(&state.params, options.clip).is_finite() {
                return Err(NotFinite::Gradient);
            }
            let RunState { params, average, optimizer, .. } = state;
            optimizer.step(params, |name| match name {
                name if name.starts_with("encoder.") => rates.encoder,
                name if name.starts_with("head.") => rates.decoder * options.head_rate,
                _ => rates.decoder,
            });
            if let Some(average) = average {
                update_average(average, params, options.ema);
            }
        }
        Ok(value)
    }

    fn predictor<'a>(&'a self, params: &'a Params) -> LibtorchPredictor<'a> {
        LibtorchPredictor {
            net: self.net,
            params,
            input: self.config.fit.net.input,
            device: self.device,
            precision: self.precision,
            confidence: false,
        }
    }

    /// The scores of weights on the validation images and on replayed images.
    ///
    /// # Errors
    /// An image cannot be read, or the model cannot be run.
    pub fn scores(&self, params: &Params) -> Result<ValidationScores, FitError> {
        let dataset = &self.images.dataset;
        let threads = self.config.fit.machine.loader_threads.max(1);
        let mut predictor = self.predictor(params);
        let (confusion, _) = evaluate::confusion(&mut predictor, dataset, &dataset.val, threads)?;
        let replayed = match &self.images.replay {
            Some(replay) => {
                let held_out = replay.held_out().map_err(LoadError::from)?;
                evaluate::confusion_of_images(&mut predictor, &held_out, dataset.classes.len())?.miou()
            }
            None => None,
        };
        let occurs = confusion.labelled().into_iter().map(|pixels| pixels > 0);
        let classes = confusion.iou().into_iter().zip(occurs).map(|(iou, occurs)| iou.filter(|_| occurs)).collect();
        Ok(ValidationScores { miou: confusion.miou(), classes, replayed })
    }

    /// Measures the model that the run adapts. Its weights are the best ones until an epoch is better.
    fn measure_start(&mut self, state: &mut RunState) -> Result<(), FitError> {
        let before = self.scores(&state.params)?;
        state.progress.best = before.miou.map(|miou| (miou, 0));
        state.progress.before = Some(before);
        (self.store_best)(&state.params, &state.progress).map_err(FitError::BestWeights)
    }

    /// Validates the model, records the epoch, and stores the weights if they are the best so far.
    fn end_epoch(
        &mut self,
        state: &mut RunState,
        phase: &Phase,
        epoch: u64,
        per_epoch: u64,
    ) -> Result<EpochRecord, FitError> {
        let rates = Rates::of(phase, state.progress.step - 1, per_epoch);
        let lr = BTreeMap::from([("encoder".to_owned(), rates.encoder), ("decoder".to_owned(), rates.decoder)]);
        let weights = state.average.as_ref().unwrap_or(&state.params);
        let dataset = &self.images.dataset;
        let threads = self.config.fit.machine.loader_threads.max(1);
        let (confusion, val_loss) = evaluate::confusion(&mut self.predictor(weights), dataset, &dataset.val, threads)?;
        if let Some(loss) = val_loss.filter(|&loss| !loss.is_finite() || loss > MAX_VALIDATION_LOSS) {
            return Err(FitError::Diverged { epoch: epoch + 1, loss });
        }
        let miou = confusion.miou();
        let progress = &mut state.progress;
        let record = EpochRecord {
            epoch: (epoch + 1) as u32,
            phase: phase.name.to_owned(),
            train_loss: progress.loss_sum / progress.loss_count.max(1) as f64,
            val_loss,
            val_miou: if state.average.is_none() { miou } else { None },
            val_miou_ema: if state.average.is_some() { miou } else { None },
            lr,
            seconds: progress.seconds,
            data_wait_share: progress.waited / progress.seconds.max(1e-9),
        };
        progress.history.push(record.clone());
        (progress.loss_sum, progress.loss_count, progress.seconds, progress.waited) = (0.0, 0, 0.0, 0.0);
        if let Some(miou) = miou
            && progress.best.is_none_or(|(best, _)| miou > best)
        {
            progress.best = Some((miou, epoch + 1));
            let weights = state.average.as_ref().unwrap_or(&state.params);
            (self.store_best)(weights, &state.progress).map_err(FitError::BestWeights)?;
        }
        Ok(record)
    }
}

/// The position of a batch among those whose gradients are accumulated into one step of the optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accumulation {
    /// Number of accumulated batches. At the end of an epoch there may be fewer than `--accumulate`.
    pub batches: u64,
    /// Whether this batch is the last of them.
    pub ends: bool,
}

impl Accumulation {
    /// A batch whose gradient alone makes a step.
    pub const SINGLE: Accumulation = Accumulation { batches: 1, ends: true };

    /// Returns the accumulation of the batch at `step`.
    fn of(step: u64, per_epoch: u64, accumulate: u64) -> Self {
        let first = step % per_epoch / accumulate * accumulate;
        Accumulation {
            batches: accumulate.min(per_epoch - first),
            ends: is_step_complete(step + 1, per_epoch, accumulate),
        }
    }
}

/// Whether no accumulation is in progress after `step` batches: accumulations start with the epoch, and end with it. The
/// state can be saved only then, because checkpoints have no gradients.
fn is_step_complete(step: u64, per_epoch: u64, accumulate: u64) -> bool {
    let within = step % per_epoch;
    within == 0 || within.is_multiple_of(accumulate)
}

/// Moves the average towards the weights by `1 - decay`, including the running statistics of batch norms.
fn update_average(average: &mut Params, params: &Params, decay: f64) {
    tch::no_grad(|| {
        for (name, tensor) in &mut average.0 {
            let _ = tensor.lerp_(&params.get(name).detach(), 1.0 - decay);
        }
    });
}

/// The line for an epoch in the log.
fn summary(record: &EpochRecord, epochs: u64, best: Option<(f64, u64)>) -> String {
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
    let mark = if best.is_some_and(|(_, at)| at == u64::from(record.epoch)) { " (best)" } else { "" };
    format!(
        "epoch {}/{epochs} {}: loss {:.4}, val loss {}, val mIoU {}{mark}, {}, {:.1} % of it waiting for data",
        record.epoch,
        record.phase,
        record.train_loss,
        number(record.val_loss),
        number(record.val_miou_ema.or(record.val_miou)),
        duration_text(Duration::from_secs_f64(record.seconds)),
        100.0 * record.data_wait_share,
    )
}

fn write_events(events: &mut EventWriter, record: &EpochRecord, step: u64) -> Result<(), EventError> {
    let scalars = [
        ("loss/train", Some(record.train_loss)),
        ("loss/val", record.val_loss),
        ("miou/val", record.val_miou_ema.or(record.val_miou)),
        ("time/epoch_seconds", Some(record.seconds)),
        ("time/data_wait_share", Some(record.data_wait_share)),
    ];
    let rates = record.lr.iter().map(|(group, &rate)| (format!("lr/{group}"), Some(rate)));
    for (tag, value) in scalars.into_iter().map(|(tag, value)| (tag.to_owned(), value)).chain(rates) {
        if let Some(value) = value {
            events.scalar(&tag, value, step as i64)?;
        }
    }
    events.flush()
}

/// Writes checkpoints at limited intervals.
struct CheckpointWriter {
    folder: Option<PathBuf>,
    last: Instant,
    every: Duration,
}

impl CheckpointWriter {
    fn new(folder: Option<PathBuf>) -> Self {
        CheckpointWriter { folder, last: Instant::now(), every: CHECKPOINT_EVERY }
    }

    fn save_if_due(&mut self, state: &RunState, training: &TrainingLoop<'_>) -> Result<(), FitError> {
        if self.last.elapsed() >= self.every { self.save(state, training) } else { Ok(()) }
    }

    fn save(&mut self, state: &RunState, training: &TrainingLoop<'_>) -> Result<(), FitError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let started = Instant::now();
        state
            .write(folder, training.config, training.about)
            .map_err(|source| FitError::Checkpoint { folder: folder.clone(), source })?;
        self.last = Instant::now();
        self.every = CHECKPOINT_EVERY.max(started.elapsed() * CHECKPOINT_SHARE);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_accumulation_of_an_epoch_has_the_remaining_batches() {
        let of = |step| Accumulation::of(step, 5, 3);
        let batches: Vec<(u64, bool)> = (0..10).map(|step| (of(step).batches, of(step).ends)).collect();
        let epoch = [(3, false), (3, false), (3, true), (2, false), (2, true)];
        assert_eq!(batches, [epoch, epoch].concat());
        assert_eq!(Accumulation::of(1, 2, 8), Accumulation { batches: 2, ends: true });
        assert_eq!(Accumulation::of(7, 4, 1), Accumulation::SINGLE);
    }
}
