// A few threads that run tasks in the order they were given. Private to data/*.cpp.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace switchyard {

class ThreadPool {
 public:
  explicit ThreadPool(int num_threads);
  ~ThreadPool();  // tasks that were not begun are dropped
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  void submit(std::function<void()> task);  // the task must not throw

 private:
  void work(const std::stop_token& stop);

  std::mutex mutex_;  // guards tasks_
  std::condition_variable_any arrival_;
  std::deque<std::function<void()>> tasks_;
  std::vector<std::jthread> threads_;  // last: dies first
};

}  // namespace switchyard
