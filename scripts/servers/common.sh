# shellcheck shell=bash
# What the server scripts share. Each of them is
#
#   NAME start|stop|status|env STATE_DIR [OPTIONS]
#
# and listens on 127.0.0.1 only, on a free port. `start` prints what a client needs as KEY=VALUE
# lines, which also lie in STATE_DIR/env; started again, it prints the same lines. Keys, data, logs
# and process numbers all lie in STATE_DIR; nothing outside of it is read or written.
set -euo pipefail

servers=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# The programs of scripts/requirements-test.txt, for the scripts that use this file.
# shellcheck disable=SC2034
python_programs=$(cd "$servers/../.." && pwd)/.build/venv-test/bin

fail() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    exit 1
}

# For what this machine lacks, as against a server that fails: nothing is wrong, and tests say so.
unavailable() {
    printf '%s\n' "$1" >&2
    exit 69
}

# What a script supervises; one that has more than a server says so before it calls `begin`.
processes=(server)

# Reads the verb and the state directory into $verb and $state, and answers every verb but `start`.
# What is behind them stays for the script: call as  begin "$@"; shift 2
begin() {
    [[ $# -ge 2 ]] || fail "say: ${0##*/} start|stop|status|env STATE_DIR [OPTIONS]"
    local name
    verb=$1
    mkdir -p "$2"
    chmod 700 "$2"
    state=$(cd "$2" && pwd -P)
    case "$verb" in
    start)
        if is_running && [[ -s "$state/env" ]]; then
            cat "$state/env"
            exit 0
        fi
        stop_all
        ;;
    stop) stop_all && exit 0 ;;
    status) if is_running; then echo running && exit 0; else echo stopped && exit 3; fi ;;
    env) cat "$state/env" && exit 0 ;;
    *) fail "there is no verb '$verb'; there are start, stop, status and env" ;;
    esac
}

is_running() {
    local name
    for name in "${processes[@]}"; do
        supervise status --name "$name" >/dev/null || return 1
    done
}

stop_all() {
    local name
    for name in "${processes[@]}"; do supervise stop --name "$name"; done
}

# supervise VERB [OPTIONS] [-- COMMAND...]
supervise() {
    local verb=$1
    shift
    python3 -B "$servers/supervisor.py" "$verb" "$state" "$@"
}

# Runs `listen_on PORT`, which the script defines, with free ports until one of them can be had:
# between our asking for a free one and the server's taking it, another program may be quicker.
start_on_free_port() {
    local attempt
    for attempt in 1 2 3 4 5; do
        port=$(python3 -c 'import socket
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    print(s.getsockname()[1])')
        if listen_on "$port" 2>"$state/start.log"; then return 0; fi
    done
    cat "$state/start.log" "$state/server.log" >&2 2>/dev/null || true
    fail "the server did not come up in $attempt attempts; see $state/server.log"
}

# Writes STATE_DIR/env whole, or not at all, and prints it.
publish() {
    printf '%s\n' "$@" >"$state/env.new"
    mv "$state/env.new" "$state/env"
    cat "$state/env"
}

random_hex() { head -c "$1" /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }

# A pair of S3 keys for this server: $access_key, $secret_key.
make_s3_keys() {
    if [[ ! -s "$state/keys" ]]; then
        (umask 077 && printf '%s %s\n' "AK$(random_hex 9 | tr 'a-f' 'A-F')" "$(random_hex 20)" \
            >"$state/keys")
    fi
    # Both are for the script that calls.
    # shellcheck disable=SC2034
    read -r access_key secret_key <"$state/keys"
}
