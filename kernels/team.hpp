// The threads behind for_each_piece (kernels/threads.hpp, which alone uses them).
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

#include "kernels/threads.hpp"

namespace switchyard::kernels {

class Team {
 public:
  explicit Team(int num_threads);  // the calling one included
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }
  // One call at a time.
  void run(std::uint32_t num_pieces, int max_threads, const PieceBody& body);

 private:
  void work(int thread);
  void take_pieces(int thread) noexcept;
  bool has_pieces() const;
  void wake_some();
  // Of a thread that has slept: the system often wakes it on the processor of the thread that
  // called it, and leaves both there, however many are idle. So it moves away.
  void leave_shared_processor(int thread) noexcept;
  // lost: of the time in which a thread had work, what it was kept from its core.
  void notice_loss(std::chrono::steady_clock::time_point now,
                   std::chrono::nanoseconds lost) noexcept;
  bool is_disturbed(std::chrono::steady_clock::time_point now) const;
  // Before a thread that waits goes to sleep.
  std::chrono::microseconds time_to_spin(std::chrono::steady_clock::time_point now) const;
  void wait_for_call(int thread, std::uint32_t seen);
  void wait_until_done();

  // What a call gives out: in the low half the pieces that nobody has taken, in the high half how
  // many threads may take part. A thread takes a piece by counting down; until it has reported that
  // piece the call cannot end, so only then it reads the fields of the call. A thread that comes
  // late finds 0 pieces and touches nothing.
  alignas(64) std::atomic<std::uint64_t> offer_{0};
  const PieceBody* body_ = nullptr;
  std::uint32_t num_pieces_ = 0;
  // Pieces not yet done; the caller sleeps on it.
  alignas(64) std::atomic<std::uint32_t> unfinished_{0};
  std::atomic<bool> caller_sleeps_{false};
  // Calls so far; the other threads sleep on it.
  alignas(64) std::atomic<std::uint32_t> calls_{0};
  std::atomic<int> sleepers_{0};
  // By thread, each with a cache line of its own: the processor it was last seen on; asleep: -1.
  struct alignas(64) Seat {
    std::atomic<int> processor{-1};
  };
  std::vector<Seat> seats_;
  // Another program was seen to use the same cores; up to this moment of the steady clock waiting
  // threads sleep at once. Moments and sums of losses, as far as threads have noticed them.
  std::atomic<std::chrono::nanoseconds> disturbed_until_{};
  std::atomic<std::chrono::nanoseconds> window_begin_{};
  std::atomic<std::chrono::nanoseconds> lost_in_window_{};
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

}  // namespace switchyard::kernels
