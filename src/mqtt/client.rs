//! One connection to a broker, by MQTT 3.1.1 or 5. Each connection has a new client with a clean session: what has to survive
//! it is in the queue ([`super::queue`]).
//!
//! A task of its own polls the event loop of `rumqttc`, because a poll that is cancelled may lose a part of a packet, and
//! sends what concerns the session as [`Signal`]s. `rumqttc` takes publications in the order in which they were given to the
//! client and assigns a packet identifier when it takes one; the broker acknowledges by that identifier.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::v5;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use super::error::MqttError;
use super::tls::client_config;
use crate::config::MqttConfig;

/// The broker closes the connection, and sends the will, after one and a half times this without a packet.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Time limit of a connection attempt.
const CONNECT_LIMIT_S: u64 = 10;

/// Publications that wait in the client. Further ones are tried again later.
const WAITING: usize = 1024;

/// Publications with QoS 1 that the broker has not acknowledged.
const IN_FLIGHT: u16 = 100;

/// The largest packet that is sent.
pub const LARGEST_PACKET: usize = 8 << 20;

/// The largest packet that is received. Nothing is subscribed to: only acknowledgements come.
const LARGEST_INCOMING: usize = 64 << 10;

/// What happens on a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Signal {
    /// The broker has accepted the connection. The largest packet that it accepts, if it says so.
    Connected { largest_packet: Option<usize> },
    /// The next publication was written to the connection; its packet identifier, 0 for QoS 0.
    Taken(u16),
    /// The broker has acknowledged a publication, or refused it for this reason (MQTT 5).
    Acknowledged { id: u16, refused: Option<String> },
    /// Any other packet of the broker.
    Alive,
    /// The connection was closed after a request to do so.
    Closed,
    /// The connection is lost or was refused.
    Lost(String),
}

/// A message to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    pub topic: String,
    pub payload: Bytes,
    /// Quality of service 1: acknowledged by the broker. Otherwise 0.
    pub is_acknowledged: bool,
    pub is_retained: bool,
}

/// The sending end of a connection.
pub struct Client {
    kind: ClientKind,
    poller: JoinHandle<()>,
}

