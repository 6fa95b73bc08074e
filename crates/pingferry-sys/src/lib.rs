//! What pingferry asks of the Linux kernel. The only crate with `unsafe` in it.
