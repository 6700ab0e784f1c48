#include "launch/launcher.hpp"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <optional>
#include <string_view>

#include "data/files/shell_quote.hpp"
#include "parallel/group/collective_error.hpp"
#include "tensor/error.hpp"

namespace switchyard {
namespace {

std::optional<int> environment_number(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr) return std::nullopt;
  const std::string_view text(value);
  int number = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || stop != text.data() + text.size()) return std::nullopt;
  return number;
}

std::string environment_text(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

}  // namespace

Launcher detect_launcher() {
  struct Source {
    const char* name;
    const char* size;
    const char* rank;
  };
  // Slurm's step variables: those of the job are also set in a batch script, which is one process.
  // Hydra, which starts MPICH's and Intel MPI's ranks, sets PMI_* or, without a PMI of its own,
  // MPI_LOCAL*; the latter are of this host.
  constexpr std::array<Source, 5> sources{{
      {"mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"},
      {"mpiexec", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"},
      {"mpiexec", "PMI_SIZE", "PMI_RANK"},
      {"mpiexec", "MPI_LOCALNRANKS", "MPI_LOCALRANKID"},
      {"srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"},
  }};
  for (const Source& source : sources) {
    const std::optional<int> size = environment_number(source.size);
    const std::optional<int> rank = environment_number(source.rank);
    if (size && rank && *size >= 1 && *rank >= 0 && *rank < *size) {
      // srun --mpi=pmi2 sets PMI_*, too; where Hydra uses srun its tasks are one for each node.
      const bool is_srun = environment_number("SLURM_STEP_NUM_TASKS") == size &&
                           environment_number("SLURM_PROCID") == rank &&
                           std::string_view(source.name) == "mpiexec";
      return {.name = is_srun ? "srun" : source.name, .rank = *rank, .num_ranks = *size};
    }
  }
  return {};
}

std::string start_of_command(const Launcher& launcher, const std::string& program,
                             const std::string& command) {
  const std::string script = environment_text("SWITCHYARD_STARTED_BY");
  if (launcher.name == "mpirun" && !script.empty()) return script;
  std::string start;
  if (!launcher.name.empty()) {
    // Without it srun may start as many jobs of one rank.
    const bool by_pmix = launcher.name == "srun" && std::getenv("PMIX_NAMESPACE") != nullptr;
    start =
        fmt::format("{}{} -n {} ", launcher.name, by_pmix ? " --mpi=pmix" : "", launcher.num_ranks);
  }
  return fmt::format("{}{} {}", start, quote_for_shell(program), command);
}

BatchJob detect_batch_job() {
  const std::string number = environment_text("SLURM_JOB_ID");
  if (number.empty()) return {};
  const std::string cluster = environment_text("SLURM_CLUSTER_NAME");
  return {.id = fmt::format("Slurm{}{} {}", cluster.empty() ? "" : " ", cluster, number),
          .num_restarts = environment_number("SLURM_RESTART_COUNT").value_or(0)};
}

void require_pmi(const Launcher& launcher) {
  if (launcher.name != "srun") return;
  for (const char* variable : {"PMIX_NAMESPACE", "PMIX_RANK", "PMI_RANK", "PMI_FD", "PMI_SIZE"})
    if (std::getenv(variable) != nullptr) return;
  require_same_world(launcher, 1);
}

void require_same_world(const Launcher& launcher, int world_size) {
  if (launcher.num_ranks <= 1 || world_size > 1) return;
  std::string remedy;
  if (launcher.name == "srun")
    remedy =
        "srun did not offer PMIx: start with srun --mpi=pmix, if srun --mpi=list shows it, else "
        "with Open MPI's mpirun inside the job (launch/submit --launcher mpirun)";
  else if (launcher.name == "mpiexec")
    remedy =
        "it belongs to another MPI (MPICH, Intel MPI), and this program to Open MPI: start with "
        "Open MPI's mpirun (launch/mpirun.sh CONFIG -n RANKS; mpirun --version tells whose it is)";
  else
    remedy =
        "this mpirun and the program's Open MPI do not belong together: take the mpirun of the "
        "same installation (mpirun --version, switchyard --version)";
  throw Collective<ConfigError>(fmt::format(
      "{} started {} ranks, but MPI knows of one only: each would train alone, in the same folder. "
      "{}",
      launcher.name, launcher.num_ranks, remedy));
}

int num_tasks_on_node(std::string_view tasks_per_node, int node) {
  const char* at = tasks_per_node.data();
  const char* const end = at + tasks_per_node.size();
  while (at < end) {
    int num_tasks = 0;
    int num_nodes = 1;
    const std::from_chars_result tasks = std::from_chars(at, end, num_tasks);
    if (tasks.ec != std::errc{}) return 0;
    at = tasks.ptr;
    if (std::string_view(at, end).starts_with("(x")) {
      const std::from_chars_result nodes = std::from_chars(at + 2, end, num_nodes);
      if (nodes.ec != std::errc{} || nodes.ptr == end || *nodes.ptr != ')') return 0;
      at = nodes.ptr + 1;
    }
    if (node < num_nodes) return num_tasks;
    node -= num_nodes;
    if (at < end && *at++ != ',') return 0;
  }
  return 0;
}

void yield_where_crowded(const Launcher& launcher) {
  if (launcher.name != "srun") return;
  const char* tasks = std::getenv("SLURM_STEP_TASKS_PER_NODE");
  const std::optional<int> node = environment_number("SLURM_NODEID");
  if (tasks == nullptr || !node) return;
  const int processors = std::min(environment_number("SLURM_CPUS_ON_NODE").value_or(1'000'000),
                                  static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN)));
  if (num_tasks_on_node(tasks, *node) > processors)
    ::setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
}

std::string host_name() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0) return "unknown host";
  return name.data();
}

}  // namespace switchyard
