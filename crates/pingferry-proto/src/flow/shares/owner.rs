//! Whose an item is.

use std::net::IpAddr;

use crate::flow::{DomainId, TenantId};
use crate::wire::ip::Family;

/// A source, its domain, and the tenant of the path, if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    pub(crate) tenant: Option<TenantId>,
    pub(crate) domain: DomainId,
    family: Family,
    /// An IPv4 address, or the first 64 bits of an IPv6 address: a client has all addresses of its link.
    source: u64,
}

/// Who has a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Party {
    Tenant(TenantId),
    Domain(Option<TenantId>, DomainId),
    Source(Owner),
}

impl Owner {
    pub(crate) fn new(tenant: Option<TenantId>, domain: DomainId, source: IpAddr) -> Self {
        let (family, source) = match source {
            IpAddr::V4(address) => (Family::V4, address.to_bits().into()),
            IpAddr::V6(address) => (Family::V6, (address.to_bits() >> 64) as u64),
        };
        Self { tenant, domain, family, source }
    }

    /// Who has a share of the whole.
    pub(crate) fn outermost(self) -> Party {
        Party::Source(self).outermost()
    }
}

impl Party {
    /// The one whose share is divided among it and others. `None` if it has a share of the whole.
    pub(crate) fn parent(self) -> Option<Self> {
        match self {
            Self::Tenant(_) => None,
            Self::Domain(tenant, _) => tenant.map(Self::Tenant),
            Self::Source(Owner { tenant, domain, .. }) => Some(Self::Domain(tenant, domain)),
        }
    }

    /// Who has a share of the whole: the tenant, or the domain if it has none.
    pub(crate) fn outermost(self) -> Self {
        self.parent().map_or(self, Self::outermost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_an_ipv6_network_are_one_source() {
        let owner = |source: &str| Owner::new(None, DomainId(0), source.parse().unwrap());
        assert_eq!(owner("fd00::1"), owner("fd00::ffff:2"));
        assert_ne!(owner("fd00::1"), owner("fd00:0:0:1::1"));
        assert_ne!(owner("10.0.0.1"), owner("10.0.0.2"));
        assert_ne!(owner("10.0.0.1"), owner("0:0:a00:1::"));
    }
}
