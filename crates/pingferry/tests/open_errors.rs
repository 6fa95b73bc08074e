//! What an error says when a proxy cannot be opened.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

use pingferry::{Config, Family, OpenError, Proxy};
use pingferry_testnet::isolated;

#[test]
fn an_error_tells_what_is_missing() {
    isolated(|| {
        let opened = |config| Proxy::open(config).map(drop).unwrap_err();
        let interface = opened(Config::default().with_interface(Some("missing0".into())));
        assert!(matches!(&interface, OpenError::Interface { name } if name == "missing0"), "{interface:?}");
        let source = opened(Config::default().with_source_v4(Some([192, 0, 2, 77].into())));
        assert!(matches!(source, OpenError::Source { .. }), "{source:?}");
        let source = opened(Config::default().with_source_v6(Some("2001:db8::77".parse().unwrap())));
        assert!(matches!(source, OpenError::Source { .. }), "{source:?}");
        let proxy = Proxy::open(Config::default()).unwrap();
        assert!(proxy.serves(Family::V4) && proxy.serves(Family::V6));
    });
}

#[test]
fn without_permission_the_error_has_the_command_that_gives_it() {
    isolated(|| {
        let bare = pingferry_sys::namespace::Netns::create().unwrap();
        let error = bare.run(|| Proxy::open(Config::default()).map(drop)).unwrap().unwrap_err();
        let OpenError::NotPermitted { range: Some(range), groups, .. } = &error else { panic!("{error:?}") };
        assert!(range.low > range.high && groups.effective == 0, "{range:?} {groups:?}");
        assert!(error.to_string().ends_with("run as root: sysctl -w net.ipv4.ping_group_range=\"0 0\""), "{error}");
    });
}

#[test]
fn without_descriptors_the_error_says_so() {
    isolated(|| {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = Rlimit { current: Some(64), ..getrlimit(Resource::Nofile) };
        setrlimit(Resource::Nofile, limit).unwrap();
        let mut all: Vec<_> = (0..64).map_while(|_| std::fs::File::open("/dev/null").ok()).collect();
        for _left in 0..4 {
            let error = Proxy::open(Config::default()).map(drop).unwrap_err();
            assert!(matches!(error, OpenError::Descriptors(_)), "{error:?}");
            all.pop();
        }
    });
}
