#include "tensor/cuda/cuda_stream.hpp"

#include "tensor/error.hpp"

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
  for (const cudaEvent_t event : moments_) cudaEventDestroy(event);
  for (const cudaEvent_t event : spare_) cudaEventDestroy(event);
  cudaStreamDestroy(stream_);
}

Event CudaStream::record() {
  return Event(std::make_unique<RecordedPoint>(stream_));
}

void CudaStream::wait_host() {
  check(cudaStreamSynchronize(stream_));
}

TimePoint CudaStream::mark() {
  if (spare_.empty()) check(cudaEventCreate(&spare_.emplace_back()));
  moments_.push_back(spare_.back());
  spare_.pop_back();
  check(cudaEventRecord(moments_.back(), stream_));
  return {first_ + std::ssize(moments_) - 1};
}

bool CudaStream::has_come(TimePoint point) {
  const cudaError_t status = cudaEventQuery(event_of(point));
  if (status == cudaErrorNotReady) return false;
  check(status);
  return true;
}

double CudaStream::seconds_between(TimePoint from, TimePoint to) {
  check(cudaEventSynchronize(event_of(from)));
  check(cudaEventSynchronize(event_of(to)));
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, event_of(from), event_of(to)));
  return 1e-3 * static_cast<double>(milliseconds);
}

void CudaStream::forget_before(TimePoint first_kept) {
  for (; first_ < first_kept.number && !moments_.empty(); ++first_) {
    spare_.push_back(moments_.front());
    moments_.pop_front();
  }
}

cudaEvent_t CudaStream::event_of(TimePoint point) const {
  const std::int64_t place = point.number - first_;
  expect(0 <= place && place < std::ssize(moments_), "a moment of this stream that is kept");
  return moments_[static_cast<std::size_t>(place)];
}

}  // namespace switchyard::cuda
