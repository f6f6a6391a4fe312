//! Denial of service by unauthenticated clients: connections, TLS handshakes, wrong passwords.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::json;

use crate::common::program::{DEADLINE, maskcast, run, run_with_input, until};
use crate::common::rtsp::Viewer;
use crate::common::service::Service;
use crate::fixture::{ANNA, Fixture, WALL, agent, basic, bearer, describe, send};

/// The current resources of the process.
#[derive(Clone, Copy, Debug)]
struct Usage {
    kib: u64,
    descriptors: usize,
    #[expect(dead_code, reason = "part of what a failure prints")]
    threads: u64,
}

impl Usage {
    fn of(service: &Service) -> Self {
        let process = format!("/proc/{}", service.program.child.0.id());
        let status = std::fs::read_to_string(format!("{process}/status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
        };
        let descriptors = std::fs::read_dir(format!("{process}/fd")).unwrap().count();
        Usage { kib: field("VmRSS:"), descriptors, threads: field("Threads:") }
    }
}

/// `HOST:PORT`, without the last slash.
fn host(service: &Service) -> String {
    service.rtsp.split_once("://").unwrap().1.trim_end_matches('/').to_string()
}

/// The TLS configuration of a client that trusts this certificate.
fn tls_client(ca: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Completes a TLS handshake, requests the stream without credentials, and disconnects.
fn handshake(host: &str, config: &Arc<ClientConfig>) {
    let name = ServerName::try_from("localhost").unwrap();
    let client = ClientConnection::new(Arc::clone(config), name).unwrap();
    let tcp = TcpStream::connect(host).unwrap();
    tcp.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut stream = StreamOwned::new(client, tcp);
    write!(stream, "DESCRIBE rtsp://{host}/gate RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n").unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"RTSP/1.0 401");
    stream.sock.shutdown(Shutdown::Both).unwrap();
}

/// GLib completes the end of a TLS connection in its global main context. If nothing serves that, each connection keeps a
/// descriptor and megabytes.
#[test]
fn closed_rtsps_connections_leave_no_resources() {
    let fixture = Fixture::new();
    let ca = fixture.certificate();
    let service = fixture.start("tls = { cert = \"tls/cert.pem\", key = \"tls/key.pem\" }");
    let (host, client) = (host(&service), tls_client(&ca));
    // These allocate what is allocated once.
    (0..10).for_each(|_| handshake(&host, &client));
    let before = until("the first connections have ended", || {
        let now = Usage::of(&service);
        (now.descriptors < 60).then_some(now)
    });
    (0..60).for_each(|_| handshake(&host, &client));
    let after = until("their descriptors are closed", || {
        let now = Usage::of(&service);
        (now.descriptors <= before.descriptors + 6).then_some(now)
    });
    assert!(after.kib < before.kib + 60 * 1024, "{before:?} and then {after:?}");
}

/// A handshake that a client does not continue occupies a thread of GLib for as long as the socket is open.
#[test]
fn silent_rtsps_clients_are_disconnected_and_leave_no_resources() {
    let fixture = Fixture::new();
    let ca = fixture.certificate();
    let service = fixture.start("tls = { cert = \"tls/cert.pem\", key = \"tls/key.pem\" }");
    let (host, client) = (host(&service), tls_client(&ca));
    handshake(&host, &client);
    let before = Usage::of(&service);
    let silent: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(&host).unwrap()).collect();
    handshake(&host, &client);
    until("the server closes them", || (Usage::of(&service).descriptors <= before.descriptors + 6).then_some(()));
    for mut client in silent {
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        // Closed, or reset.
        assert!(!client.read(&mut [0]).is_ok_and(|read| read > 0));
    }
    handshake(&host, &client);
}

/// Whether openssl completes a handshake of this TLS version, with all ciphers that it has.
fn agrees(port: &str, version: &str) -> bool {
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-connect", &format!("127.0.0.1:{port}"), version, "-cipher", "ALL:@SECLEVEL=0"]);
    let ended = run_with_input(&mut openssl, "");
    let agreed = ended.text().lines().any(|line| line.starts_with("New, TLSv1") && !line.contains("(NONE)"));
    assert_eq!(agreed, ended.code == Some(0), "{ended:?}");
    agreed
}

