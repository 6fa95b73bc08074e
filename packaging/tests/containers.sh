#!/usr/bin/env bash
# Runs the commands of docs/containers.md with podman, as root and rootless. As root; SUDO_USER is the user of the second.
# --image builds the image of packaging/Containerfile first, over Debian in a folder and with the Rust of this machine.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=packaging/tests/tree.sh
. packaging/tests/tree.sh
# shellcheck source=packaging/tests/checks.sh
. packaging/tests/checks.sh
require debootstrap buildah podman podman-compose ip setpriv

# Images of Debian: for programs, and with a C compiler for the build.
debian_images() {
    local tree=target/debian/image
    new_tree "$tree"
    tar --directory="$tree" --create . | podman import --quiet - localhost/debian > /dev/null
    chroot "$tree" sh -c 'apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev' > "$output"
    tar --directory="$tree" --create . | podman import --quiet --change "ENV=PATH=/rust/bin:/usr/bin:/bin" - localhost/build > /dev/null
}

build_image() {
    debian_images
    # Neither the network nor the registry of images is used.
    buildah build --quiet --network=none --volume="$(rustc --print sysroot):/rust:ro" \
        --volume="${CARGO_HOME:-$HOME/.cargo}/registry:/root/.cargo/registry" --env=CARGO_NET_OFFLINE=true \
        --build-arg=BUILD_IMAGE=localhost/build --build-arg=IMAGE=localhost/debian \
        --build-arg="PINGFERRY_COMMIT=$(git rev-parse --short=12 HEAD)" \
        --tag=localhost/pingferry --file=packaging/Containerfile .
}

# A host in whose network the containers run, with an open range of groups, and 192.0.2.1 behind a link.
networks() {
    ip netns add containers
    ip netns add containers-target
    in_network sysctl --quiet --write net.ipv4.ping_group_range='0 2147483647'
    in_network ip link set lo up
    ip -n containers link add eth0 type veth peer name eth0 netns containers-target
    ip -n containers address add 203.0.113.1/24 dev eth0
    ip -n containers link set eth0 up
    ip -n containers-target link set lo up
    ip -n containers-target address add 203.0.113.2/24 dev eth0
    ip -n containers-target address add 192.0.2.1/32 dev lo
    ip -n containers-target link set eth0 up
    ip -n containers route add default via 203.0.113.2
    ip -n containers-target route add default via 203.0.113.1
}

# Not `ip netns exec`, which hides /sys/fs/cgroup.
in_network() { nsenter --net=/run/netns/containers "$@"; }

# A command as the user, who may be root.
as_user() {
    if [[ $user == root ]]; then
        in_network "$@"
        return
    fi
    local home id
    home=$(getent passwd "$user" | cut -d: -f6)
    id=$(id --user "$user")
    # Settings for podman of root are not the user's.
    in_network setpriv --reuid="$user" --regid="$user" --init-groups --inh-caps=-all env --chdir=/ --unset=CONTAINERS_CONF \
        HOME="$home" USER="$user" XDG_RUNTIME_DIR="/run/user/$id" APP_IMAGE=localhost/debian "$@"
}

podman_run() { as_user podman run --rm --pull=never "$@"; }

one_group() { podman_run --sysctl net.ipv4.ping_group_range='65534 65534' "$@"; }

# `check` of a container whose range has another group.
closed_range() {
    local code=0 text
    text=$(podman_run --sysctl net.ipv4.ping_group_range='0 0' localhost/pingferry) || code=$?
    echo "$text"
    ((code == 77)) && grep --fixed-strings --quiet -- 'podman run --sysctl net.ipv4.ping_group_range=' <<< "$text"
}

image() {
    check 'the image runs check, which is satisfied' one_group localhost/pingferry
    check '  read-only and without capabilities too' one_group --read-only --cap-drop=all localhost/pingferry
    check 'with a closed range it exits with 77, and prints the option that fixes it' closed_range
    check 'a ping of exec crosses' one_group --device=/dev/net/tun localhost/pingferry exec -- ping -c 1 -W 2 192.0.2.1
    check 'demo works with a writable /proc/sys' one_group --device=/dev/net/tun --security-opt=unmask=/proc/sys localhost/pingferry demo
}

service() {
    check 'a service with a Unix socket starts' as_user podman run --detach --pull=never --name pingferry-service --read-only --cap-drop=all \
        --sysctl net.ipv4.ping_group_range='65534 65534' --volume=pingferry-sockets:/run/pingferry \
        --env=PINGFERRY_ADMIN=unix:/run/pingferry/admin.sock --health-cmd='pingferry status' --health-interval=disable \
        localhost/pingferry run --unix /run/pingferry/ping.sock
    check '  status says that it is ready' eventually as_user podman exec pingferry-service pingferry status
    check '  it is healthy' as_user podman healthcheck run pingferry-service
    as_user podman rm --force --time=0 --volumes pingferry-service > /dev/null
}

compose() {
    local file=$PWD/packaging/compose.yaml
    check 'the compose file starts' as_user podman-compose --file "$file" up --detach
    check '  a ping of the container crosses' eventually as_user podman exec pingferry-app ping -c 1 -W 2 192.0.2.1
    check '  with the hop of pingferry' as_user podman exec pingferry-app sh -c 'ping -c 1 -t 1 192.0.2.1 | grep -i "time to live exceeded"'
    check '  status is ready' as_user podman exec pingferry pingferry status
    as_user podman rm --force --time=0 --depend pingferry-app > /dev/null
}

# pingferry outside, for the network of a container.
outside() {
    local process pingferry=$PWD/target/debian/pingferry
    as_user podman run --detach --name pingferry-app --network=none localhost/debian sleep 300 > /dev/null
    process=$(as_user podman inspect --format '{{.State.Pid}}' pingferry-app)
    podman run --rm --entrypoint=cat localhost/pingferry /usr/local/bin/pingferry > "$pingferry"
    chmod 755 "$pingferry"
    as_user "$pingferry" run --tun ping0 --pid "$process" --address 192.0.0.2/32 --route default > "$output.run" 2>&1 &
    check 'pingferry outside of a container carries its pings' eventually as_user podman exec pingferry-app ping -c 1 -W 2 192.0.2.1
    as_user podman rm --force --time=0 pingferry-app > /dev/null
    check '  and ends with it' wait $!
}

if [[ ${1-} == --image ]]; then build_image; fi
trap 'ip netns delete containers; ip netns delete containers-target' EXIT
networks
user=root
for user in root ${SUDO_USER-}; do
    echo "--- podman as $user"
    if [[ $user != root ]]; then
        # Images of root are not seen by others.
        for name in pingferry debian; do podman save --quiet "localhost/$name" | as_user podman load --quiet > /dev/null; done
    fi
    image
    service
    if [[ $user != root ]]; then
        compose
        outside
    fi
done
if command -v kubernetes-validate > /dev/null; then
    check 'the manifests fit the schema of Kubernetes' kubernetes-validate --strict --quiet packaging/kubernetes/*.yaml
else
    echo 'skipped: kubernetes-validate is not installed (pip install kubernetes-validate)'
fi
if ((failed)); then exit 1; fi
