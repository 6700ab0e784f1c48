#include "parallel/group/mpi_exchanges.hpp"

#include <algorithm>

#include "parallel/group/rank_order.hpp"

namespace switchyard::mpi {

namespace {

// Rank p's place among the ranks other than `rank`.
std::int64_t place_of(int p, int rank) {
  return p < rank ? p : p - 1;
}

}  // namespace

ReduceScatter::ReduceScatter(const Site& site, const TensorView& whole, const TensorView& staging)
    : messages_(site.communicator, site.tag),
      sources_(static_cast<std::size_t>(site.size)),
      part_(whole.numel() / site.size),
      dtype_(whole.dtype) {
  const std::int64_t bytes = part_ * size_of(dtype_);
  result_ = whole.host_bytes() + site.rank * bytes;
  sources_[static_cast<std::size_t>(site.rank)] = result_;
  for (int i = 1; i < site.size; ++i) {
    const int from = (site.rank + site.size - i) % site.size;
    std::byte* received = staging.host_bytes() + place_of(from, site.rank) * bytes;
    messages_.receive(from, received, bytes);
    sources_[static_cast<std::size_t>(from)] = received;
  }
  for (int i = 1; i < site.size; ++i) {
    const int to = (site.rank + i) % site.size;
    messages_.send(to, whole.host_bytes() + to * bytes, bytes);
  }
}

void ReduceScatter::sum() {
  reduce_in_rank_order(sources_, result_, part_, dtype_, ReduceOp::sum);
}

bool ReduceScatter::test() {
  if (!messages_.test()) return false;
  sum();
  return true;
}

void ReduceScatter::wait_host() {
  messages_.wait();
  sum();
}

AllReduce::AllReduce(const Site& site, const TensorView& whole, ReduceOp op)
    : site_(site),
      messages_(site.communicator, site.tag),
      data_(whole.host_bytes()),
      numel_(whole.numel()),
      dtype_(whole.dtype),
      op_(op),
      is_short_(whole.num_bytes() <= short_bytes) {
  start_segment();
}

void AllReduce::start_segment() {
  gathering_ = false;
  segment_numel_ = std::min(segment_bytes / size_of(dtype_), numel_ - segment_begin_);
  const std::int64_t reduced = is_short_ ? segment_numel_ : part_numel(site_.rank);
  const std::int64_t bytes = reduced * size_of(dtype_);
  received_.resize(static_cast<std::size_t>(bytes * (site_.size - 1)));
  for (int i = 1; i < site_.size; ++i) {
    const int from = (site_.rank + site_.size - i) % site_.size;
    messages_.receive(from, received_.data() + place_of(from, site_.rank) * bytes, bytes);
  }
  for (int i = 1; i < site_.size; ++i) {
    const int to = (site_.rank + i) % site_.size;
    if (is_short_)
      messages_.send(to, segment(0), bytes);
    else
      messages_.send(to, segment(part_begin(to)), part_numel(to) * size_of(dtype_));
  }
}

void AllReduce::reduce() {
  const std::int64_t numel = is_short_ ? segment_numel_ : part_numel(site_.rank);
  std::byte* own = segment(is_short_ ? 0 : part_begin(site_.rank));
  std::vector<const std::byte*> sources;
  for (int p = 0; p < site_.size; ++p)
    sources.push_back(p == site_.rank
                          ? own
                          : received_.data() + place_of(p, site_.rank) * numel * size_of(dtype_));
  reduce_in_rank_order(sources, own, numel, dtype_, op_);
}

void AllReduce::gather() {
  gathering_ = true;
  for (int i = 1; i < site_.size; ++i) {
    const int from = (site_.rank + site_.size - i) % site_.size;
    messages_.receive(from, segment(part_begin(from)), part_numel(from) * size_of(dtype_));
  }
  for (int i = 1; i < site_.size; ++i)
    messages_.send((site_.rank + i) % site_.size, segment(part_begin(site_.rank)),
                   part_numel(site_.rank) * size_of(dtype_));
}

bool AllReduce::advance() {
  if (!gathering_) reduce();
  if (is_short_) return false;
  if (!gathering_) {
    gather();
    return true;
  }
  segment_begin_ += segment_numel_;
  if (segment_begin_ == numel_) return false;
  start_segment();
  return true;
}

bool AllReduce::test() {
  while (messages_.test())
    if (!advance()) return true;
  return false;
}

void AllReduce::wait_host() {
  do messages_.wait();
  while (advance());
}

}  // namespace switchyard::mpi
