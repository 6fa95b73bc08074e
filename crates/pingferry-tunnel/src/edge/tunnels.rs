//! The tunnels file: which tunnels there are, and what each is allowed.
//!
//! ```toml
//! [[tunnel]]
//! id = "6ff42ae2-765d-4adf-8112-31c55c1551ef"
//! name = "office"
//! secret_sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
//! allowed = ["10.0.0.0/8", "2001:db8::/32"]
//! ```
//!
//! It has the SHA-256 of each secret and not the secret, so a copy of it lets nobody in.

use std::collections::HashMap;
use std::fmt::{self, Display};
use std::io;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use ipnet::IpNet;
use pingferry_sys::file::open_regular_file;
use serde::Deserialize;
use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::prefix_table::PrefixTable;

/// The tunnels of an edge.
#[derive(Clone, Debug, Default)]
pub struct Tunnels(HashMap<Uuid, Tunnel>);

/// A tunnel: who may connect, and what its connectors may serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// The identifier of the tunnel.
    pub id: Uuid,
    /// A name for people.
    pub name: Option<String>,
    /// The prefixes that its connectors may serve.
    pub allowed: Vec<IpNet>,
    secret_sha256: [u8; SHA256_OUTPUT_LEN],
}

/// What is wrong with a tunnels file, on one line.
#[derive(Debug, thiserror::Error)]
pub enum TunnelsError {
    /// The file cannot be read.
    #[error("cannot read the tunnels file {0}: {1}")]
    Unreadable(String, #[source] io::Error),
    /// Its text does not say which tunnels there are.
    #[error("the tunnels file is wrong: {0}")]
    Wrong(String),
}

/// The file as serde reads it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    tunnel: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    name: Option<String>,
    secret_sha256: String,
    allowed: Vec<String>,
}

impl Tunnels {
    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read, or as [`parse`](Self::parse).
    pub fn read(path: &Path) -> Result<Self, TunnelsError> {
        let text = open_regular_file(path).and_then(io::read_to_string);
        Self::parse(&text.map_err(|error| TunnelsError::Unreadable(path.display().to_string(), error))?)
    }

    /// Parses the text of a file.
    ///
    /// # Errors
    /// It is not the TOML of such a file, two tunnels have the same identifier or the same allowed prefix, or a tunnel is
    /// allowed nothing.
    ///
    /// ```
    /// use pingferry_tunnel::edge::Tunnels;
    ///
    /// let text = r#"
    ///     [[tunnel]]
    ///     id = "6ff42ae2-765d-4adf-8112-31c55c1551ef"
    ///     secret_sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    ///     allowed = ["10.0.0.0/8"]
    /// "#;
    /// let tunnels = Tunnels::parse(text)?;
    /// let id = "6ff42ae2-765d-4adf-8112-31c55c1551ef".parse()?;
    /// assert!(tunnels.authenticate(id, b"test").is_some());
    /// assert!(tunnels.authenticate(id, b"toast").is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, TunnelsError> {
        let file: File = toml::from_str(text).map_err(|error| wrong(first_lines(&error)))?;
        let mut tunnels = HashMap::new();
        let mut owners = PrefixTable::default();
        for entry in file.tunnel {
            let tunnel = Tunnel::from_entry(entry)?;
            for prefix in &tunnel.allowed {
                if let Some(other) = owners.insert(*prefix, tunnel.id) {
                    return Err(wrong(format!("{prefix} is allowed in tunnel {other} and in tunnel {}", tunnel.id)));
                }
            }
            if let Some(same) = tunnels.insert(tunnel.id, tunnel) {
                return Err(wrong(format!("there are two tunnels {}", same.id)));
            }
        }
        Ok(Self(tunnels))
    }

    /// The tunnel, if the secret is its own.
    ///
    /// An unknown tunnel takes as long as a wrong secret: a digest is computed and compared in either case, in constant time.
    pub fn authenticate(&self, id: Uuid, secret: &[u8]) -> Option<&Tunnel> {
        let tunnel = self.0.get(&id);
        // No secret that anybody knows has this digest.
        let expected = tunnel.map_or([0; SHA256_OUTPUT_LEN], |tunnel| tunnel.secret_sha256);
        let is_right = bool::from(digest(&SHA256, secret).as_ref().ct_eq(&expected));
        tunnel.filter(|_| is_right)
    }

    /// All tunnels, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Tunnel> {
        self.0.values()
    }

    /// Whether the tunnel is the same as in `old`, apart from what it is called and allowed: its connectors can stay.
    pub(crate) fn keeps(&self, id: Uuid, old: &Self) -> bool {
        let secret = |tunnels: &Self| tunnels.0.get(&id).map(|tunnel| tunnel.secret_sha256);
        secret(self).is_some_and(|new| Some(new) == secret(old))
    }
}

