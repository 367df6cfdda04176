"""The server: connections, who may do what, faults, and the log of what was asked."""

import os
import re
import secrets
import socket
import ssl
import threading
import time

import faults

from .checksums import PayloadCheck
from .errors import S3Error
from .http import Closed, Connection
from .operations import BODY_LIMIT, Answer, Operations
from .routing import OPERATIONS, check_what_is_said, route
from .signature import Verifier, encode
from .storage import Storage

ACTIONS = ("status", "retry-after", "lost", "flip", "cut", "stall", "delay", "garbage")
LOGGED_HEADERS = re.compile(r"x-amz-(?!date|content|security)|content-md5|range|if-|user-agent")


def snake_case(name):
    return re.sub(r"(?<=[a-z0-9])([A-Z])|(?<!^)([A-Z])(?=[a-z])", r"_\1\2", name).lower()


class Log:
    """One line for each request, to be read and to be emptied."""

    def __init__(self):
        self.lock, self.lines = threading.Lock(), []
        self.running = self.peak = self.admitted = 0

    def begin(self):
        with self.lock:
            self.running += 1
            self.peak = max(self.peak, self.running)

    def admit(self, request, capacity):
        """Whether there is room for one more of those that are being answered."""
        with self.lock:
            request.is_admitted = capacity is None or self.admitted < capacity
            self.admitted += request.is_admitted
        return request.is_admitted

    def end(self, request, status, code, sent, connection, rule):
        headers = "&".join(f"{encode(n)}={encode(v)}" for n, v in request.headers.items()
                           if LOGGED_HEADERS.match(n))
        fields = (request.operation or "-", request.method, request.bucket or "-",
                  encode(request.key, safe="/") or "-", request.raw_query or "-", status,
                  code or "-", request.received, sent, connection,
                  rule.text if rule else "-", headers or "-")
        with self.lock:
            self.running -= 1
            self.admitted -= request.is_admitted
            self.lines.append("\t".join(map(str, fields)))

    def read(self):
        with self.lock:
            return list(self.lines)

    def reset(self):
        with self.lock:
            self.lines.clear()
            self.peak = self.running


