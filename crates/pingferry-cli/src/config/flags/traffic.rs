use clap::Args;

use super::super::model::Settings;
use super::super::values::{Crossing, OtherTraffic, Ports, Text};
use super::{set, set_list, set_option};

/// What crosses besides echo requests.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub(crate) struct TrafficFlags {
    /// Whether UDP probes cross: datagrams that start with a hop limit below 64, as of traceroute; only these [default:
    /// probes in exec, off in run]
    #[arg(long, value_name = "WHAT", env = "PINGFERRY_UDP")]
    udp: Option<Crossing>,
    /// Whether TCP probes cross: SYNs that start with a hop limit below 64, as of traceroute -T; only these [default:
    /// probes in exec, off in run]
    #[arg(long, value_name = "WHAT", env = "PINGFERRY_TCP")]
    tcp: Option<Crossing>,
    /// Refuse probes to this port or range of ports; repeatable
    #[arg(long, value_name = "PORT[-PORT]", value_delimiter = ',', env = "PINGFERRY_DENY_PORT")]
    deny_port: Vec<Text<Ports>>,
    /// What happens to all other packets: reject them with an ICMP error, so that programs fail at once, or drop them
    /// [default: reject]
    #[arg(long, value_name = "HOW", env = "PINGFERRY_OTHER_TRAFFIC")]
    other_traffic: Option<OtherTraffic>,
}

impl TrafficFlags {
    pub(crate) fn apply(&self, settings: &mut Settings) {
        set_option(&mut settings.udp, &self.udp);
        set_option(&mut settings.tcp, &self.tcp);
        set_list(&mut settings.deny_port, &self.deny_port);
        set(&mut settings.other_traffic, self.other_traffic.as_ref());
    }
}
