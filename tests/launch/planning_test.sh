#!/usr/bin/env bash
# Seconds of a plan as a person asks for them: profiles measured, shipped and wrong; a run beside
# what was foretold of it.
#   planning_test.sh SWITCHYARD SOURCE_FOLDER
set -uo pipefail
switchyard=$1
source_folder=$2
source "$(dirname "$0")/expect.sh"
cd "$work" || exit 1
export HOME=$work/home
unset XDG_CONFIG_HOME
mkdir home
seq 1 20000 >text.txt
"$switchyard" prepare text.txt --output corpus.h5 >/dev/null || fail "prepare"
cat >small.yaml <<'YAML'
run: {output: run, precision: fp32, threads: 1}
data: {path: corpus.h5}
model: {hidden: 64, num_layers: 2, num_heads: 4, num_kv_heads: 2, head_dim: 16, sequence_length: 64}
experts: {num_experts: 8, top_k: 2, intermediate: 64}
train: {num_steps: 6, global_batch: 16, micro_batch: 2}
YAML

# Without a profile there are no seconds, and why is said.
expect 0 "$switchyard" plan small.yaml
[[ $out == *"No seconds: no profile of this machine is there; \`switchyard bench machine\` measures one"* ]] ||
  fail "no profile: $out"

# A machine of published figures, many ranks.
cluster=$source_folder/configs/clusters/dgx_h100.yaml
expect 0 "$switchyard" plan small.yaml --ranks 4096 --cluster "$cluster" --tokens 1e9 \
  parallel.expert=8 train.global_batch=8192 --json
python3 - "$work/out" <<'PY' || fail "JSON of a plan's seconds"
import json, sys
plan = json.load(open(sys.argv[1]))
s = plan["seconds"]
assert plan["target"] == "cuda" and s["ranks_per_host"] == 8, s
assert abs(sum(p["seconds"] for p in s["parts"].values()) - s["step_seconds"]) < 1e-9 * s["step_seconds"]
assert abs(s["tokens_per_second"] * s["step_seconds"] - plan["tokens_per_step"]) < 1e-3
assert 0 < s["utilisation"] < 1
# Experts are exchanged within hosts of eight, gradients between them, too.
assert s["link_bytes"]["within_host"] > 0 and s["link_bytes"]["between_hosts"] > 0
c = s["checkpoint"]
assert c["bytes"] == 12 * plan["num_parameters"] + 4 * plan["num_state_elements"]
assert 0 < c["seconds"] < c["daly_interval"] < c["young_interval"]
assert abs(s["run"]["rank_hours"] - 4096 * 1e9 / s["tokens_per_second"] / 3600) < 1e-6 * s["run"]["rank_hours"]
assert abs(s["run"]["kilowatt_hours"] - 1.275 * s["run"]["rank_hours"]) < 1e-6 * s["run"]["kilowatt_hours"]
PY
balanced=$(python3 -c 'import json; print(json.load(open("out"))["seconds"]["step_seconds"])')
expect 0 "$switchyard" plan small.yaml --ranks 4096 --cluster "$cluster" --imbalance 2 \
  parallel.expert=8 train.global_batch=8192 --json
python3 -c "import json; assert json.load(open('out'))['seconds']['step_seconds'] > $balanced" || fail "imbalance"
expect 2 "$switchyard" plan small.yaml --cluster "$cluster" --imbalance 0.5
expect_lines 1 "--imbalance 0.5: it must be at least 1"

# Published models on published machines.
for words in "qwen3_30b_a3b 16 dgx_h100 8" "gpt_oss_120b 64 gb200_nvl72 72" "gpt_oss_120b 64 dgx_b200 8"; do
  read -r model ranks machine of_node <<<"$words"
  expect 0 "$switchyard" plan "$source_folder/configs/published/$model.yaml" --ranks "$ranks" \
    --cluster "$source_folder/configs/clusters/$machine.yaml" --ranks-per-node "$of_node" parallel.expert="$ranks" --json
  python3 -c 'import json; s = json.load(open("out")); assert s["num_parameters"] > 3e10 and 0 < s["seconds"]["utilisation"] < 0.6, s' ||
    fail "a published model: $words"
done

# Activations that go to the disk and back take the disk's time, apart from exchanges.
for policy in keep spill; do
  expect 0 "$switchyard" plan small.yaml --ranks 8 --cluster "$cluster" parallel.expert=8 model.num_layers=6 \
    activations.policy=$policy activations.store=hdf5 --json
  cp out $policy.json
done
python3 - <<'PY' || fail "seconds of spilling"
import json
keep, spill = (json.load(open(f"{policy}.json")) for policy in ("keep", "spill"))
parts = spill["seconds"]["parts"]
# Eight ranks share the disk: 2 GB/s out, 4 back.
half = spill["ranks"][0]["spilled_bytes"] / 2
seconds = 8 * half / 2e9 + 8 * half / 4e9
assert half > 0 and abs(parts["spill"]["exchange_seconds"] - seconds) < 1e-6 * seconds, parts
assert 0 < parts["spill"]["wait_seconds"] <= seconds
assert spill["seconds"]["step_seconds"] > keep["seconds"]["step_seconds"]
assert spill["seconds"]["link_bytes"] == keep["seconds"]["link_bytes"]
PY

