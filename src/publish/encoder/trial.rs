//! Tries an encoder out: a few pictures in, as many H.264 access units out, the first of them a keyframe.
//!
//! A driver may refuse, give nothing, or never return from a call. So a trial has a thread of its own and a deadline; a
//! thread that hangs in a driver is left behind, and its encoder is not used. What a trial cannot guard against is a
//! driver that ends the process.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use gstreamer as gst;
use gstreamer_app as gst_app;

use gst::prelude::*;

use super::chain::{EncodeChain, build};
use super::{H264, Purpose, glib_error};
use crate::config::EncodeConfig;
use crate::frame::{PixelFormat, VideoInfo};
use crate::gst::{bus_error, state_error};
use crate::publish::OutputError;
use crate::publish::raw::RawPool;
use crate::stream::status::Status;

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

static TRIALS: Trials = Trials::new();

/// Whether an encoder works on this machine; tried once a process.
///
/// # Errors
/// Why it does not, in one line.
pub(super) fn works(encoder: H264) -> Result<(), String> {
    TRIALS.outcome(encoder, || {
        let started = Instant::now();
        let outcome = guarded(DEADLINE, move || {
            run(DEADLINE, |pipeline, caps| {
                let (config, status) = (EncodeConfig::default(), Arc::new(Status::quiet("trial")));
                build(pipeline, caps, &shape(), encoder, &config, Purpose::Live, &status)
            })
        });
        tracing::debug!(took = ?started.elapsed(), "trial of {}: {outcome:?}", encoder.element());
        outcome
    })
}

/// Why it does not work, if it does not.
type Outcome = Result<(), String>;

/// What has been tried, and is being tried now. Whoever asks for an encoder whose trial is over does not wait for another's:
/// one that hangs would hold up streams that do not use it.
struct Trials {
    /// `None` while it is being tried.
    outcomes: Mutex<Vec<(H264, Option<Outcome>)>>,
    /// Told when one is over.
    over: Condvar,
}

impl Trials {
    const fn new() -> Self {
        Trials { outcomes: Mutex::new(Vec::new()), over: Condvar::new() }
    }

    /// The outcome of the encoder's one trial; `try_out` is not to panic.
    fn outcome(&self, encoder: H264, try_out: impl FnOnce() -> Outcome) -> Outcome {
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((_, outcome)) = outcomes.iter().find(|(other, _)| *other == encoder) {
            match outcome {
                Some(outcome) => return outcome.clone(),
                // Streams that start side by side do not try the same encoder twice.
                None => outcomes = self.over.wait(outcomes).unwrap_or_else(PoisonError::into_inner),
            }
        }
        outcomes.push((encoder, None));
        drop(outcomes);
        let found = try_out();
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, outcome)) = outcomes.iter_mut().find(|(other, _)| *other == encoder) {
            *outcome = Some(found.clone());
        }
        self.over.notify_all();
        found
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
        Err(RecvTimeoutError::Timeout) => Err(format!("it hangs: nothing within {} s", deadline.as_secs_f64())),
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
        static TRIALS: Trials = Trials::new();
        let never = || panic!("tried twice");
        assert_eq!(TRIALS.outcome(H264::X264, || Ok(())), Ok(()));
        let (begun, hangs) = crossbeam_channel::bounded(0);
        let (end, ended) = crossbeam_channel::bounded::<()>(0);
        let slow = std::thread::spawn(move || {
            TRIALS.outcome(H264::V4l2, || {
                begun.send(()).unwrap();
                let _ = ended.recv();
                Err("no".into())
            })
        });
        hangs.recv().unwrap();
        assert_eq!(TRIALS.outcome(H264::X264, never), Ok(()), "while the other hangs");
        let waits = std::thread::spawn(move || TRIALS.outcome(H264::V4l2, never));
        drop(end);
        assert_eq!([slow.join().unwrap(), waits.join().unwrap()], [Err("no".to_string()), Err("no".to_string())]);
    }

    #[test]
    fn an_encoder_that_hangs_is_given_up() {
        let started = Instant::now();
        let error = trial_of("identity sleep-time=3600000000 ! x264enc", Duration::from_millis(200)).unwrap_err();
        assert_eq!(error, "it hangs: nothing within 0.2 s");
        assert!(started.elapsed() < DEADLINE);
        let error = trial_of("x264enc ! valve drop=true", Duration::from_millis(200)).unwrap_err();
        assert!(error.starts_with("it gave 0 of 5 pictures"), "{error}");
        let error = guarded(DEADLINE, || panic!("a driver's surprise")).unwrap_err();
        assert!(error.contains("panic"), "{error}");
    }
}
