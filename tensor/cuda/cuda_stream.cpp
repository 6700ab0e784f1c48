#include "tensor/cuda/cuda_stream.hpp"

namespace switchyard::cuda {

namespace {

// A point of a stream's work.
class RecordedPoint final : public Event::Pending {
 public:
  explicit RecordedPoint(cudaStream_t stream) {
    check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming));
    const cudaError_t status = cudaEventRecord(event_, stream);
    if (status != cudaSuccess) cudaEventDestroy(event_);
    check(status);
  }
  ~RecordedPoint() override { cudaEventDestroy(event_); }
  RecordedPoint(const RecordedPoint&) = delete;
  RecordedPoint& operator=(const RecordedPoint&) = delete;

  bool test() override {
    const cudaError_t status = cudaEventQuery(event_);
    if (status == cudaErrorNotReady) return false;
    check(status);
    return true;
  }
  void wait_host() override { check(cudaEventSynchronize(event_)); }
  void wait(Stream& stream) override {
    if (stream.native() == nullptr)
      wait_host();  // work of this stream runs while the host puts it there
    else
      check(cudaStreamWaitEvent(cuda::native(stream), event_, 0));
  }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace

CudaStream::CudaStream(StreamPriority priority) {
  int lowest = 0;
  int highest = 0;
  check(cudaDeviceGetStreamPriorityRange(&lowest, &highest));
  check(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking,
                                     priority == StreamPriority::high ? highest : lowest));
}

CudaStream::~CudaStream() {
  cudaStreamDestroy(stream_);
}

Event CudaStream::record() {
  return Event(std::make_unique<RecordedPoint>(stream_));
}

void CudaStream::wait_host() {
  check(cudaStreamSynchronize(stream_));
}

}  // namespace switchyard::cuda
