//! Tokens and credentials files: which tunnel a connector belongs to, and the secret that proves it.
//!
//! A token is the base64 text of a JSON object with short keys. A credentials file is a JSON object with long keys. Both hold the
//! same values.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::{Zeroize, Zeroizing};

/// What a connector proves with that it belongs to a tunnel.
///
/// ```
/// use pingferry_tunnel::wire::Token;
///
/// let token: Token = "eyJhIjoibGFiIiwidCI6IjAwMTEyMjMzLTQ0NTUtNjY3Ny04ODk5LWFhYmJjY2RkZWVmZiIsInMiOiJjMlZqY21WMCJ9".parse()?;
/// assert_eq!(token.account_tag, "lab");
/// assert_eq!(token.tunnel_id.to_string(), "00112233-4455-6677-8899-aabbccddeeff");
/// assert_eq!(token.secret.as_bytes(), b"secret");
/// # Ok::<(), pingferry_tunnel::wire::TokenError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The account of the tunnel. It means nothing to an edge of pingferry.
    pub account_tag: String,
    /// The tunnel.
    pub tunnel_id: Uuid,
    /// Its secret.
    pub secret: Secret,
    /// Which edges to use. It means nothing to a connector of pingferry.
    pub endpoint: Option<String>,
}

/// The secret of a tunnel. It is erased when it is dropped, and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

/// Why a text is not a token or not a credentials file. It never contains a part of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It is not base64.
    #[error("the token is not base64 text")]
    Base64,
    /// It is not JSON with the fields of a token, or of a credentials file.
    #[error("the token is not a JSON object with account, tunnel and secret")]
    Json,
    /// The tunnel is not a UUID.
    #[error("the tunnel of the token is not a UUID")]
    TunnelId,
    /// The secret is not base64, or empty.
    #[error("the secret of the token is not base64 text, or empty")]
    Secret,
    /// It is too long.
    #[error("the token is longer than {} bytes", Token::MAX_LEN)]
    Long,
}

/// The fields of both forms. The names are those of a token, the aliases those of a credentials file.
#[derive(Serialize, Deserialize)]
struct Fields {
    #[serde(rename = "a", alias = "AccountTag", default)]
    account_tag: String,
    #[serde(rename = "t", alias = "TunnelID")]
    tunnel_id: String,
    #[serde(rename = "s", alias = "TunnelSecret")]
    secret: Zeroizing<String>,
    #[serde(rename = "e", alias = "Endpoint", default, skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
}

impl Token {
    /// The longest text of a token or credentials file, in bytes.
    pub const MAX_LEN: usize = 16 << 10;

    /// Reads a credentials file.
    ///
    /// # Errors
    /// It is not one.
    pub fn from_credentials(text: &str) -> Result<Self, TokenError> {
        if text.len() > Self::MAX_LEN {
            return Err(TokenError::Long);
        }
        let fields: Fields = serde_json::from_str(text).map_err(|_| TokenError::Json)?;
        let secret = STANDARD.decode(fields.secret.as_bytes()).map_err(|_| TokenError::Secret)?;
        if secret.is_empty() {
            return Err(TokenError::Secret);
        }
        Ok(Self {
            account_tag: fields.account_tag,
            tunnel_id: fields.tunnel_id.parse().map_err(|_| TokenError::TunnelId)?,
            secret: Secret::new(secret),
            endpoint: fields.endpoint.filter(|endpoint| !endpoint.is_empty()),
        })
    }

    /// The text of the token. It contains the secret.
    pub fn to_text(&self) -> Zeroizing<String> {
        let fields = Fields {
            account_tag: self.account_tag.clone(),
            tunnel_id: self.tunnel_id.to_string(),
            secret: Zeroizing::new(STANDARD.encode(self.secret.as_bytes())),
            endpoint: self.endpoint.clone(),
        };
        // Text fields can always be written.
        let json = Zeroizing::new(serde_json::to_string(&fields).unwrap_or_default());
        Zeroizing::new(STANDARD.encode(json.as_bytes()))
    }
}

impl std::str::FromStr for Token {
    type Err = TokenError;

    /// Reads the text of a token. White space around it does not matter.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        if text.len() > Self::MAX_LEN {
            return Err(TokenError::Long);
        }
        let json = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| TokenError::Base64)?);
        Self::from_credentials(std::str::from_utf8(&json).map_err(|_| TokenError::Json)?)
    }
}

impl Secret {
    /// The secret with these bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Zeroize for Secret {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TUNNEL: &str = "00112233-4455-6677-8899-aabbccddeeff";

    fn token(json: &str) -> Result<Token, TokenError> {
        STANDARD.encode(json).parse()
    }

    #[test]
    fn a_token_survives_being_written_and_read() {
        let token = Token {
            account_tag: "lab-account".into(),
            tunnel_id: TUNNEL.parse().unwrap(),
            secret: Secret::new(b"secret-secret-secret-secret-32by".to_vec()),
            endpoint: None,
        };
        let text = token.to_text();
        let json = STANDARD.decode(text.as_bytes()).unwrap();
        assert_eq!(
            json,
            br#"{"a":"lab-account","t":"00112233-4455-6677-8899-aabbccddeeff","s":"c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTMyYnk="}"#
        );
        assert_eq!(text.parse(), Ok(token));
    }

    #[test]
    fn unknown_keys_are_ignored_and_white_space_around_is_too() {
        let json = format!(r#"{{"x":1,"a":"a","t":"{TUNNEL}","s":"AA==","e":"us"}}"#);
        let token: Token = format!("\n {}\n", STANDARD.encode(json)).parse().unwrap();
        assert_eq!((token.secret.as_bytes(), token.endpoint.as_deref()), (&[0][..], Some("us")));
    }

    #[test]
    fn a_credentials_file_has_the_long_keys() {
        let json = format!(r#"{{"AccountTag":"a","TunnelSecret":"AAE=","TunnelID":"{TUNNEL}","Endpoint":""}}"#);
        let token = Token::from_credentials(&json).unwrap();
        assert_eq!((token.account_tag.as_str(), token.secret.as_bytes(), token.endpoint), ("a", &[0, 1][..], None));
    }

    #[test]
    fn what_is_not_a_token_is_an_error() {
        assert_eq!("?".parse::<Token>(), Err(TokenError::Base64));
        assert_eq!(token("[]"), Err(TokenError::Json));
        assert_eq!(token(r#"{"a":"a","t":"1","s":"AA=="}"#), Err(TokenError::TunnelId));
        for secret in ["", "%"] {
            let json = format!(r#"{{"a":"a","t":"{TUNNEL}","s":"{secret}"}}"#);
            assert_eq!(token(&json), Err(TokenError::Secret));
        }
        assert_eq!("A".repeat(Token::MAX_LEN + 1).parse::<Token>(), Err(TokenError::Long));
    }

    #[test]
    fn a_secret_is_never_printed() {
        let json = format!(r#"{{"a":"a","t":"{TUNNEL}","s":"c2VjcmV0"}}"#);
        let printed = format!("{:?}", token(&json).unwrap());
        assert!(printed.contains("Secret(..)") && !printed.contains("secret\"") && !printed.contains("c2VjcmV0"));
    }
}
