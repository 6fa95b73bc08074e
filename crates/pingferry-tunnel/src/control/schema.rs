//! What is registered and answered: the structures of `RegistrationServer`, file 0xdb8274f9144abc7e.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use uuid::Uuid;

use super::layout::{Fields, Slot};
use crate::wire::Secret;

/// The interface that connectors call.
pub(super) const REGISTRATION_SERVER: u64 = 0xf716_95ec_7fe8_5497;
pub(super) const REGISTER_CONNECTION: u16 = 0;
pub(super) const UNREGISTER_CONNECTION: u16 = 1;
pub(super) const UPDATE_LOCAL_CONFIGURATION: u16 = 2;

/// The interface of pingferry's own ends: `advertise @0 (prefixes :List(Text)) -> (accepted :List(Text))`.
pub(super) const PREFIX_EXCHANGE: u64 = 0xd7b2_f6a0_9c4e_8153;
pub(super) const ADVERTISE: u16 = 0;

/// The feature of a connector that advertises prefixes once it is registered. Until then an edge routes nothing to it.
pub const FEATURE_PREFIXES: &str = "pingferry_prefixes";
/// The largest number of prefixes that a connector advertises.
pub const MAX_PREFIXES: usize = 256;
/// The longest text of a registration, in bytes.
pub const MAX_TEXT: usize = 1024;
/// The largest number of features.
const MAX_FEATURES: usize = 64;

/// What a connector says about itself and a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The account of its token.
    pub account_tag: String,
    /// The secret of its token.
    pub secret: Secret,
    /// The tunnel of its token.
    pub tunnel_id: Uuid,
    /// Which of the connector's connections this is.
    pub connection_index: u8,
    /// Everything else.
    pub options: ConnectionOptions,
}

/// What a connector wants of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionOptions {
    /// The connector.
    pub client: ClientInfo,
    /// The address of the connector, or what it takes for it. Not to be trusted.
    pub origin_local_ip: Option<IpAddr>,
    /// Whether the connection replaces an older one with the same index.
    pub replace_existing: bool,
    /// 0: nothing is compressed.
    pub compression_quality: u8,
    /// How often it tried before.
    pub previous_attempts: u8,
}

/// A connector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientInfo {
    /// A random number of the process, the same for all its connections.
    pub id: Uuid,
    /// What it supports, such as [`FEATURE_PREFIXES`].
    pub features: Vec<String>,
    /// Its version.
    pub version: String,
    /// Its operating system and processor: `linux_amd64`.
    pub arch: String,
}

/// The registration succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionDetails {
    /// The connection's number at the edge.
    pub uuid: Uuid,
    /// Where the edge is.
    pub location: String,
    /// The connector need not tell its configuration.
    pub is_remotely_managed: bool,
}

/// The registration failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub cause: String,
    /// When it can be tried again, at the earliest.
    pub retry_after: Duration,
    /// Whether to try again.
    pub should_retry: bool,
}

fn error(text: &str) -> capnp::Error {
    capnp::Error::failed(text.into())
}

fn uuid(bytes: &[u8]) -> capnp::Result<Uuid> {
    Uuid::from_slice(bytes).map_err(|_| error("an identifier has not 16 bytes"))
}

fn bounded(text: &str) -> capnp::Result<String> {
    if text.len() > MAX_TEXT { Err(error("a text is too long")) } else { Ok(text.into()) }
}

fn texts(fields: Fields<'_>, pointer: usize, max: usize) -> capnp::Result<Vec<String>> {
    let list = fields.texts(pointer)?;
    if list.len() as usize > max {
        return Err(error("a list is too long"));
    }
    list.iter().map(|text| bounded(text?.to_str()?)).collect()
}

/// 4 or 16 bytes.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

impl Registration {
    pub(super) fn read(params: Fields<'_>) -> capnp::Result<Self> {
        let auth = params.fields(0)?;
        Ok(Self {
            account_tag: bounded(auth.text(0)?)?,
            secret: Secret::new(auth.data(1)?.into()),
            tunnel_id: uuid(params.data(1)?)?,
            connection_index: params.u8(0),
            options: ConnectionOptions::read(params.fields(2)?)?,
        })
    }

    pub(super) fn write(&self, slot: Slot<'_>) {
        let mut params = slot.fields(1, 3);
        let mut auth = params.slot(0).fields(0, 2);
        auth.slot(0).text(&self.account_tag);
        auth.slot(1).data(self.secret.as_bytes());
        params.slot(1).data(self.tunnel_id.as_bytes());
        params.set_u8(0, self.connection_index);
        self.options.write(params.slot(2));
    }
}

