//! Handles of a proxy: its control, its ingresses, and its paths of the embedding program.

use std::net::IpAddr;
use std::sync::Arc;

use pingferry_proto::{PathConfig, PathCounters, Policy};

use crate::driver::{Command, Mailbox};
use crate::error::{Closed, SendError};
use crate::ingress::channel::Sender;
use crate::stats::{IngressId, Stats};

/// Stops a proxy, changes its policy or tells its statistics, from any thread, for example one that handles signals.
#[derive(Clone, Debug)]
pub struct Control(pub(crate) Arc<[Mailbox]>);

/// An ingress that is attached to a proxy.
///
/// It stays attached when this is dropped.
#[derive(Clone, Debug)]
pub struct Attachment {
    pub(crate) control: Control,
    pub(crate) id: IngressId,
    pub(crate) gateways: Gateways,
}

/// A path of the embedding program. It is closed when it is dropped.
#[derive(Debug)]
pub struct Path {
    pub(crate) sender: Sender,
    pub(crate) attachment: Attachment,
}

/// The addresses that ICMP errors come from where a path has none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gateways {
    pub(crate) v4: Option<IpAddr>,
    pub(crate) v6: Option<IpAddr>,
}

impl Control {
    /// Changes which destinations clients may ping. When this returns, every worker follows the new policy. Flows stay.
    ///
    /// # Errors
    /// The proxy has ended.
    pub fn set_policy(&self, policy: &Policy) -> Result<(), Closed> {
        self.0.iter().try_for_each(|mailbox| mailbox.call(|done| Command::SetPolicy { policy: policy.clone(), done }))
    }

    /// What the proxy did so far, as [`Proxy::stats`](crate::Proxy::stats), also after it has ended.
    pub fn stats(&self) -> Stats {
        self.0.iter().map(|mailbox| mailbox.published.stats()).sum()
    }

    /// Stops the proxy, whose [`wait`](crate::Proxy::wait) then returns. Does nothing if it has ended.
    pub fn stop(&self) {
        for mailbox in self.0.iter() {
            // It fails only if the worker has ended.
            let _ = mailbox.send(Command::Stop);
        }
    }
}

impl Attachment {
    /// Changes the configuration of the ingress: MTU, gateway addresses, sources and policy of its paths and of those to come.
    /// The domain stays what it was. Flows stay; their next packets are handled by the new configuration.
    ///
    /// # Errors
    /// The proxy has ended.
    pub fn configure(&self, config: &PathConfig) -> Result<(), Closed> {
        let config = self.gateways.fill(config.clone());
        let configure = |mailbox: &Mailbox| {
            mailbox.call(|done| Command::Configure { ingress: self.id, config: config.clone(), done })
        };
        self.control.0.iter().try_for_each(configure)
    }

    /// What the paths of the ingress did so far, closed ones included. The packet path neither waits for this nor is waited for.
    pub fn stats(&self) -> PathCounters {
        self.control.0.iter().map(|mailbox| mailbox.published.ingress(self.id)).sum()
    }
}

impl Path {
    /// Hands in an IP packet of a client. Never blocks.
    ///
    /// What is wrong with a packet is counted, not returned: see [`Proxy::stats`](crate::Proxy::stats).
    ///
    /// # Errors
    /// [`SendError::Full`] when 1,024 packets wait already, [`SendError::Closed`] when the proxy has ended.
    pub fn send(&self, packet: &[u8]) -> Result<(), SendError> {
        self.sender.send(packet)
    }

    /// The handle of this path, which changes its configuration and tells its statistics.
    pub fn attachment(&self) -> &Attachment {
        &self.attachment
    }
}

impl Gateways {
    /// Gives a path the addresses that it has not.
    pub(crate) fn fill(self, mut config: PathConfig) -> PathConfig {
        if let Some(IpAddr::V4(gateway)) = self.v4 {
            config.gateway_v4.get_or_insert(gateway);
        }
        if let Some(IpAddr::V6(gateway)) = self.v6 {
            config.gateway_v6.get_or_insert(gateway);
        }
        config
    }
}
