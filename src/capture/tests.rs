//! Sources against real servers: GStreamer's RTSP server in this process, and HTTP and RTSP responses written by hand.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use gstreamer as gst;
use gstreamer_rtsp_server as rtsp_server;

use rtsp_server::gio;
use rtsp_server::prelude::*;

use super::*;
use crate::base::secret::Secret;
use crate::config::{CertificateFingerprint, Credentials, SourceSpec, Transport};
use crate::gst::GstErrorKind;

#[path = "../../tests/common/rtsp_loop.rs"]
mod rtsp_loop;

use rtsp_loop::RtspLoop;

/// A guard against hanging.
const DEADLINE: Duration = Duration::from_secs(180);

/// Width and height of all frames in these tests.
const SIZE: (usize, usize) = (64, 48);

/// An RTSP camera that counts the `GET_PARAMETER` requests that it receives.
struct Camera {
    url: String,
    kept_alive: Arc<AtomicU32>,
    _running: RtspLoop,
}

impl Camera {
    fn start(transports: rtsp_server::gst_rtsp::RTSPLowerTrans, certificate: Option<&gio::TlsCertificate>) -> Self {
        crate::gst::init().unwrap();
        let server = rtsp_server::RTSPServer::new();
        server.set_address("127.0.0.1");
        server.set_service("0");
        let factory = rtsp_server::RTSPMediaFactory::new();
        factory.set_launch(&format!(
            "( videotestsrc is-live=true ! video/x-raw,format=I420,width={},height={},framerate=25/1 \
               ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=5 ! rtph264pay name=pay0 pt=96 )",
            SIZE.0, SIZE.1
        ));
        factory.set_shared(true);
        factory.set_protocols(transports);
        if let Some(certificate) = certificate {
            let auth = rtsp_server::RTSPAuth::new();
            auth.set_tls_certificate(Some(certificate));
            let role = rtsp_server::RTSP_TOKEN_MEDIA_FACTORY_ROLE;
            let token = rtsp_server::RTSPToken::builder().field(role, "viewer").build();
            auth.add_basic(&rtsp_server::RTSPAuth::make_basic("viewer", "secret"), &token);
            let permissions = gst::Structure::builder("viewer")
                .field(rtsp_server::RTSP_PERM_MEDIA_FACTORY_ACCESS, true)
                .field(rtsp_server::RTSP_PERM_MEDIA_FACTORY_CONSTRUCT, true);
            factory.add_role_from_structure(&permissions.build());
            server.set_auth(Some(&auth));
        }
        server.mount_points().unwrap().add_factory("/live", factory);
        let kept_alive = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&kept_alive);
        server.connect_client_connected(move |_, client| {
            let count = Arc::clone(&count);
            client.connect_get_parameter_request(move |_, _| {
                count.fetch_add(1, Ordering::Relaxed);
            });
        });
        let running = RtspLoop::start(server.clone()).unwrap();
        let start = if certificate.is_some() { "rtsps://viewer:secret@" } else { "rtsp://" };
        Camera { url: format!("{start}127.0.0.1:{}/live", server.bound_port()), kept_alive, _running: running }
    }

    fn all_transports() -> rtsp_server::gst_rtsp::RTSPLowerTrans {
        rtsp_server::gst_rtsp::RTSPLowerTrans::TCP | rtsp_server::gst_rtsp::RTSPLowerTrans::UDP
    }
}

fn spec(url: &str) -> SourceSpec {
    SourceSpec::parse(url, std::path::Path::new("/")).unwrap()
}

/// Captures `count` frames.
fn frames(spec: SourceSpec, count: u32) -> Result<(), SourceError> {
    watch(spec, |seen| seen >= count)
}

/// Captures frames until `enough` is true for their number.
fn watch(spec: SourceSpec, mut enough: impl FnMut(u32) -> bool) -> Result<(), SourceError> {
    let mut capture = GstSource::new(spec).open()?;
    let (started, mut seen) = (Instant::now(), 0);
    while !enough(seen) {
        assert!(started.elapsed() < DEADLINE, "{seen} frames within {DEADLINE:?}");
        match capture.next(Duration::from_millis(200))? {
            Captured::Frame(frame) => {
                let info = frame.pixels.image().info;
                assert_eq!((info.width, info.height), SIZE);
                seen += 1;
            }
            Captured::Silence | Captured::NoKeyframe(_) => {}
            Captured::End => panic!("the source has ended after {seen} frames"),
        }
    }
    Ok(())
}

