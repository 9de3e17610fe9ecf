//! The choices of one schedule: replayed from the left, counted like an odometer from the right.

/// What a schedule decides, in the order in which it is asked. The first option is always the ordinary one.
#[derive(Clone, Debug)]
pub struct Choices {
    digits: Vec<Digit>,
    position: usize,
    max_faults: u32,
    faults: u32,
    rng: Option<Rng>,
}

#[derive(Clone, Copy, Debug)]
struct Digit {
    chosen: usize,
    options: usize,
}

/// A xorshift generator.
#[derive(Clone, Debug)]
struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32) as usize) % limit
    }
}

impl Choices {
    /// All schedules with at most `max_faults` faults, beginning with the ordinary one.
    pub fn exhaustive(max_faults: u32) -> Choices {
        Choices { digits: Vec::new(), position: 0, max_faults, faults: 0, rng: None }
    }

    /// Random schedules with at most `max_faults` faults each.
    pub fn random(max_faults: u32, seed: u64) -> Choices {
        Choices { rng: Some(Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)), ..Choices::exhaustive(max_faults) }
    }

    /// A fault or none: 0 where no more faults are allowed.
    pub fn fault(&mut self, options: usize) -> usize {
        if self.faults == self.max_faults {
            return 0;
        }
        let chosen = self.choose(options, 10);
        self.faults += u32::from(chosen > 0);
        chosen
    }

    /// Something that the caller or a neighbour does, or nothing.
    pub fn act(&mut self, options: usize) -> usize {
        self.choose(options, 20)
    }

    /// Chooses in a random schedule something other than 0 once in `rarity` times.
    fn choose(&mut self, options: usize, rarity: usize) -> usize {
        if self.position == self.digits.len() {
            let chosen = self.rng.as_mut().map_or(0, |rng| if rng.below(rarity) == 0 { rng.below(options) } else { 0 });
            self.digits.push(Digit { chosen, options });
        }
        let Digit { chosen, options: before } = self.digits[self.position];
        assert_eq!(before, options, "a schedule must be the same when it is replayed");
        self.position += 1;
        chosen
    }

    /// Begins the schedule that was chosen last again.
    pub fn replay(&mut self) {
        (self.position, self.faults) = (0, 0);
    }

    /// Goes on to the next schedule. Returns false after the last one.
    pub fn advance(&mut self) -> bool {
        self.digits.truncate(self.position);
        self.replay();
        if self.rng.is_some() {
            self.digits.clear();
            return true;
        }
        while let Some(digit) = self.digits.last_mut() {
            digit.chosen += 1;
            if digit.chosen < digit.options {
                return true;
            }
            self.digits.pop();
        }
        false
    }
}
