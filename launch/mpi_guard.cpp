#include "launch/mpi_guard.hpp"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <string>
#include <string_view>

#include "parallel/group/collective_error.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

const char* variable_of(MpiGuard::Phase phase) {
  return phase == MpiGuard::Phase::start ? "SWITCHYARD_START_SECONDS" : "SWITCHYARD_END_SECONDS";
}

double limit_seconds(const char* variable) {
  const char* value = std::getenv(variable);
  if (value == nullptr) return 600;
  const std::string_view text = value;
  double seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error != std::errc{} || end != text.data() + text.size() || !(seconds >= 0))
    throw Collective<ConfigError>(
        fmt::format("{} is '{}', not a number of seconds", variable, text));
  return seconds;
}

std::string describe(MpiGuard::Phase phase, double seconds, const Launcher& launcher) {
  const bool starts = phase == MpiGuard::Phase::start;
  return fmt::format(
      "switchyard: rank {} ({}): MPI has not {} within {} s: not all of the {} ranks have {}. Look "
      "at the processes and the network of the other hosts; {}=0 waits for ever\n",
      launcher.rank, host_name(), starts ? "started" : "ended", seconds, launcher.num_ranks,
      starts ? "arrived" : "come to the end", variable_of(phase));
}

}  // namespace

MpiGuard::MpiGuard(Phase phase, const Launcher& launcher) {
  const double seconds = limit_seconds(variable_of(phase));
  limit_seconds(variable_of(Phase::end));  // a mistake shows at the start, not after the work
  if (seconds == 0) return;
  const std::string last_words = describe(phase, seconds, launcher);
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, &before);
  thread_ = std::thread(
      [this, seconds, last_words, rank = launcher.rank] { watch(seconds, last_words, rank); });
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

MpiGuard::~MpiGuard() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    has_passed_ = true;
  }
  passed_.notify_one();
  thread_.join();
}

void MpiGuard::watch(double seconds, const std::string& last_words, int rank) {
  // All that wait would say the same: the first to end has the launcher end the others, which takes
  // mpirun a second or two.
  const double patience = seconds + 2.5 * std::min(rank, 30);
  std::unique_lock lock(mutex_);
  if (passed_.wait_for(lock, std::chrono::duration<double>(patience),
                       [this] { return has_passed_; }))
    return;
  [[maybe_unused]] const ssize_t written =
      ::write(STDERR_FILENO, last_words.data(), last_words.size());
  ::_exit(static_cast<int>(ExitCode::hang));
}

}  // namespace switchyard