#[test]
fn a_session_with_tcp_is_kept_alive_by_requests() {
    let camera = Camera::start(Camera::all_transports(), None);
    let count = Arc::clone(&camera.kept_alive);
    let mut frames_at_first = None;
    // Frames still come after two requests.
    let kept = watch(spec(&camera.url), |seen| {
        let requests = count.load(Ordering::Relaxed);
        if requests >= 2 && frames_at_first.is_none() {
            frames_at_first = Some(seen);
        }
        frames_at_first.is_some_and(|first| seen >= first + 25)
    });
    assert_eq!(kept, Ok(()));
}

#[test]
fn the_error_of_a_camera_that_refuses_tcp_names_the_transport_to_set() {
    let camera = Camera::start(rtsp_server::gst_rtsp::RTSPLowerTrans::UDP, None);
    let error = frames(spec(&camera.url), 1).unwrap_err();
    let SourceError::GStreamer(gst) = &error else { panic!("{error}") };
    assert_eq!(gst.kind, GstErrorKind::TransportRefused, "{error}");
    let text = error.to_string();
    assert!(text.contains("transport = \"udp\"") && !text.contains("libav"), "{text}");
    for transport in [Transport::Udp, Transport::Auto] {
        assert_eq!(frames(SourceSpec { transport, ..spec(&camera.url) }, 3), Ok(()), "{transport:?}");
    }
}

#[test]
fn a_certificate_is_trusted_by_its_fingerprint_or_its_authority() {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
    let (pem, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let certificate = gio::TlsCertificate::from_pem(&format!("{pem}{key}")).unwrap();
    let camera = Camera::start(Camera::all_transports(), Some(&certificate));
    let fingerprint = CertificateFingerprint::of(made.cert.der());

    let refusal = |spec: SourceSpec| match frames(spec, 1) {
        Err(SourceError::CertificateRefused { refusal, .. }) => refusal,
        other => panic!("{other:?}"),
    };
    let refused = refusal(spec(&camera.url));
    let CertificateRefusal::Untrusted { problems: Some(problems), shown, .. } = &refused else { panic!("{refused}") };
    assert!(problems.contains(gio::TlsCertificateFlags::UNKNOWN_CA), "{problems:?}");
    assert_eq!(*shown, fingerprint);
    // The message has both remedies, with the value to set.
    for part in [&format!("tls_fingerprint = \"{fingerprint}\""), "tls_ca"] {
        assert!(refused.to_string().contains(part), "{part}: {refused}");
    }
    let pinned = |fingerprint| SourceSpec { tls_fingerprint: Some(fingerprint), ..spec(&camera.url) };
    assert_eq!(frames(pinned(fingerprint), 3), Ok(()));
    let refused = refusal(pinned(CertificateFingerprint::of(b"another")));
    assert!(
        matches!(&refused, CertificateRefusal::OtherFingerprint { shown, .. } if *shown == fingerprint),
        "{refused}"
    );

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, pem).unwrap();
    assert_eq!(frames(SourceSpec { tls_ca: Some(path.clone()), ..spec(&camera.url) }, 3), Ok(()));
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
    std::fs::write(&path, other.cert.pem()).unwrap();
    let refused = refusal(SourceSpec { tls_ca: Some(path), ..spec(&camera.url) });
    assert!(matches!(&refused, CertificateRefusal::Untrusted { .. }), "{refused}");
}

/// Starts a server that calls `answer` for each connection on a thread of its own; returns its address.
fn serve(answer: impl Fn(TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let answer = Arc::clone(&answer);
            // The client closes when it has seen enough.
            std::thread::spawn(move || drop(answer(client)));
        }
    });
    address
}

/// Reads the lines of a request's header; empty at the end of the connection.
fn head(client: &mut impl BufRead) -> std::io::Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if client.read_line(&mut line)? == 0 {
            return Ok(Vec::new());
        }
        if line.trim_end().is_empty() {
            return Ok(lines);
        }
        lines.push(line.trim_end().to_owned());
    }
}

