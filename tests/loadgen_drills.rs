//! Drills that loadgen does by itself at a running Weir, from their command lines: a certificate is
//! rotated, the program replaced, a member drained, the file read anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod process;

use std::path::Path;

use clap::Parser;
use process::line::{Line, pid_in};
use process::{Server, address_after, config, get, run, weir};
use weir_loadgen::cli::{Cli, Command};
use weir_loadgen::drill::{self, DrillView};
use weir_loadgen::{Control, OriginSpec, Origins, Report};

fn members() -> Origins {
    Origins::start(None, ["a", "b"].map(OriginSpec::new).to_vec()).unwrap()
}

/// A configuration in front of them.
fn text(origins: &Origins) -> String {
    let members: Vec<_> = origins.addrs().iter().map(|&addr| (addr, 1)).collect();
    config("[0]", 5, 0, &members)
}

/// `loadgen drill` with these arguments, for four seconds; something happens after the first.
fn drill(args: &[&str]) -> (Report, DrillView) {
    let program = weir().get_program().to_str().unwrap().to_string();
    let load = ["--rate", "100", "--connections", "4", "--duration", "4s", "--warmup", "0s"];
    let times = ["--at", "1s", "--undo-after", "2s", "--weir", &program];
    let all = [&["loadgen", "drill"], args, &load[..], &times[..]].concat();
    let Some(Command::Drill(args)) = Cli::try_parse_from(all).unwrap().command else {
        panic!("no drill")
    };
    let drill = args.drill().unwrap();
    let (plan, _) = args.plan().unwrap();
    let report = drill::run(&plan, &drill, None, &Control::default(), &mut |_, _| {}).unwrap();
    let view = report.drill.clone().unwrap();
    (report, view)
}

