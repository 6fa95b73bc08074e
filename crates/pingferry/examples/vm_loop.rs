//! A gateway for virtual machines, in the framing of qemu's `-netdev stream`, passt and libkrun: before each frame its length
//! in four bytes. Each machine has a thread and a path of its own, so two of them may have the same addresses.
//!
//! ```text
//! vm_loop /run/vm.sock 10.0.0.1 &
//! qemu-system-x86_64 … -netdev stream,id=net0,addr.type=unix,addr.path=/run/vm.sock -device virtio-net,netdev=net0
//! ```
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;

use pingferry::ethernet::{Ethernet, Received};
use pingferry::{Config, Control, Offer, PathConfig, Proxy};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let listener = UnixListener::bind(args.next().ok_or("usage: vm_loop SOCKET GATEWAY...")?)?;
    let gateways: Vec<IpAddr> = args.map(|address| address.parse()).collect::<Result<_, _>>()?;
    let proxy = Proxy::open(Config::default())?;
    for machine in listener.incoming() {
        let (machine, control, gateways) = (machine?, proxy.control(), gateways.clone());
        thread::spawn(move || serve(machine, &control, gateways).unwrap_or_else(|error| eprintln!("machine: {error}")));
    }
    Ok(())
}

/// Serves a machine until it goes.
fn serve(mut machine: UnixStream, control: &Control, gateways: Vec<IpAddr>) -> Result<(), Box<dyn Error>> {
    let gateway = gateways.iter().find_map(|address| if let IpAddr::V4(v4) = address { Some(*v4) } else { None });
    let link = Arc::new(Ethernet::new([2, 0, 0, 0, 0, 1], gateways));
    // Replies are written by the proxy's thread. A machine that does not read must not keep it.
    let (mut back, of_callback, mut frame) = (machine.try_clone()?, Arc::clone(&link), Vec::new());
    back.set_write_timeout(Some(std::time::Duration::from_millis(10)))?;
    let path = control.attach(PathConfig::default().with_gateway_v4(gateway), move |packet: &[u8]| {
        of_callback.frame(packet, &mut frame);
        write(&mut back, &frame)
    })?;
    let mut buffer = vec![0; 65_536 + 14];
    loop {
        let mut length = [0; 4];
        machine.read_exact(&mut length)?;
        let frame = buffer.get_mut(..u32::from_be_bytes(length) as usize).ok_or("a frame is too long")?;
        machine.read_exact(frame)?;
        match link.receive(frame) {
            Received::Packet(packet) if path.offer(packet) == Offer::NotMine => { /* for the rest of the gateway */ }
            Received::Answer(answer) => write(&mut machine, &answer)?,
            Received::Packet(_) | Received::Other => {}
        }
    }
}

fn write(machine: &mut UnixStream, frame: &[u8]) -> io::Result<()> {
    machine.write_all(&[&(frame.len() as u32).to_be_bytes()[..], frame].concat())
}
