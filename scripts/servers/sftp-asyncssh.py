#!/usr/bin/env python3
"""An SFTP server that is not OpenSSH's, and that can be told to fail. From PyPI: asyncssh.

    sftp-asyncssh.py start|stop|status|env STATE_DIR [OPTIONS]
    sftp-asyncssh.py tell STATE_DIR faults [NAME=VALUE...]     from now on these faults, no others
    sftp-asyncssh.py tell STATE_DIR fired                      how often each fault happened
    sftp-asyncssh.py tell STATE_DIR requests                   how often each request came

Faults, also to be given at the start as --fault NAME=VALUE:

    enospc-after=BYTES   writes are refused when so many bytes have been taken: no room
    eio-every=N          every Nth write fails: input/output error
    read-eio-every=N     every Nth read fails so
    drop-after=BYTES     the connection is cut after so many bytes were written, again and again
    drop-once=BYTES      the same, once
    read-drop-once=BYTES the connection is cut after so many bytes were read, once
    short-read=1         a read gives at most half of what was asked for
    slow=MILLISECONDS    reads and writes take that much longer
    refuse=N             the next N connections are closed before a word is said
    stall-once=BYTES     after so many bytes written, writes are not answered on that connection

With --password a client may also log in with the password that lies in SFTP_PASSWORD_FILE.
SFTP_SSH_CONFIG names a configuration for ssh in which the host `store` is this server.
"""

import sys

sys.dont_write_bytecode = True

import asyncio
import collections
import errno
import os
import secrets
import signal

import service

FAULTS = ("enospc-after", "eio-every", "read-eio-every", "drop-after", "drop-once",
          "read-drop-once", "short-read", "slow", "refuse", "stall-once")


def parse_faults(words):
    faults = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in FAULTS or not value.isdigit():
            raise ValueError(f"no such fault: {word}; there are {', '.join(FAULTS)}, with a number")
        faults[name] = int(value)
    return faults


class Script:
    """Which faults are in force, what they have counted, and how often each happened."""

    def __init__(self, faults):
        self.fired = collections.Counter()
        self.requests = collections.Counter()
        self.set(faults)

    def set(self, faults):
        self.faults, self.written, self.read = faults, 0, 0
        self.writes, self.reads, self.spent = 0, 0, set()
        self.fired.clear()
        self.refuse = faults.get("refuse", 0)

    def happens(self, name):
        self.fired[name] += 1

    def once(self, name, so_far):
        """Whether a fault that comes once after a count of bytes comes now."""
        if name in self.faults and name not in self.spent and so_far >= self.faults[name]:
            self.spent.add(name)
            self.happens(name)
            return True
        return False


