#include "launch/commands/bench_machine.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <filesystem>
#include <iostream>

#include "bench/machine_rates.hpp"
#include "data/files/atomic_file.hpp"
#include "launch/options.hpp"
#include "launch/pricing/find_profile.hpp"
#include "launch/pricing/profile_file.hpp"
#include "launch/version.hpp"
#include "tensor/error.hpp"
#include "trainer/agreement.hpp"
#include "trainer/watch/exit_file.hpp"

namespace switchyard {

namespace {

std::string output_of(const BenchMachineOptions& options) {
  if (!options.output.empty()) return options.output;
  const std::string path = default_profile_path();
  if (path.empty())
    throw UsageError("bench", "bench machine: HOME names no folder; say where with --output FILE");
  return path;
}

// What is there is kept but for what is measured now: it must be a profile.
MachineProfile profile_to_replace(const std::string& path) {
  try {
    return read_profile(path);
  } catch (const ConfigError& mistakes) {
    throw ConfigError(fmt::format("{}\n{}: move it away, or name another file with --output",
                                  mistakes.what(), path));
  }
}

// The settings of `before` that were not measured now join those of `profile`, if it is of the same
// machine.
void keep_settings(MachineProfile& profile, const MachineProfile& before) {
  if (before.processor != profile.processor || before.measured_by.empty()) return;
  const MachineSetting now = profile.settings.front();
  for (const MachineSetting& each : before.settings)
    if (each.ranks_per_host != now.ranks_per_host || each.threads != now.threads)
      profile.settings.push_back(each);
  std::ranges::sort(profile.settings, [](const MachineSetting& a, const MachineSetting& b) {
    return std::pair(a.ranks_per_host, a.threads) < std::pair(b.ranks_per_host, b.threads);
  });
  // What one rank cannot measure, an earlier start with several may have.
  const bool has_links = std::ranges::any_of(
      profile.settings, [](const MachineSetting& each) { return !each.links[0].empty(); });
  if (has_links)
    std::erase_if(profile.not_measured,
                  [](const std::string& what) { return what.starts_with("exchanges: one rank"); });
  profile.watts_of_rank = before.watts_of_rank;
  profile.hours_between_failures = before.hours_between_failures;
}

}  // namespace

void bench_machine(const CommandContext& context, const BenchMachineOptions& options) {
  Group& world = context.session->world();
  const std::string output = output_of(options);
  const std::filesystem::path given = std::filesystem::path(output).parent_path();
  const std::string folder = given.empty() ? "." : given.string();
  std::optional<MachineProfile> before;
  run_together(world, [&] {
    if (world.rank() != 0) return;
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error) throw IoError(fmt::format("{}: cannot be made: {}", folder, error.message()));
    if (std::filesystem::exists(output, error)) before = profile_to_replace(output);
  });
  const auto note = [&](const std::string& what) {
    if (world.rank() == 0) std::cout << "measuring " << what << std::endl;
  };
  MachineProfile profile =
      bench::measure_machine(world, {.quick = options.quick, .folder = folder, .note = note});
  run_together(world, [&] {
    if (world.rank() != 0) return;
    profile.name = options.name.empty() ? profile.processor : options.name;
    profile.measured_by = version::program;
    profile.time = utc_now();
    if (options.quick)
      profile.not_measured.emplace_back("most sizes: --quick measured coarse grids alone");
    const std::int64_t num_threads = profile.settings.front().threads;  // of what was measured now
    if (before) keep_settings(profile, *before);
    write_file_atomically(output, profile_text(profile));
    std::cout << fmt::format("{}: {} ranks on a host x {} threads; not measured:\n", output,
                             world.topology().num_local_ranks(), num_threads);
    for (const std::string& what : profile.not_measured) std::cout << "  " << what << '\n';
    std::cout << std::flush;
  });
}

}  // namespace switchyard
