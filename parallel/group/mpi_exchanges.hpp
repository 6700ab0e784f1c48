// The exchanges of the MPI group that are more than a list of messages: what happens when messages
// have arrived happens in test() or wait_host(), because MPI has no thread of its own. Private to
// parallel/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "parallel/group/group.hpp"
#include "parallel/group/mpi_messages.hpp"

namespace switchyard::mpi {

// Where one exchange takes place.
struct Site {
  int communicator = 0;  // MPI's integer handle
  int rank = 0;
  int size = 1;
  int tag = 0;
};

// Messages and nothing else: all-to-all, all-gather, a ring's step.
class Transfer final : public Event::Pending {
 public:
  explicit Transfer(Messages messages) : messages_(std::move(messages)) {}
  bool test() override { return messages_.test(); }
  void wait_host() override { messages_.wait(); }

 private:
  Messages messages_;
};

// Part p of every rank goes to rank p, which sums what arrived.
class ReduceScatter final : public Event::Pending {
 public:
  // whole: f32 or i64, P equal parts; staging: at least P - 1 parts.
  ReduceScatter(const Site& site, const TensorView& whole, const TensorView& staging);
  bool test() override;
  void wait_host() override;

 private:
  void sum();

  Messages messages_;
  std::vector<const std::byte*> sources_;  // by rank; this rank's own part is the result
  std::byte* result_ = nullptr;
  std::int64_t part_ = 0;  // elements
  DType dtype_;
};

// A short operand goes whole to all ranks. A long one goes in segments, each of them scattered,
// reduced and gathered, so that the buffer stays small.
class AllReduce final : public Event::Pending {
 public:
  static constexpr std::int64_t short_bytes = 16 << 10;
  static constexpr std::int64_t segment_bytes = 4 << 20;

  AllReduce(const Site& site, const TensorView& whole, ReduceOp op);
  bool test() override;
  void wait_host() override;

 private:
  std::int64_t part_begin(int p) const { return segment_numel_ * p / site_.size; }
  std::int64_t part_numel(int p) const { return part_begin(p + 1) - part_begin(p); }
  std::byte* segment(std::int64_t element) const {
    return data_ + (segment_begin_ + element) * size_of(dtype_);
  }
  void start_segment();
  void reduce();
  void gather();
  bool advance();  // after the messages of a phase; false when nothing follows

  Site site_;
  Messages messages_;
  std::byte* data_ = nullptr;
  std::int64_t numel_ = 0;
  DType dtype_;
  ReduceOp op_;
  bool is_short_ = false;
  bool gathering_ = false;
  std::int64_t segment_begin_ = 0;  // elements
  std::int64_t segment_numel_ = 0;
  std::vector<std::byte> received_;  // the others' operands for this rank's part, in rank order
};

}  // namespace switchyard::mpi
