//! `pingferry edge init`: the files of a new edge, and what to run next.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use pingferry_tunnel::edge::{EdgeFiles, InitError};
use pingferry_tunnel::transport::DEFAULT_PORT;

use crate::config::values::{Prefix, Text};
use crate::error::CliError;
use crate::output;

#[derive(Args, Clone)]
pub(super) struct InitArgs {
    /// The folder for the files; it is created if it does not exist
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// A name or address under which connectors reach the edge; repeatable
    #[arg(long, value_name = "HOST", value_delimiter = ',', required = true)]
    name: Vec<String>,
    /// A network that connectors of the tunnel may serve; repeatable
    #[arg(long, value_name = "CIDR", value_delimiter = ',', required = true)]
    allow: Vec<Text<Prefix>>,
}

pub(super) fn init(args: &InitArgs) -> Result<ExitCode, CliError> {
    let allowed: Vec<_> = args.allow.iter().map(|prefix| prefix.0.0.trunc()).collect();
    let files = EdgeFiles::create(&args.folder, &args.name, &allowed).map_err(|error| match error {
        InitError::Create(path, error) => CliError::from_creating("cannot create", &path, &error),
        error => CliError::runtime(error.to_string()),
    })?;
    output::print(&next_steps(&files, args.name.first().map_or("", String::as_str), &allowed))?;
    Ok(ExitCode::SUCCESS)
}

fn next_steps(files: &EdgeFiles, name: &str, allowed: &[ipnet::IpNet]) -> String {
    let each = |option: &str| -> String { allowed.iter().map(|prefix| format!(" {option} {prefix}")).collect() };
    let host = if name.contains(':') { format!("[{name}]") } else { name.into() };
    format!(
        "# On this host:\n\
         pingferry edge --tun pf0 --address 198.18.0.1/32{routes} --tunnels {tunnels} --cert {cert} --key {key}\n\
         # In the private network, with {ca} and {token} (keep the token secret):\n\
         pingferry connect --edge {host}:{DEFAULT_PORT} --ca {ca} --token-file {token}{advertise}\n",
        routes = each("--route"),
        advertise = each("--advertise"),
        tunnels = files.tunnels.display(),
        cert = files.certificate.display(),
        key = files.key.display(),
        ca = files.ca.display(),
        token = files.token.display(),
    )
}
