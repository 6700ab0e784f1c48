#!/usr/bin/env bash
# A study from its file to study.h5: what it plans, runs once, collects; killed at random it ends with
# the same facts; failures, two at once, other studies' folders.
#   sweep_test.sh SWITCHYARD
set -uo pipefail
switchyard=$1
here=$(cd "$(dirname "$0")" && pwd)
source "$here/../launch/expect.sh"
source "$here/../support/small_run.sh"
cd "$work" || exit 1
export OMP_NUM_THREADS=1 XDG_CONFIG_HOME=$work/none  # no profile of this machine
prepare_corpus "$switchyard"
write_config base.yaml <<'YAML'
train: {num_steps: 6, global_batch: 4}
optimizer: {warmup_steps: 2}
evaluate: {accuracy: true}
YAML
write_study() {  # NAME OUTPUT
  cat <<YAML
study: {name: $1, output: $2, config: base.yaml, seeds: [1, 2], effect: 0.001}
sets:
  - name: experts
    grid: {experts.num_experts: [2, 4]}
  - name: dense
    set: {experts.every: 0}
    iso_flop: {budgets: [1.0e8], sizes: [{model.hidden: 16}, {model.hidden: 32}]}
    learning_rate: {rule: power, rate: 1.0e-3, size: 1.0e4, exponent: -0.5}
  - name: trunk
    branches: {at: [4, 8], decay: 0.25}
  - name: ranks
    scaling: {kind: weak, ranks: [1, 2]}
YAML
}
write_study small runs/small >study.yaml

# ---- The plan, before anything is made ------------------------------------------------------------
expect 0 "$switchyard" sweep study.yaml --dry-run
[[ $out == *"study small: 18 waiting"*"No seconds: no profile of this machine"* ]] || fail "plan: $out"
[[ $out == *"Power: warning: noise 0.002 (assumed), 2 repeats of each: "*"; "*" repeats would show it"* ]] ||
  fail "power check: $out"
[[ ! -e runs ]] || fail "a dry run made $(find runs)"

# ---- Run, once --------------------------------------------------------------------------------------
expect 0 "$switchyard" sweep study.yaml --local
[[ $out == *"18 done"*"collected in runs/small/study.h5 and runs/small/study.csv"* ]] || fail "sweep: $out"
cp runs/small/study.h5 first.h5
cp runs/small/study.csv first.csv
started=$(stat -c %Y%s runs/small/points/*/record.json)
expect 0 "$switchyard" sweep study.yaml --local
[[ $(stat -c %Y%s runs/small/points/*/record.json) == "$started" ]] || fail "a finished point ran again"
expect 0 "$switchyard" sweep study.yaml --collect
cmp first.h5 runs/small/study.h5 || fail "another collection gives another file"
cmp first.csv runs/small/study.csv || fail "another collection gives another CSV"
expect 0 "$switchyard" report runs/small/study.h5 --output study.html
[[ $out == "study.html: a study of 18 points, "* ]] || fail "report: $out"
if [[ -x /usr/bin/python3 ]]; then
  expect 0 /usr/bin/python3 "$here/report_page.py" study.html loss-by-step loss-by-size loss-by-data loss-by-granularity \
    weak-scaling weak-efficiency load
  [[ $out == *"No law of dense: "* && $out == *"Study small"* && $out == *"switchyard sweep"* ]] || fail "the page of the study: $out"
fi
expect 2 "$switchyard" report runs/small/study.h5 runs/small/study.h5
expect_lines 1 "a study is shown alone"
expect 3 "$switchyard" fit runs/small/study.h5 --law tokens
expect_lines 1 "runs/small/study.h5: 18 runs, which can bear no law"

# ---- Killed at random, and started again ----------------------------------------------------------
sed 's#runs/small#runs/killed#' study.yaml >killed.yaml
for delay in 0.3 0.7 0.2 0.5 0.9; do
  "$switchyard" sweep killed.yaml --local >/dev/null 2>&1 &
  sweep=$!
  sleep "$delay"  # not to wait for anything: to hit it anywhere
  kill -KILL $sweep 2>/dev/null
  wait $sweep 2>/dev/null
