//! A CAN@net gateway as its vendor describes it, as a pure state machine: commands in, replies out, no socket, no clock.
//!
//! Written from the protocol alone, without the crate, so that a mistake made there is not repeated here. Small and `Copy`,
//! so that an exhaustive model can keep one for each state.
#![allow(dead_code)] // each test program uses a part of it

use std::fmt;

/// The number of CAN ports of the largest model.
pub const MAX_PORTS: u8 = 4;

/// The number of filter entries of each kind in a CAN@net Basic.
pub const FILTERS_OF_EACH_KIND: usize = 5;

/// The bit rates that the vendor lists, in kbit/s.
const BIT_RATES: [&str; 10] = ["5", "10", "20", "50", "100", "125", "250", "500", "800", "1000"];

/// Those of the data phase of CAN FD.
const DATA_BIT_RATES: [&str; 6] = ["500", "1000", "2000", "4000", "5000", "8000"];

/// The state of one CAN controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ControllerState {
    /// After power-on: knows neither bit rate nor mode.
    Uninitialised,
    /// Initialised, off the bus.
    Stopped,
    /// On the bus.
    Running,
}

/// One entry of an acceptance filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Filter {
    /// Whether it is for 29-bit identifiers.
    pub extended: bool,
    /// The identifier, of which only the bits of the mask matter.
    pub identifier: u32,
    /// The bits that are compared.
    pub mask: u32,
}

impl fmt::Display for Filter {
    /// As in `STD 123 7FF`, without leading zeros.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.extended { "EXT" } else { "STD" };
        write!(f, "{kind} {:X} {:X}", self.identifier, self.mask)
    }
}

type Entries = [Option<Filter>; FILTERS_OF_EACH_KIND];
const NO_ENTRIES: Entries = [None; FILTERS_OF_EACH_KIND];

/// One CAN port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Controller {
    state: ControllerState,
    standard: Entries,
    extended: Entries,
}

/// The gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Device {
    /// The number of CAN ports, 1 to [`MAX_PORTS`]; commands for others are refused with error 12.
    pub ports: u8,
    /// Whether it carries out commands that are well formed in any state, any number of times. Only INIT of a running and
    /// STATUS of an uninitialised controller are refused all the same.
    pub accepting: bool,
    /// Whether it knows STATUS.
    pub knows_status: bool,
    /// What STATUS shows before `I`: bus off, error warning, overrun, transmission pending, each a letter or `-`.
    pub flags: [u8; 4],
    /// What ends a reply: `"\n"`, `"\r"`, `"\r\n"`, or the characters `"\\n"`, `"\\r"`, `"\\r\\n"`.
    pub line_ending: &'static str,
    controllers: [Controller; MAX_PORTS as usize],
}

