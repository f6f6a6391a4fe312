//! Child processes: `maskcast` itself and the tools that check its results. All of them end with the test.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, tick, unbounded};
use serde_json::Value;

pub use super::wait::{DEADLINE, until};

/// A child process that is killed when this is dropped.
pub struct Guard(pub Child);

impl Guard {
    /// Starts `command`.
    pub fn spawn(command: &mut Command) -> Self {
        match command.spawn() {
            Ok(child) => Guard(child),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                panic!("{} is not installed: run `make setup-test`", command.get_program().to_string_lossy())
            }
            Err(error) => panic!("{command:?}: {error}"),
        }
    }

    /// Waits for the end of the process; fails when it does not end within `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> ExitStatus {
        let deadline = Instant::now() + timeout;
        let interval = tick(Duration::from_millis(5));
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "process {} has not ended within {timeout:?}", self.0.id());
            let _ = interval.recv();
        }
    }

    /// Kills the process with SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Sends a signal by its name, as in `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.0.id())).status().unwrap();
        assert!(sent.success(), "SIG{name} could not be sent");
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Fails only when it has already ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Exit code and output of a program that has ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ended {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_string()
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Ended {
    run_from(command.stdin(Stdio::null()))
}

fn run_from(command: &mut Command) -> Ended {
    let mut child = Guard::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let (stdout, stderr) = (child.0.stdout.take().unwrap(), child.0.stderr.take().unwrap());
    let (stdout, stderr) = (read_all(stdout), read_all(stderr));
    let status = child.wait(DEADLINE);
    let stderr = String::from_utf8_lossy(&stderr.join().unwrap()).into_owned();
    Ended { code: status.code(), stdout: stdout.join().unwrap(), stderr }
}

/// Runs a command with this standard input.
pub fn run_with_input(command: &mut Command, input: &str) -> Ended {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(input.as_bytes()).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    run_from(command.stdin(file))
}

fn read_all(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// Runs a tool that must succeed.
pub fn tool<A: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = A>) -> Ended {
    let ended = run(Command::new(name).args(arguments));
    assert_eq!(ended.code, Some(0), "{name}: {}", ended.stderr);
    ended
}

/// `maskcast` without the environment variables that change its log or that systemd sets.
pub fn maskcast() -> Command {
    let mut command = Command::new(super::binary::maskcast());
    for variable in ["MASKCAST_LOG", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM"] {
        command.env_remove(variable);
    }
    command
}

/// A running `maskcast` whose log is read line by line.
pub struct Program {
    pub child: Guard,
    lines: Receiver<String>,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Program {
    /// Starts it with a JSON log.
    pub fn start(command: &mut Command) -> Self {
        let mut child = Guard::spawn(
            command.args(["--log-format", "json"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()),
        );
        let stderr = BufReader::new(child.0.stderr.take().unwrap());
        let (sender, lines) = unbounded();
        let log = Arc::new(Mutex::new(String::new()));
        let written = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            for line in stderr.lines() {
                let line = line.unwrap();
                let mut log = written.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
                drop(log);
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Program { child, lines, log, reader: Some(reader) }
    }

    /// The first result of `find` in the log entries not yet read; entries before it are skipped.
    pub fn wait_for<T>(&mut self, what: &str, mut find: impl FnMut(&Value) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let Ok(line) = self.lines.recv_deadline(deadline) else {
                panic!("the log has no entry about {what}:\n{}", self.log());
            };
            if let Some(found) = serde_json::from_str(&line).ok().and_then(|entry| find(&entry)) {
                return found;
            }
        }
    }

    /// Waits for a message.
    pub fn wait_for_message(&mut self, text: &str) {
        self.wait_for(text, |entry| (entry["message"] == text).then_some(()));
    }

    /// Everything written to standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits for the end; returns the exit code and everything written to standard error.
    pub fn ended(&mut self) -> (Option<i32>, String) {
        let code = self.child.wait(DEADLINE).code();
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        (code, self.log())
    }
}
