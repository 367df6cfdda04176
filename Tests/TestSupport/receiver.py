#!/usr/bin/env python3
"""Receives notifications: an HTTP and an SMTP server on ports of 127.0.0.1, until its standard
input ends. Prints both ports, then a JSON line for each request or mail.

    receiver.py [--http STATUS,STATUS,...] [--smtp CODE,CODE,...] [--together N]
                [--certificate FILE --key FILE]

The statuses and codes answer one request after the other; the last one answers all that follow. An
HTTP status of 0 closes the connection without an answer, one of 1 never answers. With --together N
no request is answered before N are there. With a certificate SMTP begins in TLS.
"""

import argparse
import json
import socket
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

lock = threading.Lock()


def say(**fields):
    with lock:
        print(json.dumps(fields), flush=True)


class Answers:
    def __init__(self, text):
        self.rest = [int(word) for word in text.split(",")]

    def next(self):
        with lock:
            return self.rest.pop(0) if len(self.rest) > 1 else self.rest[0]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        say(kind="http", path=self.path, body=body.decode(),
            headers={name.lower(): value for name, value in self.headers.items()})
        if self.server.gate:
            self.server.gate.wait()
        status = self.server.answers.next()
        if status == 1:
            # Until the client has had enough of it.
            self.connection.recv(1)
            return
        if status == 0:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def smtp_session(connection, answers):
    """One conversation. Offers no STARTTLS, and AUTH PLAIN whether or not it is safe."""
    stream = connection.makefile("rwb")

    def reply(line):
        stream.write(line.encode() + b"\r\n")
        stream.flush()

    seen = {"commands": [], "receivers": []}
    reply("220 receiver")
    while True:
        line = stream.readline().decode().strip()
        if not line:
            break
        seen["commands"].append(line)
        verb = line.split(" ")[0].upper()
        if verb == "EHLO":
            reply("250-receiver")
            reply("250 AUTH PLAIN")
        elif verb == "AUTH":
            if line.count(" ") < 2:
                reply("334 ")
                seen["commands"].append(stream.readline().decode().strip())
            reply("235 welcome")
        elif verb == "MAIL":
            seen["sender"] = line
            reply("250 so be it")
        elif verb == "RCPT":
            seen["receivers"].append(line)
            reply("250 so be it")
        elif verb == "DATA":
            reply("354 go on")
            data = b""
            while not data.endswith(b"\r\n.\r\n"):
                data += stream.readline()
            seen["data"] = data[:-5].replace(b"\r\n..", b"\r\n.").decode()
            code = answers.next()
            reply(f"{code} noted")
        elif verb == "QUIT":
            reply("221 farewell")
            break
        else:
            reply("502 what?")
    say(kind="smtp", **seen)


def smtp_server(listener, answers, context):
    while True:
        connection, _ = listener.accept()

        def serve(connection=connection):
            try:
                if context:
                    connection = context.wrap_socket(connection, server_side=True)
                smtp_session(connection, answers)
            except OSError as error:
                say(kind="broken", error=str(error))
            finally:
                connection.close()

        threading.Thread(target=serve, daemon=True).start()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--http", default="200")
    parser.add_argument("--smtp", default="250")
    parser.add_argument("--together", type=int, default=0)
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    options = parser.parse_args()
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.answers = Answers(options.http)
    http.gate = threading.Barrier(options.together) if options.together else None
    threading.Thread(target=http.serve_forever, daemon=True).start()
    listener = socket.create_server(("127.0.0.1", 0))
    context = None
    if options.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certificate, options.key)
    threading.Thread(
        target=smtp_server, args=(listener, Answers(options.smtp), context), daemon=True).start()
    say(kind="ports", http=http.server_port, smtp=listener.getsockname()[1])
    sys.stdin.read()


if __name__ == "__main__":
    main()
