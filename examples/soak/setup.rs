//! The setup of a run: a folder with models, a configuration of four streams, and their cameras.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};
use maskcast::segment::golden::Golden;

use super::faulty_camera::Camera;
use super::faulty_camera::scenario::Scenario;
use super::onnx;

/// The cameras: H.264 by RTSP over TCP and over UDP, JPEG by RTSP, JPEG by HTTP.
const CAMERAS: &str = r#"
title = "cameras of the soak test"
[[camera]]
name = "gate"
[[camera]]
name = "yard"
color = "green"
[[camera]]
name = "hall"
codec = "mjpeg"
color = "blue"
[[camera]]
name = "desk"
kind = "http"
[[step]]
name = "no faults"
seconds = 1
"#;

/// Settings of each stream beside name and source. The first one is recorded; a reload changes the third.
const SETTINGS: [&str; 4] =
    ["record.dir = \"recordings\"\n", "transport = \"udp\"\n", "overlay.alpha = ALPHA\n", "show = \"matched\"\n"];

pub struct Setup {
    folder: PathBuf,
    pub names: [&'static str; 4],
    addresses: Vec<String>,
    /// Interchangeable models.
    pub models: Vec<PathBuf>,
    /// A model with a wrong golden frame.
    pub wrong_model: PathBuf,
    tls: bool,
}

impl Setup {
    /// Creates the files and starts the cameras. `tls`: the program that creates the certificate, for a service with TLS.
    ///
    /// # Errors
    /// The folder cannot be written, or GStreamer lacks an element.
    pub fn make(folder: &Path, tls: Option<&PathBuf>) -> Result<(Self, Vec<Camera>)> {
        let recordings = folder.join("recordings");
        if recordings.is_dir() {
            std::fs::remove_dir_all(&recordings)?;
        }
        std::fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        let models = ["first.onnx", "second.onnx"].map(|name| folder.join(name)).to_vec();
        let wrong_model = folder.join("wrong.onnx");
        for (path, right) in models.iter().map(|path| (path, true)).chain([(&wrong_model, false)]) {
            write_model(path, right).with_context(|| path.display().to_string())?;
        }
        if let Some(program) = tls {
            let arguments = ["cert", "--force", "--host", "127.0.0.1", "-o"];
            let made = Command::new(program).args(arguments).arg(folder.join("tls")).output();
            let made = made.with_context(|| program.display().to_string())?;
            ensure!(made.status.success(), "cannot create the certificate: {}", String::from_utf8_lossy(&made.stderr));
        }
        let scenario = Scenario::parse(CAMERAS)?;
        let cameras: Vec<Camera> = scenario.cameras.iter().map(Camera::start).collect::<Result<_>>()?;
        let addresses = cameras.iter().map(Camera::url).collect();
        let names = ["gate", "yard", "hall", "desk"];
        let setup = Setup { folder, names, addresses, models, wrong_model, tls: tls.is_some() };
        setup.config(0.45)?;
        Ok((setup, cameras))
    }

    pub fn config_path(&self) -> PathBuf {
        self.folder.join("maskcast.toml")
    }

    /// Writes the configuration with this `overlay.alpha` of the third stream.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn config(&self, alpha: f64) -> Result<()> {
        let mut text = "[model]\npath = \"first.onnx\"\nproviders = [\"cpu\"]\nworkers = 1\nthreads = 1\n\
                        [server]\nhttp = \"127.0.0.1:0\"\nrtsp = \"127.0.0.1:0\"\n"
            .to_string();
        if self.tls {
            text += "tls = { cert = \"tls/cert.pem\", key = \"tls/key.pem\" }\n";
        }
        for ((name, address), settings) in self.names.iter().zip(&self.addresses).zip(SETTINGS) {
            let settings = settings.replace("ALPHA", &format!("{alpha:.2}"));
            write!(text, "[[stream]]\nname = \"{name}\"\nsource = \"{address}\"\n{settings}")?;
        }
        // Atomically: a reload must not read an incomplete file.
        let draft = self.folder.join("maskcast.toml.draft");
        std::fs::write(&draft, text)?;
        std::fs::rename(draft, self.config_path())?;
        Ok(())
    }
}

/// Writes a model whose class is the strongest channel of a pixel. Its golden mask is correct, or wrong in every pixel.
fn write_model(path: &Path, right: bool) -> Result<()> {
    let (width, height) = (64, 36);
    let rgb = [200, 10, 10].repeat(width * height);
    let golden = Golden { width, height, rgb, mask: vec![u8::from(!right); width * height] };
    let golden = golden.to_json().map_err(|problem| anyhow!(problem))?;
    let model = onnx::channels(width as i64, height as i64, &[("maskcast.golden", &golden)]);
    onnx::save(&model, path);
    Ok(())
}
