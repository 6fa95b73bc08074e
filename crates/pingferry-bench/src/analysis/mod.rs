//! What the measurements say.

pub(crate) mod comparison;
pub(crate) mod metric;
pub(crate) mod statistics;
pub(crate) mod target;
