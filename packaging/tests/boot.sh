#!/usr/bin/env bash
# Boots Debian in a container of systemd-nspawn, with the package installed, and follows docs/install.md there. As root.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=packaging/tests/tree.sh
. packaging/tests/tree.sh
require debootstrap systemd-nspawn

tree=target/debian/boot
new_tree "$tree"
cp "$(deb)" packaging/tests/{boot-checks,checks}.sh "$tree/root/"
archive=$(newest target/packages/pingferry-*-linux.tar.gz)
if [[ $archive ]]; then tar -xzf "$archive" --directory="$tree/root" --strip-components=1; fi
chroot "$tree" sh -c 'dpkg --install /root/pingferry_*.deb'

# The checks start when the system has, and end it.
cat > "$tree/etc/systemd/system/checks.service" << 'END'
[Unit]
After=multi-user.target
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
ExecStart=bash /root/boot-checks.sh
StandardOutput=append:/checks
StandardError=inherit
[Install]
WantedBy=default.target
END
chroot "$tree" systemctl --quiet enable checks

# Nothing is registered with a service manager of this machine, which may have none.
timeout 300 systemd-nspawn --quiet --directory="$tree" --boot --register=no --keep-unit --private-network \
    --bind=/dev/net/tun --console=pipe < /dev/null > "$tree/console" 2>&1 || true
cat "$tree/checks"
tail -n 1 "$tree/checks" | grep --quiet '^every check passed'
