//! Measures calls over loopback, client and server in processes of their own, beside raw TCP and a raw rustls stream.
//!
//! `net_bench [SECONDS [MODE...]]`; modes: small, write, read, raw-tls, raw-tcp, each also with `-plain` or `-4` (four
//! connections) where that makes sense. Without modes, all of them. The figures are for both processes together.

#![allow(clippy::print_stdout, reason = "its output is its purpose")]

use bytes::Bytes;
use net::{Authority, Connection, Credentials, Expect, Identity, Security, User};
use net::{Peer, Reply, Request, Responder, Server, ServerOptions, Service};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use types::wire::{Channel, Encoded, WIRE_VERSION_MIN};
use types::{Gid, NodeId, Uid};

type Anyhow<T> = Result<T, Box<dyn Error + Send + Sync>>;

const MIB: usize = 1 << 20;
const LONG: Duration = Duration::from_secs(60);
const MODES: [&str; 11] = [
    "raw-tcp",
    "raw-tls",
    "write-plain",
    "read-plain",
    "write",
    "read",
    "write-4",
    "read-4",
    "small-plain",
    "small",
    "small-4",
];

fn main() -> Anyhow<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "serve") {
        return serve(&arguments[1], &arguments[2..]);
    }
    let seconds = arguments.first().map_or(Ok(4), |text| text.parse())?;
    let modes: Vec<&str> = if arguments.len() > 1 {
        arguments[1..].iter().map(String::as_str).collect()
    } else {
        MODES.to_vec()
    };
    let authority = Authority::create("bench")?;
    let node = authority.issue_node(NodeId(1), &["localhost".to_owned()])?;
    let user = User { name: "bench".to_owned(), uid: Uid(1), groups: vec![Gid(1)] };
    let user = authority.issue_user(&user, LONG * 60)?;
    println!("{:12} {:>12} {:>10} {:>14} {:>14}", "mode", "calls/s", "MB/s", "CPU s per GB", "CPU us/call");
    for mode in modes {
        measure(mode, Duration::from_secs(seconds), &node, &user)?;
    }
    Ok(())
}

/// A server in a process of its own.
struct Serving {
    child: Child,
    address: String,
}

impl Serving {
    fn start(mode: &str, node: &Credentials) -> Anyhow<Serving> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["serve", mode, &node.authority, &node.certificate, &node.key])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut address = String::new();
        let stdout = child.stdout.take().ok_or("no output")?;
        BufReader::new(stdout).read_line(&mut address)?;
        Ok(Serving { child, address: address.trim().to_owned() })
    }

    fn cpu(&self) -> Anyhow<f64> {
        Ok(cpu_seconds("self")? + cpu_seconds(&self.child.id().to_string())?)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU time of a process so far.
fn cpu_seconds(process: &str) -> Anyhow<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks / 100.0)
}

fn measure(mode: &str, time: Duration, node: &Credentials, user: &Credentials) -> Anyhow<()> {
    let serving = Serving::start(mode, node)?;
    let cpu = serving.cpu()?;
    let start = Instant::now();
    let (calls, bytes) = match mode {
        "raw-tcp" => (0, raw_tcp(&serving.address, time)?),
        "raw-tls" => (0, raw_tls(&serving.address, time, user)?),
        _ => tokio::runtime::Runtime::new()?.block_on(calls(mode, &serving.address, time, user))?,
    };
    let elapsed = start.elapsed().as_secs_f64();
    let cpu = serving.cpu()? - cpu;
    let gigabytes = bytes as f64 / 1e9;
    let per_byte = if bytes > 0 { format!("{:.3}", cpu / gigabytes) } else { String::new() };
    let per_call = if calls > 0 { format!("{:.2}", cpu * 1e6 / calls as f64) } else { String::new() };
    println!(
        "{mode:12} {:>12.0} {:>10.0} {per_byte:>14} {per_call:>14}",
        calls as f64 / elapsed,
        gigabytes * 1e3 / elapsed
    );
    Ok(())
}

fn raw_tcp(address: &str, time: Duration) -> Anyhow<u64> {
    let mut socket = TcpStream::connect(address)?;
    pump(&mut socket, time)
}

