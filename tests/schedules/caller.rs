//! What the caller and the neighbour do, and when.

use can_udp::gateway::Command;

use crate::case::Plan;
use crate::network::TIMEOUT;
use crate::session::{Session, Stream};

impl Session<'_> {
    /// Its answer reaches this program only while nothing of ours is in flight, or nothing of that has left.
    pub fn neighbour_acts(&mut self) -> bool {
        let Some(action) = self.case.neighbour else { return false };
        if self.promises.neighbour_acted || self.choices.act(2) == 0 {
            return false;
        }
        self.promises.neighbour_acted = true;
        self.promises.log(|| format!("{}: the neighbour sends {action}", self.world.now));
        let reply = self.world.neighbour(action);
        if self.sequencer.in_flight().is_none() || !self.promises.has_left {
            self.read(&reply);
        }
        true
    }

    pub fn may_interrupt(&self) -> bool {
        !self.has_interrupted
            && !self.promises.stop_begun()
            && match self.case.plan {
                Plan::Stop | Plan::Cancel | Plan::Restart => true,
                Plan::Status => matches!(self.sequencer.in_flight(), Some(Command::Status { .. })),
                Plan::Listen | Plan::StopOnly => false,
            }
    }

    /// The caller acts at once, or while this wait lasts.
    pub fn interrupts(&mut self, until: u32) -> bool {
        const AFTER: [u32; 3] = [0, 10, TIMEOUT / 2];
        if !self.may_interrupt() {
            return false;
        }
        let length = until - self.world.now;
        let options = AFTER.iter().filter(|&&after| after < length).count();
        match self.choices.act(options + 1) {
            0 => false,
            chosen => {
                self.world.run_until(self.world.now + AFTER[chosen - 1]);
                self.interrupt();
                true
            }
        }
    }

    pub fn interrupt(&mut self) {
        self.has_interrupted = true;
        self.promises.log(|| format!("{}: {:?} now", self.world.now, self.case.plan));
        match self.case.plan {
            Plan::Status => self.sequencer.cancel_status(),
            Plan::Cancel | Plan::Restart => {
                // What had arrived is read first.
                while !self.world.inbox.is_empty() {
                    self.read_next();
                }
                let failure = self.sequencer.cancel();
                self.promises.on_returned(failure);
                self.promises.expect(!self.promises.start_is_refused, "every refused START is reported");
                if self.case.plan == Plan::Cancel {
                    self.ended = true;
                } else {
                    (self.stream, self.queries) = (Stream::Pending, 0);
                    self.begin_start();
                }
            }
            _ => self.begin_stop(),
        }
    }

    /// The caller's turn, while nothing is in flight.
    pub fn on_idle(&mut self) {
        if self.neighbour_acts() {
            return;
        }
        match self.case.plan {
            _ if self.stream == Stream::InDoubt && self.queries < 2 => {
                self.queries += 1;
                self.sequencer.request_status();
            }
            Plan::Status if self.queries < 2 => {
                self.queries += 1;
                self.sequencer.request_status();
            }
            Plan::Stop | Plan::Status => self.begin_stop(),
            Plan::Cancel | Plan::Restart if self.may_interrupt() => self.interrupt(),
            _ => self.ended = true,
        }
    }
}
