//! HTTP servers that receive webhooks.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use crossbeam_channel::{Receiver, unbounded};
use serde_json::Value;

/// A request that a server of webhooks has received.
pub struct Request {
    pub head: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The value of a header; empty when it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.head.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }
}

/// An HTTP server that gives these answers, then 204: its address `HOST:PORT`, and what it receives.
pub fn receive(answers: &'static [&'static str]) -> (String, Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    (listener.local_addr().unwrap().to_string(), serve(listener, answers))
}

/// The same on this listener.
pub fn serve(listener: TcpListener, answers: &'static [&'static str]) -> Receiver<Request> {
    let (sender, requests) = unbounded();
    std::thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let Some(request) = read_request(&stream) else { continue };
            let answer = answers.get(n).unwrap_or(&"204 No Content");
            let text = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(text.as_bytes());
            if sender.send(request).is_err() {
                return;
            }
        }
    });
    requests
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        head.push((name.to_owned(), value.to_owned()));
    }
    let length = head.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?.1.parse().unwrap();
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { head, body: String::from_utf8(body).unwrap() })
}
