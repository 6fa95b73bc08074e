#!/usr/bin/env bash
# Installs, upgrades, removes and purges the packages in folders with systems, and checks them with lintian. As root.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=packaging/tests/tree.sh
. packaging/tests/tree.sh
# shellcheck source=packaging/tests/checks.sh
. packaging/tests/checks.sh
require debootstrap dpkg-deb

tree=target/debian/install

inside() { chroot "$tree" "$@"; }

# The same package with a higher version.
newer() {
    dpkg-deb --raw-extract "$1" target/debian/newer
    sed -i 's/^Version: .*/&+newer/' target/debian/newer/DEBIAN/control
    dpkg-deb --root-owner-group --build target/debian/newer "$tree/newer.deb"
    rm -r target/debian/newer
}

# What a purge must leave as it was: all files, but for the logs and the lists of dpkg and man-db.
files() {
    find "$tree" -xdev \( -path "$tree/var/lib/dpkg" -o -path "$tree/var/log" -o -path "$tree/var/cache" \) -prune \
        -o -printf '%P\n' | sort
}

files_of_package() {
    for file in usr/bin/pingferry etc/pingferry/pingferry.toml usr/share/man/man1/pingferry-run.1.gz \
        usr/lib/systemd/system/pingferry@.service usr/share/bash-completion/completions/pingferry \
        usr/share/zsh/vendor-completions/_pingferry usr/share/fish/vendor_completions.d/pingferry.fish \
        usr/share/elvish/lib/pingferry.elv usr/share/doc/pingferry/examples/pingferry.ps1 \
        usr/share/doc/pingferry/copyright usr/share/doc/pingferry/THIRD-PARTY-LICENCES.gz \
        usr/share/doc/pingferry/docs/install.md usr/share/doc/pingferry/examples/ping-group-range.conf; do
        [[ -s $tree/$file ]] || { echo "$file is missing"; return 1; }
    done
}

debian() {
    new_tree "$tree"
    cp "$(deb)" "$tree/pingferry.deb"
    newer "$tree/pingferry.deb"
    files > target/debian/before
    check 'the .deb can be installed' inside dpkg --install /pingferry.deb
    check '  its files are there' files_of_package
    check '  the program runs' inside pingferry --version
    check '  the configuration that is installed serves something' inside pingferry run --config /etc/pingferry/pingferry.toml --check
    check '  the manual can be read' inside sh -c 'man --pager=cat pingferry-run | grep -q -e --idle-timeout'
    check '  nothing is enabled' fails inside systemctl is-enabled pingferry
    check '  it owns no file in /etc but its configuration' owns_only_configuration
    echo '# mine' >> "$tree/etc/pingferry/pingferry.toml"
    inside systemctl enable pingferry 2> /dev/null
    check 'an upgrade' inside dpkg --install /newer.deb
    check '  keeps the configuration' grep --quiet '^# mine' "$tree/etc/pingferry/pingferry.toml"
    check '  and what was enabled' inside systemctl is-enabled pingferry
    check 'a removal' inside dpkg --remove pingferry
    check '  keeps the configuration' test -e "$tree/etc/pingferry/pingferry.toml"
    check 'a purge' inside dpkg --purge pingferry
    files > target/debian/after
    check '  leaves nothing' diff target/debian/before target/debian/after
}

owns_only_configuration() { [[ $(inside dpkg --listfiles pingferry | grep '^/etc/.*\.') == /etc/pingferry/pingferry.toml ]]; }

# A database of rpm in a folder, because Debian has no system of that kind.
redhat() {
    local root=$PWD/target/debian/rpm package
    package=$(newest target/packages/pingferry-*.rpm)
    if [[ ! $package ]] || ! command -v rpm > /dev/null; then
        echo 'skipped: there is no .rpm, or no program rpm'
        return
    fi
    rm -rf "$root"
    mkdir -p "$root"
    check 'the .rpm names what it requires' sh -c "rpm --query --requires --package '$package' | grep -q libc.so.6"
    check 'the .rpm can be installed' rpm --root "$root" --nodeps --noscripts --install "$package"
    check '  it verifies' rpm --root "$root" --nodeps --verify pingferry
    check '  the program runs' "$root/usr/bin/pingferry" --version
    echo '# mine' >> "$root/etc/pingferry/pingferry.toml"
    check '  installing it again' rpm --root "$root" --nodeps --noscripts --replacepkgs --install "$package"
    check '  keeps the configuration' grep --quiet '^# mine' "$root/etc/pingferry/pingferry.toml"
    check '  its scripts are scripts' scripts_of "$package"
    check 'it can be removed' rpm --root "$root" --nodeps --noscripts --erase pingferry
    check '  and leaves no program' fails test -e "$root/usr/bin/pingferry"
}

scripts_of() {
    rpm --query --package --queryformat '%{POSTIN}\n' "$1" | sh -n
    rpm --query --package --queryformat '%{PREUN}\n' "$1" | sh -n
    rpm --query --package --queryformat '%{POSTUN}\n' "$1" | sh -n
}

tarball() {
    local archive root=target/debian/tar
    archive=$(newest target/packages/pingferry-*-linux.tar.gz)
    if [[ ! $archive ]]; then
        echo 'skipped: there is no tarball'
        return
    fi
    rm -rf "$root"
    mkdir -p "$root"
    check 'the tarball can be unpacked' tar -xzf "$archive" --directory="$root" --strip-components=1
    check '  its program needs no library' static "$root/usr/local/bin/pingferry"
    check '  and runs' "$root/usr/local/bin/pingferry" --version
    check '  and has its configuration' test -e "$root/etc/pingferry/pingferry.toml"
}

static() { ! ldd "$1" 2>&1 | grep --quiet '=>'; }

debian
redhat
tarball
check 'the checksums are right' sh -c 'cd target/packages && sha256sum --check --quiet SHA256SUMS'
if command -v lintian > /dev/null; then
    check 'lintian finds nothing that is not listed' lintian --fail-on error,warning "$(deb)"
else
    echo 'skipped: lintian is not installed'
fi
if ((failed)); then exit 1; fi
