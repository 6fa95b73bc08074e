#!/usr/bin/env bash
# Makes the packages in target/packages: .deb, .rpm, a tarball with a static program, SBOM and checksums.
# What is not installed is left out, and said.
#
# PINGFERRY_MAINTAINER='Name <address>' is who publishes them, and PINGFERRY_PACKAGES=deb,rpm,tar,sbom which are wanted.
set -euo pipefail
cd "$(dirname "$0")/.."

wanted=${PINGFERRY_PACKAGES:-deb,rpm,tar,sbom}
packages=target/packages
arch=$(uname -m)
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)

# The same sources make the same packages: no times but that of the commit, and no paths of this machine.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2> /dev/null || date +%s)}
cargo_home=${CARGO_HOME:-$HOME/.cargo}
rustflags="--remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$PWD=/pingferry"
export SOURCE_DATE_EPOCH RUSTFLAGS="${RUSTFLAGS-} $rustflags" CFLAGS="${CFLAGS-} -ffile-prefix-map=$cargo_home=/cargo"
export CARGO_PROFILE_RELEASE_STRIP=symbols

wants() { [[ ,$wanted, == *,$1,* ]]; }

skip() { echo "skipped: $1" >&2; }

# Builds for a target, and prints where the program is.
build() {
    cargo build --release --locked --package pingferry-cli --target "$1" >&2
    echo "target/$1/release/pingferry"
}

# Installs a program and its files below a folder.
stage() {
    rm -rf "$2"
    packaging/install.sh "$1" "$2" "${@:4}"
    local doc=$2${4-/usr}/share/doc/pingferry
    packaging/third-party-licences.sh "$3" | gzip --best --no-name > "$doc/THIRD-PARTY-LICENCES.gz"
}

make_rpm() {
    if ! cargo generate-rpm --version > /dev/null 2>&1; then
        skip 'the .rpm: cargo-generate-rpm is not installed (cargo install --locked cargo-generate-rpm)'
        return
    fi
    cargo generate-rpm --package crates/pingferry-cli --target "$1" --output "$packages/pingferry-$version-1.$arch.rpm"
}

# What Debian has in other places.
debianise() {
    local share=$packages/root/usr/share
    mv "$share/zsh/site-functions" "$share/zsh/vendor-completions"
    rm -r "$share/licenses"
    gzip --best --no-name --stdout CHANGELOG.md > "$share/doc/pingferry/changelog.gz"
    rm "$share/doc/pingferry/CHANGELOG.md"
    cat > "$packages/changelog.Debian" << END
pingferry ($version-1) unstable; urgency=medium

  * See changelog.gz.

 -- ${PINGFERRY_MAINTAINER:-The pingferry authors}  $(LC_ALL=C date -R --utc --date="@$SOURCE_DATE_EPOCH")
END
}

make_deb() {
    if ! cargo deb --version > /dev/null 2>&1; then
        skip 'the .deb: cargo-deb is not installed (cargo install --locked cargo-deb)'
        return
    fi
    debianise
    cargo deb --no-build --package pingferry-cli --target "$1" --output "$packages/" \
        ${PINGFERRY_MAINTAINER:+--maintainer "$PINGFERRY_MAINTAINER"}
}

make_tarball() {
    local target=$arch-unknown-linux-musl name=pingferry-$version-$arch-linux
    if [[ ! -d $(rustc --print sysroot)/lib/rustlib/$target ]] || ! command -v musl-gcc > /dev/null; then
        skip "the tarball: the standard library or the C compiler is missing (rustup target add $target; apt-get install musl-tools)"
        return
    fi
    stage "$(build "$target")" "$packages/$name" "$target" /usr/local
    tar --create --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
        --directory="$packages" "$name" | gzip --best --no-name > "$packages/$name.tar.gz"
    rm -r "${packages:?}/$name"
}

make_sbom() {
    if ! cargo cyclonedx --version > /dev/null 2>&1; then
        skip 'the SBOM: cargo-cyclonedx is not installed (cargo install --locked cargo-cyclonedx)'
        return
    fi
    local name=pingferry-$version.cdx
    cargo cyclonedx --quiet --format json --manifest-path crates/pingferry-cli/Cargo.toml \
        --target "$arch-unknown-linux-gnu" --override-filename "$name"
    # Without the folder of this machine.
    sed "s|file://$PWD/|file:///pingferry/|g" "crates/pingferry-cli/$name.json" > "$packages/$name.json"
    # It writes one for each crate of the workspace.
    find crates fuzz -name "$name.json" -delete
}

rm -rf "$packages"
mkdir -p "$packages"
if wants deb || wants rpm; then
    target=$arch-unknown-linux-gnu
    stage "$(build "$target")" "$packages/root" "$target"
    if wants rpm; then make_rpm "$target"; fi
    if wants deb; then make_deb "$target"; fi
    rm -rf "$packages/root" "$packages/changelog.Debian"
fi
if wants tar; then make_tarball; fi
if wants sbom; then make_sbom; fi
cd "$packages"
find . -maxdepth 1 -type f -printf '%P\n' | sort | xargs --no-run-if-empty sha256sum > ../SHA256SUMS
mv ../SHA256SUMS .
ls -l
