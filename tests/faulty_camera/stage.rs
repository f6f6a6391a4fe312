//! Plays a scenario: its cameras, the service, and viewers of every stream, who say whether they saw what they must.

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
use crate::faulty_camera::picture::{Reading, read};
use crate::faulty_camera::scenario::{After, CameraSpec, Expect, Scenario, Sees, Step};

/// How often the service is asked.
const LOOK: Duration = Duration::from_millis(50);

/// Viewers must get a picture, be it one that says OFFLINE, this long after the silence that is a fault at the latest: a
/// second, and time for a busy machine.
const FROZEN: Duration = Duration::from_secs(61);

/// An attempt that was under way when the step began may fail first; the pause that follows it counts, later ones do not.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// How much older than a scenario says a picture may be that looks live, on a machine that has much else to do.
const LATE: Duration = Duration::from_secs(10);

/// What is allowed beyond the time that a scenario says, for machines that have much else to do.
const BUSY: Duration = Duration::from_secs(180);

/// One stream with its camera and its viewers.
struct Cast<'a> {
    spec: &'a CameraSpec,
    camera: Camera,
    silence: Duration,
    viewers: [LoggingViewer<Reading>; 2],
}

struct Stage<'a> {
    scenario: &'a Scenario,
    casts: Vec<Cast<'a>>,
    service: Service,
    _folder: TempDir,
}

/// Plays it; the error says what a viewer saw instead of what it must.
pub fn play(scenario: &Scenario) -> Result<(), String> {
    let mut stage = Stage::set(scenario)?;
    for step in &scenario.steps {
        stage.perform(step).map_err(|problem| format!("{:?}: {problem}{}", step.name, stage.report()))?;
    }
    stage.strike()
}

impl<'a> Stage<'a> {
    fn set(scenario: &'a Scenario) -> Result<Self, String> {
        let folder = folder();
        let mut cameras = Vec::new();
        let mut config = String::new();
        for spec in &scenario.cameras {
            let camera = Camera::start(spec).map_err(|error| format!("{error:#}"))?;
            // Nothing is drawn on the pictures, so that they can be read.
            let _ = write!(
                config,
                "[[stream]]\nname = \"{}\"\nsource = \"{}\"\noverlay = {{ alpha = 0.0, legend = false }}\n{}",
                spec.name,
                camera.url(),
                spec.stream
            );
            cameras.push(camera);
        }
        // The pauses between all attempts, where the usual log counts attempts that repeat.
        let log = ("MASKCAST_LOG", "info,maskcast::stream::supervisor=debug");
        let service = Service::with(folder.path(), &config, &[log]);
        let casts = scenario.cameras.iter().zip(cameras).map(|(spec, camera)| {
            let silence = spec.stream.get("silence_timeout").and_then(|value| value.as_str()).unwrap_or("3s");
            let silence = silence.trim_end_matches('s').parse().map_err(|_| format!("write {silence:?} in seconds"))?;
            Ok(Cast {
                spec,
                camera,
                silence: Duration::from_secs_f64(silence),
                viewers: [
                    LoggingViewer::mjpeg(&service, &spec.name, read),
                    LoggingViewer::rtsp(&service, &spec.name, read),
                ],
            })
        });
        let casts = casts.collect::<Result<_, String>>()?;
        Ok(Stage { scenario, casts, service, _folder: folder })
    }

