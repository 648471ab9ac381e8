//! Real programs through a TCP listener: SFTP by OpenSSH, and TLS by OpenSSL.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::process::{Server, run, until};
use crate::{Plan, address, connect};

/// A program that is ended with the test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _already_reaped = self.0.wait();
    }
}

/// Runs a program to its end; it has to succeed.
fn done(command: &mut Command) -> String {
    let (code, out, err) = run(command);
    assert_eq!(code, Some(0), "{command:?}: {out}{err}");
    out
}

/// A port that is free now, and the program that listens there once it does.
fn daemon(make: impl Fn(u16) -> Command) -> (Daemon, SocketAddr) {
    loop {
        let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = free.local_addr().unwrap();
        drop(free);
        let mut command = make(addr.port());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut daemon = Daemon(command.spawn().unwrap());
        let mut gone = false;
        until("the program listens, or has ended", || {
            gone = daemon.0.try_wait().unwrap().is_some();
            gone || TcpStream::connect(addr).is_ok()
        });
        // Somebody else may have taken the port meanwhile; then once more.
        if !gone {
            return (daemon, addr);
        }
    }
}

fn balancer(member: SocketAddr) -> Server {
    let pool = Plan::new(1).listener("web", 0, "app", "");
    pool.pool("app", "healthmonitor = { type = \"TCP\", delay = 1 }", &[(member, 1)]).start()
}

/// An sshd of our own: keys, files and port are the test's.
fn sshd(folder: &Path) -> (Daemon, SocketAddr) {
    for key in ["host", "user"] {
        let file = folder.join(key);
        done(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(file));
    }
    daemon(|port| {
        let config = folder.join("sshd_config");
        let text = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {0}/host\nPidFile none\n\
             AuthorizedKeysFile {0}/user.pub\nStrictModes no\nUsePAM no\n\
             PermitRootLogin prohibit-password\nPasswordAuthentication no\n\
             Subsystem sftp internal-sftp\n",
            folder.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f"]).arg(config);
        command
    })
}

/// R3.3-2: SFTP moves a file of 100 MiB both ways.
#[test]
fn sftp_moves_a_file_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let privileged = Path::new("/run/sshd");
    if done(Command::new("id").arg("-u")).trim() == "0" {
        // sshd as root wants its empty folder, which the service would have made.
        std::fs::create_dir_all(privileged).unwrap();
    }
    let (_sshd, member) = sshd(folder);
    let server = balancer(member);
    let web = address(&server, "web");
    let size = 100 << 20;
    let mut bytes = vec![0; size];
    std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    std::fs::write(folder.join("there"), &bytes).unwrap();
    let batch = format!("put {0}/there {0}/stored\nget {0}/stored {0}/back\n", folder.display());
    std::fs::write(folder.join("batch"), batch).unwrap();
    let user = done(Command::new("id").arg("-un"));
    let mut sftp = Command::new("sftp");
    sftp.args(["-q", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
    sftp.args(["-o", "BatchMode=yes", "-F", "none", "-P", &web.port().to_string(), "-i"]);
    sftp.arg(folder.join("user")).arg("-b").arg(folder.join("batch"));
    sftp.arg(format!("{}@127.0.0.1", user.trim())).stdin(Stdio::null());
    done(&mut sftp);
    assert!(std::fs::read(folder.join("back")).unwrap() == bytes);
    until("its bytes are counted", || {
        server.sum("weir_received_bytes_total") > size as f64
            && server.sum("weir_sent_bytes_total") > size as f64
    });
}

/// TLS goes through untouched: the client sees the certificate of the member, whose key Weir has
/// not.
#[test]
fn tls_passes_through() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (key, certificate) = (folder.join("key"), folder.join("certificate"));
    let mut make = Command::new("openssl");
    make.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
    make.args(["-subj", "/CN=behind.example", "-addext", "subjectAltName=DNS:behind.example"]);
    done(make.arg("-keyout").arg(&key).arg("-out").arg(&certificate));
    let (_openssl, member) = daemon(|port| {
        let mut command = Command::new("openssl");
        command.args(["s_server", "-quiet", "-www", "-accept", &format!("127.0.0.1:{port}")]);
        command.arg("-key").arg(&key).arg("-cert").arg(&certificate);
        command
    });
    let server = balancer(member);
    let port = address(&server, "web").port();
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "60", "--cacert"]).arg(&certificate);
    curl.args(["--resolve", &format!("behind.example:{port}:127.0.0.1")]);
    let page = done(curl.arg(format!("https://behind.example:{port}/")));
    assert!(page.contains("s_server"), "{page}");
    // What is no TLS gets the member's own refusal.
    let mut client = connect(address(&server, "web"));
    client.write_all(b"no TLS at all\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _reset_or_end = client.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
}
