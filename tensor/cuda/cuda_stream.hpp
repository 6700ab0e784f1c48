// Streams and events of a card.
#pragma once

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
  void* native() const override { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

}  // namespace switchyard::cuda
