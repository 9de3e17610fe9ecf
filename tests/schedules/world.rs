//! The gateway, what is under way to it and back, and the clock.

use std::rc::Rc;

use can_udp::gateway::{Command, SETTLE, Verb};

use crate::case::Refusal;
use crate::device::{ControllerState, Device, Filter};
use crate::network::{self, Copy};

/// The one port of the gateway.
const CHANNEL: u8 = 1;

/// A reply that is under way or lies in the socket's queue.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The number of the command that it answers; 0 if that was none of ours.
    pub number: u32,
    pub text: String,
}

#[derive(Clone, Debug)]
enum Packet {
    Request { number: u32, command: Command, answered: [Option<u32>; 2] },
    Reply(Reply),
}

/// What the gateway has carried out.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// A `START` was carried out while the filters were not the wanted ones.
    pub started_with_other_filters: bool,
    /// The number of the latest command of ours that was carried out as `STOP`.
    pub stopped_by: Option<u32>,
    /// The number of the latest command of ours that was carried out as `START`.
    pub started_by: Option<u32>,
    /// The number of the latest command of ours that was carried out as `INIT`.
    pub initialised_by: Option<u32>,
    /// When the neighbour did something that was carried out.
    pub neighbour_at: Option<u32>,
}

/// Everything outside the program.
#[derive(Clone, Debug)]
pub struct World {
    pub now: u32,
    pub device: Device,
    pub facts: Facts,
    pub inbox: Vec<Reply>,
    refusal: Option<Refusal>,
    /// The lines of our commands: formatting takes more time than the rest.
    lines: Rc<[(Command, String)]>,
    wanted: Vec<Filter>,
    under_way: Vec<(u32, Packet)>,
}

impl World {
    /// A world in which port 1 of `device` should get the filters `wanted`.
    pub fn new(device: Device, lines: Vec<(Command, String)>, wanted: Vec<Filter>, refusal: Option<Refusal>) -> World {
        assert_eq!(SETTLE.as_millis(), network::SETTLE.into());
        World {
            now: 0,
            device,
            facts: Facts::default(),
            inbox: Vec::new(),
            refusal,
            lines: lines.into(),
            wanted,
            under_way: Vec::new(),
        }
    }

    /// A request leaves.
    pub fn transmit(&mut self, number: u32, command: Command, copies: &[Copy]) {
        for copy in copies {
            let answered = copy.answered.map(|after| after.map(|after| self.now + after));
            self.add(self.now + copy.carried_out, Packet::Request { number, command, answered });
        }
    }

    /// A late answer to an earlier program arrives at this time.
    pub fn add_stale_reply(&mut self, at: u32, text: &str) {
        self.add(at, Packet::Reply(Reply { number: 0, text: text.to_owned() }));
    }

    /// The neighbour's command is carried out; returns the answer.
    pub fn neighbour(&mut self, action: &str) -> Reply {
        let before = self.device.state(CHANNEL);
        let text = self.device.execute(&format!("CAN {CHANNEL} {action}"));
        if self.device.state(CHANNEL) != before {
            self.facts.neighbour_at = Some(self.now);
        }
        Reply { number: 0, text }
    }

    /// Lets time pass until `until`, or until a reply has arrived. Everything of that moment has happened then.
    pub fn run_until(&mut self, until: u32) {
        let has_mail = !self.inbox.is_empty();
        while let Some(index) = self.next_packet(until) {
            if !has_mail && !self.inbox.is_empty() && self.under_way[index].0 > self.now {
                return;
            }
            self.deliver(index);
        }
        if has_mail || self.inbox.is_empty() {
            self.now = until;
        }
    }

    /// Lets time pass while the program stands still.
    pub fn run_through(&mut self, until: u32) {
        while let Some(index) = self.next_packet(until) {
            self.deliver(index);
        }
        self.now = until;
    }

    /// Whether no request and no reply is under way or unread.
    pub fn is_quiet(&self) -> bool {
        self.inbox.is_empty() && self.under_way.is_empty()
    }

    /// Whether an answer to this command of ours is under way or unread, or can still be caused.
    pub fn may_be_answered(&self, number: u32) -> bool {
        let is_of = |packet: &Packet| match packet {
            Packet::Request { number: of, answered, .. } => *of == number && *answered != [None; 2],
            Packet::Reply(reply) => reply.number == number,
        };
        self.under_way.iter().any(|(_, packet)| is_of(packet)) || self.inbox.iter().any(|reply| reply.number == number)
    }

    /// Whether a `START` can still be carried out.
    pub fn may_still_start(&self) -> bool {
        let is_start =
            |packet: &Packet| matches!(packet, Packet::Request { command: Command { verb: Verb::Start, .. }, .. });
        self.under_way.iter().any(|(_, packet)| is_start(packet))
    }

    /// Whether the controller is on the bus.
    pub fn is_running(&self) -> bool {
        self.device.is_running(CHANNEL)
    }

    /// Whether the controller was never initialised.
    pub fn is_uninitialised(&self) -> bool {
        self.device.state(CHANNEL) == ControllerState::Uninitialised
    }

    /// Whether exactly the wanted filters are set.
    pub fn has_wanted_filters(&self) -> bool {
        self.device.filters(CHANNEL) == self.wanted
    }

    fn add(&mut self, at: u32, packet: Packet) {
        self.under_way.push((at, packet));
    }

    /// The packet that arrives next, if that is not after `until`; of several the one that was added first.
    fn next_packet(&self, until: u32) -> Option<usize> {
        let due = self.under_way.iter().enumerate().filter(|(_, (at, _))| *at <= until);
        due.min_by_key(|(_, (at, _))| *at).map(|(index, _)| index)
    }

    fn deliver(&mut self, index: usize) {
        let (at, packet) = self.under_way.remove(index);
        self.now = self.now.max(at);
        match packet {
            Packet::Reply(reply) => self.inbox.push(reply),
            Packet::Request { number, command, answered } => {
                let text = self.carry_out(number, command);
                for at in answered.into_iter().flatten() {
                    self.add(at, Packet::Reply(Reply { number, text: text.clone() }));
                }
            }
        }
    }

    fn carry_out(&mut self, number: u32, command: Command) -> String {
        let is_running = self.is_running();
        let (_, line) = self.lines.iter().find(|(of, _)| *of == command).expect("a command of the session");
        if let Some(Refusal { command: begin, text, while_running, times }) = &mut self.refusal {
            let is_meant = line["CAN 1 ".len()..].starts_with(*begin) && *times > 0;
            if is_meant && (is_running || !*while_running) {
                *times -= 1;
                return text.clone();
            }
        }
        let text = self.device.execute(line);
        if text == "R ok" {
            match command.verb {
                Verb::Start => {
                    self.facts.started_by = Some(number);
                    self.facts.started_with_other_filters |= !self.has_wanted_filters();
                }
                Verb::Stop => self.facts.stopped_by = Some(number),
                Verb::Init(_) => self.facts.initialised_by = Some(number),
                _ => {}
            }
        }
        text
    }
}
