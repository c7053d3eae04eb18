"""Says back what it hears: on a connection once all of it has come, and datagrams one by one, from the address that they went to.

echo.py PORT
"""

import socket
import sys
import threading

PORT = int(sys.argv[1])
# An address and an interface (RFC 3542 section 6.1); IPv4's come mapped.
PACKET_INFO = 20
ADDRESS = 16


def converse(connection):
    with connection:
        said = b"".join(iter(lambda: connection.recv(65536), b""))
        connection.sendall(said)


def take_connections(listener):
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=converse, args=(connection,), daemon=True).start()


datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
datagrams.bind(("::", PORT))
listener = socket.create_server(("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True)
threading.Thread(target=take_connections, args=(listener,), daemon=True).start()
print("listens", flush=True)

while True:
    said, about, _, client = datagrams.recvmsg(65535, socket.CMSG_SPACE(PACKET_INFO))
    # Out of whichever interface leads there.
    source = [(level, kind, info[:ADDRESS] + bytes(4)) for level, kind, info in about]
    datagrams.sendmsg([said], source, 0, client)
