# Sourced by the tests of faults: jobs of the real program under mpirun that are stopped, slowed and
# killed from outside, by signals.
#   start NAME [key=value ...]   a job with run.output=NAME; $ranks ranks, $limit s in each section
#   wait_for CONDITION...        until a command succeeds; fails after 30 s or when the job has ended
#   pid_of RANK                  of the job under way
#   stop_in SECTION RANK         stops $victim, that rank, while the job is in a section
#   finish_job SECONDS           waits that long for its end: $code, $ended, $took (ms since $begun), $out;
#                                no process stays
source "$(dirname "${BASH_SOURCE[0]}")/../launch/expect.sh"
source "$(dirname "${BASH_SOURCE[0]}")/../support/small_run.sh"

host=$(hostname)
limit=2
grace=1      # seconds that survivors of a failing rank have, as in launch/mpirun.sh
preamble=()  # further words before the program

# corpus.h5, and small.yaml with a model of steps long enough to be met in.
prepare_job() {
  prepare_corpus "$switchyard"
  cat > small.yaml <<'YAML'
run: {output: run, precision: fp32}
data: {path: corpus.h5}
model: {hidden: 64, num_layers: 3, num_heads: 4, num_kv_heads: 2, sequence_length: 64}
experts: {num_experts: 6, top_k: 2, intermediate: 64}
train: {num_steps: 1000000, global_batch: 24, micro_batch: 2}
optimizer: {learning_rate: 0.001, warmup_steps: 4}
checkpoint: {every: 0, keep: 2}
YAML
}

# Words for start: every step is followed by an evaluation of many sequences.
long_evaluation=(data.path=long.h5 evaluate.every=1)
prepare_long() {  # [OPTION...] of prepare; long.h5
  local i
  for ((i = 0; i < 60; ++i)); do cat corpus.txt; done > long.txt
  expect 0 "$switchyard" prepare long.txt --output long.h5 "$@"
}

start() {
  job_name=$1
  shift
  "$mpiexec" --mca odls_base_sigkill_timeout "$grace" -n "$ranks" "${preamble[@]}" "$switchyard" train small.yaml \
    run.output="$job_name" parallel.expert="$ranks" watchdog.setup="$limit" watchdog.step="$limit" \
    watchdog.checkpoint="$limit" "$@" > "$job_name.out" 2>&1 &
  job=$!
}

wait_for() {
  local end=$((SECONDS + 30))
  until "$@"; do
    kill -0 "$job" 2>/dev/null && ((SECONDS < end)) || return 1
  done
}

pid_of() {
  local pid
  for pid in $(pgrep -P "$job"); do
    # A process that is not yet the program, or no more, has another environment or none.
    if tr '\0' '\n' 2>/dev/null <"/proc/$pid/environ" | grep -qx "OMPI_COMM_WORLD_RANK=$1"; then
      echo "$pid"
      return 0
    fi
  done
  return 1
}

# The section that a job is in, as its folder shows it.
num_steps() { grep -cs '"loss"' "$job_name/metrics.jsonl"; }
is_in_setup() { [[ -e $job_name/watch/rank-$1 && ! -s $job_name/metrics.jsonl ]]; }
is_stepping() { [[ $(num_steps) -ge 3 ]]; }
# Of a job with long_evaluation, which takes seconds behind the first step.
is_evaluating() { [[ $(num_steps) -ge 1 ]] && sleep 0.2; }
is_saving() { compgen -G "$job_name/checkpoints/step-*.tmp" > /dev/null; }

# Times are whole milliseconds.
now() { date +%s%3N; }

# Stops a rank while the job is in a section: again, if it had left the section by then.
stop_in() {
  local section=$1 rank=$2 attempt
  for ((attempt = 0; attempt < 50; ++attempt)); do
    wait_for "$section" "$rank" || return 1
    # Looked up once: a section may be over sooner than a process is found.
    ((attempt > 0)) || victim=$(pid_of "$rank") || return 1
    kill -STOP "$victim"
    begun=$(now)
    sleep 0.05
    "$section" "$rank" && return 0
    kill -CONT "$victim"
  done
  return 1
}

finish_job() {
  local pids end
  pids=$(pgrep -P "$job")
  begun=${begun:-$(now)}
  end=$(($(now) + $1 * 1000))
  while kill -0 "$job" 2>/dev/null && (($(now) < end)); do sleep 0.02; done
  ended=$(now)
  took=$((ended - begun))
  if kill -0 "$job" 2>/dev/null; then
    fail "$job_name has not ended within $1 s: $(tail -n 20 "$job_name.out")"
    kill -KILL "$job" $pids 2>/dev/null
  fi
  wait "$job" 2>/dev/null
  code=$?
  out=$(cat "$job_name.out")
  sleep 0.1
  local pid
  for pid in $pids; do
    [[ -d /proc/$pid && $(cut -d' ' -f3 "/proc/$pid/stat" 2>/dev/null) != Z ]] || continue
    fail "$job_name: process $pid is left"
    kill -KILL "$pid" 2>/dev/null
  done
  begun=
}

# Lines of the job's output with a text.
expect_output() {
  local count
  count=$(grep -cE -- "$2" "$job_name.out")
  [[ $count -eq $1 ]] || fail "$job_name: '$2' stands on $count lines, not $1: $(cat "$job_name.out")"
}
expect_code() {
  [[ $code -eq $1 ]] || fail "$job_name ended with $code, not $1: $(tail -n 30 "$job_name.out")"
}
expect_exit_file() {
  grep -q "\"code\": *$1,\?$" "$job_name/exit.json" || fail "$job_name: exit.json: $(cat "$job_name/exit.json")"
  grep -qE "\"reason\": \".*$2" "$job_name/exit.json" || fail "$job_name: no '$2': $(cat "$job_name/exit.json")"
}
expect_checkpoints_valid() {
  local checkpoint
  for checkpoint in "$job_name"/checkpoints/step-*; do
    [[ $checkpoint == *.tmp || ! -d $checkpoint ]] && continue
    expect 0 "$switchyard" checkpoint verify "$checkpoint"
  done
}
