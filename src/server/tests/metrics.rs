//! Tests of `/metrics`.

use super::*;

/// Every series: its name with labels, and its value.
fn series(text: &str) -> Vec<(String, f64)> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            assert!(name.starts_with("maskcast_") || name.starts_with("process_"), "{line}");
            assert_eq!(name.contains('{'), name.ends_with('}'), "{line}");
            (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}")))
        })
        .collect()
}

#[test]
fn all_metrics_are_exported() {
    let view = view(&["gate", "yard"]);
    feed(&view.streams()[0].status);
    view.streams()[0].status.set_shown(StreamState::Live, None, Instant::now());
    view.models()[0].pool.frames.store(41, Ordering::Relaxed);
    let server = server(&view);
    let answer = get(&server, "/metrics");
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let series = series(&answer.body);
    let value = |name: &str| {
        let found = series.iter().find(|(key, _)| key == name);
        found.unwrap_or_else(|| panic!("{name} in\n{}", answer.body)).1
    };
    assert_eq!(value("maskcast_frames_captured_total{stream=\"gate\"}"), 6.0);
    assert_eq!(value("maskcast_frames_published_total{stream=\"gate\"}"), 3.0);
    assert_eq!(value("maskcast_frames_dropped_total{stream=\"gate\",reason=\"encoder_busy\"}"), 2.0);
    assert_eq!(value("maskcast_frames_dropped_total{stream=\"gate\",reason=\"abandoned\"}"), 0.0);
    assert_eq!(value("maskcast_frames_in_flight{stream=\"gate\"}"), 1.0);
    assert_eq!(value("maskcast_latency_seconds_count{stream=\"gate\"}"), 1.0);
    assert_eq!(value("maskcast_stage_seconds_bucket{stream=\"gate\",stage=\"overlay\",le=\"0.005\"}"), 1.0);
    assert_eq!(value("maskcast_stage_seconds_bucket{stream=\"gate\",stage=\"overlay\",le=\"+Inf\"}"), 1.0);
    assert_eq!(value("maskcast_stage_cpu_seconds_total{stream=\"gate\",stage=\"overlay\"}"), 0.002);
    assert_eq!(value("maskcast_provider_info{model=\"default\",requested=\"tensorrt\",actual=\"cpu\"}"), 1.0);
    assert_eq!(value("maskcast_provider_time_ratio{model=\"default\",provider=\"CPU\"}"), 1.0);
    assert_eq!(value("maskcast_model_info{model=\"default\",file=\"street \\\"small\\\"\",input=\"512x288\"}"), 1.0);
    assert_eq!(value(&format!("maskcast_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))), 1.0);
    assert_eq!(value("maskcast_stream_state{stream=\"gate\",state=\"live\"}"), 1.0);
    assert_eq!(value("maskcast_stream_state{stream=\"gate\",state=\"offline\"}"), 0.0);
    assert_eq!(value("maskcast_stream_state{stream=\"yard\",state=\"starting\"}"), 1.0);
    assert_eq!(value("maskcast_stream_fps{stream=\"gate\"}"), 0.0);
    assert_eq!(value("maskcast_viewers{stream=\"gate\",kind=\"rtsp\"}"), 0.0);
    assert_eq!(value("maskcast_viewer_units_lost_total{stream=\"gate\"}"), 0.0);
    assert_eq!(value("maskcast_recording_failures_total{stream=\"gate\"}"), 1.0);
    assert_eq!(value("maskcast_stage_panics_total{stream=\"gate\"}"), 0.0);
    assert_eq!(value("maskcast_segment_frames_total{model=\"default\"}"), 41.0);
    assert_eq!(value("maskcast_model_memory_bytes{model=\"default\"}"), 123_456_789.0);
    assert!(value("maskcast_uptime_seconds") > 0.0 && value("process_cpu_seconds_total") > 0.0);
    assert!(value("process_resident_memory_bytes") > 1e6 && value("process_open_fds") > 3.0);
    assert!(value("process_threads") > 2.0);
}

#[test]
fn captured_equals_published_plus_dropped_in_every_scrape() {
    let view = view(&["gate"]);
    let server = server(&view);
    let ledger = Arc::clone(&view.streams()[0].status.ledger);
    let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
    let frames = std::thread::spawn(move || {
        let running = || stopped.try_recv() == Err(crossbeam_channel::TryRecvError::Empty);
        for n in (0_usize..).take_while(|_| running()) {
            match n % 3 {
                0 => ledger.open().published(),
                _ => ledger.open().dropped(DropReason::ALL[n % DropReason::ALL.len()]),
            }
        }
    });
    for _ in 0..20 {
        let series = series(&get(&server, "/metrics").body);
        let sum = |prefix: &str| {
            series.iter().filter(|(key, _)| key.starts_with(prefix)).map(|(_, value)| value).sum::<f64>()
        };
        let settled = sum("maskcast_frames_published_total") + sum("maskcast_frames_dropped_total");
        assert_eq!(sum("maskcast_frames_captured_total"), settled);
        let stream = &get(&server, "/api/v1/streams").json()[0];
        let number = |key: &str| stream[key].as_u64().unwrap();
        assert_eq!(number("captured"), number("published") + number("dropped"));
    }
    drop(stop);
    frames.join().unwrap();
}
