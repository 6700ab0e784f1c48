// What lets a block's tokens learn of each other: the first of its two layers. Attention is one
// kind (model/mixers/attention.hpp). A mixer is causal: a token learns of no later one, and, where
// documents count, of no other document.
//
// A mixer holds parameters. What its backward pass reads is in two records: Saved holds what is
// never decided, exchanged or attended again, Derived what rebuild() computes again from x and
// Saved. What no pass leaves for another is in scratch, which all layers of a kind share and use in
// turn. In generation a cache keeps what a layer knows of the sequence so far, be it the keys of
// all tokens or a state of fixed size.
// Each kind derives its own records, scratch and cache from the classes below, and gets them back.
// Legend: T tokens of this rank's micro-batch, H hidden.
#pragma once

#include <map>
#include <memory>
#include <string_view>

#include "kernels/attention/key_ranges.hpp"
#include "kernels/rows/rope.hpp"
#include "parallel/context/sequence_split.hpp"
#include "parallel/pass.hpp"
#include "tensor/record_tensor.hpp"

namespace switchyard {

class MixerRecord {
 public:
  virtual ~MixerRecord() = default;
  virtual void for_each_tensor(const RecordVisitor& visit) = 0;
};

class MixerScratch {
 public:
  virtual ~MixerScratch() = default;
  // Where the documents of the next micro-batches begin; empty: documents do not matter. Before
  // the first pass, and between passes.
  virtual void set_documents(kernels::DocumentStarts /*document_starts*/) {}
};

class MixerCache {
 public:
  virtual ~MixerCache() = default;
  virtual void clear() = 0;  // to begin another sequence
};

// Records or scratch that blocks with mixers of several kinds use in turn: one of each kind.
template <typename Part>
using ByKind = std::map<std::string_view, std::unique_ptr<Part>>;

// What a layer is told beside its tensors. Made anew for each call.
struct LayerContext {
  const Pass& pass;
  std::int64_t layer = 0;          // its number in the model
  const kernels::RopeTable& rope;  // of all positions that a sequence may have
  MixerScratch& scratch;           // of the mixer's kind

  void poll() const { pass.poll(); }
  void gradient_ready(const Parameter& parameter) const { pass.gradient_ready(parameter); }
};

class SequenceMixer {
 public:
  virtual ~SequenceMixer() = default;

  // "attention": what mixers that may share scratch and records have in common. Begins the names of
  // a record's tensors. Lives as long as the mixer.
  virtual std::string_view kind() const = 0;

  // Buffers for num_sequences sequences, of which this rank holds num_tokens tokens together.
  virtual std::unique_ptr<MixerRecord> make_saved(std::int64_t num_tokens,
                                                  std::int64_t num_sequences) const = 0;
  virtual std::unique_ptr<MixerRecord> make_derived(std::int64_t num_tokens,
                                                    std::int64_t num_sequences) const = 0;
  // For all layers of the model that are of this kind. split: of each sequence over the mesh's
  // context axis.
  virtual std::unique_ptr<MixerScratch> make_scratch(std::int64_t num_sequences,
                                                     const SequenceSplit& split) const = 0;
  // Of one sequence of at most max_length tokens, of which at most max_new_tokens are added at a
  // time; and the scratch of adding num_tokens.
  virtual std::unique_ptr<MixerCache> make_cache(std::int64_t max_length,
                                                 std::int64_t max_new_tokens) const = 0;
  virtual std::unique_ptr<MixerScratch> make_extend_scratch(std::int64_t num_tokens,
                                                            std::int64_t max_length) const = 0;

  // The compute copies of the weights, after every change of the parameters' values.
  virtual void pack_weights() = 0;
  // x, y: [T, H] in the compute type. y is written.
  virtual void forward(const TensorView& x, const TensorView& y, MixerRecord& saved,
                       MixerRecord& derived, const LayerContext& context) const = 0;
  // Fills `derived` and y as the forward pass did, to the bit, from its x and `saved`.
  virtual void rebuild(const TensorView& x, const TensorView& y, const MixerRecord& saved,
                       MixerRecord& derived, const LayerContext& context) const = 0;
  // dy: gradient of y; dx: written. Gradients of parameters are added to, and reported ready.
  virtual void backward(const TensorView& dy, const TensorView& x, const TensorView& dx,
                        const MixerRecord& saved, const MixerRecord& derived,
                        const LayerContext& context) const = 0;
  // Generation: x, y [num_tokens, H] for the tokens that follow the `num_cached` tokens that the
  // cache knows; it then knows them, too. The context's scratch is that of make_extend_scratch().
  virtual void extend(const TensorView& x, const TensorView& y, std::int64_t num_cached,
                      MixerCache& cache, const LayerContext& context) const = 0;
};

}  // namespace switchyard
