//! Three nginx members behind the balancer, asked by h2load: shares follow the weights.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use crate::process::{Server, config, get, until};

/// An nginx with three servers, each with an access log of its own.
struct Nginx {
    process: Child,
    folder: tempfile::TempDir,
    ports: [u16; 3],
}

impl Nginx {
    fn start() -> Nginx {
        let folder = tempfile::tempdir().unwrap();
        let held = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = held.each_ref().map(|socket| socket.local_addr().unwrap().port());
        drop(held);
        let dir = folder.path().display().to_string();
        let servers: String = (ports.iter().enumerate())
            .map(|(at, port)| {
                format!(
                    "server {{ listen 127.0.0.1:{port}; access_log {dir}/{at}.log; \
                     location / {{ return 200 \"{at}\"; }} }}\n"
                )
            })
            .collect();
        let text = format!(
            "daemon off; master_process off; pid {dir}/pid; error_log {dir}/error;\n\
             events {{ worker_connections 512; }}\nhttp {{ keepalive_requests 100000;\n{servers}}}"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, text).unwrap();
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
        let process = Command::new("nginx")
            .env("PATH", path)
            .args(["-p", &dir, "-c"])
            .arg(&file)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let nginx = Nginx { process, folder, ports };
        for addr in nginx.members() {
            until("nginx listens", || std::net::TcpStream::connect(addr).is_ok());
        }
        nginx
    }

    fn members(&self) -> [SocketAddr; 3] {
        self.ports.map(|port| ([127, 0, 0, 1], port).into())
    }

    /// Requests that member `at` has logged.
    fn logged(&self, at: usize) -> u64 {
        let log = self.folder.path().join(format!("{at}.log"));
        std::fs::read_to_string(log).unwrap_or_default().lines().count() as u64
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _already_gone = self.process.kill();
        let _already_reaped = self.process.wait();
    }
}

/// R4.3-5: 6,000 requests land 1,000/2,000/3,000 ± 1 %, whatever shard serves them.
#[test]
fn six_thousand_requests_follow_the_weights() {
    let nginx = Nginx::start();
    let [one, two, three] = nginx.members();
    for cores in ["[0]", "\"auto\""] {
        let before = [0, 1, 2].map(|at| nginx.logged(at));
        let server = Server::start(&config(cores, 5, 0, &[(one, 1), (two, 2), (three, 3)]));
        assert_eq!(get(server.web, "/").status, 200);
        let load = Command::new("h2load")
            .args(["--h1", "-n", "5999", "-c", "8"])
            .arg(format!("http://{}/", server.web))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&load.stdout);
        assert!(said.contains("5999 succeeded"), "{said}");
        let total = || (0..3).map(|at| nginx.logged(at) - before[at]).sum::<u64>();
        until("all requests are logged", || total() == 6_000);
        for (at, due) in [1_000, 2_000, 3_000].into_iter().enumerate() {
            let got = nginx.logged(at) - before[at];
            assert!(got.abs_diff(due) <= due / 100, "member {at}: {got} of {due}, cores {cores}");
        }
    }
}
