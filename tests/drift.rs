//! Changes of cameras: clips of a fixed camera in which it goes dark, is turned upside down, and has a smeared lens, played to the real
//! service with the bundled model.

mod common;

use std::path::{Path, PathBuf};

use common::clip::ffmpeg;
use common::http::{get_json, send};
use common::program::until;
use common::service::Service;
use serde_json::Value;

/// The clip of a fixed outdoor camera (`make demo`).
const CLIP: &str = ".demo/vtest.avi";

/// Seconds of the clip before the change.
const BEFORE: u32 = 20;

/// A clip of 50 seconds, H.264, at half the size: the filter is applied after [`BEFORE`].
fn clip(folder: &Path, name: &str, filter: &str) -> PathBuf {
    let path = folder.join(format!("{name}.mp4"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(CLIP);
    let source = source.to_str().unwrap();
    assert!(Path::new(source).is_file(), "{source} is missing: run `make demo`");
    let graph = format!(
        "[0:v]scale=384:288,trim=0:{BEFORE},setpts=PTS-STARTPTS[a];\
         [0:v]scale=384:288,trim={BEFORE}:50,setpts=PTS-STARTPTS{filter}[b];[a][b]concat=n=2,format=yuv420p"
    );
    let output = path.to_str().unwrap();
    ffmpeg(&["-i", source, "-filter_complex", &graph, "-c:v", "libx264", "-preset", "ultrafast", "-crf", "20", output]);
    path
}

fn stream(name: &str, source: &Path) -> String {
    format!(
        "[[stream]]\nname = \"{name}\"\nsource = \"{}\"\nloop = false\nmasks = \"always\"\nmask_rate = 5\n\
         drift = {{ window = \"6s\", settle = \"15s\" }}\n",
        source.display()
    )
}

fn start(folder: &Path, streams: &str) -> Service {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/everyday.onnx");
    let path = folder.join("maskcast.toml");
    let text = format!(
        "[model]\npath = \"{}\"\nproviders = [\"cpu\"]\n[server]\nhttp = \"127.0.0.1:0\"\nrtsp = \"127.0.0.1:0\"\n{streams}",
        model.display()
    );
    std::fs::write(&path, text).unwrap();
    let state = folder.join("state");
    Service::run(&path, &[("STATE_DIRECTORY", state.to_str().unwrap())])
}

fn drift(service: &Service, stream: &str) -> Value {
    get_json(&format!("{}api/v1/streams/{stream}/drift", service.page))
}

#[test]
fn a_camera_that_goes_dark_is_turned_or_smeared_has_changed_and_one_that_stays_has_not() {
    let folder = tempfile::tempdir().unwrap();
    let filters = [
        ("same", "", &[][..]),
        ("dark", ",eq=brightness=-0.4:contrast=0.6", &["darker"][..]),
        ("turned", ",vflip,hflip", &["upside down", "another view", "mirrored"][..]),
        ("smeared", ",gblur=sigma=9", &["blurred"][..]),
    ];
    let clips = filters.map(|(name, filter, _)| (name, clip(folder.path(), name, filter)));
    let streams: String = clips.iter().map(|(name, path)| stream(name, path)).collect();
    // It does not end, so that the service continues after the clips.
    let streams = streams + "[[stream]]\nname = \"endless\"\nsource = \"test://ball?width=160&height=90&fps=5\"\n";
    let service = start(folder.path(), &streams);
    for (name, _, words) in filters.iter().filter(|(_, _, words)| !words.is_empty()) {
        let report = until(&format!("{name} has changed"), || {
            let report = drift(&service, name);
            assert_eq!(drift(&service, "same")["changed"], false, "{}", drift(&service, "same"));
            (report["changed"] == true).then_some(report)
        });
        let changes: Vec<&str> = report["changes"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(changes.iter().any(|change| words.contains(change)), "{name}: {report}");
        assert!(report["since"].is_string() && report["before"]["luma"].is_number(), "{report}");
        let metrics = service.metrics();
        assert_eq!(metrics.sum("maskcast_drift_changed", &[("stream", name)]), 1.0);
        assert!(metrics.sum("maskcast_drift_score", &[("stream", name)]) > 1.0);
    }
    // The clip that stays has been watched until its end.
    let report = until("the clip that stays was watched", || {
        let report = drift(&service, "same");
        (report["watched_s"].as_f64().unwrap() > 40.0).then_some(report)
    });
    assert_eq!(
        (report["changed"].as_bool(), report["changes"].as_array().unwrap().len()),
        (Some(false), 0),
        "{report}"
    );

    // An operator accepts the state of a camera.
    let (status, ..) = send("POST", &format!("{}api/v1/streams/dark/drift/accept", service.page), None);
    assert_eq!((status, drift(&service, "dark")["changed"].as_bool()), (204, Some(false)));

    // The others are known to have changed after a restart.
    let (code, ..) = service.terminate();
    assert_eq!(code, Some(0));
    let state = std::fs::read_to_string(folder.path().join("state/drift/turned.json")).unwrap();
    let state: Value = serde_json::from_str(&state).unwrap();
    assert!(state["change"]["since"].is_string(), "{state}");
}
