//! A real browser without a window: opens a page, looks at it, types into it, and hears what it complains about.
//!
//! Spoken to by the `DevTools` protocol over a web socket.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket};

use crate::cluster::process::Process;
use crate::cluster::wait;

/// The answer to what was asked of a page that another one takes the place of.
const LEFT: &str = "Inspected target navigated or closed";

/// Until the browser runs, for one answer, and for what a page must come to.
const LIMIT: Duration = Duration::from_secs(30);

const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// How a page is looked at.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// In pixels of the page.
    pub width: u32,
    pub height: u32,
    pub dark: bool,
}

impl View {
    pub const PHONE: Self = Self {
        width: 390,
        height: 844,
        dark: false,
    };
    pub const DESK: Self = Self {
        width: 1280,
        height: 900,
        dark: false,
    };
}

/// A browser with one page.
#[derive(Debug)]
pub struct Browser {
    socket: WebSocket<TcpStream>,
    asked: u64,
    session: Option<String>,
    complaints: Vec<String>,
    // Before its directory.
    _process: Process,
    _directory: TempDir,
}

/// Whether there is a browser to test with. `./dev` says so, loudly, where the distribution has none.
pub fn is_wanted() -> bool {
    std::env::var_os("CHAOS_WITHOUT_BROWSER").is_none()
}

