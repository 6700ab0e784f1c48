// The group over MPI. A group has a communicator of its own, and every exchange a tag of its own, a
// number that counts the exchanges of the group: several under way at once do not mix.
#include <fmt/core.h>
#include <mpi.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <limits>

#include "parallel/group/collective_log.hpp"
#include "parallel/group/group.hpp"
#include "parallel/group/mpi_call.hpp"
#include "parallel/group/mpi_exchanges.hpp"
#include "parallel/group/mpi_library.hpp"
#include "parallel/group/mpi_staging.hpp"
#include "parallel/group/mpi_topology.hpp"
#include "parallel/group/rank_order.hpp"
#include "parallel/group/rank_runs.hpp"
#include "parallel/group/wire_bytes.hpp"
#include "tensor/error.hpp"

namespace switchyard::mpi {

namespace {

// Parts of an all-gather up to this size go by the library's own exchange, in few rounds.
constexpr std::int64_t small_part_bytes = 4 << 10;
constexpr std::int64_t text_piece_bytes = 1 << 30;

int rank_in(MPI_Comm communicator) {
  int rank = 0;
  check(MPI_Comm_rank(communicator, &rank), "MPI_Comm_rank");
  return rank;
}

int size_of_group(MPI_Comm communicator) {
  int size = 0;
  check(MPI_Comm_size(communicator, &size), "MPI_Comm_size");
  return size;
}

int highest_tag() {
  void* value = nullptr;
  int found = 0;
  check(MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, &value, &found), "MPI_Comm_get_attr");
  return found != 0 ? *static_cast<int*>(value) : 32767;  // the least that the standard grants
}

int checked_count(std::size_t count) {
  expect(count <= static_cast<std::size_t>(std::numeric_limits<int>::max()),
         "fewer than 2^31 host values");
  return static_cast<int>(count);
}

void expect_exchangeable(const TensorView& view) {
  expect(view.empty() || !view.device->is_plan(), "a tensor with memory, as MPI moves it");
  expect(view.is_contiguous(), "a contiguous tensor to exchange");
}

// An exchange that tells the log when it is waited for and when it is over.
template <class Exchange>
class Logged final : public Event::Pending {
 public:
  template <class... Arguments>
  Logged(CollectiveLog& log, const CollectiveRecord& record, Arguments&&... arguments)
      : log_(log), record_(record), exchange_(std::forward<Arguments>(arguments)...) {}

  bool test() override {
    if (!exchange_.test()) return false;
    log_.leave(record_);
    return true;
  }

  void wait_host() override {
    log_.wait(record_);
    exchange_.wait_host();
    log_.leave(record_);
  }

 private:
  CollectiveLog& log_;
  CollectiveRecord record_;
  Exchange exchange_;
};

template <class Exchange, class... Arguments>
Event logged(CollectiveLog& log, const CollectiveRecord& record, Arguments&&... arguments) {
  return Event(
      std::make_unique<Logged<Exchange>>(log, record, std::forward<Arguments>(arguments)...));
}

// The number in all ranks of the job of the first rank of a communicator.
int leader_of(MPI_Comm communicator) {
  MPI_Group group = MPI_GROUP_NULL;
  MPI_Group world = MPI_GROUP_NULL;
  check(MPI_Comm_group(communicator, &group), "MPI_Comm_group");
  check(MPI_Comm_group(MPI_COMM_WORLD, &world), "MPI_Comm_group");
  const int first = 0;
  int leader = 0;
  check(MPI_Group_translate_ranks(group, 1, &first, world, &leader), "MPI_Group_translate_ranks");
  check(MPI_Group_free(&group), "MPI_Group_free");
  check(MPI_Group_free(&world), "MPI_Group_free");
  return leader;
}

class MpiGroup final : public Group {
 public:
  // Takes the communicator. The log outlives the group and everything it started.
  MpiGroup(std::string name, MPI_Comm communicator, Topology topology, CollectiveLog& log)
      : Group(std::move(name), rank_in(communicator), size_of_group(communicator),
              std::move(topology)),
        communicator_(communicator),
        highest_tag_(highest_tag()),
        log_(log),
        number_in_log_(log.add_group(this->name(), leader_of(communicator), size())) {}

  ~MpiGroup() override {
    // While an exception unwinds, the other ranks may be anywhere: MPI stays as it is until the
    // end.
    if (std::uncaught_exceptions() > 0) return;
    if (MPI_Comm_free(&communicator_) != MPI_SUCCESS)
      std::fprintf(stderr, "the communicator of group %s could not be freed\n", name().c_str());
  }

