// One communicator of NCCL: its life, its errors, and its exchanges under way. Private to
// parallel/.
#pragma once

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <deque>
#include <functional>

#include "parallel/group/collective_log.hpp"
#include "parallel/group/group.hpp"
#include "parallel/group/nccl_library.hpp"
#include "tensor/device.hpp"

namespace switchyard::nccl {

// Non-blocking: no call of NCCL holds the host, so a rank that waits for one that is gone can be
// reported and ended (trainer/watch).
class Communicator {
 public:
  // Collective over `below`, which carries NCCL's address to all ranks. The device is a card, the
  // calling thread's current one; it and the log outlive the communicator.
  Communicator(Group& below, Device& device, CollectiveLog& log);
  // Finishes what is under way and frees the communicator; while an exception unwinds it is
  // aborted, as the other ranks may be anywhere.
  ~Communicator();
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  ncclComm_t handle() const { return handle_; }
  const Library& library() const { return library_; }
  Device& device() const { return device_; }
  cudaStream_t stream() const;  // the communication stream

  // Calls put() between ncclGroupStart and ncclGroupEnd, on the communication stream, after what
  // the compute stream holds.
  void enqueue(const std::function<void()>& put);
  // What a function of NCCL returned inside put(). IoError with NCCL's words.
  void check(ncclResult_t result, const char* what) const;

  // The exchange that was just put on the stream; noted in the log until it is done.
  Event under_way(const CollectiveRecord& record);
  // Notes exchanges that are done. IoError if NCCL reports that one has failed.
  void poll();

 private:
  class Exchange;
  struct Flight {
    CollectiveRecord record;
    Event done;
  };
  ncclResult_t state() const;  // ncclInProgress while NCCL still works at a call
  void settle(const char* what) const;

  const Library& library_;
  Device& device_;
  CollectiveLog& log_;
  ncclComm_t handle_ = nullptr;
  std::deque<Flight> flights_;  // in the order of the stream
};

}  // namespace switchyard::nccl
