"""Holds the fault proxy to its rules: each fault happens, happens as it is told, and is counted."""

import http.client
import http.server
import os
import socket
import subprocess
import threading
import time

from claims import Server, claim, expect, expect_equal, run

BODY = bytes(range(256)) * 400


class Origin(http.server.ThreadingHTTPServer):
    """A web server that remembers what came, and echoes the body of a PUT."""

    daemon_threads = True

    def __init__(self):
        self.received = []
        super().__init__(("127.0.0.1", 0), self.Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_):
        """That connections end in the midst of things is what is tested here."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.answer(BODY)

        def do_HEAD(self):
            self.answer(BODY)

        def do_PUT(self):
            length = int(self.headers["Content-Length"])
            body = self.rfile.read(length)
            self.server.received.append((self.path, body))
            if len(body) == length:
                self.answer(body)

        def answer(self, body):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Fact", "true")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_):
            pass


class Line:
    """The web server, a proxy before it, and requests through it."""

    def __init__(self):
        self.origin = Origin()
        self.server = f"http://127.0.0.1:{self.origin.server_address[1]}"
        self.proxy = Server("faultproxy.py", "--toward", self.server)

    def rules(self, *rules):
        self.proxy.tell("rules", *rules)
        self.origin.received.clear()

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", int(self.proxy["PROXY_PORT"]), timeout=20)

    def ask(self, method="GET", path="/x", body=None, connection=None):
        """Status and body, or the name of the error."""
        connection = connection or self.connect()
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__, getattr(error, "partial", b"")

    def fired(self):
        return self.proxy.fired()


@claim("Without a rule everything passes as it is, on connections that are kept")
def transparent(line):
    line.rules()
    connection = line.connect()
    for method, body, expected in (("GET", None, BODY), ("HEAD", None, b""), ("PUT", BODY, BODY),
                                   ("PUT", b"", b""), ("GET", None, BODY)):
        expect_equal(line.ask(method, body=body, connection=connection), (200, expected))
    line.proxy.tell("reset")
    expect_equal(line.ask("PUT", "/p?q=1", b"abc"), (200, b"abc"))
    fields = line.proxy.tell("log")[0].split("\t")
    expect_equal(fields[1:], ["PUT", "/p?q=1", "200", "-"])


@claim("The server is not asked k of n times, and Retry-After is told")
def status(line):
    line.rules("method=PUT,first=3,status=503:SlowDown,retry-after=4", "path=/odd,every=2,status=500")
    for _ in range(3):
        connection = line.connect()
        connection.request("PUT", "/x", b"abc")
        answer = connection.getresponse()
        expect_equal((answer.status, answer.headers["Retry-After"]), (503, "4"))
        expect(b"<Code>SlowDown</Code>" in answer.read())
    expect_equal(line.origin.received, [])
    expect_equal(line.ask("PUT", body=b"abc"), (200, b"abc"))
    expect_equal([line.ask(path="/odd")[0] for _ in range(4)], [200, 500, 200, 500])
    expect_equal(line.fired(), [3, 2])


@claim("Rules name the nth, those after a number, a connection, and a share of them by chance")
def conditions(line):
    line.rules("nth=2,status=500")
    expect_equal([line.ask()[0] for _ in range(3)], [200, 500, 200])
    line.rules("after=2,status=500")
    expect_equal([line.ask()[0] for _ in range(4)], [200, 200, 500, 500])
    line.rules("prob=0.5,status=500")
    found = [line.ask()[0] for _ in range(60)]
    expect_equal(line.fired(), [found.count(500)])
    expect(10 < found.count(500) < 50, str(found))


@claim("A connection is closed or reset after N bytes of an answer")
def cut_down(line):
    for name, at in (("drop-down", 1000), ("drop-down", 0), ("reset-down", 70_000)):
        line.rules(f"nth=1,{name}={at}")
        outcome, body = line.ask()
        expect(outcome in ("IncompleteRead", "ConnectionResetError"), outcome)
        if outcome == "IncompleteRead":
            expect_equal(body, BODY[:at])
        expect_equal(line.fired(), [1])
        expect_equal(line.ask(), (200, BODY))


@claim("A connection is closed or reset after N bytes of a request, which never arrives whole")
def cut_up(line):
    for name, at in (("drop-up", 1000), ("reset-up", 70_000), ("reset-up", 0)):
        line.rules(f"nth=1,{name}={at}")
        expect(line.ask("PUT", body=BODY)[0] != 200)
        expect_equal(line.fired(), [1])
        expect(all(len(body) <= at for _, body in line.origin.received))
        expect_equal(line.ask("PUT", body=BODY), (200, BODY))


@claim("A fault behind the end of what passes has not happened")
def beyond_the_end(line):
    line.rules(f"drop-down={len(BODY) + 1}", f"flip-down={len(BODY)}")
    expect_equal(line.ask(), (200, BODY))
    expect_equal(line.fired(), [0, 0])


@claim("Bytes are altered and lost in either direction")
def altered(line):
    line.rules("method=GET,flip-down=5")
    expect_equal(line.ask(), (200, BODY[:5] + bytes([BODY[5] ^ 1]) + BODY[6:]))
    line.rules("method=PUT,flip-up=70000")
    line.ask("PUT", body=BODY)
    sent = line.origin.received[0][1]
    expect_equal([i for i in range(len(BODY)) if sent[i] != BODY[i]], [70_000])
    line.rules("method=GET,lose-down=5")
    connection = line.connect()
    connection.timeout = 0.5
    # The connection is kept, so the client waits for the byte that is missing.
    expect_equal(line.ask(connection=connection)[0], "TimeoutError")
    expect_equal(line.fired(), [1])


@claim("A stalled connection says nothing more until the client gives up")
def stalled(line):
    for rule, method, body in (("stall-down=1000", "GET", None), ("stall-up=1000", "PUT", BODY)):
        line.rules(rule)
        connection = line.connect()
        connection.timeout = 0.5
        expect_equal(line.ask(method, body=body, connection=connection)[0], "TimeoutError")
        expect_equal(line.fired(), [1])


@claim("An answer is lost after its effect")
def lost(line):
    line.rules("method=PUT,nth=1,lost=1")
    expect(line.ask("PUT", body=b"effect")[0] in ("ConnectionResetError", "RemoteDisconnected"))
    expect_equal(line.origin.received, [("/x", b"effect")])
    expect_equal(line.fired(), [1])


@claim("Headers of an answer are taken away and set")
def headers(line):
    line.rules("nth=1,strip=X-Fact", "nth=1,set=X-Fact:false")
    found = []
    for _ in range(3):
        connection = line.connect()
        connection.request("GET", "/")
        found.append(connection.getresponse().headers["X-Fact"])
    expect_equal(found, [None, "false", "true"])
    expect_equal(line.fired(), [1, 1])


@claim("Requests and answers are held up, and bytes come at the rate that is told")
def slow(line):
    for rule, least in (("delay=0.3", 0.3), ("hold=0.3", 0.3),
                        (f"rate-down={len(BODY) * 2}", 0.4), (f"rate-up={len(BODY) * 2}", 0.4)):
        line.rules(rule)
        begun = time.monotonic()
        expect_equal(line.ask("PUT", body=BODY), (200, BODY))
        expect(time.monotonic() - begun >= least, rule)
        expect_equal(line.fired(), [1])


@claim("Connections are refused one by one by a rule, and all of them while it is offline")
def refused(line):
    line.rules("conn=-1,refuse=1")
    expect_equal(line.ask()[0], 200)
    line.rules("first=2,refuse=1")
    expect_equal([line.ask()[0] == 200 for _ in range(3)], [False, False, True])
    expect_equal(line.fired(), [2])
    kept = line.connect()
    expect_equal(line.ask(connection=kept)[0], 200)
    for _ in range(3):
        line.proxy.tell("offline")
        expect_equal(line.ask()[0], "ConnectionRefusedError")
        expect(line.ask(connection=kept)[0] != 200)
        line.proxy.tell("online")
        kept = line.connect()
        expect_equal(line.ask(connection=kept), (200, BODY))


@claim("Latency makes everything late and nothing narrow: many bytes are under way at once")
def latency(line):
    line.rules()
    line.proxy.tell("latency", "100")
    try:
        connection = line.connect()
        line.ask(connection=connection)
        begun = time.monotonic()
        line.ask(connection=connection)
        expect(time.monotonic() - begun >= 0.2)
        large = BODY * 80
        expect_equal(line.ask("PUT", body=large, connection=connection), (200, large))
        expect(int(line.proxy.tell("under-way")[0]) > 1 << 20, "pieces waited for one another")
    finally:
        line.proxy.tell("latency", "0")


@claim("With --layer tcp rules are about connections, and ssh notices an altered byte")
def tcp(line):
    with Server("sftp-openssh.sh") as sshd:
        with Server("faultproxy.py", "--layer", "tcp", "--toward",
                    f"127.0.0.1:{sshd['SFTP_PORT']}") as proxy:
            def ssh():
                return subprocess.run(
                    ["ssh", "-F", sshd["SFTP_SSH_CONFIG"], "-p", proxy["PROXY_PORT"], "store",
                     "head -c 300000 /dev/zero"], capture_output=True, check=False)
            expect_equal(len(ssh().stdout), 300_000)
            for rule in ("nth=1,flip-down=100000", "nth=1,reset-down=100000", "nth=1,drop-up=500",
                         "nth=1,refuse=1", "nth=1,lose-down=100000"):
                proxy.tell("rules", rule)
                expect_equal(ssh().returncode, 255)
                expect_equal(proxy.fired(), [1])
                expect_equal(ssh().returncode, 0)
            proxy.tell("rules")
            proxy.tell("latency", "50")
            expect_equal(len(ssh().stdout), 300_000)


@claim("TLS is spoken to the client, to the server, or to both")
def tls(line):
    import ssl
    with Server("s3-strict.py", "--tls") as server:
        with Server("faultproxy.py", "--toward", server["S3_ENDPOINT"], "--toward-ca",
                    server["S3_CA_FILE"], "--tls", "--rule", "nth=2,flip-down=0") as proxy:
            context = ssl.create_default_context(cafile=proxy["PROXY_CA_FILE"])
            bodies = []
            for _ in range(3):
                connection = http.client.HTTPSConnection(
                    "127.0.0.1", int(proxy["PROXY_PORT"]), context=context)
                connection.request("GET", "/")
                bodies.append(connection.getresponse().read()[:5])
            expect_equal(bodies, [b"<?xml", b"=?xml", b"<?xml"])
            expect_equal(proxy.fired(), [1])


@claim("Asked as a proxy of the environment is asked, it serves as one, for any host")
def environment_proxy(line):
    line.rules()
    line.proxy.tell("reset")
    expect_equal(line.ask("PUT", "http://nowhere.invalid/p?q=1", b"abc"), (200, b"abc"))
    expect_equal(line.origin.received, [("/p?q=1", b"abc")])
    connection = line.connect()
    connection.set_tunnel("nowhere.invalid", 443)
    expect_equal(line.ask("PUT", "/q", b"abc", connection), (200, b"abc"))
    expect_equal(line.origin.received[1:], [("/q", b"abc")])
    asked = [entry.split("\t")[1:3] for entry in line.proxy.tell("log")]
    expect_equal(asked[:2], [["PUT", "http://nowhere.invalid/p?q=1"],
                             ["CONNECT", "nowhere.invalid:443"]])


if __name__ == "__main__":
    one = Line()
    try:
        run(one)
    finally:
        one.proxy.stop()
