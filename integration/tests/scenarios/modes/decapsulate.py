"""Takes packets out of those around them and hands them to the kernel, as an ipip, ip6tnl or fou device would.

IP in IP (protocol 4, RFC 2003), IPv6 in IPv6 (protocol 41, RFC 2473), and GUE variant 1 (UDP port 6080) in both families.
What comes in has whole checksums, since whoever sends has no offloads; but for segments that GRO has merged here.
"""

import fcntl
import os
import select
import socket
import struct
import subprocess

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000
# Of a virtio-net header: the sum is to be made, from where, and where it stands in TCP's header.
NEEDS_CSUM = 1
IN_TCP = 16
MTU = 1500
GUE_PORT = 6080
# Datagrams around IPv6 packets have no checksum (RFC 6935).
UDP_NO_CHECK6_RX = 102
LONGEST = 65535

tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"inside", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
subprocess.run(["ip", "link", "set", "inside", "up"], check=True)

ipip = socket.socket(socket.AF_INET, socket.SOCK_RAW, 4)
ip6ip6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 41)
gue = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
gue.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
gue.setsockopt(socket.IPPROTO_UDP, UDP_NO_CHECK6_RX, 1)
gue.bind(("::", GUE_PORT))


def sums(packet):
    if len(packet) <= MTU:
        return bytes(10)
    header = (packet[0] & 15) * 4 if packet[0] >> 4 == 4 else 40
    return struct.pack("=BBHHHH", NEEDS_CSUM, 0, 0, 0, header, IN_TCP)


while True:
    for around in select.select([ipip, ip6ip6, gue], [], [])[0]:
        packet = around.recv(LONGEST)
        # Of IPv4 a raw socket hands out the header, too (raw(7)).
        begin = (packet[0] & 15) * 4 if around is ipip else 0
        os.write(tun, sums(packet[begin:]) + packet[begin:])
