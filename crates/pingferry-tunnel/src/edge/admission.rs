//! Who may dial, before anybody is authenticated.
//!
//! # Theory of operation
//!
//! A handshake costs the edge a signature and a key exchange, and until a connector has registered nobody knows whether it was
//! worth it. So the connections that have not registered yet are limited, in all and from each address. Above a quarter of the
//! limit, a client must show that it receives what is sent to its address (Retry, RFC 9000 §8.1.2), which costs the edge
//! almost nothing and stops forged addresses.
//!
//! Each connection that ends without a registration takes a token of its address. Without tokens its dials are ignored, so that
//! a client that tries again without a pause waits for its own timeout. Connectors that register need no tokens, however many
//! of them are behind one address.
//!
//! An IPv6 client has a /64, so its address counts by that.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// The connections that may be about to register.
const MAX_PENDING: usize = 256;
const MAX_PENDING_OF_ADDRESS: usize = 32;
/// From here on, clients have to show that their address is theirs.
const RETRY_FROM: usize = MAX_PENDING / 4;
/// How often an address may fail to register: once in two seconds, and so often at once.
const FAILURE_INTERVAL: Duration = Duration::from_secs(2);
const FAILURES_AT_ONCE: u32 = 16;
/// The addresses whose failures are remembered. With more, the failures of all are forgotten, and `MAX_PENDING` remains.
const MAX_ADDRESSES: usize = 16_384;

/// What to do with a client that dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Let it try to register, and report how that [ended](Admission::ended).
    Accept,
    /// Let it show that its address is its own.
    Retry,
    /// Answer nothing.
    Ignore,
}

/// The connections that have not registered yet, and those that never did.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    pending: usize,
    addresses: HashMap<IpAddr, Address>,
}

#[derive(Debug, Default)]
struct Address {
    pending: usize,
    /// When all its tokens are back (the generic cell rate algorithm).
    full_at: Option<Instant>,
}

impl Admission {
    /// A client dials. `is_validated` says that it has shown that its address is its own.
    pub(crate) fn dialled(&mut self, now: Instant, address: IpAddr, is_validated: bool) -> Decision {
        if self.addresses.len() >= MAX_ADDRESSES {
            self.addresses.retain(|_, address| address.pending > 0);
        }
        if self.pending >= RETRY_FROM && !is_validated {
            return Decision::Retry;
        }
        let of_address = self.addresses.entry(site(address)).or_default();
        let next = of_address.full_at.map_or(now, |at| at.max(now)) + FAILURE_INTERVAL;
        let has_tokens = next <= now + FAILURE_INTERVAL * FAILURES_AT_ONCE;
        if self.pending >= MAX_PENDING || of_address.pending >= MAX_PENDING_OF_ADDRESS || !has_tokens {
            return Decision::Ignore;
        }
        self.pending += 1;
        of_address.pending += 1;
        Decision::Accept
    }

    /// An accepted client has registered, or failed to.
    pub(crate) fn ended(&mut self, now: Instant, address: IpAddr, has_registered: bool) {
        self.pending = self.pending.saturating_sub(1);
        let address = site(address);
        let Some(of_address) = self.addresses.get_mut(&address) else { return };
        of_address.pending = of_address.pending.saturating_sub(1);
        if !has_registered {
            let full_at = of_address.full_at.map_or(now, |at| at.max(now));
            of_address.full_at = Some(full_at + FAILURE_INTERVAL);
        } else if of_address.pending == 0 && of_address.full_at.is_none_or(|at| at <= now) {
            self.addresses.remove(&address);
        }
    }
}

/// The addresses that one client has.
fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn an_address_has_a_limit() {
        let (mut admission, now) = (Admission::default(), Instant::now());
        let accepted = |admission: &mut Admission, address| {
            (0..100).filter(|_| admission.dialled(now, address, true) == Decision::Accept).count()
        };
        assert_eq!(accepted(&mut admission, "192.0.2.1".parse().unwrap()), 32);
        assert_eq!(accepted(&mut admission, "::ffff:192.0.2.1".parse().unwrap()), 0, "the same address");
        assert_eq!(accepted(&mut admission, "2001:db8::1".parse().unwrap()), 32);
        assert_eq!(accepted(&mut admission, "2001:db8::2".parse().unwrap()), 0, "the same network");
        assert_eq!(accepted(&mut admission, "2001:db8:0:1::2".parse().unwrap()), 32);
    }

    #[test]
    fn all_together_have_a_limit_and_must_show_their_address_before() {
        let (mut admission, now) = (Admission::default(), Instant::now());
        let decisions: Vec<_> = (0..1000).map(|n| admission.dialled(now, host(n), false)).collect();
        assert_eq!(decisions.iter().filter(|decision| **decision == Decision::Accept).count(), 64);
        assert_eq!(decisions.last(), Some(&Decision::Retry));
        let accepted = (0..1000).filter(|n| admission.dialled(now, host(*n), true) == Decision::Accept).count();
        assert_eq!(accepted, 256 - 64);
        admission.ended(now, host(0), true);
        assert_eq!(admission.dialled(now, host(2000), true), Decision::Accept, "one place is free");
    }

    #[test]
    fn who_never_registers_is_ignored_until_it_has_paused() {
        let (mut admission, start) = (Admission::default(), Instant::now());
        let mut failures = |seconds: u64| {
            let now = start + Duration::from_secs(seconds);
            let fails = |_: &u32| {
                let is_accepted = admission.dialled(now, host(1), true) == Decision::Accept;
                if is_accepted {
                    admission.ended(now, host(1), false);
                }
                is_accepted
            };
            (0..4663).filter(fails).count()
        };
        assert_eq!(failures(0), 16);
        assert_eq!(failures(1), 0);
        assert_eq!(failures(4), 2);
        assert_eq!(failures(3600), 16);
    }

    #[test]
    fn who_registers_is_never_refused_and_takes_no_memory() {
        let (mut admission, now) = (Admission::default(), Instant::now());
        for _ in 0..10_000 {
            assert_eq!(admission.dialled(now, host(1), false), Decision::Accept);
            admission.ended(now, host(1), true);
        }
        assert_eq!((admission.addresses.len(), admission.pending), (0, 0));
    }

    #[test]
    fn memory_is_bounded() {
        let (mut admission, now) = (Admission::default(), Instant::now());
        for number in 0..100_000 {
            if admission.dialled(now, host(number), true) == Decision::Accept {
                admission.ended(now, host(number), false);
            }
            assert!(admission.addresses.len() <= MAX_ADDRESSES);
        }
    }
}
