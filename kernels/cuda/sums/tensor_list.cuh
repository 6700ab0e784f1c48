// Many tensors of one launch: their list goes with the call, and each block finds the tensor and
// the stretch of it that are its own.
#pragma once

#include "kernels/cuda/common.cuh"

namespace switchyard::kernels::cuda {

// Tensor: what a kernel wants to know of one.
template <class Tensor, int most>
struct TensorList {
  Tensor tensors[most];
  std::int64_t first_block[most + 1];  // of each tensor; the last: blocks of all
  int size = 0;

  // Adds a tensor that takes so many blocks. Not for a full list.
  void add(const Tensor& tensor, std::int64_t num_blocks) {
    if (size == 0) first_block[0] = 0;
    tensors[size] = tensor;
    first_block[size + 1] = first_block[size] + num_blocks;
    ++size;
  }
  bool is_full() const { return size == most; }
  std::int64_t num_blocks() const { return size == 0 ? 0 : first_block[size]; }

  // The tensor of a block.
  __device__ int tensor_of(std::int64_t block) const {
    int low = 0, high = size - 1;
    while (low < high) {
      const int middle = (low + high + 1) / 2;
      if (first_block[middle] <= block)
        low = middle;
      else
        high = middle - 1;
    }
    return low;
  }
};

}  // namespace switchyard::kernels::cuda
