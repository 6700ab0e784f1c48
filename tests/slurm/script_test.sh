#!/usr/bin/env bash
# launch/slurm/train.sbatch as Slurm runs it, with an srun that starts the one rank here and a scontrol that
# only notes what it is asked: run folders whose names YAML quotes.
#   script_test.sh SWITCHYARD TRAIN_SBATCH
set -uo pipefail
switchyard=$1 script=$2
source "$(dirname "$0")/../launch/expect.sh"
source "$(dirname "$0")/../support/small_run.sh"
cd "$work" || exit 1
write_config small.yaml <<'YAML'
train: {num_steps: 3, global_batch: 4}
YAML
prepare_corpus "$switchyard"
mkdir bin
cat > bin/srun <<'SH'
#!/usr/bin/env bash
while [[ $1 == -* ]]; do shift; done
exec "$@"
SH
printf '#!/usr/bin/env bash\necho "$*" >> scontrol.asked\n' > bin/scontrol
chmod +x bin/*
job() {  # RESTARTS SETTING...: what launch/submit fills in
  local restarts=$1
  shift
  sed -e "s|^switchyard=.*|switchyard=$(printf %q "$switchyard")|" -e 's|^configs=.*|configs=(small.yaml)|' "$script" > job.sh
  { echo 'settings=('; printf '%q\n' "$@"; echo ')'; } > settings
  sed -i -e '/^settings=/{r settings
    d}' job.sh
  env PATH="$PWD/bin:$PATH" SLURM_JOB_ID=7 SLURM_RESTART_COUNT="$restarts" SLURM_JOB_NODELIST=here SLURM_NTASKS=1 bash job.sh
}
touch job.sh settings before
for name in "a b" "ä=1" "it's \"quoted\"" '#$HOME 100%'; do
  ls -A > before
  expect 0 job 0 "run.output=$name" checkpoint.resume=never
  [[ $out == *"-> $name"*"] done" && ! -e scontrol.asked ]] || fail "the job in '$name' says: $out"
  [[ -d $name/checkpoints/step-00000003 && ! -e $name/failed_launches ]] || fail "'$name' holds: $(ls "$name")"
  [[ $(comm -13 before <(ls -A)) == "$name" ]] || fail "'$name' and beside it: $(comm -13 before <(ls -A))"
  # Queued again, the job goes on with its own course, whatever its first start said.
  expect 0 job 1 "run.output=$name" checkpoint.resume=never train.num_steps=5
  [[ $out == *"was queued again"*"resuming from step 3"*"] done" ]] || fail "queued again in '$name': $out"
done
# What somebody else left is not touched, and a restart would not mend it.
mkdir theirs && echo words > theirs/config.yaml
expect 2 job 0 run.output=theirs
[[ $out == *"failed with code 2 before training began" && ! -e scontrol.asked ]] || fail "in a foreign folder: $out"
[[ $(ls theirs) == config.yaml && $(cat theirs/config.yaml) == words ]] || fail "a foreign folder was touched: $(ls theirs)"
finish
