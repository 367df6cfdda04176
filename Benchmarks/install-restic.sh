#!/usr/bin/env bash
# Puts the newest restic that this machine's own Debian mirror offers, in this suite or a later one,
# below DIRECTORY, without touching the system: a private apt configuration, apt-get download, dpkg -x.
#
#   Benchmarks/install-restic.sh DIRECTORY       prints the path of the binary
set -euo pipefail

directory=${1:?say where to put restic}
binary="$directory/usr/bin/restic"
if [[ -x "$binary" ]]; then
    echo "$binary"
    exit 0
fi

# Where this machine fetches Debian from; nothing here knows a host by name.
find_mirror() {
    # shellcheck disable=SC2016
    apt-get indextargets --format '$(ORIGIN)|$(COMPONENT)|$(CODENAME)|$(REPO_URI)' 2>/dev/null |
        awk -F'|' '$1 == "Debian" && $2 == "main" && $3 !~ /-/ { print $4; exit }'
}
mirror=$(find_mirror)
if [[ -z "$mirror" ]]; then
    # No package list has been fetched yet on this machine.
    if ((EUID == 0)); then apt-get update -qq >&2 || true; else sudo -n apt-get update -qq >&2 || true; fi
    mirror=$(find_mirror)
fi
if [[ -z "$mirror" ]]; then
    echo 'install-restic: apt knows no Debian mirror on this machine' >&2
    exit 1
fi

private=$(mktemp -d)
trap 'rm -rf "$private"' EXIT
mkdir -p "$private"/{lists/partial,cache/archives/partial,etc,download,none} "$directory"
chmod -R go+rX "$private"
options=(
    -o "Dir::Etc::SourceList=$private/etc/sources.list" -o "Dir::Etc::SourceParts=$private/none"
    -o "Dir::Etc::Preferences=$private/none.pref" -o "Dir::Etc::PreferencesParts=$private/none"
    -o "Dir::State::Lists=$private/lists" -o "Dir::Cache=$private/cache"
    -o "Dir::State::status=/var/lib/dpkg/status" -o APT::Sandbox::User=root
    -o Acquire::Languages=none -o APT::Get::List-Cleanup=0
)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
for suite in unstable testing stable oldstable; do
    echo "deb [signed-by=$keyring] $mirror $suite main" >"$private/etc/sources.list"
    apt-get -qq "${options[@]}" update >&2 || continue
    (cd "$private/download" && apt-get -qq "${options[@]}" download "restic/$suite" >&2) || continue
    package=$(find "$private/download" -name 'restic_*.deb' | head -n 1)
    [[ -n "$package" ]] || continue
    rm -rf "${directory:?}/usr"
    dpkg -x "$package" "$directory"
    rm -f "$package"
    # A newer suite's binary is of use only if it runs on this one.
    if "$binary" version >&2; then
        echo "$binary"
        exit 0
    fi
    rm -rf "${directory:?}/usr"
done
echo 'install-restic: the mirror offers no restic that runs here' >&2
exit 1
