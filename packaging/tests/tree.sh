# Sourced: Debian systems in folders, for tests of packages.

DEBIAN_RELEASE=${DEBIAN_RELEASE:-bookworm}
DEBIAN_MIRROR=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

# Ends the test unless it runs as root and the programs are there.
require() {
    local program
    if ((EUID != 0)); then
        echo 'this makes a Debian system in a folder, and so needs root' >&2
        exit 77
    fi
    for program; do
        command -v "$program" > /dev/null || { echo "$program is missing" >&2; exit 1; }
    done
}

# Makes a system at the folder $1. The one that it copies is made once, with the packages that tests want.
new_tree() {
    local base=target/debian/$DEBIAN_RELEASE
    if [[ ! -e $base.complete ]]; then
        rm -rf "$base"
        mkdir -p target/debian
        debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,iproute2,iputils-ping,procps,man-db \
            "$DEBIAN_RELEASE" "$base" "$DEBIAN_MIRROR"
        touch "$base.complete"
    fi
    rm -rf "$1"
    cp --archive --reflink=auto "$base" "$1"
}

# The newest of the files that exist, if one does.
newest() {
    local file found=
    for file; do
        if [[ -e $file && ( ! $found || $file -nt $found ) ]]; then found=$file; fi
    done
    echo "$found"
}

# The package that `./dev package` made.
deb() {
    local found
    found=$(newest target/packages/pingferry_*.deb)
    [[ $found ]] || { echo 'there is no .deb: ./dev package' >&2; exit 1; }
    echo "$found"
}
