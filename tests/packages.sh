# Sourced by tests/run, tests/soak and the test that needs python_tests: the programs that the tests run, the Debian
# packages they come from, and Python's libraries for WebSocket, QUIC, HTTP/2 and gRPC.

# program:package
needed_programs="
cc:gcc
make:make
git:git
curl:curl
wrk:wrk
h2load:nghttp2-client
iperf3:iperf3
openssl:openssl
python3:python3
ip:iproute2
nft:nftables
taskset:util-linux
setpriv:util-linux
nginx:nginx
haproxy:haproxy
dnsmasq:dnsmasq-base
slowhttptest:slowhttptest
sftp:openssh-client
sshd:openssh-server
"

# Where python_tests makes its environment, from the project's root; and what it gets there, from PyPI.
python_folder=target/tests-venv
python_libraries="websockets==15.0.1 aioquic==1.2.0 h2==4.3.0 hpack==4.1.0 hyperframe==6.1.0 grpcio==1.85.3"

# missing_packages : those whose program is not there, one a line.
missing_packages() {
  local pair
  for pair in $needed_programs; do
    command -v "${pair%%:*}" >/dev/null || echo "${pair##*:}"
  done
  python3 -c 'import ensurepip' 2>/dev/null || echo python3-venv
  echo '#include <openssl/ssl.h>' | cc -E - >/dev/null 2>&1 || echo libssl-dev
  [ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || nginx -V 2>&1 | grep -q -- '--with-stream ' ||
    echo libnginx-mod-stream
}

# python_tests : makes the environment with the libraries, unless it is there; its python is in $python_folder/bin.
# Tests that run at the same time wait for the one that makes it.
python_tests() (
  python=$python_folder/bin/python
  libraries='import websockets, aioquic, h2, hpack, hyperframe, grpc'
  "$python" -c "$libraries" 2>/dev/null && return 0
  mkdir -p "$python_folder" && exec 9<"$python_folder" && flock 9
  "$python" -c "$libraries" 2>/dev/null && return 0
  echo "making $python_folder with $python_libraries"
  python3 -m venv "$python_folder" && "$python" -m pip -q --disable-pip-version-check install $python_libraries && return 0
  echo "could not make $python_folder; it needs python3-venv and PyPI, or a $python that has $python_libraries" >&2
  return 1
)

# install_packages : nothing when all are there; else apt, as root or through sudo, starting no service.
install_packages() {
  local missing
  missing=$(missing_packages | tr '\n' ' ')
  if [ -z "$missing" ]; then
    echo "all needed programs are installed"
    return 0
  fi
  local root=()
  [ "$(id -u)" = 0 ] || root=(sudo -n)
  if ! command -v apt-get >/dev/null || ! "${root[@]}" true 2>/dev/null; then
    echo "missing packages (Debian's names): $missing" >&2
    echo "install them as root: apt-get install --no-install-recommends $missing" >&2
    return 1
  fi
  echo "installing: $missing"
  without_services "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -q install -y --no-install-recommends $missing &&
    [ -z "$(missing_packages)" ]
}

# without_services COMMAND… : runs apt so that the packages' daemons are not started. The switch for that is
# a policy file; one that is there already stays, ours goes again whatever happens.
without_services() (
  policy=/usr/sbin/policy-rc.d
  root=()
  [ "$(id -u)" = 0 ] || root=(sudo -n)
  if [ ! -e "$policy" ]; then
    trap '"${root[@]}" rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee "$policy" >/dev/null
    "${root[@]}" chmod 755 "$policy"
  fi
  "${root[@]}" apt-get -q update && "$@"
)