/// A refusal with its number in the vendor's list.
type Refusal = (u32, &'static str);

const UNKNOWN_COMMAND: Refusal = (0, "unknown command");
const BIT_RATE: Refusal = (1, "baud rate not found");
const EXTENDED_FULL: Refusal = (4, "extended filter is full");
const SET_TWICE: Refusal = (5, "standard filter set twice");
const STANDARD_FULL: Refusal = (6, "standard filter is full");
const BAD_FILTER: Refusal = (7, "invalid identifier or mask for filter add");
const BAD_TYPE: Refusal = (9, "invalid parameter type");
const BAD_STATE: Refusal = (10, "invalid CAN state");
const BAD_MODE: Refusal = (11, "invalid parameter mode");
const BAD_PORT: Refusal = (12, "invalid port number");

impl Device {
    /// A gateway after power-on, with [`MAX_PORTS`] ports.
    pub fn new() -> Device {
        Device {
            ports: MAX_PORTS,
            accepting: false,
            knows_status: true,
            flags: *b"----",
            line_ending: "\n",
            controllers: [Controller::new(); MAX_PORTS as usize],
        }
    }

    /// Carries out every line of a datagram and returns the replies, each with its line ending.
    pub fn handle(&mut self, datagram: &[u8]) -> Vec<u8> {
        let text = String::from_utf8_lossy(datagram);
        let mut replies = String::new();
        for line in text.split_inclusive('\n') {
            replies += &match line.strip_suffix('\n') {
                Some(line) => self.execute(line),
                None => refused(UNKNOWN_COMMAND),
            };
            replies += self.line_ending;
        }
        replies.into_bytes()
    }

    /// Carries out one command, given without its line ending, and returns the reply, likewise without.
    pub fn execute(&mut self, line: &str) -> String {
        let line = line.to_ascii_uppercase();
        let tokens: Vec<&str> = line.split_ascii_whitespace().collect();
        let ["CAN", port, action @ ..] = tokens.as_slice() else {
            return refused(UNKNOWN_COMMAND);
        };
        let Some(port) = port.parse().ok().filter(|port| (1..=self.ports).contains(port)) else {
            return refused(BAD_PORT);
        };
        if let ["STATUS"] = action {
            return self.status(port);
        }
        let accepting = self.accepting;
        let result = self.controller_mut(port).carry_out(action, accepting);
        result.map_or_else(refused, |()| "R ok".to_owned())
    }

    /// The state of a port's controller.
    pub fn state(&self, port: u8) -> ControllerState {
        self.controller(port).state
    }

    /// Puts a controller into a state, as another program could have done. Its filters stay.
    pub fn set_state(&mut self, port: u8, state: ControllerState) {
        self.controller_mut(port).state = state;
    }

    /// Whether a port's controller is on the bus.
    pub fn is_running(&self, port: u8) -> bool {
        self.state(port) == ControllerState::Running
    }

    /// The entries of a port's acceptance filter, standard ones first, in the order in which they were added.
    pub fn filters(&self, port: u8) -> Vec<Filter> {
        let controller = self.controller(port);
        controller.standard.into_iter().chain(controller.extended).flatten().collect()
    }

    /// Whether a port's acceptance filter passes frames with this identifier.
    pub fn passes(&self, port: u8, extended: bool, identifier: u32) -> bool {
        let controller = self.controller(port);
        let entries = if extended { &controller.extended } else { &controller.standard };
        entries.iter().flatten().any(|filter| (filter.identifier ^ identifier) & filter.mask == 0)
    }

    /// Forgets everything but its configuration.
    pub fn lose_power(&mut self) {
        self.controllers = [Controller::new(); MAX_PORTS as usize];
    }

    fn status(&self, port: u8) -> String {
        let flags = String::from_utf8_lossy(&self.flags);
        match self.state(port) {
            _ if !self.knows_status => refused(UNKNOWN_COMMAND),
            ControllerState::Uninitialised => refused(BAD_STATE),
            ControllerState::Stopped => format!("R CAN {port} {flags}I 100"),
            ControllerState::Running => format!("R CAN {port} {flags}- 100"),
        }
    }

    fn controller(&self, port: u8) -> &Controller {
        &self.controllers[usize::from(port) - 1]
    }

    fn controller_mut(&mut self, port: u8) -> &mut Controller {
        &mut self.controllers[usize::from(port) - 1]
    }
}

impl Controller {
    fn new() -> Controller {
        Controller { state: ControllerState::Uninitialised, standard: NO_ENTRIES, extended: NO_ENTRIES }
    }

    fn carry_out(&mut self, action: &[&str], accepting: bool) -> Result<(), Refusal> {
        use ControllerState::{Running, Stopped};
        let allowed = |state: bool| if state { Ok(()) } else { Err(BAD_STATE) };
        match action {
            ["INIT", how @ ..] => {
                allowed(self.state != Running)?;
                check_init(how)?;
                self.state = Stopped;
            }
            ["FILTER", "CLEAR"] => {
                allowed(self.state == Stopped || accepting)?;
                (self.standard, self.extended) = (NO_ENTRIES, NO_ENTRIES);
            }
            ["FILTER", "ADD", entry @ ..] => {
                allowed(self.state == Stopped || accepting)?;
                let added = self.add(parse_filter(entry)?);
                if !accepting {
                    added?;
                }
            }
            ["START"] => {
                allowed(self.state == Stopped || accepting)?;
                self.state = Running;
            }
            ["STOP"] => {
                allowed(self.state == Running || accepting)?;
                self.state = Stopped;
            }
            _ => return Err(UNKNOWN_COMMAND),
        }
        Ok(())
    }

    fn add(&mut self, filter: Filter) -> Result<(), Refusal> {
        let (entries, full) = match filter.extended {
            true => (&mut self.extended, EXTENDED_FULL),
            false => (&mut self.standard, STANDARD_FULL),
        };
        if entries.contains(&Some(filter)) {
            return Err(SET_TWICE);
        }
        let free = entries.iter_mut().find(|entry| entry.is_none()).ok_or(full)?;
        *free = Some(filter);
        Ok(())
    }
}

/// Whether a controller can be initialised like that: as in `STD 250`, or as in `MODE=STD BAUDA=250`.
fn check_init(how: &[&str]) -> Result<(), Refusal> {
    if let ["STD", rate] = how {
        return if BIT_RATES.contains(rate) { Ok(()) } else { Err(BIT_RATE) };
    }
    let [mut mode, mut rate] = [None; 2];
    for token in how {
        match token.split_once('=') {
            Some(("MODE", value @ ("STD" | "LISTEN"))) => mode = Some(value),
            Some(("MODE", _)) => return Err(BAD_MODE),
            Some(("BAUDA", value)) if BIT_RATES.contains(&value) => rate = Some(value),
            Some(("BAUDD", value)) if DATA_BIT_RATES.contains(&value) => {}
            Some(("BAUDA" | "BAUDD", _)) => return Err(BIT_RATE),
            Some(("ISO", "ISO" | "NONISO")) => {}
            _ => return Err(BAD_TYPE),
        }
    }
    mode.and(rate).map(|_| ()).ok_or(BAD_TYPE)
}

/// Reads an entry as in `STD 000 000`, or as in `TYPE=STD ID=0 MASK=0`.
fn parse_filter(entry: &[&str]) -> Result<Filter, Refusal> {
    let &[kind, identifier, mask] = entry else { return Err(BAD_FILTER) };
    fn value<'a>(name: &str, token: &'a str) -> &'a str {
        token.strip_prefix(name).unwrap_or(token)
    }
    let [kind, identifier, mask] = [value("TYPE=", kind), value("ID=", identifier), value("MASK=", mask)];
    let (extended, highest) = match kind {
        "STD" => (false, 0x7FF),
        "EXT" => (true, 0x1FFF_FFFF),
        _ => return Err(BAD_TYPE),
    };
    let parse = |token| u32::from_str_radix(token, 16).ok().filter(|&number| number <= highest).ok_or(BAD_FILTER);
    Ok(Filter { extended, identifier: parse(identifier)?, mask: parse(mask)? })
}

fn refused((number, text): Refusal) -> String {
    format!("R ERR {number} {text}")
}
