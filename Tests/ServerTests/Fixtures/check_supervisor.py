"""Holds the supervisor of the servers to its promise: nothing of a server is ever left behind."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import claims
from claims import SERVERS, Server, claim, expect, expect_equal, run

import supervisor  # of scripts/servers

# A server with a child that has gone its own way, as the sessions of an sshd do.
STUBBORN = """
import os, signal, socket, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    time.sleep(3600)
with socket.socket() as s:
    s.bind(("127.0.0.1", int(sys.argv[1])))
    s.listen()
    time.sleep(3600)
"""


def free_port():
    import socket
    with socket.socket() as endpoint:
        endpoint.bind(("127.0.0.1", 0))
        return endpoint.getsockname()[1]


def start(state, owner=None):
    port = free_port()
    environment = dict(os.environ)
    environment.pop("BATCHSYNC_SERVER_OWNER", None)
    if owner:
        environment["BATCHSYNC_SERVER_OWNER"] = str(owner)
    subprocess.run([sys.executable, "-B", str(SERVERS / "supervisor.py"), "start", state, "--port",
                    str(port), "--", sys.executable, "-c", STUBBORN, str(port)],
                   check=True, env=environment)


def processes(state):
    """All that run for a state directory, the supervisor first."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and supervisor.start_time(name):
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    is_server = f"STATE={state}\0".encode() in file.read()
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    is_supervisor = b"\0start\0" + state.encode() + b"\0" in file.read()
            except OSError:
                continue
            if is_server or is_supervisor:
                found.append((not is_supervisor, int(name)))
    return [pid for _, pid in sorted(found)]


def wait_until(condition, what):
    """For what happens by itself, soon; a minute is long enough for any machine."""
    deadline = time.monotonic() + 60
    while not condition():
        expect(time.monotonic() < deadline, what)
        time.sleep(0.01)


@claim("Stopping ends a server that ignores it, and what has gone its own way")
def stop(state):
    start(state)
    expect_equal(len(processes(state)), 3)
    supervisor.stop(state)
    expect_equal(processes(state), [])
    expect(not os.path.exists(f"{state}/server.pid"))
    supervisor.stop(state)


@claim("When its owner dies a server ends, and the state directory goes")
def owner(state):
    with subprocess.Popen(["sleep", "3600"]) as sleeper:
        start(state, sleeper.pid)
        sleeper.kill()
    wait_until(lambda: not processes(state), "the server outlives its owner")
    wait_until(lambda: not os.path.exists(state), "the state directory is left")


@claim("A killed supervisor takes its server along")
def killed(state):
    start(state)
    os.kill(processes(state)[0], signal.SIGKILL)
    # What the server itself had left behind is nobody's then; its own death is what counts.
    wait_until(lambda: len(processes(state)) <= 1, "the server outlives its supervisor")
    for pid in processes(state):
        os.kill(pid, signal.SIGKILL)
    expect_equal(supervisor.recorded(state, "server"), None)


@claim("A pid file that names a stranger is not believed")
def stranger(state):
    with subprocess.Popen(["sleep", "3600"]) as sleeper:
        with open(f"{state}/server.pid", "w", encoding="ascii") as file:
            file.write(f"{sleeper.pid}\n12345\n")
        supervisor.stop(state)
        expect(sleeper.poll() is None)
        sleeper.kill()


@claim("A server that ends at once, or does not listen, is reported")
def failing(state):
    for command, seconds in ((["false"], 60), (["sleep", "3600"], 1)):
        problem = supervisor.start(state, command, port=free_port(), seconds=seconds)
        expect(problem is not None)
        expect_equal(processes(state), [])


@claim("An sshd with an open session leaves neither")
def session(state):
    with Server("sftp-openssh.sh") as sshd:
        with subprocess.Popen(["ssh", "-F", sshd["SFTP_SSH_CONFIG"], "store",
                               "echo ready; exec sleep 3600"], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL) as client:
            client.stdout.readline()
            below = supervisor.descendants(supervisor.recorded(sshd.state, "server"))
            # The sshd, that of the session, and what the session runs.
            expect(len(below) >= 3, str(below))
            sshd.call("stop")
            expect_equal([pid for pid in below if supervisor.start_time(pid)], [])
            client.wait()


@claim("Started twice it is one server, and the same lines are printed")
def twice(state):
    with Server("s3-strict.py") as server:
        before = supervisor.recorded(server.state, "server")
        server.call("start")
        expect_equal(supervisor.recorded(server.state, "server"), before)


if __name__ == "__main__":
    made = []

    def fresh(function):
        def call():
            made.append(tempfile.mkdtemp(prefix="batchsync-test-"))
            function(made[-1])
        return call
    claims._claims[:] = [(text, fresh(function)) for text, function in claims._claims]
    try:
        run()
    finally:
        for directory in made:
            supervisor.stop(directory)
            shutil.rmtree(directory, ignore_errors=True)
