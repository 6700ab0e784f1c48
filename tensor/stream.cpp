#include "tensor/stream.hpp"

#include <chrono>
#include <cstdio>
#include <exception>
#include <thread>

namespace switchyard {

namespace {

// How long an exchange that nobody may complete any more can hold up the report of an error.
constexpr std::chrono::milliseconds patience_while_unwinding{500};

bool done_within(Event::Pending& pending, std::chrono::milliseconds patience) {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (!pending.test()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

}  // namespace

Event ImmediateStream::record() {
  return {};
}

TimePoint ImmediateStream::mark() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return {std::chrono::duration_cast<std::chrono::nanoseconds>(now).count()};
}

double ImmediateStream::seconds_between(TimePoint from, TimePoint to) {
  return 1e-9 * static_cast<double>(to.number - from.number);
}

Event& Event::operator=(Event&& other) noexcept {
  if (this != &other) {
    finish();
    pending_ = std::move(other.pending_);
  }
  return *this;
}

Event::~Event() {
  finish();
}

void Event::finish() noexcept {
  if (pending_ == nullptr) return;
  try {
    if (std::uncaught_exceptions() == 0) {
      pending_->wait_host();
    } else if (!done_within(*pending_, patience_while_unwinding)) {
      // The library may still write to what it holds: it stays, for the moments until the job ends.
      static_cast<void>(pending_.release());
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "an exchange failed that nobody waited for: %s\n", error.what());
  }
  pending_.reset();
}

bool Event::test() {
  if (pending_ == nullptr) return true;
  std::unique_ptr<Pending> pending = std::move(pending_);  // gone if test() throws
  if (pending->test()) return true;
  pending_ = std::move(pending);
  return false;
}

void Event::wait(Stream& stream) {
  if (pending_ == nullptr) return;
  const std::unique_ptr<Pending> pending = std::move(pending_);
  pending->wait(stream);
}

void Event::wait_host() {
  if (pending_ == nullptr) return;
  const std::unique_ptr<Pending> pending = std::move(pending_);
  pending->wait_host();
}

}  // namespace switchyard
