//! Tests of MJPEG and snapshots.

use super::*;

/// An MJPEG viewer on a TCP connection.
struct Viewer {
    lines: BufReader<TcpStream>,
}

impl Viewer {
    /// Connects and waits until the server counts the viewer.
    fn connect(server: &HttpServer, view: &ServiceView, name: &str) -> Viewer {
        let mut socket = TcpStream::connect(server.address()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(600))).unwrap();
        // HTTP/1.0: the body is not chunked.
        write!(socket, "GET /mjpeg/{name} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        let mut viewer = Viewer { lines: BufReader::new(socket) };
        let head = viewer.head();
        assert!(head[0].contains(" 200 "), "{head:?}");
        assert!(head.contains(&"content-type: multipart/x-mixed-replace; boundary=jpeg".to_owned()), "{head:?}");
        assert!(head.contains(&"cache-control: no-store".to_owned()), "{head:?}");
        assert_eq!(view.stream(name).unwrap().outputs.jpeg.viewers(), 1);
        viewer
    }

    /// Lines up to an empty one; none at the end of the response.
    fn head(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            self.lines.read_line(&mut line).unwrap();
            match line.trim_end() {
                "" => return lines,
                line => lines.push(line.to_owned()),
            }
        }
    }

    /// The frame of a part. The boundary after it must follow at once.
    fn frame(&mut self) -> Vec<u8> {
        let head = self.head();
        assert!(head.contains(&"Content-Type: image/jpeg".to_owned()), "{head:?}");
        let length = head.iter().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        let mut frame = vec![0; length.parse().unwrap()];
        self.lines.read_exact(&mut frame).unwrap();
        let mut boundary = [0; 10];
        self.lines.read_exact(&mut boundary).unwrap();
        assert_eq!(&boundary, b"\r\n--jpeg\r\n");
        frame
    }
}

#[test]
fn mjpeg_sends_each_frame_at_once() {
    let view = view(&["gate"]);
    let server = server(&view);
    let outputs = view.streams()[0].outputs.clone();
    let (jpeg, run) = (outputs.jpeg.clone(), outputs.begin_run());
    jpeg.publish(&run, Bytes::from_static(b"without a viewer"));
    let mut viewer = Viewer::connect(&server, &view, "gate");
    jpeg.publish(&run, Bytes::from_static(b"\xff\xd8first\xff\xd9"));
    let mut boundary = [0; 8];
    viewer.lines.read_exact(&mut boundary).unwrap();
    assert_eq!(&boundary, b"--jpeg\r\n");
    assert_eq!(viewer.frame(), b"\xff\xd8first\xff\xd9");
    jpeg.publish(&run, Bytes::from_static(b"second"));
    assert_eq!(viewer.frame(), b"second");
    assert_eq!(get(&server, "/api/v1/streams/gate").json()["viewers"]["mjpeg"], 1);
}

#[test]
fn a_slow_viewer_skips_frames_and_gets_the_newest() {
    let view = view(&["gate"]);
    let server = server(&view);
    let outputs = view.streams()[0].outputs.clone();
    let (jpeg, run) = (outputs.jpeg.clone(), outputs.begin_run());
    let mut viewer = Viewer::connect(&server, &view, "gate");
    let frames = 400_u32;
    let pace = crossbeam_channel::tick(Duration::from_millis(2));
    for n in 1..=frames {
        let mut frame = vec![0; 100_000];
        frame[..4].copy_from_slice(&n.to_be_bytes());
        jpeg.publish(&run, frame.into());
        pace.recv().unwrap();
    }
    viewer.lines.read_exact(&mut [0; 8]).unwrap();
    let mut seen = Vec::new();
    while seen.last() != Some(&frames) {
        seen.push(u32::from_be_bytes(viewer.frame()[..4].try_into().unwrap()));
    }
    // The kernel's buffers of both ends, and one frame in transit.
    assert!(seen.len() <= 20, "{} frames were queued for one viewer: {seen:?}", seen.len());
    assert!(seen.is_sorted());
}

#[test]
fn a_disconnected_viewer_is_not_counted() {
    let view = view(&["gate"]);
    let server = server(&view);
    let jpeg = view.streams()[0].outputs.jpeg.clone();
    drop(Viewer::connect(&server, &view, "gate"));
    let deadline = Instant::now() + Duration::from_secs(600);
    while jpeg.viewers() > 0 {
        assert!(Instant::now() < deadline, "it is still counted");
        std::thread::yield_now();
    }
}

#[test]
fn a_snapshot_is_the_next_frame_or_a_503() {
    let view = view(&["gate"]);
    let server = server(&view);
    let outputs = view.streams()[0].outputs.clone();
    let (jpeg, run) = (outputs.jpeg.clone(), outputs.begin_run());
    jpeg.publish(&run, Bytes::from_static(b"old"));
    let publisher = std::thread::spawn(move || {
        while jpeg.viewers() == 0 {
            std::thread::yield_now();
        }
        jpeg.publish(&run, Bytes::from_static(b"new"));
    });
    let answer = get(&server, "/api/v1/streams/gate/snapshot.jpg");
    assert_eq!((answer.status, answer.header("content-type"), answer.body.as_str()), (200, "image/jpeg", "new"));
    publisher.join().unwrap();
    let answer = get(&server, "/api/v1/streams/gate/snapshot.jpg");
    assert_eq!((answer.status, answer.header("content-type")), (503, "application/problem+json"));
    assert_eq!(answer.json()["detail"], "no frame of stream gate within 3 s");
}

#[test]
fn a_stop_ends_mjpeg_responses_and_does_not_wait_for_incomplete_requests() {
    let view = view(&["gate"]);
    let server = server(&view);
    let mut viewer = Viewer::connect(&server, &view, "gate");
    // A client with an incomplete request.
    let mut half = TcpStream::connect(server.address()).unwrap();
    half.write_all(b"GET / HT").unwrap();
    let started = Instant::now();
    drop(server);
    // The time limit of a request is 30 s.
    assert!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
    let mut rest = Vec::new();
    viewer.lines.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");
    assert_eq!(view.streams()[0].outputs.jpeg.viewers(), 0);
}
