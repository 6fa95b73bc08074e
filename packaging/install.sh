#!/usr/bin/env bash
# Installs pingferry below a folder: the program and what belongs to it. All packages are made of this tree.
#
# usage: packaging/install.sh PROGRAM DESTDIR [PREFIX]       PREFIX is /usr by default
set -euo pipefail

program=$(realpath "$1")
destdir=$2
prefix=$2${3:-/usr}
cd "$(dirname "$0")/.."

doc=$prefix/share/doc/pingferry

# Copies files into a folder, which it creates.
copy() { install -D --mode=644 --target-directory="$1" "${@:2}"; }

program_and_manual() {
    local man=$prefix/share/man/man1
    install -D --mode=755 "$program" "$prefix/bin/pingferry"
    mkdir -p "$man"
    "$program" man "$man"
    # Without a name and a time, so that the same input makes the same file.
    gzip --best --no-name --force "$man"/*.1
}

completions() {
    local shell file
    while read -r shell file; do
        mkdir -p "$(dirname "$prefix/share/$file")"
        "$program" completions "$shell" > "$prefix/share/$file"
    done << 'FILES'
bash bash-completion/completions/pingferry
zsh zsh/site-functions/_pingferry
fish fish/vendor_completions.d/pingferry.fish
elvish elvish/lib/pingferry.elv
powershell doc/pingferry/examples/pingferry.ps1
FILES
}

service() {
    copy "$prefix/lib/systemd/system" packaging/systemd/*.service
    # The user of the service, whom systemd creates, has to read it.
    install -D --mode=644 packaging/service.toml "$destdir/etc/pingferry/pingferry.toml"
}

documents() {
    copy "$doc" README.md CHANGELOG.md SECURITY.md
    copy "$doc/docs" docs/*.md docs/terminal.svg
    copy "$doc/examples" packaging/{pingferry.toml,ping-group-range.conf,alerts.yml,grafana.json,compose.yaml}
    copy "$doc/examples/kubernetes" packaging/kubernetes/*.yaml
    copy "$prefix/share/licenses/pingferry" LICENSE-*
}

program_and_manual
completions
service
documents
