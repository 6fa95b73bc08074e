//! The limit of repeated warnings.
//!
//! A cause of warnings that goes on would fill the log. So a place in the program may warn [`BURST`] times in [`PERIOD`]. How
//! many lines were left out is logged before the next line of that place. Debug lines are not limited: whoever wants them wants
//! all.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber, info};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

const BURST: u32 = 10;
const PERIOD: Duration = Duration::from_secs(60);

/// Drops warnings and errors that are repeated.
#[derive(Default)]
pub(super) struct Limit {
    // Held to count one event. Nothing is locked or logged under it.
    places: Mutex<HashMap<Identifier, Place>>,
}

/// A place in the program that warns.
struct Place {
    period_start: Instant,
    /// Lines of this period.
    lines: u32,
}

/// What becomes of an event.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Log,
    /// Log it, after a line that so many were left out.
    LogAfter(u32),
    LeaveOut,
}

impl Limit {
    fn decide(&self, place: Identifier, now: Instant) -> Decision {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.entry(place).or_insert(Place { period_start: now, lines: 0 });
        let is_over = now.saturating_duration_since(place.period_start) >= PERIOD;
        let left_out = place.lines.saturating_sub(BURST);
        if is_over {
            *place = Place { period_start: now, lines: 1 };
            return if left_out > 0 { Decision::LogAfter(left_out) } else { Decision::Log };
        }
        place.lines = place.lines.saturating_add(1);
        if place.lines > BURST { Decision::LeaveOut } else { Decision::Log }
    }
}

impl<S: Subscriber> Layer<S> for Limit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::WARN {
            return true;
        }
        match self.decide(metadata.callsite(), Instant::now()) {
            Decision::Log => true,
            Decision::LeaveOut => false,
            Decision::LogAfter(count) => {
                info!(count, "lines like the next one were left out");
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing::callsite::{Callsite, DefaultCallsite};

    use super::*;

    #[test]
    fn a_place_warns_some_times_and_then_tells_how_often_it_did_not() {
        static FIRST: DefaultCallsite = DefaultCallsite::new(&METADATA);
        static METADATA: tracing::Metadata<'static> = tracing::metadata! {
            name: "test", target: "test", level: Level::WARN, fields: &[], callsite: &FIRST, kind: tracing::metadata::Kind::EVENT
        };
        let (limit, start, place) = (Limit::default(), Instant::now(), FIRST.metadata().callsite());
        let decide = |after: Duration| limit.decide(place.clone(), start + after);
        for _ in 0..BURST {
            assert_eq!(decide(Duration::ZERO), Decision::Log);
        }
        for _ in 0..5 {
            assert_eq!(decide(PERIOD / 2), Decision::LeaveOut);
        }
        assert_eq!(decide(PERIOD), Decision::LogAfter(5));
        assert_eq!(decide(PERIOD * 2), Decision::Log);
    }
}