def add_options(parser):
    parser.add_argument("--data", help="what is served; STATE_DIR/data where nothing is said")
    parser.add_argument("--drop-extensions", default="", metavar="NAME,...",
                        help="neither announced nor answered, such as posix-rename,fsync,limits; "
                        "'all' for every one")
    parser.add_argument("--fault", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--password", action="store_true")


def drop_extensions(names):
    from asyncssh.sftp import SFTPServerHandler as handler

    def is_dropped(extension):
        name = extension.split(b"@")[0].decode()
        return names == ["all"] or name in names

    handler._extensions = [pair for pair in handler._extensions if not is_dropped(pair[0])]
    handler._packet_handlers = {
        kind: function for kind, function in handler._packet_handlers.items()
        if not (isinstance(kind, bytes) and is_dropped(kind))}


def make_server_class(asyncssh, root, script):
    class FaultyServer(asyncssh.SFTPServer):
        def __init__(self, channel):
            super().__init__(channel, chroot=root)
            self.stalled = False

        def cut(self):
            self.channel.get_connection().abort()
            raise ConnectionResetError

        async def write(self, file, offset, data):
            script.requests["write"] += 1
            faults = script.faults
            if "slow" in faults:
                script.happens("slow")
                await asyncio.sleep(faults["slow"] / 1000)
            script.written += len(data)
            script.writes += 1
            if script.once("drop-once", script.written):
                self.cut()
            if "drop-after" in faults and script.written >= faults["drop-after"]:
                script.written = 0
                script.happens("drop-after")
                self.cut()
            if script.once("stall-once", script.written):
                self.stalled = True
            if self.stalled:
                await asyncio.sleep(3600)
            if "enospc-after" in faults and script.written > faults["enospc-after"]:
                script.happens("enospc-after")
                raise OSError(errno.ENOSPC, "No space left on device")
            if "eio-every" in faults and script.writes % faults["eio-every"] == 0:
                script.happens("eio-every")
                raise OSError(errno.EIO, "Input/output error")
            return super().write(file, offset, data)

        async def read(self, file, offset, size):
            script.requests["read"] += 1
            faults = script.faults
            if "slow" in faults:
                script.happens("slow")
                await asyncio.sleep(faults["slow"] / 1000)
            script.reads += 1
            script.read += size
            if script.once("read-drop-once", script.read):
                self.cut()
            if "read-eio-every" in faults and script.reads % faults["read-eio-every"] == 0:
                script.happens("read-eio-every")
                raise OSError(errno.EIO, "Input/output error")
            if "short-read" in faults and size > 1:
                script.happens("short-read")
                size //= 2
            return super().read(file, offset, size)

    # What else a client asks for is counted and passed on.
    def counted(name):
        original = getattr(asyncssh.SFTPServer, name)

        def request(self, *arguments):
            script.requests[name] += 1
            return original(self, *arguments)
        return request

    for name in ("open", "close", "stat", "lstat", "fstat", "setstat", "lsetstat", "fsetstat",
                 "scandir", "remove", "mkdir", "rmdir", "realpath", "rename", "posix_rename",
                 "statvfs", "fsync", "link", "symlink", "readlink"):
        setattr(FaultyServer, name, counted(name))
    return FaultyServer


def make_keys(asyncssh, state):
    for name in ("host", "user"):
        path = os.path.join(state, f"{name}.key")
        if not os.path.exists(path):
            key = asyncssh.generate_private_key("ssh-ed25519")
            with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
                file.write(key.export_private_key())
            key.write_public_key(path + ".pub")


async def serve_for_good(options, state):
    import asyncssh
    root = os.fsencode(os.path.realpath(options.data or os.path.join(state, "data")))
    os.makedirs(root, exist_ok=True)
    make_keys(asyncssh, state)
    script = Script(parse_faults(options.fault))
    if options.drop_extensions:
        drop_extensions(options.drop_extensions.split(","))
    password = secrets.token_urlsafe(12) if options.password else None

    class Login(asyncssh.SSHServer):
        def connection_made(self, connection):
            if script.refuse > 0:
                script.refuse -= 1
                script.happens("refuse")
                connection.abort()

        def password_auth_supported(self):
            return password is not None

        def validate_password(self, username, offered):
            return username == "tester" and secrets.compare_digest(offered, password)

    server = await asyncssh.listen(
        "127.0.0.1", 0, server_factory=Login, server_host_keys=[f"{state}/host.key"],
        authorized_client_keys=f"{state}/user.key.pub", encoding=None,
        sftp_factory=make_server_class(asyncssh, root, script))
    port = server.get_port()
    with open(f"{state}/host.key.pub", encoding="ascii") as file:
        host_key = " ".join(file.read().split()[:2])
    with open(f"{state}/known_hosts", "w", encoding="ascii") as file:
        # Under the name `store` it is known behind a proxy as well, which has another port.
        file.write(f"[127.0.0.1]:{port} {host_key}\nstore {host_key}\n")
    with open(f"{state}/ssh_config", "w", encoding="utf-8") as file:
        file.write(f"""Host store
    HostName 127.0.0.1
    HostKeyAlias store
    Port {port}
    User tester
    IdentityFile {state}/user.key
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile {state}/known_hosts
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    BatchMode yes
""")
    lines = {
        "SFTP_HOST": "127.0.0.1", "SFTP_PORT": port, "SFTP_USER": "tester", "SFTP_PATH": "/",
        "SFTP_DATA_DIR": os.fsdecode(root), "SFTP_SSH_CONFIG": f"{state}/ssh_config",
        "SFTP_KEY_FILE": f"{state}/user.key", "SFTP_KNOWN_HOSTS": f"{state}/known_hosts"}
    if password:
        lines["SFTP_PASSWORD_FILE"] = f"{state}/password"
        with open(os.open(lines["SFTP_PASSWORD_FILE"], os.O_CREAT | os.O_TRUNC | os.O_WRONLY,
                          0o600), "w", encoding="ascii") as file:
            file.write(password + "\n")
    lines["CONTROL_PORT"] = service.open_control({
        "faults": lambda *words: script.set(parse_faults(words)),
        "fired": lambda: [f"{script.fired[name]}\t{name}" for name in script.faults],
        "requests": lambda: [f"{count}\t{name}" for name, count in script.requests.items()],
        "reset": lambda: script.requests.clear(),
    })
    service.publish(state, lines)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


def serve(options, state):
    asyncio.run(serve_for_good(options, state))


if __name__ == "__main__":
    service.run(__doc__, add_options, serve, needs_packages=True)