# The foretold time line: kernels follow each other, the step spans all of it.
expect 0 "$switchyard" plan small.yaml --ranks 8 --cluster "$cluster" --trace trace.json parallel.expert=8
python3 - <<'PY' || fail "foretold trace"
import json
events = [e for e in json.load(open("trace.json"))["traceEvents"] if e["ph"] == "X"]
assert {e["pid"] for e in events} == set(range(8))
of_first = [e for e in events if e["pid"] == 0]
step, = [e for e in of_first if e["cat"] == "step"]
kernels = sorted((e for e in of_first if e["cat"] == "computation"), key=lambda e: e["ts"])
assert all(a["ts"] + a["dur"] <= b["ts"] + 1e-3 for a, b in zip(kernels, kernels[1:]))
assert {e["args"].get("pass") for e in kernels} >= {"forward", "backward"}
assert any(e["cat"] == "exchange" and e["args"]["operation"] == "all_to_all" for e in of_first)
assert max(e["ts"] + e["dur"] for e in of_first) <= step["ts"] + step["dur"] + 1e-3
PY
expect 2 "$switchyard" plan small.yaml --trace none.json
expect_lines 1 "--trace is of seconds, and there are none: no profile of this machine"
[[ ! -e none.json ]] || fail "a trace without seconds"

# All layouts of eight ranks: the first is the fastest, and is what its own plan says.
expect 0 "$switchyard" plan small.yaml --ranks 8 --cluster "$cluster" --search --json
python3 - "$work/out" >chosen <<'PY' || fail "search"
import json, sys
found = json.load(open(sys.argv[1]))
layouts = found["layouts"]
assert len(layouts) == 10 and found["num_fitting"] == found["num_legal"] >= 20, found
seconds = [l["step_seconds"] for l in layouts]
assert seconds == sorted(seconds) and all(l["reason"] for l in layouts)
b = layouts[0]
print(f"parallel.data={b['data']} parallel.context={b['context']} parallel.expert={b['expert']} "
      f"train.micro_batch={b['micro_batch']} activations.policy={b['policy']}")
print(b["step_seconds"])
PY
read -r -a keys <chosen
expect 0 "$switchyard" plan small.yaml --ranks 8 --cluster "$cluster" --json "${keys[@]}"
python3 - "$work/out" <<'PY' || fail "the plan of what was found"
import json, sys
own = json.load(open(sys.argv[1]))["seconds"]["step_seconds"]
found = float(open("chosen").read().split()[-1])
assert abs(own - found) < 0.01 * own, (own, found)
PY
# Memory prunes first; if nothing fits, the smallest are told.
expect 0 "$switchyard" plan small.yaml --ranks 8 --cluster "$cluster" --search --memory 0.0001
[[ $out == *" legal layouts: 0 fit into memory"*"None fits; those that need the least:"* ]] || fail "no fit: $out"
# What does not fit is told what would.
expect 0 "$switchyard" plan small.yaml train.micro_batch=16 --json
most=$(python3 -c 'import json; print(json.load(open("out"))["memory_bytes"])')
expect 0 "$switchyard" plan small.yaml train.micro_batch=16 --node-memory $((most - 100000)) --ranks-per-node 1
[[ $out == *"Does not fit into"*"Each of these fits:"*"train.micro_batch=8"* ]] || fail "remedies: $out"
expect 0 "$switchyard" plan small.yaml --node-memory $((most - 100000)) --ranks-per-node 1 train.micro_batch=8 --json
python3 -c "import json; assert json.load(open('out'))['memory_of_rank']['fits']" || fail "the remedy does not fit"
expect 2 "$switchyard" plan small.yaml --ranks 8 --search
expect_lines 1 "--search is of seconds, and there are none: no profile of this machine"

# This machine, in seconds; then plans and runs find it by themselves.
expect 0 "$switchyard" bench machine --quick
[[ $out == *"not measured:"*"exchanges: one rank"*"most sizes: --quick"* ]] || fail "bench machine: $out"
[[ -s home/.config/switchyard/profile.yaml ]] || fail "no profile in its place"
expect 2 "$switchyard" bench linear --quick
expect_lines 1 "--output, --name and --quick are options of bench machine; bench linear has none"
threads=$(sed -n 's/^ *threads: //p' home/.config/switchyard/profile.yaml)
expect 0 "$switchyard" plan small.yaml --threads "$threads"
[[ $out == *"Seconds of one step, foretold by"*"experts"*"tokens/s"*"Checkpoint:"* ]] || fail "seconds: $out"
expect 0 "$switchyard" train small.yaml run.threads="$threads" metrics.layers_every=2
python3 - <<'PY' || fail "record of a run"
import json
p = json.load(open("run/record.json"))["predicted"]
assert p["profile"].endswith("profile.yaml") and p["step_seconds"] > 0, p
m = p["measured"]
assert m["num_steps"] == 4 and m["step_seconds"] > 0, m
assert {"attention", "experts", "optimizer"} <= set(p["parts"]) & set(m["parts"])
PY
expect 0 "$switchyard" report run --output report.html
grep -q "Seconds beside the plan" report.html || fail "no prediction in the report"
# The load that the run measured, taken on to eight ranks.
expect 0 "$switchyard" plan small.yaml --ranks 8 --cluster "$cluster" --imbalance run parallel.expert=8
[[ $out == *"The fullest rank of a layer is taken to receive "*"the load of run, mean of 2 layers, where its experts live"* ]] ||
  fail "measured load: $out"
