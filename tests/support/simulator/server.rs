//! The two threads of a simulated gateway, and what they share with its handle.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::builder::Options;
use super::device::{Device, MAX_PORTS};
use super::network::Reaction;
use super::stream::{Stream, passes};
use super::{Execution, Gateway, Received};

/// What the threads and the handle share.
pub(super) struct Server {
    pub socket: UdpSocket,
    pub address: SocketAddr,
    state: Mutex<State>,
    pub changed: Condvar,
}

pub(super) struct State {
    pub device: Device,
    pub options: Options,
    pub received: Vec<Received>,
    pub executed: Vec<Execution>,
    pub latest_client: Option<SocketAddr>,
    pub stream: Option<Stream>,
    pub frames_sent: u64,
    pub ending: bool,
    pub crashed: bool,
    /// By how much the worst event was late.
    pub lateness: Duration,
    /// What the network still has to deliver, in either direction.
    under_way: Vec<Delivery>,
    frames_made: u64,
}

/// What reaches its destination at its time.
struct Delivery {
    due: Instant,
    what: Packet,
}

enum Packet {
    /// A request, and when its answers arrive.
    Request {
        bytes: Vec<u8>,
        from: SocketAddr,
        reaction: Reaction,
        answers: Vec<Instant>,
    },
    Reply {
        bytes: Vec<u8>,
        to: SocketAddr,
    },
}

impl Server {
    pub fn start(socket: UdpSocket, state: State) -> Gateway {
        let address = socket.local_addr().expect("a bound socket has an address");
        let server = Arc::new(Server { socket, address, state: Mutex::new(state), changed: Condvar::new() });
        let threads = vec![server.spawn(Server::receive), server.spawn(Server::keep_time)];
        Gateway { server, threads }
    }

    fn spawn(self: &Arc<Self>, work: fn(&Server)) -> JoinHandle<()> {
        let server = Arc::clone(self);
        thread::spawn(move || {
            if let Err(panic) = panic::catch_unwind(AssertUnwindSafe(|| work(&server))) {
                // A test that waits for the gateway must not wait in vain.
                server.lock().crashed = true;
                server.changed.notify_all();
                panic::resume_unwind(panic);
            }
        })
    }

    /// A test that panicked, maybe in a condition it waits for, must still be able to end the gateway: so poison is
    /// no obstacle.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn wait<'a>(&self, state: MutexGuard<'a, State>, until: Option<Instant>) -> MutexGuard<'a, State> {
        let timeout = until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
        let woken = self.changed.wait_timeout(state, timeout);
        woken.unwrap_or_else(PoisonError::into_inner).0
    }

    pub fn send(&self, to: SocketAddr, bytes: &[u8]) {
        let sent = self.socket.send_to(bytes, to);
        sent.unwrap_or_else(|error| panic!("the gateway cannot send to {to}: {error}"));
    }

    /// One thread receives requests. What the network does not delay is carried out and answered here.
    fn receive(&self) {
        let mut buffer = vec![0; 65536];
        loop {
            let received = self.socket.recv_from(&mut buffer);
            let at = Instant::now();
            let mut state = self.lock();
            if state.ending {
                return;
            }
            match received {
                Ok((length, from)) => {
                    state.receive(&buffer[..length], from, at);
                    self.deliver(&mut state);
                    self.changed.notify_all();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("the gateway cannot receive: {error}"),
            }
        }
    }

    /// The other thread does everything that happens at its time: what the network has delayed, and the stream.
    fn keep_time(&self) {
        let mut state = self.lock();
        while !state.ending {
            let next_delivery = self.deliver(&mut state);
            let next_burst = self.send_frames(&mut state);
            state = self.wait(state, next_delivery.into_iter().chain(next_burst).min());
        }
    }

    /// Delivers what is due and returns when the next delivery is. The lock is held meanwhile, so that no frame of the
    /// stream overtakes an answer to START that is not delayed, and none follows such an answer to STOP.
    fn deliver(&self, state: &mut State) -> Option<Instant> {
        loop {
            let now = Instant::now();
            let (next, due) = state
                .under_way
                .iter()
                .enumerate()
                .map(|(n, delivery)| (n, delivery.due))
                .min_by_key(|&(_, due)| due)?;
            if now < due {
                return Some(due);
            }
            state.lateness = state.lateness.max(now - due);
            match state.under_way.remove(next).what {
                Packet::Reply { bytes, to } => self.send(to, &bytes),
                Packet::Request { bytes, from, reaction, answers } => {
                    if let Reaction::Before(bytes) = &reaction {
                        self.send(from, bytes);
                    }
                    let mut reply = state.carry_out(&bytes, from, now);
                    if let Reaction::ReplyWith(bytes) = reaction {
                        reply = bytes;
                    }
                    let reply = |due| Delivery { due, what: Packet::Reply { bytes: reply.clone(), to: from } };
                    state.under_way.extend(answers.into_iter().map(reply));
                }
            }
        }
    }

    /// Sends the frames that are due; returns when the next ones are.
    fn send_frames(&self, state: &mut State) -> Option<Instant> {
        let (rate, limit) = (state.options.frames_per_second, state.options.stop_after_frames);
        let stream = state.stream.as_mut().filter(|_| rate > 0.0)?;
        let due = stream.due(rate);
        while stream.made < due && stream.sent < limit {
            let datagram = (state.options.frame_maker)(state.frames_made);
            state.frames_made += 1;
            stream.made += 1;
            if passes(&state.device, stream.port, &datagram) {
                self.send(stream.to, &datagram);
                stream.sent += 1;
                state.frames_sent += 1;
            }
        }
        self.changed.notify_all();
        (stream.sent < limit).then(|| stream.next(rate))
    }
}

