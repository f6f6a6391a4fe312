//! The trial of an encoder: it passes when a few test frames give as many H.264 access units, the first a keyframe.
//!
//! A driver may refuse, return nothing, or never return from a call. So a trial has its own thread and a deadline. A
//! thread that hangs in a driver is left running, and its encoder is not used. A trial cannot guard against a driver
//! that ends the process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use gstreamer as gst;
use gstreamer_app as gst_app;
use parking_lot::{Condvar, Mutex};

use gst::prelude::*;

use super::chain::{EncodeChain, EncodeError, build};
use super::{H264, Purpose, glib_error};
use crate::base::status::Status;
use crate::config::EncodeConfig;
use crate::frame::{PixelFormat, VideoInfo};
use crate::gst::{GstError, bus_error, state_error};
use crate::publish::BufferError;
use crate::publish::raw::RawPool;

/// How long a trial may take: drivers that upload firmware need seconds, and so does a busy machine.
pub(super) const TRIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Number of test frames.
const TEST_FRAMES: u64 = 5;

/// Format of the test frames: as from a decoder, with a size and rate that every encoder supports.
fn test_video() -> VideoInfo {
    VideoInfo { fps: (25, 1), ..VideoInfo::new(PixelFormat::I420, 640, 360) }
}

/// How long stopping the encoder may take after the deadline.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// How often the bus is checked for errors while no access unit arrives.
const POLL: gst::ClockTime = gst::ClockTime::from_mseconds(20);

static TRIALS: Trials = Trials::new();

/// An encoder that did not pass is probed again when it is requested after this time.
const RETRY_AFTER: Duration = Duration::from_secs(10 * 60);

