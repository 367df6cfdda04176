#!/usr/bin/env bash
# Runs the tests and says at the end which claims were skipped and why.
#
#   scripts/run-tests.sh [OPTIONS OF swift test]
#
# The whole output is kept in .build/test-output.log; .ci/run reads the skipped claims from it.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
log=.build/test-output.log
mkdir -p .build

status=0
"${SWIFT:-swift}" test "$@" 2>&1 | tee "$log" || status=$?

# Both what the test runner reports as skipped and what a test says about a part of its claim.
skipped=$(grep -E '(^|[^[:alnum:]])skipped:|was cancelled after' "$log" || true)
if [[ -n "$skipped" ]]; then
    printf '\n%d claims were skipped:\n%s\n\n' "$(wc -l <<<"$skipped")" "$skipped"
fi
# The runner's own last word stays the last.
grep -E 'Test run with [0-9]+ test' "$log" | tail -n 1 || true
exit "$status"
