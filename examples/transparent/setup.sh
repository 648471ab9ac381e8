#!/bin/sh
# Routes for listeners whose members see the clients' own addresses (docs/transparent.md). Run on the balancer's host, as
# root, before Weir; needs iproute2 and nftables. Nothing is kept over a reboot: call it from a unit of your own.
#
#   setup.sh up INTERFACE…    INTERFACE: where members' answers come in
#   setup.sh down             takes it all back
#
# An answer goes to the client's address, which is not this host's. nft marks it when a socket of Weir's has that very
# address and port; what is marked is looked up in a routing table of its own, which says that all is local. What is not
# for such a socket is routed as before.
set -eu

MARK=${WEIR_MARK:-0x40000}     # a bit of the packet mark that nobody else on this host uses
TABLE=${WEIR_TABLE:-7700}      # a routing table that nobody else uses
PREFERENCE=${WEIR_PREFERENCE:-77}

down() {
    nft delete table inet weir 2>/dev/null || true
    for family in -4 -6; do
        ip $family rule del pref "$PREFERENCE" 2>/dev/null || true
        ip $family route flush table "$TABLE" 2>/dev/null || true
    done
}

up() {
    interfaces=
    for interface in "$@"; do
        interfaces="${interfaces:+$interfaces, }\"$interface\""
    done
    nft -f - <<RULES
table inet weir {
    chain answers {
        type filter hook prerouting priority mangle; policy accept;
        iifname { $interfaces } meta l4proto { tcp, udp, icmp, ipv6-icmp } socket transparent 1 meta mark set meta mark | $MARK
    }
}
RULES
    for family in -4 -6; do
        ip $family rule add pref "$PREFERENCE" fwmark "$MARK/$MARK" lookup "$TABLE"
        ip $family route add local default dev lo table "$TABLE"
    done
}

case "${1-} $#" in
up\ [2-9]* | up\ 1[0-9]*)
    shift
    down
    up "$@"
    ;;
down\ 1) down ;;
*)
    echo "usage: setup.sh up INTERFACE… | down" >&2
    exit 2
    ;;
esac