/// Why an encoder did not pass its trial.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// A call into the driver did not return within this time. The trial is not repeated, because its thread still
    /// hangs.
    #[error("it hangs: no response within {} s", .0.as_secs_f64())]
    Hangs(Duration),
    #[error("the trial ended in a panic")]
    Panicked,
    #[error("cannot start a thread for the trial: {0}")]
    Thread(std::io::ErrorKind),
    #[error(transparent)]
    Gst(#[from] GstError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The test frames could not be made.
    #[error(transparent)]
    Frames(#[from] BufferError),
    #[error("it returned {received} of {TEST_FRAMES} frames (timed out: {timed_out})")]
    FramesMissing { received: u64, timed_out: bool },
    #[error("its first frame is not a keyframe")]
    NoKeyframe,
}

/// Whether an encoder works on this machine; runs the trial at the first call, and returns its outcome from then on.
/// Some minutes after a failure, the next call starts another trial in the background, whose outcome later calls
/// return.
///
/// # Errors
/// Why the encoder does not work.
pub(super) fn probe(encoder: H264) -> Result<(), ProbeError> {
    if TRIALS.start_retry(encoder, Instant::now()) {
        let retry = move || TRIALS.record(encoder, run_trial(encoder));
        if let Err(error) = std::thread::Builder::new().name("encoder-again".into()).spawn(retry) {
            tracing::debug!("cannot start a thread to probe {} again: {error}", encoder.element());
        }
    }
    TRIALS.outcome(encoder, || run_trial(encoder))
}

/// Whether an encoder works; `None` before its first trial has finished.
pub(super) fn known_outcome(encoder: H264) -> Option<bool> {
    TRIALS.known(encoder)
}

fn run_trial(encoder: H264) -> TrialResult {
    let started = Instant::now();
    let outcome = with_deadline(TRIAL_TIMEOUT, move || {
        encode_test_frames(TRIAL_TIMEOUT, |pipeline, caps| {
            let (config, status) = (EncodeConfig::default(), Arc::new(Status::quiet("trial")));
            build(pipeline, caps, &test_video(), encoder, &config, Purpose::Live, &status)
        })
    });
    tracing::debug!(encoder = encoder.element(), took = ?started.elapsed(), "probed an encoder: {outcome:?}");
    outcome
}

type TrialResult = Result<(), ProbeError>;

/// Trials that have finished or are running. A caller waits only for the trial of the encoder that it requests, so that
/// an encoder that hangs does not delay streams that do not use it.
struct Trials {
    trials: Mutex<Vec<Trial>>,
    /// Notified when a trial has finished.
    finished: Condvar,
}

struct Trial {
    encoder: H264,
    /// `None` while the first trial is running.
    outcome: Option<TrialResult>,
    /// When the newest trial started.
    started_at: Instant,
}

impl Trials {
    const fn new() -> Self {
        Trials { trials: Mutex::new(Vec::new()), finished: Condvar::new() }
    }

    /// The outcome of the encoder's newest trial. The first one is run by `run_trial`, which must not panic.
    fn outcome(&self, encoder: H264, run_trial: impl FnOnce() -> TrialResult) -> TrialResult {
        let mut trials = self.trials.lock();
        while let Some(known) = trials.iter().find(|known| known.encoder == encoder) {
            match &known.outcome {
                Some(outcome) => return outcome.clone(),
                // Streams that start at the same time do not probe the same encoder twice.
                None => self.finished.wait(&mut trials),
            }
        }
        trials.push(Trial { encoder, outcome: None, started_at: Instant::now() });
        drop(trials);
        let outcome = run_trial();
        self.record(encoder, outcome.clone());
        outcome
    }

    fn record(&self, encoder: H264, outcome: TrialResult) {
        if let Some(known) = self.trials.lock().iter_mut().find(|known| known.encoder == encoder) {
            known.outcome = Some(outcome);
        }
        self.finished.notify_all();
    }

    /// Whether the encoder works, if that is known.
    fn known(&self, encoder: H264) -> Option<bool> {
        let trials = self.trials.lock();
        trials.iter().find(|known| known.encoder == encoder)?.outcome.as_ref().map(Result::is_ok)
    }

    /// Whether a failed trial is old enough to be repeated; true only for one caller, which must run it.
    fn start_retry(&self, encoder: H264, now: Instant) -> bool {
        let mut trials = self.trials.lock();
        let Some(known) = trials.iter_mut().find(|known| known.encoder == encoder) else { return false };
        let has_failed = matches!(&known.outcome, Some(Err(error)) if !matches!(error, ProbeError::Hangs(_)));
        let is_due = has_failed && now.saturating_duration_since(known.started_at) >= RETRY_AFTER;
        if is_due {
            known.started_at = now;
        }
        is_due
    }
}

/// Runs `work` on a thread and waits until `deadline` and [`STOP_TIMEOUT`] have passed at most.
fn with_deadline(deadline: Duration, work: impl FnOnce() -> TrialResult + Send + 'static) -> TrialResult {
    let (done, outcome) = crossbeam_channel::bounded(1);
    let thread = std::thread::Builder::new().name("encoder-trial".into()).spawn(move || {
        // Fails when the deadline has passed.
        let _ = done.send(work());
    });
    if let Err(error) = thread {
        return Err(ProbeError::Thread(error.kind()));
    }
    match outcome.recv_timeout(deadline + STOP_TIMEOUT) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout) => Err(ProbeError::Hangs(deadline)),
        Err(RecvTimeoutError::Disconnected) => Err(ProbeError::Panicked),
    }
}

/// Encodes the test frames with the chain that `make` adds to the pipeline.
fn encode_test_frames(
    deadline: Duration,
    make: impl FnOnce(&gst::Pipeline, &gst::Caps) -> Result<EncodeChain, EncodeError>,
) -> TrialResult {
    let pool = RawPool::new(test_video())?;
    let (pipeline, bus) = crate::gst::pipeline()?;
    let chain = make(&pipeline, &pool.caps)?;
    let caps =
        gst::Caps::builder("video/x-h264").field("stream-format", "byte-stream").field("alignment", "au").build();
    let sink = gst_app::AppSink::builder().caps(&caps).sync(false).build();
    pipeline.add(&sink).map_err(glib_error)?;
    chain.last.link(&sink).map_err(glib_error)?;
    let outcome = encode(&pipeline, &bus, &chain, &pool, &sink, Instant::now() + deadline);
    let _ = pipeline.set_state(gst::State::Null);
    outcome
}

