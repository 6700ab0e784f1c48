// Hears of every layer (ParameterStore::begin_layer) before a forward pass first reads its weights,
// as GradientSync hears of gradients when they are final. Values are whole on every replica today,
// so it only checks that a pass asks for all layers, in their order; values that are sharded would
// be gathered here, the next layer's while this one is computed.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>

#include "tensor/error.hpp"

namespace switchyard {

class LayerOrder {
 public:
  using Needed = std::function<void(int layer)>;

  // on_need: told of each layer, too.
  explicit LayerOrder(int num_layers, Needed on_need = {})
      : num_layers_(num_layers), on_need_(std::move(on_need)) {}

  // InternalError unless it is the layer after the one before, or the first one of another pass.
  void needs(int layer) {
    if (next_ == num_layers_) next_ = 0;
    expect(layer == next_,
           "the layers of a forward pass in order, each before its weights are read");
    ++next_;
    if (next_ == num_layers_) ++num_passes_;
    if (on_need_) on_need_(layer);
  }
  std::int64_t num_passes() const { return num_passes_; }  // that asked for all layers

 private:
  int num_layers_;
  int next_ = 0;
  std::int64_t num_passes_ = 0;
  Needed on_need_;
};

}  // namespace switchyard
