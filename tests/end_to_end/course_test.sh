#!/usr/bin/env bash
# One folder, one course: what would begin another one over the checkpoints of the first is refused and
# changes nothing, the printed line goes on, and so does a job that Slurm queues again.
#   course_test.sh MPIEXEC SWITCHYARD RANKS
set -uo pipefail
source "$(dirname "$0")/run.sh"

write_config small.yaml <<'YAML'
train: {num_steps: 40, global_batch: 12, micro_batch: 1}
optimizer: {learning_rate: 0.003, warmup_steps: 4, min_learning_rate: 0.003}
checkpoint: {every: 10, keep: 2}
YAML
prepare_corpus "$switchyard"
train() { "$mpiexec" -n "$ranks" "$switchyard" train small.yaml parallel.expert="$ranks" "$@"; }
course_of() { sed -nE 's/^ *"course": "([0-9a-f]{32})".*/\1/p' "$1"; }
contents() { find "$1" -type f ! -name 'rank-*.log' -exec sha256sum {} + | sort -k 2; }
# refuse FOLDER OVERRIDE...: code 2 with the choices, and no byte of the folder is another one.
refuse() {
  local folder=$1 before
  before=$(contents "$folder")
  shift
  expect 2 train train.num_steps=60 "$@"
  expect_lines 1 "Choose another run.output for the new course; or checkpoint.resume=auto"
  [[ $(contents "$folder") == "$before" ]] || fail "a refused start changed $folder: $(diff <(echo "$before") <(contents "$folder"))"
}

mkdir run  # an empty folder is no course
expect 0 train checkpoint.resume=never
id=$(course_of run/run.json)
[[ -n $id ]] || fail "no course in the marker: $(cat run/run.json)"
for manifest in run/checkpoints/step-000000[34]0/manifest.json; do
  [[ $(course_of "$manifest") == "$id" ]] || fail "$manifest is of another course"
done

refuse run checkpoint.resume=never
refuse run checkpoint.resume=run/checkpoints/step-00000030
refuse run checkpoint.resume=run/checkpoints/step-00000030/
# The newest by name is where auto goes on, too.
expect 0 train train.num_steps=45 checkpoint.resume=./run/checkpoints/step-00000040/
[[ $out == *"resuming from step 40"* && $(course_of run/run.json) == "$id" ]] || fail "not the same course: $out"

# A branch has a folder, an id and metrics of its own.
before=$(contents run)
expect 0 train run.output=branch train.num_steps=47 checkpoint.resume=run/checkpoints/step-00000040
[[ $(contents run) == "$before" ]] || fail "a branch changed the run that it left"
[[ $(course_of branch/run.json) =~ ^[0-9a-f]{32}$ && $(course_of branch/run.json) != "$id" ]] || fail "a branch without an id of its own"
[[ $(grep -c '"loss"' branch/metrics.jsonl) -eq 7 ]] || fail "not the steps of the branch alone"
refuse branch run.output=branch checkpoint.resume=run/checkpoints/step-00000040
refuse branch run.output=branch checkpoint.resume=never

# Without its marker the folder is still of the course that its checkpoints name.
rm run/run.json
expect 0 train train.num_steps=46
[[ $out == *"resuming from step 45"* && $(course_of run/run.json) == "$id" ]] || fail "another course: $out"

# Somebody puts a checkpoint of another course among them: it stays, whatever its step.
cp -r branch/checkpoints/step-00000047 run/checkpoints/
before=$(contents run)
expect 2 train train.num_steps=60
expect_lines 1 "run/checkpoints/step-00000047 belongs to another course"
[[ $(contents run) == "$before" ]] || fail "changed beside a checkpoint of another course"
mv run/checkpoints/step-00000047 moved
expect 0 train train.num_steps=47

# The printed line goes on: from where the run is, on as many ranks, also with names that a shell splits.
odd="a b'c#\$(touch harm) ä=1"
train "run.output=$odd" train.num_steps=1000000 checkpoint.resume=never checkpoint.every=0 > stopped.out 2>&1 &
job=$!
until [[ -s $odd/metrics.jsonl && $(grep -c '"loss"' "$odd/metrics.jsonl") -ge 3 ]] || ! kill -0 $job 2>/dev/null; do :; done
pkill -USR1 -f "^$switchyard train small.yaml .*run.output=a b'c" || fail "nobody to signal"
wait $job
[[ $? -eq 16 ]] || fail "not stopped: $(cat stopped.out)"
step=$(sed -nE 's/^stopped after step ([0-9]+) .*/\1/p' stopped.out)
again=$(sed -nE 's/^ *next +continue: //p' stopped.out)
[[ $again == "mpirun -n $ranks "*"checkpoint.resume=auto" && $again != *resume=never* ]] || fail "the line to go on: $again"
expect 0 bash -c "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
  $again train.num_steps=$((step + 2))"
[[ $out == *"resuming from step $step"*"done after step $((step + 2))"* ]] || fail "the line does not go on: $out"
generate=$(sed -nE 's/^ *next +generate: (.*) --prompt TEXT$/\1/p' <<<"$out")
expect 0 bash -c "$generate --prompt The --tokens 3"
[[ $out == The* ]] || fail "the line does not generate: $out"
pictures=$(sed -nE 's/^ *next +pictures: //p' stopped.out)
expect 0 bash -c "$pictures"
[[ -s $odd/plots/loss.png ]] || fail "the line draws nothing: $pictures"
[[ ! -e harm ]] || fail "a name was run"

