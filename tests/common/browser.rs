//! A real browser: headless Chromium, controlled through chromedriver.

use std::io::{BufRead, BufReader, Lines};
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

use axum::http::Method;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;
use url::{ParseError, Url};

use super::program::{DEADLINE, Guard};

/// A browser with its own profile. It ends when the test ends, also when the test fails.
pub struct Browser {
    pub client: Client,
    session: String,
    _driver: Guard,
    /// Kept open, so that chromedriver can write more.
    _output: Lines<BufReader<ChildStdout>>,
    _profile: TempDir,
}

impl Browser {
    pub async fn start() -> Self {
        let (driver, port, output) = start_driver();
        let address = format!("http://127.0.0.1:{port}");
        let profile = tempfile::tempdir().unwrap();
        let mut arguments = vec![format!("--user-data-dir={}", profile.path().display())];
        arguments.extend(
            [
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--window-size=1200,1000",
            ]
            .map(String::from),
        );
        let capabilities = json!({
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let client = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
            .capabilities(capabilities.as_object().unwrap().clone())
            .connect(&address)
            .await
            .unwrap_or_else(|error| panic!("no browser, run `make setup-test`: {error}"));
        let session = client.session_id().await.unwrap().unwrap();
        Browser {
            client,
            session: format!("{address}/session/{session}"),
            _driver: driver,
            _output: output,
            _profile: profile,
        }
    }

    pub async fn run(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap()
    }

    /// Runs the script in the page repeatedly until its result is neither null nor false.
    pub async fn until(&self, what: &str, script: &str) -> Value {
        let mut interval = tokio::time::interval(Duration::from_millis(100));
        let answer = tokio::time::timeout(DEADLINE, async {
            loop {
                interval.tick().await;
                let answer = self.run(script).await;
                if !answer.is_null() && answer != false {
                    return answer;
                }
            }
        });
        match answer.await {
            Ok(answer) => answer,
            Err(_) => panic!("{what}: not within {DEADLINE:?}; {}", self.run("return document.body.innerText").await),
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends Chromium, which would continue to run after chromedriver is killed. Fails when it has already ended.
        let _ = ureq::delete(&self.session).config().timeout_global(Some(Duration::from_secs(10))).build().call();
    }
}

/// A chromedriver that listens, its port, and the rest of its output.
///
/// It takes a port that is free for IPv6 and exits when the same port is in use for IPv4, as happens when many tests run
/// at once. Then another one is started, which takes another port.
fn start_driver() -> (Guard, String, Lines<BufReader<ChildStdout>>) {
    const ATTEMPTS: usize = 20;
    let mut output = String::new();
    for _ in 0..ATTEMPTS {
        let mut driver = Guard::spawn(
            Command::new("chromedriver")
                .arg("--port=0")
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null()),
        );
        let mut lines = BufReader::new(driver.0.stdout.take().unwrap()).lines();
        output.clear();
        while let Some(line) = lines.next() {
            let line = line.unwrap();
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                let port = port.trim_end_matches('.').to_string();
                return (driver, port, lines);
            }
            output += &line;
            output.push('\n');
        }
        assert!(output.contains("port not available"), "chromedriver ended with the output: {output}");
    }
    panic!("{ATTEMPTS} starts of chromedriver found no free port; output of the last one: {output}");
}

/// What the page wrote to the browser's console (Chromium's own command).
#[derive(Debug)]
pub struct ConsoleLog;

impl WebDriverCompatibleCommand for ConsoleLog {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/se/log", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(json!({ "type": "browser" }).to_string()))
    }
}