enum ClientKind {
    V3(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

impl Drop for Client {
    fn drop(&mut self) {
        self.poller.abort();
    }
}

impl Client {
    /// Begins to connect. The result comes as a signal. `will` is what the broker publishes, retained, when the connection is
    /// lost.
    ///
    /// # Errors
    /// The certificate authorities cannot be read.
    pub fn connect(
        config: &MqttConfig,
        client_id: &str,
        will: (&str, &str),
    ) -> Result<(Client, UnboundedReceiver<Signal>), MqttError> {
        let tls = if config.broker.is_tls { Some(client_config(config.ca.as_deref())?) } else { None };
        let transport = tls.map_or_else(rumqttc::Transport::tcp, |tls| {
            rumqttc::Transport::tls_with_config(rumqttc::TlsConfiguration::from(tls))
        });
        let (host, port) = (config.broker.host.as_str(), config.broker.port);
        let (topic, payload) = will;
        let login = config.credentials.as_ref().map(|known| (known.user.clone(), known.password.expose().to_owned()));
        let (sender, signals) = unbounded_channel();
        let (kind, poller) = if config.version == 5 {
            let mut options = v5::MqttOptions::new(client_id, host, port);
            options.set_transport(transport).set_keep_alive(KEEP_ALIVE).set_connection_timeout(CONNECT_LIMIT_S);
            options.set_outgoing_inflight_upper_limit(IN_FLIGHT);
            options.set_max_packet_size(u32::try_from(LARGEST_INCOMING).ok());
            options.set_last_will(v5::mqttbytes::v5::LastWill::new(
                topic,
                payload,
                v5::mqttbytes::QoS::AtLeastOnce,
                true,
                None,
            ));
            if let Some((user, password)) = login {
                options.set_credentials(user, password);
            }
            let (client, events) = v5::AsyncClient::new(options, WAITING);
            (ClientKind::V5(client), tokio::spawn(poll_v5(events, sender)))
        } else {
            let mut options = rumqttc::MqttOptions::new(client_id, host, port);
            options.set_transport(transport).set_keep_alive(KEEP_ALIVE).set_inflight(IN_FLIGHT);
            options.set_max_packet_size(LARGEST_INCOMING, LARGEST_PACKET);
            options.set_last_will(rumqttc::LastWill::new(topic, payload, rumqttc::QoS::AtLeastOnce, true));
            if let Some((user, password)) = login {
                options.set_credentials(user, password);
            }
            let (client, mut events) = rumqttc::AsyncClient::new(options, WAITING);
            events.network_options.set_connection_timeout(CONNECT_LIMIT_S);
            (ClientKind::V3(client), tokio::spawn(poll_v3(events, sender)))
        };
        Ok((Client { kind, poller }, signals))
    }

    /// Queues a message; false if too many wait. It never blocks.
    pub fn publish(&self, message: &Publication) -> bool {
        let Publication { topic, payload, is_acknowledged, is_retained } = message.clone();
        match &self.kind {
            ClientKind::V3(client) => {
                let qos = if is_acknowledged { rumqttc::QoS::AtLeastOnce } else { rumqttc::QoS::AtMostOnce };
                client.try_publish(topic, qos, is_retained, payload).is_ok()
            }
            ClientKind::V5(client) => {
                use v5::mqttbytes::QoS;
                let qos = if is_acknowledged { QoS::AtLeastOnce } else { QoS::AtMostOnce };
                client.try_publish(topic, qos, is_retained, payload).is_ok()
            }
        }
    }

    /// Closes the connection after the messages that wait; the broker does not publish the will.
    pub fn close(&self) {
        // Fails if too many messages wait: the will is published then.
        let _ = match &self.kind {
            ClientKind::V3(client) => client.try_disconnect().map_err(drop),
            ClientKind::V5(client) => client.try_disconnect().map_err(drop),
        };
    }
}

async fn poll_v3(mut events: rumqttc::EventLoop, signals: UnboundedSender<Signal>) {
    use rumqttc::{Event, Outgoing, Packet};
    loop {
        let signal = match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => Signal::Connected { largest_packet: None },
            Ok(Event::Incoming(Packet::PubAck(ack))) => Signal::Acknowledged { id: ack.pkid, refused: None },
            Ok(Event::Incoming(_)) => Signal::Alive,
            Ok(Event::Outgoing(Outgoing::Publish(id))) => Signal::Taken(id),
            Ok(Event::Outgoing(Outgoing::Disconnect)) => Signal::Closed,
            Ok(Event::Outgoing(_)) => continue,
            Err(error) => Signal::Lost(reason_v3(error)),
        };
        let is_end = matches!(signal, Signal::Lost(_) | Signal::Closed);
        if signals.send(signal).is_err() || is_end {
            return;
        }
    }
}

async fn poll_v5(mut events: v5::EventLoop, signals: UnboundedSender<Signal>) {
    use rumqttc::Outgoing;
    use v5::Event;
    use v5::mqttbytes::v5::{Packet, PubAckReason};
    loop {
        let signal = match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(answer))) => {
                let largest = answer.properties.and_then(|properties| properties.max_packet_size);
                Signal::Connected { largest_packet: largest.and_then(|size| usize::try_from(size).ok()) }
            }
            Ok(Event::Incoming(Packet::PubAck(ack))) => {
                let is_accepted = matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers);
                Signal::Acknowledged { id: ack.pkid, refused: (!is_accepted).then(|| format!("{:?}", ack.reason)) }
            }
            Ok(Event::Incoming(_)) => Signal::Alive,
            Ok(Event::Outgoing(Outgoing::Publish(id))) => Signal::Taken(id),
            Ok(Event::Outgoing(Outgoing::Disconnect)) => Signal::Closed,
            Ok(Event::Outgoing(_)) => continue,
            Err(error) => Signal::Lost(reason_v5(error)),
        };
        let is_end = matches!(signal, Signal::Lost(_) | Signal::Closed);
        if signals.send(signal).is_err() || is_end {
            return;
        }
    }
}

const WRONG_LOGIN: &str = "the broker refuses user and password; check mqtt.user and mqtt.password_file or \
                           mqtt.password_env, or both in mqtt.url";
const WRONG_ID: &str = "the broker refuses the name of the client; check mqtt.client_id";
const WRONG_VERSION: &str = "the broker refuses this version of MQTT; check mqtt.version";
const NO_ANSWER: &str = "no answer";
const CLOSED: &str = "the broker closed the connection";

