//! Where a session begins, and what its caller wants.

use can_udp::gateway::{Command, Filter, Init, Setup};

use crate::device::{Device, Filter as Entry};
use crate::world::World;

/// What the caller does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Plan {
    /// Nothing after the handshake, unless `START` was not answered.
    Listen,
    /// Ctrl-C with `STOP` at some time, at the latest when the stream is there.
    Stop,
    /// Ctrl-C without `STOP` at some time.
    Cancel,
    /// Gives up at some time and begins again at once.
    Restart,
    /// Asks for the state after `START` twice, gives that up at some time or not, and stops.
    Status,
    /// `can-stop`: nothing but `STOP`.
    StopOnly,
}

/// The controller before the session.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Before {
    Uninitialised,
    Stopped,
    Running,
}

/// Why `INIT` cannot succeed, whatever the state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum InitError {
    /// Error 1.
    BitRate,
    /// Error 12; the session's channel is 2.
    Port,
}

#[derive(Clone, Debug)]
pub struct Case {
    pub plan: Plan,
    pub before: Before,
    pub knows_status: bool,
    pub filters: usize,
    pub attempts: u32,
    /// What a neighbour sends at some time.
    pub neighbour: Option<&'static str>,
    pub init_error: Option<InitError>,
    /// A late answer to an earlier program.
    pub stale: Option<&'static str>,
}

impl Case {
    /// A running gateway, 1 filter, 2 attempts.
    pub fn new(plan: Plan) -> Case {
        Case {
            plan,
            before: Before::Running,
            knows_status: true,
            filters: 1,
            attempts: 2,
            neighbour: None,
            init_error: None,
            stale: None,
        }
    }

    /// These cases at gateways in each state, with 1 and 2 filters, with 1 to 3 attempts, with and without `STATUS`.
    pub fn everywhere(self) -> Vec<Case> {
        let mut cases = Vec::new();
        for before in [Before::Uninitialised, Before::Stopped, Before::Running] {
            for filters in 1..=2 {
                for attempts in 1..=3 {
                    for knows_status in [true, false] {
                        cases.push(Case { before, filters, attempts, knows_status, ..self.clone() });
                    }
                }
            }
        }
        cases
    }

    /// The channel of the session.
    pub fn channel(&self) -> u8 {
        if self.init_error == Some(InitError::Port) { 2 } else { 1 }
    }

    /// What the handshake sets up; the caller adds the retry configuration.
    pub fn setup(&self) -> Setup {
        let filters = [Filter::Standard { id: 0x100, mask: 0x7FF }, Filter::Extended { id: 0, mask: 0 }];
        Setup { channel: self.channel(), filters: filters[..self.filters].to_vec(), ..Setup::default() }
    }

    /// The gateway before the session.
    pub fn world(&self) -> World {
        let mut device = Device::new();
        device.ports = 1;
        device.knows_status = self.knows_status;
        let commands: &[&str] = match self.before {
            Before::Uninitialised => &[],
            Before::Stopped => &["INIT STD 500", "FILTER ADD STD 200 7FF"],
            Before::Running => &["INIT STD 500", "FILTER ADD STD 200 7FF", "START"],
        };
        for command in commands {
            assert_eq!(device.execute(&format!("CAN 1 {command}")), "R ok");
        }
        let wanted = [
            Entry { extended: false, identifier: 0x100, mask: 0x7FF },
            Entry { extended: true, identifier: 0, mask: 0 },
        ];
        let refuses_bit_rate = self.init_error == Some(InitError::BitRate);
        World::new(device, 1, wanted[..self.filters].to_vec(), refuses_bit_rate)
    }

    /// The handshake where nothing goes wrong.
    pub fn ordinary_handshake(&self) -> Vec<Command> {
        let channel = self.channel();
        let init = Command::Init { channel, init: Init::DEFAULT };
        let mut commands = vec![init];
        if self.before == Before::Running {
            commands.extend([Command::Stop { channel }, init]);
        }
        commands.push(Command::FilterClear { channel });
        commands.extend(self.setup().filters.into_iter().map(|filter| Command::FilterAdd { channel, filter }));
        commands.push(Command::Start { channel });
        commands
    }
}
