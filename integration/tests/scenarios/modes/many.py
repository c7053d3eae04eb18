"""Many connections at a time, a part of them for each process, since each has so many descriptors at most.

many.py serve ADDRESS PORT             takes connections and says back the four bytes that come through each
many.py connect ADDRESS PORT FIRST N   makes N from the ports FIRST on, says this through each, and checks that it comes back

Both hold them until they are ended, and then end each by a RST.
"""

import resource
import signal
import socket
import struct
import sys

BACKLOG = 4096
NO_GOODBYE = struct.pack("ii", 1, 0)

_, role, address, port, *rest = sys.argv
family = socket.AF_INET6 if ":" in address else socket.AF_INET
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
held = []


def hold(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_GOODBYE)
    held.append(connection)


def serve():
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((address, int(port)))
    listener.listen(BACKLOG)
    while True:
        connection, _ = listener.accept()
        connection.sendall(connection.recv(4, socket.MSG_WAITALL))
        hold(connection)


def connect(first, count):
    # The kernel's own search for a port takes a millisecond where most are in use.
    for own in range(first, first + count):
        connection = socket.create_connection((address, int(port)), source_address=("", own))
        connection.sendall(struct.pack("!I", own))
        hold(connection)
    for own, connection in enumerate(held, first):
        back = connection.recv(4, socket.MSG_WAITALL)
        if back != struct.pack("!I", own):
            sys.exit(f"{own} heard {back}")
    print(f"{count} held", flush=True)
    signal.pause()


serve() if role == "serve" else connect(*map(int, rest))
