// The records of all layers of one micro-batch in flight, under the policy of each layer:
//   keep       the layer owns its record
//   recompute  it owns Saved; Derived is one working record that such layers share, and is computed
//              again in the backward pass, without the products inside the feed-forward
//   spill      whole records come from a pool: with N of them the n-th spilled layer works in
//   record
//              n % N. A record goes to the store as soon as its layer is done, comes back when the
//              backward pass has left that place, and the last N layers never move.
// The pool is as large as the budget allows with balanced routing; its buffers then follow the rows
// that the router sends, as all buffers do. All policies give the same bits.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "model/activation_store.hpp"
#include "model/block.hpp"
#include "model/config.hpp"

namespace switchyard {

struct ActivationOptions {
  std::vector<LayerPolicy> policies = {};  // by layer; layers beyond its end keep
  std::int64_t memory_bytes = 0;           // for the pool of spilled layers; 0: two records
  ActivationStore* store = nullptr;        // outlives the activations; needed if a layer spills
  std::int64_t planned_rows = 0;           // see RowCapacity

  LayerPolicy policy_of(std::size_t layer) const {
    return layer < policies.size() ? policies[layer] : LayerPolicy::keep;
  }
};

class LayerRecords {
 public:
  using Blocks = std::vector<std::unique_ptr<Block>>;
  struct Record {
    Block::Saved& saved;
    Block::Derived& derived;
  };
  // balanced_rows: that a rank receives in a layer if all experts are equally loaded. ConfigError,
  // with the least legal value, if the budget does not hold two records.
  LayerRecords(const Blocks& blocks, const ActivationOptions& options, std::int64_t num_tokens,
               std::int64_t num_sequences, std::int64_t balanced_rows, RowCapacity& capacity);
  LayerRecords(const LayerRecords&) = delete;
  LayerRecords& operator=(const LayerRecords&) = delete;

  // In this order: begin_forward() for each layer, ascending, with end_forward() after each, or
  // after the next has begun (what lies in a record is not read after its end); then, if `keeps`
  // was true, begin_backward() and end_backward() for each layer, descending.
  Record begin_forward(std::size_t layer, const Pass& pass);
  void end_forward(std::size_t layer, bool keeps);
  // Derived is as the forward pass left it, unless the layer rebuilds().
  Record begin_backward(std::size_t layer, const Pass& pass);
  void end_backward(std::size_t layer);
  bool rebuilds(std::size_t layer) const {
    return options_.policy_of(layer) == LayerPolicy::recompute;
  }

  std::size_t num_layers() const { return layers_.size(); }
  // That a layer with experts routed in the last forward pass.
  std::int64_t num_tokens(std::size_t layer) const { return routes_[layer].num_tokens; }
  std::int64_t num_pool_records() const { return std::ssize(pool_); }
  // The tensors that the pass fills for a layer.
  void for_each_tensor(std::size_t layer, const RecordVisitor& visit);
  // Copied out and back by the passes so far.
  double bytes_spilled() const { return bytes_spilled_; }

 private:
  struct Owned {
    Block::Saved saved;
    Block::Derived derived;
  };

  void make_pool(std::int64_t num_tokens, std::int64_t num_sequences, std::int64_t balanced_rows);
  Owned make_pool_record(std::int64_t num_tokens, std::int64_t num_sequences) const;
  static std::int64_t bytes_of(Owned& record, std::int64_t balanced_rows);
  std::int64_t pool_size(std::int64_t record_bytes) const;
  void register_buffers(Owned& record);
  // The place of a spilled layer among the spilled ones; whether it moves to the store.
  std::size_t spill_index(std::size_t layer) const { return spill_index_[layer]; }
  bool moves(std::size_t layer) const {
    return spill_index(layer) + pool_.size() < spilled_layers_.size();
  }
  Owned& pool_record(std::size_t layer) { return pool_[spill_index(layer) % pool_.size()]; }
  Record record_of(std::size_t layer);
  std::vector<RecordTensor> tensors_of(std::size_t layer);
  void wait_for(std::size_t layer, const Pass& pass);
  // For the record of a plan's step (tensor/work_record.hpp).
  void note_copy(std::size_t layer, std::string_view kind_of_file, double bytes);

  const Blocks& blocks_;
  ActivationOptions options_;
  Device* device_ = nullptr;
  RowCapacity& capacity_;
  // Never resized after they were registered: the capacity knows where their buffers are.
  std::vector<Owned> layers_;  // by layer: what it owns itself
  Block::Derived working_;     // of the layers that recompute
  std::vector<Owned> pool_;    // of the layers that spill
  std::vector<std::size_t> spilled_layers_;
  std::vector<std::size_t> spill_index_;  // by layer
  std::vector<RouteCounts> routes_;       // by layer: what the backward pass needs of a route
  double bytes_spilled_ = 0;
  std::vector<std::int64_t> copy_numbers_;  // by layer: of its last copy, in a plan's record
};

}  // namespace switchyard
