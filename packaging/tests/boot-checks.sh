#!/usr/bin/env bash
# Runs in the system that boot.sh boots, as root: follows docs/install.md, and prints what was checked.
set -uo pipefail
# shellcheck source=packaging/tests/checks.sh
. "$(dirname "$0")/checks.sh"

document=/usr/share/doc/pingferry/docs/install.md

# In the document. Here everything is root's.
sudo() { "$@"; }

# The commands of the document below a heading: the first block, or the one with the number $2.
documented() {
    awk -v heading="$1" -v wanted="${2:-1}" '
        $0 == heading { below = 1; next }
        below && /^## / { exit }
        below && /^```sh$/ { block++; inside = 1; next }
        /^```$/ { inside = 0 }
        inside && block == wanted' "$document"
}

# Runs these commands; the first that fails ends it.
follow() {
    local commands
    commands=$(documented "$@")
    [[ $commands ]] && (set -e; eval "$commands")
}

property() { systemctl show --value --property="$2" "$1"; }
is() { [[ $(property "$1" "$2") == "$3" ]] || { property "$1" "$2"; return 1; }; }
journal() { journalctl --no-pager --output=cat --unit="$1"; }
logged() { journal "$1" | grep --fixed-strings -- "$2"; }
pings() { ping -c 1 -W 2 -I ping0 192.0.2.1; }
drop_in() { mkdir -p "/run/systemd/system/$1.d"; printf '[Service]\n%s\n' "${@:2}" > "/run/systemd/system/$1.d/test.conf"; systemctl daemon-reload; }

# A network: this host, another one with 192.0.2.1 and the private 10.0.0.1, and the host of the edge.
networks() {
    ip netns add target
    ip link add eth0 type veth peer name eth0 netns target
    ip address add 192.0.2.2/24 dev eth0
    ip link set eth0 up
    ip -n target link set lo up
    ip -n target address add 192.0.2.1/24 dev eth0
    ip -n target address add 10.0.0.1/32 dev lo
    ip -n target link set eth0 up
    ip route add default via 192.0.2.1
    ip netns add edge
    ip link add to-edge type veth peer name eth0 netns edge
    ip address add 198.51.100.2/24 dev to-edge
    ip link set to-edge up
    ip -n edge link set lo up
    ip -n edge address add 198.51.100.1/24 dev eth0
    ip -n edge link set eth0 up
    echo '198.51.100.1 edge.example' >> /etc/hosts
    ping -c 1 -W 2 192.0.2.1 && ping -c 1 -W 2 10.0.0.1 && ping -c 1 -W 2 edge.example
}

permission() {
    sysctl -q -w net.ipv4.ping_group_range='1 0'
    check 'check says that the range of groups is closed, and exits with 77' closed
    check 'the service does not start then, with exit code 77' fails systemctl start pingferry
    check '  and is not started again' is pingferry NRestarts 0
    check '  and its log names the sysctl' logged pingferry net.ipv4.ping_group_range
    check 'documented: the sysctl file that is offered' follow '## May this system ping?' 2
    check '  check is satisfied' pingferry check
}

closed() {
    pingferry check
    (($? == 77))
}

service() {
    local units='pingferry.service pingferry@blue.service pingferry-edge.service pingferry-connect.service'
    # shellcheck disable=SC2086
    check 'systemd finds no fault in the units' systemd-analyze --recursive-errors=no verify $units
    check 'nothing is enabled after the installation' fails systemctl is-enabled pingferry
    check 'documented: start' follow '## The service'
    check '  it is READY' is pingferry ActiveState active
    check '  and says what it serves' logged pingferry 'ready: TUN device ping0'
    check '  it runs as a user of its own' fails is pingferry UID 0

    ip link add other0 type veth peer name other1
    sed -i 's/"ping0"/"other0"/' /etc/pingferry/pingferry.toml
    check 'it is not READY with a device that is none' fails systemctl restart pingferry
    sed -i 's/"other0"/"ping0"/' /etc/pingferry/pingferry.toml
    systemctl reset-failed pingferry
    check '  and is with one that is' systemctl restart pingferry
}

