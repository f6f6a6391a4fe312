//! Clients of every output, which analyse each frame that they receive.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::common::clip::Rgb;
use crate::common::media_server::MediaServer;
use crate::common::program::Guard;
use crate::common::service::Service;
use crate::common::wait::{DEADLINE, until};
use crate::common::whip_server::WhipServer;
use crate::detect::Findings;
use crate::paint::{HEIGHT, Scene, WIDTH};

/// A client that runs until it is dropped.
pub struct Capture {
    name: String,
    findings: Arc<Mutex<Findings>>,
    /// `None`: it gets its frames from another source than ffmpeg.
    ffmpeg: Option<Guard>,
    reader: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    /// Nothing that it receives may show a person.
    is_redacted: bool,
}

impl Capture {
    /// From now on, waiting for more frames fails as soon as a frame shows anything of a person.
    pub fn redacted(mut self) -> Self {
        self.is_redacted = true;
        self
    }

    /// A player of RTSP, over TCP.
    pub fn rtsp(service: &Service, stream: &str) -> Self {
        // Otherwise it waits for 20 frames to estimate their rate.
        let input = ["-rtsp_transport", "tcp", "-fpsprobesize", "0", "-i", &service.rtsp(stream)].map(String::from);
        Capture::ffmpeg(format!("{stream} by RTSP"), &input, Stdio::null())
    }

    /// A viewer of MJPEG.
    pub fn mjpeg(service: &Service, stream: &str) -> Self {
        let url = format!("{}mjpeg/{stream}", service.page);
        let input = ["-fpsprobesize", "0", "-f", "mpjpeg", "-i", &url].map(String::from);
        Capture::ffmpeg(format!("{stream} by MJPEG"), &input, Stdio::null())
    }

