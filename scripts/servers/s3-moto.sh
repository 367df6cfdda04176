#!/usr/bin/env bash
# moto's S3: widely used in tests, keeps everything in memory, checks no signature. From PyPI: moto.
#
#   s3-moto.sh start|stop|status|env STATE_DIR [--tls]
. "$(dirname "$0")/common.sh"
begin "$@"
shift 2

tls=''
while (($#)); do
    case "$1" in
    --tls) tls=1 ;;
    *) fail "there is no option '$1'" ;;
    esac
    shift
done

[[ -x "$python_programs/moto_server" ]] ||
    unavailable 'moto is not installed: scripts/install-dependencies.sh test'
make_s3_keys
scheme=http trust=() more=()
if [[ -n "$tls" ]]; then
    "$servers/certificates.sh" "$state"
    more=(-c "$state/server.pem" -k "$state/server.key")
    scheme=https trust=("S3_CA_FILE=$state/ca.pem")
fi

listen_on() {
    supervise start --port "$1" -- "$python_programs/python" -B "$python_programs/moto_server" \
        -H 127.0.0.1 -p "$1" "${more[@]}"
}
start_on_free_port
python3 - "$scheme://127.0.0.1:$port/test" "$state/ca.pem" <<'PYTHON'
import ssl, sys, urllib.request
url, ca = sys.argv[1:]
context = ssl.create_default_context(cafile=ca) if url.startswith("https") else None
urllib.request.urlopen(urllib.request.Request(url, method="PUT"), context=context).read()
PYTHON
publish "S3_ENDPOINT=$scheme://127.0.0.1:$port" "S3_ACCESS_KEY=$access_key" \
    "S3_SECRET_KEY=$secret_key" 'S3_REGION=us-east-1' S3_BUCKET=test "${trust[@]}"