impl Browser {
    /// Starts the Chromium of this machine with an empty profile.
    pub fn start() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let profile = directory.path().join("profile");
        let mut command = Command::new(find()?);
        command
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
            ])
            .args([
                "--no-first-run",
                "--disable-background-networking",
                "--no-proxy-server",
            ])
            .args(["--hide-scrollbars", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("about:blank");
        let process = Process::start("Chromium", command, &directory.path().join("log"))?;
        let endpoint = process.until("the port of Chromium", LIMIT, || {
            let text = fs::read_to_string(profile.join("DevToolsActivePort")).unwrap_or_default();
            let place = text.split_once('\n');
            Ok(place.map(|(port, path)| (port.to_owned(), path.trim().to_owned())))
        })?;
        let (port, path) = endpoint;
        let stream = TcpStream::connect(format!("127.0.0.1:{port}"))?;
        stream.set_read_timeout(Some(LIMIT))?;
        let (socket, _) = tungstenite::client(format!("ws://127.0.0.1:{port}{path}"), stream)
            .context("speak to Chromium")?;
        Ok(Self {
            socket,
            asked: 0,
            session: None,
            complaints: Vec::new(),
            _process: process,
            _directory: directory,
        })
    }

    /// Opens an address in a page of its own; what an earlier page complained about is forgotten.
    pub fn open(&mut self, url: &str, view: View) -> Result<()> {
        self.session = None;
        let target = self.call("Target.createTarget", &json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = self.call("Target.attachToTarget", &attach)?;
        self.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Runtime", "Log", "Page", "Accessibility"] {
            self.call(&format!("{domain}.enable"), &json!({}))?;
        }
        self.complaints.clear();
        let scheme = if view.dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", &json!({"features": features}))?;
        let metrics = json!({
            "width": view.width, "height": view.height, "deviceScaleFactor": 1, "mobile": view.width < 600,
        });
        self.call("Emulation.setDeviceMetricsOverride", &metrics)?;
        let opened = self.call("Page.navigate", &json!({"url": url}))?;
        if let Some(error) = opened.get("errorText") {
            bail!("open {url}: {error}");
        }
        Ok(())
    }

    /// The value of an expression in the page.
    pub fn value(&mut self, expression: &str) -> Result<Value> {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut answer = self.call("Runtime.evaluate", &asked)?;
        if let Some(thrown) = answer.get("exceptionDetails") {
            bail!("{expression}: {thrown}");
        }
        Ok(answer["result"]["value"].take())
    }

    /// The text that an element shows; empty when there is no such element.
    pub fn text(&mut self, selector: &str) -> Result<String> {
        let selector = Value::from(selector);
        let text = self.value(&format!(
            "document.querySelector({selector})?.innerText ?? ''"
        ))?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until an expression is true. A page that is just being left has no answer.
    pub fn until(&mut self, expression: &str) -> Result<()> {
        wait::until(expression, LIMIT, || match self.value(expression) {
            Err(error) if error.to_string().contains(LEFT) => Ok(None),
            value => Ok((value? == Value::Bool(true)).then_some(())),
        })
    }

    /// Begins to load the page again.
    pub fn reload(&mut self) -> Result<()> {
        self.call("Page.reload", &json!({})).map(drop)
    }

    /// Types into whatever has the focus.
    pub fn write(&mut self, text: &str) -> Result<()> {
        self.call("Input.insertText", &json!({"text": text}))
            .map(drop)
    }

    /// Presses and releases a key, `Tab` or `Enter`.
    pub fn press(&mut self, key: &str) -> Result<()> {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            other => bail!("{other} is not known here"),
        };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let event = json!({
                "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text,
            });
            self.call("Input.dispatchKeyEvent", &event)?;
        }
        Ok(())
    }

    /// What a screen reader is given: role and name of every element that is not ignored.
    pub fn spoken(&mut self) -> Result<Vec<(String, String)>> {
        let tree = self.call("Accessibility.getFullAXTree", &json!({}))?;
        let nodes = tree["nodes"].as_array().into_iter().flatten();
        let text = |value: &Value| value["value"].as_str().unwrap_or_default().to_owned();
        Ok(nodes
            .filter(|node| node["ignored"] != true)
            .map(|node| (text(&node["role"]), text(&node["name"])))
            .collect())
    }

    /// Errors and warnings since the page was opened: of its scripts, of its policy, of the network.
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    /// Writes a picture of the whole page.
    pub fn picture(&mut self, file: &Path) -> Result<()> {
        let shot = json!({"format": "png", "captureBeyondViewport": true});
        let shot = self.call("Page.captureScreenshot", &shot)?;
        let text = shot["data"].as_str().context("a picture without data")?;
        let bytes = data_encoding::BASE64.decode(text.as_bytes())?;
        fs::write(file, bytes).with_context(|| format!("write {}", file.display()))
    }

    fn call(&mut self, method: &str, parameters: &Value) -> Result<Value> {
        self.asked += 1;
        let id = self.asked;
        let mut request = json!({"id": id, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            request["sessionId"] = session.as_str().into();
        }
        self.socket.send(Message::text(request.to_string()))?;
        loop {
            let message = self
                .socket
                .read()
                .with_context(|| format!("wait for {method}"))?;
            let Message::Text(text) = message else {
                continue;
            };
            let mut said: Value = serde_json::from_str(&text)?;
            if said["id"] != id {
                self.hear(&said);
                continue;
            }
            if let Some(error) = said.get("error") {
                bail!("{method}: {error}");
            }
            return Ok(said["result"].take());
        }
    }

    fn hear(&mut self, said: &Value) {
        let told = &said["params"];
        let complaint = match said["method"].as_str() {
            Some("Runtime.consoleAPICalled")
                if told["type"] == "error" || told["type"] == "warning" =>
            {
                &told["args"]
            }
            Some("Runtime.exceptionThrown") => &told["exceptionDetails"],
            Some("Log.entryAdded") if told["entry"]["level"] != "info" => &told["entry"],
            _ => return,
        };
        self.complaints.push(complaint.to_string());
    }
}

fn find() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<_> = std::env::split_paths(&path).collect();
    let candidates = NAMES
        .iter()
        .flat_map(|name| places.iter().map(move |place| place.join(name)));
    let mut found = candidates.into_iter().filter(|path| path.is_file());
    found
        .next()
        .with_context(|| format!("none of {NAMES:?} is installed"))
}
