use pingferry::trace::otlp::ExportTraceServiceRequest;
use pingferry_tunnel::wire::{DatagramV2, DatagramV3, Token};

/// Parses arbitrary bytes as what travels in datagrams of the tunnel, and as a credentials file.
///
/// No input may cause a panic. What parses must survive being emitted and parsed again.
pub fn datagram(data: &[u8]) {
    let mut bytes = Vec::new();
    if let Ok(datagram) = DatagramV2::parse(data) {
        datagram.encode(&mut bytes);
        assert_eq!(bytes, data);
        if let DatagramV2::Spans { spans, .. } = datagram {
            let _ = ExportTraceServiceRequest::parse(spans).map(|request| request.spans().count());
        }
    }
    bytes.clear();
    if let Ok(datagram) = DatagramV3::parse(data) {
        datagram.encode(&mut bytes);
        // Flags and bytes that mean nothing are not kept.
        assert!(bytes.len() <= data.len());
        assert_eq!(DatagramV3::parse(&bytes), Ok(datagram));
    }
    if let Ok(Ok(token)) = std::str::from_utf8(data).map(Token::from_credentials) {
        assert_eq!(token.to_text().parse(), Ok(token));
    }
}
