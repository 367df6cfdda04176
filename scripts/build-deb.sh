#!/usr/bin/env bash
# Builds a Debian package of what `make install` puts in place.
#
#   scripts/build-deb.sh TREE DIRECTORY      TREE was filled by: make install PREFIX=/usr DESTDIR=TREE
#
# Writes DIRECTORY/batchsync_VERSION_ARCHITECTURE.deb and says so. TREE is changed on the way.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tree=$(realpath "$1")
mkdir -p "$2"
output=$(realpath "$2")

version=$("$tree/usr/bin/batchsync" --version)
architecture=$(dpkg --print-architecture)
# The same sources give the same package.
SOURCE_DATE_EPOCH=$(git -C "$root" log -1 --format=%ct 2>/dev/null || stat -c %Y "$root/README.md")
export SOURCE_DATE_EPOCH
date=$(date --utc --rfc-email --date="@$SOURCE_DATE_EPOCH")
maintainer="The batchsync project <maintainers@batchsync.example.org>"
doc="$tree/usr/share/doc/batchsync"

# What Debian wants in another place or form than other systems.
strip --strip-unneeded --remove-section=.comment --remove-section=.note "$tree/usr/bin/batchsync"
rm -f "$doc/LICENSE"
mv "$doc/CHANGELOG.md" "$doc/changelog"
find "$tree/usr/share/man" -type f ! -name '*.gz' -exec gzip --best --no-name {} +
gzip --best --no-name --force "$doc/changelog"
mkdir -p "$tree/usr/share/zsh/vendor-completions"
mv "$tree/usr/share/zsh/site-functions/_batchsync" "$tree/usr/share/zsh/vendor-completions/"
rmdir "$tree/usr/share/zsh/site-functions"
# It is read by a shell and never run.
sed -i '1{/^#!/d}' "$tree/usr/share/bash-completion/completions/batchsync"
gzip --best --no-name --stdout > "$doc/changelog.Debian.gz" << END
batchsync ($version-1) unstable; urgency=medium

  * The changes are in changelog.gz.

 -- $maintainer  $date
END
cat > "$doc/copyright" << 'END'
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: batchsync

Files: *
Copyright: 2026 The batchsync project
License: Apache-2.0

License: Apache-2.0
 On Debian systems the full text of the Apache License 2.0 is in
 /usr/share/common-licenses/Apache-2.0.
END
find "$tree/usr/share" "$tree/usr/lib" -type f -exec chmod 644 {} +
find "$tree" -type d -exec chmod 755 {} +

# The libraries that the command was linked with, by the packages that hold them.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/debian"
printf 'Source: batchsync\nMaintainer: %s\n\nPackage: batchsync\nArchitecture: any\n' "$maintainer" \
    > "$scratch/debian/control"
libraries=$(cd "$scratch" && dpkg-shlibdeps -O --ignore-missing-info "$tree/usr/bin/batchsync" 2> /dev/null |
    sed -n 's/^shlibs:Depends=//p')

mkdir -p "$tree/DEBIAN"
cat > "$tree/DEBIAN/control" << END
Package: batchsync
Version: $version-1
Section: admin
Priority: optional
Architecture: $architecture
Maintainer: $maintainer
Installed-Size: $(du --summarize --apparent-size --block-size=1024 "$tree" | cut -f1)
Depends: $libraries
Recommends: openssh-client
Suggests: age, python3, zstd
Description: encrypted, deduplicated backups of directories
 batchsync backs up directories every night: it walks them, stores what
 changed in compressed, encrypted bundles in a repository, and brings back
 any earlier snapshot. A repository lies in a directory, on an SFTP server
 or in S3-compatible storage, and opens without batchsync too, by tar, zstd
 and age.
END
# Schedules run a program that is gone when the package is; what a host keeps of its own goes only
# when it is asked to. Keys are never removed: nobody else may have them.
cat > "$tree/DEBIAN/prerm" << 'END'
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -z "${DPKG_ROOT:-}" ]; then
    for timer in /etc/systemd/system/batchsync-*.timer; do
        [ -e "$timer" ] || continue
        grep -q "^# Made by 'batchsync schedule install'" "$timer" || continue
        if [ -d /run/systemd/system ]; then
            systemctl disable --now "${timer##*/}" || true
        fi
    done
    # Those of the template, which goes with the package and would leave its links behind.
    for link in /etc/systemd/system/*.wants/batchsync@*.timer; do
        [ -L "$link" ] || continue
        if [ -d /run/systemd/system ]; then
            systemctl disable --now "${link##*/}" || true
        fi
        rm -f "$link"
    done
    # Crontabs belong to their users.
    for crontab in /var/spool/cron/crontabs/*; do
        [ -f "$crontab" ] || continue
        grep -q '# batchsync schedule ' "$crontab" || continue
        echo "batchsync: the crontab of ${crontab##*/} still runs it: take its lines out with 'crontab -e'" >&2
    done
fi
END
cat > "$tree/DEBIAN/postrm" << 'END'
#!/bin/sh
set -e
if [ "$1" = purge ]; then
    rm -rf "${DPKG_ROOT:-}/var/cache/batchsync" "${DPKG_ROOT:-}/var/lib/batchsync"
    if [ -d "${DPKG_ROOT:-}/etc/systemd/system" ]; then
        for unit in "${DPKG_ROOT:-}"/etc/systemd/system/batchsync-*.timer \
            "${DPKG_ROOT:-}"/etc/systemd/system/batchsync-*.service; do
            [ -e "$unit" ] || continue
            grep -q "^# Made by 'batchsync schedule install'" "$unit" || continue
            rm -f "$unit"
        done
    fi
fi
END
chmod 755 "$tree/DEBIAN/prerm" "$tree/DEBIAN/postrm"
(cd "$tree" && find usr -type f -printf '%P\0' | sort --zero-terminated |
    sed --null-data 's,^,usr/,' | xargs --null md5sum) > "$tree/DEBIAN/md5sums"
package="$output/batchsync_$version-1_$architecture.deb"
dpkg-deb --root-owner-group --build "$tree" "$package" > /dev/null
echo "$package"