# To as many ranks as it has experts the fullest is the fullest expert; of other experts by a distribution.
expect 0 "$switchyard" plan small.yaml --ranks 8 --cluster "$cluster" --imbalance run parallel.expert=8 --json
python3 - <<'PY' || fail "the recorded load"
import json
rows = [json.loads(line) for line in open("run/metrics.jsonl")]
rows = [row["load_percent"] for row in rows if row.get("event") == "layer"][-2:]
wanted = sum(8 * max(row) / sum(row) for row in rows) / 2
found = json.load(open("out"))["seconds"]["imbalance"]
assert abs(found - wanted) < 1e-9, (found, wanted)
PY
expect 0 "$switchyard" plan small.yaml --ranks 8 --cluster "$cluster" --imbalance run parallel.expert=8 experts.num_experts=16
[[ $out == *"whose fullest of 8 experts had "*"Dirichlet of concentration"* ]] || fail "load of other experts: $out"
expect 0 "$switchyard" train small.yaml run.threads="$threads" run.output=traced trace.routing=true trace.steps=6
expect 0 "$switchyard" plan small.yaml --ranks 8 --cluster "$cluster" --imbalance traced/routing parallel.expert=8
[[ $out == *"the load of traced/routing, mean of 2 layers"* ]] || fail "load of a trace: $out"
expect 2 "$switchyard" plan small.yaml --ranks 8 --cluster "$cluster" --imbalance nothing parallel.expert=8
expect_lines 1 "--imbalance nothing: expected balanced, a factor of at least 1, the folder of a run, or a trace"
# A study is priced before it starts; its points are the same without a profile.
cat >study.yaml <<YAML
study: {name: small, output: study, config: small.yaml}
sets: [{name: a, grid: {experts.num_experts: [4, 8]}, set: {run.threads: $threads}}]
YAML
expect 0 "$switchyard" sweep study.yaml --dry-run
[[ $out == *"Foretold: "*" minutes of steps one point after another"* ]] || fail "no minutes: $out"
names=$(grep -o 'a-[0-9a-f]\{8\}' out | sort)
expect 0 env HOME=/nonexistent "$switchyard" sweep study.yaml --dry-run
[[ $out == *"No seconds: "* && $(grep -o 'a-[0-9a-f]\{8\}' out | sort) == "$names" ]] || fail "other points: $out"
# Four threads more were not measured.
expect 2 "$switchyard" plan small.yaml --cluster home/.config/switchyard/profile.yaml --threads $((threads + 4))
expect_lines 1 "profile.yaml: it was measured with 1 x $threads (ranks on a host x threads of a rank)"
expect 0 "$switchyard" plan small.yaml --cluster home/.config/switchyard/profile.yaml --threads $((threads + 4)) --extrapolate
# Far outside the sizes.
expect 2 "$switchyard" plan small.yaml --cluster home/.config/switchyard/profile.yaml model.hidden=8192 model.head_dim=64 model.num_heads=8
expect_lines 1 "these sizes are far outside what it measured; allow it with --extrapolate"

# Wrong profiles: file, line, column, key, remedy; all mistakes at once; nothing is run.
expect 6 "$switchyard" plan small.yaml --cluster none.yaml
cat >bad.yaml <<'YAML'
switchyard_profile: 7
name: bad
colour: red
settings:
  - ranks_per_host: 2
    kernels:
      linear_forward:
        f32: {axes: [[1, 2], [4]], rates: [1, 2]}
      copy:
        f32: {axes: [[2, 1]], rates: [1e9, 2e9]}
YAML
expect 2 "$switchyard" plan small.yaml --cluster bad.yaml
expect_lines 1 "bad.yaml:1:21: switchyard_profile: this program reads version 2, not 7"
expect_lines 1 "bad.yaml:3:1: colour: unknown key; use device, disk"
expect_lines 1 "bad.yaml:8:14: settings.kernels.linear_forward.f32.axes: expected 3 (rows, out, in), got 2"
expect_lines 1 "bad.yaml:10:22: settings.kernels.copy.f32.axes: expected numbers that grow"
expect 2 "$switchyard" bench machine --quick --output bad.yaml
expect_lines 1 "bad.yaml: move it away, or name another file with --output"
expect 2 "$switchyard" train small.yaml plan.profile=bad.yaml run.output=never
[[ ! -e never ]] || fail "a run began with a wrong profile"
finish
