use clap::{Args, ValueEnum};
use tracing::Level;

#[derive(Args)]
pub(crate) struct LogArgs {
    /// How much to log, on standard error; debug says what becomes of each packet
    #[arg(long, global = true, value_name = "LEVEL", default_value = "info", env = "PINGFERRY_LOG_LEVEL")]
    log_level: LogLevel,
    /// One line of text, or one JSON object, for each event
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text", env = "PINGFERRY_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

impl LogArgs {
    pub(crate) fn start(&self) {
        let level = match self.log_level {
            LogLevel::Error => Level::ERROR,
            LogLevel::Warn => Level::WARN,
            LogLevel::Info => Level::INFO,
            LogLevel::Debug => Level::DEBUG,
            LogLevel::Trace => Level::TRACE,
        };
        let log = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false);
        match self.log_format {
            LogFormat::Text => log.with_ansi(false).init(),
            LogFormat::Json => log.json().init(),
        }
    }
}
