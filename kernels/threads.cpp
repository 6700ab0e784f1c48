#include "kernels/threads.hpp"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>

#include "kernels/team.hpp"
#include "tensor/error.hpp"

namespace switchyard::kernels {

namespace {

// The process has one number of threads, as it has one set of cores.
struct Threads {
  std::atomic<int> wanted{omp_get_max_threads()};
  std::mutex mutex;  // held by the thread whose call the team works on
  std::unique_ptr<Team> team;
};

Threads& threads() {
  static Threads all;
  return all;
}

thread_local bool is_within_piece = false;

void do_alone(std::int64_t num_pieces, const PieceBody& body) {
  for (std::int64_t piece = 0; piece < num_pieces; ++piece) body(piece, 0);
}

}  // namespace

int num_threads() {
  return threads().wanted;
}

int num_threads_of(const Device& device) {
  const int planned = device.target().num_threads;
  return planned > 0 ? planned : num_threads();
}

void set_num_threads(int num_threads) {
  expect(num_threads >= 1, "at least one thread");
  threads().wanted = num_threads;
}

void for_each_piece(std::int64_t num_pieces, PieceBody body, int max_threads) {
  Threads& all = threads();
  const int wanted = all.wanted;
  if (num_pieces < 2 || wanted < 2 || max_threads < 2 || is_within_piece)
    return do_alone(num_pieces, body);
  const std::unique_lock lock(all.mutex, std::try_to_lock);
  if (!lock) return do_alone(num_pieces, body);
  if (all.team == nullptr || all.team->num_threads() != wanted) {
    all.team = nullptr;
    all.team = std::make_unique<Team>(wanted);
  }
  expect(num_pieces < std::int64_t{1} << 32, "fewer than 2^32 pieces");
  const auto mark_and_run = [&body](std::int64_t piece, int thread) {
    is_within_piece = true;
    body(piece, thread);
    is_within_piece = false;
  };
  all.team->run(static_cast<std::uint32_t>(num_pieces), std::min(max_threads, wanted),
                mark_and_run);
}

}  // namespace switchyard::kernels
