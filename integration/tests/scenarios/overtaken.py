"""Sends a UDP datagram of 4,000 bytes in three fragments, the last one first, and waits until it comes back: ADDRESS PORT."""

import os
import socket
import struct
import sys

address, port = sys.argv[1], int(sys.argv[2])
is_v6 = ":" in address
family = socket.AF_INET6 if is_v6 else socket.AF_INET
payload = os.urandom(4000)
PIECE = 1400
IDENTIFICATION = 0x4C42


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF or 0xFFFF


def packet(part, offset, more):
    if is_v6:
        fragment = struct.pack("!BBHI", socket.IPPROTO_UDP, 0, offset | more, IDENTIFICATION)
        header = struct.pack("!IHBB", 6 << 28, len(fragment) + len(part), 44, 64)
        return header + source + destination + fragment + part
    # Total length and checksum are the kernel's to fill in (raw(7)).
    place = more << 13 | offset // 8
    header = struct.pack("!BBHHHBBH", 0x45, 0, 0, IDENTIFICATION, place, 64, socket.IPPROTO_UDP, 0)
    return header + source + destination + part


with socket.socket(family, socket.SOCK_DGRAM) as back, socket.socket(
    family, socket.SOCK_RAW, socket.IPPROTO_RAW
) as raw:
    back.settimeout(10)
    back.connect((address, port))
    own, own_port = back.getsockname()[:2]
    source, destination = (socket.inet_pton(family, end) for end in (own, address))
    length = 8 + len(payload)
    datagram = struct.pack("!HHHH", own_port, port, length, 0) + payload
    pseudo = source + destination + struct.pack("!IHBB", length, 0, 0, socket.IPPROTO_UDP)
    datagram = datagram[:6] + struct.pack("!H", checksum(pseudo + datagram)) + payload
    for offset in reversed(range(0, length, PIECE)):
        part = datagram[offset : offset + PIECE]
        raw.sendto(packet(part, offset, int(offset + PIECE < length)), (address, 0))
    assert back.recv(65535) == payload
