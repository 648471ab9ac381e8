//! The command line: exit codes and messages (interface section 1). Nothing here serves traffic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod process;

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use process::{File, config, weir};

/// Exit code, stdout, stderr.
fn run(args: &[&str]) -> (i32, String, String) {
    let out = assert_cmd::Command::from_std(weir()).args(args).timeout(process::LIMIT).unwrap();
    text(&out)
}

fn failing(args: &[&str]) -> (i32, String) {
    let assert =
        assert_cmd::Command::from_std(weir()).args(args).timeout(process::LIMIT).assert().failure();
    let (code, _, stderr) = text(assert.get_output());
    (code, stderr)
}

fn text(out: &std::process::Output) -> (i32, String, String) {
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status.code().unwrap(), lossy(&out.stdout), lossy(&out.stderr))
}

fn serve(text: &str) -> (i32, String) {
    let file = File::new(text);
    failing(&["serve", "--config", file.path.to_str().unwrap()])
}

#[test]
fn a_bad_command_line_is_exit_code_2() {
    for args in [
        &["--nonsense"][..],
        &["serve"],
        &["serve", "--config"],
        &["check", "--config", "a", "b"],
        &["demo", "--seconds", "0"],
        &["fly"],
        &[],
    ] {
        let (code, stderr) = failing(args);
        assert_eq!(code, 2, "{args:?}: {stderr}");
        assert!(stderr.contains("--help"), "{args:?}: {stderr}");
    }
}

#[test]
fn commands_of_later_versions_say_so() {
    for command in ["status", "diagnose", "quota"] {
        let (code, stderr) = failing(&[command, "--config", "x"]);
        assert_eq!(code, 2);
        assert!(stderr.contains(&format!("`weir {command}` is not supported yet")), "{stderr}");
    }
}

#[test]
fn version_and_help_are_exit_code_0() {
    let (code, stdout, _) = run(&["--version"]);
    assert_eq!(code, 0);
    assert!(stdout.starts_with(&format!("weir {} (commit ", env!("CARGO_PKG_VERSION"))));
    assert!(stdout.contains("rustc 1."), "{stdout}");
    let (code, stdout, _) = run(&["--help"]);
    assert!(code == 0 && stdout.contains("serve") && stdout.contains("demo"), "{stdout}");
}

#[test]
fn a_missing_file_is_exit_code_1() {
    for command in ["serve", "check", "reload", "upgrade"] {
        let (code, stderr) = failing(&[command, "--config", "/nonexistent/weir.toml"]);
        assert_eq!(code, 1);
        assert!(stderr.contains("/nonexistent/weir.toml"), "{stderr}");
    }
}

#[test]
fn a_bad_file_names_every_place() {
    let text = config("[0]", 1, 0, &[]).replace("protocol_port = 0", "protocol_prot = 0");
    let text = text.replace("cores = [0]", "cores = \"many\"");
    let file = File::new(&text);
    for command in ["serve", "check"] {
        let (code, stderr) = failing(&[command, "--config", file.path.to_str().unwrap()]);
        assert_eq!(code, 1);
        for place in ["weir.toml:3:", "weir.toml:15:"] {
            assert!(stderr.contains(place), "no {place} in: {stderr}");
        }
        assert!(stderr.contains("protocol_port"), "no suggestion in: {stderr}");
    }
}

#[test]
fn a_good_file_passes_the_check() {
    let file = File::new(&config("[0]", 1, 0, &[(([127, 0, 0, 1], 9).into(), 1)]));
    let (code, stdout, _) = run(&["check", "--config", file.path.to_str().unwrap()]);
    assert_eq!(code, 0);
    assert!(stdout.contains("valid: 1 listener, 1 pool, 1 member"), "{stdout}");
    assert!(stdout.contains("shard 0: core 0, node 0"), "{stdout}");
    assert!(stdout.contains(": web (HTTP port 0)"), "{stdout}");
    assert!(stdout.contains("control thread: any core"), "{stdout}");
}

/// R7.15-1: one address, one member, and more clients than there are ports. A warning, no mistake.
#[test]
fn check_tells_of_too_few_ports() {
    let text = config("[0]", 1, 0, &[(([127, 0, 0, 1], 9).into(), 1)]);
    let limited = |most: u32| {
        let file = File::new(
            &text.replace("cores = [0]", &format!("cores = [0]\nmax_connections = {most}")),
        );
        run(&["check", "--config", file.path.to_str().unwrap()])
    };
    let (code, _, stderr) = limited(100_000);
    assert_eq!(code, 0);
    assert!(stderr.contains("pool app: source addresses × ports allow"), "{stderr}");
    let (code, _, stderr) = limited(10);
    assert_eq!((code, stderr.as_str()), (0, ""));
}

