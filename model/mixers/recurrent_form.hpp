// What the kinds of recurrent mixers differ in (docs/mixers.md has their formulas): sizes, what is
// done to queries, keys and values before the recurrence, where its gates come from, and what is
// done to its outputs.
#pragma once

#include <span>
#include <vector>

#include "kernels/recurrence/feature_map.hpp"
#include "kernels/recurrence/gated_norm.hpp"
#include "kernels/recurrence/linear_recurrence.hpp"
#include "model/config.hpp"
#include "tensor/random.hpp"

namespace switchyard {

struct RecurrentForm {
  std::int64_t num_heads = 0;   // A, of values
  std::int64_t num_groups = 0;  // G, of queries and keys
  std::int64_t key_width = 0;
  std::int64_t value_width = 0;
  std::int64_t chunk = 64;
  std::int64_t conv = 0;  // taps of the convolution over queries, keys and values; 0: none
  bool conv_bias = false;
  kernels::FeatureMap key_map = kernels::FeatureMap::identity;  // of queries and keys
  kernels::FeatureMap value_map = kernels::FeatureMap::identity;
  std::int64_t num_random_features = 0;  // of a head, in place of the key map; 0: not so
  RandomKey random_features = {};
  bool rotates = false;  // queries and keys, by position
  float scale = 1;
  bool delta = false;
  bool normalized = false;
  float most_beta = 1;
  std::vector<float> decay = {};  // of each head, for all tokens; empty: none or learned
  bool learns_decay = false;
  bool has_steps = false;  // Mamba-2: values times the step, and a skip of values
  bool has_norm = false;
  kernels::GatedNorm norm = {};
  std::int64_t segment = 0;       // Infini-attention: of its local half; 0: there is none
  bool local_rotates = false;     // queries and keys of the local half, by position
  std::int64_t norm_weights = 0;  // of a head, which all share, or of all columns

  bool has_gate() const { return norm.gate != kernels::GateFunction::none; }
  // Columns of the projection, in this order.
  std::int64_t key_cols() const { return num_groups * key_width; }  // of q; of k
  std::int64_t value_cols() const { return num_heads * value_width; }
  std::int64_t mixed_cols() const { return 2 * key_cols() + value_cols(); }  // q, k, v
  // Columns of q, k and v as the recurrence reads them.
  std::int64_t feature_width() const {
    return num_random_features > 0 ? num_random_features
                                   : kernels::feature_width(key_map, key_width);
  }
  // Whether gradients of features may be overwritten by those of what they were made of.
  bool maps_in_place() const {
    return num_random_features == 0 && key_map != kernels::FeatureMap::taylor;
  }
  std::int64_t feature_cols() const { return num_groups * feature_width(); }
  std::int64_t mapped_cols() const { return 2 * feature_cols() + value_cols(); }
  std::int64_t gate_begin() const { return mixed_cols(); }  // z
  std::int64_t decay_begin() const { return gate_begin() + (has_gate() ? value_cols() : 0); }
  std::int64_t beta_begin() const { return decay_begin() + (learns_decay ? num_heads : 0); }
  std::int64_t num_cols() const { return beta_begin() + (delta ? num_heads : 0); }
};

// Of a layer whose mixer is recurrent.
RecurrentForm recurrent_form(const ModelConfig& model, std::int64_t layer);

// For rows at these positions of each sequence; without documents.
kernels::RecurrenceShape recurrence_shape(const RecurrentForm& form, std::int64_t num_sequences,
                                          std::span<const PositionRange> runs);

}  // namespace switchyard
