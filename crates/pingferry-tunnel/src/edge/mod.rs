//! The server: authenticates connectors, routes requests to them and checks what they send.
