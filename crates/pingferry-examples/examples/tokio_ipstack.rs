//! A tokio program with a TUN device and ipstack: pings cross, and TCP goes through the stack.
//!
//! ```text
//! tokio_ipstack tun0 eth0
//! ```
use std::error::Error;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt, stream};
use ipstack::{IpStack, IpStackConfig, IpStackStream, IpStackTcpStream};
use pingferry::{Config, Offer, Path, PathConfig, Proxy, Tun, TunConfig};
use tokio::io::unix::AsyncFd;
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};
use tokio_util::sync::PollSender;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(device), Some(interface)) = (args.next(), args.next()) else {
        return Err("usage: tokio_ipstack DEVICE INTERFACE".into());
    };
    let (tun, mtu, _) = TunConfig::new(&device).open()?;
    let tun = Arc::new(tun);
    // Its own packets must not be routed back into the device.
    let proxy = Proxy::open(Config::default().with_interface(Some(interface.clone())))?;
    let (path, mut replies) = proxy.attach_queue(PathConfig::default().with_mtu(mtu as usize), 1024)?;
    let (to_stack, mut from_device) = mpsc::channel::<io::Result<Bytes>>(1024);
    let (to_device, mut from_stack) = mpsc::channel::<Bytes>(1024);
    let reader = StreamReader::new(stream::poll_fn(move |context| from_device.poll_recv(context)));
    let writer = SinkWriter::new(CopyToBytes::new(PollSender::new(to_device).sink_map_err(io::Error::other)));
    let mut stack = IpStack::new(IpStackConfig::default(), tokio::io::join(reader, writer));
    tokio::spawn(read(Arc::clone(&tun), path, to_stack));
    loop {
        // A device that is down or full loses packets, as any link does.
        tokio::select! {
            Some(reply) = replies.recv() => drop(tun.send(&reply)),
            Some(packet) = from_stack.recv() => drop(tun.send(&packet)),
            stream = stack.accept() => if let IpStackStream::Tcp(stream) = stream? {
                tokio::spawn(relay(stream, interface.clone()));
            },
        }
    }
}

/// Offers each packet of the device to the path, and gives what it does not want to the stack.
async fn read(tun: Arc<Tun>, path: Path, stack: mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    #[expect(deprecated, reason = "it is sound here: the device outlives it, and is not closed meanwhile")]
    let readable = AsyncFd::new(tun.as_fd().as_raw_fd())?;
    let mut buffer = vec![0; 65_536];
    loop {
        let mut ready = readable.readable().await?;
        while let Ok(length) = tun.receive(&mut buffer)
            && let Some(packet) = buffer.get(..length)
        {
            if path.offer(packet) == Offer::NotMine {
                let _ = stack.try_send(Ok(Bytes::copy_from_slice(packet)));
            }
        }
        ready.clear_ready();
    }
}

async fn relay(mut client: IpStackTcpStream, interface: String) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind_device(Some(interface.as_bytes()))?;
    let mut host = socket.connect(client.peer_addr()).await?;
    tokio::io::copy_bidirectional(&mut client, &mut host).await.map(drop)
}
