// What the routers decide in one step for this rank's tokens, kept on the device for whoever writes
// it down (trace_writer.hpp). Allocated before the first step, so that a plan counts it.
#pragma once

#include "data/loader.hpp"
#include "model/routing_observer.hpp"
#include "tensor/tensor.hpp"
#include "trainer/config.hpp"

namespace switchyard {

class RoutingRecord final : public RoutingObserver {
 public:
  RoutingRecord(Device& device, const Config& config, const BatchLayout& layout);
  void observe(std::int64_t moe_layer, const GateRecord& gate, std::int64_t num_tokens,
               const Pass& pass) override;

  // Of the last step observed, all micro-steps: layers with experts, then tokens as they lie in the
  // rank's batches.
  const TensorView& experts() const { return experts_; }            // i32 [L, T, k]; -1: dropped
  const TensorView& weights() const { return weights_; }            // f32 [L, T, k]
  const TensorView& sequence_ids() const { return sequence_ids_; }  // i64
  // i32 [L, T, k]: the choices before any was dropped; none where nothing may be.
  TensorView considered() const { return considered_.empty() ? TensorView{} : considered_.view(); }

 private:
  Tensor experts_, weights_, considered_, sequence_ids_;
};

// Which layers have experts.
std::vector<std::int64_t> moe_layers_of(const Config& config);

}  // namespace switchyard
