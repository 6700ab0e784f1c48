#include "trainer/watch/stack_probe.hpp"

#include <cxxabi.h>
#include <dlfcn.h>
#include <execinfo.h>
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <string_view>
#include <thread>

namespace switchyard {

namespace {

constexpr int probe_signal = SIGURG;
constexpr int frames_of_handler = 2;  // the handler and what the system calls it from

std::string readable(const char* symbol) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> text(
      abi::__cxa_demangle(symbol, nullptr, nullptr, &status), &std::free);
  return status == 0 && text ? text.get() : symbol;
}

// "function + 0x12 (file)", or "file + 0x1234" for addr2line where the function has no name.
std::string describe_frame(void* address) {
  Dl_info information{};
  if (::dladdr(address, &information) == 0 || information.dli_fname == nullptr)
    return fmt::format("{}", address);
  const std::string_view path = information.dli_fname;
  const std::string_view file = path.substr(path.rfind('/') + 1);
  const char* to = static_cast<const char*>(address);
  if (information.dli_sname == nullptr || information.dli_saddr == nullptr)
    return fmt::format("{} + {:#x}", file, to - static_cast<const char*>(information.dli_fbase));
  return fmt::format("{} + {:#x} ({})", readable(information.dli_sname),
                     to - static_cast<const char*>(information.dli_saddr), file);
}

}  // namespace

StackProbe::StackProbe() : thread_(::pthread_self()) {
  // The first call loads the library that unwinds, which a signal handler must not do.
  ::backtrace(frames_.data(), max_frames);
  struct sigaction action {};
  action.sa_sigaction = &StackProbe::handle;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  ::sigaction(probe_signal, &action, &before_);
}

StackProbe::~StackProbe() {
  ::sigaction(probe_signal, &before_, nullptr);
}

void StackProbe::handle(int /*signal*/, siginfo_t* information, void* /*context*/) {
  // Only what take() sent: the address of anybody else's signal means nothing here.
  if (information->si_code != SI_QUEUE || information->si_pid != ::getpid()) return;
  const int kept_errno = errno;
  StackProbe& probe = *static_cast<StackProbe*>(information->si_value.sival_ptr);
  probe.num_frames_ = ::backtrace(probe.frames_.data(), max_frames);
  probe.ready_.store(true);
  errno = kept_errno;
}

std::string StackProbe::take(std::chrono::milliseconds patience) {
  ready_ = false;
  sigval value{};
  value.sival_ptr = this;
  if (::pthread_sigqueue(thread_, probe_signal, value) != 0) return "  no stack\n";
  const auto end = std::chrono::steady_clock::now() + patience;
  while (!ready_ && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  if (!ready_) return "  the thread does not answer: it is inside the system's kernel\n";
  return describe_stack(std::span(frames_).first(static_cast<std::size_t>(num_frames_)),
                        frames_of_handler);
}

std::string describe_stack(std::span<void* const> frames, int num_skipped) {
  std::string text;
  const std::size_t begin = std::min(static_cast<std::size_t>(num_skipped), frames.size());
  for (std::size_t frame = begin; frame < frames.size(); ++frame)
    text += fmt::format("  #{} {}\n", frame - begin, describe_frame(frames[frame]));
  return text;
}

}  // namespace switchyard
