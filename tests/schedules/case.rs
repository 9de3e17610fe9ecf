//! Where a session begins, and what its caller wants.

use can_udp::gateway::{BitRate, Command, Filter, Init, Verb};
use can_udp::{Channel, Setup};

use crate::device::{Device, Filter as Entry};
use crate::world::World;

/// What the caller does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Plan {
    /// Nothing after the handshake, unless `START` was not answered.
    Listen,
    /// Ctrl-C with `STOP` at some time, at the latest when the stream is there.
    Stop,
    /// Ctrl-C without `STOP` at some time: what has arrived is read, nothing more is sent.
    Cancel,
    /// Begins again at some time.
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

/// A command that the gateway refuses without a reason that the protocol has.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// How the command begins after its channel.
    pub command: &'static str,
    pub text: String,
    /// It is refused while the controller runs, and only then.
    pub while_running: bool,
    /// How many times it is refused.
    pub times: u32,
}

impl Refusal {
    /// It is always refused.
    pub fn new(command: &'static str, text: &str) -> Refusal {
        Refusal { command, text: text.to_owned(), while_running: false, times: u32::MAX }
    }
}

#[derive(Clone, Debug)]
pub struct Case {
    pub plan: Plan,
    pub before: Before,
    /// Not 1: the gateway has no such port.
    pub channel: u8,
    pub knows_status: bool,
    pub filters: usize,
    pub attempts: u32,
    /// What a neighbour sends at some time.
    pub neighbour: Option<&'static str>,
    pub refusal: Option<Refusal>,
    /// A late answer to an earlier program.
    pub stale: Option<&'static str>,
    /// At each step the caller also asks for everything that the state does not allow.
    pub pesters: bool,
}

impl Case {
    /// A running gateway, 1 filter, 2 attempts.
    pub fn new(plan: Plan) -> Case {
        Case {
            plan,
            before: Before::Running,
            channel: 1,
            knows_status: true,
            filters: 1,
            attempts: 2,
            neighbour: None,
            refusal: None,
            stale: None,
            pesters: false,
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
    pub fn channel(&self) -> Channel {
        Channel::try_from(self.channel).expect("a channel")
    }

    /// Whether the refusal of `INIT` names a parameter, so that a restart cannot cure it.
    pub fn parameter_is_wrong(&self) -> bool {
        let names_parameter = |refusal: &Refusal| {
            let number = refusal.text.split(' ').nth(2).and_then(|number| number.parse().ok());
            number.is_some_and(|number: u32| matches!(number, 1 | 4..=7 | 9 | 11..=22 | 25 | 27..=33))
        };
        self.channel != 1
            || self.refusal.as_ref().is_some_and(|refusal| refusal.command == "INIT" && names_parameter(refusal))
    }

    /// Whether a handshake or a `STOP` cannot succeed. A fault can cost a round of the filters.
    pub fn is_hopeless(&self, faults: u32) -> bool {
        let is_cured = |refusal: &Refusal| match refusal.command {
            "INIT" => refusal.while_running,
            _ => refusal.command == "FILTER ADD" && refusal.times.saturating_add(faults) < 4,
        };
        self.parameter_is_wrong() || self.refusal.as_ref().is_some_and(|refusal| !is_cured(refusal))
    }

    /// What the handshake sets up; the caller adds the retry configuration.
    pub fn setup(&self) -> Setup {
        let filters = [Filter::standard(0x100, 0x7FF).expect("11 bits"), Filter::ALL_EXTENDED];
        let mut setup = Setup::default();
        setup.filters = filters[..self.filters].to_vec();
        setup
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
        World::new(device, self.lines(), wanted[..self.filters].to_vec(), self.refusal.clone())
    }

    /// Every command of ours as its line.
    fn lines(&self) -> Vec<(Command, String)> {
        let others = [Verb::Stop, Verb::Status].map(|verb| Command { channel: self.channel(), verb });
        self.ordinary_handshake().into_iter().chain(others).map(|command| (command, command.to_string())).collect()
    }

    /// The handshake where nothing goes wrong.
    pub fn ordinary_handshake(&self) -> Vec<Command> {
        let init = Verb::Init(Init::new(BitRate::DEFAULT));
        let mut verbs = vec![init];
        if self.before == Before::Running {
            verbs.extend([Verb::Stop, init]);
        }
        verbs.push(Verb::FilterClear);
        verbs.extend(self.setup().filters.into_iter().map(Verb::FilterAdd));
        verbs.push(Verb::Start);
        verbs.into_iter().map(|verb| Command { channel: self.channel(), verb }).collect()
    }
}
