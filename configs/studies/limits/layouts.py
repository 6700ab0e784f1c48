"""Every kind of mixer on 1, 2 and 4 ranks, zigzag and contiguous (E9): losses beside one rank, allocated bytes beside the
planned ones, and planned bytes on the wire at two lengths.

    layouts.py SWITCHYARD MPIEXEC FOLDER        again: goes on; writes FOLDER/layouts.csv
"""
import csv
import json
import os
import re
import shutil
import subprocess
import sys

CONFIG = "configs/studies/limits/text_model.yaml"
KINDS = ["{}", "{kind: window, window: 48}", "{kind: window, window: 32, globals: 4}", "{kind: linear}",
         "{kind: linear, features: taylor, key_width: 8}", "{kind: linear, features: performer}", "{kind: retention}",
         "{kind: lightning}", "{kind: ssd}", "{kind: delta}", "{kind: gated_delta}", "{kind: infini, segment: 16}",
         "{kind: segment, length: 32, memory: 32}", "{kind: blocks, pattern: bigbird, block: 16}",
         "{kind: blocks, pattern: strided, stride: 8}", "{kind: hierarchical, block: 16, selected: 2}"]
LAYOUTS = [(1, "zigzag", 128), (2, "zigzag", 128), (2, "contiguous", 128), (4, "zigzag", 128), (4, "contiguous", 128),
           (2, "zigzag", 256)]
COLUMNS = ["mixer", "ranks", "layout", "length", "losses", "memory_bytes", "planned_memory_bytes", "wire_bytes"]


def lines_of(path):
    with open(path) as file:
        return [json.loads(line) for line in file]


def measure(switchyard, mpiexec, folder, mixer, ranks, layout, length):
    run = f"{folder}/layout_run"
    shutil.rmtree(run, ignore_errors=True)
    keys = [f"model.mixer={mixer}", f"run.output={run}", f"parallel.context={ranks}", f"parallel.context.layout={layout}",
            f"model.sequence_length={length}", "model.num_heads=4", "model.num_kv_heads=4", "train.num_steps=20",
            "train.global_batch=4", "optimizer.warmup_steps=2"]
    command = [switchyard, "train", CONFIG, *keys]
    if ranks > 1:
        command = [*mpiexec.split(), "-n", str(ranks), *command]
    subprocess.run(command, check=True, capture_output=True)
    steps = [line for line in lines_of(f"{run}/metrics.jsonl") if "loss" in line]
    plan = subprocess.run([switchyard, "plan", CONFIG, *keys, "--ranks", str(ranks)], check=True, capture_output=True,
                          text=True).stdout
    with open(f"{run}/record.json") as file:
        parts = json.load(file)["planned"]["parts"]
    shutil.rmtree(run)
    return {"mixer": mixer, "ranks": ranks, "layout": layout, "length": length,
            "losses": " ".join(str(step["loss"]) for step in steps), "memory_bytes": steps[-1]["memory_bytes"],
            "planned_memory_bytes": int(re.search(r"^ *peak +(\d+)", plan, re.M)[1]),
            "wire_bytes": int(parts.get("attention", {}).get("wire_bytes", 0))}


def main(switchyard, mpiexec, folder):
    path = f"{folder}/layouts.csv"
    os.makedirs(folder, exist_ok=True)
    known = set()
    if os.path.exists(path):
        with open(path, newline="") as file:
            known = {(row["mixer"], row["ranks"], row["layout"], row["length"]) for row in csv.DictReader(file)}
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if not known:
            file.truncate(0)
            writer.writeheader()
        for mixer in KINDS:
            for ranks, layout, length in LAYOUTS:
                if (mixer, str(ranks), layout, str(length)) not in known:
                    writer.writerow(measure(switchyard, mpiexec, folder, mixer, ranks, layout, length))
                    file.flush()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
