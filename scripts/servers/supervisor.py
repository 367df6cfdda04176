#!/usr/bin/env python3
"""Keeps one test server running in the background, and leaves nothing of it behind.

    supervisor.py start STATE_DIR [--port N | --ready FILE] [--seconds N] -- COMMAND...
    supervisor.py stop STATE_DIR
    supervisor.py status STATE_DIR            says "running" or "stopped"; ends with 3 if stopped

`start` returns when the server listens on the port, or when the file is there; where neither is
named, at once. What the server
prints goes to STATE_DIR/NAME.log, where NAME is `server` unless --name says otherwise;
STATE_DIR/NAME.pid holds the supervisor's process number and its start time in kernel ticks, so that
`stop` never ends a stranger who was given the same number.

The supervisor is the server's parent, and adopts whatever the server leaves without a parent. It
ends them all when it is told to, when the server ends, and when the process that the variable
BATCHSYNC_SERVER_OWNER names is gone. STATE_DIR is that owner's and goes with him: a test that crashes
leaves neither a server nor its data behind.
"""

import argparse
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time

OWNER = "BATCHSYNC_SERVER_OWNER"
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None, use_errno=True)


def status_fields(pid):
    """The fields of /proc/PID/stat after the name, or None where there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as file:
            return file.read().rsplit(") ", 1)[1].split()
    except OSError:
        return None


def start_time(pid):
    """When a process was started, in ticks since boot; None when it is gone, or dead and unburied."""
    fields = status_fields(pid)
    return None if fields is None or fields[0] in "ZX" else fields[19]


def descendants(pid):
    """The process numbers below `pid`, children first."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := status_fields(name)):
            children.setdefault(int(fields[1]), []).append(int(name))
    found, queue = [], [pid]
    while queue:
        queue = [child for parent in queue for child in children.get(parent, [])]
        found += queue
    return found


def listens(pids, port):
    """Whether one of these processes listens on a TCP port of 127.0.0.1.

    Connecting would not do: another program may have been given the port a moment before.
    """
    sockets = set()
    with open("/proc/net/tcp", encoding="ascii") as file:
        for line in list(file)[1:]:
            fields = line.split()
            if fields[1] in (f"0100007F:{port:04X}", f"00000000:{port:04X}") and fields[3] == "0A":
                sockets.add(f"socket:[{fields[9]}]")
    for pid in pids if sockets else ():
        try:
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{descriptor}") in sockets:
                    return True
        except OSError:
            continue  # it ended, or closed this descriptor, while we looked
    return False


def recorded(state, name):
    """The supervisor that STATE_DIR/NAME.pid speaks of, or None where it no longer runs."""
    try:
        with open(os.path.join(state, f"{name}.pid"), encoding="ascii") as file:
            pid, started = file.read().split()
    except (OSError, ValueError):
        return None
    return int(pid) if start_time(pid) == started else None


class Supervisor:
    """The background process: one server, and everything that descends from it."""

    def __init__(self, command, state):
        self.command, self.state = command, state

    def run(self):
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        # Whoever called may have blocked signals, and a server would inherit that.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: os.write(wake, b"."))
        watched = select.poll()
        watched.register(woken, select.POLLIN)
        owner = None
        if OWNER in os.environ:
            owner = os.pidfd_open(int(os.environ[OWNER]))
            watched.register(owner, select.POLLIN)
        # The server dies with a supervisor that was killed.
        server = subprocess.Popen(
            self.command, env={**os.environ, "BATCHSYNC_SERVER_STATE": self.state},
            preexec_fn=lambda: _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
        ended = os.pidfd_open(server.pid)
        watched.register(ended, select.POLLIN)
        happened = [descriptor for descriptor, _ in watched.poll()]
        server.terminate()
        select.select([ended], [], [], 3)
        server.kill()
        self.end_descendants()
        if owner in happened:
            shutil.rmtree(self.state, ignore_errors=True)

    @staticmethod
    def end_descendants():
        """Ends what is left. Whoever loses its parent becomes our child, so none escapes."""
        while True:
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                return
            for pid in descendants(os.getpid()):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.005)


def start(state, command, name="server", port=None, ready=None, seconds=60):
    """Starts `command` under a supervisor of its own. Gives None, or why it did not come up."""
    log_path = os.path.join(state, f"{name}.log")
    if ready:
        remove(ready)
    report, reports = os.pipe()
    pid = os.fork()
    if pid == 0:
        # A session of its own: Ctrl-C in a terminal is for the tests, who then stop their servers.
        os.setsid()
        # Descriptors of whoever called, such as the end of a pipe he waits on, are his alone.
        os.dup2(reports, 3)
        os.closerange(4, 4096)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        log = os.open(log_path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        os.dup2(log, 1), os.dup2(log, 2)
        status = 1
        try:
            with open(os.path.join(state, f"{name}.pid"), "w", encoding="ascii") as file:
                file.write(f"{os.getpid()}\n{start_time(os.getpid())}\n")
            os.write(3, b".")
            os.close(3)
            Supervisor(command, state).run()
            status = 0
        finally:
            remove(os.path.join(state, f"{name}.pid"))
            os._exit(status)
    os.close(reports)
    os.read(report, 1)  # the pid file is written, or the supervisor is gone
    os.close(report)
    deadline, wait = time.monotonic() + seconds, 0.005
    while time.monotonic() < deadline:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return f"the server ended at once; see {log_path}"
        if not ready and not port or ready and os.path.exists(ready) or port and listens(descendants(pid), port):
            return None
        time.sleep(wait)
        wait = min(wait * 1.5, 0.1)
    stop(state, name)
    return f"the server was not ready within {seconds} s; see {log_path}"


def stop(state, name="server"):
    """Ends the server and everything below it; returns when all of it is gone."""
    pid = recorded(state, name)
    if pid is None:
        return
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    signal.pidfd_send_signal(descriptor, signal.SIGTERM)
    if not select.select([descriptor], [], [], 20)[0]:
        below = descendants(pid)
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        for child in below:
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                pass
    remove(os.path.join(state, f"{name}.pid"))


def remove(path):
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["start", "stop", "status"])
    parser.add_argument("state")
    parser.add_argument("--name", default="server")
    parser.add_argument("--port", type=int)
    parser.add_argument("--ready")
    parser.add_argument("--seconds", type=float, default=60)
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    options, command = parser.parse_args(words[:end]), words[end + 1:]
    if options.verb == "start":
        problem = recorded(options.state, options.name) is None and start(
            options.state, command, options.name, options.port, options.ready, options.seconds)
        if problem:
            sys.exit(f"supervisor: {problem}")
    elif options.verb == "stop":
        stop(options.state, options.name)
    else:
        running = recorded(options.state, options.name) is not None
        print("running" if running else "stopped")
        sys.exit(0 if running else 3)


if __name__ == "__main__":
    main()
