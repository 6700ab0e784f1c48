#include "trainer/watch/temporary_watch.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <filesystem>
#include <iostream>

#include "parallel/group/collective_error.hpp"
#include "trainer/agreement.hpp"
#include "trainer/watch/shared_folder.hpp"

namespace switchyard {

namespace fs = std::filesystem;

TemporaryWatch::TemporaryWatch(Group& world, CollectiveLog& collectives,
                               const WatchdogConfig& limits, const std::string& parent,
                               const std::string& name)
    : is_first_(world.rank() == 0) {
  if (world.size() == 1) return;
  const Topology& topology = world.topology();
  std::string folder =
      fmt::format("{}/{}-{}-{}", parent, name, topology.name_of(topology.host_of(0)), getpid());
  world.broadcast_text(folder, 0);
  const std::string problem = prepare(world, folder);
  if (!problem.empty()) {
    if (is_first_)
      std::cerr << fmt::format("switchyard: no watchdog for this {}: {}", name, problem)
                << std::endl;
    return;
  }
  folder_ = folder;
  run_together(world, [&] { watchdog_.emplace(collectives, topology, limits, folder_, nullptr); });
}

TemporaryWatch::~TemporaryWatch() {
  watchdog_.reset();
  std::error_code ignored;
  if (is_first_ && !folder_.empty() && !has_failed_) fs::remove_all(folder_, ignored);
}

// What is wrong with the folder, on all ranks; empty if nothing is.
std::string TemporaryWatch::prepare(Group& world, const std::string& folder) {
  std::string problem;
  if (is_first_) {
    try {
      fs::create_directories(folder);
      SideFiles::prepare(folder);
    } catch (const std::exception& error) {
      problem = error.what();
    }
  }
  world.broadcast_text(problem, 0);
  if (!problem.empty()) return problem;
  const std::vector<std::string> apart = hosts_apart(world, folder);
  if (apart.empty()) return {};
  std::error_code ignored;
  if (is_first_) fs::remove_all(folder, ignored);
  return fmt::format("{} is another folder on {}", folder, fmt::join(apart, ", "));
}

void TemporaryWatch::enter(RunSection section) {
  if (watchdog_) watchdog_->enter(section);
}

void TemporaryWatch::fail(ExitCode code) {
  has_failed_ = true;
  if (watchdog_) watchdog_->claim_failure(static_cast<int>(code));
}

void TemporaryWatch::run(Group& world, const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    if (dynamic_cast<const KnownToAllRanks*>(&error) == nullptr) fail(error.code());
    throw;
  } catch (const std::exception&) {
    fail(ExitCode::internal);
    throw;
  }
  // Once all ranks have what they need of the files, rank 0 may remove them.
  if (!watchdog_) return;
  watchdog_.reset();
  world.barrier();
}

WatchdogConfig same_limit(double seconds) {
  return {.setup = seconds, .step = seconds, .checkpoint = seconds, .slow_every = 0};
}

std::string place_for_watch(const Topology& topology) {
  std::error_code none;
  const fs::path place = topology.num_hosts() == 1 ? fs::temp_directory_path(none) : fs::path(".");
  return place.empty() ? "." : place.string();
}

}  // namespace switchyard
