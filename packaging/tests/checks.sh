# Sourced: checks that print a line each.

# What the command of the last check printed.
output=$(mktemp)
failed=0

# Says whether a command succeeds.
check() {
    if "${@:2}" > "$output" 2>&1; then
        echo "ok       $1"
    else
        echo "FAILED   $1"
        sed 's/^/         | /' "$output"
        failed=1
    fi
}

fails() { ! "$@"; }

# Waits until a command succeeds, for ten seconds: what it waits for is done by another process.
eventually() {
    local end=$((SECONDS + 10))
    until "$@" > "$output" 2>&1; do
        ((SECONDS < end)) || return 1
        sleep 0.1
    done
}
