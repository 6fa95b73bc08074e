//! What every packet of a path must pass: its addresses, that it is an echo request, its hop limit and the policy. A fragment
//! passes the same checks as a whole packet, so that datagrams that cannot be forwarded take no memory.

use std::net::IpAddr;

use crate::config::PathConfig;
use crate::drop_reason::DropReason;
use crate::endpoint::Endpoint;
use crate::endpoint::local_error::Reject;
use crate::flow::key::is_group;
use crate::policy::Policy;
use crate::wire::echo::Echo;
use crate::wire::header::IpHeader;
use crate::wire::icmp::IcmpError;

impl Endpoint {
    /// Whether a packet of a path with this configuration may be forwarded.
    pub(crate) fn check(&self, config: &PathConfig, header: &IpHeader, payload: &[u8]) -> Result<(), Reject> {
        check_addresses(header)?;
        if !config.admits(header.source) {
            return Err(DropReason::SpoofedSource.into());
        }
        self.check_kind(config, header, payload)?;
        self.check_forwarding(config, header)
    }

    /// The packet is an echo request, and not one of pingferry's own. Of fragments only the first shows it.
    fn check_kind(&self, config: &PathConfig, header: &IpHeader, payload: &[u8]) -> Result<(), Reject> {
        let is_first = header.fragment.is_none_or(|fragment| fragment.offset == 0);
        let echo = match (header.is_icmp(), is_first) {
            (false, _) => Err(DropReason::NotIcmp),
            (true, true) => Echo::parse_request(header.family(), payload),
            (true, false) => return Ok(()),
        };
        match echo {
            Ok(echo) if self.host_addresses.own.contains(&header.source) && self.sockets.has_ident(echo.ident) => {
                Err(DropReason::Loop.into())
            }
            Ok(_) => Ok(()),
            Err(reason @ (DropReason::NotIcmp | DropReason::NotEchoRequest)) if config.prohibit_others => {
                Err(Reject::with_error(reason, IcmpError::prohibited(header.family())))
            }
            Err(reason) => Err(reason.into()),
        }
    }

    /// The packet may go on from here to its destination.
    fn check_forwarding(&self, config: &PathConfig, header: &IpHeader) -> Result<(), Reject> {
        if header.hop_limit <= 1 {
            let error = IcmpError::time_exceeded(header.family());
            return Err(Reject::with_error(DropReason::HopLimitExceeded, error));
        }
        let is_group = self.host_addresses.is_group(header.destination);
        let policies = [&config.policy, &self.config.policy];
        if !Policy::decide_in_order(policies, header.source, header.destination, is_group).allowed {
            let error = IcmpError::prohibited(header.family());
            return Err(Reject::with_error(DropReason::DestinationRefused, error));
        }
        Ok(())
    }
}

/// The addresses are valid ones of two hosts (RFC 1812 §5.3.7, RFC 4291 §2.5, §2.7).
fn check_addresses(header: &IpHeader) -> Result<(), DropReason> {
    let source = header.source;
    let is_loopback_or_mapped = match source {
        IpAddr::V4(source) => source.is_loopback(),
        IpAddr::V6(source) => source.is_loopback() || source.to_ipv4_mapped().is_some(),
    };
    if source.is_unspecified() || is_group(source) || is_loopback_or_mapped {
        return Err(DropReason::InvalidSource);
    }
    if source == header.destination {
        return Err(DropReason::SourceIsDestination);
    }
    Ok(())
}