class Server:
    def __init__(self, state, options):
        self.region, self.offset = options.region, 0
        self.styles = {"both": ("path", "virtual")}.get(options.style, (options.style,))
        self.allows_unsigned = options.allow_unsigned_payload
        self.storage = Storage(state)
        self.verifier = Verifier(options.region, self.clock)
        self.operations = Operations(self.storage, self.clock, self.authorize, options.page)
        self.rules = faults.Rules(ACTIONS, options.fault, options.seed)
        self.log, self.denied = Log(), []
        self.region_answer, self.redirect, self.capacity = "malformed", None, None
        self.connections = 0
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.listener.getsockname()[1]
        self.tls = None

    def clock(self):
        return time.time() + self.offset

    def serve_for_good(self):
        while True:
            endpoint, _ = self.listener.accept()
            self.connections += 1
            threading.Thread(target=self.serve_connection, daemon=True,
                             args=(endpoint, self.connections)).start()

    def serve_connection(self, endpoint, number):
        try:
            endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls:
                endpoint = self.tls.wrap_socket(endpoint, server_side=True)
            connection = Connection(endpoint, number)
            while self.serve_request(connection):
                pass
        except (Closed, OSError, ssl.SSLError):
            pass
        finally:
            endpoint.close()

    def serve_request(self, connection):
        """Answers one request; says whether the connection is kept."""
        try:
            request = connection.read_request()
        except S3Error as error:
            body = error.body("", "0")
            connection.send_head(error.status, {"Content-Length": len(body),
                                                "Connection": "close"}, self.clock())
            connection.send(body)
            return False
        if request is None:
            return False
        self.log.begin()
        answer = Answer(0)
        code = rule = None
        try:
            try:
                rule = self.prepare(request, connection.number)
                answer = self.perform(request, rule)
            except S3Error as error:
                code = error.code
                answer = self.refusal(request, error)
            if request.unread:
                request.skip_body()
            return self.send(connection, request, answer, rule)
        finally:
            self.log.end(request, answer.status, code, answer.length, connection.number, rule)

    def refusal(self, request, error):
        body = error.body(request.path, secrets.token_hex(8).upper())
        headers = {"Content-Type": "application/xml", **error.headers}
        if request.expects_continue:
            headers["Connection"] = "close"
        return Answer(error.status, headers, body)

    def prepare(self, request, connection):
        """What is judged from the head of a request alone. Gives the fault that it shall meet."""
        if "transfer-encoding" in request.headers:
            request.keeps_alive = False
            raise S3Error("NotImplemented", "A header you provided implies functionality that is "
                          "not implemented: Transfer-Encoding", {"Header": "Transfer-Encoding"})
        route(request, self.styles)
        rule = self.rules.find(method=request.method, op=request.operation, path=request.target,
                               conn=connection)
        if request.method in ("PUT", "POST") and request.length is None:
            request.keeps_alive = False
            raise S3Error("MissingContentLength",
                          "You must provide the Content-Length HTTP header.")
        if self.redirect:
            raise S3Error("TemporaryRedirect", "Please re-send this request to the specified "
                          "temporary endpoint.", {"Endpoint": self.redirect},
                          {"Location": f"{self.scheme}://{self.redirect}{request.target}"})
        if not self.log.admit(request, self.capacity):
            raise S3Error("SlowDown", "Please reduce your request rate.")
        if rule and "delay" in rule:
            self.rules.count(rule)
            time.sleep(rule.get("delay"))
        if rule and "status" in rule:
            self.rules.count(rule)
            status, _, name = rule.get("status").partition(":")
            headers = {}
            if "retry-after" in rule:
                headers["Retry-After"] = int(rule.get("retry-after"))
            raise S3Error(name or ("SlowDown" if status == "503" else "InternalError"),
                          "Please reduce your request rate." if status == "503"
                          else "We encountered an internal error. Please try again.",
                          headers=headers, status=int(status))
        signed_hash, region = self.verifier.verify(request)
        self.check_region(request, region)
        check_what_is_said(request)
        action = OPERATIONS[request.operation][1]
        # Deleting is judged key by key, with what the version adds to it.
        if action != "s3:DeleteObject":
            self.authorize(action, request.bucket, request.key)
        # A presigned request cannot know a hash; without a body there is nothing to be altered.
        is_harmless = not request.length and "authorization" not in request.headers
        request.check = PayloadCheck(
            request.headers, signed_hash, self.allows_unsigned or is_harmless)
        return rule

    def check_region(self, request, signed_region):
        bucket = self.storage.buckets.get(request.bucket)
        region = bucket.region if bucket else self.region
        if signed_region == region:
            return
        headers = {"x-amz-bucket-region": region}
        if self.region_answer == "redirect":
            raise S3Error("PermanentRedirect", "The bucket you are attempting to access must be "
                          "addressed using the specified endpoint. Please send all future "
                          "requests to this endpoint.",
                          {"Endpoint": request.headers["host"], "Bucket": request.bucket}, headers)
        raise S3Error("AuthorizationHeaderMalformed",
                      f"The authorization header is malformed; the region '{signed_region}' is "
                      f"wrong; expecting '{region}'", {"Region": region}, headers)

    def authorize(self, action, bucket, key):
        for denied, prefix in self.denied:
            if denied in (action, "s3:*") and key.startswith(prefix):
                raise S3Error("AccessDenied", "User: arn:aws:iam::123456789012:user/tester is not "
                              f"authorized to perform: {action} on resource: "
                              f"\"arn:aws:s3:::{bucket}{'/' + key if key else ''}\" because no "
                              "identity-based policy allows the action")

    def perform(self, request, rule):
        operation = getattr(self.operations, snake_case(request.operation))
        if request.operation == "PutObject":
            return operation(request, request.check)
        request.checked_body = request.body(BODY_LIMIT)
        request.check.update(request.checked_body)
        request.check.finish()
        if request.operation == "CreateBucket":
            return operation(request, request.check, self.region)
        with self.storage.lock:
            return operation(request, request.check)

    # ---- answering ----

    def send(self, connection, request, answer, rule):
        if rule and "lost" in rule:
            self.rules.count(rule)
            connection.reset()
        if rule and "garbage" in rule:
            self.rules.count(rule)
            answer = Answer(200, {"Content-Type": "text/html"}, b"<html><p>It works!</html>")
        headers = {"x-amz-request-id": secrets.token_hex(8).upper(),
                   "x-amz-id-2": secrets.token_hex(20), **answer.headers}
        if answer.status not in (204, 304):
            headers["Content-Length"] = answer.length
        keeps_alive = request.keeps_alive and headers.get("Connection") != "close"
        if not keeps_alive:
            headers["Connection"] = "close"
        connection.send_head(answer.status, headers, self.clock())
        if request.method != "HEAD" and answer.status not in (204, 304) and answer.length:
            if rule and any(name in rule for name in ("flip", "cut", "stall")):
                self.send_faulty(connection, self.read_body(answer), rule)
            elif answer.part is None:
                connection.send(answer.body)
            else:
                with open(answer.part[0], "rb") as file:
                    connection.endpoint.sendfile(file, answer.part[1], answer.part[2])
        return keeps_alive

    @staticmethod
    def read_body(answer):
        if answer.part is None:
            return answer.body
        with open(answer.part[0], "rb") as file:
            file.seek(answer.part[1])
            return file.read(answer.part[2])

    def send_faulty(self, connection, body, rule):
        body = bytearray(body)
        at = int(rule.get("flip", -1))
        if 0 <= at < len(body):
            self.rules.count(rule)
            body[at] ^= 1
        for name in ("cut", "stall"):
            if name in rule and rule.get(name) < len(body):
                connection.send(body[:int(rule.get(name))])
                self.rules.count(rule)
                if name == "stall":
                    connection.endpoint.settimeout(3600)
                    connection.receive(1)    # until the client gives up
                raise Closed
        connection.send(body)

    # ---- what a test may tell it ----

    @property
    def scheme(self):
        return "https" if self.tls else "http"

    def commands(self):
        return {
            "log": self.log.read,
            "reset": self.log.reset,
            "peak": lambda: [str(self.log.peak), str(self.connections)],
            "rules": lambda *texts: self.rules.set(*texts),
            "fired": self.rules.fired,
            "deny": self.deny,
            "clock": lambda seconds: setattr(self, "offset", float(seconds)),
            "region-answer": lambda kind: setattr(self, "region_answer", kind),
            "redirect": lambda to="": setattr(self, "redirect", to or None),
            "capacity": lambda n="": setattr(self, "capacity", int(n) if n else None),
            "page": lambda n: setattr(self.operations.listing, "page_limit", int(n)),
            "bucket": self.add_bucket,
            "key": self.add_key,
            "revoke": lambda key: self.verifier.keys.pop(key, None) and None,
            "objects": self.objects,
            "alter": self.alter,
        }

    def deny(self, *rules):
        """From now on these actions are denied, no others; `s3:PutObject:bundles/` below a prefix."""
        denied = []
        for rule in rules:
            service, _, rest = rule.partition(":")
            action, _, prefix = rest.partition(":")
            denied.append((f"{service}:{action}", prefix))
        self.denied = denied

    def add_bucket(self, name, *traits):
        """Traits: lock, versioned, region=NAME, retain=MODE:DAYS."""
        values = dict(trait.partition("=")[::2] for trait in traits)
        with self.storage.lock:
            self.storage.create_bucket(name, values.get("region", self.region), self.clock(),
                                       "lock" in values)
            if "versioned" in values:
                self.storage.configure_bucket(name, versioning="Enabled")
            if "retain" in values:
                mode, _, days = values["retain"].partition(":")
                self.storage.configure_bucket(name, default_retention=[mode, int(days)])

    def add_key(self, access_key, secret, token="-", seconds="-"):
        """A further access key, with a session token and a life where they are given."""
        expiry = None if seconds == "-" else self.clock() + float(seconds)
        self.verifier.keys[access_key] = (secret, None if token == "-" else token, expiry)

    def objects(self, bucket):
        """What is stored, without asking as a client: size, ETag and name of each object."""
        with self.storage.lock:
            home = self.storage.buckets[bucket]
            return [f"{home.current(n).size}\t{home.current(n).etag}\t{encode(n, safe='/')}"
                    for n in home.names if home.current(n)]

    def alter(self, bucket, key, how, at="0"):
        """Damages an object behind the server's back: flip, truncate or remove."""
        with self.storage.lock:
            version = self.storage.buckets[bucket].current(key)
            if version is None:
                raise ValueError(f"there is no {key} in {bucket}")
            path, at = self.storage.path(version.file), int(at)
            if how == "flip":
                with open(path, "r+b") as file:
                    file.seek(at)
                    byte = file.read(1)[0]
                    file.seek(at)
                    file.write(bytes([byte ^ 1]))
            elif how == "truncate":
                os.truncate(path, at)
                self.storage.change_version(bucket, key, version.id, size=at)
            elif how == "remove":
                self.storage.remove_version(bucket, key, version.id)
            else:
                raise ValueError("an object can be altered by flip, truncate or remove")
