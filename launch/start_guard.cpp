#include "launch/start_guard.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <string>
#include <string_view>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

constexpr const char* variable = "SWITCHYARD_START_SECONDS";

double limit_seconds() {
  const char* value = std::getenv(variable);
  if (value == nullptr) return 600;
  const std::string_view text = value;
  double seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error != std::errc{} || end != text.data() + text.size() || !(seconds >= 0))
    throw ConfigError(fmt::format("{} is '{}', not a number of seconds", variable, text));
  return seconds;
}

}  // namespace

StartGuard::StartGuard(const Launcher& launcher) {
  const double seconds = limit_seconds();
  if (seconds == 0) return;
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, &before);
  thread_ = std::thread([this, seconds, launcher] { watch(seconds, launcher); });
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

StartGuard::~StartGuard() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    has_started_ = true;
  }
  started_.notify_one();
  thread_.join();
}

void StartGuard::watch(double seconds, const Launcher& launcher) {
  // All that wait would say the same: the first to end has the launcher end the others.
  const double patience = seconds + 0.1 * std::min(launcher.rank, 30);
  std::unique_lock lock(mutex_);
  if (started_.wait_for(lock, std::chrono::duration<double>(patience),
                        [this] { return has_started_; }))
    return;
  const std::string text = fmt::format(
      "switchyard: rank {} ({}): MPI has not started within {} s: not all of the {} ranks have "
      "arrived. Look at the processes and the network of the other hosts; {}=0 waits for ever\n",
      launcher.rank, host_name(), seconds, launcher.num_ranks, variable);
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
  ::_exit(static_cast<int>(ExitCode::hang));
}

}  // namespace switchyard
