#!/usr/bin/env bash
# Installs what building, testing or measuring batchsync needs on Debian, and nothing that is there.
#
#   scripts/install-dependencies.sh KIND...      KIND is build, demo, test, ceph, lint, bench, deb or deb-check
#
# Asks no questions. Uses sudo only when it is not root. Where it may not install, or cannot, it
# names the packages that are missing and stops. Python packages go into a virtual environment
# below .build, never into the system.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# libarchive writes the tar entries, libzstd the frames, libxxhash the fingerprints; libcurl carries
# what goes over a network.
build_packages=(pkg-config libcurl4-openssl-dev libarchive-dev libzstd-dev libxxhash-dev)
# The demonstration compares trees with a script, and sets an ACL and an attribute.
demo_packages=(python3 acl attr)
# The tests let other people's tools open what batchsync wrote, make every kind of file, and store
# to servers that they start.
test_packages=(age zstd tar xz-utils mandoc mtree-netbsd libarchive-tools acl attr libcap2-bin
    e2fsprogs util-linux coreutils findutils diffutils procps strace python3 python3-venv openssh-server openssh-client openssl tzdata
    systemd)
# A distributed object store for the tests: some 290 MB.
ceph_packages=(radosgw ceph-mon ceph-osd)
lint_packages=(shellcheck mandoc)
deb_packages=(dpkg-dev binutils gzip)
deb_check_packages=(lintian)
# borg is built from source where there is no wheel for this machine.
bench_packages=(age zstd tar python3 python3-venv python3-dev build-essential pkg-config
    libacl1-dev libssl-dev liblz4-dev libzstd-dev libxxhash-dev)

fail() {
    printf 'install-dependencies: %s\n' "$1" >&2
    exit 1
}

is_installed() {
    [[ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" == installed ]]
}

install_packages() {
    local package missing=() as_root=()
    command -v dpkg-query >/dev/null ||
        fail "this is not Debian; install the equivalents of: $*"
    for package in "$@"; do
        is_installed "$package" || missing+=("$package")
    done
    ((${#missing[@]})) || return 0

    local remedy="install them with: apt-get install ${missing[*]}"
    if ((EUID != 0)); then
        command -v sudo >/dev/null ||
            fail "these packages are missing and only root can install them: ${missing[*]}
  $remedy"
        # -n: a script that stops at a password prompt has asked a question after all.
        sudo -n true 2>/dev/null ||
            fail "these packages are missing and sudo wants a password: ${missing[*]}
  $remedy"
        as_root=(sudo -n)
    fi
    echo "installing ${missing[*]}"
    # One unreachable source among several must not stop the rest; install decides.
    "${as_root[@]}" apt-get update -qq ||
        echo 'install-dependencies: the package lists could not all be refreshed; going on' >&2
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null ||
        fail "these packages could not be installed (is the network reachable?): ${missing[*]}
  $remedy"
}

# Makes .build/venv-KIND hold what scripts/requirements-KIND.txt pins; fetches only what differs.
install_python_packages() {
    local kind=$1 requirements="$root/scripts/requirements-$1.txt" environment="$root/.build/venv-$1"
    [[ -f "$requirements" ]] || return 0
    if [[ ! -x "$environment/bin/python" ]]; then
        mkdir -p "$root/.build"
        python3 -m venv "$environment" ||
            fail "no virtual environment could be made in $environment; install python3-venv"
    fi
    "$environment/bin/python" - "$requirements" <<'PYTHON' && return 0
import importlib.metadata, sys
for line in open(sys.argv[1]):
    name, _, version = line.partition("#")[0].strip().partition("==")
    if not name:
        continue
    try:
        # "moto[s3]" is the package moto with an extra.
        found = importlib.metadata.version(name.partition("[")[0])
    except importlib.metadata.PackageNotFoundError:
        sys.exit(1)
    if version and found != version:
        sys.exit(1)
PYTHON
    echo "installing $(grep -v '^#' "$requirements" | tr '\n' ' ')into $environment"
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check \
        --requirement "$requirements" ||
        fail "Python packages could not be installed (is the network reachable?): $(
            grep -v '^#' "$requirements" | tr '\n' ' ')"
}

(($#)) || fail 'say what for: build, demo, test, ceph, lint, bench, deb or deb-check'
for kind in "$@"; do
    case "$kind" in
    build)
        install_packages "${build_packages[@]}"
        command -v swift >/dev/null ||
            fail 'there is no swift command; install the Swift 6.3 toolchain and put it in PATH'
        ;;
    demo) install_packages "${demo_packages[@]}" ;;
    test) install_packages "${test_packages[@]}" ;;
    ceph) install_packages "${ceph_packages[@]}" ;;
    lint) install_packages "${lint_packages[@]}" ;;
    bench) install_packages "${bench_packages[@]}" ;;
    deb) install_packages "${deb_packages[@]}" ;;
    deb-check) install_packages "${deb_check_packages[@]}" ;;
    *) fail "there is no kind '$kind'; there are build, demo, test, ceph, lint, bench, deb and deb-check" ;;
    esac
    install_python_packages "$kind"
done
