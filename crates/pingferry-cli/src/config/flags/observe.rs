use clap::Args;
use clap::builder::BoolishValueParser;

use super::super::model::Settings;
use super::super::values::{Compat, Ratio, Target, Text};
use super::{set, set_list, set_option};
use crate::admin::address::AdminAddress;
use crate::otlp::Endpoint;

/// What an operator can see while `run` serves.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Observation")]
pub(crate) struct ObserveFlags {
    #[command(flatten)]
    admin: AdminFlags,
    #[command(flatten)]
    metrics: MetricsFlags,
    /// Export spans of some echo requests and their replies over OTLP to this collector, such as http://127.0.0.1:4318
    #[arg(long, value_name = "URL", env = "PINGFERRY_OTLP")]
    otlp: Option<Text<Endpoint>>,
    /// Trace this part of all requests, from 0 to 1 [default: 0.01]
    #[arg(long, value_name = "RATIO", env = "PINGFERRY_OTLP_RATIO")]
    otlp_ratio: Option<Text<Ratio>>,
}

/// The admin server.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Observation")]
pub(crate) struct AdminFlags {
    /// Serve metrics, health, flows and a page over HTTP at ADDRESS:PORT, unix:PATH or, without a value, at a socket in the
    /// runtime directory that only this user can open
    #[arg(long, value_name = "ADDRESS", env = "PINGFERRY_ADMIN", num_args = 0..=1, default_missing_value = "default")]
    admin: Option<Text<AdminAddress>>,
    /// Let --admin be an address that other hosts reach
    #[arg(long, env = "PINGFERRY_ADMIN_ALLOW_REMOTE", value_parser = BoolishValueParser::new())]
    #[arg(num_args = 0, default_missing_value = "true")]
    admin_allow_remote: Option<bool>,
}

/// The metrics of a proxy.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Observation")]
pub(crate) struct MetricsFlags {
    /// Give the destinations in this prefix metrics of their own, under this name; repeatable
    #[arg(long, value_name = "CIDR=NAME", value_delimiter = ',', env = "PINGFERRY_METRICS_TARGET")]
    metrics_target: Vec<Text<Target>>,
    /// Give two of the metrics also under the names of this program
    #[arg(long, value_name = "PROGRAM", env = "PINGFERRY_METRICS_COMPAT")]
    metrics_compat: Option<Compat>,
}

impl ObserveFlags {
    pub(crate) fn apply(&self, settings: &mut Settings) {
        self.admin.apply(settings);
        self.metrics.apply(settings);
        set_option(&mut settings.otlp, &self.otlp);
        set(&mut settings.otlp_ratio, self.otlp_ratio.as_ref());
    }
}

impl AdminFlags {
    pub(crate) fn apply(&self, settings: &mut Settings) {
        set_option(&mut settings.admin, &self.admin);
        set(&mut settings.admin_allow_remote, self.admin_allow_remote.as_ref());
    }
}

impl MetricsFlags {
    pub(crate) fn apply(&self, settings: &mut Settings) {
        set_list(&mut settings.metrics_target, &self.metrics_target);
        set_option(&mut settings.metrics_compat, &self.metrics_compat);
    }
}
