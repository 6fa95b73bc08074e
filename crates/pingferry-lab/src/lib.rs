//! Small networks in namespaces.
#![forbid(unsafe_code)]