/// What a machine without time for the last requests has kept from being sent is not lost.
fn good(view: &DrillView, told: &str) {
    assert_eq!((view.failure.as_deref(), view.lost - view.never), (None, 0), "{view:?}");
    assert!(view.took > 0.0 && view.told.as_ref().unwrap().contains(told), "{view:?}");
    assert!(view.to_text().contains(told), "{}", view.to_text());
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn a_member_is_drained_and_comes_back() {
    let origins = members();
    let server = Server::start(&text(&origins));
    let file = read(&server.file.path);
    let url = format!("http://{}/", server.web);
    let config = server.file.path.to_str().unwrap();
    let (report, view) = drill(&["drain", &url, "--config", config, "--member", "m0"]);
    good(&view, "effective on all shards");
    assert!(view.undone_at.unwrap() > view.at + 1.9, "{view:?}");
    let answers =
        |name: &str| report.members.iter().find(|member| member.name == name).unwrap().answers;
    // They take turns but for the two seconds.
    assert!(answers("a") + 2 < answers("b"), "{:?}", report.members);
    assert_eq!(read(&server.file.path), file);
    let before = origins.requests(0);
    (0..4).for_each(|_| assert_eq!(get(server.web, "/").status, 200));
    assert_eq!(origins.requests(0) - before, 2, "it has its share again");
}

/// A server of HTTPS for these names, in a folder with the CA; and its URL.
struct Secure {
    folder: tempfile::TempDir,
    _server: Server,
    url: String,
    /// Its certificate and key, and what they hold.
    files: [String; 2],
    former: [String; 2],
}

impl Secure {
    fn start(origins: &Origins, names: &[&str]) -> Secure {
        let folder = tempfile::tempdir().unwrap();
        let (code, _, err) =
            run(weir().args(["gencert", "server"]).args(names).arg("--dir").arg(folder.path()));
        assert_eq!(code, Some(0), "{err}");
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
        let files = [path("localhost.pem"), path("localhost.key")];
        let listener = format!(
            "[[listener]]\nname = \"secure\"\nloadbalancer = \"front\"\nprotocol = \"HTTPS\"\n\
             protocol_port = 0\ndefault_pool = \"app\"\ndefault_certificate = \"site\"\n\
             [[certificate]]\nname = \"site\"\ncertificate = {:?}\nprivate_key = {:?}\n",
            files[0], files[1]
        );
        let server = Server::start(&(text(origins) + &listener));
        let url = format!("https://{}/", address_after(&server.ready, "secure https://"));
        let former = files.each_ref().map(|path| read(Path::new(path)));
        Secure { folder, _server: server, url, files, former }
    }

    /// Rotates its certificate, with a handshake for each request.
    fn rotate(&self, trust: &[&str]) -> (Report, DrillView) {
        let [certificate, key] = &self.files;
        let files = ["--certificate", certificate, "--private-key", key, "--close"];
        drill(&[&["rotate-cert", self.url.as_str()], &files[..], trust].concat())
    }

    /// All is as before.
    fn is_undone(&self) {
        assert_eq!(self.files.each_ref().map(|path| read(Path::new(path))), self.former);
        let count = std::fs::read_dir(self.folder.path()).unwrap().count();
        assert_eq!(count, 4, "nothing else is left");
    }
}

#[test]
fn a_certificate_is_rotated_and_comes_back() {
    let origins = members();
    let secure = Secure::start(&origins, &["localhost", "127.0.0.1"]);
    let ca = secure.folder.path().join("ca.pem");
    // Every handshake of the run is verified: by the former certificate, and by the new one.
    let (report, view) = secure.rotate(&["--ca", ca.to_str().unwrap()]);
    good(&view, "is shown");
    // Half of those that are due, should the machine be busy; kept connections would be four.
    assert!(report.latency.tls.unwrap().count >= 200, "{report:?}");
    secure.is_undone();
}

#[test]
fn who_takes_any_certificate_sees_it_rotated_all_the_same() {
    let origins = members();
    // Not for the address of the URL: the one that comes back can be told by nothing but itself.
    let secure = Secure::start(&origins, &["localhost"]);
    let (_, view) = secure.rotate(&["--insecure"]);
    good(&view, "is shown");
    assert_eq!(view.undo_failure, None);
    secure.is_undone();
    let (_, view) = secure.rotate(&["--insecure", "--server-name", "elsewhere.example"]);
    good(&view, "is shown");
    assert_eq!(view.undo_failure, None);
}

#[test]
fn the_program_is_upgraded() {
    let origins = members();
    // Ends whoever serves its file when the test ends, however it ends.
    let line = Line::start(&text(&origins));
    let (url, config) = (format!("http://{}/", line.web), line.file.path.to_str().unwrap());
    let former = line.pid().to_string();
    let args = ["upgrade", &url, "--config", config, "--pid", &former, "--close"];
    let (report, view) = drill(&args);
    let told = view.told.clone().unwrap_or_else(|| panic!("{view:?}"));
    assert_ne!(pid_in(&told).to_string(), former);
    assert_eq!(report.cpu, None, "of a process that served a part of the requests");
    assert_eq!(get(line.web, "/").status, 200);
    good(&view, "serves after");
}

#[test]
fn what_the_balancer_refuses_is_a_drill_that_did_not_happen() {
    let origins = members();
    let server = Server::start(&text(&origins));
    let (url, pid) = (format!("http://{}/", server.web), server.pid().to_string());
    let (report, view) = drill(&["upgrade", &url, "--pid", &pid, "--program", "/bin/false"]);
    assert!(report.cpu.is_some(), "it serves on");
    let failure = view.failure.as_ref().unwrap();
    assert!(failure.contains("the running process serves on"), "{failure}");
    assert_eq!((view.told.as_deref(), view.lost - view.never), (None, 0), "{view:?}");
    let config = server.file.path.to_str().unwrap();
    let (_, view) = drill(&["reload", &url, "--config", config]);
    good(&view, "effective on all shards");
}
