//! WebRTC by WHEP: a real browser, another player, and their failures.

mod common;

use std::process::Command;
use std::time::Instant;

use common::browser::Browser;
use common::http::Answer;
use common::program::until;
use common::service::{Service, folder, write_config};
use common::whep::{Player, ReceiveMode};
use serde_json::{Value, json};

const RED: &str = "[[stream]]\nname = \"red\"\nsource = \"test://red?width=320&height=180&fps=15\"\n\
                   overlay = { alpha = 0.0, legend = false }\n";

/// An offer without candidates, of a player that never connects.
const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=recvonly\r\na=rtcp-mux\r\na=ice-ufrag:ufra\r\n\
    a=ice-pwd:passwordpasswordpassword\r\na=setup:actpass\r\na=fingerprint:sha-256 \
    7B:8B:F0:65:5F:78:E2:51:3B:AC:6F:F3:3F:46:1B:35:DC:B8:5F:64:1A:24:C2:43:F0:A1:58:D0:A1:2C:19:08\r\n\
    a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1;profile-level-id=42e01f\r\n";

/// Starts to play a stream; returns the index of the player in the page.
async fn watch(browser: &Browser, stream: &str) -> u64 {
    let player = browser.client.execute(include_str!("common/watch.js"), vec![json!(format!("/whep/{stream}"))]);
    player.await.unwrap().as_u64().unwrap()
}

/// Waits until this many frames were presented; fails with the state of the player.
async fn wait_for_frames(browser: &Browser, player: u64, count: u64) {
    let script = format!(
        "const {{ peer, video, ...state }} = window.watching[{player}]; state.answer = undefined;
        if (state.error || state.state === 'failed') throw new Error(JSON.stringify(state));
        return state.presented >= {count};"
    );
    browser.until(&format!("player {player} has presented {count} frames"), &script).await;
}

/// The player's own statistics of its video.
async fn statistics(browser: &Browser, player: u64) -> Value {
    let script = format!(
        "const done = arguments[arguments.length - 1];
        window.watching[{player}].peer.getStats().then((stats) => {{
            for (const report of stats.values()) if (report.type === 'inbound-rtp' && report.kind === 'video') done(report);
        }});"
    );
    browser.client.execute_async(&script, Vec::new()).await.unwrap()
}

fn viewers(service: &Service, stream: &str) -> u64 {
    service.stream(stream)["viewers"]["webrtc"].as_u64().unwrap()
}

fn until_viewers(service: &Service, stream: &str, count: u64) {
    until(&format!("{count} viewers of {stream}"), || (viewers(service, stream) == count).then_some(()));
}