done
# Ranks, too: their point is started again by the sweep itself.
kill_ranks() {
  local pid number
  for number in 1 2; do
    until pid=$(cat runs/killed/points/*/run.lock 2>/dev/null | sed -nE 's/.*"pid":([0-9]+).*/\1/p' | head -n 1) &&
      [[ -n $pid ]]; do sleep 0.01; done
    kill -KILL "$pid" 2>/dev/null && echo "$pid" >>killed_ranks
    while kill -0 "$pid" 2>/dev/null; do sleep 0.01; done
  done
}
# A point whose sweep was killed saves and ends by itself: nothing may be removed before.
is_running() { "$switchyard" sweep killed.yaml --collect 2>/dev/null | grep -q '[0-9] running'; }
while is_running; do sleep 0.05; done
folders=(runs/killed/points/*)
rm -rf "${folders[@]:0:2}"  # so that some are left to run
kill_ranks &
killer=$!
expect 0 timeout 100 "$switchyard" sweep killed.yaml --local
kill $killer 2>/dev/null
wait $killer 2>/dev/null
[[ $out == *"18 done"* && -s killed_ranks ]] || fail "after the kills: $out"
if /usr/bin/python3 -c 'import h5py' 2>/dev/null; then
  expect 0 /usr/bin/python3 "$here/study_file.py" first.h5 first.csv runs/killed/study.h5
  [[ $out == "18 points alike" ]] || fail "facts after the kills: $out"
else
  echo "NOT TESTED: the facts in a study's file need Debian's python3-h5py"
fi

# ---- Refusals -------------------------------------------------------------------------------------
write_study other runs/small >other.yaml
expect 2 "$switchyard" sweep other.yaml --local
expect_lines 1 "study.output: runs/small holds the study small, and this is other: choose another folder"
mkdir -p runs/mine && touch runs/mine/thesis.tex
sed 's#runs/small#runs/mine#' study.yaml >mine.yaml
expect 2 "$switchyard" sweep mine.yaml --local
expect_lines 1 "runs/mine holds files, and no study.json says that a study made it"

mkdir -p runs/begun && touch runs/begun/study.json.tmp-host-1  # of a sweep that was killed at once
sed 's#runs/small#runs/begun#' study.yaml >begun.yaml
expect 0 "$switchyard" sweep begun.yaml --collect
[[ $out == *"18 waiting"* && -s runs/begun/study.h5 ]] || fail "a folder that was just begun: $out"

# Two sweeps at once on one machine: the second is refused while the first runs.
cat >long.yaml <<'YAML'
study: {name: long, output: runs/long, config: base.yaml, evaluate: false}
sets: [{name: long, set: {train.num_steps: 1000000}}]
YAML
"$switchyard" sweep long.yaml --local >long.out 2>&1 &
sweep=$!
until [[ -s $(echo runs/long/points/*/metrics.jsonl) ]]; do kill -0 $sweep || break; done
expect 2 "$switchyard" sweep long.yaml --local
expect_lines 1 "another sweep runs the study long on this machine (process $sweep on "
# Collecting beside it is fine, and a request stops both the sweep and its point, which has saved.
expect 0 "$switchyard" sweep long.yaml --collect
[[ $out == *"1 running"* ]] || fail "collected beside a run: $out"
kill -TERM $sweep
wait $sweep
code=$?
[[ $code -eq 16 ]] || fail "a stopped sweep ended with $code: $(cat long.out)"
[[ $(cat long.out) == *"stopped: SIGUSR1"*"stopped; the same command goes on"* ]] || fail "stopped: $(cat long.out)"
[[ -n $(echo runs/long/points/*/checkpoints/step-*) ]] || fail "the stopped point saved nothing"

# Installed, the script that starts several ranks lies in share/; without it that is told.
mkdir -p prefix/bin prefix/share/switchyard/launch
cp "$switchyard" prefix/bin/switchyard
cat >pair.yaml <<'YAML'
study: {name: pair, output: runs/pair, config: base.yaml, ranks: 2}
sets: [{name: pair}]
YAML
expect 2 prefix/bin/switchyard sweep pair.yaml --local
expect_lines 1 "points of several ranks are started by launch/mpirun.sh, which does not lie beside the program"
cp "$here/../../launch/mpirun.sh" prefix/share/switchyard/launch
expect 0 prefix/bin/switchyard sweep pair.yaml --local
[[ $out == *"1 done"* ]] || fail "an installed program: $out $(cat runs/pair/points/*/output.log)"

# A point that fails says why, does not run again by itself, and is retried when told.
cat >bad.yaml <<'YAML'
study: {name: bad, output: runs/bad, config: base.yaml}
sets: [{name: rate, grid: {optimizer.learning_rate: [1.0e-3, 1.0e+30], optimizer.clip_norm: [0.0]}}]
YAML
expect 1 "$switchyard" sweep bad.yaml --local
[[ $out == *"1 failed, 1 done"*"failed (17): "*"--retry starts it again"* ]] || fail "a failed point: $out"
failures_of() { cat runs/bad/points/*/logs/* | grep -c "ended with code 17"; }
before=$(failures_of)
expect 1 "$switchyard" sweep bad.yaml --local
[[ $(failures_of) == "$before" ]] || fail "a failed point ran again by itself"
expect 1 "$switchyard" sweep bad.yaml --local --retry
[[ $(failures_of) -gt $before ]] || fail "--retry did not start the failed point"

# Mistakes of the file, all at once, with their places.
cat >wrong.yaml <<'YAML'
study: {name: wrong, output: runs/wrong, config: base.yaml, seed: [1]}
sets:
  - name: a
    grid: {experts.num_expert: [2], run.output: [x]}
  - set: {experts: {top_k: 1}}
    scaling: {kind: strnog, ranks: [0]}
YAML
expect 2 "$switchyard" sweep wrong.yaml
expect_lines 1 "wrong.yaml:1:61: study.seed: unknown key; use config, effect, evaluate, name, noise, output, ranks, seeds, slurm; did you mean seeds?"
expect_lines 1 "wrong.yaml:4:12: sets.grid: experts.num_expert: unknown key; did you mean experts.num_experts?"
expect_lines 1 "run.output is set by the sweep: leave it out"
expect_lines 1 "experts: is a section; write its keys with dots"
expect_lines 1 "did you mean strong?"
expect_lines 1 "sets.name: missing"
# What a configuration refuses is told with the point's settings.
cat >refused.yaml <<'YAML'
study: {name: refused, output: runs/refused, config: base.yaml, ranks: 2}
sets: [{name: a, grid: {train.global_batch: [4, 3]}}]
YAML
expect 2 "$switchyard" sweep refused.yaml
expect_lines 1 "set a, point train.global_batch=3, 2 ranks:"
expect_lines 1 "command line: train.global_batch=3: "
[[ ! -e runs/wrong && ! -e runs/refused ]] || fail "a refused study left $(ls runs)"
finish