#[test]
fn an_unsupported_login_is_distinguished_from_a_wrong_password() {
    let address = serve(|client| {
        let mut reader = BufReader::new(client.try_clone()?);
        loop {
            let lines = head(&mut reader)?;
            let Some(request) = lines.first() else { return Ok(()) };
            let number = lines.iter().find(|line| line.starts_with("CSeq:")).map_or("CSeq: 1", String::as_str);
            let (status, more) = if request.starts_with("OPTIONS") {
                ("200 OK", "Public: OPTIONS, DESCRIBE, SETUP, PLAY")
            } else {
                ("401 Unauthorized", "WWW-Authenticate: Digest realm=\"cam\", nonce=\"abc\", algorithm=\"SHA-256\"")
            };
            write!(&client, "RTSP/1.0 {status}\r\n{number}\r\n{more}\r\n\r\n")?;
        }
    });
    let credentials = Some(Credentials { user: "admin".into(), password: Secret::new("right") });
    let url = format!("rtsp://{address}/live");
    let error = frames(SourceSpec { credentials, ..spec(&url) }, 1).unwrap_err();
    assert!(matches!(&error, SourceError::LoginUnsupported { offered, .. } if offered == "Digest SHA-256"), "{error}");
    let error = frames(spec(&url), 1).unwrap_err();
    assert!(matches!(&error, SourceError::CredentialsMissing { .. }), "{error}");
}

/// One JPEG image.
fn image() -> Vec<u8> {
    crate::gst::init().unwrap();
    let pipeline = gst::parse::launch(&format!(
        "videotestsrc num-buffers=1 ! video/x-raw,width={},height={} ! jpegenc ! appsink name=sink",
        SIZE.0, SIZE.1
    ));
    let pipeline = pipeline.unwrap().downcast::<gst::Pipeline>().unwrap();
    let sink = pipeline.by_name("sink").unwrap().downcast::<gstreamer_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let sample = sink.pull_sample().unwrap();
    pipeline.set_state(gst::State::Null).unwrap();
    sample.buffer().unwrap().map_readable().unwrap().to_vec()
}

#[test]
fn motion_jpeg_without_first_boundary_or_types_is_played() {
    let jpeg = image();
    let length = jpeg.len();
    // The bytes before and after each image.
    for (name, before, after) in [
        ("complete", format!("--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {length}\r\n\r\n"), "\r\n"),
        (
            "no first boundary",
            format!("Content-Type: image/jpeg\r\nContent-Length: {length}\r\n\r\n"),
            "\r\n--frame\r\n",
        ),
        ("no types", "--frame\r\n\r\n".to_string(), "\r\n"),
        ("lengths only", format!("--frame\r\nContent-Length: {length}\r\n\r\n"), "\r\n"),
        ("line feeds, no types", "--frame\n\n".to_string(), "\n"),
        ("neither", "\r\n".to_string(), "\r\n--frame\r\n\r\n"),
        ("images only", String::new(), ""),
    ] {
        for chunk in [usize::MAX, 7] {
            let part = [before.as_bytes(), &jpeg, after.as_bytes()].concat();
            let address = serve(move |mut client| {
                head(&mut BufReader::new(client.try_clone()?))?;
                let kind = "multipart/x-mixed-replace; boundary=frame";
                write!(client, "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n")?;
                client.set_nodelay(true)?;
                // The first part in small pieces, so that its header is spread over several.
                let small = chunk.min(part.len());
                part.chunks(small).take(20).try_for_each(|piece| client.write_all(piece))?;
                client.write_all(part.get(small * 20..).unwrap_or_default())?;
                loop {
                    client.write_all(&part)?;
                    crossbeam_channel::after(Duration::from_millis(20)).recv().map_err(std::io::Error::other)?;
                }
            });
            assert_eq!(frames(spec(&format!("http://{address}/mjpeg")), 10), Ok(()), "{name}, pieces of {chunk}");
        }
    }
}

#[test]
fn an_incomplete_response_is_an_error() {
    let address = serve(|mut client| {
        let mut request = [0; 4];
        client.read_exact(&mut request)?;
        client.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace\r\nContent-Length: 2\r\n\r\n--")
    });
    assert!(frames(spec(&format!("http://{address}/mjpeg")), 1).is_err());
}
