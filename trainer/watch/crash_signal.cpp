#include "trainer/watch/crash_signal.hpp"

#include <execinfo.h>
#include <fmt/core.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

#include <span>

#include "tensor/error.hpp"
#include "trainer/watch/stack_probe.hpp"

namespace switchyard {
namespace {

constexpr std::size_t stack_bytes = std::size_t{128} * 1024;
constexpr int nap_ms = 10;
// The handler itself, and what the system calls it from.
constexpr int frames_of_handler = 3;

std::atomic<CrashSignal*> active{nullptr};  // see the header
static_assert(std::atomic<CrashSignal*>::is_always_lock_free);

std::int64_t monotonic_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1000000;
}

const char* words_of(int signal) {
  switch (signal) {
    case SIGSEGV:
      return "segmentation fault (SIGSEGV)";
    case SIGBUS:
      return "bus error (SIGBUS)";
    case SIGFPE:
      return "arithmetic fault (SIGFPE)";
    case SIGILL:
      return "unknown instruction (SIGILL)";
    default:
      return "abort (SIGABRT)";
  }
}

}  // namespace

CrashSignal::CrashSignal(std::int64_t patience_ms)
    : patience_ms_(patience_ms), stack_memory_(std::make_unique<std::byte[]>(stack_bytes)) {
  expect(active.load() == nullptr, "one CrashSignal at a time");
  // The first call loads the library that unwinds, which a signal handler must not do.
  ::backtrace(frames_.data(), max_frames);
  stack_t stack{};
  stack.ss_sp = stack_memory_.get();
  stack.ss_size = stack_bytes;
  ::sigaltstack(&stack, &stack_before_);
  active = this;
  struct sigaction action {};
  action.sa_sigaction = &CrashSignal::handle;
  // A fault of the handler itself comes back to it, and is held.
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (std::size_t i = 0; i < signals.size(); ++i) ::sigaction(signals[i], &action, &before_[i]);
}

CrashSignal::~CrashSignal() {
  for (std::size_t i = 0; i < signals.size(); ++i) ::sigaction(signals[i], &before_[i], nullptr);
  active = nullptr;
  ::sigaltstack(&stack_before_, nullptr);
}

std::string CrashSignal::describe() const {
  const std::string words = words_of(signal_);
  const int sender = sender_;
  return sender == 0 ? words : fmt::format("{}, sent by process {}", words, sender);
}

std::string CrashSignal::stack() const {
  if (!has_stack_) return {};
  return describe_stack(std::span(frames_).first(static_cast<std::size_t>(num_frames_)),
                        frames_of_handler);
}

void CrashSignal::handle(int signal, siginfo_t* information, void* /*context*/) {
  if (CrashSignal* object = active.load()) object->hold(signal, *information);
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  ::sigaction(signal, &action, nullptr);
  ::raise(signal);
}

// Only calls that are safe inside a handler: the thread may hold any lock, its memory may be torn.
void CrashSignal::hold(int signal, const siginfo_t& information) {
  const std::int64_t end = monotonic_ms() + patience_ms_;
  int none = 0;
  if (signal_.compare_exchange_strong(none, signal)) {
    const bool was_sent = information.si_code == SI_USER || information.si_code == SI_QUEUE;
    if (was_sent && information.si_pid != ::getpid()) sender_ = information.si_pid;
    num_frames_ = ::backtrace(frames_.data(), max_frames);
    has_stack_ = true;
  }
  while (!is_released_ && monotonic_ms() < end) ::poll(nullptr, 0, nap_ms);
}

}  // namespace switchyard
