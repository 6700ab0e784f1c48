// A thread that runs the copies of spilled records, or the compression of captured chunks, one
// after the other, behind the computation. The first error ends its work: later copies are dropped,
// and every wait throws it. Borrowed memory of a copy stays untouched until wait_for() says that
// nothing is under way for its layer.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

namespace switchyard {

class CopyThread {
 public:
  enum class Priority : std::uint8_t { normal, low };

  // low: what computes on the same core comes first (nice 10, a tenth of the core beside it).
  explicit CopyThread(Priority priority = Priority::normal);
  ~CopyThread();  // drops what has not begun
  CopyThread(const CopyThread&) = delete;
  CopyThread& operator=(const CopyThread&) = delete;

  // Signals stay with the main thread; SIGXFSZ of a copy becomes the error EFBIG.
  void start(std::int64_t layer, std::function<void()> copy);
  // Waits at most `seconds`; true if nothing is under way for the layer.
  bool wait_for(std::int64_t layer, double seconds);
  double busy_seconds() const;

 private:
  struct Job {
    std::int64_t layer = 0;
    std::function<void()> copy;
  };
  void work(Priority priority);
  void run(const Job& job);

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> jobs_;
  std::map<std::int64_t, std::int64_t> pending_;  // copies under way, by layer
  std::exception_ptr error_;
  double busy_seconds_ = 0;
  bool ends_ = false;
  std::thread thread_;
};

}  // namespace switchyard
