//! The program's own messages: text lines on stderr. Access logs are none of its business.

use tracing::Level;

/// Sends what `tracing` gets from now on, from `level` upwards, to stderr. Calling it twice does nothing.
pub fn init(level: Level) {
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let _already_set = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(level)
        .with_target(false)
        .with_ansi(ansi)
        .try_init();
}
