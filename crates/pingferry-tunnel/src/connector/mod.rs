//! The client: dials the edges, registers, reconnects, and attaches each connection to the proxy as a path.
