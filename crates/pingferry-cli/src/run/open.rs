//! Opening ingresses: TUN devices, also in other namespaces, and Unix sockets.

use std::collections::HashSet;
use std::fs::{Permissions, set_permissions};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use pingferry::ingress::UnixIngress;
use pingferry::{DomainId, HostAddresses, PathConfig, Proxy, Tun};
use pingferry_sys::diagnosis::Operation;
use pingferry_sys::namespace::Netns;
use pingferry_sys::netlink::{AddressMonitor, Netlink};
use pingferry_sys::process::in_child;
use pingferry_sys::tun::TunConfig;
use rustix::fs::Mode;
use rustix::process::umask;
use tracing::warn;

use super::netns;
use super::watch::Watched;
use crate::config::access_mode::Group;
use crate::config::build::path_config;
use crate::config::model::{Ingress, Settings};
use crate::config::number::Mtu;
use crate::config::reload::Served;
use crate::config::values::{Gateways, Route};
use crate::error::CliError;

/// The queue of a new device, in packets: room for a burst of a few thousand that comes faster than it is read.
const QUEUE_LENGTH: u32 = 10_000;

/// The permissions of a socket that has a group of its own.
const DEFAULT_MODE: u32 = 0o660;

/// The smallest MTU of a link with IPv6, in bytes (RFC 8200 §5).
const IPV6_MIN_MTU: u32 = 1280;

/// An ingress that is open and not served yet.
pub(super) struct Opened {
    device: Device,
    ingress: Ingress,
    config: PathConfig,
    default_gateway: Gateways,
    /// What it is, for messages.
    pub(super) name: String,
    /// What names the namespace that it is in.
    watched: Option<Watched>,
}

enum Device {
    /// Its queues, one for each worker.
    Tun(Vec<Tun>),
    Unix(UnixIngress),
}

/// Opens an ingress.
pub(super) fn open(ingress: &Ingress, domain: Option<DomainId>, settings: &Settings) -> Result<Opened, CliError> {
    match (&ingress.tun, &ingress.unix) {
        (Some(name), _) => {
            let mut opened = open_tun(name, ingress, domain, settings.workers.get() as usize)?;
            opened.watched = opened.watched.filter(|_| !settings.keep_netns);
            Ok(opened)
        }
        (None, Some(path)) => {
            let default_gateway = Gateways::default();
            let device = Device::Unix(listen(path, ingress)?);
            let config = path_config(ingress, domain, None, default_gateway);
            Ok(Opened {
                device,
                ingress: ingress.clone(),
                config,
                default_gateway,
                name: ingress.name(),
                watched: None,
            })
        }
        (None, None) => Err(CliError::usage(ingress.name())),
    }
}

impl Opened {
    /// Lets the proxy serve it.
    pub(super) fn attach(self, proxy: &Proxy) -> Result<Served, CliError> {
        let attached = match self.device {
            Device::Tun(queues) => proxy.attach_tun(self.config.clone(), queues),
            Device::Unix(listener) => proxy.attach_unix(self.config.clone(), listener),
        };
        let attachment = attached.map_err(|error| CliError::runtime(format!("cannot serve {}: {error}", self.name)))?;
        self.watched.map_or(Ok(()), |watched| watched.stop_at_its_end(proxy.control()))?;
        let Self { ingress, config, default_gateway, .. } = self;
        Ok(Served { ingress, config, attachment, default_gateway })
    }
}

fn open_tun(name: &str, ingress: &Ingress, domain: Option<DomainId>, workers: usize) -> Result<Opened, CliError> {
    let device = TunConfig::new(name)
        .with_addresses(ingress.address.iter().map(|address| address.0.0).collect())
        .with_routes(ingress.route.iter().flat_map(|route| networks(route.0)).collect())
        .with_metric(ingress.metric)
        .with_mtu(ingress.mtu.map(Mtu::get))
        .with_queue_length(Some(QUEUE_LENGTH));
    let located = Ingress { netns: ingress.netns.as_deref().map(netns::resolve), ..ingress.clone() };
    let watched = Watched::open(&located)?;
    let namespace = namespace(&located).map_err(|error| CliError::from_io(ingress.name(), &error))?;
    // Checked only now: before the namespace is open, its name can become that of another one.
    watched.as_ref().map_or(Ok(()), Watched::check)?;
    let opened = match &namespace {
        None => open_here(&device, workers),
        Some(netns) => open_in(netns, &device, workers),
    };
    let (queues, mtu) = opened.map_err(|error| no_tun(name, &error))?;
    let default_gateway =
        default_gateway(namespace.as_ref()).map_err(|error| CliError::from_io(ingress.name(), &error))?;
    let config = path_config(ingress, domain, Some(mtu), default_gateway);
    let (device, name) = (Device::Tun(queues), format!("{} with MTU {mtu}", ingress.name()));
    Ok(Opened { device, ingress: ingress.clone(), config, default_gateway, name, watched })
}

