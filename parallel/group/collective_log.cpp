#include "parallel/group/collective_log.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <functional>
#include <new>
#include <sstream>
#include <type_traits>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

static_assert(std::is_trivially_copyable_v<LogState>);

// A reader in another process sees each number whole; which of two it sees first does not matter.
template <class T>
void set(T& field, T value) {
  std::atomic_ref<T>(field).store(value, std::memory_order_relaxed);
}

template <std::size_t size>
void copy_name(std::array<char, size>& to, std::string_view name) {
  const std::size_t length = std::min(name.size(), size - 1);
  std::copy_n(name.begin(), length, to.begin());
  to[length] = '\0';
}

struct Process {
  char state = ' ';
  std::uint64_t start = 0;
};

// From /proc/PID/stat; the command's name in it ends at the last parenthesis.
std::optional<Process> find_process(std::int64_t number) {
  std::ifstream file(fmt::format("/proc/{}/stat", number));
  std::string text;
  if (!std::getline(file, text)) return std::nullopt;
  std::istringstream fields(text.substr(text.rfind(')') + 1));
  Process process;
  std::string skipped;
  fields >> process.state;
  for (int index = 4; index < 22; ++index) fields >> skipped;
  if (!(fields >> process.start)) return std::nullopt;
  return process;
}

// The boot of this host and the process numbers' namespace in it.
std::uint64_t find_process_space() {
  std::string text;
  std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), text);
  std::array<char, 64> space{};
  if (::readlink("/proc/self/ns/pid", space.data(), space.size() - 1) > 0) text += space.data();
  return std::hash<std::string>()(text);
}

std::optional<LogState> read_state(int file) {
  LogState state;
  if (::pread(file, &state, sizeof state, 0) != static_cast<ssize_t>(sizeof state))
    return std::nullopt;
  if (state.format != LogState::current_format) return std::nullopt;
  return state;
}

}  // namespace

std::string_view name_of(Operation operation) {
  switch (operation) {
    case Operation::all_reduce:
      return "all_reduce";
    case Operation::reduce_scatter:
      return "reduce_scatter";
    case Operation::all_gather:
      return "all_gather";
    case Operation::all_to_all:
      return "all_to_all";
    case Operation::broadcast:
      return "broadcast";
    case Operation::send_receive:
      return "send_receive";
    case Operation::barrier:
      return "barrier";
    case Operation::gather_values:
      return "gather_values";
    case Operation::reduce_values:
      return "reduce_values";
    case Operation::broadcast_text:
      return "broadcast_text";
    case Operation::split:
      return "split";
  }
  return "?";
}

std::string_view name_of(RunSection section) {
  switch (section) {
    case RunSection::setup:
      return "setup";
    case RunSection::step:
      return "step";
    case RunSection::evaluation:
      return "evaluation";
    case RunSection::checkpoint:
      return "checkpoint";
  }
  return "?";
}

const CollectiveRecord* LogState::find(std::uint8_t group, std::uint64_t sequence) const {
  const auto found = std::find_if(ring.begin(), ring.end(), [&](const CollectiveRecord& record) {
    return record.number > 0 && record.group == group && record.sequence == sequence;
  });
  return found == ring.end() ? nullptr : &*found;
}

CollectiveLog::CollectiveLog() : file_(::memfd_create("switchyard-collectives", MFD_CLOEXEC)) {
  void* memory = MAP_FAILED;
  if (file_ >= 0 && ::ftruncate(file_, sizeof(LogState)) == 0)
    memory = ::mmap(nullptr, sizeof(LogState), PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0);
  if (memory == MAP_FAILED) {
    const std::string reason = std::strerror(errno);
    if (file_ >= 0) ::close(file_);
    throw IoError("no memory for the log of collectives: " + reason);
  }
  state_ = new (memory) LogState;
  std::array<char, 128> host{};
  ::gethostname(host.data(), host.size() - 1);
  copy_name(state_->host, host.data());
  state_->process = ::getpid();
  const std::optional<Process> self = find_process(state_->process);
  state_->process_start = self ? self->start : 0;
  state_->process_space = find_process_space();
  state_->descriptor = file_;
}

