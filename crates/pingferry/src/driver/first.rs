//! The first hand of a worker, which also obeys commands, sleeps, and calls the second.

use std::io;
use std::time::{Duration, Instant};

use super::busy_poll::BusyPoll;
use super::hand::{Hand, Second, Shared};
use crate::{Config, RunError};

/// How much has to wait to leave for the second hand to be called.
const MANY: usize = 16;

pub(super) struct First<'a> {
    hand: Hand<'a>,
    busy_poll: BusyPoll,
    deadline: Option<Instant>,
    /// The second hand is at work too, and the last look found something.
    beside: bool,
    /// Something is to be done at once.
    at_once: bool,
}

impl<'a> First<'a> {
    pub(super) fn new(shared: &'a Shared, config: &Config) -> Self {
        let busy_poll = BusyPoll::new(config, Instant::now());
        Self { hand: Hand::new(shared, config), busy_poll, deadline: None, beside: false, at_once: false }
    }

    /// Serves until it is told to stop.
    pub(super) fn run(&mut self) -> Result<(), RunError> {
        while !self.round()? {}
        Ok(())
    }

    /// Says whether to stop.
    fn round(&mut self) -> Result<bool, RunError> {
        let shared = self.hand.shared;
        if self.beside || self.wait()? {
            self.hand.take()?;
        }
        if !self.hand.ready.is_empty() {
            let mut worker = shared.lock();
            if worker.second == Second::Lost {
                return Err(RunError::Panicked);
            }
            if worker.obey(&mut self.hand.ready).is_break() {
                return Ok(true);
            }
        }
        let (found, mut worker) = self.hand.serve()?;
        self.deadline = worker.next_deadline();
        let call = worker.waiting >= MANY && worker.second == Second::Rests;
        if call {
            worker.second = Second::Works;
        }
        self.beside = found && worker.second == Second::Works;
        drop(worker);
        if call {
            shared.call.notify_one();
        }
        self.at_once = self.hand.clear_out(self.busy_poll.is_on(Instant::now())).failed;
        Ok(false)
    }

    /// Sleeps, or looks again, until something is ready or a flow's time is up. Says whether something is ready.
    fn wait(&mut self) -> io::Result<bool> {
        let before = Instant::now();
        let busy = self.busy_poll.is_on(before);
        let until_deadline = || self.deadline.map(|at| at.saturating_duration_since(before));
        let timeout = if busy || self.at_once { Some(Duration::ZERO) } else { until_deadline() };
        self.hand.shared.poller.wait(timeout, &mut self.hand.ready)?;
        let now = Instant::now();
        let found = !self.hand.ready.is_empty();
        match found {
            true => self.busy_poll.found(now, (!busy).then(|| now - before)),
            false => self.busy_poll.found_nothing(now),
        }
        Ok(found)
    }
}
