//! The `loadgen` program. Everything is in the library; this turns its answer into an exit code.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(weir_loadgen::main(std::env::args_os()))
}
