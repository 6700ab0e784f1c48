#include "trainer/thread_limit.hpp"

#include <fmt/core.h>
#include <fmt/ranges.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <latch>
#include <system_error>
#include <thread>
#include <vector>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

void add_limit(std::vector<std::string>& limits, int resource, const char* option, int unit) {
  rlimit limit{};
  if (getrlimit(static_cast<__rlimit_resource>(resource), &limit) != 0) return;
  if (limit.rlim_cur != RLIM_INFINITY)
    limits.push_back(fmt::format("ulimit {} is {}", option, limit.rlim_cur / unit));
}

void add_control_group(std::vector<std::string>& limits) {
  for (const char* path : {"/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max"}) {
    std::ifstream file(path);
    long most = 0;
    if (file >> most) limits.push_back(fmt::format("{} is {}", path, most));
  }
}

}  // namespace

std::string no_thread_text() {
  std::vector<std::string> limits;
  add_limit(limits, RLIMIT_NPROC, "-u", 1);
  add_limit(limits, RLIMIT_AS, "-v", 1024);
  add_control_group(limits);
  return fmt::format(
      "the system starts no further thread (Resource temporarily unavailable): the limit of "
      "processes and threads, or of memory for their stacks, is reached{}{}. Use fewer threads "
      "(run.threads, OMP_NUM_THREADS) or ranks, or raise the limit",
      limits.empty() ? "" : "; ", fmt::join(limits, ", "));
}

bool is_thread_shortage(const std::system_error& error) {
  return error.code() == std::errc::resource_unavailable_try_again ||
         error.code() == std::errc::not_enough_memory;
}

int most_threads() {
  return static_cast<int>(std::max(256L, 8 * ::sysconf(_SC_NPROCESSORS_CONF)));
}

void require_threads(int num_threads, const std::string& source) {
  if (num_threads > most_threads())
    throw ConfigError(fmt::format(
        "{} asks for {} threads of a rank, and this host has {} processors; use at most "
        "{}, best as many as a rank has cores",
        source, num_threads, ::sysconf(_SC_NPROCESSORS_CONF), most_threads()));
  std::latch all_started(1);
  std::vector<std::jthread> threads;
  try {
    // All at once, as OpenMP will have them.
    for (int i = 1; i < num_threads; ++i) threads.emplace_back([&] { all_started.wait(); });
  } catch (const std::system_error&) {
    all_started.count_down();
    throw MemoryError(fmt::format("of {} threads ({}) only {} could be started: {}", num_threads,
                                  source, threads.size() + 1, no_thread_text()));
  }
  all_started.count_down();
}

}  // namespace switchyard
