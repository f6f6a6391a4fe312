//! The training loop over batches and epochs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use maskcast::base::stop::Stop;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind};

use super::checkpoint::{self, CheckpointError, Progress, State};
use super::config::FitOptions;
use super::optimizer;
use super::plan::{self, Phase};
use super::progress::{Meter, readable};
use crate::data::{DataArgs, Dataset};
use crate::evaluate::{self, EvaluateError, LibtorchPredictor};
use crate::loader::{Batch, BatchSpec, LoadError, Loader};
use crate::loss::Loss;
use crate::net::exec::{self, Run};
use crate::net::{Net, Node, Params, Stage};
use crate::report::EpochRecord;
use crate::tensorboard::{EventError, EventWriter};
use crate::weights::About;

/// The configuration of a run, as stored in its checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunConfig {
    pub data: DataArgs,
    pub fit: FitOptions,
    /// The command line that started the run.
    pub command: Vec<String>,
}

/// Smallest interval between checkpoints; writing them takes at most 1/50 of the time.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);
const CHECKPOINT_SHARE: u32 = 50;

/// No cross-entropy of a network that learns anything is that high: every pixel would have a probability of e to the
/// minus this.
const RUN_AWAY: f64 = 1e4;

/// Why a run ended early. The last checkpoint is valid in each case.
#[derive(Debug, thiserror::Error)]
pub enum FitError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    #[error("the checkpoint could not be written: {0}. {advice}", advice = after(.1))]
    Checkpoint(CheckpointError, PathBuf),
    #[error(
        "epoch {epoch}: the validation loss is {loss}: training diverges. Start a new run with a lower --lr and \
         --encoder-lr, or try `maskcast-train lr find`"
    )]
    RunAway { epoch: u64, loss: f64 },
    #[error(
        "epoch {epoch}, batch {batch}: the {what} is not a number. The learning rate is probably too high (encoder \
         {encoder_lr:.1e}, \
         decoder {decoder_lr:.1e}): halve --lr and --encoder-lr, or try `maskcast-train lr find`. The last good state \
         is {state}"
    )]
    NotANumber { epoch: u64, batch: u64, what: &'static str, encoder_lr: f64, decoder_lr: f64, state: String },
    #[error(transparent)]
    Events(#[from] EventError),
    #[error("the best model could not be written: {0}")]
    Best(String),
    #[error("cannot start a thread that loads images: {0}; check the limit of processes (`ulimit -u`)")]
    Thread(std::io::Error),
}

/// What can be done when a checkpoint could not be written into `folder`.
fn after(folder: &Path) -> String {
    if folder.join(checkpoint::FILE).exists() {
        let folder = folder.display();
        format!(
            "The previous checkpoint is intact: free disk space, then continue with `maskcast-train resume \
            {folder}`"
        )
    } else {
        "No epoch was trained yet: free disk space, and start the run again".into()
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
pub enum Ended {
    /// All epochs, or no improvement for as long as `--patience` says.
    Done,
    /// Stopped on request; the checkpoint is complete.
    Stopped,
}

/// Keeps the best weights so far.
pub type OnBest<'a> = Box<dyn FnMut(&Params, &Progress) -> Result<(), String> + 'a>;

/// A run with everything it needs.
pub struct Fit<'a> {
    pub config: &'a RunConfig,
    pub about: &'a About,
    pub dataset: Arc<Dataset>,
    pub net: &'a Net,
    pub loss: Loss,
    pub device: Device,
    pub precision: Kind,
    /// Where checkpoints go; `None` keeps nothing.
    pub folder: Option<PathBuf>,
    /// Set from outside to end the run at the next step.
    pub stop: Stop,
    /// Called with the weights that are the best so far.
    pub on_best: OnBest<'a>,
}

impl Fit<'_> {
    /// Runs from the position of `state` to the end.
    ///
    /// # Errors
    /// See [`FitError`].
    pub fn run(&mut self, state: &mut State) -> Result<Ended, FitError> {
        let options = &self.config.fit;
        let batches = BatchSpec::of(options);
        let per_epoch = batches.per_epoch(self.dataset.train.len()) as u64;
        let total = per_epoch * options.epochs;
        let phases = plan::phases(options);
        let mut events = match &self.folder {
            Some(folder) => {
                // Also from 0: a run that begins again has curves of the one before in its folder.
                Some(EventWriter::create(folder, Some(state.progress.step as i64))?)
            }
            None => None,
        };
        let mut loader =
            Loader::start(&self.dataset, &batches, state.progress.step, total).map_err(FitError::Thread)?;
        let mut meter = Meter::new("fit", state.progress.step, total);
        let mut saver = Saver::new(self.folder.clone());
        // Shows now, and not after an hour, that the folder can be written; and every run has a good state to go back
        // to.
        saver.save(state, self)?;
        while state.progress.step < total && !self.out_of_patience(state) {
            let epoch = state.progress.step / per_epoch;
            let phase = plan::at(&phases, epoch);
            self.prepare(state, phase, epoch);
            while state.progress.step < (epoch + 1) * per_epoch {
                self.step(state, &mut loader, phase, epoch, per_epoch)?;
                let progress = &state.progress;
                meter.show(progress.step, || self.message(progress, epoch));
                let whole = is_whole(progress.step, per_epoch, options.accumulate);
                if whole && self.stop.is_raised() {
                    saver.save(state, self)?;
                    return Ok(Ended::Stopped);
                }
                if whole && progress.step < (epoch + 1) * per_epoch {
                    saver.save_if_due(state, self)?;
                }
            }
            let record = self.end_epoch(state, phase, epoch, per_epoch)?;
            meter.line(&summary(&record, options.epochs, state.progress.best));
            if let Some(events) = &mut events {
                write_events(events, &record, state.progress.step)?;
            }
            saver.save(state, self)?;
        }
        Ok(Ended::Done)
    }

    fn message(&self, progress: &Progress, epoch: u64) -> String {
        let loss = progress.loss_sum / progress.loss_count.max(1) as f64;
        let best = progress.best.map_or(String::new(), |(miou, at)| format!(", best mIoU {miou:.4} (epoch {at})"));
        format!("epoch {}/{}, loss {loss:.4}{best}", epoch + 1, self.config.fit.epochs)
    }

    fn out_of_patience(&self, state: &State) -> bool {
        let patience = self.config.fit.patience;
        let epochs = state.progress.history.0.len() as u64;
        patience > 0 && state.progress.best.is_some_and(|(_, at)| epochs >= at + patience)
    }

    /// Enables gradients of the parameters that are trained in this epoch.
    pub fn prepare(&self, state: &mut State, phase: &Phase, epoch: u64) {
        for shape in self.net.shapes() {
            let learns = shape.learned && phase.learns(shape.stage, epoch);
            let param = state.params.0.get_mut(&shape.name).expect("the state is of this network");
            *param = param.detach().set_requires_grad(learns);
        }
    }

    /// The next batch of the run.
    fn step(
        &self,
        state: &mut State,
        loader: &mut Loader,
        phase: &Phase,
        epoch: u64,
        per_epoch: u64,
    ) -> Result<(), FitError> {
        let (begun, waited) = (Instant::now(), loader.waited());
        let Some(batch) = loader.next_batch()? else {
            unreachable!("the loader has as many batches as there are steps")
        };
        let step = state.progress.step;
        let rates = Rates::of(phase, step, per_epoch);
        let accumulation = Accumulation::of(step, per_epoch, self.config.fit.accumulate);
        let loss =
            self.learn(state, &batch, phase, epoch, rates, accumulation).map_err(|what| FitError::NotANumber {
                epoch: epoch + 1,
                batch: step % per_epoch + 1,
                what,
                encoder_lr: rates.encoder,
                decoder_lr: rates.decoder,
                state: match &self.folder {
                    Some(folder) => folder.join(checkpoint::FILE).display().to_string(),
                    None => "not kept in this run".into(),
                },
            })?;
        let progress = &mut state.progress;
        progress.step += 1;
        progress.loss_sum += loss;
        progress.loss_count += 1;
        progress.waited += (loader.waited() - waited).as_secs_f64();
        progress.seconds += begun.elapsed().as_secs_f64();
        Ok(())
    }

    /// Learns from one batch: forward, backward and, at the end of an accumulation, a step. Gives the loss.
    ///
    /// # Errors
    /// What is not a number, the loss or the gradient; the weights are then as they were.
    pub fn learn(
        &self,
        state: &mut State,
        batch: &Batch,
        phase: &Phase,
        epoch: u64,
        rates: Rates,
        accumulation: Accumulation,
    ) -> Result<f64, &'static str> {
        let options = &self.config.fit;
        let input = exec::input(&batch.rgb, &self.net.normalise, self.device);
        let labels = batch.labels.to_device(self.device);
        let statistics = |node: &Node| phase.batch_statistics(node.stage, epoch);
        let run = Run { batch_statistics: &statistics, precision: self.precision };
        let logits = exec::forward(self.net, &state.params, &input, &run);
        let loss = self.loss.of(&logits, &labels, state.progress.step);
        let value = loss.double_value(&[]);
        if !value.is_finite() {
            return Err("loss");
        }
        (loss / accumulation.batches as f64).backward();
        if accumulation.ends {
            if !optimizer::clip(&state.params, options.clip).is_finite() {
                return Err("gradient");
            }
            let State { params, average, optimizer, .. } = state;
            optimizer.step(params, |name| if name.starts_with("encoder.") { rates.encoder } else { rates.decoder });
            if let Some(average) = average {
                follow(average, params, options.ema);
            }
        }
        Ok(value)
    }

    /// Validates, records, and keeps what is best.
    fn end_epoch(
        &mut self,
        state: &mut State,
        phase: &Phase,
        epoch: u64,
        per_epoch: u64,
    ) -> Result<EpochRecord, FitError> {
        let rates = Rates::of(phase, state.progress.step - 1, per_epoch);
        let lr = BTreeMap::from([("encoder".to_owned(), rates.encoder), ("decoder".to_owned(), rates.decoder)]);
        let weights = state.average.as_ref().unwrap_or(&state.params);
        let options = &self.config.fit;
        let mut predictor = LibtorchPredictor {
            net: self.net,
            params: weights,
            input: options.net.input,
            device: self.device,
            precision: self.precision,
            confidence: false,
        };
        let threads = options.machine.loader_threads.max(1);
        let (confusion, val_loss) = evaluate::confusion(&mut predictor, &self.dataset, &self.dataset.val, threads)?;
        if let Some(loss) = val_loss.filter(|&loss| !loss.is_finite() || loss > RUN_AWAY) {
            return Err(FitError::RunAway { epoch: epoch + 1, loss });
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
            (self.on_best)(weights, &state.progress).map_err(FitError::Best)?;
        }
        Ok(record)
    }
}

