//! The registration protocol on the first stream of a connection.
