"""HTTP/1.1 for the server: one thread a connection, bodies streamed, no dependence on http.server.

The standard library's own server spends most of a small request's time on parsing headers.
"""

import email.utils
import http.client
import socket
import struct

from .errors import S3Error

HEAD_LIMIT = 65536
BUFFER_BYTES = 1 << 20


class Closed(Exception):
    """The client is gone, or has to go."""


class Request:
    """The head of a request, and a reader for its body."""

    def __init__(self, connection, method, target, headers):
        self.connection, self.method, self.target, self.headers = connection, method, target, headers
        self.raw_path, _, self.raw_query = target.partition("?")
        self.length = int(headers["content-length"]) if "content-length" in headers else None
        self.unread = self.length or 0
        self.received = 0
        self.expects_continue = headers.get("expect", "").lower() == "100-continue"
        self.keeps_alive = headers.get("connection", "").lower() != "close"
        # Filled in by whoever answers.
        self.path, self.query, self.bucket, self.key, self.operation = "", [], "", "", ""
        self.is_admitted = False

    def pieces(self):
        """The body, piece by piece; each piece is valid until the next is asked for."""
        if self.expects_continue and self.unread:
            self.connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.expects_continue = False
        while self.unread:
            piece = self.connection.receive(self.unread)
            if not piece:
                raise Closed
            self.unread -= len(piece)
            self.received += len(piece)
            yield piece

    def body(self, limit):
        if self.unread > limit:
            raise S3Error("EntityTooLarge", "Your proposed upload exceeds the maximum allowed size.")
        return b"".join(bytes(piece) for piece in self.pieces())

    def skip_body(self):
        """Reads the rest for nothing, so that the answer arrives and the connection can be kept."""
        if self.expects_continue:
            # The client may or may not send it now; only a new connection is certain.
            self.keeps_alive = False
        else:
            for _ in self.pieces():
                pass


class Connection:
    def __init__(self, endpoint, number):
        self.endpoint, self.number = endpoint, number
        self.buffer = memoryview(bytearray(BUFFER_BYTES))
        self.start = self.end = 0         # what of the buffer is received and not yet used

    def send(self, data):
        try:
            self.endpoint.sendall(data)
        except OSError:
            raise Closed from None

    def receive(self, limit):
        """At least one byte, at most `limit`; nothing at the end."""
        if self.start == self.end:
            try:
                self.start, self.end = 0, self.endpoint.recv_into(self.buffer)
            except OSError:
                raise Closed from None
        count = min(limit, self.end - self.start)
        piece = self.buffer[self.start:self.start + count]
        self.start += count
        return piece

    def read_request(self):
        """The next request; None where the client has closed between two."""
        head = bytearray()
        while True:
            piece = self.receive(BUFFER_BYTES)
            if not piece:
                if head:
                    raise Closed
                return None
            searched = max(0, len(head) - 3)
            head += piece
            at = head.find(b"\r\n\r\n", searched)
            if at >= 0:
                self.start -= len(head) - at - 4
                return self.parse(head[:at].decode("latin-1"))
            if len(head) > HEAD_LIMIT:
                raise S3Error("InvalidRequest", "The head of the request is too large.")

    def parse(self, head):
        lines = head.split("\r\n")
        words = lines[0].split(" ")
        if len(words) != 3 or words[2] != "HTTP/1.1" or not words[1].startswith("/"):
            raise S3Error("InvalidRequest", f"This is no HTTP/1.1 request line: {lines[0]!r}")
        headers = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon or name != name.strip() or not name:
                raise S3Error("InvalidRequest", f"This is no header: {line!r}")
            name, value = name.lower(), value.strip()
            if name in headers:
                if name in ("content-length", "host", "authorization"):
                    raise S3Error("InvalidRequest", f"There is more than one {name} header.")
                value = f"{headers[name]},{value}"
            headers[name] = value
        if not headers.get("content-length", "0").isdigit():
            raise S3Error("InvalidRequest", "Content-Length is not a number.")
        return Request(self, words[0], words[1], headers)

    def send_head(self, status, headers, now):
        lines = [f"HTTP/1.1 {status} {http.client.responses.get(status, 'Status')}",
                 f"Date: {email.utils.formatdate(now, usegmt=True)}", "Server: StrictS3"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace"))

    def reset(self):
        """Cuts the connection off as a crashed machine's successor would: with a reset."""
        try:
            self.endpoint.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
        raise Closed