#[test]
fn tls_is_1_2_or_1_3_at_both_ports() {
    let fixture = Fixture::new();
    fixture.certificate();
    let service = fixture.start("tls = { cert = \"tls/cert.pem\", key = \"tls/key.pem\" }");
    for (what, url) in [("rtsps", &service.rtsp), ("https", &service.page)] {
        let port = url.trim_end_matches('/').rsplit_once(':').unwrap().1;
        for version in ["-tls1", "-tls1_1"] {
            assert!(!agrees(port, version), "{what} agrees on {version}");
        }
        for version in ["-tls1_2", "-tls1_3"] {
            assert!(agrees(port, version), "{what} does not agree on {version}");
        }
    }
}

/// A flood of RTSP logins needs no memory and does not prevent correct logins, even from the same address.
#[test]
fn a_flood_of_rtsp_logins_uses_no_memory_and_correct_logins_succeed() {
    let fixture = Fixture::new();
    let service = fixture.start("");
    let host = host(&service);
    // This allocates the buffers of the password checks.
    assert_eq!(describe(&host, "gate", Some(&basic("wall", "a wrong passphrase"))).0, 401);
    let before = Usage::of(&service);
    let (over, tried) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for client in 0..40 {
            let (host, over, tried) = (&host, &over, &tried);
            scope.spawn(move || {
                for n in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let login = basic(&format!("user{client}-{n}"), "a wrong passphrase");
                    assert_eq!(describe(host, "gate", Some(&login)).0, 401);
                    tried.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let logins = || {
            until("the flood has begun", || (tried.load(Ordering::Relaxed) > 200).then_some(()));
            // No user has logged in from here before.
            let by_rtsp = describe(&host, "gate", Some(&basic("anna", ANNA))).0;
            let login = json!({ "user": "wall", "password": WALL });
            let by_http = send(&agent(None), "POST", &format!("{}api/v1/session", service.page), &[], Some(&login));
            until("more has come", || (tried.load(Ordering::Relaxed) > 400).then_some(()));
            (by_rtsp, by_http.status)
        };
        // The other threads end also after a panic.
        let logged_in = std::panic::catch_unwind(std::panic::AssertUnwindSafe(logins));
        over.store(true, Ordering::Relaxed);
        assert_eq!(logged_in.unwrap(), (200, 200));
    });
    let after = Usage::of(&service);
    assert!(after.kib < before.kib + 100 * 1024, "{before:?} and then {after:?}");
    let (_, _, log) = service.terminate();
    assert!(log.contains("login refused: too many attempts; unknown user from 127.0.0.1"), "{log}");
}

#[test]
fn known_and_unknown_users_are_refused_after_the_same_time() {
    let fixture = Fixture::new();
    let service = fixture.start("");
    let host = host(&service);
    let session = format!("{}api/v1/session", service.page);
    let mut took = HashMap::<&str, Vec<Duration>>::new();
    for name in ["anna", "unknown"].repeat(3) {
        let began = Instant::now();
        let login = json!({ "user": name, "password": "a wrong passphrase" });
        assert_eq!(send(&agent(None), "POST", &session, &[], Some(&login)).status, 401);
        took.entry(name).or_default().push(began.elapsed());
        let began = Instant::now();
        assert_eq!(describe(&host, "gate", Some(&basic(name, "a wrong passphrase"))).0, 401);
        took.entry(name).or_default().push(began.elapsed());
    }
    // The password of an existing name is hashed for 50 ms and more; both refusals are sent later than that.
    let soonest = |name: &str| *took[name].iter().min().unwrap();
    assert!(
        soonest("anna") >= Duration::from_millis(500) && soonest("unknown") >= Duration::from_millis(500),
        "{took:?}"
    );
}

/// A client with wrong digests does not lock out others.
#[test]
fn wrong_digests_limit_only_their_own_name_and_address() {
    let fixture = Fixture::new();
    for name in ["nvr", "desk"] {
        let added = crate::fixture::add_user(fixture.folder.path(), name, "all that was recorded", &["--rtsp-digest"]);
        assert_eq!(added.code, Some(0), "{}", added.stderr);
    }
    let service = fixture.start("http = \"127.0.0.1:0\"\nrtsp = \"0.0.0.0:0\"\n");
    let host = format!("127.0.0.1:{}", host(&service).rsplit_once(':').unwrap().1);
    let attempt = |name: &str| {
        let (_, challenge) = describe(&host, "gate", None);
        let nonce = challenge.split("nonce=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let digest = format!(
            "Digest username=\"{name}\", realm=\"maskcast\", nonce=\"{nonce}\", uri=\"rtsp://{host}/gate\", \
             response=\"{:032x}\"",
            0
        );
        assert_eq!(describe(&host, "gate", Some(&digest)).0, 401);
    };
    std::thread::scope(|scope| {
        for n in 0..40 {
            let attempt = &attempt;
            scope.spawn(move || ["nvr", &format!("user{n}")].iter().for_each(|name| attempt(name)));
        }
    });
    let watch = |name: &str| {
        let url = format!("rtsp://{name}:{}@{host}/gate", "all that was recorded".replace(' ', "%20"));
        let probe = ["-v", "error", "-rtsp_transport", "tcp", &url];
        run(Command::new("ffprobe").args(probe)).code
    };
    assert_ne!(watch("nvr"), Some(0), "its attempts are limited");
    assert_eq!(watch("desk"), Some(0), "only the address has failed attempts");
}

/// Without a limit they would use every descriptor, and GLib aborts the process when it gets none.
#[test]
fn idle_rtsp_connections_leave_descriptors_for_the_service() {
    let fixture = Fixture::new();
    let stream = "[[stream]]\nname = \"gate\"\nsource = \"test://smpte?width=320&height=180&fps=10\"\n";
    let config = fixture.config("", stream);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 256 && exec \"$@\"", "sh"]).arg(maskcast().get_program());
    let mut service = Service::run_command(command.arg("run").arg(&config));
    service.program.wait_for_message("ready");
    let host = host(&service);
    let url = format!("rtsp://wall:{}@{host}/gate", WALL.replace(' ', "%20"));
    let mut viewer = Viewer::play(&url, "tcp", (320, 180));
    viewer.next();
    let silent: Vec<TcpStream> = (0..400).map(|_| TcpStream::connect(&host).unwrap()).collect();
    // New clients are served, and a connected viewer continues.
    assert_eq!(describe(&host, "gate", Some(&basic("anna", ANNA))).0, 200);
    viewer.next();
    let most = Usage::of(&service).descriptors;
    assert!(most < 256 - 32, "{most} descriptors");
    let streams = format!("{}api/v1/streams", service.page);
    assert_eq!(send(&agent(None), "GET", &streams, &[("authorization", &bearer(&fixture.viewer))], None).status, 200);
    drop(silent);
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("limit of open files is low: 256 files and connections can be open"), "{log}");
    assert!(log.contains("too many RTSP connections: closed an idle one for a new client"), "{log}");
}

/// The service raises its soft limit to the hard limit.
#[test]
fn the_limit_of_open_files_is_raised_to_the_most_that_is_allowed() {
    let fixture = Fixture::new();
    let stream = "[[stream]]\nname = \"gate\"\nsource = \"test://smpte?width=320&height=180&fps=10\"\n";
    let config = fixture.config("", stream);
    let mut command = Command::new("sh");
    let start = "ulimit -n 4096 && ulimit -Sn 512 && exec \"$@\"";
    command.args(["-c", start, "sh"]).arg(maskcast().get_program());
    let service = Service::run_command(command.arg("run").arg(&config));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", service.program.child.0.id())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().nth(3), Some("4096"), "{files}");
}
