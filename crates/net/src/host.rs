//! Connections within one host: over a Unix socket, with the handshake of TLS and without its encryption.
//!
//! Who both ends are is shown by their certificates as on every connection. After that the kernel carries the bytes, from one process
//! to the other, and nobody is in between who could read or change them: they are not encrypted. That nobody is in between has to be made
//! sure of, as somebody could have taken the name of the socket and pass the handshake on to the server:
//!
//! - What is agreed on in the handshake has the name of the socket in it ([`Name::protocol`]). By another socket than the one with that
//!   name, or its port, the server does not agree.
//! - A client goes on only with a socket that root or its own user holds (`SO_PEERCRED`). Who is one of these can read its memory, too.
//!
//! The name is in the abstract namespace, which a network namespace has for itself: who finds a name there is where the address is.

use crate::security::Credentials;
use aws_lc_rs::digest::{SHA256, digest};
use std::io;
use std::net::SocketAddr as Address;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};

/// What the server says, as it is, when it has made its part of the handshake: what comes before that it would take for a part of it.
pub(crate) const GO_ON: u8 = b'+';

/// The names that the servers of a cluster have on a host.
#[derive(Clone, Debug)]
pub(crate) struct Names(String);

impl Names {
    /// Those of the cluster with this authority.
    pub(crate) fn of(credentials: &Credentials) -> Names {
        let hash = digest(&SHA256, credentials.authority.trim().as_bytes());
        let hash: String = hash.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Names(format!("steradian/{hash}"))
    }

    /// That of the server at an address. One that listens on all addresses of the host has one name for them.
    pub(crate) fn name(&self, address: Address) -> Name {
        let host = if address.ip().is_unspecified() { "*".to_owned() } else { address.ip().to_string() };
        Name(format!("{}/{host}/{}", self.0, address.port()))
    }

    /// Connects to the server at an address of this host, if it can be trusted to be one.
    pub(crate) async fn connect(&self, address: Address) -> io::Result<(UnixStream, Name)> {
        let any = match address.ip().is_ipv4() {
            true => std::net::Ipv4Addr::UNSPECIFIED.into(),
            false => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let mut name = self.name(address);
        let mut connected = UnixStream::connect(name.path()).await;
        if connected.is_err() {
            name = self.name(Address::new(any, address.port()));
            connected = UnixStream::connect(name.path()).await;
        }
        let stream = connected?;
        let holder = rustix::net::sockopt::socket_peercred(&stream)?.uid;
        if !holder.is_root() && holder != rustix::process::geteuid() {
            let why = format!("another user ({}) has taken its name on this host", holder.as_raw());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        prepare(&stream);
        Ok((stream, name))
    }
}

/// The name of one socket.
#[derive(Clone, Debug)]
pub(crate) struct Name(String);

impl Name {
    fn path(&self) -> String {
        // So abstract names are written.
        format!("\0{}", self.0)
    }

    /// Takes it. Who came first has it until he ends.
    pub(crate) fn listen(&self) -> io::Result<UnixListener> {
        UnixListener::bind(self.path())
    }

    /// What is agreed on in the handshake (ALPN): frames follow it as they are.
    pub(crate) fn protocol(&self) -> Vec<u8> {
        format!("sr-host/1 {}", self.0).into_bytes()
    }
}

/// Has the kernel take more at once. What it does not allow is slower, and no worse.
pub(crate) fn prepare(stream: &impl std::os::fd::AsFd) {
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(stream, SEND_BUFFER);
}

/// Who does not answer within this is asked over the network.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes that wait in the kernel.
const SEND_BUFFER: usize = 4 << 20;

#[cfg(test)]
mod tests;