fn encode(
    pipeline: &gst::Pipeline,
    bus: &gst::Bus,
    chain: &EncodeChain,
    pool: &RawPool,
    sink: &gst_app::AppSink,
    until: Instant,
) -> TrialResult {
    pipeline.set_state(gst::State::Playing).map_err(|_| state_error(pipeline, "it does not start"))?;
    for n in 0..TEST_FRAMES {
        let mut buffer = pool.paint(&mut |frame| {
            for plane in &mut frame.planes {
                plane.data.fill(64 + 16 * n as u8);
            }
        })?;
        buffer.make_mut().set_pts(gst::ClockTime::from_mseconds(40 * n));
        // Does not block, although the queue of the appsrc is shorter.
        let _ = chain.source.push_buffer(buffer);
    }
    let _ = chain.source.end_of_stream();
    let mut received = 0;
    while received < TEST_FRAMES {
        let Some(sample) = sink.try_pull_sample(POLL) else {
            return Err(match bus_error(bus) {
                Some(error) => error.into(),
                None if sink.is_eos() => ProbeError::FramesMissing { received, timed_out: false },
                None if Instant::now() >= until => ProbeError::FramesMissing { received, timed_out: true },
                None => continue,
            });
        };
        let keyframe = sample.buffer().is_some_and(|buffer| !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT));
        if received == 0 && !keyframe {
            return Err(ProbeError::NoKeyframe);
        }
        received += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::super::chain::assemble;
    use super::*;

    fn level() -> Level {
        Level::of(&test_video(), 0)
    }

    /// The trial of a bin of elements in the place of an encoder.
    fn trial_of(description: &'static str, deadline: Duration) -> TrialResult {
        crate::gst::init().unwrap();
        with_deadline(deadline, move || {
            encode_test_frames(deadline, |pipeline, caps| {
                let bin = gst::parse::bin_from_description(description, true).unwrap().upcast();
                assemble(pipeline, caps, &test_video(), H264::X264, bin, Purpose::Live, level())
            })
        })
    }

    #[test]
    fn encoders_that_work_pass_the_trial() {
        for encoder in ["x264enc tune=zerolatency speed-preset=ultrafast", "x264enc", "openh264enc"] {
            assert_eq!(trial_of(encoder, TRIAL_TIMEOUT), Ok(()), "{encoder}");
        }
        crate::gst::init().unwrap();
        assert_eq!(probe(H264::X264), Ok(()));
    }

    #[test]
    fn the_error_of_a_failed_trial_is_that_of_the_encoder() {
        for (encoder, text) in [
            // Refuses the format of the frames.
            ("capsfilter caps=video/x-raw,width=8 ! x264enc", "negotiated"),
            // Fails after two frames.
            ("x264enc tune=zerolatency ! identity error-after=2", "Failed after iterations"),
        ] {
            let error = trial_of(encoder, TRIAL_TIMEOUT).expect_err(encoder);
            let ProbeError::Gst(error) = &error else { panic!("{encoder}: {error:?}") };
            assert!(error.message.contains(text) && !error.message.contains('\n'), "{encoder}: {error}");
        }
        let error = trial_of("jpegenc", TRIAL_TIMEOUT).expect_err("the output is not H.264");
        assert!(
            matches!(&error, ProbeError::Encode(EncodeError::Gst(error)) if error.message.contains("link")),
            "{error:?}"
        );
    }

    #[test]
    fn an_encoder_whose_first_frame_is_not_a_keyframe_fails() {
        crate::gst::init().unwrap();
        let outcome = encode_test_frames(TRIAL_TIMEOUT, |pipeline, caps| {
            let bin = gst::parse::bin_from_description("x264enc tune=zerolatency", true).unwrap();
            let first = std::sync::atomic::AtomicBool::new(true);
            bin.static_pad("src").unwrap().add_probe(gst::PadProbeType::BUFFER, move |_, _| {
                if first.swap(false, std::sync::atomic::Ordering::Relaxed) {
                    gst::PadProbeReturn::Drop
                } else {
                    gst::PadProbeReturn::Ok
                }
            });
            assemble(pipeline, caps, &test_video(), H264::X264, bin.upcast(), Purpose::Live, level())
        });
        let error = outcome.unwrap_err();
        let no_valid_frames = |error: &GstError| error.message.contains("No valid frames");
        assert!(
            matches!(&error, ProbeError::NoKeyframe)
                || matches!(&error, ProbeError::Gst(error) if no_valid_frames(error)),
            "{error:?}"
        );
    }

    #[test]
    fn a_caller_does_not_wait_for_the_trial_of_another_encoder_that_hangs() {
        static TRIALS: Trials = Trials::new();
        let never = || panic!("probed twice");
        assert_eq!(TRIALS.outcome(H264::X264, || Ok(())), Ok(()));
        let (begun, hangs) = crossbeam_channel::bounded(0);
        let (end, ended) = crossbeam_channel::bounded::<()>(0);
        let slow = std::thread::spawn(move || {
            TRIALS.outcome(H264::V4l2, || {
                begun.send(()).unwrap();
                let _ = ended.recv();
                Err(ProbeError::NoKeyframe)
            })
        });
        hangs.recv().unwrap();
        assert_eq!(TRIALS.outcome(H264::X264, never), Ok(()), "while the other hangs");
        let waits = std::thread::spawn(move || TRIALS.outcome(H264::V4l2, never));
        drop(end);
        assert_eq!([slow.join().unwrap(), waits.join().unwrap()], [(); 2].map(|()| Err(ProbeError::NoKeyframe)));
    }

    #[test]
    fn a_failed_encoder_is_probed_again_after_some_minutes_unless_it_hangs() {
        let trials = Trials::new();
        let (failed, hung, works) = (H264::Nvenc, H264::V4l2, H264::X264);
        assert_eq!(trials.known(failed), None);
        assert!(trials.outcome(failed, || Err(ProbeError::NoKeyframe)).is_err());
        assert!(trials.outcome(hung, trial_that_hangs).is_err());
        assert_eq!(trials.outcome(works, || Ok(())), Ok(()));
        assert_eq!([failed, hung, works].map(|encoder| trials.known(encoder)), [Some(false), Some(false), Some(true)]);
        let due = |after| [failed, hung, works].map(|encoder| trials.start_retry(encoder, Instant::now() + after));
        assert_eq!(due(RETRY_AFTER / 2), [false; 3]);
        assert_eq!(due(2 * RETRY_AFTER), [true, false, false]);
        assert_eq!(due(2 * RETRY_AFTER), [false; 3], "one trial at a time");
        assert!(trials.outcome(failed, || panic!("the old outcome is returned")).is_err());
        trials.record(failed, Ok(()));
        assert_eq!(trials.outcome(failed, || panic!("probed again")), Ok(()));
    }

    /// A trial that does not return before its deadline.
    fn trial_that_hangs() -> TrialResult {
        let (_open, gate) = crossbeam_channel::bounded::<()>(0);
        with_deadline(Duration::ZERO, move || {
            let _ = gate.recv();
            Ok(())
        })
    }

    #[test]
    fn a_trial_ends_at_its_deadline() {
        let started = Instant::now();
        let deadline = Duration::from_millis(200);
        let outcome = trial_of("identity sleep-time=3600000000 ! x264enc", deadline);
        assert_eq!(outcome, Err(ProbeError::Hangs(deadline)));
        assert!(started.elapsed() < Duration::from_secs(600));
        let outcome = trial_of("x264enc ! valve drop=true", deadline);
        assert!(matches!(outcome, Err(ProbeError::FramesMissing { received: 0, .. })), "{outcome:?}");
        let outcome = with_deadline(TRIAL_TIMEOUT, || panic!("a fault of a driver"));
        assert_eq!(outcome, Err(ProbeError::Panicked));
    }
}
