// Holds a process that crashes (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT) for some seconds, so that
// the watchdog's thread, which still runs, can say what has happened: a crash of this rank, or the
// end of another one that MPI could not bear. The handler notes the signal and the stack and waits;
// then, or when it is released, the process dies of the signal, as it would have without this.
//
// One object at a time, created on the thread that trains, which gets a stack of its own for the
// handler: the cause may be that the usual one is full. A handler of the system gets no argument of
// ours, so crash_signal.cpp keeps one static pointer to the object.
#pragma once

#include <array>
#include <atomic>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace switchyard {

class CrashSignal {
 public:
  // patience_ms: how long the process is held at most.
  explicit CrashSignal(std::int64_t patience_ms = 5000);
  ~CrashSignal();
  CrashSignal(const CrashSignal&) = delete;
  CrashSignal& operator=(const CrashSignal&) = delete;

  bool has_come() const { return signal_.load() != 0; }
  // "segmentation fault (SIGSEGV)", and which process has sent it, if one has.
  std::string describe() const;
  // Lines of the crashed thread's stack, innermost call first; empty if it could not be walked.
  std::string stack() const;
  // The process dies of the signal now.
  void release() { is_released_ = true; }

 private:
  static constexpr int max_frames = 48;
  static constexpr std::array<int, 5> signals{SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};

  static void handle(int signal, siginfo_t* information, void* context);
  // A frame of its own, which stack() leaves out.
  [[gnu::noinline]] void hold(int signal, const siginfo_t& information);

  std::int64_t patience_ms_;
  std::array<struct sigaction, signals.size()> before_{};
  std::unique_ptr<std::byte[]> stack_memory_;
  stack_t stack_before_{};
  std::array<void*, max_frames> frames_{};
  int num_frames_ = 0;
  std::atomic<int> sender_{0};  // a process; 0: this one
  std::atomic<int> signal_{0};  // the first one
  std::atomic<bool> has_stack_{false};
  std::atomic<bool> is_released_{false};
};

}  // namespace switchyard