reload() {
    cp /etc/pingferry/pingferry.toml /root/
    sed -i 's/^policy = .*/policy = ["deny 192.0.2.1"]/' /etc/pingferry/pingferry.toml
    check 'documented: reload' follow '## The service' 2
    check '  the new policy is in force' eventually fails pings
    echo 'polic = []' >> /etc/pingferry/pingferry.toml
    check 'a file with an error fails the reload' fails systemctl reload pingferry
    check '  the journal names the error' logged pingferry 'unknown key `polic`'
    check '  it runs on, with the policy before' fails pings
    check '  systemd sees it run' systemctl is-active pingferry
    check 'a restart with that file fails with exit code 64' fails systemctl restart pingferry
    check '  64' is pingferry ExecMainStatus 64
    check '  and is not tried again' is pingferry NRestarts 0
    cp /root/pingferry.toml /etc/pingferry/
    systemctl reset-failed pingferry
    check 'with the file as before it serves again' eval 'systemctl start pingferry && pings'
}

faults() {
    local pid
    # The folder outlives the service, and with it the socket of a killed process.
    drop_in pingferry.service WatchdogSec=2s RuntimeDirectoryPreserve=yes
    systemctl restart pingferry
    pid=$(property pingferry MainPID)
    systemctl kill --signal=KILL pingferry
    check 'after SIGKILL it is started again' eventually eval "fails is pingferry MainPID $pid && systemctl is-active pingferry"
    check '  and replaced the socket that the killed one left' eventually pingferry status
    check '  and pings cross' pings
    pid=$(property pingferry MainPID)
    kill -STOP "$pid"
    check 'if it hangs, the watchdog has it restarted' eventually eval "fails is pingferry MainPID $pid && systemctl is-active pingferry"
    check '  because of the watchdog' logged pingferry 'Watchdog timeout'
    check '  and pings cross' pings
    systemctl stop pingferry
    check 'when it stops, the statistics are in the journal' logged pingferry 'requests: packets received'
    check 'it ended well' is pingferry Result success
}

namespace() {
    check 'documented: a network namespace' follow '## A network namespace'
    check '  it has CAP_SYS_ADMIN and CAP_NET_ADMIN no more' no_capabilities pingferry@blue
    ip netns delete blue
    check '  it ends with the namespace' eventually fails systemctl is-active pingferry@blue
}

no_capabilities() {
    grep 'CapEff:.*[1-9a-f]' "/proc/$(property "$1" MainPID)/status" && return 1
    true
}

tunnel() {
    # On one machine, the edge needs a network of its own: both ends route 10.0.0.0/8.
    drop_in pingferry-edge.service NetworkNamespacePath=/run/netns/edge
    check 'documented: the edge' follow '## A tunnel' 1
    cd /etc/pingferry/edge || return
    check 'documented: the connector' follow '## A tunnel' 2
    cd /
    check '  a ping crosses the tunnel' eventually ip netns exec edge ping -c 1 -W 2 10.0.0.1
    for unit in pingferry-edge pingferry-connect; do
        check "  $unit has no capabilities" no_capabilities "$unit"
        check "  $unit stops" systemctl stop "$unit"
        check "  $unit ended well" is "$unit" Result success
    done
}

# The program of the tarball uses other system calls, because its C library is another one.
static() {
    local program=/root/usr/local/bin/pingferry
    if [[ -x $program ]]; then
        check 'a ping of the static program crosses, confined' "$program" exec -- ping -c 3 192.0.2.1
    else
        echo 'skipped: there is no tarball'
    fi
}

systemctl --version | head -n 1
pingferry --version
check 'the networks of this test' networks
permission
service
reload
faults
namespace
tunnel
static
for unit in pingferry pingferry@blue pingferry-edge pingferry-connect; do
    systemd-analyze security --no-pager "$unit" 2> /dev/null | tail -n 1
done
if ((failed)); then
    echo 'some checks failed'
else
    echo 'every check passed'
fi
