// Who watches chosen activations of a training pass as they come by, such as a capture to a file.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "tensor/tensor.hpp"

namespace switchyard {

// Each is a tensor that the layer's record names (is_named).
enum class ObservedTensor : std::uint8_t {
  hidden,         // [T, H] compute type: the residual stream as it enters the layer
  attention_lse,  // f32 [T, num_heads]
  gate_probs,     // f32 [T, E]: of layers with experts
};
constexpr std::array<std::string_view, 3> choice_names(ObservedTensor) {
  return {"hidden", "attention_lse", "gate_probs"};
}

constexpr bool is_named(ObservedTensor which, std::string_view name_in_record) {
  switch (which) {
    case ObservedTensor::hidden:
      return name_in_record == "stream";
    case ObservedTensor::attention_lse:  // of attention, with a convolution or without
      return name_in_record.starts_with("attention") && name_in_record.ends_with(".lse");
    case ObservedTensor::gate_probs:
      return name_in_record == "moe.gate.scores";
  }
  return false;
}

class ActivationObserver {
 public:
  virtual ~ActivationObserver() = default;
  // A micro-batch begins; i64 [S].
  virtual void begin(const TensorView& sequence_ids) = 0;
  // Rows are this rank's tokens, sequence by sequence. The view is valid during the call only.
  virtual void observe(std::int64_t layer, ObservedTensor which, const TensorView& rows) = 0;
};

}  // namespace switchyard
