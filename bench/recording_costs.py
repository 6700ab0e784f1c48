#!/usr/bin/env python3
"""What it costs to record how experts are used: traces of routing, and rows by layer in metrics.jsonl.

    bench/recording_costs.py --program build/release/switchyard [--config configs/tiny.yaml] [--ranks N] [--steps N]
                             [--pairs N] [KEY=VALUE ...]

Trains the same steps without records, with `trace.routing` in every step, and with `metrics.layers_every: 1`, by turns.
A cost is the seconds that a whole run takes more than its neighbour without records (files are opened, written, synced and
closed in them), as a share of the seconds of its steps. Printed: the median of the pairs and the two quartiles, of the clock and
of the processor's time, which other programs disturb less. The rows `again` are runs without records against such runs: what the
machine does by itself. Python's standard library alone.
"""
import argparse, json, os, pathlib, random, resource, shutil, statistics, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parent.parent


def make_corpus(program, work):
    rng = random.Random(7)
    words = ["".join(rng.choice("etaoinshrdlu") for _ in range(rng.randint(2, 9))) for _ in range(4000)]
    text = work / "text.txt"
    text.write_text(" ".join(words[min(int(rng.expovariate(1 / 400)), 3999)] for _ in range(400000)))
    corpus = work / "corpus.h5"
    subprocess.run([program, "prepare", text, "--output", corpus], check=True, capture_output=True)
    return corpus


def processor_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run_once(args, work, corpus, name, settings):
    """Seconds of a run by the clock and of the processor, and those of its steps by the clock."""
    output = work / name
    words = [f"data.path={corpus}", f"run.output={output}", f"train.num_steps={args.steps}", "checkpoint.resume=never",
             "checkpoint.every=0", "evaluate.every=0", f"parallel.expert={args.ranks}",
             f"run.threads={max(1, os.cpu_count() // args.ranks)}", "metrics.layers_every=0", *args.overrides, *settings]
    command = [args.program, "train", args.config, *words]
    if args.ranks > 1:
        command = ["mpirun", "--allow-run-as-root", "--bind-to", "none", "-n", args.ranks, *command]
    clock, processor = time.monotonic(), processor_seconds()
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    clock, processor = time.monotonic() - clock, processor_seconds() - processor
    if done.returncode:
        sys.exit(f"{name}: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    steps = sum(line["step_seconds"] for line in lines if "step_seconds" in line)
    size = sum(file.stat().st_size for file in (output / "routing").rglob("*")) if (output / "routing").exists() else 0
    shutil.rmtree(output)
    return clock, processor, steps, size


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=ROOT / "build/release/switchyard")
    parser.add_argument("--config", default=ROOT / "configs/tiny.yaml")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    kinds = {"again": [], "trace.routing": ["trace.routing=true", f"trace.steps=1..{args.steps}"],
             "layers_every: 1": ["metrics.layers_every=1"]}
    shares = {name: ([], []) for name in kinds}
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        corpus = make_corpus(args.program, work)
        run_once(args, work, corpus, "warm", [])
        steps_of_plain, bytes_of_trace = [], 0
        for pair in range(args.pairs):
            order = list(kinds)
            order = order[pair % len(order):] + order[:pair % len(order)]
            for name in order:
                # With and without by turns as to which goes first.
                first = pair % 2 == 0
                runs = {}
                for records in (first, not first):
                    runs[records] = run_once(args, work, corpus, f"run-{pair}", kinds[name] if records else [])
                plain, recorded = runs[False], runs[True]
                steps_of_plain.append(plain[2] / args.steps)
                bytes_of_trace = max(bytes_of_trace, recorded[3])
                for which in (0, 1):
                    of_steps = plain[2] if which == 0 else plain[1]
                    shares[name][which].append(100 * (recorded[which] - plain[which]) / of_steps)
        load = os.getloadavg()[1]
    print(f"{args.ranks} ranks, {args.steps} steps of {statistics.median(steps_of_plain):.3f} s (median), {args.pairs} pairs each, "
          f"load average {load:.1f}, {bytes_of_trace / args.steps / 1e6:.2f} MB a step traced")
    print(f"{'record':<16} {'clock %':>8} {'quartiles':>16} {'processor %':>12} {'quartiles':>16}")
    for name, columns in shares.items():
        cells = []
        for values in columns:
            low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
            cells.append((f"{middle:.2f}", f"{low:.2f} to {high:.2f}"))
        print(f"{name:<16} {cells[0][0]:>8} {cells[0][1]:>16} {cells[1][0]:>12} {cells[1][1]:>16}")


main()
