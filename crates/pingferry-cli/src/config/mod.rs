//! The configuration of the command.
//!
//! # Theory of operation
//!
//! [`model::Settings`] has every setting with its type and its default. A configuration file is this structure as TOML.
//! Options and environment variables are parsed by clap into the structures of [`flags`], where everything is optional,
//! and are then applied to what the file gave: an option overrides the environment, which overrides the file, which
//! overrides the default. Lists are replaced as a whole, except for the policy, whose rules are put before those of the
//! file.
//!
//! A value is checked by its type ([`number`], [`values`]), and so equally wherever it comes from; [`validate`] checks
//! what must hold between settings. Commands never see options or files, only the settings, from which [`build`] makes
//! what the library takes.

pub(crate) mod access;
pub(crate) mod access_mode;
pub(crate) mod build;
pub(crate) mod file;
pub(crate) mod flags;
pub(crate) mod model;
pub(crate) mod number;
pub(crate) mod reload;
#[cfg(test)]
mod tests;
pub(crate) mod validate;
pub(crate) mod values;