  Event start_all_reduce(const TensorView& whole, ReduceOp op) override;
  Event start_reduce_scatter(const TensorView& whole, const TensorView& staging) override;
  Event start_all_gather(const TensorView& whole) override;
  Event start_all_to_all_v(const TensorView& send, const RankRows& to, const TensorView& recv,
                           const RankRows& from) override;
  Event start_broadcast(const TensorView& whole, int root) override;
  Event start_send_receive(const TensorView& send, int to, const TensorView& recv,
                           int from) override;
  void barrier() override {
    const CollectiveLog::Scope scope(log_, number_in_log_, Operation::barrier, 0);
    check(MPI_Barrier(communicator_), "MPI_Barrier");
  }
  void progress() override;

  void all_gather_values(std::span<const std::int64_t> mine, std::span<std::int64_t> all) override;
  void all_reduce_values(std::span<double> values, ReduceOp op) override;
  void all_reduce_values(std::span<std::int64_t> values, ReduceOp op) override;
  void broadcast_text(std::string& text, int root) override;
  std::unique_ptr<Group> subgroup(std::string name,
                                  const std::vector<std::vector<int>>& partition) override;

 private:
  // Where the next exchange takes place. All ranks start the exchanges of a group in the same
  // order.
  Site next_site() {
    const Site site{MPI_Comm_c2f(communicator_), rank(), size(), next_tag_};
    next_tag_ = next_tag_ == highest_tag_ ? 0 : next_tag_ + 1;
    return site;
  }

  CollectiveRecord enter(Operation operation, std::int64_t bytes) {
    return log_.enter(number_in_log_, operation, bytes, bytes);
  }

