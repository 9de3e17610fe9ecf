//! One session: a sequencer, the loop around it as the connection has it, and a caller that follows a plan.

use std::mem;
use std::time::{Duration, Instant};

use can_udp::gateway::reply::Line;
use can_udp::gateway::sequencer::{Action, Sequencer};
use can_udp::gateway::{Command, Failure, Outcome, RetryConfig, Verb};
use can_udp::{Event, Setup};

use crate::case::{Case, Plan};
use crate::choices::Choices;
use crate::network::{FAULTS, Fate, IN_TIME, PAUSES, TIMEOUT};
use crate::promises::Promises;
use crate::world::{Reply, World};

/// No session takes more steps.
const MAX_STEPS: u32 = 2_000;

/// What is known of the stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stream {
    /// `START` has not ended.
    Pending,
    /// `START` was not answered.
    InDoubt,
    /// The bus was reported running, or nothing more is tried.
    Known,
}

/// The state of the loop and of the caller.
pub struct Session<'a> {
    pub case: &'a Case,
    pub choices: &'a mut Choices,
    pub world: World,
    pub sequencer: Sequencer,
    pub promises: Promises,
    epoch: Instant,
    read_up_to: u32,
    /// Nothing was sent since nothing was under way.
    port_is_shared: bool,
    /// A late answer to an earlier program that is read by the first command's [`Action::ReadQueued`].
    queued_stale: Option<&'static str>,
    pub stream: Stream,
    pub queries: u32,
    /// The caller has done the one thing that it does at any time.
    pub has_interrupted: bool,
    pub ended: bool,
}

impl<'a> Session<'a> {
    /// Runs one schedule. Returns the first promise that was broken.
    pub fn run(case: &'a Case, world: &World, choices: &'a mut Choices, epoch: Instant, trace: bool) -> Promises {
        let mut session = Session {
            case,
            choices,
            world: world.clone(),
            sequencer: Sequencer::new(epoch, case.channel()),
            promises: Promises::new(trace),
            epoch,
            read_up_to: 0,
            port_is_shared: true,
            queued_stale: None,
            stream: Stream::Pending,
            queries: 0,
            has_interrupted: false,
            ended: false,
        };
        session.begin();
        for _ in 0..MAX_STEPS {
            session.step();
            session.check_takeover();
            if session.ended || session.promises.broken.is_some() {
                session.check_end();
                return session.promises;
            }
        }
        session.promises.expect(false, "a session ends");
        session.promises
    }

    fn retry(&self) -> RetryConfig {
        RetryConfig::new(Duration::from_millis(TIMEOUT.into()), self.case.attempts)
    }

    pub fn setup(&self) -> Setup {
        let mut setup = self.case.setup();
        setup.retry = self.retry();
        setup
    }

    fn at(&self, time: u32) -> Instant {
        self.epoch + Duration::from_millis(time.into())
    }

    pub fn now(&self) -> Instant {
        self.at(self.world.now)
    }

    fn begin(&mut self) {
        let mut quiet = 20;
        if self.case.plan == Plan::StopOnly {
            self.sequencer.set_retry(self.retry());
            self.begin_stop();
        } else {
            self.begin_start();
            quiet = TIMEOUT / 4;
        }
        if let Some(text) = self.case.stale {
            match self.choices.act(4) {
                3 => self.queued_stale = Some(text),
                chosen => self.world.add_stale_reply([quiet - 1, 0, quiet][chosen], text),
            }
        }
    }

    pub fn begin_start(&mut self) {
        self.promises.on_begin_start();
        let begun = self.sequencer.begin_start(self.now(), &self.setup());
        self.promises.expect(begun.is_ok(), "a handshake begins at any time but during STOP");
    }

    pub fn begin_stop(&mut self) {
        self.promises.log(|| format!("{}: begin_stop", self.world.now));
        self.promises.on_begin_stop(self.world.now);
        self.sequencer.begin_stop(self.now());
    }

    fn step(&mut self) {
        self.pester();
        let in_flight = self.sequencer.in_flight().is_some();
        match self.sequencer.poll(self.at(self.read_up_to)) {
            Ok(Action::Wait(until)) => self.wait(until),
            Ok(Action::ReadQueued) => self.read_queued(),
            Ok(Action::Send(command, attempt)) => {
                let overtakes = self.sequencer.in_flight().is_none();
                if overtakes && in_flight {
                    self.promises.expect(self.promises.has_left, "STOP overtakes only what has left");
                    self.promises.on_given_up();
                } else if !overtakes {
                    // What came before is read by now.
                    self.others_act();
                }
                self.check_send(command, attempt, overtakes);
                self.send(command);
            }
            Ok(Action::Report(Event::InitRefused { text, was_running })) => self.check_init_refused(&text, was_running),
            Ok(Action::Report(Event::Completed(command, outcome))) => self.on_completed(command, &outcome),
            Ok(other) => unreachable!("{other:?}"),
            Err(failure) => self.on_failure(&failure),
        }
    }

