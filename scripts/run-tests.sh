#!/usr/bin/env bash
# Runs the tests and says at the end which claims were skipped and why.
#
#   scripts/run-tests.sh [OPTIONS OF swift build] [--filter PATTERN]
#
# The whole output is kept in .build/test-output.log; .ci/run reads the skipped claims from it.
# A test that never ends must not take its name with it: after BATCHSYNC_TEST_MINUTES (30) the run
# is ended, and what was under way is named, with the stacks of all threads where gdb is at hand.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
log=$PWD/.build/test-output.log
minutes=${BATCHSYNC_TEST_MINUTES:-30}
mkdir -p .build

# The filter is for the tests, everything else for the compiler.
build=()
filter=()
while (($#)); do
    if [[ $1 == --filter ]]; then
        filter=(--filter "$2")
        shift 2
    else
        build+=("$1")
        shift
    fi
done
swift=${SWIFT:-swift}
"$swift" build --build-tests "${build[@]}" 2>&1 | tee "$log"
bundle=$("$swift" build --build-tests "${build[@]}" --show-bin-path)/batchsyncPackageTests.xctest

# Names what had begun and not ended, and shows where each thread stood.
show_what_hangs() {
    echo "test: no end to this run (it may take $minutes minutes). These had begun and not ended:"
    python3 - "$log.run" <<'PYTHON'
import re, sys
begun = {}
for line in open(sys.argv[1], errors="replace"):
    if found := re.match(r'\S+ (Test|Suite) (".*"|\S+) started\.', line):
        begun[found[1], found[2]] = True
    elif found := re.match(r'\S+ (Test|Suite) (".*"|\S+) (with \d+ test cases? )?(passed|failed) after', line):
        begun.pop((found[1], found[2]), None)
for kind, name in begun:
    if kind == "Test":
        print(f"  {name}")
PYTHON
    ps -eo pid,ppid,etimes,stat,wchan:24,args --sort=etimes | cut -c 1-160
    if command -v gdb >/dev/null; then
        timeout 120 gdb -p "$1" -batch -ex 'set pagination off' -ex 'thread apply all bt 25' 2>/dev/null ||
            true
    else
        for thread in /proc/"$1"/task/*; do
            echo "$(cat "$thread/comm"): $(cat "$thread/wchan")"
        done
    fi
}

# To a file and not through a pipe: whatever a test leaves behind may hold a pipe open for ever.
status=0
: >"$log.run"
stdbuf -oL "$bundle" --testing-library swift-testing "${filter[@]}" >"$log.run" 2>&1 </dev/null &
tests=$!
trap 'kill -TERM "$tests" 2>/dev/null || true' INT TERM
tail -n +1 -f --pid="$tests" "$log.run" &
shower=$!
ends=$((SECONDS + minutes * 60))
verdict=''
while kill -0 "$tests" 2>/dev/null; do
    if ((SECONDS >= ends)); then
        show_what_hangs "$tests" 2>&1 | tee -a "$log.run"
        kill -KILL "$tests"
    elif [[ -z "$verdict" ]] && verdict=$(tail -n 1 "$log.run" | grep -E 'Test run with [0-9]+ test'); then
        # All claims are decided: the process has nothing left to do but to go.
        ((ends < SECONDS + 60)) || ends=$((SECONDS + 60))
    fi
    sleep 1
done
wait "$tests" || status=$?
# A process that does not go after its verdict is shown above; the verdict stands.
if ((status == 137)) && [[ "$verdict" == *' passed after '* ]]; then status=0; fi
wait "$shower" || true
cat "$log.run" >>"$log"
rm -f "$log.run"

# Both what the test runner reports as skipped, which ends with "skipped." where no reason is given,
# and what a test says about a part of its claim.
skipped=$(grep -E '(^|[^[:alnum:]])skipped:|(Test|Suite) .* skipped\.$|was cancelled after' "$log" || true)
if [[ -n "$skipped" ]]; then
    printf '\n%d claims were skipped:\n%s\n\n' "$(wc -l <<<"$skipped")" "$skipped"
fi
# The runner's own last word stays the last.
grep -E 'Test run with [0-9]+ test' "$log" | tail -n 1 || true
exit "$status"