  MPI_Comm communicator_;
  int highest_tag_;
  int next_tag_ = 0;
  CollectiveLog& log_;
  std::uint8_t number_in_log_;
};

Event MpiGroup::start_all_reduce(const TensorView& whole, ReduceOp op) {
  expect_exchangeable(whole);
  if (size() == 1 || whole.empty()) return Event();
  const bool is_floating = whole.dtype == DType::f32 || whole.dtype == DType::f64;
  expect(is_floating || whole.dtype == DType::i32 || whole.dtype == DType::i64,
         "a reduction of f32, f64, i32 or i64");
  wire::record(*whole.device, wire::all_reduce(whole.num_bytes(), size()),
               wire::reduce_counts(whole.num_bytes(), size()));
  const CollectiveRecord record = enter(Operation::all_reduce, whole.num_bytes());
  Staging staging;
  const TensorView host = staging.of(whole, Staging::Use::read_and_write);
  const Site site = next_site();
  // The sum of whole numbers has no order.
  if (!is_floating)
    return staging.then_back(logged<LibraryExchange>(
        log_, record, LibraryExchange::all_reduce_integers(site.communicator, host, op)));
  return staging.then_back(logged<AllReduce>(log_, record, site, host, op));
}

Event MpiGroup::start_reduce_scatter(const TensorView& whole, const TensorView& staging) {
  expect_exchangeable(whole);
  if (size() == 1 || whole.empty()) return Event();
  expect_exchangeable(staging);
  expect((whole.dtype == DType::f32 || whole.dtype == DType::i64) && staging.dtype == whole.dtype,
         "a reduce-scatter of f32 or i64");
  expect(whole.numel() % size() == 0, "as many equal parts as ranks");
  expect(staging.numel() >= whole.numel() / size() * (size() - 1),
         "staging for the parts of all other ranks");
  wire::record(*whole.device, wire::reduce_scatter(whole.num_bytes(), size()));
  const CollectiveRecord record = enter(Operation::reduce_scatter, whole.num_bytes());
  Staging through_host;
  const std::int64_t part = whole.numel() / size();
  const TensorView host_whole =
      through_host.of_part_written(whole, rank() * part, (rank() + 1) * part);
  const TensorView host_staging = through_host.of(staging, Staging::Use::scratch);
  return through_host.then_back(
      logged<ReduceScatter>(log_, record, next_site(), host_whole, host_staging));
}

Event MpiGroup::start_all_gather(const TensorView& whole) {
  expect_exchangeable(whole);
  if (size() == 1 || whole.empty()) return Event();
  expect(whole.numel() % size() == 0, "as many equal parts as ranks");
  const std::int64_t part = whole.num_bytes() / size();
  wire::record(*whole.device, wire::all_gather(whole.num_bytes(), size()),
               wire::gather_values(part, size()));
  const CollectiveRecord record = enter(Operation::all_gather, whole.num_bytes());
  Staging staging;
  const TensorView gathered = staging.of(whole, Staging::Use::read_and_write);
  std::byte* const host = gathered.host_bytes();
  const Site site = next_site();
  if (part <= small_part_bytes)
    return staging.then_back(logged<LibraryExchange>(
        log_, record, LibraryExchange::all_gather(site.communicator, gathered, part)));
  Messages messages(site.communicator, site.tag);
  for (int i = 1; i < size(); ++i) {
    const int from = (rank() + size() - i) % size();
    messages.receive(from, host + from * part, part);
  }
  for (int i = 1; i < size(); ++i) messages.send((rank() + i) % size(), host + rank() * part, part);
  return staging.then_back(logged<Transfer>(log_, record, std::move(messages)));
}

Event MpiGroup::start_all_to_all_v(const TensorView& send, const RankRows& to,
                                   const TensorView& recv, const RankRows& from) {
  expect_runs_fit(send, to, recv, from, rank(), size());
  expect_exchangeable(send);
  expect_exchangeable(recv);
  const double bytes_sent = wire::all_to_all_v(send, to, rank());
  if (send.device != nullptr)
    wire::record(*send.device, bytes_sent, wire::told_counts(bytes_sent, size()));

  const std::int64_t send_row_bytes = send.cols() * size_of(send.dtype);
  const std::int64_t recv_row_bytes = recv.cols() * size_of(recv.dtype);
  // In step i every rank sends to the one i places after it: no two send to the same rank at once.
  const CollectiveRecord record =
      log_.enter(number_in_log_, Operation::all_to_all, rows_in(to) * send_row_bytes,
                 rows_in(from) * recv_row_bytes);
  Staging staging;
  const TensorView sent = staging.of(send, Staging::Use::read);
  const TensorView received = staging.of_rows_written(recv, from);
  const Site site = next_site();
  Messages messages(site.communicator, site.tag);
  for (int i = 1; i < size(); ++i) {
    const int p = (rank() + size() - i) % size();
    for_each_run(received, from, p, [&](std::int64_t offset, std::int64_t bytes) {
      messages.receive(p, received.host_bytes() + offset, bytes);
    });
  }
  for (int i = 1; i < size(); ++i) {
    const int p = (rank() + i) % size();
    for_each_run(sent, to, p, [&](std::int64_t offset, std::int64_t bytes) {
      messages.send(p, sent.host_bytes() + offset, bytes);
    });
  }
  for_each_own_run(sent, to, received, from, rank(),
                   [&](std::int64_t there, std::int64_t here, std::int64_t bytes) {
                     std::memcpy(received.host_bytes() + there, sent.host_bytes() + here,
                                 static_cast<std::size_t>(bytes));
                   });
  return staging.then_back(logged<Transfer>(log_, record, std::move(messages)));
}

Event MpiGroup::start_broadcast(const TensorView& whole, int root) {
  expect(0 <= root && root < size(), "a root in the group");
  expect_exchangeable(whole);
  if (size() == 1 || whole.empty()) return Event();
  wire::record(*whole.device, wire::broadcast(whole.num_bytes(), size()));
  const CollectiveRecord record = enter(Operation::broadcast, whole.num_bytes());
  Staging staging;
  const TensorView host =
      staging.of(whole, rank() == root ? Staging::Use::read : Staging::Use::write);
  return staging.then_back(logged<LibraryExchange>(
      log_, record, LibraryExchange::broadcast(MPI_Comm_c2f(communicator_), host, root)));
}

Event MpiGroup::start_send_receive(const TensorView& send, int to, const TensorView& recv,
                                   int from) {
  expect(0 <= to && to < size() && 0 <= from && from < size(), "neighbours in the group");
  expect_exchangeable(send);
  expect_exchangeable(recv);
  const CollectiveRecord record =
      log_.enter(number_in_log_, Operation::send_receive, send.num_bytes(), recv.num_bytes());
  Staging staging;
  const TensorView sent = staging.of(send, Staging::Use::read);
  const TensorView received = staging.of(recv, Staging::Use::write);
  const Site site = next_site();
  Messages messages(site.communicator, site.tag);
  if (!recv.empty() && from != rank())
    messages.receive(from, received.host_bytes(), recv.num_bytes());
  if (!send.empty() && to != rank()) {
    wire::record(*send.device, static_cast<double>(send.num_bytes()));
    messages.send(to, sent.host_bytes(), send.num_bytes());
  }
  if (!send.empty() && to == rank()) {
    expect(from == rank() && send.num_bytes() == recv.num_bytes(),
           "a rank that sends to itself to receive from itself");
    std::memcpy(received.host_bytes(), sent.host_bytes(),
                static_cast<std::size_t>(send.num_bytes()));
  }
  return staging.then_back(logged<Transfer>(log_, record, std::move(messages)));
}

void MpiGroup::progress() {
  if (size() == 1) return;
  int found = 0;
  check(MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, communicator_, &found, MPI_STATUS_IGNORE),
        "MPI_Iprobe");
}

