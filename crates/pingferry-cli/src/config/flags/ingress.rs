use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::super::access_mode::{FileMode, Group};
use super::super::model::Settings;
use super::super::number::Mtu;
use super::super::values::{Prefix, Route, Text};
use super::{set, set_list, set_option};

#[derive(Args, Clone, Debug)]
#[group(skip)]
#[command(next_help_heading = "Ingress")]
pub(crate) struct IngressFlags {
    /// Serve the TUN device NAME; it is created if it does not exist
    #[arg(long, value_name = "NAME", env = "PINGFERRY_TUN")]
    tun: Option<String>,
    /// The network namespace of the TUN device, by its name in `ip netns` or its path; pingferry stops when it is deleted
    /// [default: the current one]
    #[arg(long, value_name = "NAME|PATH", env = "PINGFERRY_NETNS")]
    netns: Option<PathBuf>,
    /// The process whose network namespace the TUN device is in; pingferry stops when the process ends
    #[arg(long, value_name = "PID", env = "PINGFERRY_PID")]
    pid: Option<u32>,
    /// Go on when the namespace of `--netns` is deleted or the process of `--pid` ends, and so keep the namespace
    #[arg(long, env = "PINGFERRY_KEEP_NETNS", value_parser = BoolishValueParser::new())]
    #[arg(num_args = 0, default_missing_value = "true")]
    keep_netns: Option<bool>,
    /// An address of the TUN device, with the prefix of the network behind it; repeatable
    #[arg(long, value_name = "CIDR", value_delimiter = ',', env = "PINGFERRY_ADDRESS")]
    address: Vec<Text<Prefix>>,
    /// A network to route to the TUN device; "default" is all of IPv4 and IPv6; repeatable
    #[arg(long, value_name = "CIDR|default", value_delimiter = ',', env = "PINGFERRY_ROUTE")]
    route: Vec<Text<Route>>,
    /// The metric of these routes; the kernel takes the route with the lowest one [default: that of the kernel]
    #[arg(long, value_name = "N", env = "PINGFERRY_METRIC")]
    metric: Option<u32>,
    /// The largest packet for clients, in bytes, at least 1280 for IPv6; larger replies are fragmented [default: the
    /// MTU of the TUN device, 1500 for a new one and for Unix sockets]
    #[arg(long, value_name = "BYTES", env = "PINGFERRY_MTU")]
    mtu: Option<Mtu>,
    /// Serve a SOCK_SEQPACKET Unix socket at PATH, where each record is an IP packet; repeatable
    #[arg(long, value_name = "PATH", value_delimiter = ',', env = "PINGFERRY_UNIX")]
    unix: Vec<PathBuf>,
    /// The permissions of Unix sockets, in octal; who can write can connect [default: 0660 with --unix-group, otherwise as
    /// the umask has it]
    #[arg(long, value_name = "MODE", env = "PINGFERRY_UNIX_MODE")]
    unix_mode: Option<Text<FileMode>>,
    /// The group of Unix sockets, by name or number [default: that of the process]
    #[arg(long, value_name = "GROUP", env = "PINGFERRY_UNIX_GROUP")]
    unix_group: Option<Group>,
}

impl IngressFlags {
    pub(crate) fn apply(&self, settings: &mut Settings) {
        let Self { tun, netns, pid, address, route, metric, mtu, unix, keep_netns, unix_mode, unix_group } = self;
        set_option(&mut settings.tun, tun);
        set_option(&mut settings.netns, netns);
        set_option(&mut settings.pid, pid);
        set_list(&mut settings.address, address);
        set_list(&mut settings.route, route);
        set_option(&mut settings.metric, metric);
        set_option(&mut settings.mtu, mtu);
        set_list(&mut settings.unix, unix);
        set(&mut settings.keep_netns, keep_netns.as_ref());
        set_option(&mut settings.unix_mode, unix_mode);
        set_option(&mut settings.unix_group, unix_group);
    }
}
