//! MJPEG and snapshots.

use super::*;

/// An MJPEG viewer on a bare connection.
struct Watcher {
    lines: BufReader<TcpStream>,
}

impl Watcher {
    /// Connects and waits until the server counts it.
    fn connect(server: &HttpServer, view: &ServiceView, name: &str) -> Watcher {
        let mut socket = TcpStream::connect(server.address()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(600))).unwrap();
        // HTTP/1.0: the body comes bare, without chunks.
        write!(socket, "GET /mjpeg/{name} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        let mut watcher = Watcher { lines: BufReader::new(socket) };
        let head = watcher.head();
        assert!(head[0].contains(" 200 "), "{head:?}");
        assert!(head.contains(&"content-type: multipart/x-mixed-replace; boundary=picture".to_owned()), "{head:?}");
        assert!(head.contains(&"cache-control: no-store".to_owned()), "{head:?}");
        assert_eq!(view.stream(name).unwrap().outputs.jpeg.viewers(), 1);
        watcher
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

    /// A part's picture, with the boundary after it, which must be there at once.
    fn picture(&mut self) -> Vec<u8> {
        let head = self.head();
        assert!(head.contains(&"Content-Type: image/jpeg".to_owned()), "{head:?}");
        let length = head.iter().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        let mut picture = vec![0; length.parse().unwrap()];
        self.lines.read_exact(&mut picture).unwrap();
        let mut boundary = [0; 13];
        self.lines.read_exact(&mut boundary).unwrap();
        assert_eq!(&boundary, b"\r\n--picture\r\n");
        picture
    }
}

#[test]
fn mjpeg_delivers_each_picture_at_once() {
    let view = view(&["gate"]);
    let server = server(&view);
    let gallery = view.streams()[0].outputs.jpeg.clone();
    gallery.publish(Bytes::from_static(b"for nobody"));
    let mut watcher = Watcher::connect(&server, &view, "gate");
    gallery.publish(Bytes::from_static(b"\xff\xd8first\xff\xd9"));
    let mut boundary = [0; 11];
    watcher.lines.read_exact(&mut boundary).unwrap();
    assert_eq!(&boundary, b"--picture\r\n");
    assert_eq!(watcher.picture(), b"\xff\xd8first\xff\xd9");
    gallery.publish(Bytes::from_static(b"second"));
    assert_eq!(watcher.picture(), b"second");
    assert_eq!(get(&server, "/api/v1/streams/gate").json()["viewers"]["mjpeg"], 1);
}

#[test]
fn a_viewer_that_does_not_read_holds_few_pictures_and_then_sees_the_newest() {
    let view = view(&["gate"]);
    let server = server(&view);
    let gallery = view.streams()[0].outputs.jpeg.clone();
    let mut watcher = Watcher::connect(&server, &view, "gate");
    let pictures = 400_u32;
    let pace = crossbeam_channel::tick(Duration::from_millis(2));
    for n in 1..=pictures {
        let mut picture = vec![0; 100_000];
        picture[..4].copy_from_slice(&n.to_be_bytes());
        gallery.publish(picture.into());
        pace.recv().unwrap();
    }
    watcher.lines.read_exact(&mut [0; 11]).unwrap();
    let mut seen = Vec::new();
    while seen.last() != Some(&pictures) {
        seen.push(u32::from_be_bytes(watcher.picture()[..4].try_into().unwrap()));
    }
    // What the kernels of both ends hold: the sender's buffer, the receiver's window before it grows, and one on the way.
    assert!(seen.len() <= 20, "{} pictures were held for one viewer: {seen:?}", seen.len());
    assert!(seen.is_sorted());
}

#[test]
fn a_viewer_that_leaves_is_no_longer_counted() {
    let view = view(&["gate"]);
    let server = server(&view);
    let gallery = view.streams()[0].outputs.jpeg.clone();
    drop(Watcher::connect(&server, &view, "gate"));
    let deadline = Instant::now() + Duration::from_secs(600);
    while gallery.viewers() > 0 {
        assert!(Instant::now() < deadline, "still counted");
        std::thread::yield_now();
    }
}

#[test]
fn a_snapshot_is_the_next_picture_or_a_problem() {
    let view = view(&["gate"]);
    let server = server(&view);
    let gallery = view.streams()[0].outputs.jpeg.clone();
    gallery.publish(Bytes::from_static(b"old"));
    let publisher = std::thread::spawn(move || {
        while gallery.viewers() == 0 {
            std::thread::yield_now();
        }
        gallery.publish(Bytes::from_static(b"new"));
    });
    let answer = get(&server, "/api/v1/streams/gate/snapshot.jpg");
    assert_eq!((answer.status, answer.header("content-type"), answer.body.as_str()), (200, "image/jpeg", "new"));
    publisher.join().unwrap();
    let answer = get(&server, "/api/v1/streams/gate/snapshot.jpg");
    assert_eq!((answer.status, answer.header("content-type")), (503, "application/problem+json"));
    assert_eq!(answer.json()["detail"], "there was no picture of gate within 3 s");
}

#[test]
fn stopping_ends_open_pictures_and_does_not_wait_for_half_a_request() {
    let view = view(&["gate"]);
    let server = server(&view);
    let mut watcher = Watcher::connect(&server, &view, "gate");
    // A client that has sent half a request would be waited for.
    let mut half = TcpStream::connect(server.address()).unwrap();
    half.write_all(b"GET / HT").unwrap();
    let started = Instant::now();
    drop(server);
    // Waiting would take the time that a request may take: 30 s.
    assert!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
    let mut rest = Vec::new();
    watcher.lines.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");
    assert_eq!(view.streams()[0].outputs.jpeg.viewers(), 0);
}