fn namespace(ingress: &Ingress) -> io::Result<Option<Netns>> {
    match (&ingress.netns, ingress.pid) {
        (Some(path), _) => Netns::open(path).map(Some),
        (None, Some(pid)) => Netns::of_process(pid).map(Some),
        (None, None) => Ok(None),
    }
}

fn networks(route: Route) -> Vec<IpNet> {
    match route {
        Route::Default => vec![Ipv4Net::default().into(), Ipv6Net::default().into()],
        Route::To(prefix) => vec![prefix.0],
    }
}

/// Opens the device in the network namespace of this thread.
fn open_here(config: &TunConfig, queues: usize) -> io::Result<(Vec<Tun>, u32)> {
    let (queues, mtu, _) = config.open_queues(queues)?;
    // The kernel chooses the number in a name such as `ping%d`.
    let name = queues.first().map_or(&*config.name, Tun::name);
    let mut netlink = Netlink::open()?;
    let index = netlink.index(name)?;
    let wants_ipv6 = config.addresses.iter().chain(&config.routes).any(|network| network.addr().is_ipv6());
    if wants_ipv6 && !netlink.has_ipv6(index)? {
        let why = if mtu < IPV6_MIN_MTU { "IPv6 needs an MTU of 1280" } else { "the host has turned it off" };
        warn!("TUN device {name}: IPv4 only, without the IPv6 addresses and routes: {why}");
    }
    Ok((queues, mtu))
}

/// Opens the device in another network namespace, which can belong to another user namespace. A child process enters
/// them.
fn open_in(netns: &Netns, config: &TunConfig, queues: usize) -> io::Result<(Vec<Tun>, u32)> {
    let (fds, mtu) = in_child(|| {
        netns.enter_through_owner()?;
        let (queues, mtu) = open_here(config, queues)?;
        Ok((queues.into_iter().map(Tun::into).collect(), mtu))
    })?;
    let queues: io::Result<Vec<Tun>> = fds.into_iter().map(Tun::from_fd).collect();
    Ok((queues?, mtu))
}

/// The gateway if none is configured. The kernel throws an IPv4 packet away that comes from one of its own addresses
/// (`fib_validate_source` in net/ipv4/fib_frontend.c: a martian source), and so it would the errors from this host's address
/// where the TUN device's namespace is this one, or has that address too, as pasta gives it.
fn default_gateway(netns: Option<&Netns>) -> io::Result<Gateways> {
    let shares_address = match netns {
        None => true,
        Some(netns) => shares_address(netns, &own_addresses()?)?,
    };
    Ok(Gateways { v4: shares_address.then_some(HostAddresses::DUMMY_V4), v6: None })
}

/// Whether one of these addresses belongs to a namespace too. A child process enters it, which returns a number only together
/// with a descriptor.
fn shares_address(netns: &Netns, addresses: &HashSet<IpAddr>) -> io::Result<bool> {
    let (_, shares) = in_child(|| {
        let descriptor = netns.as_fd().try_clone_to_owned()?;
        netns.enter_through_owner()?;
        Ok((vec![descriptor], u32::from(!own_addresses()?.is_disjoint(addresses))))
    })?;
    Ok(shares != 0)
}

/// The IPv4 addresses of the network namespace of this thread that are valid beyond it.
fn own_addresses() -> io::Result<HashSet<IpAddr>> {
    let own = AddressMonitor::open()?.addresses()?.own;
    Ok(own.into_iter().filter(|address| address.is_ipv4() && !address.is_loopback()).collect())
}

pub(crate) fn no_tun(name: &str, error: &io::Error) -> CliError {
    CliError::from_io(format!("cannot open TUN device {name}"), error)
}

/// Listens, and gives the socket its permissions and group.
fn listen(path: &Path, ingress: &Ingress) -> Result<UnixIngress, CliError> {
    let bind = || UnixIngress::bind(path).map_err(|error| CliError::from_creating("cannot listen at", path, &error));
    if ingress.unix_mode.is_none() && ingress.unix_group.is_none() {
        return bind();
    }
    let group = ingress.unix_group.as_ref().map(Group::id).transpose();
    let group = group.map_err(|why| CliError::usage(format!("`unix_group`: {why}")))?;
    let mode = ingress.unix_mode.map_or(DEFAULT_MODE, |mode| mode.0.0);
    // Until it has its group, nobody else can connect. The mask belongs to the process, which has one thread.
    let before = umask(Mode::from_raw_mode(0o177));
    let listener = bind();
    umask(before);
    let listener = listener?;
    let failed = |error: io::Error| {
        CliError::of(&Operation::ChangeGroup, format!("cannot give {} to its group", path.display()), &error)
    };
    chown(path, None, group).map_err(failed)?;
    set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
    Ok(listener)
}
