"""Compares the event files in a folder with metrics.jsonl; with TensorBoard's own reader, too, where it is installed.
    event_reader.py EVENTS METRICS"""
import glob
import json
import struct
import sys


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def records(path):
    data = open(path, "rb").read()
    at = 0
    while at < len(data):
        length, crc = struct.unpack_from("<QI", data, at)
        assert crc == masked(data[at:at + 8]), f"{path}: checksum of a length"
        body = data[at + 12:at + 12 + length]
        (crc,) = struct.unpack_from("<I", data, at + 12 + length)
        assert len(body) == length and crc == masked(body), f"{path}: checksum of a record"
        yield body
        at += 16 + length


def fields(message):
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        tag = varint()
        if tag % 8 == 0:
            yield tag // 8, varint()
        else:
            size = {1: 8, 5: 4}.get(tag % 8) or varint()
            yield tag // 8, message[at:at + size]
            at += size


TAGS = {"loss": "loss/total", "cross_entropy": "loss/cross_entropy", "grad_norm": "optimizer/grad_norm",
        "num_tokens": "progress/num_tokens", "tokens_per_second": "speed/tokens_per_second",
        "memory_bytes": "memory/bytes", "load_max_over_mean": "experts/load_max_over_mean",
        "validation_loss": "loss/validation", "validation_accuracy": "accuracy/validation"}
wanted = {}
for line in open(sys.argv[2], encoding="utf-8"):
    entry = json.loads(line)
    for key, tag in TAGS.items():
        if key in entry and "event" not in entry:
            wanted[tag, entry["step"]] = struct.unpack("<f", struct.pack("<f", entry[key]))[0]

paths = sorted(glob.glob(sys.argv[1] + "/events.out.tfevents.*"))
found = {}
for path in paths:
    for event in map(dict, map(fields, records(path))):
        if 7 in event:  # a session starts: what an earlier one had from here on is void
            found = {key: value for key, value in found.items() if key[1] < event[2]}
        for number, value in fields(event.get(5, b"")):
            parts = dict(fields(value))
            found[parts[1].decode(), event[2]] = struct.unpack("<f", parts[2])[0]
tags = set(TAGS.values())
assert {k: v for k, v in found.items() if k[0] in tags} == wanted, "event files and metrics.jsonl differ"
assert any(tag.startswith("part_seconds/") for tag, _ in found)
try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError:
    print(f"{len(paths)} files; TensorBoard is not installed")
else:
    accumulator = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
    accumulator.Reload()
    read = {(tag, e.step): e.value for tag in accumulator.Tags()["scalars"] for e in accumulator.Scalars(tag)}
    assert {k: v for k, v in read.items() if k[0] in tags} == wanted, "TensorBoard reads something else"
    print(f"{len(paths)} files, as TensorBoard reads them")
