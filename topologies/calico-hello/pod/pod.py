"""An HTTP server that names itself, and a UDP server on the same port whose datagrams come back as they went.

GET /                          the pod's name
GET /source                    the address that the request came from
GET /stream/BLOCKS/PER_SECOND  BLOCKS blocks of 1 KiB, at most PER_SECOND of them a second;
                               every block is its number, eight digits, 128 times over
"""

import os
import socket
import socketserver
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME = os.environ.get("POD_NAME", os.uname().nodename)
MAX_BLOCKS = 99_999_999
BLOCKS_AT_ONCE = 16


class Pod(BaseHTTPRequestHandler):
    def do_GET(self):
        parts = self.path.strip("/").split("/")
        if parts in ([""], ["source"]):
            source = self.client_address[0].removeprefix("::ffff:")
            answer = f"{NAME if parts == [''] else source}\n".encode()
            self.begin(len(answer))
            self.wfile.write(answer)
        elif len(parts) == 3 and parts[0] == "stream":
            self.stream(min(int(parts[1]), MAX_BLOCKS), max(int(parts[2]), 1))
        else:
            self.send_error(404)

    def begin(self, length):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(length))
        self.send_header("X-Pod", NAME)
        self.end_headers()

    def stream(self, blocks, per_second):
        self.begin(blocks * 1024)
        start = time.monotonic()
        for first in range(0, blocks, BLOCKS_AT_ONCE):
            last = min(first + BLOCKS_AT_ONCE, blocks)
            self.wfile.write(b"".join(b"%08d" % number * 128 for number in range(first, last)))
            ahead = last / per_second - (time.monotonic() - start)
            if ahead > 0:
                time.sleep(ahead)

    def log_message(self, form, *arguments):
        print(f"{self.client_address[0]}:{self.client_address[1]} {form % arguments}")


class Server(ThreadingHTTPServer):
    # Of both families: IPv4 clients come mapped.
    address_family = socket.AF_INET6
    daemon_threads = True
    request_queue_size = 1024

    # The base class looks up its own name in the DNS, which a pod may not have.
    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = NAME, self.server_address[1]


def echo():
    udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    udp.bind(("::", 8080))
    while True:
        datagram, client = udp.recvfrom(65535)
        udp.sendto(datagram, client)


threading.Thread(target=echo, daemon=True).start()
Server(("::", 8080), Pod).serve_forever()
