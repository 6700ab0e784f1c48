// The kernels that a machine's profile has rates of, each with operands of its own: made on the
// processor to be timed, and on the plan device to learn under which kind and size a step's record
// knows them. So a case's name and its work are what the plan twin says, and nothing here.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "tensor/tensor.hpp"

namespace switchyard::bench {

// One call of a kernel on operands that it owns.
struct KernelCall {
  std::function<void()> run;
  TensorView fresh;  // what the kernel before it in a step has just written; may be empty
};

// The three products of a weight, in the order forward, backward_input, backward_weight.
std::vector<KernelCall> product_calls(Device& device, std::int64_t rows, std::int64_t out,
                                      std::int64_t in, DType compute);
// The same over groups with as many rows each.
struct GroupedCase {
  std::int64_t groups = 0;             // of a block of rows, as experts take them at once
  std::int64_t groups_of_weights = 0;  // of the block that the gradients of weights take at once
  std::int64_t rows_of_group = 0;
  std::int64_t out = 0;
  std::int64_t in = 0;
};
std::vector<KernelCall> grouped_calls(Device& device, const GroupedCase& which, DType compute);
// Attention: forward, backward.
struct AttentionCase {
  std::int64_t num_sequences = 1;
  std::int64_t query_length = 0;
  std::int64_t key_length = 0;
  std::int64_t window = 0;  // 0: none
  bool is_causal = true;    // else all keys are seen
  std::int64_t head_dim = 0;
  std::int64_t group = 1;  // query heads of a kv head
};
std::vector<KernelCall> attention_calls(Device& device, const AttentionCase& which, DType compute);

// The loops: rows of 512 elements, or what the kernel has in their place.
struct LoopCase {
  std::string_view name;  // for messages
  bool has_bf16 = false;  // else of f32 alone
  std::function<KernelCall(Device& device, std::int64_t rows, DType dtype)> make;
};
const std::vector<LoopCase>& loop_cases();

}  // namespace switchyard::bench
