//! Requests to a camera after GStreamer has failed, to distinguish causes for which GStreamer's error is the same: a wrong
//! password and a login that GStreamer does not support; a camera that does not answer and one whose certificate is not
//! trusted.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use ureq::tls::{RootCerts, TlsConfig};
use url::Url;

/// The time limit of each step.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The most bytes of a response's header that are read.
const MAX_HEADER: u64 = 16 * 1024;

/// The authentication schemes that a camera offers if GStreamer supports none of them, for example `Digest SHA-256`. `None`
/// if it supports one, if the camera lists none, and for addresses with TLS.
pub fn unsupported_login(url: &Url) -> Option<String> {
    let (port, request) = match url.scheme() {
        "rtsp" => (554, format!("DESCRIBE {url} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n")),
        "http" => {
            let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
            let host = url.host_str()?;
            (80, format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
        }
        _ => return None,
    };
    let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
    let address = (host, url.port().unwrap_or(port)).to_socket_addrs().ok()?.next()?;
    let mut connection = TcpStream::connect_timeout(&address, TIMEOUT).ok()?;
    connection.set_read_timeout(Some(TIMEOUT)).ok()?;
    connection.set_write_timeout(Some(TIMEOUT)).ok()?;
    connection.write_all(request.as_bytes()).ok()?;
    let mut header = Vec::new();
    for line in BufReader::new(connection.take(MAX_HEADER)).split(b'\n') {
        let line = String::from_utf8_lossy(&line.ok()?).trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        header.push(line);
    }
    unsupported_schemes(&header)
}

/// Why this system does not trust the certificate of an `https` camera; `None` if it does, or if no server answers.
pub fn untrusted_certificate(url: &Url) -> Option<String> {
    // Without path and query, which may contain secrets and do not matter for the connection.
    let server = url.join("/").ok().filter(|server| server.scheme() == "https")?;
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    let request =
        ureq::head(server.as_str()).config().timeout_global(Some(TIMEOUT)).max_redirects(0).tls_config(tls).build();
    let error = request.call().err()?.to_string();
    error.contains("certificate").then_some(error)
}

/// The schemes of the challenges in a response's header (RFC 7235, section 4.1) if GStreamer supports none of them. It
/// supports Basic, and Digest with MD5.
fn unsupported_schemes(header: &[String]) -> Option<String> {
    let value = |line: &String| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("www-authenticate").then(|| value.trim().to_owned())
    };
    let mut schemes = Vec::new();
    for challenge in header.iter().filter_map(value) {
        let scheme = challenge.split([' ', ',']).next().unwrap_or_default();
        if !scheme.eq_ignore_ascii_case("digest") {
            if scheme.eq_ignore_ascii_case("basic") {
                return None;
            }
            schemes.push(scheme.to_owned());
            continue;
        }
        let algorithm = challenge.split([',', ' ']).map(str::trim).find_map(|part| {
            let (name, value) = part.split_once('=')?;
            name.trim().eq_ignore_ascii_case("algorithm").then(|| value.trim().trim_matches('"').to_owned())
        });
        match algorithm {
            Some(algorithm) if !algorithm.to_ascii_uppercase().starts_with("MD5") => {
                schemes.push(format!("Digest {algorithm}"));
            }
            _ => return None,
        }
    }
    schemes.dedup();
    // The camera's text becomes part of a message: only short names of plain characters are used.
    let plain =
        |scheme: &String| scheme.len() <= 32 && scheme.chars().all(|c| c.is_ascii_alphanumeric() || " -_".contains(c));
    (!schemes.is_empty() && schemes.iter().all(plain)).then(|| schemes.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn schemes_are_listed_only_if_none_is_supported() {
        let of = |challenges: &[&str]| {
            let header: Vec<String> = challenges.iter().map(|text| format!("WWW-Authenticate: {text}")).collect();
            unsupported_schemes(&header)
        };
        let sha = "Digest realm=\"cam\", nonce=\"abc\", algorithm=\"SHA-256\", stale=\"FALSE\"";
        assert_eq!(of(&[sha]).as_deref(), Some("Digest SHA-256"));
        assert_eq!(of(&["Digest algorithm=SHA-512-256,realm=\"a b\""]).as_deref(), Some("Digest SHA-512-256"));
        assert_eq!(of(&["Bearer realm=\"x\""]).as_deref(), Some("Bearer"));
        assert_eq!(of(&[sha, "Basic realm=\"cam\""]), None);
        assert_eq!(of(&[sha, "Digest realm=\"cam\", nonce=\"abc\""]), None);
        assert_eq!(of(&[sha, "Digest realm=\"cam\", algorithm=MD5"]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn an_untrusted_certificate_is_distinguished_from_a_server_that_does_not_answer() {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let config = rustls::ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let camera = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("https://{}/mjpeg", camera.local_addr().unwrap())).unwrap();
        let served = std::thread::spawn(move || {
            let (mut client, _) = camera.accept().unwrap();
            let mut tls = rustls::ServerConnection::new(std::sync::Arc::new(config)).unwrap();
            // The client aborts the handshake.
            while tls.is_handshaking() && tls.complete_io(&mut client).is_ok() {}
        });
        let problem = untrusted_certificate(&url).unwrap();
        assert!(problem.contains("certificate"), "{problem}");
        served.join().unwrap();
        assert_eq!(untrusted_certificate(&url), None, "no server listens any more");
    }

    #[test]
    fn the_schemes_of_a_camera_are_read_from_its_response() {
        let camera = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("rtsp://{}/live", camera.local_addr().unwrap())).unwrap();
        let request = std::thread::spawn(move || {
            let (mut client, _) = camera.accept().unwrap();
            let mut request = [0; 8];
            client.read_exact(&mut request).unwrap();
            let answer = "RTSP/1.0 401 Unauthorized\r\nwww-authenticate: Digest realm=\"c\", algorithm=SHA-256\r\n\r\n";
            client.write_all(answer.as_bytes()).unwrap();
            request
        });
        assert_eq!(unsupported_login(&url).as_deref(), Some("Digest SHA-256"));
        assert_eq!(&request.join().unwrap(), b"DESCRIBE");
        assert_eq!(unsupported_login(&Url::parse("rtsps://127.0.0.1/live").unwrap()), None);
    }
}
