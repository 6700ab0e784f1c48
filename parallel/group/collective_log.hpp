// What this rank's last collectives were and where it is in its step, in memory that other
// processes of the host can read while this one is stuck, stopped, or waiting inside MPI. The
// session owns the log; groups note each exchange in it as it is entered, waited for and left, and
// a Profile publishes the place of the computation to it. Nothing here takes a lock or calls MPI.
//
// The memory is an anonymous file (memfd): it never waits for a disk, it disappears with the
// process, and others open it as /proc/PID/fd/N. One thread writes, but for the heartbeat, which
// belongs to whoever watches.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/profile.hpp"

namespace switchyard {

enum class Operation : std::uint8_t {
  all_reduce,
  reduce_scatter,
  all_gather,
  all_to_all,
  broadcast,
  send_receive,
  barrier,
  gather_values,
  reduce_values,
  broadcast_text,
  split,
};
std::string_view name_of(Operation operation);

enum class RunSection : std::uint8_t { setup, step, evaluation, checkpoint };
std::string_view name_of(RunSection section);

// One collective as this rank sees it. Times are nanoseconds of the system's clock; 0: not yet.
struct CollectiveRecord {
  std::uint64_t number = 0;    // of this rank's collectives, from 1
  std::uint64_t sequence = 0;  // of its group's collectives, from 1: the same on all its ranks
  std::int64_t bytes_sent = 0;
  std::int64_t bytes_received = 0;
  std::int64_t entered = 0;
  std::int64_t waited = 0;  // since when the rank does nothing else
  std::int64_t left = 0;
  std::int64_t step = 0;
  std::int32_t layer = -1;
  std::uint8_t group = 0;  // in LogState::groups
  Operation operation = Operation::all_reduce;
  Part part = Part::other;
  bool backward = false;
};

struct GroupState {
  std::array<char, 24> name{};
  std::int32_t leader = 0;  // the world's number of its first rank; names and leaders tell groups
                            // apart
  std::int32_t size = 0;
  std::uint64_t num_entered = 0;  // collectives
};

// How this rank took leave of the others; `failed` and `done` ranks are not missed.
enum class Leave : std::uint8_t { running, done, failed };

// All that there is to know of a rank: what lies in the memory, and what a reader gets a copy of.
struct LogState {
  static constexpr std::uint64_t current_format = 0x3130676f4c7753ULL;
  static constexpr std::size_t max_groups = 32;
  static constexpr std::size_t num_records = 64;

  std::uint64_t format = current_format;
  std::int32_t rank = 0;
  std::int32_t num_ranks = 1;
  std::array<char, 128> host{};
  std::int64_t process = 0;
  std::uint64_t process_start = 0;  // clock ticks since boot: with the number, never used again
  std::uint64_t process_space = 0;  // equal where process numbers mean the same: host, container
  std::int32_t descriptor = -1;     // of the memory's file in that process
  RunSection section = RunSection::setup;
  Leave leave = Leave::running;
  bool is_waiting = false;  // inside `waiting`
  StepPlace place;
  CollectiveRecord waiting;
  std::uint64_t num_entered = 0;
  std::uint64_t num_left = 0;
  std::int64_t waited_ns = 0;  // inside collectives, since the start
  std::uint64_t beats = 0;     // heartbeats
  std::uint32_t num_groups = 0;
  std::array<GroupState, max_groups> groups{};
  std::array<CollectiveRecord, num_records> ring{};  // number n at n % num_records

  // Grows with everything that the rank does.
  std::uint64_t progress() const { return num_entered + num_left + place.num_changes; }
  const CollectiveRecord* find(std::uint8_t group, std::uint64_t sequence) const;
  std::string_view host_name() const { return host.data(); }
};

class CollectiveLog {
 public:
  // IoError if the system gives no memory.
  CollectiveLog();
  ~CollectiveLog();
  CollectiveLog(const CollectiveLog&) = delete;
  CollectiveLog& operator=(const CollectiveLog&) = delete;

  void set_rank(int rank, int num_ranks);
  // The number that enter() takes. Groups of one name and leader share it, so meshes may come and
  // go.
  std::uint8_t add_group(std::string_view name, int leader, int size);

  // A rank that has started an exchange may go on computing: it waits later, or never.
  CollectiveRecord enter(std::uint8_t group, Operation operation, std::int64_t bytes_sent,
                         std::int64_t bytes_received);
  void wait(CollectiveRecord& record);
  void leave(CollectiveRecord& record);
  // From now on each collective is added to `records`, too, when it is left; null: no longer.
  // `records` outlives that.
  void keep_in(std::vector<CollectiveRecord>* records) { records_ = records; }

  // From entering to leaving, for what blocks.
  class Scope {
   public:
    Scope(CollectiveLog& log, std::uint8_t group, Operation operation, std::int64_t bytes)
        : log_(log), record_(log.enter(group, operation, bytes, bytes)) {
      log_.wait(record_);
    }
    ~Scope() { log_.leave(record_); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    CollectiveLog& log_;
    CollectiveRecord record_;
  };

  StepPlace& place();
  void enter_section(RunSection section);
  void set_leave(Leave leave);
  std::int64_t waited_ns() const;
  // By the thread that watches, alone.
  void beat();

  // A copy; any thread may take one.
  LogState read() const;

 private:
  int file_ = -1;
  LogState* state_ = nullptr;
  std::vector<CollectiveRecord>* records_ = nullptr;  // may be null
};

// The state of a process of this host, as `known` says where it was; none if that process is gone
// or its memory closed to us.
std::optional<LogState> read_live(const LogState& known);

// What the system says of the process, asked where process numbers mean the same.
enum class ProcessState : std::uint8_t { running, stopped, gone };
ProcessState process_state(const LogState& known);

std::int64_t system_nanoseconds();

}  // namespace switchyard
