// What one micro-batch in flight needs beside a model's parameters: the records of its layers, and
// the scratch that layers share. Allocated once, for a number of sequences of one length, and used
// again each micro-step. Whoever trains makes it, and asks it what passes left; a model's passes
// take from it what they fill.
// Legend: T tokens of the micro-batch that this rank holds, H hidden.
#pragma once

#include <vector>

#include "model/activation_observer.hpp"
#include "model/head.hpp"
#include "model/layer_records.hpp"
#include "model/routing_observer.hpp"

namespace switchyard {

class Transformer;

class Activations {
 public:
  // Behind the last block.
  struct Output {
    Tensor stream;  // [T, H]
    Block::Normed norm;
    Head::Scratch head;
    Tensor d_stream;  // [T, H]: gradient of the residual stream, through all blocks
  };

  // The options' ConfigErrors: see LayerRecords.
  Activations(const Transformer& model, std::int64_t num_sequences, std::int64_t sequence_length,
              const ActivationOptions& options = {});
  // Sequences that are split over the context ranks of the model's mesh.
  Activations(const Transformer& model, std::int64_t num_sequences, const SequenceSplit& split,
              const ActivationOptions& options = {});
  Activations(const Activations&) = delete;
  Activations& operator=(const Activations&) = delete;

  // Where the documents of the next batches begin (kernels/attention/key_ranges.hpp): from now on
  // no token attends to another document. Empty, as at first: documents do not matter.
  void set_documents(kernels::DocumentStarts document_starts);

  // Rows for which there is room: that this rank received in a layer so far, or were reserved.
  std::int64_t max_rows() const { return capacity_.rows(); }
  // Makes room for that many rows at once: as many as the fullest rank received (RowCapacity).
  void reserve_rows(std::int64_t rows) { capacity_.require(rows); }
  // Told of chosen tensors by the passes that train() makes from now on; null: by none.
  void observe_with(ActivationObserver* observer) { observer_ = observer; }
  ActivationObserver* observer() const { return observer_; }
  // The same of the routers' decisions.
  void observe_routing_with(RoutingObserver* observer) { routing_observer_ = observer; }
  RoutingObserver* routing_observer() const { return routing_observer_; }
  // i32 [layers with experts, T, k] each: where the choices of the next training pass are to lie,
  // if routers take them over (RouterScratch::Replayed); else empty.
  RouterScratch::Replayed replayed() const;
  // Bytes that passes moved to the store of spilled layers and back, so far.
  double bytes_spilled() const { return records_.bytes_spilled(); }
  // i64 [layers with experts, places + 3]: of all passes since clear_loads(), of this rank's
  // tokens, the rows by place of the expert, the slots that were dropped, the rows whose expert is
  // on another node, and the entropies of the routers' shares while training
  // (kernels/routing/routing_figures.hpp). Empty without experts.
  TensorView loads() const { return loads_.empty() ? TensorView{} : loads_.view(); }
  // i64 [layers with experts, experts]: the slots of this rank's tokens by expert, dropped ones
  // included, of all passes since clear_loads(). Empty unless the configuration asks for them.
  TensorView choices() const { return choices_.empty() ? TensorView{} : choices_.view(); }
  // i64 [layers with experts, experts x bins]: the margins of this rank's tokens in the same way
  // (RouterScratch::margins).
  TensorView margins() const { return margins_.empty() ? TensorView{} : margins_.view(); }
  // What routers move their biases by.
  TensorView bias_counts() const { return margins_.empty() ? choices() : margins(); }
  void clear_loads();

  // For a model's passes over a batch of this size.
  std::int64_t num_sequences() const { return num_sequences_; }
  std::int64_t sequence_length() const { return sequence_length_; }  // this rank's part
  LayerRecords& records() { return records_; }
  Block::Scratch& scratch() { return scratch_; }
  PositionEmbedding::Scratch& positions() { return positions_; }
  Output& output() { return output_; }
  // The number of a layer with experts among those.
  std::int64_t moe_layer(std::size_t layer) const { return load_row_[layer]; }
  // To be called before and after the forward pass of each layer with experts.
  void begin_count(std::size_t layer);
  void add_load(std::size_t layer);

 private:
  // length: of this rank's part of a sequence.
  Activations(const Transformer& model, std::int64_t num_sequences, const SequenceSplit& split,
              std::int64_t length, const ActivationOptions& options);

  std::int64_t num_sequences_;
  std::int64_t sequence_length_;
  RowCapacity capacity_;
  LayerRecords records_;
  Block::Scratch scratch_;
  PositionEmbedding::Scratch positions_;
  Output output_;
  std::int64_t top_k_;
  std::vector<std::int64_t> load_row_;  // by layer: its row of loads_
  Tensor loads_;
  Tensor is_far_;  // i32 [places]: whether it is on another node
  Tensor choices_;
  Tensor margins_;
  Tensor replayed_considered_, replayed_indices_;  // or none
  ActivationObserver* observer_ = nullptr;
  RoutingObserver* routing_observer_ = nullptr;
};

}  // namespace switchyard
