#include "parallel/group/exchange_progress.hpp"

#include <chrono>
#include <utility>

#include "parallel/group/mpi_call.hpp"
#include "tensor/error.hpp"

namespace switchyard {

ExchangeProgress::ExchangeProgress(Progress progress, Stream& compute)
    : progress_(progress), compute_(compute) {
  if (progress_ != Progress::thread) return;
  if (!mpi::threads_may_take_turns())
    throw ConfigError(
        "parallel.context.progress: thread: this MPI library lets one thread alone call it; write "
        "poll");
  thread_ = std::thread([this] { serve(); });
}

ExchangeProgress::~ExchangeProgress() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

bool ExchangeProgress::advance_events() {
  const bool first = first_->test();
  return second_->test() && first;
}

void ExchangeProgress::serve() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return ends_ || first_ != nullptr; });
    if (ends_) return;
    try {
      if (advance_events()) first_ = nullptr;
    } catch (...) {
      failure_ = std::current_exception();
      first_ = nullptr;
    }
    if (first_ == nullptr) continue;
    lock.unlock();
    std::this_thread::yield();  // the polls and the computation have their turn
    lock.lock();
  }
}

void ExchangeProgress::during(Event& first, Event& second, const Poll& outer,
                              const std::function<void(const Poll&)>& compute) {
  if (progress_ == Progress::none) return compute(outer);
  if (progress_ == Progress::poll)
    return compute([&] {
      first.test();
      second.test();
      if (outer) outer();
    });
  if (first.test() && second.test()) return compute(outer);
  {
    const std::lock_guard lock(mutex_);
    first_ = &first;
    second_ = &second;
  }
  changed_.notify_one();
  // The thread must let go of the events whatever the computation throws.
  struct Release {
    ExchangeProgress& progress;
    ~Release() {
      const std::lock_guard lock(progress.mutex_);
      progress.first_ = nullptr;
    }
  };
  {
    const Release release{*this};
    compute([&] {
      if (!outer) return;
      const std::lock_guard lock(mutex_);
      outer();
    });
  }
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void ExchangeProgress::wait(Event& event) {
  const auto begin = std::chrono::steady_clock::now();
  event.wait(compute_);
  wait_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace switchyard
