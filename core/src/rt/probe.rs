//! The start-up probe: what the kernel allows, before any shard is started. Owns the texts that
//! name what is missing, why it is needed, and the cure.

use std::io;

use io_uring::IoUring;

use super::features::Features;

/// The oldest kernel that has what the ring needs (multishot receive 6.0, deferred task work 6.1).
pub const KERNEL_FLOOR: (u32, u32) = (6, 1);
/// Bytes of locked memory that glommio asks for.
pub const MEMLOCK_FLOOR: u64 = 512 << 10;

/// What the probe found.
#[derive(Clone, Debug, Default)]
pub struct ProbeReport {
    /// What is there, a line each.
    pub found: Vec<String>,
    /// What makes starting impossible; each names what, why and the cure.
    pub errors: Vec<String>,
    /// What makes Weir slower or smaller; each with its cure.
    pub warnings: Vec<String>,
}

/// Probes kernel version, io_uring, its features, and locked memory. Safe to call before any shard
/// exists.
pub fn probe() -> ProbeReport {
    let mut report = ProbeReport::default();
    probe_kernel(&mut report);
    probe_ring(&mut report);
    probe_memlock(&mut report);
    match Features::from_environment() {
        Ok(features) => report.found.push(format!("ring features: {features}")),
        Err(error) => report.errors.push(error),
    }
    register_membarrier();
    report
}

/// The kernel's release, as it names itself.
fn kernel_release() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

/// The kernel's version; `None` when it cannot be read.
pub(super) fn kernel_version() -> Option<(u32, u32)> {
    parse_release(&kernel_release())
}

fn probe_kernel(report: &mut ProbeReport) {
    let release = kernel_release();
    match parse_release(&release) {
        Some(version) if version < KERNEL_FLOOR => report.errors.push(format!(
            "kernel {release} is too old: Weir needs Linux {}.{} or newer, for multishot receives \
             and deferred task work in io_uring; boot a newer kernel",
            KERNEL_FLOOR.0, KERNEL_FLOOR.1
        )),
        Some(_) => report.found.push(format!("kernel {release}")),
        None => report.warnings.push(format!("cannot read the kernel's version from {release:?}")),
    }
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn probe_ring(report: &mut ProbeReport) {
    let mut builder = IoUring::<io_uring::squeue::Entry>::builder();
    builder.setup_single_issuer().setup_coop_taskrun().setup_defer_taskrun();
    let ring = match builder.build(8) {
        Ok(ring) => ring,
        Err(error) => {
            report.errors.push(format!("io_uring cannot be used: {}", explain(&error)));
            return;
        }
    };
    let needed = [
        ("extended wait arguments", ring.params().is_feature_ext_arg()),
        ("lossless completion queues", ring.params().is_feature_nodrop()),
        ("quiet successes", ring.params().is_feature_skip_cqe_on_success()),
        ("stable submissions", ring.params().is_feature_submit_stable()),
    ];
    for (what, there) in needed {
        if !there {
            report.errors.push(format!(
                "io_uring lacks {what}, which Weir's ring is built on; boot a newer kernel"
            ));
        }
    }
    report.found.push("io_uring: single issuer, deferred task work".to_owned());
}

/// What an error of ring set-up means, and what helps.
pub(super) fn explain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "the system forbids it. If sysctl \
            kernel.io_uring_disabled is 1 or 2, set it to 0 (or 1 and add Weir's group to \
            kernel.io_uring_group); in a container, use a seccomp profile that allows \
            io_uring_setup, io_uring_enter and io_uring_register (Docker's default one does not)"
            .to_owned(),
        Some(libc::ENOSYS) => "the kernel was built without it (CONFIG_IO_URING), or a seccomp \
            filter hides it; use a kernel and a container profile that have it"
            .to_owned(),
        Some(libc::EINVAL) => format!(
            "the kernel is older than {}.{} and lacks deferred task work; boot a newer one",
            KERNEL_FLOOR.0, KERNEL_FLOOR.1
        ),
        Some(libc::ENOMEM) => "not enough memory, or RLIMIT_MEMLOCK is too low; raise it \
            (systemd: LimitMEMLOCK=64M; shell: ulimit -l 65536)"
            .to_owned(),
        Some(libc::EMFILE | libc::ENFILE) => {
            "no descriptor is left; raise RLIMIT_NOFILE (systemd: LimitNOFILE=1048576)".to_owned()
        }
        _ => error.to_string(),
    }
}

fn probe_memlock(report: &mut ProbeReport) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid and writable.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } == 0;
    if !known || limit.rlim_cur >= MEMLOCK_FLOOR {
        report.found.push("locked memory: enough".to_owned());
        return;
    }
    limit.rlim_cur = limit.rlim_max.min(MEMLOCK_FLOOR);
    // SAFETY: `limit` is valid.
    let raised = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) } == 0;
    if !raised || limit.rlim_cur < MEMLOCK_FLOOR {
        report.errors.push(format!(
            "RLIMIT_MEMLOCK allows {} KiB of locked memory, but each shard's executor asks for \
             {} KiB; raise it (systemd: LimitMEMLOCK=64M; shell: ulimit -l 65536)",
            limit.rlim_cur >> 10,
            MEMLOCK_FLOOR >> 10
        ));
    }
}

/// glommio registers for membarrier when it first parks, which stalls every thread that runs then
/// for some 50 ms; done here, while there is only one, it costs nothing.
fn register_membarrier() {
    const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;
    // SAFETY: takes numbers only; a kernel without it answers ENOSYS, which changes nothing.
    unsafe { libc::syscall(libc::SYS_membarrier, REGISTER_PRIVATE_EXPEDITED, 0, 0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_read() {
        assert_eq!(parse_release("6.1.0-23-amd64"), Some((6, 1)));
        assert_eq!(parse_release("6.18.44"), Some((6, 18)));
        assert_eq!(parse_release("5.15"), Some((5, 15)));
        assert_eq!(parse_release("unknown"), None);
        assert!(parse_release("5.15.0").unwrap() < KERNEL_FLOOR);
    }

    #[test]
    fn every_refusal_names_a_cure() {
        for (code, cure) in [
            (libc::EPERM, "io_uring_disabled"),
            (libc::ENOSYS, "CONFIG_IO_URING"),
            (libc::EINVAL, "6.1"),
            (libc::ENOMEM, "LimitMEMLOCK"),
            (libc::EMFILE, "LimitNOFILE"),
        ] {
            let text = explain(&io::Error::from_raw_os_error(code));
            assert!(text.contains(cure), "{text}");
        }
    }
}
