#!/usr/bin/env python3
"""Stands between a client and a server, and breaks what passes as it is told.

    faultproxy.py start STATE_DIR --toward http[s]://HOST:PORT|HOST:PORT [OPTIONS]
    faultproxy.py tell STATE_DIR rules [RULE...]      these rules from now on, no others
    faultproxy.py tell STATE_DIR fired                how often each of them happened
    faultproxy.py tell STATE_DIR offline|online       cuts everything and refuses connections; ends it
    faultproxy.py tell STATE_DIR latency MILLISECONDS new connections get it, in each direction
    faultproxy.py tell STATE_DIR under-way            most bytes that a latency ever held
    faultproxy.py tell STATE_DIR log|reset            connection, method, path, status, rule
    faultproxy.py stop|status|env STATE_DIR

Conditions of a rule: see faults.py. With --layer tcp they are about connections, else about requests.
Its actions:

    status=503[:CODE] retry-after=S   the server is not asked
    delay=S hold=S                    before the request goes on, before the answer goes back
    lost=1                            the answer is lost after its effect, the connection reset
    strip=HEADER set=HEADER:VALUE     of the answer
    refuse=1                          the connection is reset at once (a rule about connections)

and of the bytes of one direction, `up` to the server or `down` to the client. N counts the bytes of a
body, with --layer tcp all bytes:

    drop-D=N reset-D=N stall-D=N      after N bytes the connection is closed, reset, or silent
    flip-D=N lose-D=N                 byte N is altered, left out
    rate-D=BYTES                      so many bytes a second

Named in http_proxy or https_proxy it serves as the proxy there, whatever host is asked for: all of it
goes to its own server.

A latency is that of a long line: bytes are late, but as many are under way as the line holds.
"""

import sys

sys.dont_write_bytecode = True

import asyncio
import collections
import contextlib
import signal
import socket
import struct
import time
import urllib.parse

import faults
import service

ENDINGS = ("drop", "reset", "stall")
ACTIONS = ("status", "retry-after", "delay", "hold", "lost", "strip", "set", "refuse") + tuple(
    f"{name}-{way}" for name in (*ENDINGS, "flip", "lose", "rate") for way in ("up", "down"))
PIECE = 1 << 18
# What a line of some latency holds: 32 MiB at 50 ms are five gigabits a second.
LINE_BYTES = 32 << 20


class Cut(Exception):
    """The connection is over, in both directions."""


class Line:
    """One direction of a connection: writes what it is given, at once or late."""

    most_under_way = 0    # bytes, of all lines

    def __init__(self, writer, latency):
        self.writer, self.latency = writer, latency
        self.queue, self.queued = collections.deque(), 0
        self.changed = asyncio.Event()
        self.task = asyncio.create_task(self.deliver()) if latency else None

    async def write(self, data):
        if not self.latency:
            self.writer.write(data)
            await self.writer.drain()
            return
        while self.queued > LINE_BYTES:
            if self.task.done():
                raise ConnectionResetError
            self.changed.clear()
            await self.changed.wait()
        self.queue.append((time.monotonic() + self.latency, data))
        self.queued += len(data)
        Line.most_under_way = max(Line.most_under_way, self.queued)
        self.changed.set()

    async def end(self):
        """No more comes in this direction."""
        if self.latency:
            self.queue.append((time.monotonic() + self.latency, None))
            self.changed.set()
        else:
            self.writer.write_eof()

    async def deliver(self):
        try:
            while True:
                while not self.queue:
                    self.changed.clear()
                    await self.changed.wait()
                due, data = self.queue.popleft()
                await asyncio.sleep(max(0, due - time.monotonic()))
                if data is None:
                    self.writer.write_eof()
                    return
                self.writer.write(data)
                await self.writer.drain()
                self.queued -= len(data)
                self.changed.set()
        except OSError:
            pass
        finally:
            self.changed.set()

    async def flush(self):
        """Returns when all that was written is on its way."""
        while self.latency and self.queued and not self.task.done():
            self.changed.clear()
            await self.changed.wait()

    def close(self, with_reset=False):
        if self.task:
            self.task.cancel()
        if with_reset:
            endpoint = self.writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                endpoint.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()
        else:
            self.writer.close()


