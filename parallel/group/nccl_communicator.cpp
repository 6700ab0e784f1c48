#include "parallel/group/nccl_communicator.hpp"

#include <fmt/core.h>
#include <sched.h>

#include <cstdio>
#include <cstring>
#include <exception>
#include <string>

#include "tensor/cuda/runtime.hpp"
#include "tensor/error.hpp"

namespace switchyard::nccl {

// What its starter holds of an exchange: a point of the communication stream. The host never waits
// inside CUDA, where it could not see that NCCL has failed.
class Communicator::Exchange final : public Event::Pending {
 public:
  Exchange(Communicator& communicator, const CollectiveRecord& record, Event done)
      : communicator_(communicator), record_(record), done_(std::move(done)) {}

  bool test() override {
    communicator_.poll();
    return done_.test();
  }
  void wait_host() override {
    if (test()) return;
    communicator_.log_.wait(record_);
    while (!test()) ::sched_yield();
  }
  void wait(Stream& stream) override {
    communicator_.poll();
    done_.wait(stream);
  }

 private:
  Communicator& communicator_;
  CollectiveRecord record_;
  Event done_;
};

Communicator::Communicator(Group& below, Device& device, CollectiveLog& log)
    : library_(nccl::library()), device_(device), log_(log) {
  expect(device.kind() == DeviceKind::cuda, "a card to exchange from");
  ncclUniqueId address{};
  if (below.rank() == 0) check(library_.get_unique_id(&address), "ncclGetUniqueId");
  std::string text(address.internal, sizeof address.internal);
  below.broadcast_text(text, 0);
  std::memcpy(address.internal, text.data(), sizeof address.internal);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  check(library_.init_rank(&handle_, below.size(), address, below.rank(), &config),
        "ncclCommInitRankConfig");
  settle("ncclCommInitRankConfig");
}

Communicator::~Communicator() {
  if (std::uncaught_exceptions() > 0) {
    library_.abort(handle_);
    return;
  }
  try {
    device_.communication_stream().wait_host();
    poll();
    check(library_.finalize(handle_), "ncclCommFinalize");
    settle("ncclCommFinalize");
    check(library_.destroy(handle_), "ncclCommDestroy");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    library_.abort(handle_);
  }
}

cudaStream_t Communicator::stream() const {
  return cuda::native(device_.communication_stream());
}

void Communicator::check(ncclResult_t result, const char* what) const {
  if (result == ncclSuccess || result == ncclInProgress) return;
  throw IoError(
      fmt::format("{}: {} ({}); two ranks on one card need parallel.share_devices: true, "
                  "and NCCL_DEBUG=WARN tells more",
                  what, library_.error_text(result),
                  handle_ == nullptr ? "no communicator" : library_.last_error(handle_)));
}

ncclResult_t Communicator::state() const {
  ncclResult_t result = ncclSuccess;
  check(library_.get_async_error(handle_, &result), "ncclCommGetAsyncError");
  return result;
}

void Communicator::settle(const char* what) const {
  ncclResult_t result = state();
  for (; result == ncclInProgress; result = state()) ::sched_yield();
  check(result, what);
}

void Communicator::enqueue(const std::function<void()>& put) {
  poll();
  device_.compute_stream().record().wait(device_.communication_stream());
  check(library_.group_start(), "ncclGroupStart");
  put();
  check(library_.group_end(), "ncclGroupEnd");
  settle("ncclGroupEnd");
}

Event Communicator::under_way(const CollectiveRecord& record) {
  flights_.push_back({record, device_.communication_stream().record()});
  return Event(std::make_unique<Exchange>(*this, record, device_.communication_stream().record()));
}

void Communicator::poll() {
  const ncclResult_t result = state();
  if (result != ncclInProgress) check(result, "an exchange between cards");
  for (; !flights_.empty() && flights_.front().done.test(); flights_.pop_front())
    log_.leave(flights_.front().record);
}

}  // namespace switchyard::nccl