# The untrained model is saved once, stays beside those that are kept, and changes nothing of the run. Text
# and losses can be had of it, and a start goes on from it.
checkpoints() { ls "$1/checkpoints" | tr '\n' ' '; }
train=(train run.output=untrained checkpoint.initial=true checkpoint.keep=1)
expect 0 "${train[@]}" train.num_steps=20
expect 0 "${train[@]}" train.num_steps=25
[[ $out == *"resuming from step 20"* && $out != *"saved untrained/checkpoints/step-00000000"* ]] || fail "saved again: $out"
[[ $(checkpoints untrained) == "step-00000000 step-00000025 " ]] || fail "checkpoints: $(checkpoints untrained)"
expect 0 "$switchyard" generate untrained/checkpoints/step-00000000 --prompt The --tokens 3
[[ $out == The* ]] || fail "generated: $out"
mv untrained/checkpoints/step-00000025 trained
expect 0 "$switchyard" eval small.yaml run.output=untrained
[[ $out == "step 0  validation loss "* ]] || fail "evaluated: $out"
untrained=$(sha256sum untrained/checkpoints/step-00000000/*)
expect 0 "${train[@]}" train.num_steps=25
[[ $out == *"resuming from step 0 "* && $out != *"saved untrained/checkpoints/step-00000000"* ]] || fail "not from step 0: $out"
[[ $(sha256sum untrained/checkpoints/step-00000000/*) == "$untrained" ]] || fail "the untrained model has changed"
expect 0 "$switchyard" checkpoint diff trained untrained/checkpoints/step-00000025
expect 0 train run.output=plain checkpoint.keep=1 train.num_steps=25
[[ $(checkpoints plain) == "step-00000025 " ]] || fail "checkpoints: $(checkpoints plain)"
expect 0 "$switchyard" checkpoint diff trained plain/checkpoints/step-00000025
# A branch begins with the model that it was given.
expect 0 train run.output=later checkpoint.initial=true checkpoint.resume=plain/checkpoints/step-00000025 train.num_steps=26
[[ $(checkpoints later) == "step-00000026 " ]] || fail "checkpoints: $(checkpoints later)"

if [[ $ranks -eq 1 ]]; then
  # launch/mpirun.sh tells its own line.
  script=$(dirname "$0")/../../launch/mpirun.sh
  SWITCHYARD=$switchyard "$script" small.yaml -n 1 run.output=script train.num_steps=1000000 > stopped.out 2>&1 &
  job=$!
  until [[ -s script/metrics.jsonl && $(grep -c '"loss"' script/metrics.jsonl) -ge 3 ]] || ! kill -0 $job 2>/dev/null; do :; done
  pkill -USR1 -f "^$switchyard train small.yaml run.output=script" || fail "nobody to signal"
  wait $job
  again=$(sed -nE 's/^ *next +continue: //p' stopped.out)
  [[ $again == "SWITCHYARD=$switchyard $script -n 1 small.yaml run.output=script "* ]] || fail "the line to go on: $again"
  expect 0 bash -c "$again train.num_steps=1"
  [[ $out == *"resuming from step"* ]] || fail "the line does not go on: $out"

  # A job that Slurm queues again goes on with the course that it began, and no other job does. These are
  # the variables of a batch script.
  job() { SLURM_JOB_ID=$1 SLURM_CLUSTER_NAME=c SLURM_RESTART_COUNT=$2 "$switchyard" train small.yaml "${@:3}"; }
  for resume in never run/checkpoints/step-00000047; do
    folder=job_${resume:0:3}
    expect 0 job 7 0 run.output="$folder" train.num_steps=55 checkpoint.resume="$resume"
    id=$(course_of "$folder/run.json")
    expect 0 job 7 1 run.output="$folder" train.num_steps=60 checkpoint.resume="$resume"
    [[ $out == *"was queued again"*"resuming from step 55 ($folder"* ]] || fail "queued again: $out"
    [[ $(course_of "$folder/run.json") == "$id" && $(course_of "$folder/checkpoints/step-00000060/manifest.json") == "$id" ]] ||
      fail "queued again with another course"
    before=$(contents "$folder")
    expect 2 job 8 1 run.output="$folder" train.num_steps=65 checkpoint.resume="$resume"
    expect 2 job 7 0 run.output="$folder" train.num_steps=65 checkpoint.resume="$resume"
    expect_lines 1 "would begin a new course in $folder"
    [[ $(contents "$folder") == "$before" ]] || fail "a refused job changed $folder"
  done
  # Killed before its first checkpoint, it begins the same course once more.
  rm -r job_run/checkpoints/*
  expect 0 job 7 2 run.output=job_run train.num_steps=48 checkpoint.resume=run/checkpoints/step-00000047
  [[ $out == *"resuming from step 47 (run/checkpoints"* && $(course_of job_run/run.json) == "$id" ]] || fail "not the same course: $out"
fi
finish