    fn cast(&self, name: &str) -> &Cast<'a> {
        let cast = self.casts.iter().find(|cast| cast.spec.name == name);
        cast.expect("the scenario's names were checked when it was read")
    }

    /// One step, until all that is expected of it has come true and its time is over.
    fn perform(&mut self, step: &Step) -> Result<(), String> {
        let name = self.scenario.camera_of(step);
        let before: Vec<(u64, u64, usize)> = step.undisturbed.iter().map(|name| self.standing(name)).collect();
        if let Some(action) = &step.action {
            let cast = self.casts.iter_mut().find(|cast| cast.spec.name == name);
            let camera = &mut cast.expect("the scenario's names were checked when it was read").camera;
            camera.perform(action).map_err(|error| format!("{error:#}"))?;
        }
        let (began, began_wall) = (Instant::now(), Timestamp::now());
        let progress = |stage: &Self| {
            let camera = &stage.cast(name).camera;
            (camera.delivered(), camera.connections())
        };
        let before_it = progress(self);
        let again = tick(LOOK);
        let mut open: Vec<&Expect> = step.expect.iter().collect();
        loop {
            let mut unmet = Vec::new();
            for expect in open {
                let stream = expect.stream.as_deref().unwrap_or(name);
                let Err(why) = self.met(stream, expect, began) else { continue };
                let allowed = Duration::from_secs_f64(expect.within) + BUSY + self.extra(stream, expect, began_wall);
                if began.elapsed() > allowed {
                    return Err(format!("{stream}: not {:?} within {allowed:.1?}: {why}", expect.sees));
                }
                unmet.push(expect);
            }
            open = unmet;
            self.check_viewers()?;
            let now = progress(self);
            let (pictures, connections) = (now.0 - before_it.0, now.1 - before_it.1);
            let enough = pictures >= step.pictures && connections >= step.connections;
            if open.is_empty() && began.elapsed().as_secs_f64() >= step.seconds && enough {
                break;
            }
            if began.elapsed() > DEADLINE + Duration::from_secs_f64(step.seconds) {
                return Err(format!("{connections} connections came, {pictures} pictures went"));
            }
            let _ = again.recv();
        }
        for (name, before) in step.undisturbed.iter().zip(before) {
            let after = self.standing(name);
            if before.2 != after.2 {
                return Err(format!("{name} has not stayed live"));
            }
            let (taken, published) = (after.0 - before.0, after.1 - before.1);
            if taken.abs_diff(published) > 2 + taken / 20 {
                return Err(format!("{name}: its camera took {taken} pictures, and {published} were published"));
            }
        }
        Ok(())
    }

    /// Pictures taken by a stream's camera, published by the service, and how often the stream has ceased to be live.
    fn standing(&self, name: &str) -> (u64, u64, usize) {
        let losses = self.entries(name).iter().filter(|entry| entry["from"] == "live").count();
        (self.cast(name).camera.taken(), self.service.published(name), losses)
    }

    /// Whether a stream is now as expected; if not, in what it differs.
    fn met(&self, stream: &str, expect: &Expect, began: Instant) -> Result<(), String> {
        let cast = self.cast(stream);
        for viewer in &cast.viewers {
            let newest = viewer.log.lock().unwrap().frames.last().copied().filter(|newest| newest.at >= began);
            let Some(ReceivedFrame { size, content: seen, .. }) = newest else {
                return Err(format!("{} has seen nothing yet", viewer.name));
            };
            let fits = match (expect.sees, seen) {
                (Sees::Offline, Reading::Offline) => true,
                (Sees::Live, Reading::Live { number, color }) => {
                    cast.camera.taken_at(number).is_some_and(|at| at >= began)
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
        let state = if expect.sees == Sees::Live { "live" } else { "offline" };
        if report["state"] != state {
            return Err(format!("the API says {}", report["state"]));
        }
        if let Some(part) = &expect.says
            && !report["reason"].as_str().is_some_and(|reason| reason.contains(part))
        {
            return Err(format!("the API's reason is {}", report["reason"]));
        }
        let rate = report["fps"].as_f64().unwrap_or(0.0);
        match expect.fps {
            Some(fps) if (rate - fps).abs() > 0.15 * fps => Err(format!("{rate} frames a second are published")),
            _ => Ok(()),
        }
    }

    /// What an expectation's time is prolonged by.
    fn extra(&self, stream: &str, expect: &Expect, began: Timestamp) -> Duration {
        match expect.after {
            None => Duration::ZERO,
            Some(After::Silence) => self.cast(stream).silence,
            Some(After::BackOff) => {
                let pauses = self.entries(stream).into_iter().filter_map(|entry| {
                    let said: Timestamp = entry["timestamp"].as_str()?.parse().ok()?;
                    let pause = entry["message"].as_str()?.strip_prefix("next try in ")?.strip_suffix(" s")?;
                    let since_began = said.duration_since(began).as_secs_f64();
                    let left = since_began + pause.parse::<f64>().ok()?;
                    (since_began < UNDER_WAY.as_secs_f64()).then_some(left)
                });
                // As logged: rounded to a tenth.
                Duration::from_secs_f64(pauses.fold(0.0, f64::max) + 0.05)
            }
        }
    }

    /// What the log says of a stream.
    fn entries(&self, stream: &str) -> Vec<Value> {
        let log = self.service.program.log();
        let entries = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        entries.filter(|entry| entry["stream"] == stream).collect()
    }

    /// What holds at all times: nobody is cut off, no picture looks live that is old, no viewer's picture stands still.
    fn check_viewers(&self) -> Result<(), String> {
        for cast in &self.casts {
            let longest = cast.silence + FROZEN;
            for viewer in &cast.viewers {
                let log = viewer.log.lock().unwrap();
                let who = format!("{} of {}", viewer.name, cast.spec.name);
                if let Some(why) = &log.ended {
                    return Err(format!("{who} was cut off: {why}"));
                }
                let mut last: Option<Instant> = None;
                for frame in &log.frames {
                    if let Reading::Live { number, .. } = frame.content
                        && let Some(taken) = cast.camera.taken_at(number)
                        && (frame.at - taken).as_secs_f64() > self.scenario.max_age + LATE.as_secs_f64()
                    {
                        return Err(format!("{who} saw, as if live, a picture {:.1?} old", frame.at - taken));
                    }
                    check_gap(&who, last, frame.at, longest)?;
                    last = Some(frame.at);
                }
                check_gap(&who, last, Instant::now(), longest)?;
            }
        }
        Ok(())
    }

    /// Lets the viewers go, stops the service, and looks at its accounts.
    fn strike(self) -> Result<(), String> {
        let Stage { casts, service, .. } = self;
        let names: Vec<String> = casts.iter().map(|cast| cast.spec.name.clone()).collect();
        let panics = service.streams().iter().map(|stream| stream["panics"].as_u64().unwrap_or(1)).sum::<u64>();
        drop(casts);
        let (code, took, log) = service.terminate();
        if code != Some(0) || panics > 0 || log.contains("panicked") {
            return Err(format!("it ended with {code:?} after {took:?} and {panics} panics:\n{log}"));
        }
        for name in names {
            let account = account(&log, &name);
            if account.captured != account.published + account.dropped || account.in_flight > 0 {
                return Err(format!("{name}: the account is open: {account:?}"));
            }
        }
        Ok(())
    }

    /// What the viewers saw last, and the log.
    fn report(&self) -> String {
        let mut text = String::new();
        for cast in &self.casts {
            let api = self.service.stream(&cast.spec.name);
            let taken = cast.camera.taken();
            let _ = writeln!(text, "\nits camera has taken {taken} pictures; the API says {api}");
            for viewer in &cast.viewers {
                let _ = writeln!(text, "\n{} of {}, last pictures:", viewer.name, cast.spec.name);
                let log = viewer.log.lock().unwrap();
                for frame in log.frames.iter().rev().take(12).rev() {
                    let ago = frame.at.elapsed().as_secs_f64();
                    let _ = write!(text, "  {ago:.2} s ago, {:?}: {:?}", frame.size, frame.content);
                    if let Reading::Live { number, .. } = frame.content
                        && let Some(taken) = cast.camera.taken_at(number)
                    {
                        let _ = write!(text, ", then {:.2} s old", (frame.at - taken).as_secs_f64());
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
        return Err(format!("{who} looked at one picture for {gap:.1?}"));
    }
    Ok(())
}