impl State {
    pub fn new(device: Device, options: Options) -> State {
        State {
            device,
            options,
            received: Vec::new(),
            executed: Vec::new(),
            latest_client: None,
            stream: None,
            frames_sent: 0,
            ending: false,
            crashed: false,
            lateness: Duration::ZERO,
            under_way: Vec::new(),
            frames_made: 0,
        }
    }

    /// Records a request and gives it to the network.
    fn receive(&mut self, bytes: &[u8], from: SocketAddr, at: Instant) {
        let same = |earlier: &&Received| earlier.bytes == bytes;
        let copy = 1 + self.received.iter().filter(same).count() as u32;
        let reaction = match self.options.silent {
            true => Reaction::LoseRequest,
            false => (self.options.script)(&String::from_utf8_lossy(bytes), copy),
        };
        self.received.push(Received { bytes: bytes.to_vec(), from, at });
        self.latest_client = Some(from);
        for copy in reaction.copies() {
            let answers = copy.answers.iter().map(|&delay| at + delay).collect();
            let what = Packet::Request { bytes: bytes.to_vec(), from, reaction: reaction.clone(), answers };
            self.under_way.push(Delivery { due: at + copy.carried_out, what });
        }
    }

    fn carry_out(&mut self, bytes: &[u8], from: SocketAddr, now: Instant) -> Vec<u8> {
        let command = String::from_utf8_lossy(bytes).into_owned();
        let before = self.device;
        let mut refusals = self.options.refusals.iter();
        let refusal = refusals.find(|(prefix, _)| command.starts_with(prefix));
        let reply = match refusal {
            Some((_, reply)) => (reply.clone() + self.device.line_ending).into_bytes(),
            None => self.device.handle(bytes),
        };
        for port in 1..=MAX_PORTS {
            match (before.is_running(port), self.device.is_running(port)) {
                (false, true) => self.stream = Some(Stream::new(from, port, now)),
                (true, false) if self.stream.as_ref().is_some_and(|stream| stream.port == port) => self.stream = None,
                _ => {}
            }
        }
        let text = String::from_utf8_lossy(&reply).into_owned();
        self.executed.push(Execution { command, reply: text, before, after: self.device });
        reply
    }

    pub fn lose_power(&mut self) {
        self.device.lose_power();
        self.stream = None;
        self.under_way.clear();
    }
}
