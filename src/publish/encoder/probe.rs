//! Tries an encoder out: a few pictures in, as many H.264 access units out, the first of them a keyframe.
//!
//! A driver may refuse, give nothing, or never return from a call. So a trial has a thread of its own and a deadline; a
//! thread that hangs in a driver is left behind, and its encoder is not used. What a trial cannot guard against is a
//! driver that ends the process.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use gstreamer as gst;
use gstreamer_app as gst_app;

use gst::prelude::*;

use super::chain::{EncodeChain, build};
use super::{H264, Purpose, glib_error};
use crate::base::status::Status;
use crate::config::EncodeConfig;
use crate::frame::{PixelFormat, VideoInfo};
use crate::gst::{bus_error, state_error};
use crate::publish::OutputError;
use crate::publish::raw::RawPool;

/// How long a trial may take: drivers that upload firmware take seconds, and so does a busy machine.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// Pictures that are encoded.
const PICTURES: u64 = 5;

/// What they are like: as decoders give them, at a size and rate that every encoder knows.
fn shape() -> VideoInfo {
    VideoInfo { fps: (25, 1), ..VideoInfo::new(PixelFormat::I420, 640, 360) }
}

/// What stopping the encoder may take after that.
const GRACE: Duration = Duration::from_secs(1);

/// How often errors are looked for while no picture comes.
const POLL: gst::ClockTime = gst::ClockTime::from_mseconds(20);

static PROBES: Probes = Probes::new();

/// An encoder that has not passed is probed again when it is asked for after this time.
const TRY_AGAIN: Duration = Duration::from_secs(10 * 60);

/// How the reason of a trial begins that was given up: its thread hangs, and another trial might leave another one.
const HANGS: &str = "it hangs";

/// Whether an encoder works on this machine; probed when it is first asked for. A failure holds for some minutes: then the next
/// call starts another trial in the background, and later calls know its outcome.
///
/// # Errors
/// Why it does not, in one line.
pub(super) fn works(encoder: H264) -> Result<(), String> {
    if PROBES.try_again(encoder, Instant::now()) {
        let again = move || PROBES.enter(encoder, try_out(encoder));
        if let Err(error) = std::thread::Builder::new().name("encoder-again".into()).spawn(again) {
            tracing::debug!("no thread to try {} again: {error}", encoder.element());
        }
    }
    PROBES.outcome(encoder, || try_out(encoder))
}

/// Whether an encoder works, if it has been probed.
pub(super) fn known(encoder: H264) -> Option<bool> {
    PROBES.known(encoder)
}

fn try_out(encoder: H264) -> ProbeResult {
    let started = Instant::now();
    let outcome = guarded(DEADLINE, move || {
        run(DEADLINE, |pipeline, caps| {
            let (config, status) = (EncodeConfig::default(), Arc::new(Status::quiet("trial")));
            build(pipeline, caps, &shape(), encoder, &config, Purpose::Live, &status)
        })
    });
    tracing::debug!(took = ?started.elapsed(), "trial of {}: {outcome:?}", encoder.element());
    outcome
}

/// Why it does not work, if it does not.
type ProbeResult = Result<(), String>;

/// What has been probed, and is being probed now. Whoever asks for an encoder whose trial is over does not wait for another's:
/// one that hangs would hold up streams that do not use it.
struct Probes {
    probed: Mutex<Vec<ProbeRecord>>,
    /// Told when one is over.
    over: Condvar,
}

struct ProbeRecord {
    encoder: H264,
    /// `None` while it is being probed for the first time.
    outcome: Option<ProbeResult>,
    /// When a trial began last.
    at: Instant,
}

