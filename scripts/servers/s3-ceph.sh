#!/usr/bin/env bash
# A Ceph RADOS Gateway over one monitor and one object daemon that keeps its data in memory.
# Debian: radosgw ceph-mon ceph-osd (scripts/install-dependencies.sh ceph).
#
#   s3-ceph.sh start|stop|status|env STATE_DIR [--tls] [--size BYTES]
#
# A stopped cluster has lost its objects; start it in a fresh directory.
. "$(dirname "$0")/common.sh"
# The gateway goes before what it stands on.
processes=(gateway osd mon)
begin "$@"
shift 2

tls='' size=$((4 << 30))
while (($#)); do
    case "$1" in
    --tls) tls=1 ;;
    --size) size=$2 && shift ;;
    *) fail "there is no option '$1'" ;;
    esac
    shift
done

for program in ceph-mon ceph-osd radosgw radosgw-admin monmaptool ceph; do
    command -v "$program" >/dev/null ||
        unavailable "this machine cannot run Ceph, which is not installed: make test-ceph says why"
done
[[ -e "$state/ceph.conf" ]] && fail "$state held a cluster already; start this one in a fresh directory"

# Ports of the monitor, which does not take 0 for any free one.
read -r port_2 port_1 < <(python3 -c 'import socket
sockets = [socket.socket() for _ in range(2)]
for s in sockets:
    s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in sockets))')
cluster=$(cat /proc/sys/kernel/random/uuid)
address="[v2:127.0.0.1:$port_2,v1:127.0.0.1:$port_1]"
cat >"$state/ceph.conf" <<CONFIGURATION
[global]
fsid = $cluster
mon_host = $address
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
# Without cephx there is no key to encrypt with; a gateway that still wants it waits for ever.
ms_mon_client_mode = crc
run_dir = $state
# The path of a socket in a deep state directory would be too long.
admin_socket =
log_file = $state/\$name.log
crash_dir = $state
# One copy on the one daemon that there is.
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_crush_chooseleaf_type = 0
osd_pool_default_pg_num = 4
osd_pool_default_pgp_num = 4
osd_pool_default_pg_autoscale_mode = off
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
# How full the machine's own disk is concerns no test.
mon_data_avail_crit = 1
mon_osd_nearfull_ratio = .95
mon_osd_backfillfull_ratio = .96
mon_osd_full_ratio = .97
[mon]
mon_data = $state/mon
mon_cluster_log_file = $state/cluster.log
[osd]
osd_data = $state/osd
osd_objectstore = memstore
memstore_device_bytes = $size
[client]
rgw_data = $state/gateway
rgw_rados_pool_pg_num_min = 4
rgw_enable_usage_log = false
rgw_thread_pool_size = 64
rgw_dns_name = localhost
CONFIGURATION
mkdir -p "$state/mon" "$state/osd" "$state/gateway"
configured=(--conf "$state/ceph.conf")

# set_up WHAT COMMAND...: one step, whose words are only of interest where it fails.
set_up() {
    local what=$1
    shift
    timeout 120 "$@" >>"$state/setup.log" 2>&1 || {
        tail -n 5 "$state/setup.log" >&2
        fail "$what failed; see $state/setup.log"
    }
}

set_up 'the map of monitors' monmaptool --create --clobber --fsid "$cluster" \
    --addv a "$address" "$state/monmap"
set_up 'making the monitor' ceph-mon "${configured[@]}" --mkfs -i a --monmap "$state/monmap"
supervise start --name mon -- ceph-mon "${configured[@]}" -f -i a
set_up 'asking the monitor' ceph "${configured[@]}" --connect-timeout 60 mon stat
disk=$(cat /proc/sys/kernel/random/uuid)
set_up 'announcing the object daemon' ceph "${configured[@]}" osd new "$disk" 0
set_up 'making the object daemon' ceph-osd "${configured[@]}" -i 0 --mkfs --osd-uuid "$disk"
supervise start --name osd -- ceph-osd "${configured[@]}" -f -i 0

# The account comes first: making it makes the pools, which the gateway then finds. Its keys are
# chosen by Ceph: arguments can be read by everybody.
(
    umask 077
    timeout 120 radosgw-admin "${configured[@]}" user create --uid tester --display-name tester \
        >"$state/account" 2>>"$state/setup.log"
) || fail "making an account failed; see $state/setup.log"
read -r access_key secret_key < <(python3 -c 'import json, sys
key = json.load(sys.stdin)["keys"][0]
print(key["access_key"], key["secret_key"])' <"$state/account")

scheme=http trust=()
if [[ -n "$tls" ]]; then
    "$servers/certificates.sh" "$state"
    scheme=https trust=("S3_CA_FILE=$state/ca.pem")
fi
listen_on() {
    local where="endpoint=127.0.0.1:$1"
    [[ -z "$tls" ]] || where="ssl_endpoint=127.0.0.1:$1 ssl_certificate=$state/server.pem ssl_private_key=$state/server.key"
    supervise start --name gateway --port "$1" --seconds 120 -- \
        radosgw "${configured[@]}" -f --name client.rgw --rgw-frontends "beast $where"
}
start_on_free_port
[[ -x "$python_programs/python" ]] ||
    unavailable "the tests' Python packages are not installed: scripts/install-dependencies.sh test"
"$python_programs/python" - "$scheme://127.0.0.1:$port" "$state/account" "$state/ca.pem" <<'PYTHON'
import json, sys
import boto3
endpoint, account, ca = sys.argv[1:]
key = json.load(open(account))["keys"][0]
boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1",
             aws_access_key_id=key["access_key"], aws_secret_access_key=key["secret_key"],
             verify=ca if endpoint.startswith("https") else None).create_bucket(Bucket="test")
PYTHON
publish "S3_ENDPOINT=$scheme://127.0.0.1:$port" "S3_ACCESS_KEY=$access_key" \
    "S3_SECRET_KEY=$secret_key" 'S3_REGION=us-east-1' S3_BUCKET=test "${trust[@]}"