CollectiveLog::~CollectiveLog() {
  ::munmap(state_, sizeof(LogState));
  ::close(file_);
}

void CollectiveLog::set_rank(int rank, int num_ranks) {
  state_->rank = rank;
  state_->num_ranks = num_ranks;
}

std::uint8_t CollectiveLog::add_group(std::string_view name, int leader, int size) {
  const std::uint32_t count = state_->num_groups;
  for (std::uint32_t i = 0; i < count; ++i) {
    const GroupState& group = state_->groups[i];
    if (name == group.name.data() && leader == group.leader && size == group.size)
      return static_cast<std::uint8_t>(i);
  }
  expect(count < LogState::max_groups, "at most 32 different groups of a rank");
  GroupState& group = state_->groups[count];
  copy_name(group.name, name);
  group.leader = leader;
  group.size = size;
  set(state_->num_groups, count + 1);
  return static_cast<std::uint8_t>(count);
}

CollectiveRecord CollectiveLog::enter(std::uint8_t group, Operation operation,
                                      std::int64_t bytes_sent, std::int64_t bytes_received) {
  const StepPlace& place = state_->place;
  CollectiveRecord record{.number = state_->num_entered + 1,
                          .sequence = state_->groups[group].num_entered + 1,
                          .bytes_sent = bytes_sent,
                          .bytes_received = bytes_received,
                          .entered = system_nanoseconds(),
                          .waited = 0,
                          .left = 0,
                          .step = place.step,
                          .layer = place.layer,
                          .group = group,
                          .operation = operation,
                          .part = place.part,
                          .backward = place.backward};
  state_->ring[record.number % LogState::num_records] = record;
  set(state_->groups[group].num_entered, record.sequence);
  set(state_->num_entered, record.number);
  return record;
}

void CollectiveLog::wait(CollectiveRecord& record) {
  record.waited = system_nanoseconds();
  state_->waiting = record;
  set(state_->is_waiting, true);
}

void CollectiveLog::leave(CollectiveRecord& record) {
  set(state_->is_waiting, false);
  record.left = system_nanoseconds();
  if (record.waited > 0) set(state_->waited_ns, state_->waited_ns + record.left - record.waited);
  CollectiveRecord& kept = state_->ring[record.number % LogState::num_records];
  if (kept.number == record.number) kept = record;
  if (records_ != nullptr) records_->push_back(record);
  set(state_->num_left, state_->num_left + 1);
}

StepPlace& CollectiveLog::place() {
  return state_->place;
}

void CollectiveLog::enter_section(RunSection section) {
  set(state_->section, section);
  set(state_->place.num_changes, state_->place.num_changes + 1);
}

void CollectiveLog::set_leave(Leave leave) {
  set(state_->leave, leave);
}

std::int64_t CollectiveLog::waited_ns() const {
  return state_->waited_ns;
}

void CollectiveLog::beat() {
  set(state_->beats, state_->beats + 1);
}

LogState CollectiveLog::read() const {
  const std::optional<LogState> state = read_state(file_);
  if (!state) throw IoError("the log of collectives cannot be read");
  return *state;
}

std::optional<LogState> read_live(const LogState& known) {
  if (known.process_space != find_process_space()) return std::nullopt;
  const std::string path = fmt::format("/proc/{}/fd/{}", known.process, known.descriptor);
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return std::nullopt;
  const std::optional<LogState> state = read_state(file);
  ::close(file);
  const bool same = state && state->process == known.process && state->rank == known.rank &&
                    state->process_start == known.process_start;
  return same ? state : std::nullopt;
}

ProcessState process_state(const LogState& known) {
  const std::optional<Process> process = find_process(known.process);
  if (!process || process->start != known.process_start) return ProcessState::gone;
  if (process->state == 'Z' || process->state == 'X') return ProcessState::gone;
  const bool stopped = process->state == 'T' || process->state == 't';
  return stopped ? ProcessState::stopped : ProcessState::running;
}

std::int64_t system_nanoseconds() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

}  // namespace switchyard
