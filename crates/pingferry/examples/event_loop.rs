//! A proxy without threads, in an event loop of the program's own: pings of a TUN device leave by another interface.
//!
//! ```text
//! event_loop tun0 eth0
//! ```
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use pingferry::{Config, Driver, Offer, PathConfig, TunConfig};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(device), interface @ Some(_)) = (args.next(), args.next()) else {
        return Err("usage: event_loop DEVICE INTERFACE".into());
    };
    let (tun, mtu, _) = TunConfig::new(&device).open()?;
    let tun = Arc::new(tun);
    // Its own pings must not be routed back into the device.
    let mut driver = Driver::open(Config::default().with_interface(interface))?;
    let back = Arc::clone(&tun);
    let path = driver.attach(PathConfig::default().with_mtu(mtu as usize), move |packet: &[u8]| back.send(packet))?;
    let mut buffer = vec![0; 65_536];
    loop {
        while let Ok(length) = tun.receive(&mut buffer)
            && let Some(packet) = buffer.get(..length)
        {
            if path.offer(packet) == Offer::NotMine {
                // For the rest of the program: its TCP and UDP.
            }
        }
        if driver.turn(Instant::now())?.is_break() {
            return Ok(());
        }
        let left = driver.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = left.map(Timespec::try_from).transpose()?;
        // The program's other descriptors would be here too.
        poll(&mut [PollFd::new(&driver, PollFlags::IN), PollFd::new(&*tun, PollFlags::IN)], timeout.as_ref())?;
    }
}
