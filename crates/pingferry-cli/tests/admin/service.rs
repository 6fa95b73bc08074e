//! What a service manager is told.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use pingferry_testnet::isolated;

use super::support::tunnel::Tunnel;
use super::support::*;

/// A service manager.
struct Manager(UnixDatagram);

impl Manager {
    fn listen(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self(socket)
    }

    /// The next message with this line.
    fn wait_for(&self, line: &str) -> String {
        loop {
            let mut buffer = [0; 4096];
            let len = self.0.recv(&mut buffer).unwrap();
            let message = String::from_utf8_lossy(&buffer[..len]).into_owned();
            if message.lines().any(|of_message| of_message == line) {
                return message;
            }
        }
    }
}

#[test]
fn the_manager_hears_ready_watchdog_reloading_and_stopping() {
    isolated(|| {
        let folder = tempfile::tempdir().unwrap();
        let (path, config) = (folder.path().join("notify"), folder.path().join("pingferry.toml"));
        std::fs::write(&config, "policy = []").unwrap();
        let manager = Manager::listen(&path);
        let served = Served::start_as(|socket| {
            let mut command = pingferry();
            command.args(["run", "--config"]).arg(&config).arg("--unix").arg(socket);
            command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
            command
        });
        assert!(manager.wait_for("READY=1").contains("STATUS=serving Unix socket "));
        assert!(manager.wait_for("WATCHDOG=1").contains("STATUS=0 flows; 0 requests sent"));
        manager.wait_for("WATCHDOG=1");
        served.running.reload();
        assert!(manager.wait_for("RELOADING=1").contains("MONOTONIC_USEC="));
        manager.wait_for("READY=1");
        std::fs::write(&config, "policy = [wrong]").unwrap();
        served.running.reload();
        manager.wait_for("RELOADING=1");
        assert!(manager.wait_for("READY=1").contains("has an error"));
        served.running.signal(rustix::process::Signal::TERM);
        manager.wait_for("STOPPING=1");
        assert_eq!(served.running.end().code(), Some(0));
    });
}

#[test]
fn a_reload_without_a_file_is_confirmed_too() {
    isolated(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = Manager::listen(&path);
        let served = Served::start_as(|socket| {
            let mut command = pingferry();
            command.args(["run", "--unix"]).arg(socket).env("NOTIFY_SOCKET", &path);
            command
        });
        manager.wait_for("READY=1");
        served.running.reload();
        manager.wait_for("RELOADING=1");
        manager.wait_for("READY=1");
        served.running.stop();
    });
}

#[test]
fn the_manager_hears_of_both_ends_of_a_tunnel() {
    isolated(|| {
        if !can_run(&[]) {
            return;
        }
        let tunnel = Tunnel::new();
        let path = tunnel.folder.path().join("notify");
        let manager = Manager::listen(&path);
        let told = |running: Running, ready: &str| {
            assert!(manager.wait_for("READY=1").contains(ready));
            running.signal(rustix::process::Signal::TERM);
            manager.wait_for("STOPPING=1");
            assert_eq!(running.end().code(), Some(0));
        };
        let mut edge = tunnel.edge_command("203.0.113.1:7844");
        told(Running::start(&tunnel.network.client, edge.env("NOTIFY_SOCKET", &path)), "STATUS=TUN device pf0 ");
        let mut connector = tunnel.connect(&["--edge", "203.0.113.1:7844", "--grace-period", "0s"]);
        connector.args(["--token-file", &tunnel.file("token")]).env("NOTIFY_SOCKET", &path);
        told(Running::start(&tunnel.network.x, &mut connector), "STATUS=tunnel ");
    });
}
