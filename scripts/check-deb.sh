#!/usr/bin/env bash
# Installs, runs and purges a package of batchsync in a scratch root, and asks lintian about it.
#
#   scripts/check-deb.sh PACKAGE
#
# Needs root, for the scratch root. Exits with 0 where everything is as it should be.
set -euo pipefail

package=$(realpath "$1")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

fail() {
    printf 'check-deb: %s\n' "$1" >&2
    exit 1
}

if command -v lintian > /dev/null; then
    lintian --allow-root --fail-on error "$package" || fail "lintian found errors"
else
    echo "check-deb: skipped: there is no lintian (package lintian)"
fi

admin="$scratch/var/lib/dpkg"
mkdir -p "$admin/info" "$admin/updates" "$admin/triggers"
touch "$admin/status" "$admin/available"
in_root() {
    # The libraries are this system's: an empty root has no package that could hold them.
    dpkg --root="$scratch" --force-depends --force-script-chrootless --log=/dev/null "$@" > /dev/null 2> "$scratch.log" ||
        { cat "$scratch.log" >&2; rm -f "$scratch.log"; fail "dpkg $1 failed"; }
    rm -f "$scratch.log"
}
in_root --install "$package"

"$scratch/usr/bin/batchsync" --version > /dev/null || fail "the installed command does not run"
for file in share/man/man1/batchsync.1.gz share/man/man5/batchsync-profile.5.gz \
    share/man/man7/batchsync-recovery.7.gz share/bash-completion/completions/batchsync \
    lib/systemd/system/batchsync@.service lib/systemd/system/batchsync@.timer \
    share/zsh/vendor-completions/_batchsync share/fish/vendor_completions.d/batchsync.fish \
    share/doc/batchsync/copyright share/doc/batchsync/profiles/reference.toml; do
    [[ -s "$scratch/usr/$file" ]] || fail "the package has no /usr/$file"
done

grep -q '^ExecStart=/usr/bin/batchsync run ' "$scratch/usr/lib/systemd/system/batchsync@.service" ||
    fail "the unit does not run the installed command"

# A backup and its way back, by the command that was installed.
world="$scratch/world"
mkdir -p "$world/data"
echo hello > "$world/data/file"
export BATCHSYNC_CONFIG_DIR="$world/config" BATCHSYNC_CACHE_DIR="$world/cache" \
    BATCHSYNC_STATE_DIR="$world/state" BATCHSYNC_REPOSITORY="$world/repository" \
    BATCHSYNC_PASSPHRASE=check
"$scratch/usr/bin/batchsync" init > /dev/null
"$scratch/usr/bin/batchsync" backup --quiet "$world/data"
"$scratch/usr/bin/batchsync" restore latest --target "$world/back" > /dev/null
[[ "$(find "$world/back" -name file -exec cat {} +)" == hello ]] || fail "what was restored differs"

mkdir -p "$scratch/var/cache/batchsync" "$scratch/var/lib/batchsync" "$scratch/etc/batchsync/keys"
in_root --purge batchsync
rm -rf "$world"
left=$(find "$scratch" ! -type d ! -path "$admin/*")
[[ -z "$left" ]] || fail "purging left: $left"
[[ ! -e "$scratch/var/cache/batchsync" && ! -e "$scratch/var/lib/batchsync" ]] ||
    fail "purging left what the host kept of its own"
[[ -d "$scratch/etc/batchsync/keys" ]] || fail "purging removed the keys of the host"
echo "check-deb: installs, runs and purges cleanly"
