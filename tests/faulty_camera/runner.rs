//! Runs a scenario with its cameras, the service, and two viewers of every stream, and checks what the viewers see.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crossbeam_channel::tick;
use jiff::Timestamp;
use serde_json::Value;
use tempfile::TempDir;

use crate::common::logging_viewer::{LoggingViewer, ReceivedFrame};
use crate::common::program::DEADLINE;
use crate::common::service::{Service, account, folder};
use crate::faulty_camera::Camera;
use crate::faulty_camera::scenario::{CameraSpec, Expect, ExpectedView, ExtraTime, Scenario, Step};
use crate::faulty_camera::test_frame::{Content, read};

/// How often the service is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Viewers must get a frame, at least a slate, this long after `silence_timeout`: one second, and time for a busy machine.
const MAX_GAP: Duration = Duration::from_secs(61);

/// An attempt that was in progress at the start of the step may fail first. The pause after it counts, later ones do not.
const ATTEMPT_IN_PROGRESS: Duration = Duration::from_secs(1);

/// Extra age of frames without the slate, for busy machines.
const EXTRA_AGE: Duration = Duration::from_secs(10);

/// Extra time for expectations, for busy machines.
const EXTRA_TIME: Duration = Duration::from_secs(180);

/// A stream with its camera and its viewers.
struct TestStream<'a> {
    spec: &'a CameraSpec,
    camera: Camera,
    silence: Duration,
    viewers: [LoggingViewer<Content>; 2],
}

struct ScenarioRun<'a> {
    scenario: &'a Scenario,
    streams: Vec<TestStream<'a>>,
    service: Service,
    _folder: TempDir,
}

/// Runs a scenario.
///
/// # Errors
/// What differs from the expectations, and the log.
pub fn run_scenario(scenario: &Scenario) -> Result<(), String> {
    let mut run = ScenarioRun::start(scenario)?;
    for step in &scenario.steps {
        run.run_step(step).map_err(|problem| format!("{:?}: {problem}{}", step.name, run.report()))?;
    }
    run.stop()
}

impl<'a> ScenarioRun<'a> {
    fn start(scenario: &'a Scenario) -> Result<Self, String> {
        let folder = folder();
        let mut cameras = Vec::new();
        let mut config = String::new();
        for spec in &scenario.cameras {
            let camera = Camera::start(spec).map_err(|error| format!("{error:#}"))?;
            // Nothing is drawn on the frames, so that their content can be read.
            let _ = write!(
                config,
                "[[stream]]\nname = \"{}\"\nsource = \"{}\"\noverlay = {{ alpha = 0.0, legend = false }}\n{}",
                spec.name,
                camera.url(),
                spec.stream
            );
            cameras.push(camera);
        }
        // The log then has every pause between attempts; by default repeated attempts are only counted.
        let log = ("MASKCAST_LOG", "info,maskcast::stream::supervisor=debug");
        let service = Service::with(folder.path(), &config, &[log]);
        let streams = scenario.cameras.iter().zip(cameras).map(|(spec, camera)| {
            let silence = spec.stream.get("silence_timeout").and_then(|value| value.as_str()).unwrap_or("3s");
            let silence = silence.trim_end_matches('s').parse().map_err(|_| format!("write {silence:?} in seconds"))?;
            Ok(TestStream {
                spec,
                camera,
                silence: Duration::from_secs_f64(silence),
                viewers: [
                    LoggingViewer::mjpeg(&service, &spec.name, read),
                    LoggingViewer::rtsp(&service, &spec.name, read),
                ],
            })
        });
        let streams = streams.collect::<Result<_, String>>()?;
        Ok(ScenarioRun { scenario, streams, service, _folder: folder })
    }

