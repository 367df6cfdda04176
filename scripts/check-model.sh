#!/usr/bin/env bash
# Lets spin explore the model of the protocol, docs/model/prune.pml: the rules as they are must hold
# in every reachable state, and without any one of them something must be lost: the assertion that
# each is about, and no other, has to fail.
#
#   scripts/check-model.sh [--quick|--long]
#
# --quick leaves out the configurations that take more than seconds; --long takes minutes more, and
# most of the memory.
#
# One verifier at a time, each below 4 GB. docs/protocol.md says what is explored and why.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
model="$root/docs/model/prune.pml"
# Above this a verifier gives up and the check fails.
memory_megabytes=3600
seconds_maximum=400

is_quick=
is_long=
optimisation=-O2
case "${1:-}" in
'') ;;
--long) is_long=1 ;;
--quick)
    is_quick=1
    # The compiler takes longer than what it makes runs.
    optimisation=-O0
    ;;
*)
    echo "check-model: there is no option '$1'; there are --quick and --long" >&2
    exit 64
    ;;
esac

for tool in spin gcc timeout; do
    command -v "$tool" >/dev/null || {
        echo "check-model: there is no $tool; scripts/install-dependencies.sh model installs it" >&2
        exit 1
    }
done

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failures=0

# explore DEFINITION...: leaves what the verifier said in $folder/said.
explore() {
    rm -f "$folder"/pan* "$folder"/*.trail
    (
        cd "$folder"
        spin "$@" -a "$model" >spun 2>&1 || { cat spun >&2; exit 1; }
        # Full states, compressed without loss: two states are never taken for one.
        gcc "$optimisation" -w -DSAFETY -DCOLLAPSE -DVECTORSZ=2048 "-DMEMLIM=$memory_megabytes" -o pan pan.c
        # -E: that a party never ends is a crash and no error; every error is an assertion then.
        timeout "$seconds_maximum" ./pan -m100000 -E -w22 >said 2>&1 || true
    )
}

states() { sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' "$folder/said"; }

report() { printf '%-16s %-54s %12s states  %s\n' "$1" "$2" "$(states)" "$3"; }

# holds DEFINITION...: explored to the end, without an error.
holds() {
    explore "$@"
    local verdict=holds
    if ! grep -q 'errors: 0$' "$folder/said"; then
        verdict='FAILS'
    fi
    if grep -qE 'too small|Search not completed|truncated|out of memory|memory limit|error:' \
        "$folder/said"; then
        verdict='NOT EXPLORED TO THE END'
    fi
    # A verifier that was stopped by its time has told no result.
    [[ -n "$(states)" ]] || verdict='NOT EXPLORED TO THE END'
    report 'all rules' "${*//-D/}" "$verdict"
    [[ "$verdict" == holds ]] || failures=$((failures + 1))
}

# loses RULE ASSERTION DEFINITION...: without the rule, or with the order, that the definition RULE
# names, the assertion fails that it is about. The others are not asserted: one of them could fail
# first. The assertions (docs/protocol.md):
#   restorable   a snapshot that is listed and shown as complete can be restored
#   kept         a snapshot that was committed in time is shown as complete
#   leased       what a run named before any prune looked is there when it commits
loses() {
    local rule=$1 assertion=$2
    shift 2
    explore "$@" "-D$rule" "-DONLY_${assertion^^}"
    local verdict="breaks '$assertion', as it must"
    if ! grep -qF "assertion violated $assertion (at depth" "$folder/said"; then
        verdict="DOES NOT BREAK '$assertion' as it must"
        failures=$((failures + 1))
    fi
    report "$rule" "${*//-D/}" "$verdict"
}

one=(-DBACKUPS=1 -DPRUNES=1)
# The first of two prunes only condemns, so that the second deletes by the records of both.
one_two=(-DBACKUPS=1 -DPRUNES=2 -DHALF)
two_two=(-DBACKUPS=2 -DPRUNES=2 -DHALF)
all=(-DLEASES -DMERGE -DPAGED -DREWRITE)

holds "${one[@]}"
holds "${one[@]}" "${all[@]}"
holds -DBACKUPS=2 -DPRUNES=1
if [[ -z "$is_quick" ]]; then
    holds -DBACKUPS=2 -DPRUNES=1 "${all[@]}"
    holds -DBACKUPS=1 -DPRUNES=2
    holds "${one_two[@]}" -DREWRITE
    holds "${one_two[@]}" -DMERGE
    holds "${one_two[@]}" -DMERGE -DREWRITE
    holds "${two_two[@]}"
    holds "${two_two[@]}" -DLATE_LINES
fi
if [[ -n "$is_long" ]]; then
    holds "${two_two[@]}" -DLATE=2
    holds "${one_two[@]}" "${all[@]}"
    holds "${two_two[@]}" -DREWRITE -DLATE=0
    holds "${two_two[@]}" -DMERGE -DLATE=0
fi

loses NO_COMMIT_RULE kept "${one[@]}"
loses NO_LINE_RULE restorable "${two_two[@]}"
loses NO_FENCE restorable "${one[@]}"
loses RECORDS_ALONE restorable "${one[@]}"
loses NO_LEASE leased "${one[@]}" -DLEASES
loses NO_FINALITY kept "${one[@]}"
loses NO_TWO_COPIES kept -DBACKUPS=1 -DPRUNES=2
# The order of writes (bundles, index, snapshot), each step before the one that it has to follow.
loses INDEX_FIRST restorable -DBACKUPS=2 -DPRUNES=1
loses SNAPSHOT_FIRST kept "${one[@]}"
# The order of deletes (new index, old index, bundles, records), likewise.
loses OLD_INDEX_FIRST kept "${one_two[@]}" -DMERGE
loses BUNDLES_FIRST restorable "${one_two[@]}"
loses RECORDS_FIRST kept "${one[@]}"
# No rule, but where they end: lines that arrive late and a commit that does.
loses LATE_LINES restorable "${two_two[@]}" -DLATE=2

if ((failures)); then
    echo "check-model: $failures of the above are not as docs/protocol.md says" >&2
    exit 1
fi
echo 'check-model: the rules hold, and each of them is needed'
