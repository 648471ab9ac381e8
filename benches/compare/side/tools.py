"""What TLS and L4 jobs need beside the proxies: our two load programs, a certificate, and OpenSSL's limits.

All of it is made anew in the work folder of a run.
"""

import os
import subprocess

from side.procs import Failure

HERE = os.path.dirname(os.path.realpath(__file__))

# wrk offers what OpenSSL does by default: this makes it one version, one cipher and one group.
OPENSSL = """\
openssl_conf = settings
[settings]
ssl_conf = tls
[tls]
system_default = offered
[offered]
MinProtocol = TLSv1.3
MaxProtocol = TLSv1.3
Ciphersuites = TLS_AES_128_GCM_SHA256
Groups = X25519
"""


class Tools:
    """Paths of what the chosen jobs need; what they don't is not made."""

    def __init__(self, work, jobs):
        self.work = work
        self.flows = self.handshakes = None
        if any(job.protocol in ("tcp", "udp") for job in jobs):
            self.flows = self.compiled("flows")
        if any(job.protocol == "https" for job in jobs):
            self.handshakes = self.compiled("handshakes", "-lssl", "-lcrypto")
            self.make_certificate()
        self.settings = os.path.join(work, "openssl.cnf")
        with open(self.settings, "w") as file:
            file.write(OPENSSL)

    def environment(self, job):
        """The environment of a job's load."""
        return dict(os.environ, OPENSSL_CONF=self.settings) if job.protocol == "https" else None

    def compiled(self, name, *libraries):
        """Builds one of our programs."""
        program = os.path.join(self.work, name)
        source = os.path.join(HERE, f"{name}.c")
        self.call(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, source, *libraries],
                  "gcc and libssl-dev are needed")
        return program

    def make_certificate(self):
        """An ECDSA P-256 certificate of its own: site.pem, site.key, and both in one file for HAProxy."""
        certificate, key = os.path.join(self.work, "site.pem"), os.path.join(self.work, "site.key")
        self.call(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                   "-nodes", "-subj", "/CN=bench", "-addext", "subjectAltName=DNS:bench", "-days", "60",
                   "-out", certificate, "-keyout", key], "openssl is needed")
        with open(os.path.join(self.work, "both.pem"), "w") as both:
            for path in (certificate, key):
                with open(path) as part:
                    both.write(part.read())

    @staticmethod
    def call(argv, cure):
        """Runs a program that makes something; fails with its own words."""
        try:
            subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60)
        except FileNotFoundError as missing:
            raise Failure(f"no program `{argv[0]}`: {cure}") from missing
        except subprocess.CalledProcessError as failed:
            raise Failure(f"`{' '.join(argv)}` failed ({cure}): {failed.stderr[-1000:]}") from failed