fn raw_tls(address: &str, time: Duration, user: &Credentials) -> Anyhow<u64> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(user.authority.as_bytes())?)?;
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.enable_sni = false;
    let mut session =
        rustls::ClientConnection::new(Arc::new(config), ServerName::try_from("localhost".to_owned())?)?;
    session.set_buffer_limit(Some(MIB));
    let mut stream = rustls::StreamOwned::new(session, TcpStream::connect(address)?);
    pump(&mut stream, time)
}

fn pump(stream: &mut impl Write, time: Duration) -> Anyhow<u64> {
    let block = vec![7u8; MIB];
    let start = Instant::now();
    let mut bytes = 0;
    while start.elapsed() < time {
        stream.write_all(&block)?;
        bytes += MIB as u64;
    }
    stream.flush()?;
    Ok(bytes)
}

async fn calls(mode: &str, address: &str, time: Duration, user: &Credentials) -> Anyhow<(u64, u64)> {
    let security = if mode.ends_with("-plain") {
        Security::Plain(Identity::Node(NodeId(2)))
    } else {
        Security::Tls(user.clone())
    };
    let connections = if mode.ends_with("-4") { 4 } else { 1 };
    let kind = mode.split('-').next().unwrap_or_default().to_owned();
    let in_flight = if kind == "small" { 64 } else { 8 };
    let mut tasks = Vec::new();
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(Connection::open(address, &security, Expect::AnyNode, LONG).await?);
    }
    let end = Instant::now() + time;
    for at in 0..in_flight {
        tasks.push(tokio::spawn(caller(open[at % connections].clone(), kind.clone(), end)));
    }
    let mut sum = (0, 0);
    for task in tasks {
        let (calls, bytes) = task.await??;
        sum = (sum.0 + calls, sum.1 + bytes);
    }
    Ok(sum)
}

async fn caller(connection: Connection, kind: String, end: Instant) -> Anyhow<(u64, u64)> {
    let block = Bytes::from(vec![7u8; MIB]);
    let (mut calls, mut bytes) = (0, 0);
    while Instant::now() < end {
        let payload = if kind == "write" { block.clone() } else { Bytes::new() };
        let body = if kind == "read" { b"read".to_vec() } else { vec![b'w'; 32] };
        bytes += payload.len() as u64;
        let request = Encoded { body, since: WIRE_VERSION_MIN };
        let answer = connection.start(Channel::Storage, request, payload, LONG).await?;
        bytes += answer.payload.len() as u64;
        calls += 1;
    }
    Ok((calls, if kind == "small" { 0 } else { bytes }))
}

/// Answers `read` with 1 MiB and everything else with a few bytes.
struct Bench {
    block: Bytes,
}

impl Service for Bench {
    fn handle(&self, _peer: &Arc<Peer>, request: Request, responder: Responder) {
        let payload = if &request.body[..] == b"read" { self.block.clone() } else { Bytes::new() };
        responder.send(Reply { body: vec![1; 16], payload });
    }
}

fn serve(mode: &str, credentials: &[String]) -> Anyhow<()> {
    let [authority, certificate, key] = credentials else { return Err("three PEM texts are needed".into()) };
    let node =
        Credentials { authority: authority.clone(), certificate: certificate.clone(), key: key.clone() };
    match mode {
        "raw-tcp" => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            println!("{}", listener.local_addr()?);
            drain(&mut listener.accept()?.0)
        }
        "raw-tls" => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            println!("{}", listener.local_addr()?);
            let chain = vec![CertificateDer::from_pem_slice(node.certificate.as_bytes())?];
            let key = PrivateKeyDer::from_pem_slice(node.key.as_bytes())?;
            let config =
                rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
            let session = rustls::ServerConnection::new(Arc::new(config))?;
            drain(&mut rustls::StreamOwned::new(session, listener.accept()?.0))
        }
        _ => tokio::runtime::Runtime::new()?.block_on(async {
            let security = if mode.ends_with("-plain") {
                Security::Plain(Identity::Node(NodeId(1)))
            } else {
                Security::Tls(node)
            };
            let service = Arc::new(Bench { block: Bytes::from(vec![7u8; MIB]) });
            let options = ServerOptions::default();
            let server = Server::bind("127.0.0.1:0", Arc::new(security), service, options).await?;
            println!("{}", server.address());
            // Until the other process closes its end.
            tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new())).await??;
            Ok(())
        }),
    }
}

fn drain(stream: &mut impl Read) -> Anyhow<()> {
    let mut buffer = vec![0; MIB];
    while stream.read(&mut buffer)? > 0 {}
    Ok(())
}