impl ConnectionOptions {
    fn read(options: Fields<'_>) -> capnp::Result<Self> {
        Ok(Self {
            client: ClientInfo::read(options.fields(0)?)?,
            origin_local_ip: address(options.data(1)?),
            replace_existing: options.bit(0),
            compression_quality: options.u8(1),
            previous_attempts: options.u8(2),
        })
    }

    fn write(&self, slot: Slot<'_>) {
        let mut options = slot.fields(1, 2);
        self.client.write(options.slot(0));
        match self.origin_local_ip {
            Some(IpAddr::V4(address)) => options.slot(1).data(&address.octets()),
            Some(IpAddr::V6(address)) => options.slot(1).data(&address.octets()),
            None => {}
        }
        options.set_bit(0, self.replace_existing);
        options.set_u8(1, self.compression_quality);
        options.set_u8(2, self.previous_attempts);
    }
}

impl ClientInfo {
    fn read(client: Fields<'_>) -> capnp::Result<Self> {
        Ok(Self {
            id: uuid(client.data(0)?)?,
            features: texts(client, 1, MAX_FEATURES)?,
            version: bounded(client.text(2)?)?,
            arch: bounded(client.text(3)?)?,
        })
    }

    fn write(&self, slot: Slot<'_>) {
        let mut client = slot.fields(0, 4);
        client.slot(0).data(self.id.as_bytes());
        client.slot(1).texts(self.features.iter().map(String::as_str));
        client.slot(2).text(&self.version);
        client.slot(3).text(&self.arch);
    }
}

/// The results of `registerConnection`: either structure is in the union of a ConnectionResponse.
pub(super) fn read_registered(results: Fields<'_>) -> capnp::Result<Result<ConnectionDetails, Refusal>> {
    let response = results.fields(0)?;
    let result = response.fields(0)?;
    match response.u16(0) {
        0 => Refusal::read(result).map(Err),
        1 => ConnectionDetails::read(result).map(Ok),
        _ => Err(error("the result of the registration is of an unknown kind")),
    }
}

pub(super) fn write_registered(slot: Slot<'_>, result: Result<&ConnectionDetails, &Refusal>) {
    let mut results = slot.fields(0, 1);
    let mut response = results.slot(0).fields(1, 1);
    match result {
        Err(refusal) => refusal.write(response.slot(0)),
        Ok(details) => {
            response.set_u16(0, 1);
            details.write(response.slot(0));
        }
    }
}

impl ConnectionDetails {
    fn read(details: Fields<'_>) -> capnp::Result<Self> {
        Ok(Self {
            uuid: uuid(details.data(0)?)?,
            location: bounded(details.text(1)?)?,
            is_remotely_managed: details.bit(0),
        })
    }

    fn write(&self, slot: Slot<'_>) {
        let mut details = slot.fields(1, 2);
        details.slot(0).data(self.uuid.as_bytes());
        details.slot(1).text(&self.location);
        details.set_bit(0, self.is_remotely_managed);
    }
}

impl Refusal {
    fn read(refusal: Fields<'_>) -> capnp::Result<Self> {
        Ok(Self {
            cause: bounded(refusal.text(0)?)?,
            // It is signed. What is negative is no time at all.
            retry_after: Duration::from_nanos(u64::try_from(refusal.u64(0).cast_signed()).unwrap_or(0)),
            should_retry: refusal.bit(64),
        })
    }

    fn write(&self, slot: Slot<'_>) {
        let mut refusal = slot.fields(2, 1);
        refusal.slot(0).text(&self.cause);
        let nanos = i64::try_from(self.retry_after.as_nanos()).unwrap_or(i64::MAX);
        refusal.set_u64(0, nanos.cast_unsigned());
        refusal.set_bit(64, self.should_retry);
    }
}

/// The parameters and the results of `advertise`.
pub(super) fn read_prefixes(fields: Fields<'_>) -> capnp::Result<Vec<IpNet>> {
    let prefixes = texts(fields, 0, MAX_PREFIXES)?;
    prefixes.iter().map(|text| text.parse().map_err(|_| error("a prefix is not one"))).collect()
}

pub(super) fn write_prefixes(slot: Slot<'_>, prefixes: &[IpNet]) {
    let texts: Vec<String> = prefixes.iter().take(MAX_PREFIXES).map(ToString::to_string).collect();
    slot.fields(0, 1).slot(0).texts(texts.iter().map(String::as_str));
}