fn encoded(service: &Service, stream: &str) -> f64 {
    service.metrics().sum("maskcast_stage_seconds_count", &[("stream", stream), ("stage", "encode")])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_shows_the_stream_and_a_second_viewer_causes_no_second_encode() {
    let folder = folder();
    let service = tokio::task::block_in_place(|| Service::ready(folder.path(), RED));
    assert_eq!(encoded(&service, "red"), 0.0, "frames are encoded without a viewer");
    let browser = Browser::start().await;
    browser.client.goto(&format!("{}healthz", service.page)).await.unwrap();

    let first = watch(&browser, "red").await;
    wait_for_frames(&browser, first, 5).await;
    let facts = "const { status, location, answer, answered_ms, size } = window.watching[0];
        return { status, location, answer, answered_ms, size };";
    let facts = browser.run(facts).await;
    assert_eq!(facts["status"], 201);
    assert_eq!(facts["size"], json!([320, 180]));
    let answer = facts["answer"].as_str().unwrap();
    assert!(answer.contains("m=audio 0 ") && answer.contains("a=sendonly"), "{answer}");
    assert!(answer.lines().any(|line| line.starts_with("a=candidate:") && line.contains(" typ host")), "{answer}");
    let ports =
        answer.lines().filter_map(|line| line.strip_prefix("a=candidate:")?.split(' ').nth(5)?.parse::<u16>().ok());
    assert!(ports.clone().count() > 0 && ports.clone().all(|port| (50_000..=50_100).contains(&port)), "{answer}");
    let id = facts["location"].as_str().unwrap().strip_prefix("/whep/red/").unwrap();
    assert_eq!(id.len(), 32, "{id}");
    let report = statistics(&browser, first).await;
    assert!(report["framesDecoded"].as_u64().is_some_and(|frames| frames >= 5), "{report}");

    let color = "const { video } = window.watching[0];
        const canvas = document.createElement('canvas');
        canvas.width = canvas.height = 8;
        const context = canvas.getContext('2d');
        context.drawImage(video, 0, 0, 8, 8);
        return Array.from(context.getImageData(4, 4, 1, 1).data);";
    let color: Vec<u64> = serde_json::from_value(browser.run(color).await).unwrap();
    assert!(color[0] > 200 && color[1] < 60 && color[2] < 60, "{color:?}");

    let second = watch(&browser, "red").await;
    wait_for_frames(&browser, second, 2).await;
    tokio::task::block_in_place(|| {
        until_viewers(&service, "red", 2);
        assert_eq!(service.stream("red")["viewers"]["rtsp"], 0);
        let (encoded_before, published_before) = (encoded(&service, "red"), service.published("red"));
        service.until_published("red", published_before + 30);
        let encodes = encoded(&service, "red") - encoded_before;
        // One encode per frame; scrapes and frames are not synchronous.
        assert!((25.0..=40.0).contains(&encodes), "{encodes} encodes of 30 frames");
    });

    // One viewer sends DELETE, the other only closes its connection. Without viewers, nothing is encoded.
    let response = browser.client.execute_async(
        "const done = arguments[arguments.length - 1];
        fetch(window.watching[0].location, { method: 'DELETE' }).then((response) => done(response.status));",
        Vec::new(),
    );
    assert_eq!(response.await.unwrap(), 200);
    tokio::task::block_in_place(|| until_viewers(&service, "red", 1));
    browser.run("window.watching[1].peer.close(); return true;").await;
    tokio::task::block_in_place(|| {
        until_viewers(&service, "red", 0);
        let (encoded_before, published_before) = (encoded(&service, "red"), service.published("red"));
        service.until_published("red", published_before + 15);
        assert!(encoded(&service, "red") - encoded_before <= 1.0, "frames are encoded without a viewer");
    });
    drop(browser);
    let (code, took, log) = tokio::task::block_in_place(|| service.terminate());
    assert!(code == Some(0), "{code:?} after {took:?}: {log}");
}

/// Number of the service's threads for WebRTC viewers: one per viewer until its resources are freed.
fn viewer_threads(service: &Service) -> usize {
    threads(service, |name| name.starts_with("whep-"))
}

/// Number of the threads of ICE agents.
fn ice_threads(service: &Service) -> usize {
    threads(service, |name| name.ends_with(":ice"))
}

fn threads(service: &Service, counted: impl Fn(&str) -> bool) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", service.program.child.0.id())).unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| counted(name.trim_end())).count()
}

fn wait_for_no_threads(service: &Service) {
    until("the viewers' threads have ended", || (viewer_threads(service) == 0).then_some(()));
}

