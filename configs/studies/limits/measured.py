"""What the study of limits has measured: rows of its points, with names of kinds and bytes of state."""
import csv
import json
import math
import os
import re
import statistics


def rows_of(path):
    if not os.path.exists(path):
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def number(text):
    return float(text) if text not in ("", None) else math.nan


def entry(mixer, key, otherwise=0):
    found = re.search(rf"\b{key}: (\w+)", mixer)
    if not found:
        return otherwise
    return int(found[1]) if found[1].isdigit() else found[1]


def kind_of(mixer):
    """A name for a mixer of one entry: "window 64", "linear taylor"."""
    kind = entry(mixer, "kind", "full")
    if kind == "window":
        globals_ = entry(mixer, "globals")
        return f"window {entry(mixer, 'window')}" + (f" + {globals_} first" if globals_ else "")
    if kind == "linear":
        return f"linear {entry(mixer, 'features', 'elu')}"
    if kind == "infini":
        return f"infini {entry(mixer, 'segment')}"
    if kind == "segment":
        return f"segment {entry(mixer, 'length', 256)} + {entry(mixer, 'memory', 256)}"
    if kind == "blocks":
        return entry(mixer, "pattern", "bigbird")
    return kind + (" negative" if entry(mixer, "negative_eigenvalues", "false") == "true" else "")


def state_bytes(mixer, layers, heads, head_dim, length):
    """fp32 bytes that generation keeps of a sequence of `length` tokens (docs/mixers.md), without the convolution's rows."""
    kind = entry(mixer, "kind", "full")
    heads = entry(mixer, "heads") or heads
    keys = entry(mixer, "key_width") or head_dim
    values = entry(mixer, "value_width") or head_dim
    if kind == "infini":
        numbers = heads * (head_dim * (head_dim + 1) + 2 * head_dim * entry(mixer, "segment"))
    elif kind == "segment":
        numbers = 2 * heads * head_dim * min(length, entry(mixer, "length", 256) + entry(mixer, "memory", 256))
    elif kind in ("full", "blocks", "hierarchical"):
        numbers = 2 * heads * head_dim * length
    elif kind == "window":
        numbers = 2 * heads * head_dim * min(length, entry(mixer, "window") + entry(mixer, "globals"))
    elif kind == "linear":
        features = {"elu": keys, "taylor": 1 + keys + keys * (keys + 1) // 2,
                    "performer": entry(mixer, "num_features") or 4 * keys}[entry(mixer, "features", "elu")]
        numbers = heads * features * (values + 1)
    else:
        numbers = heads * keys * values
    return 4 * layers * numbers


class Points:
    """Points of one study that are done, with what further questions gave."""

    def __init__(self, studies, name):
        self.rows = [row for row in rows_of(f"{studies}/{name}/study.csv") if row["status"] == "done"]
        self.questions = {}
        for row in rows_of(f"{studies}/{name}/questions.csv"):
            self.questions.setdefault(row["point"], []).append(row)
        for row in self.rows:
            row["study"] = f"{studies}/{name}"
            row["mixer"] = row["config.model.mixer"]
            row["kind"] = kind_of(row["mixer"])
            row["position"] = row["config.model.position.kind"]
            row["length"] = int(row["config.model.sequence_length"])
            row["accuracy"] = number(row.get("validation_accuracy"))
            hidden, heads = int(row["config.model.hidden"]), int(row["config.model.num_heads"])
            row["hidden"] = hidden
            row["state"] = state_bytes(row["mixer"], int(row["config.model.num_layers"]), heads, hidden // heads,
                                       row["length"])

    def of_set(self, name):
        return [row for row in self.rows if row["set"] == name]

    def answers(self, row, question, stretched=""):
        return [answer for answer in self.questions.get(row["point"], [])
                if answer["question"] == question and answer["stretched"] == stretched]


def part_seconds(row, part):
    """Median over steps, without the first."""
    with open(f"{row['study']}/{row['folder']}/metrics.jsonl") as file:
        steps = [json.loads(line) for line in file]
    seconds = [step["part_seconds"].get(part, 0) for step in steps if "part_seconds" in step]
    return statistics.median(seconds[1:] or seconds) if seconds else math.nan


def grouped(rows, *keys):
    """Rows by the values of keys, in the order of their first."""
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


def spread(values):
    """Median, least and largest of the numbers among them."""
    known = sorted(value for value in values if not math.isnan(value))
    return (statistics.median(known), known[0], known[-1]) if known else (math.nan,) * 3


def percent(values):
    middle, least, most = spread(values)
    if math.isnan(middle):
        return "–"
    return f"{100 * middle:.1f}" + (f" ({100 * least:.0f}–{100 * most:.0f})" if len(values) > 1 else "")