impl Probes {
    const fn new() -> Self {
        Probes { probed: Mutex::new(Vec::new()), over: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<ProbeRecord>> {
        self.probed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The outcome of the encoder's newest trial; the first one is made by `try_out`, which is not to panic.
    fn outcome(&self, encoder: H264, try_out: impl FnOnce() -> ProbeResult) -> ProbeResult {
        let mut probed = self.lock();
        while let Some(known) = probed.iter().find(|known| known.encoder == encoder) {
            match &known.outcome {
                Some(outcome) => return outcome.clone(),
                // Streams that start side by side do not try the same encoder twice.
                None => probed = self.over.wait(probed).unwrap_or_else(PoisonError::into_inner),
            }
        }
        probed.push(ProbeRecord { encoder, outcome: None, at: Instant::now() });
        drop(probed);
        let found = try_out();
        self.enter(encoder, found.clone());
        found
    }

    fn enter(&self, encoder: H264, found: ProbeResult) {
        if let Some(known) = self.lock().iter_mut().find(|known| known.encoder == encoder) {
            known.outcome = Some(found);
        }
        self.over.notify_all();
    }

    /// Whether the encoder works, if that is known.
    fn known(&self, encoder: H264) -> Option<bool> {
        let probed = self.lock();
        probed.iter().find(|known| known.encoder == encoder)?.outcome.as_ref().map(Result::is_ok)
    }

    /// Whether a trial that failed is old enough to be made again; true once, for the caller that makes it.
    fn try_again(&self, encoder: H264, now: Instant) -> bool {
        let mut probed = self.lock();
        let Some(known) = probed.iter_mut().find(|known| known.encoder == encoder) else { return false };
        let has_failed = matches!(&known.outcome, Some(Err(reason)) if !reason.starts_with(HANGS));
        let is_due = has_failed && now.saturating_duration_since(known.at) >= TRY_AGAIN;
        if is_due {
            known.at = now;
        }
        is_due
    }
}

/// Runs `work` on a thread and waits for it, a little longer than it may take by itself.
fn guarded(deadline: Duration, work: impl FnOnce() -> Result<(), OutputError> + Send + 'static) -> Result<(), String> {
    let (done, outcome) = crossbeam_channel::bounded(1);
    let thread = std::thread::Builder::new().name("encoder-trial".into()).spawn(move || {
        // Nobody listens any more when it was given up.
        let _ = done.send(work());
    });
    if let Err(error) = thread {
        return Err(format!("no thread to try it on: {error}"));
    }
    match outcome.recv_timeout(deadline + GRACE) {
        Ok(outcome) => outcome.map_err(|error| error.0),
        Err(RecvTimeoutError::Timeout) => Err(format!("{HANGS}: nothing within {} s", deadline.as_secs_f64())),
        Err(RecvTimeoutError::Disconnected) => Err("trying it ended in a panic".into()),
    }
}

/// Encodes the pictures with the chain that `make` adds to the pipeline.
fn run(
    deadline: Duration,
    make: impl FnOnce(&gst::Pipeline, &gst::Caps) -> Result<EncodeChain, OutputError>,
) -> Result<(), OutputError> {
    let pool = RawPool::new(shape())?;
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
) -> Result<(), OutputError> {
    pipeline.set_state(gst::State::Playing).map_err(|_| state_error(pipeline, "it does not start"))?;
    for n in 0..PICTURES {
        let mut buffer = pool.paint(&mut |picture| {
            for plane in &mut picture.planes {
                plane.data.fill(64 + 16 * n as u8);
            }
        })?;
        buffer.make_mut().set_pts(gst::ClockTime::from_mseconds(40 * n));
        // They are few: the appsrc takes all of them, and does not block.
        let _ = chain.source.push_buffer(buffer);
    }
    let _ = chain.source.end_of_stream();
    let mut pictures = 0;
    while pictures < PICTURES {
        let Some(sample) = sink.try_pull_sample(POLL) else {
            let gave = format!("it gave {pictures} of {PICTURES} pictures");
            return Err(match bus_error(bus) {
                Some(error) => error.into(),
                None if sink.is_eos() => OutputError(gave),
                None if Instant::now() >= until => OutputError(format!("{gave} in time")),
                None => continue,
            });
        };
        let keyframe = sample.buffer().is_some_and(|buffer| !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT));
        if pictures == 0 && !keyframe {
            return Err(OutputError("its first picture is no keyframe".into()));
        }
        pictures += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::chain::assemble;
    use super::*;

    /// A trial of elements that stand in for an encoder.
    fn trial_of(description: &'static str, deadline: Duration) -> Result<(), String> {
        crate::gst::init().unwrap();
        guarded(deadline, move || {
            run(deadline, |pipeline, caps| {
                let fake = gst::parse::bin_from_description(description, true).unwrap().upcast();
                assemble(pipeline, caps, &shape(), H264::X264, fake, Purpose::Live)
            })
        })
    }

    #[test]
    fn encoders_that_work_pass() {
        for encoder in ["x264enc tune=zerolatency speed-preset=ultrafast", "x264enc", "openh264enc"] {
            assert_eq!(trial_of(encoder, DEADLINE), Ok(()), "{encoder}");
        }
        crate::gst::init().unwrap();
        assert_eq!(works(H264::X264), Ok(()));
    }

    #[test]
    fn encoders_that_fail_say_why() {
        for (encoder, why) in [
            // Refuses the stream.
            ("capsfilter caps=video/x-raw,width=8 ! x264enc", "negotiated"),
            // Fails amid the pictures.
            ("x264enc tune=zerolatency ! identity error-after=2", "Failed after iterations"),
            // Gives no H.264.
            ("jpegenc", "link"),
        ] {
            let error = trial_of(encoder, DEADLINE).expect_err(encoder);
            assert!(error.contains(why) && !error.contains('\n'), "{encoder}: {error}");
        }
    }

    #[test]
    fn an_encoder_that_begins_amid_a_stream_fails() {
        crate::gst::init().unwrap();
        let outcome = run(DEADLINE, |pipeline, caps| {
            let fake = gst::parse::bin_from_description("x264enc tune=zerolatency", true).unwrap();
            let first = std::sync::atomic::AtomicBool::new(true);
            fake.static_pad("src").unwrap().add_probe(gst::PadProbeType::BUFFER, move |_, _| {
                if first.swap(false, std::sync::atomic::Ordering::Relaxed) {
                    gst::PadProbeReturn::Drop
                } else {
                    gst::PadProbeReturn::Ok
                }
            });
            assemble(pipeline, caps, &shape(), H264::X264, fake.upcast(), Purpose::Live)
        });
        let error = outcome.unwrap_err().0;
        assert!(error.contains("No valid frames") || error.contains("no keyframe"), "{error}");
    }

    #[test]
    fn whoever_asks_for_another_encoder_does_not_wait_for_one_that_hangs() {
        static PROBES: Probes = Probes::new();
        let never = || panic!("probed twice");
        assert_eq!(PROBES.outcome(H264::X264, || Ok(())), Ok(()));
        let (begun, hangs) = crossbeam_channel::bounded(0);
        let (end, ended) = crossbeam_channel::bounded::<()>(0);
        let slow = std::thread::spawn(move || {
            PROBES.outcome(H264::V4l2, || {
                begun.send(()).unwrap();
                let _ = ended.recv();
                Err("no".into())
            })
        });
        hangs.recv().unwrap();
        assert_eq!(PROBES.outcome(H264::X264, never), Ok(()), "while the other hangs");
        let waits = std::thread::spawn(move || PROBES.outcome(H264::V4l2, never));
        drop(end);
        assert_eq!([slow.join().unwrap(), waits.join().unwrap()], [Err("no".to_string()), Err("no".to_string())]);
    }

    #[test]
    fn an_encoder_that_failed_is_tried_again_after_some_minutes_unless_it_hangs() {
        let trials = Probes::new();
        let (failed, hung, works) = (H264::Nvenc, H264::V4l2, H264::X264);
        assert_eq!(trials.known(failed), None);
        assert!(trials.outcome(failed, || Err("no session is free".into())).is_err());
        assert!(trials.outcome(hung, guarded_for_ever).is_err());
        assert_eq!(trials.outcome(works, || Ok(())), Ok(()));
        assert_eq!([failed, hung, works].map(|encoder| trials.known(encoder)), [Some(false), Some(false), Some(true)]);
        let due = |after| [failed, hung, works].map(|encoder| trials.try_again(encoder, Instant::now() + after));
        assert_eq!(due(TRY_AGAIN / 2), [false; 3]);
        assert_eq!(due(2 * TRY_AGAIN), [true, false, false]);
        assert_eq!(due(2 * TRY_AGAIN), [false; 3], "one trial at a time");
        assert!(trials.outcome(failed, || panic!("it is not waited for")).is_err());
        trials.enter(failed, Ok(()));
        assert_eq!(trials.outcome(failed, || panic!("probed again")), Ok(()));
    }

    /// A trial that does not return in time.
    fn guarded_for_ever() -> ProbeResult {
        let (_open, gate) = crossbeam_channel::bounded::<()>(0);
        guarded(Duration::ZERO, move || {
            let _ = gate.recv();
            Ok(())
        })
    }

    #[test]
    fn an_encoder_that_hangs_is_given_up() {
        let started = Instant::now();
        let error = trial_of("identity sleep-time=3600000000 ! x264enc", Duration::from_millis(200)).unwrap_err();
        assert_eq!(error, "it hangs: nothing within 0.2 s");
        assert!(started.elapsed() < Duration::from_secs(600));
        let error = trial_of("x264enc ! valve drop=true", Duration::from_millis(200)).unwrap_err();
        assert!(error.starts_with("it gave 0 of 5 pictures"), "{error}");
        let error = guarded(DEADLINE, || panic!("a driver's surprise")).unwrap_err();
        assert!(error.contains("panic"), "{error}");
    }
}
