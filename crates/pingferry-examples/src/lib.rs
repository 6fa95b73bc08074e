//! Programs that embed pingferry beside large crates: see the folder `examples`.
