//! WebRTC, with a real browser that keeps each frame it presents, and with a media server.

use std::io::Write;
use std::process::ChildStdin;

use base64::Engine;
use serde_json::{Value, json};

use crate::capture::{Capture, of_files};
use crate::common::browser::Browser;
use crate::common::whip_server::WhipServer;
use crate::detect::Findings;
use crate::fixture::{clip, end, files, folder, open, redacted, start};
use crate::models::Kind;
use crate::paint::{Scene, write_shapes};
use crate::shapes::has_all;

/// A player in the browser, and what analyses its frames.
struct Player {
    index: u64,
    capture: Capture,
    images: ChildStdin,
}

impl Player {
    async fn start(browser: &Browser, stream: &str) -> Self {
        let endpoint = vec![json!(format!("/whep/{stream}"))];
        let index = browser.client.execute(include_str!("../common/watch.js"), endpoint).await.unwrap();
        let kept = browser.client.execute(include_str!("watch_frames.js"), vec![index.clone()]).await.unwrap();
        assert_eq!(kept, Value::Bool(true));
        let (capture, images) = Capture::images(format!("{stream} by WebRTC"));
        Player { index: index.as_u64().unwrap(), capture, images }
    }

    /// Takes the frames that were presented meanwhile.
    async fn take(&mut self, browser: &Browser) -> Findings {
        let script = format!(
            "const {{ error, state, frames }} = window.watching[{}];
            if (error || state === 'failed') throw new Error(String(error));
            return frames.splice(0);",
            self.index
        );
        for frame in browser.run(&script).await.as_array().unwrap() {
            let png = base64::engine::general_purpose::STANDARD.decode(frame.as_str().unwrap()).unwrap();
            self.images.write_all(&png).unwrap();
        }
        self.capture.findings()
    }

    async fn until(&mut self, browser: &Browser, is_done: impl Fn(&Findings) -> bool) {
        let mut interval = tokio::time::interval(std::time::Duration::from_millis(100));
        let done = tokio::time::timeout(crate::common::wait::DEADLINE, async {
            while !is_done(&self.take(browser).await) {
                interval.tick().await;
            }
        });
        assert!(done.await.is_ok(), "{}", self.capture.findings());
    }
}

/// All shapes, also by WHIP and in Matroska recordings.
pub fn no_shape_leaves_by_webrtc() {
    let folder = folder(Kind::First);
    write_shapes(&folder.path().join("clip.mp4"));
    let servers = [(); 2].map(|()| WhipServer::listen(None));
    let keys = |server: &WhipServer| {
        format!("[stream.record]\ndir = \"rec\"\nformat = \"mkv\"\n[[stream.push]]\nurl = \"{}\"\n", server.url())
    };
    let source = clip("clip.mp4");
    let streams = redacted("gate", &source, "fill", &keys(&servers[0])) + &open("open", &source, &keys(&servers[1]));
    let service = start(folder.path(), &streams);
    let [gate_push, open_push] = servers;
    let pushes = [Capture::whip("gate", gate_push), Capture::whip("open", open_push)];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let browser = Browser::start().await;
        browser.client.goto(&format!("{}healthz", service.page)).await.unwrap();
        let mut gate = Player::start(&browser, "gate").await;
        let mut open = Player::start(&browser, "open").await;
        open.until(&browser, |found| Scene::PEOPLE.iter().all(|scene| found.scene(*scene).red >= 2)).await;
        gate.until(&browser, |found| found.frames > 110 && found.scene(Scene::Moving).frames > 0).await;
        println!("{}\n{}", open.capture.findings(), gate.capture.assert_clean());
        open.capture.assert_shows(&Scene::PEOPLE);
    });
    let [gate, open] = pushes;
    open.until("all scenes", has_all);
    gate.until("visible frames", |found| found.frames > 110 && found.scene(Scene::Moving).frames > 0);
    println!("{}\n{}", open.findings(), gate.assert_clean());
    open.assert_shows(&Scene::PEOPLE);
    end(service);
    let [gate, open] = ["gate", "open"].map(|stream| {
        let files = files(&folder.path().join("rec"), stream);
        assert!(files.iter().all(|file| file.extension().is_some_and(|extension| extension == "mkv")), "{files:?}");
        of_files(files.iter().map(|file| &**file))
    });
    println!("recordings: {open}\n{gate}");
    open.assert_shows("recordings of open", &Scene::PEOPLE);
    gate.assert_clean("recordings of gate");
    assert!(gate.scene(Scene::Moving).frames > 0, "{gate}");
}
