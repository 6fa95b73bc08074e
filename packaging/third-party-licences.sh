#!/usr/bin/env bash
# Prints the licences of the crates that the program contains. Most of them ask for it.
set -euo pipefail
cd "$(dirname "$0")/.."

# Name, version and licence of each crate, once.
crates() {
    cargo tree --locked --package pingferry-cli --edges normal --target "$1" --prefix none --format '{p}|{l}' \
        | sed 's/ (\*)$//' | grep -v '^pingferry' | sort -u
}

sources=$(cargo metadata --locked --format-version 1 | tr ',' '\n' | sed -n 's/.*"manifest_path":"\(.*\)\/Cargo.toml"$/\1/p')

crates "$1" | while IFS='|' read -r crate licence; do
    read -r name version _ <<< "$crate"
    folder=$(awk -v end="/$name-${version#v}" 'substr($0, length($0) - length(end) + 1) == end' <<< "$sources")
    printf '%s\n%s %s: %s\n\n' "$(printf '=%.0s' {1..80})" "$name" "${version#v}" "$licence"
    find "$folder" -maxdepth 1 -type f \( -iname 'licen[cs]e*' -o -iname 'copying*' -o -iname 'notice*' \) | sort | while read -r file; do
        cat "$file"
        echo
    done
done