    fn send(&mut self, command: Command) {
        let fault = self.choices.fault(FAULTS.len() + 1);
        let fate = match fault {
            0 => Fate::Network(IN_TIME),
            _ => FAULTS[fault - 1],
        };
        if fate.is_pause() {
            self.promises.pauses += 1;
        } else {
            self.promises.faults += u32::from(fault > 0);
            self.promises.losses += u32::from(fate.is_loss());
        }
        self.promises.log(|| format!("{}: {command}: {fate:?}", self.world.now));
        if let Fate::PauseBefore(pause) = fate {
            self.world.run_through(self.world.now + pause);
        }
        let left = !matches!(fate, Fate::SendError);
        if left {
            let copies = if let Fate::Network(copies) = fate { copies } else { IN_TIME };
            self.world.transmit(self.promises.number, command, copies);
            self.check_left(command);
        }
        if let Fate::PauseAfter(pause) = fate {
            self.world.run_through(self.world.now + pause);
        }
        self.sequencer.on_sent(self.now(), left);
    }

    /// Something comes just before a command leaves.
    fn others_act(&mut self) {
        if let Some(text) = self.queued_stale.take() {
            self.world.inbox.push(Reply { number: 0, text: text.to_owned() });
        }
        if mem::take(&mut self.port_is_shared) {
            self.neighbour_acts();
        }
    }

    fn read_queued(&mut self) {
        self.others_act();
        self.read_up_to = self.world.now;
        self.read_inbox();
    }

    /// Reads as the connection does: what is there at once; if nothing is and the deadline has passed, that is the time up to
    /// which everything has been read.
    fn wait(&mut self, until: Option<Instant>) {
        if !self.world.inbox.is_empty() {
            return self.read_next();
        }
        let Some(until) = until else {
            self.port_is_shared = true;
            return self.on_idle();
        };
        let until = u32::try_from((until - self.epoch).as_millis()).unwrap();
        if until <= self.world.now {
            self.read_up_to = self.world.now;
            return;
        }
        if self.neighbour_acts() || self.interrupts(until) {
            return;
        }
        self.world.run_until(until);
        match self.choices.fault(PAUSES.len() + 1) {
            0 => {}
            pause => {
                self.promises.pauses += 1;
                self.promises.log(|| format!("{}: pause of {}", self.world.now, PAUSES[pause - 1]));
                self.world.run_through(self.world.now + PAUSES[pause - 1]);
            }
        }
        if self.may_interrupt() && self.choices.act(2) == 1 {
            self.interrupt();
        }
    }

    pub fn read_inbox(&mut self) {
        while !self.world.inbox.is_empty() {
            self.read_next();
        }
    }

    fn read_next(&mut self) {
        let reply = self.world.inbox.remove(0);
        let line = Line::classify(reply.text.as_bytes());
        let in_flight = self.sequencer.in_flight();
        let taken = self.sequencer.on_datagram(self.now(), reply.text.as_bytes()).is_some();
        self.promises.log(|| format!("{}: {} (taken: {taken})", self.world.now, reply.text));
        self.promises.on_reply(&reply);
        match in_flight {
            Some(command) if taken => self.promises.on_answer(&reply, line, command),
            Some(_) => {
                let is_ours = reply.number > 0 && reply.number == self.promises.number;
                self.promises.expect(!is_ours, "every answer to the command in flight is recognised");
            }
            None => self.promises.on_unawaited(&reply, line, taken),
        }
    }

    fn on_completed(&mut self, command: Command, outcome: &Outcome) {
        self.promises.log(|| format!("{}: {command} completed: {outcome:?}", self.world.now));
        self.check_completed(command, outcome);
        match (command.verb, outcome) {
            (Verb::Stop, _) => self.ended = true,
            (Verb::Start, Outcome::NoReply(_)) => self.stream = Stream::InDoubt,
            (Verb::Start, _) => self.stream = Stream::Known,
            (Verb::Status, Outcome::Status(status)) if self.stream == Stream::InDoubt => {
                self.stream = Stream::Known;
                if status.stopped && !self.promises.stop_begun() {
                    self.promises.starts_allowed += 1;
                    self.promises.log(|| "start_again".to_owned());
                    let begun = self.sequencer.start_again();
                    self.promises.expect(begun.is_ok(), "START is sent again while nothing is under way");
                }
            }
            _ => {}
        }
    }

    fn on_failure(&mut self, failure: &Failure) {
        self.promises.log(|| format!("{}: failed: {failure:?}", self.world.now));
        self.check_failure(failure);
        let stop_goes_on = self.promises.stop_begun() && failure.command.verb == Verb::Start;
        // A caller that wants the bus stopped stops it after a failed START, too.
        if self.case.plan == Plan::Stop && self.promises.starts_left > 0 && !self.promises.stop_begun() {
            self.begin_stop();
        } else if !stop_goes_on {
            self.ended = true;
        }
    }
}
