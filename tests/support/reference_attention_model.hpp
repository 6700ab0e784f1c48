// What layers of attention are in the double-precision oracle of the model
// (tests/support/reference_transformer.hpp): their weights by name, who sees whom, gated branches,
// keys that are queries, heads that are convolutions.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "model/config.hpp"
#include "model/mixers/random_directions.hpp"
#include "tests/support/block_masks.hpp"
#include "tests/support/reference_compression.hpp"
#include "tests/support/reference_layers.hpp"
#include "tests/support/reference_span_heads.hpp"

namespace switchyard::reference_model {

using Values = std::map<std::string, std::vector<double>>;  // by parameter name

class AttentionLayers {
 public:
  AttentionLayers(const ModelConfig& model, Values parameters)
      : values(std::move(parameters)), model_(model) {
    for (const auto& [name, value] : values) gradients[name].assign(value.size(), 0.0);
  }
  Values values;
  Values gradients;

 protected:
  static std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }
  Weight weight(const std::string& name, std::int64_t out, std::int64_t in) {
    return {values.at(name).data(), gradients.at(name).data(), out, in};
  }
  static std::string prefix_of(std::int64_t layer) { return "layers." + std::to_string(layer); }

  // Of heads, those that are attention.
  std::int64_t attention_heads(std::int64_t layer) const {
    return model_.num_heads - model_.mixer_of_layer(layer).conv_heads;
  }
  std::int64_t attention_kv_heads(std::int64_t layer) const {
    return attention_heads(layer) * model_.num_kv_heads / model_.num_heads;
  }
  SpanHeads span_heads(std::int64_t layer) {
    const MixerConfig& mixer = model_.mixer_of_layer(layer);
    const std::string span = prefix_of(layer) + ".attention.span.";
    const std::int64_t cols = mixer.conv_heads * model_.effective_head_dim();
    SpanHeads heads;
    heads.length = length_;
    heads.num_heads = mixer.conv_heads;
    heads.head_dim = model_.effective_head_dim();
    heads.width = mixer.width;
    heads.conv = weight(span + "conv.weight", model_.hidden, mixer.width);
    heads.point = weight(span + "point.weight", cols, model_.hidden);
    heads.input = weight(span + "input.weight", 2 * cols, model_.hidden);
    heads.kernel = weight(span + "kernel.weight", mixer.conv_heads * mixer.width, cols);
    heads.output = weight(span + "output.weight", model_.hidden, cols);
    return heads;
  }
  AttentionDims dims(std::int64_t layer) {
    const MixerConfig& attention = model_.mixer_of_layer(layer);
    AttentionDims dims{length_, attention_heads(layer), attention_kv_heads(layer),
                       model_.effective_head_dim(), model_.rope_base};
    if (model_.rope_scaling.kind == kernels::RopeScaling::linear)
      dims.rope_factor = model_.rope_scaling.factor;
    dims.window = attention.effective_window();
    dims.globals = attention.globals;
    mask_blocks(attention, layer, dims);
    dims.turns = model_.turns_positions();
    dims.ramp = attention.ramp;
    if (attention.ramp > 0)
      dims.span = weight(prefix_of(layer) + ".attention.span", model_.num_heads, 1);
    if (attention.slots > 0) {
      const std::string slots = prefix_of(layer) + ".attention.slots.";
      const std::int64_t cols = model_.num_kv_heads * model_.effective_head_dim();
      dims.slot_keys = weight(slots + "key.weight", attention.slots, cols);
      dims.slot_values = weight(slots + "value.weight", attention.slots, cols);
    }
    dims.has_alibi = model_.position.kind == PositionKind::alibi;
    if (model_.position.kind == PositionKind::relative) {
      dims.relative = weight(prefix_of(layer) + ".attention.relative.weight", model_.num_heads,
                             model_.position.buckets);
      dims.max_distance = model_.position.max_distance;
    }
    if (model_.has_distance_keys()) {
      const std::string distance = prefix_of(layer) + ".attention.distance.";
      dims.distance_weight = weight(distance + "weight", model_.key_cols(), model_.hidden);
      dims.key_bias = weight(distance + "key_bias", model_.query_cols(), 1);
      dims.distance_bias = weight(distance + "distance_bias", model_.query_cols(), 1);
    }
    if (attention.sinks > 0)
      dims.sinks = weight(prefix_of(layer) + ".attention.sinks", model_.num_heads, attention.sinks);
    return dims;
  }
  void mask_blocks(const MixerConfig& attention, std::int64_t layer, AttentionDims& dims) {
    const std::int64_t stride = attention.stride, summary = attention.summary;
    const std::int64_t middle = model_.num_heads / 2;
    const std::int64_t segment = attention.length, memory = attention.memory;
    if (attention.kind == MixerKind::segment) {
      dims.mask_of_blocks = [=](std::int64_t, std::int64_t query, std::int64_t key) {
        return test::sees_segment(segment, memory, query, key);
      };
      if (attention.gradient == SegmentGradient::stop) dims.stops_before = segment;
    }
    if (attention.kind == MixerKind::hierarchical) {
      dims.block = attention.block;
      dims.window_blocks = attention.window_blocks;
      dims.selected = attention.selected;
      dims.summaries = attention.key_pattern(layer).summaries;
      if (attention.summaries == BlockSummary::linear) {
        const std::string learned = prefix_of(layer) + ".attention.summary.";
        dims.summary_keys = weight(learned + "key.weight", attention.summary, attention.block);
        dims.summary_values = weight(learned + "value.weight", attention.summary, attention.block);
      }
    }
    if (attention.kind == MixerKind::lsh) {
      dims.buckets = attention.buckets;
      dims.rounds = attention.rounds;
      dims.class_window = attention.window;
      dims.directions =
          random_directions(attention.rounds * attention.buckets / 2, model_.effective_head_dim(),
                            random_key(0, "hash of attention " + std::to_string(layer)));
    }
    if (attention.kind != MixerKind::blocks) return;
    if (attention.pattern == BlockPattern::fixed)
      dims.mask_of_blocks = [=](std::int64_t, std::int64_t query, std::int64_t key) {
        return test::sees_fixed(stride, summary, query, key);
      };
    if (attention.pattern == BlockPattern::strided)
      dims.mask_of_blocks = [=](std::int64_t head, std::int64_t query, std::int64_t key) {
        return test::sees_strided(stride, head >= middle, query, key);
      };
    if (attention.pattern != BlockPattern::bigbird) return;
    test::BigBirdMask mask{attention.block, attention.window_blocks, attention.global_blocks};
    for (std::int64_t block = 0; block * attention.block < length_; ++block)
      mask.drawn.push_back(kernels::drawn_blocks(attention.key_pattern(layer), block));
    dims.mask_of_blocks = [mask](std::int64_t, std::int64_t query, std::int64_t key) {
      return mask.sees(query, key);
    };
  }
  // Of gated branches: summaries, chosen blocks, the window; of other layers the one that there is.
  std::vector<AttentionDims> branches(std::int64_t number, const AttentionDims& whole) const {
    if (!model_.mixer_of_layer(number).has_gates()) return {whole};
    std::vector<AttentionDims> all(3, whole);
    all[0].has_window = all[1].has_window = false;
    all[0].selected = all[2].selected = 0;
    all[1].summaries = all[2].summaries = 0;
    return all;
  }
  Weight gate_weight(std::int64_t number) {
    return weight(prefix_of(number) + ".attention.gate.weight", 3 * model_.num_heads,
                  model_.hidden);
  }
  // The gates of branch c, for every column of its heads' outputs; ones without gates.
  Matrix gates(std::int64_t number, const Matrix& x, std::int64_t c) {
    Matrix by_column(x.rows, attention_heads(number) * model_.effective_head_dim());
    std::fill(by_column.data.begin(), by_column.data.end(), 1.0);
    if (!model_.mixer_of_layer(number).has_gates()) return by_column;
    const Matrix of_gates = linear(x, gate_weight(number));
    for (std::int64_t t = 0; t < x.rows; ++t)
      for (std::int64_t col = 0; col < by_column.cols; ++col)
        by_column.at(t, col) = 1 / (1 + std::exp(-of_gates.at(t, gate_of(c, col))));
    return by_column;
  }
  std::int64_t gate_of(std::int64_t c, std::int64_t col) const {
    return c * model_.num_heads + col / model_.effective_head_dim();
  }
  // whole: the layer's attention, before it is cut into branches.
  Matrix attend(std::int64_t number, const Matrix& x, const Matrix& qkv,
                const AttentionDims& whole) {
    Matrix sum(x.rows, attention_heads(number) * model_.effective_head_dim());
    const std::vector<AttentionDims> all = branches(number, whole);
    for (std::size_t c = 0; c < all.size(); ++c) {
      Matrix branch = attention(qkv, all[c]);
      multiply(branch, gates(number, x, static_cast<std::int64_t>(c)));
      add_to(sum, branch);
    }
    return sum;
  }
  // Returns the gradient of qkv; adds that of x through the gates.
  Matrix attend_backward(std::int64_t number, const Matrix& x, const Matrix& qkv,
                         const Matrix& d_attended, const AttentionDims& whole, Matrix& d_stopped,
                         Matrix& dx) {
    Matrix dqkv(qkv.rows, qkv.cols);
    const std::vector<AttentionDims> all = branches(number, whole);
    Matrix d_logits(x.rows, 3 * model_.num_heads);
    for (std::size_t c = 0; c < all.size(); ++c) {
      const auto branch = static_cast<std::int64_t>(c);
      const Matrix gate = gates(number, x, branch);
      Matrix d_branch = d_attended;
      multiply(d_branch, gate);
      add_to(dqkv, attention_backward(d_branch, qkv, all[c], d_stopped));
      if (all.size() == 1) return dqkv;
      const Matrix out = attention(qkv, all[c]);
      for (std::int64_t t = 0; t < x.rows; ++t)
        for (std::int64_t col = 0; col < out.cols; ++col)
          d_logits.at(t, gate_of(branch, col)) +=
              d_attended.at(t, col) * out.at(t, col) * gate.at(t, col) * (1 - gate.at(t, col));
    }
    add_to(dx, linear_backward(d_logits, x, gate_weight(number)));
    return dqkv;
  }
  bool shares_keys(std::int64_t number) const {
    return model_.mixer_of_layer(number).shares_keys();
  }
  // [q v] as [q k v], and back; keys are made of the turned queries.
  Matrix with_keys(std::int64_t number, const Matrix& from) const {
    if (!shares_keys(number)) return from;
    Matrix to(from.rows, 3 * model_.query_cols());
    for (std::int64_t t = 0; t < to.rows; ++t)
      for (std::int64_t c = 0; c < from.cols; ++c)
        to.at(t, c < model_.query_cols() ? c : c + model_.query_cols()) = from.at(t, c);
    return to;
  }
  Matrix without_keys(std::int64_t number, const Matrix& from) const {
    if (!shares_keys(number)) return from;
    Matrix to(from.rows, 2 * model_.query_cols());
    for (std::int64_t t = 0; t < to.rows; ++t)
      for (std::int64_t c = 0; c < to.cols; ++c)
        to.at(t, c) = from.at(t, c < model_.query_cols() ? c : c + model_.query_cols());
    return to;
  }
  // Calls each(row, first column of a head, 1 / length) of the queries.
  template <class Each>
  void for_each_length(const Matrix& qkv, const Each& each) const {
    const std::int64_t dim = model_.effective_head_dim();
    for (std::int64_t t = 0; t < qkv.rows; ++t)
      for (std::int64_t col = 0; col < model_.query_cols(); col += dim) {
        double squares = 1e-6;
        for (std::int64_t d = 0; d < dim; ++d) squares += qkv.at(t, col + d) * qkv.at(t, col + d);
        each(t, col, 1 / std::sqrt(squares));
      }
  }
  void make_keys(std::int64_t number, Matrix& qkv) const {
    if (!shares_keys(number)) return;
    const std::int64_t dim = model_.effective_head_dim(), keys = model_.query_cols();
    for_each_length(qkv, [&](std::int64_t t, std::int64_t col, double inverse) {
      for (std::int64_t d = 0; d < dim; ++d)
        qkv.at(t, keys + col + d) = inverse * qkv.at(t, col + d);
    });
  }
  void make_keys_backward(std::int64_t number, const Matrix& qkv, Matrix& dqkv) const {
    if (!shares_keys(number)) return;
    const std::int64_t dim = model_.effective_head_dim(), keys = model_.query_cols();
    for_each_length(qkv, [&](std::int64_t t, std::int64_t col, double inverse) {
      double along = 0;
      for (std::int64_t d = 0; d < dim; ++d)
        along += dqkv.at(t, keys + col + d) * qkv.at(t, keys + col + d);
      for (std::int64_t d = 0; d < dim; ++d) {
        const double across = dqkv.at(t, keys + col + d) - along * qkv.at(t, keys + col + d);
        dqkv.at(t, col + d) += inverse * across;
        dqkv.at(t, keys + col + d) = 0;
      }
    });
  }
  Weight qkv_weight(std::int64_t number) {
    const std::int64_t parts = shares_keys(number) ? 1 : 2;
    return weight(prefix_of(number) + ".attention.qkv.weight",
                  (attention_heads(number) + parts * attention_kv_heads(number)) *
                      model_.effective_head_dim(),
                  model_.hidden);
  }
  Weight output_weight(std::int64_t number) {
    return weight(prefix_of(number) + ".attention.output.weight", model_.hidden,
                  attention_heads(number) * model_.effective_head_dim());
  }

  ModelConfig model_;
  std::int64_t length_ = 0;  // of a sequence
};

}  // namespace switchyard::reference_model
