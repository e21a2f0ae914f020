//! Connections: what is under way on them, and how they end.

use super::stream::{Reader, Writer};
use super::{Fabric, Gone, HostId, State, address_of, host_of};
use net::transport::Wire;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::task::Waker;
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of one direction that the two systems hold; more wait at the sender.
pub(super) const BUFFER_MAX: usize = 4 * 1024 * 1024;

/// One end of a connection: its host, and the run of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) host: HostId,
    pub(super) boot: u64,
}

/// What travels.
pub(super) enum Item {
    Bytes(Vec<u8>),
    /// Nothing more comes.
    End,
    Reset,
}

/// One direction.
pub(super) struct Pipe {
    from: End,
    to: End,
    under_way: VecDeque<(u64, Item)>,
    /// When the last item arrives: no later one arrives before it.
    last: u64,
    pub(super) arrived: VecDeque<u8>,
    pub(super) ended: bool,
    pub(super) broken: bool,
    /// Bytes under way and arrived.
    pub(super) held: usize,
    /// The receiver reads no more; the sender sends no more.
    pub(super) unread: bool,
    pub(super) closed: bool,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

/// From the one who opened it, and back.
pub(super) struct Connection {
    pub(super) pipes: [Pipe; 2],
}

impl Pipe {
    fn new(from: End, to: End) -> Pipe {
        Pipe {
            from,
            to,
            under_way: VecDeque::new(),
            last: 0,
            arrived: VecDeque::new(),
            ended: false,
            broken: false,
            held: 0,
            unread: false,
            closed: false,
            reader: None,
            writer: None,
        }
    }

    /// Both sides find it broken; what was on it is lost.
    fn tear(&mut self, wakers: &mut Vec<Waker>) {
        self.broken = true;
        self.under_way.clear();
        self.arrived.clear();
        self.held = 0;
        wakers.extend(self.reader.take());
        wakers.extend(self.writer.take());
    }
}

impl State {
    /// Makes a connection, and gives the port its end.
    pub(super) fn connect(&mut self, (host, boot): (HostId, u64), address: SocketAddr) -> Option<Wire> {
        let fabric = Fabric { state: self.me.upgrade()? };
        let id = self.next;
        self.next += 1;
        let port = self.ports.get_mut(&address)?;
        let (client, server) = (End { host, boot }, End { host: host_of(address), boot: port.boot });
        let wire = |inbound: usize, peer: SocketAddr, end: End| Wire {
            inbound: Box::new(Reader { fabric: fabric.clone(), connection: id, pipe: inbound, end }),
            outbound: Box::new(Writer { fabric: fabric.clone(), connection: id, pipe: 1 - inbound, end }),
            peer,
        };
        port.backlog.push(wire(0, address_of(host, 40_000), server));
        if let Some(waker) = port.waker.take() {
            waker.wake();
        }
        let pipes = [Pipe::new(client, server), Pipe::new(server, client)];
        self.connections.insert(id, Connection { pipes });
        Some(wire(1, address, client))
    }

    /// Puts something on its way.
    pub(super) fn send(&mut self, id: u64, direction: usize, item: Item) {
        let Some(connection) = self.connections.get(&id) else { return };
        let (from, to) = (connection.pipes[direction].from.host, connection.pipes[direction].to.host);
        let due = self.now + self.delay(from, to);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let pipe = &mut connection.pipes[direction];
        pipe.last = pipe.last.max(due);
        if let Item::Bytes(bytes) = &item {
            pipe.held += bytes.len();
        }
        pipe.under_way.push_back((pipe.last, item));
        self.busy.insert(id);
    }

    /// What is due arrives.
    pub(super) fn deliver(&mut self) -> Vec<Waker> {
        let mut wakers = Vec::new();
        let busy: Vec<u64> = self.busy.iter().copied().collect();
        for id in busy {
            for direction in [0, 1] {
                while self.deliver_next(id, direction, &mut wakers) {}
            }
            let idle =
                |connection: &Connection| connection.pipes.iter().all(|pipe| pipe.under_way.is_empty());
            if self.connections.get(&id).is_none_or(idle) {
                self.busy.remove(&id);
            }
            self.forget(id);
        }
        wakers
    }