/// A batch's place among those whose gradients make one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accumulation {
    /// How many these are. At an epoch's end there may be fewer than the option says; each then counts for more.
    pub batches: u64,
    /// Whether this is the last of them.
    pub ends: bool,
}

impl Accumulation {
    /// A batch that makes a step by itself.
    pub const ALONE: Accumulation = Accumulation { batches: 1, ends: true };

    /// Of the batch at `step`.
    fn of(step: u64, per_epoch: u64, accumulate: u64) -> Self {
        let first = step % per_epoch / accumulate * accumulate;
        Accumulation { batches: accumulate.min(per_epoch - first), ends: is_whole(step + 1, per_epoch, accumulate) }
    }
}

/// Whether the gradients of the batches so far have become a step: at the end of each accumulation, counted within the
/// epoch, and at the epoch's end. Only there is the state without gradients, and can be saved.
fn is_whole(step: u64, per_epoch: u64, accumulate: u64) -> bool {
    let within = step % per_epoch;
    within == 0 || within.is_multiple_of(accumulate)
}

/// Moves the average towards the weights by `1 - decay`; running statistics too, for they belong to the weights.
fn follow(average: &mut Params, params: &Params, decay: f64) {
    tch::no_grad(|| {
        for (name, tensor) in &mut average.0 {
            let _ = tensor.lerp_(&params.get(name).detach(), 1.0 - decay);
        }
    });
}

