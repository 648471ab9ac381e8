//! The flags of members: those that run inside loadgen beside the load, and those of `serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::values::{Cores, parse_cores, parse_speaks};
use crate::origin::{Delay, OriginSpec, Speaks};
use crate::origin_tls::OriginTls;
use crate::units;

/// Flags of members that run inside loadgen.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Members of our own")]
pub struct MemberArgs {
    /// Be a member at this address during the run; may be repeated
    #[arg(long, value_name = "ADDR")]
    pub serve: Vec<SocketAddr>,
    /// Time before each answer of these members, as in loadgen serve
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = Delay::parse)]
    #[arg(hide_default_value = true, requires = "serve")]
    pub serve_delay: Delay,
    /// Bytes of their answers' bodies
    #[arg(long, value_name = "SIZE", default_value = "128", value_parser = units::parse_size)]
    #[arg(requires = "serve")]
    pub serve_body_size: u64,
    /// Share of requests that they answer with 500
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, hide_default_value = true)]
    #[arg(requires = "serve")]
    pub serve_error_rate: f64,
    /// Status of their answers
    #[arg(long, value_name = "N", default_value_t = 200, requires = "serve")]
    pub serve_status: u16,
    /// Share of requests whose connection they reset
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, hide_default_value = true)]
    #[arg(requires = "serve")]
    pub serve_reset_rate: f64,
    /// Speed of each answer's body, like 10k [default: as fast as it can]
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = units::parse_size)]
    #[arg(hide_default_value = true, requires = "serve")]
    pub serve_bytes_per_second: u64,
    /// What they speak: http, echo, sink, source or udp, as in loadgen serve
    #[arg(long, value_name = "WHAT", default_value = "http", value_parser = parse_speaks)]
    #[arg(requires = "serve")]
    pub serve_speaks: Speaks,
    /// They speak TLS with the certificate of this PEM file
    #[arg(long, value_name = "FILE", requires_all = ["serve", "serve_private_key"])]
    pub serve_certificate: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "serve_certificate")]
    pub serve_private_key: Option<PathBuf>,
    /// They speak HTTP/2, too
    #[arg(long, requires = "serve")]
    pub serve_http2: bool,
    /// Cores that they run on, which they take in turn, like 1 or 2-3 [default: one, not pinned]
    #[arg(long, value_name = "LIST", value_parser = parse_cores, requires = "serve")]
    pub serve_core: Option<Cores>,
}

impl MemberArgs {
    /// The cores that they run on; none = one that isn't chosen.
    pub fn cores(&self) -> &[usize] {
        self.serve_core.as_ref().map_or(&[], |cores| &cores.0)
    }

    /// The members to start; none unless an address was given.
    pub fn specs(&self, seed: u64) -> Vec<OriginSpec> {
        let files = self.serve_certificate.clone().zip(self.serve_private_key.clone());
        let tls = files.map(|(certificate, private_key)| OriginTls { certificate, private_key });
        let spec = |(n, &listen): (usize, &SocketAddr)| OriginSpec {
            listen,
            body_size: self.serve_body_size,
            delay: self.serve_delay,
            status: self.serve_status,
            error_rate: self.serve_error_rate,
            reset_rate: self.serve_reset_rate,
            bytes_per_second: self.serve_bytes_per_second,
            speaks: self.serve_speaks,
            tls: tls.clone(),
            http2: self.serve_http2,
            seed,
            ..OriginSpec::new(&format!("member-{}", n + 1))
        };
        self.serve.iter().enumerate().map(spec).collect()
    }

    /// Whether they can be asked in HTTP without a balancer.
    pub(crate) fn speak_plain_http(&self) -> bool {
        self.serve_speaks == Speaks::Http && self.serve_certificate.is_none()
    }
}

/// Flags of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where to listen; may be repeated, one origin each; port 0 is any free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub listen: Vec<SocketAddr>,
    /// Value of the X-Origin field, with a number when there are several origins
    #[arg(long, value_name = "NAME", default_value = "origin")]
    pub name: String,
    /// Bytes of each answer's body, like 128, 4k, 1M
    #[arg(long, value_name = "SIZE", default_value = "128", value_parser = units::parse_size)]
    pub body_size: u64,
    /// Time before each answer: 5ms, 1ms-10ms for an even spread, or 1ms,100ms@5%
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = Delay::parse)]
    pub delay: Delay,
    /// Status of the answers
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub status: u16,
    /// Share of requests answered with 500, 0–1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub error_rate: f64,
    /// Share of requests whose connection is reset, 0–1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub reset_rate: f64,
    /// Speed of each answer's body, like 10k [default: as fast as it can]
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = units::parse_size)]
    #[arg(hide_default_value = true)]
    pub bytes_per_second: u64,
    /// http (with WebSocket), echo, sink or source over TCP or TLS, or udp
    #[arg(long, value_name = "WHAT", default_value = "http", value_parser = parse_speaks)]
    pub speaks: Speaks,
    /// Speak TLS with the certificate of this PEM file
    #[arg(long, value_name = "FILE", requires = "private_key")]
    pub certificate: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub private_key: Option<PathBuf>,
    /// Speak HTTP/2, too: agreed on inside TLS, with prior knowledge otherwise
    #[arg(long)]
    pub http2: bool,
    /// Seed of delays and errors
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Cores to run on, which the origins take in turn, like 1 or 2-3 [default: one, not pinned]
    #[arg(long, value_name = "LIST", value_parser = parse_cores)]
    pub core: Option<Cores>,
}

impl ServeArgs {
    /// The cores to run on; none = one that isn't chosen.
    pub fn cores(&self) -> &[usize] {
        self.core.as_ref().map_or(&[], |cores| &cores.0)
    }

    /// The origins to start.
    pub fn specs(&self) -> Vec<OriginSpec> {
        let files = self.certificate.clone().zip(self.private_key.clone());
        let tls = files.map(|(certificate, private_key)| OriginTls { certificate, private_key });
        let several = self.listen.len() > 1;
        let name =
            |n: usize| if several { format!("{}-{n}", self.name) } else { self.name.clone() };
        let spec = |(n, &listen): (usize, &SocketAddr)| OriginSpec {
            name: name(n + 1),
            listen,
            body_size: self.body_size,
            delay: self.delay,
            status: self.status,
            error_rate: self.error_rate,
            reset_rate: self.reset_rate,
            bytes_per_second: self.bytes_per_second,
            speaks: self.speaks,
            tls: tls.clone(),
            http2: self.http2,
            seed: self.seed,
        };
        self.listen.iter().enumerate().map(spec).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::{Cli, Command};

    #[test]
    fn several_origins_are_numbered() {
        let cli = Cli::try_parse_from([
            "loadgen",
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--listen",
            "[::1]:0",
            "--delay",
            "1ms-2ms",
            "--body-size",
            "4k",
        ])
        .unwrap();
        let Some(Command::Serve(args)) = cli.command else { panic!("serve") };
        let specs = args.specs();
        assert_eq!((specs[0].name.as_str(), specs[1].name.as_str()), ("origin-1", "origin-2"));
        assert_eq!(specs[1].body_size, 4096);
    }
}