/// A process and its descendants.
fn process_tree(process: u64) -> Vec<u64> {
    let parents: Vec<(u64, u64)> = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| {
            let stat = std::fs::read_to_string(entry.ok()?.path().join("stat")).ok()?;
            let pid = stat.split(' ').next()?.parse().ok()?;
            // After the name in brackets, which may contain any character: the state, then the parent.
            let parent = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    let mut process_tree = vec![process];
    let mut at = 0;
    while let Some(&parent) = process_tree.get(at) {
        process_tree.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    process_tree
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_browser_is_disconnected_and_its_resources_are_freed() {
    let folder = folder();
    let service = tokio::task::block_in_place(|| Service::ready(folder.path(), RED));
    let browser = Browser::start().await;
    browser.client.goto(&format!("{}healthz", service.page)).await.unwrap();
    let player = watch(&browser, "red").await;
    wait_for_frames(&browser, player, 2).await;
    let process = browser.client.capabilities().unwrap()["goog:processID"].as_u64().unwrap();
    tokio::task::block_in_place(|| {
        until_viewers(&service, "red", 1);
        // All of its processes at once, as in a power failure, so that none of them can close the connection.
        let all: Vec<String> = process_tree(process).iter().map(ToString::to_string).collect();
        // Fails when one of them has ended in the meantime.
        let _ = Command::new("kill").arg("-9").args(&all).status().unwrap();
        let killed = Instant::now();
        until_viewers(&service, "red", 0);
        println!("disconnected after {:?}", killed.elapsed());
        wait_for_no_threads(&service);
    });
}

#[test]
fn another_player_decodes_the_stream_and_a_stopping_service_does_not_wait_for_it() {
    let folder = folder();
    let service = Service::ready(folder.path(), RED);
    let player = Player::start(&service.page, "red", ReceiveMode::Frames);
    player.until_more(10);
    let (width, height, [red, green, blue]) = player.newest().unwrap();
    assert_eq!((width, height), (320, 180));
    assert!(red > 200 && green < 60 && blue < 60, "{:?}", player.newest());
    until_viewers(&service, "red", 1);
    assert_eq!(service.metrics().sum("maskcast_viewers", &[("stream", "red"), ("kind", "webrtc")]), 1.0);
    // Other tests wait until there are none of these threads.
    assert!(viewer_threads(&service) == 1 && ice_threads(&service) > 0);
    let (code, took, log) = service.terminate();
    assert!(code == Some(0), "{code:?} after {took:?}: {log}");
    assert!(!log.contains("abandoned") && !log.contains("left behind"), "{log}");
}

#[test]
fn viewers_stay_connected_when_their_stream_restarts_until_it_is_removed() {
    let folder = folder();
    let other = "[[stream]]\nname = \"other\"\nsource = \"test://blue?width=64&height=48&fps=5\"\n";
    let mut service = Service::ready(folder.path(), &format!("{RED}{other}"));
    let player = Player::start(&service.page, "red", ReceiveMode::Frames);
    player.until_more(5);
    let larger = RED.replace("width=320&height=180", "width=640&height=360");
    write_config(folder.path(), &format!("{larger}{other}"));
    service.program.child.signal("HUP");
    until("the player receives the larger frames", || player.newest().filter(|(width, ..)| *width == 640));
    player.until_more(10);
    assert_eq!(viewers(&service, "red"), 1);
    write_config(folder.path(), other);
    service.program.child.signal("HUP");
    service.program.wait_for("the reload", |entry| entry["message"].as_str()?.contains("stopped red").then_some(()));
    wait_for_no_threads(&service);
}

#[test]
fn errors_of_whep_clients_are_reported_as_problem_documents() {
    let folder = folder();
    let service = Service::ready(folder.path(), &format!("[server.webrtc]\nmax_viewers = 1\n{RED}"));
    let at = |path: &str| format!("{}whep/{path}", service.page);
    let (sdp, fragment) = ("application/sdp", "application/trickle-ice-sdpfrag");
    let unknown_id = "0123456789abcdef0123456789abcdef";
    let unknown_viewer = format!("red/{unknown_id}");
    let large = format!("v=0\r\n{}", "a=x\r\n".repeat(20_000));
    for (method, path, kind, body, status, expected) in [
        ("POST", "absent", sdp, "v=0\r\n", 404, "streams: red"),
        ("POST", "red", "text/plain", "v=0\r\n", 415, sdp),
        ("POST", "red", sdp, "hello", 400, "not SDP"),
        ("POST", "red", sdp, "v=0\r\ns=-\r\n", 422, "no video"),
        ("POST", "red", sdp, &OFFER.replace("actpass", "perhaps"), 422, "setup"),
        ("POST", "red", sdp, &large, 413, ""),
        ("GET", "red", sdp, "", 405, ""),
        ("DELETE", &unknown_viewer, sdp, "", 404, "no such viewer"),
        ("PATCH", &unknown_viewer, fragment, "a=candidate:1 1 udp 1 10.0.0.7 9 typ host\r\n", 404, "no such viewer"),
        ("PATCH", &unknown_viewer, "text/plain", "", 415, fragment),
        ("PUT", &unknown_viewer, sdp, "", 405, ""),
    ] {
        let answer = Answer::to(method, &at(path), kind, body);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        assert_eq!(answer.header("content-type"), "application/problem+json", "{method} {path}");
        assert!(answer.body.contains(expected), "{method} {path}: {}", answer.body);
    }

    let player = Player::start(&service.page, "red", ReceiveMode::Packets);
    let id = player.location.strip_prefix("/whep/red/").unwrap();
    assert!(id.len() == unknown_id.len() && id != unknown_id, "{id}");
    player.until_more(1);
    let patch = |body: &str| Answer::to("PATCH", &at(&format!("red/{id}")), fragment, body).status;
    assert_eq!(patch("a=ice-ufrag:x\r\na=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\n"), 204);
    assert_eq!(patch("a=ice-ufrag:x\r\na=ice-pwd:y\r\n"), 422, "ICE restarts");
    let offer = "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtcp-mux\r\na=ice-ufrag:a\r\na=ice-pwd:b\r\na=setup:actpass\r\n\
        a=fingerprint:sha-256 00\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1;profile-level-id=42e01f\r\n";
    let full = Answer::post(&at("red"), sdp, offer);
    assert_eq!(full.status, 503, "{}", full.body);
    assert!(full.body.contains("max_viewers"), "{}", full.body);
    for status in [200, 404] {
        assert_eq!(Answer::to("DELETE", &at(&format!("red/{id}")), "", "").status, status);
    }
    until_viewers(&service, "red", 0);
    wait_for_no_threads(&service);
    // The slot is free again, also after the client of an answered offer never connected.
    drop(player);
    Player::start(&service.page, "red", ReceiveMode::Packets).until_more(1);
}

/// Browsers hide their addresses behind names for multicast DNS. A failed lookup once leaked an ICE agent with its sockets
/// and its thread, and the process crashed when the agent reported the result to freed memory.
#[test]
fn viewers_with_mdns_candidates_leak_no_resources() {
    let folder = folder();
    let service = Service::ready(folder.path(), RED);
    let hidden = "a=candidate:1 1 udp 2113929471 0f2e7b1c-0000-4000-8000-000000000000.local 40000 typ host\r\n";
    let offer = format!("{OFFER}{hidden}");
    for _ in 0..5 {
        let answer = Answer::post(&format!("{}whep/red", service.page), "application/sdp", &offer);
        assert_eq!(answer.status, 201, "{}", answer.body);
        let viewer = format!("{}{}", service.page, &answer.header("location")[1..]);
        let fragment = format!("a=ice-ufrag:ufra\r\n{hidden}a=end-of-candidates\r\n");
        assert_eq!(Answer::to("PATCH", &viewer, "application/trickle-ice-sdpfrag", &fragment).status, 204);
        assert_eq!(Answer::to("DELETE", &viewer, "", "").status, 200);
    }
    wait_for_no_threads(&service);
    until("their ICE agents have ended", || (ice_threads(&service) == 0).then_some(()));
}

/// Memory and descriptors return to the level after the first round, which includes one-time allocations.
#[test]
fn twenty_viewers_that_connect_and_disconnect_leak_no_resources() {
    let folder = folder();
    let service = Service::ready(folder.path(), RED);
    let rounds = std::env::var("MASKCAST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(2);
    let mut first = None;
    for round in 0..=rounds {
        let players: Vec<Player> = (0..20).map(|_| Player::start(&service.page, "red", ReceiveMode::Packets)).collect();
        players.iter().for_each(|player| player.until_more(5));
        until_viewers(&service, "red", 20);
        let threads = service.metrics().sum("process_threads", &[]);
        let fps = service.stream("red")["fps"].as_f64().unwrap();
        // Every other viewer sends DELETE.
        for player in players.iter().step_by(2) {
            let url = format!("{}{}", service.page, &player.location[1..]);
            assert_eq!(Answer::to("DELETE", &url, "", "").status, 200);
        }
        drop(players);
        until_viewers(&service, "red", 0);
        wait_for_no_threads(&service);
        let now = service.metrics();
        let figure = |name: &str| now.sum(name, &[]);
        let (memory, files) = (figure("process_resident_memory_bytes") / 1e6, figure("process_open_fds"));
        println!(
            "round {round}: {fps} fps, {threads} threads with viewers, {} without, {files} descriptors, {memory:.1} MB",
            figure("process_threads")
        );
        let (memory_first, files_first) = *first.get_or_insert((memory, files));
        assert!(files <= files_first + 4.0, "{files} descriptors after round {round}, {files_first} after the first");
        let allowed = memory_first + 15.0 + 1.0 * f64::from(round);
        assert!(memory < allowed, "{memory} MB after round {round}, {memory_first} after the first");
    }
}
