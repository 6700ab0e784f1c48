// A Group is a fixed set of ranks that exchange tensors. It is passed to whoever communicates and
// never looked up. One interface, several implementations: MPI (mpi_group.cpp), the plan, which
// only records bytes (plan_group.cpp), and later NCCL. Every collective is called by all ranks of
// the group, in the same order, with matching counts.
//
// Each exchange has a starting form that returns an Event. It runs on the communication stream of
// the operands' device, after what that device's compute stream holds when it is started. The
// operands must stay untouched until the event is done: `event.wait(stream)` lets a stream go on
// with them, `event.wait_host()` the host. MPI moves data only while somebody calls it, so long
// computations call progress() between their blocks. Sums are taken in rank order: the same bits on
// every run and on every rank of the group.
//
// A rank starts the exchanges of all its groups in one order, and two ranks that share several
// groups start theirs in the same one: whether an exchange is complete never decides which is
// started next. (MPI would bear another order; NCCL, whose exchanges hold the card until their
// partners come, does not.)
//
// P = size(); bytes on the wire are per rank, for n bytes of operand (docs/parallelism.md).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "parallel/group/topology.hpp"
#include "tensor/stream.hpp"
#include "tensor/tensor.hpp"

namespace switchyard {

enum class ReduceOp : std::uint8_t { sum, max, min };

// What of a tensor goes to, or comes from, each rank of a group, in runs: run i is the rows
// first[i]
// ... first[i] + count[i] - 1. Rank p has run p or, if `ends` is given, the runs from ends[p - 1]
// to ends[p] - 1. Counts may be zero. Borrowed.
struct RankRows {
  std::span<const std::int64_t> first;
  std::span<const std::int64_t> count;
  std::span<const std::size_t> ends = {};

  std::size_t num_ranks() const { return ends.empty() ? count.size() : ends.size(); }
  std::size_t begin_of(std::size_t rank) const {
    if (ends.empty()) return rank;
    return rank == 0 ? 0 : ends[rank - 1];
  }
  std::size_t end_of(std::size_t rank) const { return ends.empty() ? rank + 1 : ends[rank]; }
  std::span<const std::int64_t> counts_of(std::size_t rank) const {
    return count.subspan(begin_of(rank), end_of(rank) - begin_of(rank));
  }
  std::int64_t rows_of(std::size_t rank) const;
};

class Group {
 public:
  virtual ~Group() = default;
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  const std::string& name() const { return name_; }  // the axis, for messages: "expert"
  int rank() const { return rank_; }
  int size() const { return size_; }
  // Which ranks of this group share a host.
  const Topology& topology() const { return topology_; }

  // whole: contiguous, f32, f64, i32 or i64; reduced in place on all ranks. 2 n (P - 1) / P bytes.
  virtual Event start_all_reduce(const TensorView& whole, ReduceOp op) = 0;
  // whole: contiguous f32 or i64 with P equal parts; on completion part `rank()` holds the sum over
  // ranks, the other parts are unchanged. staging: of that type, at least (P - 1) parts. n (P - 1)
  // / P bytes.
  virtual Event start_reduce_scatter(const TensorView& whole, const TensorView& staging) = 0;
  // whole: contiguous, any type, P equal parts; part `rank()` goes to all others. n (P - 1) / P.
  virtual Event start_all_gather(const TensorView& whole) = 0;
  // The rows `to` of send go to the ranks, the rows `from` of recv come from them; a rank receives
  // from each other the runs that that one sends to it, but for empty ones: as many, each as long,
  // in the same order. Both [rows, H] contiguous, of one type. What goes to oneself is copied. send
  // and recv do not overlap. Rows of recv that are not in `from` are not touched: so a long
  // exchange can travel in pieces, each from some row of every rank on.
  virtual Event start_all_to_all_v(const TensorView& send, const RankRows& to,
                                   const TensorView& recv, const RankRows& from) = 0;
  // All rows: send is sorted by receiving rank and recv by sending rank, without gaps.
  Event start_all_to_all_v(const TensorView& send, std::span<const std::int64_t> send_rows,
                           const TensorView& recv, std::span<const std::int64_t> recv_rows);
  virtual Event start_broadcast(const TensorView& whole, int root) = 0;
  // One message to `to` and one from `from` (a ring's step); either may be empty.
  virtual Event start_send_receive(const TensorView& send, int to, const TensorView& recv,
                                   int from) = 0;
  virtual void barrier() = 0;
  // Lets exchanges under way advance; cheap.
  virtual void progress() = 0;

  // Small host values, blocking. all.size() = P * mine.size(); rank p's values at p * mine.size().
  virtual void all_gather_values(std::span<const std::int64_t> mine,
                                 std::span<std::int64_t> all) = 0;
  virtual void all_reduce_values(std::span<double> values, ReduceOp op) = 0;
  // Whole numbers, whose sums have no order: 2 n (P - 1) / P bytes.
  virtual void all_reduce_values(std::span<std::int64_t> values, ReduceOp op) = 0;
  virtual void broadcast_text(std::string& text, int root) = 0;

  // The group, among those in `partition`, that this rank belongs to. Every rank of this group
  // calls it with the same partition of 0 ... P - 1; members are ordered as listed.
  virtual std::unique_ptr<Group> subgroup(std::string name,
                                          const std::vector<std::vector<int>>& partition) = 0;

  // The same, and the device's compute stream goes on after the exchange.
  void all_reduce(const TensorView& whole, ReduceOp op) {
    finish(start_all_reduce(whole, op), whole);
  }
  void reduce_scatter(const TensorView& whole, const TensorView& staging) {
    finish(start_reduce_scatter(whole, staging), whole);
  }
  void all_gather(const TensorView& whole) { finish(start_all_gather(whole), whole); }
  void all_to_all_v(const TensorView& send, std::span<const std::int64_t> send_rows,
                    const TensorView& recv, std::span<const std::int64_t> recv_rows) {
    finish(start_all_to_all_v(send, send_rows, recv, recv_rows),
           recv.device != nullptr ? recv : send);
  }
  void broadcast(const TensorView& whole, int root) { finish(start_broadcast(whole, root), whole); }
  void send_receive(const TensorView& send, int to, const TensorView& recv, int from) {
    finish(start_send_receive(send, to, recv, from), recv.device != nullptr ? recv : send);
  }

 protected:
  // The ranks of a group without a topology share one host.
  Group(std::string name, int rank, int size)
      : Group(std::move(name), rank, size, Topology(size, rank)) {}
  Group(std::string name, int rank, int size, Topology topology)
      : name_(std::move(name)), rank_(rank), size_(size), topology_(std::move(topology)) {}

  // Where this rank is in a partition. InternalError unless each of 0 ... P - 1 is listed once.
  struct Place {
    int list = 0;
    int index = 0;  // in that list
    int size = 0;   // of that list
  };
  Place place_in(const std::vector<std::vector<int>>& partition) const;

 private:
  static void finish(Event event, const TensorView& operand) {
    if (operand.device != nullptr) event.wait(operand.device->compute_stream());
  }

  std::string name_;
  int rank_;
  int size_;
  Topology topology_;
};

// A group of `size` ranks seen from `rank` that moves nothing and records, in the device's profile,
// the bytes this rank would send. all_gather_values gives every rank this rank's values,
// all_reduce_values multiplies sums by the size: the balanced world.
std::unique_ptr<Group> make_plan_group(std::string name, int rank, int size, Device& device);

// A world of one rank, without MPI: for commands that run in one process.
std::unique_ptr<Group> make_local_group(std::string name);

}  // namespace switchyard