    fn stream(&self, name: &str) -> &TestStream<'a> {
        let stream = self.streams.iter().find(|stream| stream.spec.name == name);
        stream.expect("the scenario's names were checked when it was read")
    }

    /// Runs one step until its expectations are met and its time is over.
    fn run_step(&mut self, step: &Step) -> Result<(), String> {
        let name = self.scenario.camera_of(step);
        let before: Vec<(u64, u64, usize)> = step.undisturbed.iter().map(|name| self.counts(name)).collect();
        if let Some(action) = &step.action {
            let stream = self.streams.iter_mut().find(|stream| stream.spec.name == name);
            let camera = &mut stream.expect("the scenario's names were checked when it was read").camera;
            camera.perform(action).map_err(|error| format!("{error:#}"))?;
        }
        let (began, began_wall) = (Instant::now(), Timestamp::now());
        let progress = |run: &Self| {
            let camera = &run.stream(name).camera;
            (camera.delivered(), camera.connections())
        };
        let before_it = progress(self);
        let again = tick(POLL_INTERVAL);
        let mut open: Vec<&Expect> = step.expect.iter().collect();
        loop {
            let mut unmet = Vec::new();
            for expect in open {
                let stream = expect.stream.as_deref().unwrap_or(name);
                let Err(why) = self.check(stream, expect, began) else { continue };
                let allowed =
                    Duration::from_secs_f64(expect.within) + EXTRA_TIME + self.extra(stream, expect, began_wall);
                if began.elapsed() > allowed {
                    return Err(format!("{stream}: not {:?} within {allowed:.1?}: {why}", expect.sees));
                }
                unmet.push(expect);
            }
            open = unmet;
            self.check_viewers()?;
            let now = progress(self);
            let (frames, connections) = (now.0 - before_it.0, now.1 - before_it.1);
            let enough = frames >= step.frames && connections >= step.connections;
            if open.is_empty() && began.elapsed().as_secs_f64() >= step.seconds && enough {
                break;
            }
            if began.elapsed() > DEADLINE + Duration::from_secs_f64(step.seconds) {
                return Err(format!("{connections} connections and {frames} frames"));
            }
            let _ = again.recv();
        }
        for (name, before) in step.undisturbed.iter().zip(before) {
            let after = self.counts(name);
            if before.2 != after.2 {
                return Err(format!("{name} has not stayed live"));
            }
            let (captured, published) = (after.0 - before.0, after.1 - before.1);
            if captured.abs_diff(published) > 2 + captured / 20 {
                return Err(format!("{name}: its camera captured {captured} frames, and {published} were published"));
            }
        }
        Ok(())
    }

    /// Frames captured by the camera of a stream, frames published by the service, and how often the stream left `live`.
    fn counts(&self, name: &str) -> (u64, u64, usize) {
        let losses = self.entries(name).iter().filter(|entry| entry["from"] == "live").count();
        (self.stream(name).camera.captured(), self.service.published(name), losses)
    }

    /// Checks an expectation.
    ///
    /// # Errors
    /// The difference.
    fn check(&self, stream: &str, expect: &Expect, began: Instant) -> Result<(), String> {
        let test_stream = self.stream(stream);
        for viewer in &test_stream.viewers {
            let newest = viewer.log.lock().unwrap().frames.last().copied().filter(|newest| newest.at >= began);
            let Some(ReceivedFrame { size, content: seen, .. }) = newest else {
                return Err(format!("{} has received no frame yet", viewer.name));
            };
            let fits = match (expect.sees, seen) {
                (ExpectedView::Offline, Content::Offline) => true,
                (ExpectedView::Live, Content::Live { number, color }) => {
                    test_stream.camera.captured_at(number).is_some_and(|at| at >= began)
                        && expect.size.is_none_or(|[width, height]| size == (width, height))
                        && expect.color.is_none_or(|expected| expected == color)
                }
                _ => false,
            };
            if !fits {
                return Err(format!("{} sees {seen:?} in {size:?}", viewer.name));
            }
        }
        let report = self.service.stream(stream);
        let state = if expect.sees == ExpectedView::Live { "live" } else { "offline" };
        if report["state"] != state {
            return Err(format!("the state in the API is {}", report["state"]));
        }
        if let Some(part) = &expect.reason
            && !report["reason"].as_str().is_some_and(|reason| reason.contains(part))
        {
            return Err(format!("the reason in the API is {}", report["reason"]));
        }
        let rate = report["fps"].as_f64().unwrap_or(0.0);
        match expect.fps {
            Some(fps) if (rate - fps).abs() > 0.15 * fps => Err(format!("{rate} frames a second are published")),
            _ => Ok(()),
        }
    }

    /// Time that is added to `within` of an expectation.
    fn extra(&self, stream: &str, expect: &Expect, began: Timestamp) -> Duration {
        match expect.after {
            None => Duration::ZERO,
            Some(ExtraTime::Silence) => self.stream(stream).silence,
            Some(ExtraTime::BackOff) => {
                let pauses = self.entries(stream).into_iter().filter_map(|entry| {
                    let logged_at: Timestamp = entry["timestamp"].as_str()?.parse().ok()?;
                    let pause = entry["message"].as_str()?.strip_prefix("next try in ")?.strip_suffix(" s")?;
                    let since_began = logged_at.duration_since(began).as_secs_f64();
                    let left = since_began + pause.parse::<f64>().ok()?;
                    (since_began < ATTEMPT_IN_PROGRESS.as_secs_f64()).then_some(left)
                });
                // The log rounds to a tenth.
                Duration::from_secs_f64(pauses.fold(0.0, f64::max) + 0.05)
            }
        }
    }

    /// The log entries of a stream.
    fn entries(&self, stream: &str) -> Vec<Value> {
        let log = self.service.program.log();
        let entries = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        entries.filter(|entry| entry["stream"] == stream).collect()
    }

    /// Checks what must always be true: viewers stay connected, see no old frames without the slate, and get new frames.
    fn check_viewers(&self) -> Result<(), String> {
        for stream in &self.streams {
            let longest = stream.silence + MAX_GAP;
            for viewer in &stream.viewers {
                let log = viewer.log.lock().unwrap();
                let who = format!("{} of {}", viewer.name, stream.spec.name);
                if let Some(why) = &log.ended {
                    return Err(format!("{who} was disconnected: {why}"));
                }
                let mut last: Option<Instant> = None;
                for frame in &log.frames {
                    if let Content::Live { number, .. } = frame.content
                        && let Some(captured) = stream.camera.captured_at(number)
                        && (frame.at - captured).as_secs_f64() > self.scenario.max_age + EXTRA_AGE.as_secs_f64()
                    {
                        return Err(format!(
                            "{who} saw a frame without the slate that was {:.1?} old",
                            frame.at - captured
                        ));
                    }
                    check_gap(&who, last, frame.at, longest)?;
                    last = Some(frame.at);
                }
                check_gap(&who, last, Instant::now(), longest)?;
            }
        }
        Ok(())
    }

    /// Disconnects the viewers, stops the service, and checks its ledgers.
    fn stop(self) -> Result<(), String> {
        let ScenarioRun { streams, service, .. } = self;
        let names: Vec<String> = streams.iter().map(|stream| stream.spec.name.clone()).collect();
        let panics = service.streams().iter().map(|stream| stream["panics"].as_u64().unwrap_or(1)).sum::<u64>();
        drop(streams);
        let (code, took, log) = service.terminate();
        if code != Some(0) || panics > 0 || log.contains("panicked") {
            return Err(format!("the service ended with {code:?} after {took:?} and {panics} panics:\n{log}"));
        }
        for name in names {
            let account = account(&log, &name);
            if account.captured != account.published + account.dropped || account.in_flight > 0 {
                return Err(format!("{name}: the ledger is not closed: {account:?}"));
            }
        }
        Ok(())
    }

    /// The last frames of the viewers, and the log.
    fn report(&self) -> String {
        let mut text = String::new();
        for stream in &self.streams {
            let api = self.service.stream(&stream.spec.name);
            let captured = stream.camera.captured();
            let _ = writeln!(text, "\nits camera has captured {captured} frames; API: {api}");
            for viewer in &stream.viewers {
                let _ = writeln!(text, "\n{} of {}, last frames:", viewer.name, stream.spec.name);
                let log = viewer.log.lock().unwrap();
                for frame in log.frames.iter().rev().take(12).rev() {
                    let ago = frame.at.elapsed().as_secs_f64();
                    let _ = write!(text, "  {ago:.2} s ago, {:?}: {:?}", frame.size, frame.content);
                    if let Content::Live { number, .. } = frame.content
                        && let Some(captured) = stream.camera.captured_at(number)
                    {
                        let _ = write!(text, ", {:.2} s old at that time", (frame.at - captured).as_secs_f64());
                    }
                    text.push('\n');
                }
            }
        }
        text + &self.service.program.log()
    }
}

fn check_gap(who: &str, before: Option<Instant>, now: Instant, longest: Duration) -> Result<(), String> {
    let gap = before.map_or(Duration::ZERO, |before| now.saturating_duration_since(before));
    if gap > longest {
        return Err(format!("{who} received no frame for {gap:.1?}"));
    }
    Ok(())
}