class Flow:
    """The bytes of one direction, of one request or connection, under one rule."""

    def __init__(self, proxy, rule, way, line):
        self.proxy, self.rule, self.way, self.line = proxy, rule, way, line
        self.passed, self.begun, self.is_slowed = 0, time.monotonic(), False

    def number(self, name):
        return None if self.rule is None else self.rule.get(f"{name}-{self.way}")

    async def open(self):
        """A fault at byte 0 happens also where no byte ever comes."""
        if any(self.number(name) == 0 for name in ENDINGS):
            await self.send(b"")

    async def send(self, data):
        if self.rule is None:
            await self.line.write(data)
            return
        ending = None
        for name in ENDINGS:
            at = self.number(name)
            if at is not None and self.passed + len(data) >= at:
                data, ending = data[:max(0, int(at) - self.passed)], name
                break
        data = self.damaged(data)
        await self.send_paced(data)
        if ending:
            self.proxy.rules.count(self.rule)
            await self.line.flush()
            if ending == "stall":
                await asyncio.sleep(86400)
            # What went before it arrives before the end does.
            await asyncio.sleep(0.02)
            raise Cut(ending)

    def damaged(self, data):
        begin, end = self.passed, self.passed + len(data)
        self.passed = end
        for name in ("flip", "lose"):
            at = self.number(name)
            if at is not None and begin <= at < end:
                self.proxy.rules.count(self.rule)
                at = int(at) - begin
                middle = bytes([data[at] ^ 1]) if name == "flip" else b""
                data = data[:at] + middle + data[at + 1:]
        return data

    async def send_paced(self, data):
        rate = self.number("rate")
        if not rate:
            await self.line.write(data)
            return
        if not self.is_slowed:
            self.is_slowed = True
            self.proxy.rules.count(self.rule)
        step, sent = max(1, int(rate / 50)), self.passed - len(data)
        for at in range(0, len(data), step):
            await asyncio.sleep(max(0, self.begun + (sent + at) / rate - time.monotonic()))
            await self.line.write(data[at:at + step])


class Message:
    """The head of a request or an answer, and a way to read its body as it stands on the wire."""

    def __init__(self, first, headers):
        self.first, self.headers = first, headers

    @classmethod
    async def read(cls, reader):
        raw = await reader.readuntil(b"\r\n\r\n")
        lines = raw[:-4].decode("latin-1").split("\r\n")
        return cls(lines[0], [tuple(part.strip() for part in line.split(":", 1))
                              for line in lines[1:]])

    def get(self, name):
        return next((v for k, v in self.headers if k.lower() == name), "")

    def encoded(self):
        lines = [self.first, *(f"{k}: {v}" for k, v in self.headers)]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    @property
    def says_close(self):
        return "close" in self.get("connection").lower()

    @property
    def is_framed(self):
        return bool(self.get("content-length") or self.get("transfer-encoding"))

    async def body(self, reader, to_the_end=False):
        """Pairs of bytes and whether they are content."""
        if "chunked" in self.get("transfer-encoding").lower():
            while True:
                line = await reader.readline()
                yield line, False
                left = int(line.split(b";")[0], 16)
                if not left:
                    while line not in (b"\r\n", b"\n", b""):
                        line = await reader.readline()
                        yield line, False
                    return
                while left:
                    piece = await self.piece(reader, left)
                    left -= len(piece)
                    yield piece, True
                yield await reader.readexactly(2), False
        elif self.get("content-length"):
            left = int(self.get("content-length"))
            while left:
                piece = await self.piece(reader, left)
                left -= len(piece)
                yield piece, True
        elif to_the_end:
            while piece := await reader.read(PIECE):
                yield piece, True

    @staticmethod
    async def piece(reader, limit):
        piece = await reader.read(min(limit, PIECE))
        if not piece:
            raise Cut("the other end is gone")
        return piece