/// A file for a machine with more cores is checked here, too, when told so; without that, what is
/// missing here is named, and the way.
#[test]
fn a_file_for_another_machine_can_be_checked() {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for folder in ["pinning", "sweep"] {
        let files = std::fs::read_dir(examples.join(folder)).unwrap();
        let files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
        assert!(files.len() >= 3, "{files:?}");
        for path in files {
            let path = path.to_str().unwrap();
            let (code, stdout, stderr) = run(&["check", "--elsewhere", "--config", path]);
            assert_eq!((code, stderr.as_str()), (0, ""), "{path}");
            assert!(stdout.contains(": valid: ") && stdout.contains("not looked for here"));
        }
    }
    let file = File::new(&config("[0, 900]", 1, 0, &[]));
    let path = file.path.to_str().unwrap();
    assert_eq!(run(&["check", "--elsewhere", "--config", path]).0, 0);
    let (code, stderr) = failing(&["check", "--config", path]);
    assert_eq!(code, 1);
    assert!(stderr.contains("core 900 does not exist"), "{stderr}");
    assert!(stderr.contains("--elsewhere"), "{stderr}");
    file.write(&config("\"many\"", 1, 0, &[]));
    assert_eq!(failing(&["check", "--elsewhere", "--config", path]).0, 1);
}

/// What only this machine can tell comes with place and cure, all at once and before `valid:`;
/// `--elsewhere` asks for none of it. Nothing is made for it.
#[test]
fn check_looks_whether_this_machine_can_serve_the_file() {
    let foreign = "198.51.100.1"; // TEST-NET-2: nobody's
    let text = config("[0, 900]", 1, 0, &[])
        .replace("vip_address = \"127.0.0.1\"", &format!("vip_address = \"{foreign}\""))
        .replace("listen = \"127.0.0.1:0\"", "listen = \"198.51.100.2:9180\"")
        .replace("[admin]", "[log]\npath = \"/proc/nonexist/weir.log\"\n[admin]");
    let text = text.replace(process::RUN_DIR, "/etc/passwd/x")
        + "[access_log]\npath = \"/tmp\"\n[connection_log]\npath = \"/dev/null/log\"\n";
    let file = File::new(&text);
    let path = file.path.to_str().unwrap();
    let mut check = assert_cmd::Command::from_std(weir());
    let assert = check.args(["check", "--config", path]).timeout(process::LIMIT).assert().failure();
    let (code, stdout, stderr) = text_of(&assert);
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    for words in [
        "weir.toml:3:9: runtime.cores: core 900 does not exist",
        "help: choose among core",
        "weir.toml:5:11: runtime.run_dir: /etc/passwd/x can't be used",
        "weir.toml:7:8: log.path: /proc/nonexist/weir.log can't be written",
        "weir.toml:9:10: admin.listen: listener `admin`: cannot listen on 198.51.100.2:9180",
        "weir.toml:12:15: loadbalancer[0].vip_address: listener `web`: cannot",
        " on 198.51.100.1:0: no interface of this host has the address",
        "access_log.path: /tmp can't be written",
        "connection_log.path: /dev/null/log can't be written",
        "7 errors on this machine; --elsewhere",
    ] {
        assert!(stderr.contains(words), "no {words} in: {stderr}");
    }
    let (code, stdout, stderr) = run(&["check", "--elsewhere", "--config", path]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("valid:") && stdout.contains("not looked for here"), "{stdout}");
}

/// What a port or a folder of this machine needs is there, and a port that is in use says nothing:
/// it may be the running Weir's.
#[test]
fn check_takes_what_this_machine_has() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("weir.log");
    let text = config("[0]", 1, port, &[])
        .replace("[admin]", &format!("[log]\npath = \"{}\"\n[admin]", log.display()));
    let file = File::new(&text);
    let (code, stdout, stderr) = run(&["check", "--config", file.path.to_str().unwrap()]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("valid:"), "{stdout}");
    assert!(!log.exists() && !file.run_dir().exists(), "check makes nothing");
}