    /// A client that requests `snapshot.jpg` again and again.
    pub fn snapshots(service: &Service, stream: &str) -> Self {
        let input = ["-f", "mjpeg", "-i", "pipe:0"].map(String::from);
        let mut capture = Capture::ffmpeg(format!("{stream} by snapshot"), &input, Stdio::piped());
        let mut stdin = capture.ffmpeg.as_mut().and_then(|ffmpeg| ffmpeg.0.stdin.take()).unwrap();
        let url = format!("{}api/v1/streams/{stream}/snapshot.jpg", service.page);
        let stop = Arc::clone(&capture.stop);
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                // It fails when the service stops.
                let Ok(mut response) = ureq::get(&url).call() else { continue };
                let Ok(jpeg) = response.body_mut().read_to_vec() else { continue };
                if stdin.write_all(&jpeg).is_err() {
                    return;
                }
            }
        });
        capture
    }

    /// PNG images that are written to the returned pipe.
    pub fn images(name: String) -> (Self, ChildStdin) {
        let input = ["-f", "image2pipe", "-c:v", "png", "-i", "pipe:0"].map(String::from);
        let mut capture = Capture::ffmpeg(name, &input, Stdio::piped());
        let stdin = capture.ffmpeg.as_mut().and_then(|ffmpeg| ffmpeg.0.stdin.take()).unwrap();
        (capture, stdin)
    }

    /// What a media server receives by RTSP.
    pub fn push(stream: &str, server: MediaServer) -> Self {
        Capture::pushed(stream, move || server.next())
    }

    /// What a media server receives by WHIP.
    pub fn whip(stream: &str, server: WhipServer) -> Self {
        Capture::pushed(stream, move || server.next())
    }

    fn pushed(stream: &str, next: impl Fn() -> Rgb + Send + 'static) -> Self {
        let (findings, stop) = (Arc::<Mutex<Findings>>::default(), Arc::<AtomicBool>::default());
        let (shared, stopped) = (Arc::clone(&findings), Arc::clone(&stop));
        let reader = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let frame = next();
                shared.lock().unwrap().add(&frame.data);
            }
        });
        Capture {
            name: format!("{stream} by push"),
            findings,
            ffmpeg: None,
            reader: Some(reader),
            stop,
            is_redacted: false,
        }
    }

    fn ffmpeg(name: String, input: &[String], stdin: Stdio) -> Self {
        let mut ffmpeg = Guard::spawn(
            Command::new("ffmpeg")
                .args(["-v", "fatal", "-nostdin"])
                .args(input)
                .args(["-an", "-fps_mode", "passthrough"])
                // Frames of another size have the same content.
                .args(["-vf", &format!("scale={WIDTH}:{HEIGHT}:flags=neighbor")])
                .args(["-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"])
                .stdin(stdin)
                .stdout(Stdio::piped()),
        );
        let mut stdout = ffmpeg.0.stdout.take().unwrap();
        let findings: Arc<Mutex<Findings>> = Arc::default();
        let shared = Arc::clone(&findings);
        let reader = std::thread::spawn(move || {
            let mut frame = vec![0; 3 * WIDTH * HEIGHT];
            while stdout.read_exact(&mut frame).is_ok() {
                shared.lock().unwrap().add(&frame);
            }
        });
        Capture { name, findings, ffmpeg: Some(ffmpeg), reader: Some(reader), stop: Arc::default(), is_redacted: false }
    }

    /// What was found so far.
    pub fn findings(&self) -> Findings {
        self.findings.lock().unwrap().clone()
    }

    /// Waits until the findings are as required; returns them.
    pub fn until(&self, what: &str, is_done: impl Fn(&Findings) -> bool) -> Findings {
        until(&format!("{}: {what}", self.name), || {
            let findings = self.findings();
            if self.is_redacted {
                findings.assert_clean(&self.name);
            }
            assert!(!self.has_ended() || is_done(&findings), "{} has ended before: {what}: {findings}", self.name);
            is_done(&findings).then_some(findings)
        })
    }

    /// Waits for this many more frames.
    pub fn until_more(&self, frames: usize) -> Findings {
        let wanted = self.findings().frames + frames;
        self.until(&format!("{frames} more frames"), |findings| findings.frames >= wanted)
    }

    /// Waits for more frames without persons: the code of the scene is visible in them.
    pub fn until_more_visible(&self, frames: usize) -> Findings {
        let visible = |findings: &Findings| findings.frames - findings.hidden;
        let wanted = visible(&self.findings()) + frames;
        self.until(&format!("{frames} more visible frames"), |findings| visible(findings) >= wanted)
    }

    /// Waits for more frames whose code is hidden.
    pub fn until_more_hidden(&self, frames: usize) -> Findings {
        let wanted = self.findings().hidden + frames;
        self.until(&format!("{frames} more hidden frames"), |findings| findings.hidden >= wanted)
    }

    /// Waits for more frames with a person.
    pub fn until_more_leaks(&self, frames: usize) -> Findings {
        let wanted = self.findings().leaks() + frames;
        self.until(&format!("{frames} more frames with a person"), |findings| findings.leaks() >= wanted)
    }

    fn has_ended(&self) -> bool {
        self.reader.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Fails if it has received anything of a person.
    pub fn assert_clean(&self) -> Findings {
        let findings = self.findings();
        findings.assert_clean(&self.name);
        findings
    }

    /// The same for a redaction that keeps the mean colour of cells.
    pub fn assert_no_checker(&self) {
        self.findings().assert_no_checker(&self.name);
    }

    /// Fails unless it has received persons in each of these scenes.
    pub fn assert_shows(&self, scenes: &[Scene]) {
        self.findings().assert_shows(&self.name, scenes);
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.ffmpeg = None;
        // The reader ends with the output of ffmpeg. That of a push may wait for a frame that does not come.
        self.reader = None;
    }
}

/// All frames of a video file that can be decoded, and of JPEG files.
pub fn of_file(path: &Path) -> Findings {
    let input = ["-i".to_owned(), path.to_str().unwrap().to_owned()];
    let mut capture = Capture::ffmpeg(path.display().to_string(), &input, Stdio::null());
    capture.ffmpeg.as_mut().unwrap().wait(DEADLINE);
    capture.reader.take().unwrap().join().unwrap();
    capture.findings()
}

/// The frames of all these files together.
pub fn of_files<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Findings {
    let mut all = Findings::default();
    paths.into_iter().for_each(|path| all.merge(of_file(path)));
    all
}