class Connection:
    """One client, and the connection to the server that is made for it."""

    def __init__(self, proxy, number, reader, writer):
        self.proxy, self.number, self.reader = proxy, number, reader
        self.latency = proxy.latency
        self.down, self.up, self.server = Line(writer, self.latency), None, None

    async def serve(self):
        is_tcp = self.proxy.layer == "tcp"
        rule = self.proxy.rules.find(
            (lambda r: True) if is_tcp else (lambda r: "refuse" in r), conn=self.number)
        try:
            if rule and "refuse" in rule:
                self.proxy.rules.count(rule)
                raise Cut("reset")
            # The handshakes, which the line cannot delay: they were over before it began.
            await asyncio.sleep(self.latency * (4 if self.proxy.tls else 2))
            if is_tcp:
                await self.tunnel(rule)
            else:
                while await self.exchange():
                    pass
                await self.down.flush()
        except Cut as cut:
            if cut.args[0] in ("reset", "lost"):
                self.close(with_reset=True)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass
        finally:
            self.close()

    def close(self, with_reset=False):
        for line in (self.down, self.up):
            if line:
                with contextlib.suppress(Exception):
                    line.close(with_reset)

    async def reach_server(self):
        if self.server is not None and not self.server.at_eof():
            return
        if self.up:
            self.up.close()
        self.server, writer = await asyncio.open_connection(
            *self.proxy.toward, ssl=self.proxy.server_tls, limit=1 << 20)
        self.up = Line(writer, self.latency)

    # ---- bytes ----

    async def tunnel(self, rule):
        log = self.proxy.note(self.number, "-", "-", rule)
        if rule and "delay" in rule:
            self.proxy.rules.count(rule)
            await asyncio.sleep(rule.get("delay"))
        await self.reach_server()
        log[3] = "open"

        async def pump(reader, flow):
            await flow.open()
            while piece := await reader.read(PIECE):
                await flow.send(piece)
            with contextlib.suppress(OSError, RuntimeError):
                await flow.line.end()

        tasks = [asyncio.create_task(pump(self.reader, Flow(self.proxy, rule, "up", self.up))),
                 asyncio.create_task(pump(self.server, Flow(self.proxy, rule, "down", self.down)))]
        try:
            await asyncio.gather(*tasks)
            await self.down.flush()
        finally:
            for task in tasks:
                task.cancel()

    # ---- requests ----

    async def exchange(self):
        """One request and its answer; says whether the connection is kept."""
        request = await Message.read(self.reader)
        method, path, version = request.first.split(" ", 2)
        rule = self.proxy.rules.find(lambda r: "refuse" not in r, conn=self.number, method=method,
                                     path=path)
        log = self.proxy.note(self.number, method, path, rule)
        if rule and "status" in rule:
            log[3] = rule.get("status")
            await self.answer_instead(request, method, rule)
            return False
        if rule and "delay" in rule:
            self.proxy.rules.count(rule)
            await asyncio.sleep(rule.get("delay"))
        if method == "CONNECT":
            await self.down.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await self.tunnel(None)
            return False
        if path.startswith("http://"):
            # Asked as a client asks the proxy of its environment: the server gets the path alone.
            request.first = f"{method} /{path.partition('://')[2].partition('/')[2]} {version}"
        await self.reach_server()
        await self.up.write(request.encoded())
        sending = asyncio.create_task(self.send_up(request, rule))
        try:
            answer, status = await self.read_answer(sending)
            log[3] = status
            has_body = method != "HEAD" and status not in (204, 304)
            await self.send_down(answer, has_body, rule)
            # An answer to a request that was not read whole is the last one.
            return sending.done() and (answer.is_framed or not has_body) and not (
                request.says_close or answer.says_close)
        finally:
            sending.cancel()
            with contextlib.suppress(BaseException):
                await sending

    async def answer_instead(self, request, method, rule):
        self.proxy.rules.count(rule)
        if request.get("expect").lower() != "100-continue":
            async for _ in request.body(self.reader):
                pass
        status, _, code = rule.get("status").partition(":")
        code = code or ("SlowDown" if status == "503" else "InternalError")
        body = b"" if method == "HEAD" else (
            f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code>'
            "<Message>Please reduce your request rate.</Message></Error>").encode()
        headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body))),
                   ("Connection", "close")]
        if "retry-after" in rule:
            headers.append(("Retry-After", str(int(rule.get("retry-after")))))
        await self.down.write(Message(f"HTTP/1.1 {status} Fault", headers).encoded() + body)

    async def send_up(self, request, rule):
        flow = Flow(self.proxy, rule, "up", self.up)
        await flow.open()
        async for piece, is_content in request.body(self.reader):
            await (flow.send(piece) if is_content else self.up.write(piece))

    async def read_answer(self, sending):
        """The server's final answer. What it says in between is passed on."""
        while True:
            reading = asyncio.create_task(Message.read(self.server))
            await asyncio.wait({sending, reading}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done() and sending.exception() and not reading.done():
                reading.cancel()
                # A server that has enough answers and closes; its answer may be there already.
                if isinstance(sending.exception(), Cut):
                    raise sending.exception()
                reading = asyncio.create_task(Message.read(self.server))
            answer = await reading
            status = int(answer.first.split(" ")[1])
            if status >= 200:
                return answer, status
            await self.down.write(answer.encoded())

    async def send_down(self, answer, has_body, rule):
        if rule and "lost" in rule:
            if has_body:
                async for _ in answer.body(self.server, True):
                    pass
            self.proxy.rules.count(rule)
            raise Cut("lost")
        if rule and "hold" in rule:
            self.proxy.rules.count(rule)
            await asyncio.sleep(rule.get("hold"))
        if rule and "strip" in rule and answer.get(rule.get("strip").lower()):
            self.proxy.rules.count(rule)
            answer.headers = [pair for pair in answer.headers
                              if pair[0].lower() != rule.get("strip").lower()]
        if rule and "set" in rule:
            self.proxy.rules.count(rule)
            name, _, value = rule.get("set").partition(":")
            answer.headers = [pair for pair in answer.headers
                              if pair[0].lower() != name.lower()] + [(name, value)]
        await self.down.write(answer.encoded())
        flow = Flow(self.proxy, rule, "down", self.down)
        await flow.open()
        if has_body:
            async for piece, is_content in answer.body(self.server, True):
                await (flow.send(piece) if is_content else self.down.write(piece))


class Proxy:
    def __init__(self, options):
        url = options.toward if "://" in options.toward else "tcp://" + options.toward
        parts = urllib.parse.urlsplit(url)
        self.toward, self.layer = (parts.hostname, parts.port), options.layer
        self.server_tls = self.tls = None
        if parts.scheme == "https" and self.layer == "http":
            import ssl
            self.server_tls = ssl.create_default_context(cafile=options.toward_ca)
        self.scheme = "https" if options.tls or (
            parts.scheme == "https" and self.layer == "tcp") else "http"
        self.latency = options.latency / 1000
        self.rules = faults.Rules(ACTIONS, options.rule, options.seed)
        self.log, self.connections, self.open, self.is_online = [], 0, set(), False
        # A port that was asked for by number stays ours while nobody listens on it.
        with socket.socket() as first:
            first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            first.bind(("127.0.0.1", 0))
            self.port = first.getsockname()[1]
            self.listener = socket.socket()
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.listener.bind(("127.0.0.1", self.port))
        self.listener.setblocking(False)

    def note(self, *fields):
        number, method, path, rule = fields
        line = [number, method, path, "-", rule.text if rule else "-"]
        self.log.append(line)
        return line

    def go_online(self):
        if not self.is_online:
            self.is_online = True
            self.listener.listen(512)
            self.loop.add_reader(self.listener, self.accept)

    def go_offline(self):
        if self.is_online:
            self.is_online = False
            self.loop.remove_reader(self.listener)
            self.listener.shutdown(socket.SHUT_RDWR)
        for connection in list(self.open):
            connection.close(with_reset=True)

    def accept(self):
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            while True:
                endpoint, _ = self.listener.accept()
                self.connections += 1
                task = asyncio.ensure_future(self.serve(endpoint, self.connections))
                # The loop holds its tasks by a thread only.
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)

    async def serve(self, endpoint, number):
        endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = asyncio.StreamReader(limit=1 << 20)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await self.loop.connect_accepted_socket(
                lambda: protocol, endpoint, ssl=self.tls)
        except OSError:
            endpoint.close()
            return
        writer = asyncio.StreamWriter(transport, protocol, reader, self.loop)
        connection = Connection(self, number, reader, writer)
        self.open.add(connection)
        try:
            await connection.serve()
        finally:
            self.open.discard(connection)

    def on_loop(self, function):
        """A command that touches connections, run where they live; returns when it is done."""
        async def call():
            function()
        return lambda: asyncio.run_coroutine_threadsafe(call(), self.loop).result()

    async def serve_for_good(self, state, lines):
        self.loop, self.tasks = asyncio.get_running_loop(), set()
        # Connections that a fault has cut end in exceptions that are no news.
        self.loop.set_exception_handler(lambda *_: None)
        self.go_online()
        lines["CONTROL_PORT"] = service.open_control({
            "rules": lambda *texts: self.rules.set(*texts),
            "fired": self.rules.fired,
            "offline": self.on_loop(self.go_offline),
            "online": self.on_loop(self.go_online),
            "latency": lambda milliseconds: setattr(self, "latency", float(milliseconds) / 1000),
            "log": lambda: ["\t".join(map(str, line)) for line in list(self.log)],
            "reset": self.log.clear,
            "under-way": lambda: [str(Line.most_under_way)],
        })
        service.publish(state, lines)
        stop = asyncio.Event()
        self.loop.add_signal_handler(signal.SIGTERM, stop.set)
        await stop.wait()


def add_options(parser):
    parser.add_argument("--toward", required=True, metavar="SERVER")
    parser.add_argument("--layer", choices=["http", "tcp"], default="http")
    parser.add_argument("--tls", action="store_true", help="clients speak TLS to the proxy")
    parser.add_argument("--toward-ca", metavar="FILE", help="the CA of an https server")
    parser.add_argument("--latency", type=float, default=0, metavar="MILLISECONDS")
    parser.add_argument("--rule", action="append", default=[])
    parser.add_argument("--seed", type=int, default=1, help="for rules with prob=")


def serve(options, state):
    proxy = Proxy(options)
    lines = {"PROXY_PORT": proxy.port,
             "PROXY_ENDPOINT": f"{proxy.scheme}://127.0.0.1:{proxy.port}"}
    if options.tls:
        lines["PROXY_CA_FILE"] = service.make_certificate(state)
        proxy.tls = service.tls_server_context(state)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(proxy.serve_for_good(state, lines))


if __name__ == "__main__":
    service.run(__doc__, add_options, serve)