void MpiGroup::all_gather_values(std::span<const std::int64_t> mine, std::span<std::int64_t> all) {
  expect(all.size() == mine.size() * static_cast<std::size_t>(size()),
         "room for all ranks' values");
  const int count = checked_count(mine.size());
  const CollectiveLog::Scope scope(log_, number_in_log_, Operation::gather_values,
                                   std::ssize(mine) * std::int64_t{sizeof(std::int64_t)});
  check(
      MPI_Allgather(mine.data(), count, MPI_INT64_T, all.data(), count, MPI_INT64_T, communicator_),
      "MPI_Allgather");
}

void MpiGroup::all_reduce_values(std::span<double> values, ReduceOp op) {
  if (size() == 1 || values.empty()) return;
  std::vector<double> all(values.size() * static_cast<std::size_t>(size()));
  const int count = checked_count(values.size());
  const CollectiveLog::Scope scope(log_, number_in_log_, Operation::reduce_values,
                                   std::ssize(values) * std::int64_t{sizeof(double)});
  check(
      MPI_Allgather(values.data(), count, MPI_DOUBLE, all.data(), count, MPI_DOUBLE, communicator_),
      "MPI_Allgather");
  std::vector<const std::byte*> sources;
  for (int p = 0; p < size(); ++p)
    sources.push_back(reinterpret_cast<const std::byte*>(all.data() + static_cast<std::size_t>(p) *
                                                                          values.size()));
  reduce_in_rank_order(sources, reinterpret_cast<std::byte*>(values.data()), count, DType::f64, op);
}

void MpiGroup::all_reduce_values(std::span<std::int64_t> values, ReduceOp op) {
  if (size() == 1 || values.empty()) return;
  const CollectiveLog::Scope scope(log_, number_in_log_, Operation::reduce_values,
                                   static_cast<std::int64_t>(values.size_bytes()));
  all_reduce_integers(MPI_Comm_c2f(communicator_), values, op);
}

void MpiGroup::broadcast_text(std::string& text, int root) {
  expect(0 <= root && root < size(), "a root in the group");
  const CollectiveLog::Scope scope(log_, number_in_log_, Operation::broadcast_text, 0);
  std::int64_t length = static_cast<std::int64_t>(text.size());
  check(MPI_Bcast(&length, 1, MPI_INT64_T, root, communicator_), "MPI_Bcast");
  text.resize(static_cast<std::size_t>(length));
  for (std::int64_t begin = 0; begin < length; begin += text_piece_bytes) {
    const int count = static_cast<int>(std::min(text_piece_bytes, length - begin));
    check(MPI_Bcast(text.data() + begin, count, MPI_CHAR, root, communicator_), "MPI_Bcast");
  }
}

std::unique_ptr<Group> MpiGroup::subgroup(std::string name,
                                          const std::vector<std::vector<int>>& partition) {
  const Place place = place_in(partition);
  MPI_Comm communicator = MPI_COMM_NULL;
  const CollectiveLog::Scope scope(log_, number_in_log_, Operation::split, 0);
  check(MPI_Comm_split(communicator_, place.list, place.index, &communicator), "MPI_Comm_split");
  return std::make_unique<MpiGroup>(
      std::move(name), communicator,
      topology().of_members(partition[static_cast<std::size_t>(place.list)], place.index), log_);
}

}  // namespace

std::unique_ptr<Group> make_world_group(CollectiveLog& log) {
  MPI_Comm communicator = MPI_COMM_NULL;
  check(MPI_Comm_dup(MPI_COMM_WORLD, &communicator), "MPI_Comm_dup");
  return std::make_unique<MpiGroup>("world", communicator,
                                    find_topology(MPI_Comm_c2f(communicator)), log);
}

}  // namespace switchyard::mpi
