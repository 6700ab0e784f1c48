#include "launch/launcher.hpp"

#include <unistd.h>

#include <array>
#include <charconv>
#include <cstdlib>
#include <optional>
#include <string_view>

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

}  // namespace

Launcher detect_launcher() {
  struct Source {
    const char* name;
    const char* size;
    const char* rank;
  };
  // Slurm's step variables: those of the job are also set in a batch script, which is one process.
  constexpr std::array<Source, 3> sources{{
      {"mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"},
      {"mpiexec", "PMI_SIZE", "PMI_RANK"},
      {"srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"},
  }};
  for (const Source& source : sources) {
    const std::optional<int> size = environment_number(source.size);
    const std::optional<int> rank = environment_number(source.rank);
    if (size && rank && *size >= 1 && *rank >= 0 && *rank < *size) {
      return {.name = source.name, .rank = *rank, .num_ranks = *size};
    }
  }
  return {};
}

std::string host_name() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0) return "unknown host";
  return name.data();
}

}  // namespace switchyard
