//! Cameras that are killed, stalled and restarted at random, and how long the streams need when they are back.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, tick};
use fastrand::Rng;

use super::faulty_camera::Camera;
use super::faulty_camera::scenario::{Action, Garbage, Video};
use super::record::{Record, Recovery};
use super::service::{Service, pause};

/// How long a camera is well between two faults, seconds: every other one long enough for a stable minute at its end.
const WELL: [f64; 2] = [8.0, 75.0];

/// How long a camera is away, seconds: short ones are as frequent as long ones, by the octave.
const AWAY: [f64; 2] = [1.0, 60.0];

/// A stream that is not live for so long after its camera's return has not come back.
const PATIENCE: Duration = Duration::from_secs(90);

/// How often it is looked whether it has: the length of what is measured is known so far.
const LOOK: Duration = Duration::from_millis(50);

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Power is lost: connections are cut, the port is closed, and it is back after a while.
    Power,
    /// It hangs: connections stay open and nothing comes.
    Stall,
    /// Whoever connects is let in, and gets no answer.
    Silent,
    /// Whoever connects gets nonsense.
    Garbage,
    /// Connections are cut, and accepted again at once.
    HangUp,
    /// Starts again at once, with another picture size.
    Reboot,
    /// The stream ends properly, and may be asked for again at once.
    End,
}

/// As often as they are listed.
const FAULTS: [Fault; 10] = [
    Fault::Power,
    Fault::Power,
    Fault::Power,
    Fault::Stall,
    Fault::Stall,
    Fault::Silent,
    Fault::Garbage,
    Fault::HangUp,
    Fault::Reboot,
    Fault::End,
];

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Fault::Power => "power lost",
            Fault::Stall => "stalled",
            Fault::Silent => "silent",
            Fault::Garbage => "nonsense",
            Fault::HangUp => "hung up",
            Fault::Reboot => "restarted",
            Fault::End => "ended",
        }
    }

    /// The camera is back in the same moment.
    fn is_instant(self) -> bool {
        matches!(self, Fault::HangUp | Fault::Reboot | Fault::End)
    }

    fn action(self, random: &mut Rng) -> Action {
        match self {
            Fault::Power => Action::Refuse,
            Fault::Stall => Action::Stall,
            Fault::Silent => Action::Silent,
            Fault::Garbage => Action::Garbage(Garbage::Noise),
            Fault::HangUp => Action::HangUp,
            Fault::Reboot => {
                let size = [[320, 240], [480, 272], [640, 360]][random.usize(..3)];
                Action::Reboot(Video { size: Some(size), ..Video::default() })
            }
            Fault::End => Action::End,
        }
    }
}

/// Plays faults on one camera until the run is over; leaves it well.
pub fn play(camera: &mut Camera, name: &str, mut random: Rng, service: &Service, record: &Record, over: &Receiver<()>) {
    loop {
        let well = WELL[0] + (WELL[1] - WELL[0]) * random.f64();
        if pause(over, Duration::from_secs_f64(well)) {
            return;
        }
        let fault = FAULTS[random.usize(..FAULTS.len())];
        let away = AWAY[0] * (AWAY[1] / AWAY[0]).powf(random.f64());
        let (began, connected) = (Instant::now(), camera.connections());
        let mut result = camera.perform(&fault.action(&mut random));
        let (mut stopped, mut connected) = (false, connected);
        if !fault.is_instant() {
            stopped = pause(over, Duration::from_secs_f64(away));
            connected = camera.connections();
            result = result.and(camera.perform(&Action::Serve));
        }
        if let Err(error) = result {
            record.problem(format_args!("the camera {name} cannot be {}: {error:#}", fault.name()));
            return;
        }
        let back = Instant::now();
        // An instant fault takes as long as the camera needs for it.
        let outage = if fault.is_instant() { 0.0 } else { (back - began).as_secs_f64() };
        let since = if fault.is_instant() { began } else { back };
        // Who has stalled keeps its connections.
        let connected = (fault != Fault::Stall).then_some(connected);
        let Some((took, disturbed)) = await_return(camera, name, since, connected, service, over) else { return };
        record.run().recoveries.push(Recovery {
            camera: name.into(),
            fault: fault.name().into(),
            at: record.seconds(since),
            outage,
            took: took.map(|took| took.as_secs_f64()),
            disturbed,
        });
        if stopped {
            return;
        }
    }
}

/// Waits until the stream is live with pictures that were taken after `since`, the first of them not those that were
/// under way; `None` when the run ends meanwhile. With `connections`, there must have been another one after these.
fn await_return(
    camera: &Camera,
    name: &str,
    since: Instant,
    connections: Option<u64>,
    service: &Service,
    over: &Receiver<()>,
) -> Option<(Option<Duration>, bool)> {
    let again = tick(LOOK);
    let mut base: Option<u64> = None;
    let mut captured = 0;
    let mut disturbed = false;
    while since.elapsed() < PATIENCE {
        if over.try_recv() != Err(crossbeam_channel::TryRecvError::Empty) {
            return None;
        }
        if let Some(now) = service.now(name).filter(|now| now.at > since) {
            let standing = now.standing;
            // A stream that was started anew counts from nothing.
            disturbed |= standing.captured < captured;
            captured = standing.captured;
            let connected = connections.is_none_or(|before| camera.connections() > before);
            let live = standing.state == "live" && connected;
            match base {
                Some(base) if live && standing.published >= base + FRESH => {
                    return Some((Some(now.at - since), disturbed));
                }
                Some(base) if standing.published >= base && live => {}
                _ => base = Some(standing.published),
            }
        }
        let _ = again.recv();
    }
    Some((None, disturbed))
}

/// So many pictures after the return prove it: fewer may have been under way.
const FRESH: u64 = 3;
