//! Random faults of the cameras, and the time that the streams need to recover.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, tick};
use fastrand::Rng;

use super::faulty_camera::Camera;
use super::faulty_camera::scenario::{Action, Garbage, VideoChange};
use super::record::{Record, Recovery};
use super::service::{Service, pause};

/// Time without a fault between two faults, seconds. About half of them reset the back-off, which needs a stable minute.
const FAULT_FREE: [f64; 2] = [8.0, 75.0];

/// Duration of an outage, seconds; its logarithm is uniformly distributed.
const OUTAGE: [f64; 2] = [1.0, 60.0];

/// A stream that is not live this long after the end of the fault has not recovered.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(90);

/// How often the recovery is checked; this limits the accuracy of the measured times.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A fault of a camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Power failure: connections and the port are closed.
    Power,
    /// Connections stay open, and nothing is sent.
    Stall,
    /// Connections are accepted, and nothing is sent.
    Silent,
    /// Random data is sent.
    Garbage,
    /// Connections are closed, and accepted again at once.
    Disconnect,
    /// The camera restarts at once with another frame size.
    Reboot,
    /// The stream ends, and clients can connect again at once.
    End,
}

/// Each fault is as frequent as it is listed.
const FAULTS: [Fault; 10] = [
    Fault::Power,
    Fault::Power,
    Fault::Power,
    Fault::Stall,
    Fault::Stall,
    Fault::Silent,
    Fault::Garbage,
    Fault::Disconnect,
    Fault::Reboot,
    Fault::End,
];

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Fault::Power => "power lost",
            Fault::Stall => "stalled",
            Fault::Silent => "silent",
            Fault::Garbage => "random data",
            Fault::Disconnect => "disconnected",
            Fault::Reboot => "restarted",
            Fault::End => "ended",
        }
    }

    /// Whether the fault has no duration.
    fn is_instant(self) -> bool {
        matches!(self, Fault::Disconnect | Fault::Reboot | Fault::End)
    }

    fn action(self, random: &mut Rng) -> Action {
        match self {
            Fault::Power => Action::Refuse,
            Fault::Stall => Action::Stall,
            Fault::Silent => Action::Silent,
            Fault::Garbage => Action::Garbage(Garbage::Noise),
            Fault::Disconnect => Action::Disconnect,
            Fault::Reboot => {
                let size = [[320, 240], [480, 272], [640, 360]][random.usize(..3)];
                Action::Reboot(VideoChange { size: Some(size), ..VideoChange::default() })
            }
            Fault::End => Action::End,
        }
    }
}

/// Causes faults of one camera until the run is over; then the camera has no fault.
pub fn run(camera: &mut Camera, name: &str, mut random: Rng, service: &Service, record: &Record, over: &Receiver<()>) {
    loop {
        let fault_free = FAULT_FREE[0] + (FAULT_FREE[1] - FAULT_FREE[0]) * random.f64();
        if pause(over, Duration::from_secs_f64(fault_free)) {
            return;
        }
        let fault = FAULTS[random.usize(..FAULTS.len())];
        let duration = OUTAGE[0] * (OUTAGE[1] / OUTAGE[0]).powf(random.f64());
        let (began, connected) = (Instant::now(), camera.connections());
        let mut result = camera.perform(&fault.action(&mut random));
        let (mut stopped, mut connected) = (false, connected);
        if !fault.is_instant() {
            stopped = pause(over, Duration::from_secs_f64(duration));
            connected = camera.connections();
            result = result.and(camera.perform(&Action::Serve));
        }
        if let Err(error) = result {
            record.problem(format_args!("the fault \"{}\" of the camera {name} fails: {error:#}", fault.name()));
            return;
        }
        let back = Instant::now();
        // The recovery from an instant fault is measured from its start.
        let outage = if fault.is_instant() { 0.0 } else { (back - began).as_secs_f64() };
        let since = if fault.is_instant() { began } else { back };
        // A stalled camera keeps its connections.
        let connected = (fault != Fault::Stall).then_some(connected);
        let Some((took, disturbed)) = wait_for_recovery(camera, name, since, connected, service, over) else { return };
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

/// Waits until the stream is live with frames that were captured after `since`: the time, and whether the stream was
/// restarted in the meantime. `None` when the run ends. With `connections`, the camera must have got a new connection.
fn wait_for_recovery(
    camera: &Camera,
    name: &str,
    since: Instant,
    connections: Option<u64>,
    service: &Service,
    over: &Receiver<()>,
) -> Option<(Option<Duration>, bool)> {
    let again = tick(POLL_INTERVAL);
    let mut base: Option<u64> = None;
    let mut captured = 0;
    let mut disturbed = false;
    while since.elapsed() < RECOVERY_TIMEOUT {
        if over.try_recv() != Err(crossbeam_channel::TryRecvError::Empty) {
            return None;
        }
        if let Some(now) = service.now(name).filter(|now| now.at > since) {
            let status = now.status;
            // The counters of a restarted stream start at 0.
            disturbed |= status.captured < captured;
            captured = status.captured;
            let connected = connections.is_none_or(|before| camera.connections() > before);
            let live = status.state == "live" && connected;
            match base {
                Some(base) if live && status.published >= base + NEW_FRAMES => {
                    return Some((Some(now.at - since), disturbed));
                }
                Some(base) if status.published >= base && live => {}
                _ => base = Some(status.published),
            }
        }
        let _ = again.recv();
    }
    Some((None, disturbed))
}

/// Number of frames that prove the recovery: fewer may have been in flight.
const NEW_FRAMES: u64 = 3;
