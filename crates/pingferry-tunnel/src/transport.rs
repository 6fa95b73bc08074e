//! QUIC and TLS, set up as both ends of the tunnel need it.