    /// Delivers one item, if one is due.
    fn deliver_next(&mut self, id: u64, direction: usize, wakers: &mut Vec<Waker>) -> bool {
        let now = self.now;
        let Some(connection) = self.connections.get(&id) else { return false };
        let pipe = &connection.pipes[direction];
        let (from, to) = (pipe.from.host, pipe.to);
        let due = pipe.under_way.front().is_some_and(|(due, _)| *due <= now);
        let power = self.hosts.get(&to.host).is_some_and(|host| host.power);
        if !due || !power || !self.is_open(from, to.host) {
            return false;
        }
        let live = self.is_live(to.host, to.boot);
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        let pipe = &mut connection.pipes[direction];
        let Some((_, item)) = pipe.under_way.pop_front() else { return false };
        match item {
            // Nobody is there who knows this connection: the sender is told, unless it was he who said so.
            Item::Bytes(_) | Item::End if !live || pipe.unread => {
                pipe.under_way.clear();
                if !pipe.broken {
                    self.send(id, 1 - direction, Item::Reset);
                }
                return false;
            }
            Item::Bytes(bytes) => {
                self.log.note(now, || {
                    let (count, hash) = (bytes.len(), xxh3_64(&bytes));
                    format!("net {from} -> {} #{id}: {count} bytes {hash:016x}", to.host)
                });
                pipe.arrived.extend(bytes);
                wakers.extend(pipe.reader.take());
            }
            Item::End => {
                self.log.note(now, || format!("net {from} -> {} #{id}: end", to.host));
                pipe.ended = true;
                wakers.extend(pipe.reader.take());
            }
            Item::Reset => {
                self.log.note(now, || format!("net {from} -> {} #{id}: reset", to.host));
                connection.pipes.iter_mut().for_each(|pipe| pipe.tear(wakers));
            }
        }
        true
    }

    /// Drops a connection of which nobody holds anything.
    pub(super) fn forget(&mut self, id: u64) {
        let over = |pipe: &Pipe| pipe.unread && pipe.closed && (pipe.under_way.is_empty() || pipe.broken);
        if self.connections.get(&id).is_some_and(|connection| connection.pipes.iter().all(over)) {
            self.connections.remove(&id);
            self.busy.remove(&id);
        }
    }

    /// Breaks a connection in the middle.
    pub(super) fn reset(&mut self, id: u64) -> Vec<Waker> {
        let mut wakers = Vec::new();
        let now = self.now;
        self.log.note(now, || format!("net #{id}: broken"));
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.pipes.iter_mut().for_each(|pipe| pipe.tear(&mut wakers));
        }
        wakers
    }

    /// A process is gone: its ends are nobody's.
    pub(super) fn end_connections(&mut self, host: HostId, how: Gone) {
        let touches = |connection: &Connection| connection.pipes.iter().any(|pipe| pipe.from.host == host);
        let touched: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, connection)| touches(connection))
            .map(|(id, _)| *id)
            .collect();
        for id in touched {
            let mut last_words = None;
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            for (direction, pipe) in connection.pipes.iter_mut().enumerate() {
                if pipe.from.host == host {
                    pipe.closed = true;
                    pipe.writer = None;
                    match how {
                        Gone::Killed if !pipe.broken => last_words = Some(direction),
                        Gone::Killed => {}
                        // What had left the machine arrives; how much that was, nobody knows.
                        Gone::Dark => {
                            let count = pipe.under_way.len() as u64;
                            let kept = usize::try_from(self.random.below(count + 1)).unwrap_or(0);
                            pipe.under_way.truncate(kept);
                        }
                    }
                }
                if pipe.to.host == host {
                    pipe.unread = true;
                    pipe.reader = None;
                    pipe.arrived.clear();
                }
            }
            if let Some(direction) = last_words {
                let item = if self.random.one_in(2) { Item::End } else { Item::Reset };
                self.send(id, direction, item);
            }
            self.forget(id);
        }
    }
}
