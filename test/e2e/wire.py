# The wires between the hosts of a test: takes each Ethernet frame from one network device to all others, late by so many milliseconds,
# and loses some. It is what `tc netem` does, for kernels that have none. With `plain DEVICE` it only makes a device send frames that a
# wire can carry: whole, no larger than its MTU, with their checksums.
#
# Usage: wire.py plain DEVICE | wire.py carry DELAY_MS LOSS SEED DEVICE...

import array
import collections
import fcntl
import random
import selectors
import socket
import struct
import sys
import time

ETH_P_ALL = 3
SIOCETHTOOL = 0x8946
SEND_CHECKSUM, SCATTER_GATHER, TCP_SEGMENTS, GENERIC_SEGMENTS = 0x17, 0x19, 0x1F, 0x24


def plain(device):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for feature in (TCP_SEGMENTS, GENERIC_SEGMENTS, SEND_CHECKSUM, SCATTER_GATHER):
            wish = array.array("B", struct.pack("II", feature, 0))
            request = struct.pack("16sP", device.encode(), wish.buffer_info()[0])
            fcntl.ioctl(control, SIOCETHTOOL, request)


def port(device):
    one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    one.bind((device, 0))
    one.setblocking(False)
    return one


def carry(delay, loss, chance, devices):
    ports = [port(device) for device in devices]
    selector = selectors.DefaultSelector()
    for one in ports:
        selector.register(one, selectors.EVENT_READ)
    # Every frame is late by the same time, so the first one in is the first one out.
    waiting = collections.deque()
    print("ready", flush=True)
    while True:
        timeout = max(0, waiting[0][0] - time.monotonic()) if waiting else None
        for key, _ in selector.select(timeout):
            try:
                while True:
                    frame, (_, _, kind, _, _) = key.fileobj.recvfrom(65536)
                    if kind != socket.PACKET_OUTGOING and chance.random() >= loss:
                        waiting.append((time.monotonic() + delay, key.fileobj, frame))
            except BlockingIOError:
                pass
            except OSError:
                pass  # its device is down: a cable that is pulled
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, source, frame = waiting.popleft()
            for one in ports:
                if one is not source:
                    try:
                        one.send(frame)
                    except OSError:
                        pass


if sys.argv[1] == "plain":
    plain(sys.argv[2])
else:
    carry(float(sys.argv[2]) / 1000, float(sys.argv[3]), random.Random(int(sys.argv[4])), sys.argv[5:])