fn reason_v3(error: rumqttc::ConnectionError) -> String {
    use rumqttc::{ConnectReturnCode, ConnectionError, StateError};
    match error {
        ConnectionError::ConnectionRefused(code) => match code {
            ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => WRONG_LOGIN.into(),
            ConnectReturnCode::BadClientId => WRONG_ID.into(),
            ConnectReturnCode::RefusedProtocolVersion => WRONG_VERSION.into(),
            ConnectReturnCode::ServiceUnavailable | ConnectReturnCode::Success => {
                format!("the broker refuses the connection ({code:?})")
            }
        },
        ConnectionError::Io(error) | ConnectionError::MqttState(StateError::Io(error)) => io_reason(&error),
        ConnectionError::Tls(error) => tls_reason(&error),
        ConnectionError::NetworkTimeout
        | ConnectionError::FlushTimeout
        | ConnectionError::MqttState(StateError::AwaitPingResp) => NO_ANSWER.into(),
        ConnectionError::MqttState(StateError::ConnectionAborted) => CLOSED.into(),
        other => other.to_string(),
    }
}

fn reason_v5(error: v5::ConnectionError) -> String {
    use v5::mqttbytes::v5::ConnectReturnCode;
    use v5::{ConnectionError, StateError};
    match error {
        ConnectionError::ConnectionRefused(code) => match code {
            ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => WRONG_LOGIN.into(),
            ConnectReturnCode::BadClientId | ConnectReturnCode::ClientIdentifierNotValid => WRONG_ID.into(),
            ConnectReturnCode::RefusedProtocolVersion | ConnectReturnCode::UnsupportedProtocolVersion => {
                WRONG_VERSION.into()
            }
            code => format!("the broker refuses the connection ({code:?})"),
        },
        ConnectionError::Io(error) | ConnectionError::MqttState(StateError::Io(error)) => io_reason(&error),
        ConnectionError::Tls(error) => tls_reason(&error),
        ConnectionError::Timeout(_) | ConnectionError::MqttState(StateError::AwaitPingResp) => NO_ANSWER.into(),
        ConnectionError::MqttState(StateError::ConnectionAborted) => CLOSED.into(),
        other => other.to_string(),
    }
}

fn io_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => CLOSED.into(),
        _ => error.to_string(),
    }
}

fn tls_reason(error: &rumqttc::TlsError) -> String {
    let text = match error {
        rumqttc::TlsError::Io(error) => error.to_string(),
        other => other.to_string(),
    };
    let hint = if is_other_protocol(error) {
        "the port may not accept TLS: write mqtt:// in mqtt.url, or the port for TLS, usually 8883"
    } else {
        "check mqtt.ca and the host in mqtt.url"
    };
    format!("TLS: {text}; {hint}")
}

/// Whether the server did not answer by TLS: it sent something else, or closed the connection.
fn is_other_protocol(error: &rumqttc::TlsError) -> bool {
    let rumqttc::TlsError::Io(error) = error else { return false };
    let tls = error.get_ref().and_then(|source| source.downcast_ref::<rustls::Error>());
    match tls {
        Some(error) => matches!(error, rustls::Error::InvalidMessage(_)),
        None => matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::config::Broker;

    /// The reason why a connection to a server that answers the first packet with these bytes, or closes it, is lost.
    fn reason(answer: &'static [u8], version: u8) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            assert!(connection.read(&mut [0; 4096]).unwrap() > 0);
            connection.write_all(answer).unwrap();
        });
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap().cert.pem()).unwrap();
        let broker = Broker { host: "127.0.0.1".into(), port, is_tls: true };
        let config = MqttConfig { version, ca: Some(ca), ..MqttConfig::of(broker) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let signal = runtime.block_on(async {
            let (_client, mut signals) = Client::connect(&config, "test", ("status", "offline")).unwrap();
            signals.recv().await
        });
        server.join().unwrap();
        match signal {
            Some(Signal::Lost(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_port_without_tls_is_named_as_the_reason() {
        // CONNACK of MQTT 3.1.1, as a broker answers that takes the first bytes for a packet, and a broker that closes.
        for (answer, version) in [(&[0x20, 2, 0, 1, 0][..], 3), (&[], 3), (&[0x20, 2, 0, 1, 0], 5), (&[], 5)] {
            let reason = reason(answer, version);
            assert!(
                reason.starts_with("TLS: ") && reason.contains("write mqtt:// in mqtt.url"),
                "{answer:?}: {reason}"
            );
        }
    }
}
