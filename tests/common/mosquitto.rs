//! A real MQTT broker (Mosquitto), and its subscriber.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crossbeam_channel::{Receiver, unbounded};

use super::program::{DEADLINE, Guard, until};

/// A broker that can be stopped and started again on the same port. It keeps sessions and retained messages.
pub struct Broker {
    pub port: u16,
    folder: PathBuf,
    process: Option<Guard>,
}

impl Broker {
    /// Starts a broker with more lines of configuration; its files are in `folder`.
    pub fn start(folder: &Path, more: &str) -> Self {
        let mut broker = Broker::prepare(folder, more);
        broker.run();
        broker
    }

    /// The same without starting it.
    pub fn prepare(folder: &Path, more: &str) -> Self {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let folder = folder.join("broker");
        std::fs::create_dir_all(&folder).unwrap();
        let access = if more.contains("password_file") { "" } else { "allow_anonymous true\n" };
        let text = format!(
            "listener {port} 127.0.0.1\npersistence true\npersistence_location {}/\nmax_queued_messages 0\nlog_type all\n\
             {access}{more}\n",
            folder.display()
        );
        std::fs::write(folder.join("mosquitto.conf"), text).unwrap();
        Broker { port, folder, process: None }
    }

    /// Starts the broker, and waits until it listens.
    pub fn run(&mut self) {
        let mut command = Command::new("/usr/sbin/mosquitto");
        command.arg("-c").arg(self.folder.join("mosquitto.conf"));
        // Without this, it drops root's rights, and cannot write its files.
        if rustix::process::geteuid().is_root() {
            let path = self.folder.join("mosquitto.conf");
            let text = std::fs::read_to_string(&path).unwrap();
            if !text.contains("user root") {
                std::fs::write(&path, format!("user root\n{text}")).unwrap();
            }
        }
        let log = std::fs::File::options().create(true).append(true).open(self.log()).unwrap();
        self.process = Some(Guard::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log)));
        until("the broker listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok());
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// How many messages on a topic it has received, over all its runs.
    pub fn received(&self, topic: &str) -> usize {
        self.count(|line| line.contains(": Received PUBLISH from ") && line.contains(&format!(", '{topic}', ")))
    }

    /// How many messages on a topic it has sent to a client again, because the client had not acknowledged them.
    pub fn repeated(&self, client: &str, topic: &str) -> usize {
        self.count(|line| {
            line.contains(&format!(": Sending PUBLISH to {client} (d1, ")) && line.contains(&format!(", '{topic}', "))
        })
    }

    fn count(&self, is_counted: impl Fn(&str) -> bool) -> usize {
        std::fs::read_to_string(self.log()).unwrap().lines().filter(|line| is_counted(line)).count()
    }

    /// Stops its process until it is killed: connections remain, and nothing is read from them.
    pub fn freeze(&self) {
        self.process.as_ref().expect("the broker runs").signal("STOP");
    }

    /// Kills its process, with SIGKILL.
    pub fn kill(&mut self) {
        self.process.take().expect("the broker runs").kill();
    }

    /// Ends the broker, which writes its sessions and retained messages.
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("the broker runs");
        process.signal("TERM");
        process.wait(DEADLINE);
    }
}

/// Lines of configuration with which a broker that is killed has all sessions and messages.
pub const DURABLE: &str = "autosave_interval 1\nautosave_on_changes true";

/// A message that a subscriber got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub is_retained: bool,
    pub qos: u8,
    pub topic: String,
    pub payload: Vec<u8>,
}

impl Message {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.payload).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// `mosquitto_sub`, which connects again when the broker was away.
pub struct Subscriber {
    _process: Guard,
    messages: Receiver<Message>,
}

impl Subscriber {
    /// Subscribes to a filter with QoS 1. `more` are further arguments.
    pub fn to(port: u16, filter: &str, more: &[&str]) -> Self {
        let mut command = Command::new("mosquitto_sub");
        command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-q", "1", "-t", filter, "-F", "%r %q %t %x"]);
        command.args(more);
        let mut process = Guard::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()));
        let lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
        let (sender, messages) = unbounded();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send(parse(&line)).is_err() {
                    return;
                }
            }
        });
        Subscriber { _process: process, messages }
    }

    /// The next message.
    pub fn next(&self) -> Message {
        self.messages.recv_timeout(DEADLINE).expect("a message arrives")
    }

    /// The next message for which `find` has a result; the others are skipped.
    pub fn find<T>(&self, what: &str, mut find: impl FnMut(&Message) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let message = self.messages.recv_deadline(deadline).unwrap_or_else(|_| panic!("no message: {what}"));
            if let Some(found) = find(&message) {
                return found;
            }
        }
    }

    /// The next message on a topic.
    pub fn on(&self, topic: &str) -> Message {
        self.find(topic, |message| (message.topic == topic).then(|| message.clone()))
    }

    /// Waits until a topic has this text.
    pub fn until(&self, topic: &str, text: &str) -> Message {
        let what = format!("{topic} {text}");
        self.find(&what, |message| (message.topic == topic && message.text() == text).then(|| message.clone()))
    }
}

fn parse(line: &str) -> Message {
    let mut parts = line.splitn(4, ' ');
    let mut part = || parts.next().unwrap_or_else(|| panic!("mosquitto_sub: {line:?}"));
    let (retained, qos, topic, payload) = (part(), part(), part(), part());
    Message {
        is_retained: retained == "1",
        qos: qos.parse().unwrap(),
        topic: topic.to_owned(),
        payload: hex::decode(payload).unwrap(),
    }
}

/// The retained messages of a broker under a filter.
pub fn retained(port: u16, filter: &str, more: &[&str]) -> Vec<Message> {
    let mut command = Command::new("mosquitto_sub");
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-t", filter, "-F", "%r %q %t %x"]);
    command.args(["--retained-only", "-W", "2"]).args(more);
    let output = command.output().expect("mosquitto_sub is installed: run `make setup-test`");
    String::from_utf8(output.stdout).unwrap().lines().map(parse).collect()
}
