//! Real clusters of the real binary, on loopback, each in a directory of its own.

use crate::networks::within;
use crate::stores;
use kv::conformance::ports;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use tempfile::TempDir;

/// The binary under test.
pub(crate) const SR: &str = env!("CARGO_BIN_EXE_sr");

/// How long a server may take to say "ready": generous, since other tests run beside.
const READY_MAX: Duration = Duration::from_secs(60);

/// How servers are started.
#[derive(Clone, Default)]
pub(crate) struct Launch {
    /// The newest version of the messages that they speak, if not all that they could.
    pub(crate) newest: Option<u16>,
    /// The network namespace that they are in, if it is not that of the test.
    pub(crate) network: Option<String>,
}

/// A server process. Killed when dropped.
pub(crate) struct Server {
    child: Child,
    /// Everything it printed before "ready".
    pub(crate) greeting: Vec<String>,
}

impl Server {
    /// Starts `sr` with `arguments` and waits until it prints `ready`.
    pub(crate) fn start(home: &Path, arguments: &[&str]) -> Server {
        Server::start_as(&Launch::default(), home, arguments)
    }

    /// The same, otherwise than as usual.
    pub(crate) fn start_as(launch: &Launch, home: &Path, arguments: &[&str]) -> Server {
        let Launch { newest, network } = launch;
        let log = fs::OpenOptions::new().create(true).append(true).open(home.join("server.log")).unwrap();
        let mut command = Command::new(SR);
        command.args(arguments);
        if let Some(network) = network {
            command = within(network, &command);
        }
        let mut child = command
            .env("HOME", home)
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_DATA_HOME")
            .env_remove("SR_CONTEXT")
            .envs(newest.map(|newest| ("SR_WIRE_VERSION_MAX", newest.to_string())))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // The test may be over already; the pipe must be read on all the same.
                let _ = sender.send(line);
            }
        });
        let mut greeting = Vec::new();
        loop {
            match lines.recv_timeout(READY_MAX) {
                Ok(line) if line == "ready" => return Server { child, greeting },
                Ok(line) => greeting.push(line),
                Err(_) => {
                    // It ended, or hangs.
                    let _ = child.kill();
                    let log = fs::read_to_string(home.join("server.log")).unwrap_or_default();
                    panic!("sr {arguments:?} did not become ready\n{greeting:?}\n{log}");
                }
            }
        }
    }

    /// Whether it has ended by itself, and with an error.
    pub(crate) fn has_failed(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some_and(|status| !status.success())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and waits for the end.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// SIGTERM, and waits for the end. Answers whether it ended well.
    pub(crate) fn terminate(&mut self) -> bool {
        self.signal("TERM");
        self.child.wait().unwrap().success()
    }

    /// Ctrl-C, and waits for the end. Answers whether it ended well.
    pub(crate) fn interrupt(&mut self) -> bool {
        self.signal("INT");
        self.child.wait().unwrap().success()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `sr up` in a directory of its own.
pub(crate) struct Cloud {
    pub(crate) home: TempDir,
    server: Option<Server>,
    arguments: Vec<String>,
}

impl Cloud {
    /// Starts one with three targets and two copies.
    pub(crate) fn new() -> Cloud {
        Cloud::with(&[])
    }

    /// Starts one with more arguments.
    pub(crate) fn with(more: &[&str]) -> Cloud {
        let home = TempDir::new().unwrap();
        let mut arguments =
            vec!["up".to_owned(), "--dir".to_owned(), home.path().join("cloud").display().to_string()];
        match stores::next() {
            None => arguments.extend(["--listen", "127.0.0.1:0"].map(str::to_owned)),
            // Other servers would have to know the port.
            Some(place) => {
                let listen = format!("127.0.0.1:{}", ports::free(1)[0]);
                arguments.extend(["--listen".to_owned(), listen, "--store".to_owned(), place]);
            }
        }
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        let mut cloud = Cloud { home, server: None, arguments };
        cloud.start();
        cloud
    }

    /// Starts it (again).
    pub(crate) fn start(&mut self) {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        self.server = Some(Server::start(self.home.path(), &arguments));
    }

    pub(crate) fn server(&mut self) -> &mut Server {
        self.server.as_mut().unwrap()
    }

    /// A path in the test's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The file `sr up` wrote for its clients.
    pub(crate) fn context(&self) -> PathBuf {
        self.path("cloud/context.toml")
    }

    /// A client command that has not started.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        client(&self.context(), self.home.path(), arguments)
    }

    /// Runs a client command, whatever its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a client command that must succeed; answers what it printed.
    pub(crate) fn sr(&self, arguments: &[&str]) -> String {
        succeed(self.run(arguments), arguments)
    }

    /// Runs a client command that must end with `code`; answers its errors.
    pub(crate) fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "sr {arguments:?}: {errors}");
        errors
    }

    /// Gives a user with this number a context, in the directory of his name.
    pub(crate) fn user(&self, name: &str, number: u32) {
        let directory = self.path("cloud").display().to_string();
        let context = fs::read_to_string(self.context()).unwrap();
        let server = context.split('"').nth(1).unwrap();
        let number = number.to_string();
        let words = ["--name", name, "--uid", &number, "--gid", &number, "--server", server];
        self.sr(&[&["ca", "user", &directory, name][..], &words].concat());
    }

    /// Writes a local file in the test's directory.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Puts bytes to a path, through a pipe.
    pub(crate) fn pipe(&self, bytes: &[u8], path: &str) {
        let mut child = self.command(&["pipe", path]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        assert!(child.wait().unwrap().success());
    }
}

/// A client command in a clean environment.
pub(crate) fn client(context: &Path, home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(SR);
    command
        .args(arguments)
        .env("SR_CONTEXT", context)
        .env("HOME", home)
        .env_remove("XDG_CONFIG_HOME")
        .current_dir(home)
        .stdin(Stdio::null());
    command
}

/// The output of a command that must have succeeded.
pub(crate) fn succeed(output: Output, arguments: &[&str]) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "sr {arguments:?} ended with {}: {errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Bytes that do not repeat and differ by seed: xorshift64*.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
