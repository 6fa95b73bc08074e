//! How many packets to read from a path before the others have their turn.

/// Grows to whole batches while packets come in bursts, and falls to what was found.
///
/// It grows only when the path was full in two rounds running. Between a request and its answer there is a round of the
/// socket, so as long as echoes come one by one no read looks for a second packet in vain.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadLimit {
    packets: usize,
    /// The round it was learnt in.
    round: u64,
}

impl ReadLimit {
    const MAX: usize = 64;

    pub(super) fn new() -> Self {
        Self { packets: 1, round: 0 }
    }

    pub(super) fn packets(self) -> usize {
        self.packets
    }

    /// So many packets were read in this round of the worker.
    pub(super) fn learn(&mut self, read: usize, round: u64) {
        let again = round <= self.round + 1;
        self.round = round;
        if read < self.packets {
            self.packets = read.max(1);
        } else if again {
            self.packets = (2 * self.packets).min(Self::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_in_a_burst_and_falls_with_it() {
        let mut limit = ReadLimit::new();
        let mut learnt = |read: usize, round| {
            limit.learn(read, round);
            limit.packets()
        };
        assert_eq!([(1, 1), (2, 2), (4, 3), (8, 4)].map(|(read, round)| learnt(read, round)), [2, 4, 8, 16]);
        assert_eq!(learnt(5, 5), 5);
        assert_eq!(learnt(0, 6), 1);
        (7..17).for_each(|round| _ = learnt(64, round));
        assert_eq!(learnt(64, 17), 64, "at most");
    }

    #[test]
    fn stays_at_one_while_echoes_come_one_by_one() {
        let mut limit = ReadLimit::new();
        for round in [2, 4, 6, 8, 10] {
            limit.learn(1, round);
            assert_eq!(limit.packets(), 1);
        }
    }
}
