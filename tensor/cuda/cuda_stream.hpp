// Streams and events of a card.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "tensor/cuda/runtime.hpp"
#include "tensor/stream.hpp"

namespace switchyard::cuda {

enum class StreamPriority : bool { normal, high };

class CudaStream final : public Stream {
 public:
  explicit CudaStream(StreamPriority priority);
  ~CudaStream() override;

  Event record() override;
  void wait_host() override;
  TimePoint mark() override;
  bool has_come(TimePoint point) override;
  double seconds_between(TimePoint from, TimePoint to) override;
  void forget_before(TimePoint first_kept) override;
  void* native() const override { return stream_; }

 private:
  cudaEvent_t event_of(TimePoint point) const;

  cudaStream_t stream_ = nullptr;
  // Moments first_ and following ones, an event each; and events to be used again.
  std::int64_t first_ = 0;
  std::deque<cudaEvent_t> moments_;
  std::vector<cudaEvent_t> spare_;
};

}  // namespace switchyard::cuda
