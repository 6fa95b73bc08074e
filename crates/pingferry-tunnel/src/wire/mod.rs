//! What travels in datagrams and what stands in files: bytes to values and back.
