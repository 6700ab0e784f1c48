#include "trainer/watch/stop_signal.hpp"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "tensor/error.hpp"

namespace switchyard {
namespace {

constexpr std::array<int, 5> signals{SIGUSR1, SIGTERM, SIGINT, SIGHUP, SIGCONT};

// See the header: a handler cannot be given an object any other way.
std::atomic<StopSignal*> active{nullptr};
static_assert(std::atomic<StopSignal*>::is_always_lock_free);
static_assert(std::atomic<std::int64_t>::is_always_lock_free);

std::int64_t monotonic_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1000000;
}

// Inside a handler only calls that are safe there may be made: no printf.
void say(const char* text) {
  const ssize_t ignored = ::write(STDERR_FILENO, text, std::strlen(text));
  static_cast<void>(ignored);
}

}  // namespace

StopSignal::StopSignal(std::int64_t same_request_ms) : same_request_ms_(same_request_ms) {
  expect(active.load() == nullptr, "one StopSignal at a time");
  active = this;
  // `nohup` has a lost terminal ignored, and so it stays.
  struct sigaction hangup {};
  ::sigaction(SIGHUP, nullptr, &hangup);
  const bool ignores_hangup = hangup.sa_handler == SIG_IGN;
  struct sigaction action {};
  action.sa_handler = &StopSignal::handle;
  action.sa_flags = SA_RESTART;
  for (const int signal : signals)
    if (signal != SIGHUP || !ignores_hangup) ::sigaction(signal, &action, nullptr);
}

StopSignal::~StopSignal() {
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  for (const int signal : signals) {
    struct sigaction present {};
    ::sigaction(signal, nullptr, &present);
    if (present.sa_handler == &StopSignal::handle) ::sigaction(signal, &action, nullptr);
  }
  active = nullptr;
}

StopSignal::Saving::Saving(StopSignal& stop) : stop_(stop) {
  stop_.waits_for_save_ = false;
  expect(!stop_.is_saving_.exchange(true), "one checkpoint at a time");
}

StopSignal::Saving::~Saving() {
  stop_.is_saving_ = false;
}

bool StopSignal::was_continued(double seconds) const {
  const std::int64_t when = continued_ms_;
  return when != 0 && static_cast<double>(monotonic_ms() - when) < 1000 * seconds;
}

std::string StopSignal::name_of(int number) {
  switch (number) {
    case SIGUSR1:
      return "SIGUSR1";
    case SIGTERM:
      return "SIGTERM";
    case SIGINT:
      return "SIGINT";
    case SIGHUP:
      return "SIGHUP";
    default:
      return {};
  }
}

void StopSignal::handle(int signal) {
  const int kept_errno = errno;
  if (StopSignal* object = active.load()) object->receive(signal);
  errno = kept_errno;
}

void StopSignal::receive(int signal) {
  const std::int64_t now = monotonic_ms();
  if (signal == SIGCONT) {
    continued_ms_ = now;
    return;
  }
  int none = 0;
  if (signal_.compare_exchange_strong(none, signal)) {
    received_ms_ = now;
    return;
  }
  if (now - received_ms_.load() < same_request_ms_) return;
  if (is_saving_ && !waits_for_save_.exchange(true)) {
    received_ms_ = now;
    say("switchyard: the checkpoint is saved first; one more signal ends at once without it\n");
    return;
  }
  say(is_saving_ ? "switchyard: stopped at once by a further signal; the checkpoint was given up\n"
                 : "switchyard: stopped at once by a second signal; nothing was saved\n");
  ::_exit(static_cast<int>(ExitCode::stopped));
}

}  // namespace switchyard