/// One line for one epoch.
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
        readable(Duration::from_secs_f64(record.seconds)),
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
struct Saver {
    folder: Option<PathBuf>,
    last: Instant,
    every: Duration,
}

impl Saver {
    fn new(folder: Option<PathBuf>) -> Self {
        Saver { folder, last: Instant::now(), every: CHECKPOINT_EVERY }
    }

    fn save_if_due(&mut self, state: &State, fit: &Fit) -> Result<(), FitError> {
        if self.last.elapsed() >= self.every { self.save(state, fit) } else { Ok(()) }
    }

    fn save(&mut self, state: &State, fit: &Fit) -> Result<(), FitError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let begun = Instant::now();
        let place: &Path = folder;
        state.write(place, fit.config, fit.about).map_err(|error| FitError::Checkpoint(error, place.to_owned()))?;
        self.last = Instant::now();
        self.every = CHECKPOINT_EVERY.max(begun.elapsed() * CHECKPOINT_SHARE);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accumulation_at_the_end_of_an_epoch_has_the_batches_that_are_left() {
        let of = |step| Accumulation::of(step, 5, 3);
        let batches: Vec<(u64, bool)> = (0..10).map(|step| (of(step).batches, of(step).ends)).collect();
        let epoch = [(3, false), (3, false), (3, true), (2, false), (2, true)];
        assert_eq!(batches, [epoch, epoch].concat());
        assert_eq!(Accumulation::of(1, 2, 8), Accumulation { batches: 2, ends: true });
        assert_eq!(Accumulation::of(7, 4, 1), Accumulation::ALONE);
    }
}
