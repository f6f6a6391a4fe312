//! Clients of live messages: by WebSocket, and by server-sent events.

use std::io::{BufRead, BufReader, Lines, Write};
use std::net::TcpStream;

use serde_json::Value;
use tokio_stream::StreamExt;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::wait::DEADLINE;

pub type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

/// Opens a WebSocket; `page` is the address of the service, `path` is without its first slash.
pub async fn open(page: &str, path: &str, headers: &[(&'static str, &str)]) -> Result<Socket, Error> {
    let mut request = format!("{}{path}", page.replacen("http", "ws", 1)).into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    tokio_tungstenite::connect_async(request).await.map(|(socket, _)| socket)
}

/// The next text message; `None` when the connection was closed.
pub async fn next(socket: &mut Socket) -> Option<Value> {
    loop {
        match tokio::time::timeout(DEADLINE, socket.next()).await.unwrap()? {
            Ok(Message::Text(text)) => return Some(serde_json::from_str(&text).unwrap()),
            Ok(Message::Ping(_)) => {}
            _ => return None,
        }
    }
}

/// The status of the response to the request for a WebSocket.
pub fn status(result: Result<Socket, Error>) -> u16 {
    match result {
        Ok(_) => 101,
        Err(Error::Http(response)) => response.status().as_u16(),
        Err(error) => panic!("{error}"),
    }
}

/// A client of server-sent events. It reads only when a message is requested from it.
pub struct ServerSentEvents {
    pub status: u16,
    lines: Lines<BufReader<TcpStream>>,
}

impl ServerSentEvents {
    /// Sends the request with these header lines; `path` is without its first slash.
    pub fn connect(page: &str, path: &str, headers: &[(&str, &str)]) -> Self {
        let host = page.trim_start_matches("http://").trim_end_matches('/');
        let mut socket = TcpStream::connect(host).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        // HTTP/1.0: the body has no chunks.
        let request = format!("GET /{path} HTTP/1.0\r\nHost: localhost\r\nAccept: text/event-stream\r\n{headers}\r\n");
        socket.write_all(request.as_bytes()).unwrap();
        let mut lines = BufReader::new(socket).lines();
        let line = lines.next().unwrap().unwrap();
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        lines.by_ref().map_while(Result::ok).find(String::is_empty);
        ServerSentEvents { status, lines }
    }

    /// The data of the next event; `None` at the end of the response.
    pub fn next(&mut self) -> Option<Value> {
        let mut lines = self.lines.by_ref().map_while(Result::ok);
        let data = lines.find_map(|line| line.strip_prefix("data: ").map(str::to_owned))?;
        Some(serde_json::from_str(&data).unwrap())
    }

    /// What is left of the response.
    pub fn rest(self) -> String {
        self.lines.map_while(Result::ok).collect::<Vec<_>>().join("\n")
    }
}
