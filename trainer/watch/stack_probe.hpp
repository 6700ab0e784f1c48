// The stack of one thread, taken by another thread of the same process while the first is stuck. A
// signal (SIGURG, which does nothing else) makes the probed thread walk its own stack, wherever it
// is; the signal carries the address to write to, so no global is needed.
//
// One at a time; created on the thread that is probed.
#pragma once

#include <pthread.h>

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <span>
#include <string>

namespace switchyard {

class StackProbe {
 public:
  StackProbe();
  ~StackProbe();
  StackProbe(const StackProbe&) = delete;
  StackProbe& operator=(const StackProbe&) = delete;

  // Lines "  #0 function + 0x12 (file)", innermost first; a line that says so if the thread does
  // not answer within `patience`. From one other thread.
  std::string take(std::chrono::milliseconds patience);

 private:
  static constexpr int max_frames = 48;
  static void handle(int signal, siginfo_t* information, void* context);

  pthread_t thread_;
  struct sigaction before_ {};
  std::array<void*, max_frames> frames_{};
  int num_frames_ = 0;
  std::atomic<bool> ready_{false};
};

// Lines "  #0 function + 0x12 (file)" of what ::backtrace() gave, without the first frames.
std::string describe_stack(std::span<void* const> frames, int num_skipped);

}  // namespace switchyard
