//! Values of the command line that are more than a word or a number, read and checked.

use weir_core::model::TlsVersion;

use crate::cpu;
use crate::limits;
use crate::origin::Speaks;
use crate::plan::Exchange;
use crate::units;

/// A rate, and the one to which it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(pub u64, pub Option<u64>);

pub(super) fn parse_rate(text: &str) -> Result<Rate, String> {
    let number = |text: &str| {
        units::parse_count(text.trim())
            .map_err(|_| "write it as 5000, 10k, or 1000..5000".to_string())
    };
    match text.split_once("..") {
        None => Ok(Rate(number(text)?, None)),
        Some((from, to)) => Ok(Rate(number(from)?, Some(number(to)?))),
    }
}

/// A rate that stays as it is.
pub(super) fn parse_constant(text: &str) -> Result<u64, String> {
    match parse_rate(text)? {
        Rate(rate, None) => Ok(rate),
        Rate(_, Some(_)) => Err("this job holds a constant rate: write it as 5000 or 10k".into()),
    }
}

pub(super) fn parse_number(text: &str) -> Result<u64, String> {
    units::parse_count(text)
}

/// A list of cores, as one value of the command line.
#[derive(Clone, Debug)]
pub struct Cores(pub Vec<usize>);

pub(super) fn parse_cores(text: &str) -> Result<Cores, String> {
    let cores = units::parse_cores(text)?;
    let allowed = cpu::allowed_cores();
    match cores.iter().find(|core| !allowed.is_empty() && !allowed.contains(core)) {
        Some(core) => Err(format!("core {core} is not among those allowed here: {allowed:?}")),
        None => Ok(Cores(cores)),
    }
}

pub(super) fn parse_version(text: &str) -> Result<TlsVersion, String> {
    match text {
        "1.2" => Ok(TlsVersion::Tls12),
        "1.3" => Ok(TlsVersion::Tls13),
        _ => Err("use 1.2 or 1.3".to_string()),
    }
}

pub(super) fn parse_exchange(text: &str) -> Result<Exchange, String> {
    match text {
        "echo" => Ok(Exchange::Echo),
        "connect" => Ok(Exchange::Connect),
        "upload" => Ok(Exchange::Upload),
        "download" => Ok(Exchange::Download),
        _ => Err("use echo, connect, upload or download".to_string()),
    }
}

pub(super) fn parse_speaks(text: &str) -> Result<Speaks, String> {
    match text {
        "http" => Ok(Speaks::Http),
        "echo" => Ok(Speaks::Echo),
        "sink" => Ok(Speaks::Sink),
        "source" => Ok(Speaks::Source),
        "udp" => Ok(Speaks::Udp),
        _ => Err("use http, echo, sink, source or udp".to_string()),
    }
}

pub(super) fn parse_weight(text: &str) -> Result<(String, u64), String> {
    let wrong = || format!("`{text}`: write it as NAME=WEIGHT");
    let (name, weight) = text.split_once('=').ok_or_else(wrong)?;
    let weight = weight.parse().ok().filter(|&weight| weight <= u64::from(limits::MAX_WEIGHT));
    Ok((name.to_string(), weight.ok_or_else(wrong)?))
}

pub(super) fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write it as `Name: value`")?;
    Ok((name.trim().to_string(), value.trim().to_string()))
}

pub(super) fn check_pid(pid: u32) -> Result<(), String> {
    let found = cpu::Process::find(pid);
    found.map(drop).map_err(|error| format!("--pid {pid}: no such process can be read: {error}"))
}
