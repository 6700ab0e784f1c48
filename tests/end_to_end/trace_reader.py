"""Checks a trace of RUN/traces as Chrome's trace format asks, and that it shows what the ranks did.
    trace_reader.py TRACE RANKS FIRST LAST"""
import json
import sys

path, ranks, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
trace = json.load(open(path, encoding="utf-8"))
events = trace["traceEvents"]
spans = [e for e in events if e["ph"] == "X"]
assert {e["pid"] for e in events} == set(range(ranks)), "a process for each rank"
assert all(e["dur"] >= 0 for e in spans)

# Of one track: in order of their begins, each lies in the one before, or behind it.
for track in {(e["pid"], e["tid"]) for e in spans}:
    open_ends = []
    for e in sorted((e for e in spans if (e["pid"], e["tid"]) == track), key=lambda e: (e["ts"], -e["dur"])):
        begin, end = e["ts"], e["ts"] + e["dur"]
        while open_ends and open_ends[-1] <= begin + 2e-3:  # written to a nanosecond
            open_ends.pop()
        assert not open_ends or end <= open_ends[-1] + 2e-3, f"{e} overlaps on {track}"
        open_ends.append(end)
    name = [e["args"]["name"] for e in events if e["ph"] == "M" and (e["pid"], e["tid"]) == track]
    assert any(n.startswith(("computation", "exchanges")) for n in name), f"track {track} has the names {name}"

for rank in range(ranks):
    mine = [e for e in spans if e["pid"] == rank]
    steps = sorted((e for e in mine if e["cat"] == "step"), key=lambda e: e["ts"])
    assert [e["args"]["step"] for e in steps] == list(range(first, last + 1)), steps
    for step in steps:
        inside = [e for e in mine if e["cat"] == "computation" and e["args"]["step"] == step["args"]["step"]]
        parts = {e["name"] for e in inside}
        assert {"attention", "router", "experts", "head", "optimizer"} <= parts, parts
        assert {e["args"].get("layer") for e in inside} >= {None, 0, 1}, "layers"
        assert {e["args"].get("pass") for e in inside} >= {"forward", "backward"}
        covered = sum(e["dur"] for e in inside)
        assert abs(covered - step["dur"]) < 0.01 * step["dur"] + 1, f"parts cover {covered} of {step['dur']} us"
    exchanges = [e for e in mine if e["cat"] == "exchange"]
    if ranks > 1:
        assert any(e["args"]["operation"] == "all_to_all" and e["args"]["bytes_sent"] > 0 for e in exchanges)
        assert all(e["args"]["waited_us"] <= e["dur"] + 1e-3 for e in exchanges)

# One clock: a rank cannot leave an exchange of all before another has entered it.
if ranks > 1:
    begins = [min(e["ts"] for e in spans if e["pid"] == r and e["cat"] == "step") for r in range(ranks)]
    ends = [max(e["ts"] + e["dur"] for e in spans if e["pid"] == r and e["cat"] == "step") for r in range(ranks)]
    assert max(begins) < min(ends), "steps of the ranks do not overlap"

# Perfetto's own message classes take every event with the types that they ask, where its package is installed.
try:
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace
except ImportError:
    print(f"{len(spans)} spans; Perfetto's package is not installed")
    sys.exit()


def taken(message, event):
    """The event in Perfetto's ChromeTraceEvent, whose times are whole microseconds."""
    message.name, message.phase = event["name"], ord(event["ph"])
    message.process_id, message.thread_id = event["pid"], event["tid"]
    if event["ph"] == "X":
        message.timestamp, message.duration = round(event["ts"]), round(event["dur"])
        message.category_group_name = event["cat"]
    for name, value in event.get("args", {}).items():
        arg = message.args.add(name=name)
        setattr(arg, {str: "string_value", int: "int_value", float: "double_value", bool: "bool_value"}[type(value)], value)


message = Trace()
packet = message.packet.add()
for event in events:
    taken(packet.chrome_events.trace_events.add(), event)
back = Trace.FromString(message.SerializeToString()).packet[0].chrome_events.trace_events
assert [(e.name, chr(e.phase), e.process_id, e.thread_id) for e in back] == [
    (e["name"], e["ph"], e["pid"], e["tid"]) for e in events]
assert sum(e.duration for e in back) == sum(round(e["dur"]) for e in spans)
print(f"{len(spans)} spans, as Perfetto's message classes take them")
