//! A tokio program with a TUN device and a network stack of its own: pings cross, the rest is for the stack.
//!
//! ```text
//! tokio_tun tun0 eth0
//! ```
use std::error::Error;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use pingferry::{Config, Offer, Path, PathConfig, Proxy, Tun, TunConfig};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(device), interface @ Some(_)) = (args.next(), args.next()) else {
        return Err("usage: tokio_tun DEVICE INTERFACE".into());
    };
    let (tun, mtu, _) = TunConfig::new(&device).open()?;
    let tun = Arc::new(tun);
    // Its own pings must not be routed back into the device.
    let proxy = Proxy::open(Config::default().with_interface(interface))?;
    let (path, mut replies) = proxy.attach_queue(PathConfig::default().with_mtu(mtu as usize), 1024)?;
    // Such as ipstack or smoltcp.
    let (to_stack, mut of_stack) = mpsc::channel::<Vec<u8>>(1024);
    tokio::spawn(async move { while of_stack.recv().await.is_some() {} });
    tokio::spawn(read(Arc::clone(&tun), path, to_stack));
    tokio::select! {
        ended = proxy.closed() => println!("{:?}", ended?.counters),
        () = async {
            while let Some(reply) = replies.recv().await {
                // A device that is down or full loses packets, as any link does.
                let _ = tun.send(&reply);
            }
        } => {}
    }
    Ok(())
}

/// Offers each packet of the device to the path, and gives what it does not want to the stack.
async fn read(tun: Arc<Tun>, path: Path, stack: mpsc::Sender<Vec<u8>>) -> std::io::Result<()> {
    #[expect(deprecated, reason = "it is sound here: the device outlives it, and is not closed meanwhile")]
    let readable = AsyncFd::new(tun.as_fd().as_raw_fd())?;
    let mut buffer = vec![0; 65_536];
    loop {
        let mut ready = readable.readable().await?;
        while let Ok(length) = tun.receive(&mut buffer)
            && let Some(packet) = buffer.get(..length)
        {
            if path.offer(packet) == Offer::NotMine {
                let _ = stack.try_send(packet.to_vec());
            }
        }
        ready.clear_ready();
    }
}
