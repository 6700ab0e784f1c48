#include "kernels/team.hpp"

#include <linux/futex.h>
#include <omp.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <ctime>

namespace switchyard::kernels {

namespace {

using Clock = std::chrono::steady_clock;

// Between the kernels of a step there is seldom more than the first; shorter costs a step percents.
// Where another program keeps a core busy, a core is better left at once to the thread that holds
// the last piece (docs/performance.md, a busy neighbour).
constexpr std::chrono::microseconds spin_when_quiet{100};
constexpr std::chrono::microseconds spin_when_disturbed{0};
constexpr std::chrono::milliseconds memory_of_disturbance{100};

// What threads with work lose of their cores. Now and then the system's own tasks take a
// millisecond or some; another program that computes takes half a core.
constexpr std::chrono::milliseconds window_of_losses{100};
constexpr std::chrono::milliseconds lost_when_disturbed{8};  // in a window
constexpr std::chrono::milliseconds lost_when_still{1};      // once, while it is remembered

// What the calling thread has computed so far.
std::chrono::nanoseconds processor_time() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

constexpr std::uint64_t pieces_of(std::uint64_t offer) {
  return offer & 0xffffffffu;
}
constexpr int threads_of(std::uint64_t offer) {
  return static_cast<int>(offer >> 32);
}

// Not std::atomic's wait and notify: those yield to other programs before they sleep, which gives
// away the rest of the time slice in every call.
static_assert(sizeof(std::atomic<std::uint32_t>) == sizeof(std::uint32_t));
void sleep_while(std::atomic<std::uint32_t>& value, std::uint32_t expected) {
  ::syscall(SYS_futex, &value, FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}
void wake(std::atomic<std::uint32_t>& value, int num_threads) {
  ::syscall(SYS_futex, &value, FUTEX_WAKE_PRIVATE, num_threads, nullptr, nullptr, 0);
}

// Waits for a condition, but not after `end`; whether it came true.
template <class Condition>
bool spin_until(Clock::time_point end, Condition&& condition) {
  do {
    for (int i = 0; i < 16; ++i) {
      if (condition()) return true;
      __builtin_ia32_pause();
    }
  } while (Clock::now() < end);
  return condition();
}

// Where OMP_PROC_BIND asks for it, OpenMP has bound the thread that it found at the start to the
// first of its places (OMP_PLACES). The others follow as those of an OpenMP team would.
void bind_to_place(int thread, int num_threads) {
  const omp_proc_bind_t bind = omp_get_proc_bind();
  const int num_places = omp_get_num_places();
  if (bind == omp_proc_bind_false || num_places == 0) return;
  int place = 0;
  if (bind == omp_proc_bind_spread || num_threads > num_places)
    place = static_cast<int>(std::int64_t{thread} * num_places / num_threads);
  else if (bind != omp_proc_bind_master)
    place = thread;
  std::vector<int> processors(static_cast<std::size_t>(omp_get_place_num_procs(place)));
  omp_get_place_proc_ids(place, processors.data());
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int processor : processors)
    if (processor < CPU_SETSIZE) CPU_SET(processor, &set);
  ::sched_setaffinity(0, sizeof set, &set);
}

}  // namespace

Team::Team(int num_threads) : seats_(static_cast<std::size_t>(num_threads)) {
  for (int thread = 1; thread < num_threads; ++thread)
    workers_.emplace_back([this, thread, num_threads] {
      bind_to_place(thread, num_threads);
      work(thread);
    });
}

Team::~Team() {
  stop_ = true;
  ++calls_;
  wake(calls_, num_threads());
  for (std::thread& worker : workers_) worker.join();
}

void Team::run(std::uint32_t num_pieces, int max_threads, const PieceBody& body) {
  body_ = &body;
  num_pieces_ = num_pieces;
  unfinished_.store(num_pieces, std::memory_order_relaxed);
  offer_.store(static_cast<std::uint64_t>(max_threads) << 32 | num_pieces,
               std::memory_order_release);
  ++calls_;
  wake_some();
  take_pieces(0);
  wait_until_done();
}

void Team::work(int thread) {
  while (!stop_) {
    const std::uint32_t seen = calls_;
    take_pieces(thread);
    wait_for_call(thread, seen);
  }
}

void Team::take_pieces(int thread) noexcept {
  std::uint32_t num_done = 0;
  std::uint64_t offer = offer_.load(std::memory_order_acquire);
  if (pieces_of(offer) == 0 || thread >= threads_of(offer)) return;
  seats_[static_cast<std::size_t>(thread)].processor.store(::sched_getcpu(),
                                                           std::memory_order_relaxed);
  const Clock::time_point begin = Clock::now();
  const std::chrono::nanoseconds computed = processor_time();
  while (pieces_of(offer) > 0 && thread < threads_of(offer)) {
    if (!offer_.compare_exchange_weak(offer, offer - 1, std::memory_order_acq_rel,
                                      std::memory_order_acquire))
      continue;
    (*body_)(num_pieces_ - static_cast<std::int64_t>(pieces_of(offer)), thread);
    ++num_done;
    offer = offer_.load(std::memory_order_acquire);
  }
  if (num_done == 0) return;
  if (unfinished_.fetch_sub(num_done) == num_done && caller_sleeps_) wake(unfinished_, 1);
  const Clock::time_point end = Clock::now();
  notice_loss(end, end - begin - (processor_time() - computed));
}

// Threads may meet here; what one of them misses does not matter.
void Team::notice_loss(Clock::time_point now, std::chrono::nanoseconds lost) noexcept {
  if (lost < lost_when_still) return;
  const std::chrono::nanoseconds time = now.time_since_epoch();
  if (time - window_begin_.load(std::memory_order_relaxed) > window_of_losses) {
    window_begin_.store(time, std::memory_order_relaxed);
    lost_in_window_.store({}, std::memory_order_relaxed);
  }
  const std::chrono::nanoseconds sum = lost_in_window_.load(std::memory_order_relaxed) + lost;
  lost_in_window_.store(sum, std::memory_order_relaxed);
  if (sum >= lost_when_disturbed || is_disturbed(now))
    disturbed_until_.store(time + memory_of_disturbance, std::memory_order_relaxed);
}

void Team::leave_shared_processor(int thread) noexcept {
  const int here = ::sched_getcpu();
  bool is_shared = false;
  cpu_set_t allowed, elsewhere;
  if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  elsewhere = allowed;
  for (std::size_t other = 0; other < seats_.size(); ++other) {
    const int processor = seats_[other].processor.load(std::memory_order_relaxed);
    if (static_cast<int>(other) == thread || processor < 0) continue;
    is_shared = is_shared || processor == here;
    if (processor < CPU_SETSIZE) CPU_CLR(processor, &elsewhere);
  }
  if (!is_shared || CPU_COUNT(&elsewhere) == 0) return;
  ::sched_setaffinity(0, sizeof elsewhere, &elsewhere);
  ::sched_setaffinity(0, sizeof allowed, &allowed);
}

bool Team::has_pieces() const {
  return pieces_of(offer_.load(std::memory_order_relaxed)) > 0;
}

// Each thread that wakes up wakes two more while there is work, so that the caller need not spend
// its time on waking them all.
void Team::wake_some() {
  if (sleepers_ > 0 && has_pieces()) wake(calls_, 2);
}

bool Team::is_disturbed(Clock::time_point now) const {
  return now.time_since_epoch() < disturbed_until_.load(std::memory_order_relaxed);
}

std::chrono::microseconds Team::time_to_spin(Clock::time_point now) const {
  return is_disturbed(now) ? spin_when_disturbed : spin_when_quiet;
}

void Team::wait_for_call(int thread, std::uint32_t seen) {
  const Clock::time_point begin = Clock::now();
  if (spin_until(begin + time_to_spin(begin), [&] { return calls_ != seen; })) return;
  seats_[static_cast<std::size_t>(thread)].processor.store(-1, std::memory_order_relaxed);
  ++sleepers_;
  while (calls_ == seen) sleep_while(calls_, seen);
  --sleepers_;
  wake_some();
  leave_shared_processor(thread);
}

void Team::wait_until_done() {
  const Clock::time_point begin = Clock::now();
  if (spin_until(begin + time_to_spin(begin),
                 [&] { return unfinished_.load(std::memory_order_acquire) == 0; }))
    return;
  seats_[0].processor.store(-1, std::memory_order_relaxed);
  caller_sleeps_ = true;
  for (std::uint32_t left = unfinished_; left > 0; left = unfinished_)
    sleep_while(unfinished_, left);
  caller_sleeps_ = false;
  leave_shared_processor(0);
}

}  // namespace switchyard::kernels
