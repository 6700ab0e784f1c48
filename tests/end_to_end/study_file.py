"""Reads a study's files as docs/studies.md says, and compares what two sweeps must have alike.
study_file.py FIRST.h5 FIRST.csv SECOND.h5"""
import sys
from csv import reader

import h5py
import numpy


def table(path, group):
    with h5py.File(path) as file:
        return {k: c.asstr()[:] if c.dtype.kind == "S" else c[:] for k, c in file[group].items()}


first, csv, second = sys.argv[1:]
a, b = table(first, "points"), table(second, "points")
assert list(a) == list(b), set(a) ^ set(b)
# What depends on the clock, on restarts and on where the study lies. A branch's `max_rows` and memory
# are those of its own process.
free = {"seconds", "step_seconds", "tokens_per_second", "started", "ended", "restarts", "lost_steps",
        "lost_seconds", "config.run.output", "config.checkpoint.resume", "memory_bytes", "max_rows"}
for name in a:
    if name in free:
        continue
    same = a[name] == b[name]
    if a[name].dtype.kind == "f":
        same |= numpy.isnan(a[name]) & numpy.isnan(b[name])
    assert same.all(), (name, a[name], b[name])
assert set(a["status"]) == {"done"} and set(a["loss_kind"]) == {"validation"}
assert (a["num_steps"] == a["planned_steps"]).all() and (a["num_tokens"] == a["planned_tokens"]).all()
assert (abs(a["flops"] / a["planned_flops"] - 1) < 1e-12).all()
assert sorted(set(a["seed"])) == [1, 2] and sorted(set(a["num_ranks"])) == [1, 2]
assert ((0 <= a["validation_accuracy"]) & (a["validation_accuracy"] <= 1)).all(), a["validation_accuracy"]

# The iso-FLOP family meets its budget to half a step; the learning rate follows its rule.
dense = a["set"] == "dense"
step = (a["flops_per_token"] * a["tokens_per_step"])[dense]
assert (abs(a["planned_flops"][dense] - 1e8) <= step / 2 + 1).all()
size = (a["num_active_parameters"] - a["num_embedding_parameters"])[dense]
rate = 1e-3 * (size / 1e4) ** -0.5
assert (abs(a["config.optimizer.learning_rate"][dense] / rate - 1) < 1e-3).all()

# A branch goes on from its trunk, at the trunk's place in the data, and its rate falls.
curves = table(first, "curves")
rows = {name: i for i, name in enumerate(a["point"])}
branches = [i for i, parent in enumerate(a["parent"]) if parent]
assert len(branches) == 4
for i in branches:
    steps = curves["step"][curves["point"] == i]
    assert steps[0] == a["parent_step"][i] + 1 and steps[-1] == a["num_steps"][i], steps
    trunk = curves["point"] == rows[a["parent"][i]]
    assert a["seed"][i] == a["seed"][rows[a["parent"][i]]]
    assert curves["learning_rate"][curves["point"] == i][-1] < curves["learning_rate"][trunk][-1]

repeats = table(first, "repeats")
assert (repeats["num_repeats"] == 2).all() and len(repeats["num_repeats"]) == 9
one = a["configuration"] == repeats["configuration"][0]
assert abs(repeats["median_loss"][0] - numpy.median(a["loss"][one])) < 1e-15
assert abs(repeats["std_loss"][0] - numpy.std(a["loss"][one], ddof=1)) < 1e-12
study = table(first, "study")
assert study["name"][0] == "small" and study["noise_source"][0] == "assumed" and study["num_done"][0] == 18
assert "iso_flop" in study["text"][0] and "global_batch: 4" in study["config_text"][0]

with open(csv, newline="") as file:  # the CSV has the same columns and rows
    lines = list(reader(file))
assert sorted(lines[0]) == sorted(a) and len(lines) == 1 + len(a["point"])
assert [line[lines[0].index("point")] for line in lines[1:]] == list(a["point"])
print(len(a["point"]), "points alike")