impl Tunnel {
    fn from_entry(entry: Entry) -> Result<Self, TunnelsError> {
        let id: Uuid = entry.id.parse().map_err(|_| wrong(format!("`{}` is not a UUID", entry.id)))?;
        let in_tunnel = |message: String| wrong(format!("tunnel {id}: {message}"));
        let secret_sha256 = parse_digest(&entry.secret_sha256)
            .ok_or_else(|| in_tunnel("secret_sha256 must have 64 hexadecimal digits".into()))?;
        let allowed: Result<Vec<IpNet>, String> = entry.allowed.iter().map(|text| parse_prefix(text)).collect();
        let allowed = allowed.map_err(in_tunnel)?;
        if allowed.is_empty() {
            return Err(in_tunnel("`allowed` is empty, so the tunnel could carry nothing".into()));
        }
        Ok(Self { id, name: entry.name, allowed, secret_sha256 })
    }
}

impl Display for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} ({})", self.id),
            None => self.id.fmt(f),
        }
    }
}

fn wrong(message: impl Into<String>) -> TunnelsError {
    TunnelsError::Wrong(message.into())
}

/// Where it is and what it is, without the drawing between them.
fn first_lines(error: &toml::de::Error) -> String {
    let text = error.to_string();
    let place = text.lines().next().unwrap_or_default();
    if place == error.message() { place.into() } else { format!("{place}: {}", error.message()) }
}

fn parse_prefix(text: &str) -> Result<IpNet, String> {
    let prefix: IpNet = text.parse().map_err(|_| format!("`{text}` is not a prefix such as 192.0.2.0/24"))?;
    if prefix.trunc() == prefix { Ok(prefix) } else { Err(format!("{prefix} has host bits; write {}", prefix.trunc())) }
}

fn parse_digest(text: &str) -> Option<[u8; SHA256_OUTPUT_LEN]> {
    let mut digest = [0; SHA256_OUTPUT_LEN];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != digest.len() || !rest.is_empty() {
        return None;
    }
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(digest)
}

/// The SHA-256 of a secret, as the file has it.
pub(crate) fn digest_text(secret: &[u8]) -> String {
    digest(&SHA256, secret).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Uuid = Uuid::from_u128(1);

    fn entry(id: u128, secret: &[u8], allowed: &str) -> String {
        let (id, digest) = (Uuid::from_u128(id), digest_text(secret));
        format!("[[tunnel]]\nid = \"{id}\"\nsecret_sha256 = \"{digest}\"\nallowed = [{allowed}]\n")
    }

    fn error(text: &str) -> String {
        Tunnels::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn only_the_secret_of_the_tunnel_is_right() {
        let text = entry(1, b"one", r#""10.0.0.0/8""#) + &entry(2, b"two", r#""10.1.0.0/16""#);
        let tunnels = Tunnels::parse(&text).unwrap();
        assert_eq!(tunnels.authenticate(ID, b"one").map(|tunnel| tunnel.id), Some(ID));
        for (id, secret) in [(1, &b"two"[..]), (1, b""), (1, b"on"), (1, b"onee"), (3, b"one")] {
            assert_eq!(tunnels.authenticate(Uuid::from_u128(id), secret), None);
        }
    }

    #[test]
    fn a_prefix_belongs_to_one_tunnel() {
        let same = entry(1, b"", r#""10.0.0.0/8""#) + &entry(2, b"", r#""10.0.0.0/8""#);
        assert!(error(&same).contains("10.0.0.0/8 is allowed in tunnel"), "{}", error(&same));
        let nested = entry(1, b"", r#""10.0.0.0/8""#) + &entry(2, b"", r#""10.0.0.0/16""#);
        assert_eq!(Tunnels::parse(&nested).unwrap().iter().count(), 2);
        let twice = entry(1, b"", r#""10.0.0.0/8""#) + &entry(1, b"", r#""11.0.0.0/8""#);
        assert!(error(&twice).contains("two tunnels"), "{}", error(&twice));
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line() {
        for (text, expected) in [
            (entry(1, b"", ""), "is empty"),
            (entry(1, b"", r#""10.0.0.1/8""#), "10.0.0.1/8 has host bits; write 10.0.0.0/8"),
            (entry(1, b"", r#""ten""#), "`ten` is not a prefix"),
            (entry(1, b"", r#""10.0.0.0/8""#).replace("[[tunnel]]", "[[tunel]]"), "unknown field `tunel`"),
            (entry(1, b"", r#""10.0.0.0/8""#).replace("0000-0000", "000"), "is not a UUID"),
            (entry(1, b"", r#""10.0.0.0/8""#).replace("e3b0", "e3b"), "64 hexadecimal digits"),
            ("[[tunnel]\n".into(), "line 1"),
        ] {
            let error = error(&text);
            assert!(error.contains(expected) && error.lines().count() == 1, "{error}");
        }
    }

    #[test]
    fn connectors_stay_when_only_the_prefixes_change() {
        let parse = |text: &str| Tunnels::parse(text).unwrap();
        let old = parse(&entry(1, b"one", r#""10.0.0.0/8""#));
        assert!(parse(&entry(1, b"one", r#""11.0.0.0/8""#)).keeps(ID, &old));
        assert!(!parse(&entry(1, b"new", r#""10.0.0.0/8""#)).keeps(ID, &old));
        assert!(!parse("").keeps(ID, &old));
    }
}
