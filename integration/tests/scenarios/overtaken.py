"""UDP datagrams in three fragments, the last one first.

ADDRESS PORT: sends one of 4,000 bytes there, and waits until it comes back.
answer FAMILY PORT: sends what comes to this port, IPv4 (4) or IPv6 (6), back so.
"""

import os
import socket
import struct
import sys

PIECE = 1400


def checksum(data):
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF or 0xFFFF


def packet(source, destination, number, part, offset, more):
    if len(source) == 16:
        fragment = struct.pack("!BBHI", socket.IPPROTO_UDP, 0, offset | more, number)
        header = struct.pack("!IHBB", 6 << 28, len(fragment) + len(part), 44, 64)
        return header + source + destination + fragment + part
    # Total length and checksum are the kernel's to fill in (raw(7)).
    place = more << 13 | offset // 8
    header = struct.pack("!BBHHHBBH", 0x45, 0, 0, number, place, 64, socket.IPPROTO_UDP, 0)
    return header + source + destination + part


def send(raw, own, other, payload):
    source, destination = (socket.inet_pton(raw.family, end[0]) for end in (own, other))
    length = 8 + len(payload)
    datagram = struct.pack("!HHHH", own[1], other[1], length, 0) + payload
    pseudo = source + destination + struct.pack("!IHBB", length, 0, 0, socket.IPPROTO_UDP)
    datagram = datagram[:6] + struct.pack("!H", checksum(pseudo + datagram)) + payload
    # A first fragment speaks for others of its number for half a minute.
    number = int.from_bytes(os.urandom(2), "big") or 1
    for offset in reversed(range(0, length, PIECE)):
        part = datagram[offset : offset + PIECE]
        more = int(offset + PIECE < length)
        raw.sendto(packet(source, destination, number, part, offset, more), (other[0], 0))


def raw_socket(family):
    return socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)


def ask(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    payload = os.urandom(4000)
    with socket.socket(family, socket.SOCK_DGRAM) as back, raw_socket(family) as raw:
        back.settimeout(10)
        back.connect((address, port))
        send(raw, back.getsockname(), (address, port), payload)
        assert back.recv(65535) == payload


def answer(family, port):
    with socket.socket(family, socket.SOCK_DGRAM) as asked, raw_socket(family) as raw:
        asked.bind(("", port))
        while True:
            payload, other = asked.recvfrom(65535)
            with socket.socket(family, socket.SOCK_DGRAM) as own:
                own.connect(other)
                send(raw, (own.getsockname()[0], port), other, payload)


if sys.argv[1] == "answer":
    answer(socket.AF_INET6 if sys.argv[2] == "6" else socket.AF_INET, int(sys.argv[3]))
else:
    ask(sys.argv[1], int(sys.argv[2]))
