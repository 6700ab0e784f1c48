# Sourced by the tests of whole runs that are called as NAME_test.sh MPIEXEC SWITCHYARD RANKS: what they
# share of their beginning. The current folder is then one of the test's own.
#   on_ranks WORD...   the program: under mpirun where there are several ranks
mpiexec=$1 switchyard=$2 ranks=$3
source "$(dirname "${BASH_SOURCE[0]}")/../launch/expect.sh"
source "$(dirname "${BASH_SOURCE[0]}")/../support/small_run.sh"
cd "$work" || exit 1
export OMPI_MCA_odls_base_sigkill_timeout=0  # nothing is killed here

on_ranks() {
  if ((ranks > 1)); then "$mpiexec" -n "$ranks" "$switchyard" "$@"; else "$switchyard" "$@"; fi
}
