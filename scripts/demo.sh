#!/usr/bin/env bash
# Shows batchsync at work on a copy of a real directory, with the commands a person would type.
#
#   SOURCE=DIR    the directory to copy (default: some hundred MB of the system's own files)
#   KEEP=1        keeps everything at the end
#
# SOURCE is only read. All else happens in a temporary directory, which is removed at the end, on an
# error, and on Ctrl-C.
set -euo pipefail

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
binary=${BATCHSYNC_BINARY:-$scripts/../.build/release/batchsync}
if [[ ! -x "$binary" ]]; then
    echo "demo: there is no batchsync at $binary; run \`make build\` first" >&2
    exit 1
fi

if [[ -t 1 ]]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; else bold='' dim='' plain=''; fi

# Says what comes next.
title() { printf '\n%s%s%s\n' "$bold" "$1" "$plain"; }

# Shows a command as one would type it, then runs it.
show() {
    local word line=''
    for word in "$@"; do
        # Quoted for a shell where it must be, and only there.
        if [[ "$word" =~ ^[[:alnum:]_./:=~@%+,-]+$ ]]; then line+=" $word"; else line+=" ${word@Q}"; fi
    done
    printf '%s$%s%s\n' "$bold" "$line" "$plain"
    "$@"
}

choose_default_sources() {
    local place size total=0
    for place in /usr/share/doc /usr/include /usr/lib/python3* /usr/share/man /usr/share/perl \
        /usr/share/locale /usr/share/zoneinfo /usr/lib/x86_64-linux-gnu/perl* /usr/share; do
        [[ -d "$place" && ! -L "$place" ]] || continue
        ((total < 250)) || break
        # /usr/share holds others of the list; it is the last resort of a small system.
        [[ "$place" == /usr/share ]] && sources=()
        size=$(du -sm "$place" 2>/dev/null | cut -f 1)
        sources+=("$place")
        total=$((total + size))
    done
}

sources=()
if [[ -n "${SOURCE:-}" ]]; then
    [[ -d "$SOURCE" ]] || { echo "demo: SOURCE is not a directory: $SOURCE" >&2; exit 1; }
    sources=("$(cd "$SOURCE" && pwd)")
else
    choose_default_sources
fi
((${#sources[@]})) || { echo 'demo: nothing to copy was found; say SOURCE=DIRECTORY' >&2; exit 1; }

# Room: the copy, two plain copies of its states, two restored trees, and a repository.
temporary=${TMPDIR:-/tmp}
megabytes=$(du -scm -- "${sources[@]}" 2>/dev/null | tail -n 1 | cut -f 1)
free=$(df -Pm -- "$temporary" | awk 'NR == 2 { print $4 }')
needed=$((megabytes * 6 + 200))
title "A copy of ${sources[*]}: $megabytes MB; this needs $needed MB in $temporary, where $free MB are free"
if ((free < needed)); then
    echo "demo: too little room; set TMPDIR to a larger place or SOURCE to a smaller directory" >&2
    exit 1
fi

# The real path, since snapshots hold real paths.
work=$(cd "$(mktemp -d "$temporary/batchsync-demo.XXXXXX")" && pwd -P)
# Called by the trap below.
# shellcheck disable=SC2317
clean_up() {
    local status=$?
    trap - EXIT INT TERM HUP
    cd /
    if [[ -n "${KEEP:-}" ]]; then
        printf '\nKept in %s\n' "$work"
    else
        chmod -R u+rwX "$work" 2>/dev/null || true
        rm -rf -- "$work"
        ((status == 0)) && printf '\n%sEverything in %s was removed (KEEP=1 keeps it)%s\n' "$dim" "$work" "$plain"
    fi
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

cd "$work"
# Keys, caches and state of this demonstration stay out of the user's own.
export BATCHSYNC_CONFIG_DIR=$work/host/config BATCHSYNC_CACHE_DIR=$work/host/cache \
    BATCHSYNC_STATE_DIR=$work/host/state
PATH=$(cd "$(dirname "$binary")" && pwd):$PATH
export PATH

mkdir data
for source in "${sources[@]}"; do
    # A file that this user may not read is left out; cp says so.
    if ((${#sources[@]} == 1)); then
        cp -a -- "$source/." data/ || true
    else
        (cd / && cp -a --parents -- "${source#/}" "$work/data/") || true
    fi
done
echo "copied to $work/data"

title 'A repository, encrypted with a passphrase'
(umask 077 && head -c 24 /dev/urandom | base64 >passphrase)
printf '%s$ head -c 24 /dev/urandom | base64 > passphrase%s\n' "$bold" "$plain"
show batchsync init -r repository --passphrase-file passphrase

title 'The first backup; it needs no passphrase'
show batchsync backup -r repository data
cp -a data plain-1

title 'The copy changes'
mapfile -d '' -t files < <(find data -type f -size +1k -links 1 -print0 | LC_ALL=C sort -z |
    awk 'BEGIN { RS = ORS = "\0" } { all[NR] = $0 } END { step = NR > 6 ? int(NR / 6) : 1
        for (i = 1; i <= NR && n < 6; i += step) { n++; print all[i] } }')
((${#files[@]} > 0)) && show sh -c "echo 'one more line' >> \"\$1\"" edit "${files[0]}"
((${#files[@]} > 1)) && show rm "${files[1]}"
((${#files[@]} > 2)) && show mv "${files[2]}" "${files[2]}.renamed"
((${#files[@]} > 3)) && show chmod 600 "${files[3]}"
((${#files[@]} > 4)) && show ln "${files[4]}" data/hard-link
show sh -c 'head -c 3000000 /dev/urandom > data/new-file'
show truncate -s 50M data/sparse-file
show dd if=/dev/urandom of=data/sparse-file bs=4096 seek=5000 count=3 conv=notrunc status=none
show ln -s new-file data/symbolic-link
if command -v setfattr >/dev/null && setfattr -n user.origin -v demo data/new-file 2>/dev/null; then
    printf '%s$ setfattr -n user.origin -v demo data/new-file%s\n' "$bold" "$plain"
fi
if command -v setfacl >/dev/null && setfacl -m u:1:r data/new-file 2>/dev/null; then
    printf '%s$ setfacl -m u:1:r data/new-file%s\n' "$bold" "$plain"
fi
cp -a data plain-2

title 'The second backup reads and stores what changed'
show batchsync backup -r repository data

title 'What there is, and what changed between the two'
show batchsync snapshots -r repository
export BATCHSYNC_PASSPHRASE
BATCHSYNC_PASSPHRASE=$(<passphrase)
# shellcheck disable=SC2016
printf '%s$ export BATCHSYNC_PASSPHRASE=$(cat passphrase)%s\n' "$bold" "$plain"
show batchsync diff latest~1 latest -r repository

title 'Both states are restored and compared with plain copies'
show batchsync restore "latest~1:$work/data" --target restored-1 -r repository
show batchsync restore latest --target restored-2 -r repository
different=0
# What is in data went into restored-1, which itself is a directory of its own.
show "$scripts/compare-trees.py" --no-root plain-1 restored-1 || different=1
show "$scripts/compare-trees.py" plain-2 "restored-2$work/data" || different=1

title 'Is everything there, and is every byte of it what it was?'
show batchsync verify -r repository
show batchsync verify --read-data -r repository
show batchsync stats -r repository
show du -sh data repository

if ((different)); then
    printf '\n%sThe restored trees differ from the plain copies; see above%s\n' "$bold" "$plain"
    exit 1
fi
title 'Both restored trees are the same as the plain copies, byte for byte and attribute for attribute'
