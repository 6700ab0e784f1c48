#include "data/prepare/thread_pool.hpp"

#include <stop_token>
#include <utility>

namespace switchyard {

ThreadPool::ThreadPool(int num_threads) {
  for (int i = 0; i < num_threads; ++i)
    threads_.emplace_back([this](const std::stop_token& stop) { work(stop); });
}

ThreadPool::~ThreadPool() = default;

void ThreadPool::submit(std::function<void()> task) {
  const std::lock_guard lock(mutex_);
  tasks_.push_back(std::move(task));
  arrival_.notify_one();
}

void ThreadPool::work(const std::stop_token& stop) {
  while (true) {
    std::unique_lock lock(mutex_);
    if (!arrival_.wait(lock, stop, [&] { return !tasks_.empty(); }) || stop.stop_requested())
      return;
    const std::function<void()> task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
  }
}

}  // namespace switchyard
