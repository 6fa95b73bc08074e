//! Checks before the first ping.
#![allow(clippy::unwrap_used, reason = "test helpers report failures by panicking")]

use std::net::{IpAddr, Ipv4Addr};

use pingferry_proto::Family;
use pingferry_sys::errno;
use pingferry_sys::namespace::Netns;
use pingferry_sys::netlink::{LOOPBACK, Netlink};
use pingferry_sys::preflight::{GroupRange, default_source_address, groups, ping_group_range, source_address};
use pingferry_testnet::{eventually, isolated};

#[test]
fn the_group_range_of_the_namespace_admits_its_root() {
    isolated(|| {
        assert_eq!(ping_group_range().unwrap(), GroupRange { low: 0, high: 0 });
        assert!(ping_group_range().unwrap().admits(&groups().unwrap()));
        let unset = Netns::create().unwrap().run(ping_group_range).unwrap().unwrap();
        assert!(!unset.admits(&groups().unwrap()), "{unset:?}");
    });
}

#[test]
fn the_source_address_comes_from_the_route() {
    isolated(|| {
        for family in Family::ALL {
            let error = default_source_address(family).unwrap_err();
            assert_eq!(errno(&error), Some(libc::ENETUNREACH), "{family}");
        }
        let mut netlink = Netlink::open().unwrap();
        for (family, address, any) in [(Family::V4, "10.0.0.1", "0.0.0.0/0"), (Family::V6, "fd00::1", "::/0")] {
            let address: IpAddr = address.parse().unwrap();
            netlink.add_address(LOOPBACK, ipnet::IpNet::from(address)).unwrap();
            eventually("the address", || netlink.is_local(address)).unwrap();
            netlink.add_route(any.parse().unwrap(), None, LOOPBACK, None).unwrap();
            assert_eq!(default_source_address(family).unwrap(), address);
        }
        let loopback = Ipv4Addr::LOCALHOST.into();
        assert_eq!(source_address(loopback).unwrap(), loopback);
    });
}
