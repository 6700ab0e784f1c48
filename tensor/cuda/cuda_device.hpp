// The device `cuda`: one NVIDIA card. Tensors lie in its memory; kernels run on the compute stream,
// exchanges on the communication stream, and neither holds up the host.
//
// Growable tensors are ranges of addresses to which memory is mapped as they grow (CUDA's virtual
// memory management), so they keep address and contents. All others share one such range, cut by an
// arena: memory that is given back is used again in the order of the compute stream, without a
// wait. host() is memory of the host that the card copies from and to directly (pinned).
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "tensor/device.hpp"

namespace switchyard {

// Cards that this process can use; 0 where there is no driver.
int num_cuda_cards();

// What is wrong, and the remedy, where there are none; else empty.
std::string why_no_cuda_card();

// The calling thread's current card.
struct CudaCard {
  int index = 0;
  std::string name;              // "NVIDIA H200"
  std::int64_t total_bytes = 0;  // of memory
  std::int64_t free_bytes = 0;
};
CudaCard current_card();

// `card`: its number among them. Becomes the calling thread's current card. ConfigError, with the
// remedy, where there is no driver, none new enough, or no such card.
std::unique_ptr<Device> make_cuda_device(int card);

}  // namespace switchyard
