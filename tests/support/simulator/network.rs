//! The network between a program and the gateway: what befalls each transmission, in both directions.

use std::time::Duration;

/// For how long the rest of a doubled request can follow its first answer. The programs assume at most 20 ms; what is
/// between is for a machine that is slow to wake a thread.
const REST_OF_A_COPY: Duration = Duration::from_millis(8);

/// Decides what befalls each request: given its text and how many times that text has been received by now, this time
/// included.
pub type Script = Box<dyn FnMut(&str, u32) -> Reaction + Send>;

/// What befalls one request and the reply to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// The request is carried out and answered.
    Answer,
    /// The request is lost: not carried out, not answered, but recorded.
    LoseRequest,
    /// The request is carried out, the reply is lost.
    LoseReply,
    /// The request is carried out at once and answered that much later; other requests are handled meanwhile.
    Delay(Duration),
    /// The request reaches the gateway that much later, and is answered at once then.
    DelayRequest(Duration),
    /// The request is doubled: the gateway carries it out and answers it at once, and once more that much later.
    DoubleRequest(Duration),
    /// The reply is sent so many times in a row.
    Repeat(u32),
    /// The request is carried out, and these bytes are sent in place of the reply.
    ReplyWith(Vec<u8>),
    /// These bytes are sent as a datagram of their own before the reply.
    Before(Vec<u8>),
    /// Anything else: these copies of the request reach the gateway, in this order.
    Fate(Vec<RequestCopy>),
}

/// One copy of a request. Times count from when the request was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestCopy {
    /// When the gateway carries it out.
    pub carried_out: Duration,
    /// When its answer arrives: never, once, or several times.
    pub answers: Vec<Duration>,
}

impl Reaction {
    /// The copies of the request that reach the gateway.
    pub(super) fn copies(&self) -> Vec<RequestCopy> {
        let copy = |carried_out, answers: &[Duration]| RequestCopy { carried_out, answers: answers.to_vec() };
        let now = Duration::ZERO;
        match self {
            Reaction::Answer | Reaction::ReplyWith(_) | Reaction::Before(_) => vec![copy(now, &[now])],
            Reaction::LoseRequest => vec![],
            Reaction::LoseReply => vec![copy(now, &[])],
            Reaction::Delay(delay) => vec![copy(now, &[*delay])],
            Reaction::DelayRequest(delay) => vec![copy(*delay, &[*delay])],
            Reaction::DoubleRequest(delay) => vec![copy(now, &[now]), copy(*delay, &[*delay])],
            Reaction::Repeat(times) => vec![copy(now, &vec![now; *times as usize])],
            Reaction::Fate(copies) => copies.clone(),
        }
    }
}

/// A script of random faults: of 100 requests, so many are lost, delayed or doubled, or their replies are. The faults are
/// those of the network that the programs assume: a request is carried out and answered within two `timeout`s or never;
/// however it is doubled, what is left of it follows its first answer within 20 ms. The same seed makes the same faults.
pub fn random_faults(seed: u64, percent: u64, timeout: Duration) -> impl FnMut(&str, u32) -> Reaction + Send {
    let mut rng = Rng::new(seed);
    // A machine that wakes a thread late must not break the promise.
    let latest = 2 * timeout - timeout / 3;
    move |_, _| if rng.below(100) < percent { random_fate(&mut rng, latest) } else { Reaction::Answer }
}

/// One fault of each kind, as likely as the others.
fn random_fate(rng: &mut Rng, latest: Duration) -> Reaction {
    let copy = |carried_out, answers: &[Duration]| RequestCopy { carried_out, answers: answers.to_vec() };
    let answered = rng.between(Duration::ZERO, latest - REST_OF_A_COPY);
    let sooner = |rng: &mut Rng| rng.between(Duration::ZERO, answered);
    let rest = |rng: &mut Rng| rng.between(answered, answered + REST_OF_A_COPY);
    Reaction::Fate(match rng.below(9) {
        0 => vec![],
        1 => vec![copy(sooner(rng), &[])],
        2 => vec![copy(Duration::ZERO, &[answered])],
        3 => vec![copy(answered, &[answered])],
        4 => vec![copy(sooner(rng), &[answered, rest(rng)])],
        // Doubled: the second copy comes before the first answer or after it, and is answered or not.
        5 => vec![copy(sooner(rng), &[answered]), copy(sooner(rng), &[rest(rng)])],
        6 => {
            let second = rest(rng);
            vec![copy(sooner(rng), &[answered]), copy(second, &[second])]
        }
        7 => vec![copy(sooner(rng), &[]), copy(sooner(rng), &[answered])],
        _ => vec![copy(sooner(rng), &[]), copy(sooner(rng), &[])],
    })
}

/// A small generator of random numbers (xorshift64*).
pub struct Rng(u64);

impl Rng {
    /// The same seed makes the same numbers.
    pub fn new(seed: u64) -> Rng {
        // Spreads small seeds, and is never 0.
        Rng(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % limit
    }

    fn between(&mut self, from: Duration, to: Duration) -> Duration {
        let micros = (to - from).as_micros() as u64;
        from + Duration::from_micros(self.below(micros + 1))
    }
}
