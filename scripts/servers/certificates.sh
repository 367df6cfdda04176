#!/usr/bin/env bash
# A private certificate authority, and a server certificate that it signed.
#
#   certificates.sh DIRECTORY [NAME...]
#
# Makes DIRECTORY/ca.pem for clients, and DIRECTORY/server.pem (with the CA behind it) and
# DIRECTORY/server.key for a server on 127.0.0.1, localhost, *.localhost and the NAMEs. What is there
# already stays. The CA's own key is thrown away: nobody can sign anything else with it.
set -euo pipefail

directory=$1
shift
mkdir -p "$directory"
cd "$directory"
[[ -s server.pem && -s server.key && -s ca.pem ]] && exit 0
command -v openssl >/dev/null || {
    echo 'certificates.sh: openssl is not installed: apt-get install openssl' >&2
    exit 1
}

names='IP:127.0.0.1,DNS:localhost,DNS:*.localhost'
for name in "$@"; do names+=",DNS:$name"; done
umask 077
work=$(mktemp -d "$PWD/making.XXXXXX")
trap 'rm -rf "$work"' EXIT
make_key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
{
    openssl req -x509 "${make_key[@]}" -keyout "$work/ca.key" -out "$work/ca.pem" -days 30 \
        -subj '/CN=batchsync test authority' -addext basicConstraints=critical,CA:TRUE \
        -addext keyUsage=critical,keyCertSign,cRLSign
    openssl req "${make_key[@]}" -keyout "$work/server.key" -out "$work/request" \
        -subj '/CN=localhost'
    openssl x509 -req -in "$work/request" -CA "$work/ca.pem" -CAkey "$work/ca.key" \
        -CAcreateserial -days 30 -out "$work/server.crt" -extfile <(
            printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\n' "$names"
        )
} 2>"$work/said" || {
    cat "$work/said" >&2
    exit 1
}
cat "$work/server.crt" "$work/ca.pem" >"$work/server.pem"
mv "$work/server.key" "$work/server.pem" "$work/ca.pem" .
