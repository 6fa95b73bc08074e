//! Writes the packets of an ingress to a pcap file, as clients send and receive them.
//!
//! The format is the classic one (draft-ietf-opsawg-pcap): a file header of 24 bytes, then a header of 16 bytes before each
//! packet, in the byte order of the machine. Packets begin with their IP header (`LINKTYPE_RAW`).

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;
use rustix::io::Errno;
use tracing::error;

use super::{Deliveries, Ingress, PacketBatch, PacketSink, PacketSource};

/// Time stamps in nanoseconds.
const MAGIC: u32 = 0xa1b2_3c4d;
const VERSION: [u16; 2] = [2, 4];
/// The largest packet that is written whole: any IP packet.
const SNAPSHOT_LENGTH: u32 = 65_535;
const LINKTYPE_RAW: u32 = 101;

/// A pcap file that several ingresses can write to. The file is complete when the proxies have ended, or the last
/// clone is dropped.
///
/// ```
/// use pingferry::Config;
/// use pingferry::ingress::PcapFile;
///
/// let folder = tempfile::tempdir()?;
/// let file = PcapFile::create(folder.path().join("clients.pcap"))?;
/// let config = Config::default().with_pcap(Some(file));
/// assert!(config.pcap.is_some());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct PcapFile(Arc<Mutex<Writer>>);

#[derive(Debug)]
struct Writer {
    /// `None` after a write failed, so that the error is reported once.
    // Held while a batch is copied to the buffer, and by the thread that fills the buffer while it is written: the packet path
    // waits for the disk then, as a capture that loses nothing has to.
    file: Option<BufWriter<File>>,
}

impl PcapFile {
    /// Creates the file, or empties it.
    ///
    /// # Errors
    /// It cannot be created or written. `InvalidInput` if there is something else than a regular file: whoever does not read a
    /// FIFO would stop the packets.
    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        let mut file = BufWriter::new(create_regular(path.as_ref())?);
        file.write_all(&MAGIC.to_ne_bytes())?;
        file.write_all(&VERSION.map(u16::to_ne_bytes).concat())?;
        file.write_all(&[0; 8])?;
        file.write_all(&SNAPSHOT_LENGTH.to_ne_bytes())?;
        file.write_all(&LINKTYPE_RAW.to_ne_bytes())?;
        file.flush()?;
        Ok(Self(Arc::new(Mutex::new(Writer { file: Some(file) }))))
    }

    /// Writes what is buffered to the file.
    pub(crate) fn flush(&self) {
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Err(error)) = writer.file.as_mut().map(Write::flush) {
            error!("the packet capture is not complete: {error}");
        }
    }

    fn write<'a>(&self, packets: impl IntoIterator<Item = &'a [u8]>) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = &mut writer.file else { return };
        if let Err(error) = packets.into_iter().try_for_each(|packet| write_packet(file, now, packet)) {
            error!("the packet capture ends here: {error}");
            writer.file = None;
        }
    }
}

/// Creates or empties a regular file. Nothing else is waited for or emptied.
fn create_regular(path: &Path) -> io::Result<File> {
    let without_waiting = OFlags::NONBLOCK.bits().cast_signed();
    let opened = OpenOptions::new().write(true).create(true).truncate(false).custom_flags(without_waiting).open(path);
    let is_regular = match &opened {
        Ok(file) => file.metadata()?.is_file(),
        // A FIFO without a reader, or a socket.
        Err(error) => error.raw_os_error() != Some(Errno::NXIO.raw_os_error()),
    };
    if !is_regular {
        let why = "a capture must be a regular file, and this is none";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let file = opened?;
    file.set_len(0)?;
    Ok(file)
}

fn write_packet(file: &mut impl Write, now: Duration, packet: &[u8]) -> io::Result<()> {
    let captured = packet.get(..SNAPSHOT_LENGTH as usize).unwrap_or(packet);
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    // Seconds as 32 bits, which last until 2106.
    let header = [now.as_secs() as u32, now.subsec_nanos(), length(captured), length(packet)];
    file.write_all(&header.map(u32::to_ne_bytes).concat())?;
    file.write_all(captured)
}

/// An ingress whose packets are also written to a file.
#[derive(Debug)]
pub struct Pcap<I> {
    inner: I,
    file: PcapFile,
}

impl<I> Pcap<I> {
    /// Writes what passes through `inner` to `file`.
    pub fn new(inner: I, file: PcapFile) -> Self {
        Self { inner, file }
    }
}

impl<I: Ingress> Ingress for Pcap<I> {
    type Source = PcapSource<I::Source>;
    type Sink = PcapSink<I::Sink>;

    fn split(self) -> io::Result<(Self::Source, Self::Sink)> {
        let (source, sink) = self.inner.split()?;
        Ok((PcapSource { inner: source, file: self.file.clone() }, PcapSink { inner: sink, file: self.file }))
    }
}

/// The source of a [`Pcap`] ingress.
#[derive(Debug)]
pub struct PcapSource<S> {
    inner: S,
    file: PcapFile,
}

impl<S: PacketSource> AsFd for PcapSource<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl<S: PacketSource> PacketSource for PcapSource<S> {
    fn receive(&mut self, batch: &mut PacketBatch) -> io::Result<()> {
        let start = batch.len();
        let received = self.inner.receive(batch);
        self.file.write((start..batch.len()).filter_map(|number| batch.get(number)));
        received
    }

    delegate_source!(self => self.inner);
}

/// The sink of a [`Pcap`] ingress.
#[derive(Debug)]
pub struct PcapSink<K> {
    inner: K,
    file: PcapFile,
}

impl<K: PacketSink> PacketSink for PcapSink<K> {
    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        self.file.write([packet]);
        self.inner.send(packet)
    }

    fn send_batch(&mut self, batch: &mut Deliveries<'_>) {
        self.file.write(batch.all_packets());
        self.inner.send_batch(batch);
    }

    delegate_sink!(self => self.inner);
}
