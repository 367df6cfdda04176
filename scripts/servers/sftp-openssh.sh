#!/usr/bin/env bash
# OpenSSH's sshd on loopback, with keys and configuration of its own. Debian: openssh-server.
#
#   sftp-openssh.sh start|stop|status|env STATE_DIR [OPTIONS]
#
#   --mode plain         what an account on a server is (the default)
#   --mode sftp-only     the account may not run commands
#   --mode readonly      nothing may be written
#   --mode chroot        jailed, as a dedicated backup user is; root only
#   --mode full          the data lie on a file system of --size bytes (4m); root only
#   --deny REQUEST,...   requests that are refused, such as posix-rename,fsync (see sftp-server -P)
#   --config LINE        one more line of sshd_config, such as "MaxStartups 2:100:2"
#   --data DIRECTORY     what is served
#
# SFTP_SSH_CONFIG names a client configuration in which the host `store` is this server:
#   ssh -F "$SFTP_SSH_CONFIG" -s store sftp
# With --mode full and chroot, SFTP_DATA_DIR is seen from outside through the server's own
# namespace, which is gone when the server is.
. "$(dirname "$0")/common.sh"
begin "$@"
shift 2

mode=plain size=4m deny='' data=$state/data more=()
while (($#)); do
    case "$1" in
    --mode) mode=$2 ;;
    --size) size=$2 ;;
    --deny) deny=$2 ;;
    --config) more+=("$2") ;;
    --data) data=$2 ;;
    *) fail "there is no option '$1'" ;;
    esac
    shift 2
done

sshd=$(PATH=$PATH:/usr/sbin command -v sshd) ||
    unavailable 'sshd is not installed: apt-get install openssh-server'
command -v ssh >/dev/null || unavailable 'ssh is not installed: apt-get install openssh-client'
user=$(id -un)
if ((EUID == 0)); then
    # sshd wants this directory for its unprivileged half; where no init system is, nobody made it.
    mkdir -p /run/sshd
    if getent shadow root | grep -q '^root:!'; then
        unavailable "root's account is locked and sshd would refuse it: usermod -p '*' root"
    fi
fi

for name in host user; do
    [[ -s "$state/$name.key" ]] || ssh-keygen -q -t ed25519 -N '' -C "$name" -f "$state/$name.key"
done
install -m 600 "$state/user.key.pub" "$state/authorized_keys"
mkdir -p "$data"

subsystem=internal-sftp path=$data enter=()
[[ -z "$deny" ]] || subsystem+=" -P $deny"
case "$mode" in
plain) ;;
sftp-only) more+=("ForceCommand $subsystem") ;;
readonly) subsystem+=' -R' && more+=("ForceCommand $subsystem") ;;
chroot | full)
    ((EUID == 0)) || unavailable "--mode $mode needs root"
    # A namespace of its own: what is mounted there goes when the server goes, however it ends.
    enter=(unshare --mount sh -ec)
    if [[ "$mode" == full ]]; then
        # The script of the inner shell; its arguments are its own.
        # shellcheck disable=SC2016
        enter+=('mount --make-rprivate /; mount -t tmpfs -o "size=$1,mode=700" full "$2"
            shift 2; exec "$@"' sh "$size" "$data")
    else
        # sshd wants every directory above a jail to be root's and writable by nobody else.
        path=/data
        # shellcheck disable=SC2016
        enter+=('mount --make-rprivate /; mount -t tmpfs -o mode=755 jail /run/sshd
            mkdir /run/sshd/data; mount --bind "$1" /run/sshd/data; shift; exec "$@"' sh "$data")
        more+=('ChrootDirectory /run/sshd' "ForceCommand $subsystem")
    fi
    ;;
*) fail "there is no mode '$mode'" ;;
esac

listen_on() {
    cat >"$state/sshd_config" <<CONFIGURATION
Port $1
ListenAddress 127.0.0.1
HostKey $state/host.key
AuthorizedKeysFile $state/authorized_keys
PidFile none
AuthenticationMethods publickey
PermitRootLogin prohibit-password
AllowUsers $user
UsePAM no
# The state directory may lie below a world-writable one, as /tmp is.
StrictModes no
PrintMotd no
Subsystem sftp $subsystem
$(printf '%s\n' "${more[@]}")
CONFIGURATION
    "$sshd" -t -f "$state/sshd_config" &&
        supervise start --port "$1" -- "${enter[@]}" "$sshd" -D -e -f "$state/sshd_config"
}
start_on_free_port
host_key=$(cut -d ' ' -f 1,2 "$state/host.key.pub")
# Under the name `store` it is known behind a proxy as well, which has another port.
printf '%s\n' "[127.0.0.1]:$port $host_key" "store $host_key" >"$state/known_hosts"
cat >"$state/ssh_config" <<CONFIGURATION
Host store
    HostName 127.0.0.1
    HostKeyAlias store
    Port $port
    User $user
    IdentityFile $state/user.key
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile $state/known_hosts
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    BatchMode yes
CONFIGURATION
seen=$data
if ((${#enter[@]})); then
    read -r supervisor <"$state/server.pid"
    # sshd has taken the place of the shell that mounted; it is the supervisor's only child.
    seen=/proc/$(pgrep -P "$supervisor" | head -n 1)/root$data
fi
publish 'SFTP_HOST=127.0.0.1' "SFTP_PORT=$port" "SFTP_USER=$user" "SFTP_PATH=$path" \
    "SFTP_DATA_DIR=$seen" "SFTP_SSH_CONFIG=$state/ssh_config" "SFTP_KEY_FILE=$state/user.key" \
    "SFTP_KNOWN_HOSTS=$state/known_hosts" "SFTP_SERVER_LOG=$state/server.log"
