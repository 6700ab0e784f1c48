// What moves the messages of an exchange while this rank computes. MPI moves data only while it is
// called, so either the computation polls between its blocks, or a thread of our own calls MPI in
// its place. Also the clock of the seconds in which a rank only waited.
//
// One thread calls MPI at a time: with `thread` a lock stands between the thread and the polls.
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <string_view>
#include <thread>

#include "parallel/group/group.hpp"
#include "tensor/choice.hpp"

namespace switchyard {

enum class Progress : std::uint8_t {
  poll,    // between the blocks of the computation
  thread,  // by a thread that takes its share of a core
  none,    // only when waited for: what overlap is measured against
};
constexpr std::array<std::string_view, 3> choice_names(Progress) {
  return {"poll", "thread", "none"};
}

class ExchangeProgress {
 public:
  using Poll = std::function<void()>;

  // `compute`: the stream that goes on after an exchange. ConfigError if the MPI library does not
  // allow `thread`.
  ExchangeProgress(Progress progress, Stream& compute);
  ~ExchangeProgress();
  ExchangeProgress(const ExchangeProgress&) = delete;
  ExchangeProgress& operator=(const ExchangeProgress&) = delete;

  // Calls compute(poll), with a poll that lets `first` and `second` advance and calls `outer`,
  // which may be empty. What an exchange throws, this throws.
  void during(Event& first, Event& second, const Poll& outer,
              const std::function<void(const Poll&)>& compute);
  // The compute stream goes on after the event; counts the seconds for which the host had to wait.
  void wait(Event& event);

  double wait_seconds() const { return wait_seconds_; }
  void reset_wait_seconds() { wait_seconds_ = 0; }

 private:
  void serve();           // the thread's life
  bool advance_events();  // true once both are done

  Progress progress_;
  Stream& compute_;
  double wait_seconds_ = 0;

  std::mutex mutex_;  // of everything below, and of MPI while the thread is at work
  std::condition_variable changed_;
  Event* first_ = nullptr;  // null: nothing to do
  Event* second_ = nullptr;
  std::exception_ptr failure_;
  bool ends_ = false;
  std::thread thread_;
};

}  // namespace switchyard
