"""What the servers written in Python share: their verbs, their lines for clients, their control port.

    NAME.py start STATE_DIR [OPTIONS]     in the background; prints KEY=VALUE lines for clients
    NAME.py stop|status|env STATE_DIR
    NAME.py tell STATE_DIR WORD...        one command to a running server; prints its answer
    NAME.py serve STATE_DIR [OPTIONS]     in the foreground, what `start` runs

A command is one line to the control port of 127.0.0.1 (CONTROL_PORT among the lines for clients):
words with a space between. The answer is `ok` or `error TEXT`, then any number of lines, then the
end of the connection. Commands are for tests; the port is open to every user of the machine.
"""

import os
import pathlib
import socketserver
import socket
import sys
import threading

import supervisor

ROOT = pathlib.Path(__file__).resolve().parents[2]
UNAVAILABLE = 69  # as in common.sh
TEST_PYTHON = ROOT / ".build/venv-test/bin/python"


def run(description, add_options, serve, needs_packages=False):
    """Does what the command line says.

    add_options(parser) declares a server's options; serve(options, state) runs it for good and has
    to call `publish` when it listens. With needs_packages it runs under the tests' own Python.
    """
    import argparse
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "verb", choices=["start", "stop", "status", "env", "tell", "serve"])
    parser.add_argument("state")
    verb = sys.argv[1] if len(sys.argv) > 1 else ""
    if verb == "tell":
        parser.add_argument("words", nargs=argparse.REMAINDER)
    elif verb in ("start", "serve"):
        add_options(parser)
    options = parser.parse_args()
    os.makedirs(options.state, mode=0o700, exist_ok=True)
    state = os.path.realpath(options.state)
    environment = os.path.join(state, "env")
    if verb == "start":
        if supervisor.recorded(state, "server") is None:
            python = sys.executable
            if needs_packages:
                python = str(TEST_PYTHON)
                if not os.access(python, os.X_OK):
                    print("the tests' Python packages are not installed: "
                          "scripts/install-dependencies.sh test", file=sys.stderr)
                    sys.exit(UNAVAILABLE)
            script = os.path.realpath(sys.argv[0])
            problem = supervisor.start(
                state, [python, "-B", script, "serve", state, *sys.argv[3:]], ready=environment)
            if problem:
                sys.stderr.write(tail(os.path.join(state, "server.log")))
                sys.exit(f"{sys.argv[0]}: {problem}")
        print(read(environment), end="")
    elif verb == "env":
        print(read(environment), end="")
    elif verb == "stop":
        supervisor.stop(state)
    elif verb == "status":
        running = supervisor.recorded(state, "server") is not None
        print("running" if running else "stopped")
        sys.exit(0 if running else 3)
    elif verb == "tell":
        print(tell(state, options.words), end="")
    else:
        serve(options, state)


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def tail(path, lines=20):
    try:
        return "".join(read(path).splitlines(keepends=True)[-lines:])
    except OSError:
        return ""


def publish(state, values):
    """Writes STATE_DIR/env, whole or not at all: the sign that clients may come."""
    path = os.path.join(state, "env")
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.writelines(f"{key}={value}\n" for key, value in values.items())
    os.rename(path + ".new", path)


def make_certificate(state):
    """A private CA and a server certificate in the state directory, as TLS arguments of clients."""
    import subprocess
    script = os.path.join(os.path.dirname(os.path.realpath(__file__)), "certificates.sh")
    subprocess.run([script, state], check=True)
    return os.path.join(state, "ca.pem")


def tls_server_context(state):
    """For a server with the certificate of `make_certificate`."""
    import ssl
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.path.join(state, "server.pem"), os.path.join(state, "server.key"))
    return context


# ---- the control port ----

def open_control(commands):
    """Answers commands on a thread of its own; gives the port.

    `commands` maps a command's first word to a function of the other words, which gives lines. A
    ValueError it raises is the answer `error TEXT`.
    """
    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            words = self.rfile.readline().decode("utf-8").split()
            try:
                if not words or words[0] not in commands:
                    raise ValueError("there are the commands " + ", ".join(sorted(commands)))
                lines = ["ok", *(commands[words[0]](*words[1:]) or ())]
            except (ValueError, TypeError) as error:
                lines = [f"error {error}"]
            self.wfile.write("".join(f"{line}\n" for line in lines).encode("utf-8"))

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 64

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def tell(state, words):
    """Sends a command to the server of a state directory and gives the lines of its answer."""
    values = dict(line.split("=", 1) for line in read(os.path.join(state, "env")).splitlines())
    with socket.create_connection(("127.0.0.1", int(values["CONTROL_PORT"])), timeout=30) as server:
        server.sendall(" ".join(words).encode("utf-8") + b"\n")
        with server.makefile(encoding="utf-8") as answer:
            first = answer.readline().rstrip("\n")
            if first != "ok":
                sys.exit(f"{sys.argv[0]}: {first.removeprefix('error ')}")
            return answer.read()
