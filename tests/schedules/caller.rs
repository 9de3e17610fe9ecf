//! What the caller and the neighbour do, and when.

use can_udp::gateway::{Busy, Verb};

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
            self.world.inbox.push(reply);
        }
        true
    }

    /// Asks for what the state does not allow, and for the STOP that is under way.
    pub fn pester(&mut self) {
        if !self.case.pesters || self.sequencer.is_idle() {
            return;
        }
        let mut is_busy = self.sequencer.request_status() == Err(Busy) && self.sequencer.start_again() == Err(Busy);
        if self.promises.stop_begun() {
            self.sequencer.begin_stop(self.now());
            is_busy &= self.sequencer.begin_start(self.now(), &self.setup()) == Err(Busy);
        }
        self.promises.expect(is_busy, "what the state does not allow is Busy");
    }

    pub fn may_interrupt(&self) -> bool {
        !self.has_interrupted
            && !self.promises.stop_begun()
            && match self.case.plan {
                Plan::Stop | Plan::Cancel | Plan::Restart => true,
                Plan::Status => self.sequencer.in_flight().is_some_and(|command| command.verb == Verb::Status),
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
            Plan::Status => {
                self.sequencer.cancel_status();
                // A STATUS that checks a START goes on.
                if self.sequencer.in_flight().is_none() {
                    self.promises.on_given_up();
                }
            }
            Plan::Cancel => {
                self.read_inbox();
                self.promises.on_unchecked_start(self.sequencer.unchecked_start());
                self.ended = true;
            }
            Plan::Restart => {
                (self.stream, self.queries) = (Stream::Pending, 0);
                self.begin_start();
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
            _ if self.stream == Stream::InDoubt && self.queries < 2 => self.request_status(),
            Plan::Status if self.queries < 2 => self.request_status(),
            Plan::Stop | Plan::Status => self.begin_stop(),
            Plan::Cancel | Plan::Restart if self.may_interrupt() => self.interrupt(),
            _ => self.ended = true,
        }
    }

    fn request_status(&mut self) {
        self.queries += 1;
        let begun = self.sequencer.request_status();
        self.promises.expect(begun.is_ok(), "STATUS can be requested while nothing is under way");
    }
}
