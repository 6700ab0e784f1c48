#include "parallel/group/group.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <thread>

#include "tensor/error.hpp"

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
      pending_->wait();
    } else if (!done_within(*pending_, patience_while_unwinding)) {
      // MPI may still write to what it holds: it stays, for the moments until the job ends.
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

void Event::wait() {
  if (pending_ == nullptr) return;
  const std::unique_ptr<Pending> pending = std::move(pending_);
  pending->wait();
}

Group::Place Group::place_in(const std::vector<std::vector<int>>& partition) const {
  std::vector<bool> listed(static_cast<std::size_t>(size_), false);
  Place place;
  for (std::size_t list = 0; list < partition.size(); ++list) {
    for (std::size_t index = 0; index < partition[list].size(); ++index) {
      const int rank = partition[list][index];
      expect(0 <= rank && rank < size_ && !listed[static_cast<std::size_t>(rank)],
             "a partition that lists each rank of the group once");
      listed[static_cast<std::size_t>(rank)] = true;
      if (rank == rank_)
        place = {static_cast<int>(list), static_cast<int>(index),
                 static_cast<int>(partition[list].size())};
    }
  }
  expect(std::all_of(listed.begin(), listed.end(), [](bool found) { return found; }),
         "a partition that lists each rank of the group once");
  return place;
}

}  // namespace switchyard
