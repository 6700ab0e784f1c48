#include "trainer/activations/copy_thread.hpp"

#include <sys/resource.h>

#include <chrono>
#include <csignal>
#include <utility>

namespace switchyard {

namespace {

constexpr int low_priority = 10;  // added to the nice value of the process

// Of the calling thread: Linux has a nice value for each.
void lower_priority() {
  const int before = ::getpriority(PRIO_PROCESS, 0);
  ::setpriority(PRIO_PROCESS, 0, before + low_priority);  // beyond 19 means 19
}

}  // namespace

CopyThread::CopyThread(Priority priority) {
  // The new thread inherits the mask.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this, priority] { work(priority); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

CopyThread::~CopyThread() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void CopyThread::start(std::int64_t layer, std::function<void()> copy) {
  {
    const std::lock_guard lock(mutex_);
    if (error_) std::rethrow_exception(error_);
    jobs_.push_back({layer, std::move(copy)});
    ++pending_[layer];
  }
  changed_.notify_all();
}

bool CopyThread::wait_for(std::int64_t layer, double seconds) {
  std::unique_lock lock(mutex_);
  const bool done = changed_.wait_for(lock, std::chrono::duration<double>(seconds),
                                      [&] { return error_ != nullptr || pending_[layer] == 0; });
  if (error_) std::rethrow_exception(error_);
  return done;
}

double CopyThread::busy_seconds() const {
  const std::lock_guard lock(mutex_);
  return busy_seconds_;
}

void CopyThread::work(Priority priority) {
  if (priority == Priority::low) lower_priority();
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return ends_ || !jobs_.empty(); });
    if (ends_) return;
    const Job job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    run(job);
    lock.lock();
  }
}

void CopyThread::run(const Job& job) {
  const auto started = std::chrono::steady_clock::now();
  std::exception_ptr error;
  try {
    job.copy();
  } catch (...) {
    error = std::current_exception();
  }
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - started;
  {
    const std::lock_guard lock(mutex_);
    busy_seconds_ += elapsed.count();
    --pending_[job.layer];
    if (error && !error_) error_ = error;
    if (error_) jobs_.clear();
  }
  changed_.notify_all();
}

}  // namespace switchyard
