#!/usr/bin/env bash
# Writes Sources/SnapshotRepository/RecoveryText.swift: what `init` puts into a repository, as string literals. SwiftPM's own
# embedding makes an array literal of every byte, which takes the compiler half a minute.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=Sources/SnapshotRepository/Recovery
{
    echo "// swift-format-ignore-file"
    echo "// Made by scripts/embed-recovery.sh from Recovery/recover.py and Recovery/RECOVER.md. Edit those."
    echo
    echo "enum RecoveryText {"
    for pair in "program:recover.py" "page:RECOVER.md"; do
        printf '    static let %s: StaticString = ###"""\n' "${pair%%:*}"
        cat "$folder/${pair#*:}"
        printf '\n"""###\n'
    done
    echo "}"
} > Sources/SnapshotRepository/RecoveryText.swift