/// A user without the right for low ports, and a folder of another one's.
#[test]
fn check_knows_the_rights_of_its_user() {
    let start = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    let low = start.trim().parse::<u16>().unwrap().saturating_sub(1);
    assert!(low > 0, "every port is free for everybody here: the test needs another machine");
    let folder = tempfile::tempdir().unwrap();
    let shut = folder.path().join("shut");
    std::fs::create_dir(&shut).unwrap();
    std::fs::set_permissions(&shut, std::fs::Permissions::from_mode(0o500)).unwrap();
    let text =
        config("[0]", 1, low, &[]).replace(process::RUN_DIR, shut.join("run").to_str().unwrap());
    let file = File::new(&text);
    let mut weaker = assert_cmd::Command::new("setpriv");
    let dropped = "-net_bind_service,-dac_override,-dac_read_search";
    weaker.args(["--bounding-set", dropped, "--inh-caps", dropped, "--"]);
    weaker.args([env!("CARGO_BIN_EXE_weir"), "check", "--config"]).arg(&file.path);
    let assert = weaker.timeout(process::LIMIT).assert().failure();
    let (code, _, stderr) = text_of(&assert);
    assert_eq!(code, 1, "{stderr}");
    for words in [
        "weir.toml:15:17: listener[0].protocol_port: ",
        "CAP_NET_BIND_SERVICE",
        "weir.toml:5:11: runtime.run_dir: ",
        "2 errors on this machine",
    ] {
        assert!(stderr.contains(words), "no {words} in: {stderr}");
    }
}

fn text_of(assert: &assert_cmd::assert::Assert) -> (i32, String, String) {
    text(assert.get_output())
}

/// A start that fails names the place of the listener, and leaves neither folder nor file.
#[test]
fn a_failed_start_names_its_place_and_leaves_no_file() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let file = File::new(&config("[0]", 1, port, &[]));
    let (code, stderr) = failing(&["serve", "--config", file.path.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(
        stderr.contains("weir.toml:15:17: listener[0].protocol_port: listener `web`"),
        "{stderr}"
    );
    assert!(!file.run_dir().exists(), "a folder is left");
}

#[test]
fn a_busy_port_names_port_and_owner() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let (code, stderr) = serve(&config("[0]", 1, port, &[]));
    assert_eq!(code, 1);
    assert!(stderr.contains("listener `web`"), "{stderr}");
    assert!(stderr.contains(&format!("127.0.0.1:{port}")), "{stderr}");
    assert!(stderr.contains(&format!("(pid {})", std::process::id())), "{stderr}");
    assert!(!stderr.contains("ready"), "{stderr}");
}

#[test]
fn a_busy_admin_port_is_refused_the_same_way() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = held.local_addr().unwrap().to_string();
    let text = config("[0]", 1, 0, &[]).replace("127.0.0.1:0", &addr);
    let (code, stderr) = serve(&text);
    assert_eq!(code, 1);
    assert!(stderr.contains("`admin`") && stderr.contains(&addr), "{stderr}");
    assert!(stderr.contains(&format!("(pid {})", std::process::id())), "{stderr}");
}

#[test]
fn a_core_that_does_not_exist_is_refused() {
    let (code, stderr) = serve(&config("[0, 900]", 1, 0, &[]));
    assert_eq!(code, 1);
    assert!(stderr.contains("core 900 does not exist"), "{stderr}");
}

/// A core that exists but is closed to this process: the message names the affinity.
#[test]
fn a_core_outside_the_affinity_is_refused() {
    let allowed = weir_core::net::sys::allowed_cores().unwrap();
    let first = allowed[0].to_string();
    let (other, words) = match allowed.get(1) {
        Some(core) => (core.to_string(), "is closed to this process, which may use core"),
        None => ("900".to_owned(), "does not exist"),
    };
    let file = File::new(&config(&format!("[{other}]"), 1, 0, &[]));
    let weir = env!("CARGO_BIN_EXE_weir");
    for command in ["check", "serve"] {
        let mut taskset = assert_cmd::Command::new("taskset");
        let args = ["-c", &first, weir, command, "--config", file.path.to_str().unwrap()];
        let assert = taskset.args(args).timeout(process::LIMIT).assert().failure();
        let (code, _, stderr) = text(assert.get_output());
        assert_eq!(code, 1);
        assert!(stderr.contains(words), "{command}: {stderr}");
    }
}

#[test]
fn too_few_descriptors_are_refused_with_the_sum() {
    let file = File::new(&config("[0]", 1, 0, &[]));
    let weir = env!("CARGO_BIN_EXE_weir");
    let script = format!("ulimit -n 96; exec {weir} serve --config {}", file.path.display());
    let mut shell = assert_cmd::Command::new("sh");
    let assert = shell.args(["-c", &script]).timeout(process::LIMIT).assert().failure();
    let (code, _, stderr) = text(assert.get_output());
    assert_eq!(code, 1);
    assert!(stderr.contains("of 96 are taken by 1 shard with"), "{stderr}");
    assert!(stderr.contains("LimitNOFILE="), "{stderr}");
    assert!(stderr.contains("with fewer than 64 Weir does not start"), "{stderr}");
    assert!(stderr.contains("ulimit -n 1048576"), "{stderr}");
}
