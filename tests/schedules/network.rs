//! What the network does with one transmission, within what `transaction.rs` assumes about it.

/// The timeout of every session, in milliseconds. All times of the model are milliseconds.
pub const TIMEOUT: u32 = 300;

/// How long the line settles, as `can_udp::gateway::SETTLE` has it.
pub const SETTLE: u32 = 20;

/// The longest time between a transmission and its answer.
pub const LATEST: u32 = 2 * TIMEOUT;

/// One copy of a request: carried out and answered so long after it left; several answers are copies of one.
#[derive(Clone, Copy, Debug)]
pub struct Copy {
    pub carried_out: u32,
    pub answered: [Option<u32>; 2],
}

/// What happens to one transmission.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// It leaves, and arrives so many times.
    Network(&'static [Copy]),
    /// The local system refuses to send it.
    SendError,
    /// The program stands still so long before it leaves.
    PauseBefore(u32),
    /// The program stands still so long after it left.
    PauseAfter(u32),
}

impl Fate {
    /// Whether the program stands still and nothing else happens.
    pub fn is_pause(self) -> bool {
        matches!(self, Fate::PauseBefore(_) | Fate::PauseAfter(_))
    }

    /// Whether no answer comes.
    pub fn is_loss(self) -> bool {
        match self {
            Fate::Network(copies) => copies.iter().all(|copy| copy.answered == [None; 2]),
            _ => matches!(self, Fate::SendError),
        }
    }
}

const fn answered(carried_out: u32, answered: u32) -> Copy {
    Copy { carried_out, answered: [Some(answered), None] }
}

const fn answered_twice(carried_out: u32, first: u32, second: u32) -> Copy {
    Copy { carried_out, answered: [Some(first), Some(second)] }
}

const fn unanswered(carried_out: u32) -> Copy {
    Copy { carried_out, answered: [None; 2] }
}

/// Nothing special: a round trip of 2 ms.
pub const IN_TIME: &[Copy] = &[answered(1, 2)];

/// Every fate that is looked at. A doubled request is carried out and answered within `SETTLE` after its first answer.
pub const FAULTS: &[Fate] = &[
    // Lost: the request, the reply.
    Fate::Network(&[]),
    Fate::Network(&[unanswered(1)]),
    // The reply is late: a little, just before and after the repetition, before and after what that is answered, at the
    // last moment.
    Fate::Network(&[answered(1, SETTLE + 1)]),
    Fate::Network(&[answered(1, 2 * SETTLE - 1)]),
    Fate::Network(&[answered(1, TIMEOUT - 1)]),
    Fate::Network(&[answered(1, TIMEOUT + 1)]),
    Fate::Network(&[answered(1, TIMEOUT + 12)]),
    Fate::Network(&[answered(1, TIMEOUT + 45)]),
    Fate::Network(&[answered(1, LATEST)]),
    // The request is late.
    Fate::Network(&[answered(SETTLE, SETTLE + 1)]),
    Fate::Network(&[answered(2 * SETTLE - 2, 2 * SETTLE - 1)]),
    Fate::Network(&[answered(TIMEOUT - 2, TIMEOUT - 1)]),
    Fate::Network(&[answered(TIMEOUT + 1, TIMEOUT + 2)]),
    Fate::Network(&[answered(TIMEOUT + 11, TIMEOUT + 12)]),
    Fate::Network(&[answered(LATEST - 1, LATEST)]),
    // It is late and its reply lost, or late too.
    Fate::Network(&[unanswered(TIMEOUT + 1)]),
    Fate::Network(&[unanswered(LATEST)]),
    Fate::Network(&[answered(TIMEOUT / 2, LATEST)]),
    // The reply is doubled.
    Fate::Network(&[answered_twice(1, 2, 2)]),
    Fate::Network(&[answered_twice(1, 2, 2 + SETTLE)]),
    Fate::Network(&[answered_twice(1, TIMEOUT + 1, TIMEOUT + 1 + SETTLE)]),
    // The request is doubled; the answers come at once, as far apart as they can, the second first.
    Fate::Network(&[answered(1, 2), answered(1, 2)]),
    Fate::Network(&[answered(1, 2), answered(1 + SETTLE, 2 + SETTLE)]),
    Fate::Network(&[answered(1, 2 + SETTLE), answered(1, 2)]),
    Fate::Network(&[answered(1, 2), unanswered(2 + SETTLE)]),
    Fate::Network(&[answered(1, TIMEOUT + 1), answered(TIMEOUT + SETTLE, TIMEOUT + 1 + SETTLE)]),
    // The request is doubled and the first copy's answer is lost.
    Fate::Network(&[unanswered(1), answered(1, 2)]),
    Fate::Network(&[unanswered(1), answered(SETTLE, SETTLE + 1)]),
    Fate::Network(&[unanswered(1), answered(TIMEOUT - 2, TIMEOUT - 1)]),
    Fate::Network(&[unanswered(1), answered(TIMEOUT, TIMEOUT + 1)]),
    Fate::Network(&[unanswered(1), answered(LATEST - 1, LATEST)]),
    Fate::Network(&[unanswered(1), unanswered(LATEST)]),
    Fate::SendError,
    Fate::PauseBefore(TIMEOUT + 50),
    Fate::PauseAfter(SETTLE + 10),
    Fate::PauseAfter(TIMEOUT + 50),
    Fate::PauseAfter(3 * TIMEOUT),
];

/// How long the program can stand still while it waits.
pub const PAUSES: &[u32] = &[SETTLE + 10, TIMEOUT + 50, 3 * TIMEOUT];
