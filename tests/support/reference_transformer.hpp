// The whole model in double precision: forward, losses and the gradient of every parameter, by
// plain loops. The oracle of the tests of model/; its own gradients are checked by finite
// differences.
#pragma once

#include <functional>
#include <limits>
#include <map>
#include <string>

#include "experts/config.hpp"
#include "model/config.hpp"
#include "tests/support/reference_attention_model.hpp"
#include "tests/support/reference_moe.hpp"

namespace switchyard::reference_model {

// The factors (0 or 1 / (1 - rate)) of a dropout site: [T * copies, H]. `site` is the name that
// keys its random numbers. An empty function: no dropout.
using Masks = std::function<Matrix(const std::string& site, double rate, std::int64_t copies)>;

struct Losses {
  double cross_entropy = 0;
  double balance = 0;  // mean over the layers with experts
  double z = 0;
};

class Transformer : public AttentionLayers {
 public:
  Transformer(const ModelConfig& model, const ExpertsConfig& experts, std::int64_t vocab_size_used,
              Values parameters)
      : AttentionLayers(model, std::move(parameters)),
        experts_(experts),
        vocab_size_used_(vocab_size_used) {
    for (std::int64_t layer = 0; layer < model.num_layers; ++layer)
      num_moe_layers_ += experts.layer_has_experts(layer) ? 1 : 0;
  }

  // Sequences of `length` tokens, one after the other. Fills logits and token_losses.
  Losses forward(const std::vector<std::int32_t>& tokens, const std::vector<std::int32_t>& targets,
                 std::int64_t length, const Masks& masks = {}) {
    length_ = length;
    masks_ = masks;
    tokens_ = tokens;
    targets_ = targets;
    stream_ = embed();
    layers_.assign(static_cast<std::size_t>(model_.num_layers), {});
    margin = std::numeric_limits<double>::infinity();
    Losses losses;
    for (std::int64_t layer = 0; layer < model_.num_layers; ++layer) block_forward(layer, losses);
    logits = linear(rms_norm(stream_, norm("final_norm.weight"), model_.norm_epsilon), head());
    losses.cross_entropy = cross_entropy();
    return losses;
  }

  // Adds the gradients of total(the last forward's losses) to `gradients`.
  void backward() {
    const Matrix normed = rms_norm(stream_, norm("final_norm.weight"), model_.norm_epsilon);
    const Matrix d_normed = linear_backward(cross_entropy_backward(), normed, head());
    Matrix d_stream =
        rms_norm_backward(d_normed, stream_, norm("final_norm.weight"), model_.norm_epsilon);
    for (std::int64_t layer = model_.num_layers; layer-- > 0;) block_backward(layer, d_stream);
    multiply(d_stream, mask("embedding", model_.embedding_dropout, 1));
    std::vector<double>& table = gradients.at("embedding.weight");
    for (std::int64_t t = 0; t < d_stream.rows; ++t)
      for (std::int64_t h = 0; h < model_.hidden; ++h)
        table[index(tokens_[static_cast<std::size_t>(t)] * model_.hidden + h)] += d_stream.at(t, h);
    if (model_.position.kind != PositionKind::absolute) return;
    std::vector<double>& positions = gradients.at("position.weight");
    for (std::int64_t t = 0; t < d_stream.rows; ++t)
      for (std::int64_t h = 0; h < model_.hidden; ++h)
        positions[index(t % length_ * model_.hidden + h)] += d_stream.at(t, h);
  }

  double total(const Losses& losses) const {
    return losses.cross_entropy +
           experts_.reduced(experts_.balance_weight, num_moe_layers_) * losses.balance +
           experts_.reduced(experts_.z_weight, num_moe_layers_) * losses.z;
  }

  Matrix logits;                     // [T, V]
  std::vector<double> token_losses;  // [T]
  // Least relative difference between a chosen and a passed-over probability in the last forward: a
  // routing that rounding cannot change has a large one.
  double margin = std::numeric_limits<double>::infinity();

 private:
  struct Layer {
    Matrix attention_stream, projected, qkv, attended, feed_forward_stream, normed;
    Matrix pooled, groups;               // of a compressed memory: rows, and [q k v] of them
    test::ReferenceMoe::Forward routed;  // of a layer with experts
    SpanHeads span;                      // of a layer with heads that are convolutions
  };

  Weight norm(const std::string& name) { return weight(name, 1, model_.hidden); }
  Weight head() {
    return weight(model_.tie_embeddings ? "embedding.weight" : "head.weight", model_.vocab_size,
                  model_.hidden);
  }
  Weight dense_gate_up(const std::string& prefix) {
    return weight(prefix + ".feed_forward.gate_up.weight", 2 * model_.dense_intermediate,
                  model_.hidden);
  }
  Weight dense_down(const std::string& prefix) {
    return weight(prefix + ".feed_forward.down.weight", model_.hidden, model_.dense_intermediate);
  }
  test::ReferenceMoe moe(std::int64_t layer) const {
    const std::string prefix = prefix_of(layer);
    test::ReferenceMoe moe;
    moe.num_experts = index(experts_.num_experts);
    moe.top_k = index(experts_.top_k);
    moe.hidden = index(model_.hidden);
    moe.intermediate = index(experts_.intermediate);
    moe.sequence_length = index(length_);
    moe.normalize = experts_.normalize_top_k;
    const double layers = static_cast<double>(num_moe_layers_);
    moe.balance_weight = experts_.reduced(experts_.balance_weight, num_moe_layers_) / layers;
    moe.z_weight = experts_.reduced(experts_.z_weight, num_moe_layers_) / layers;
    moe.router = values.at(prefix + ".router.weight");
    moe.gate_up = values.at(prefix + ".experts.gate_up.weight");
    moe.down = values.at(prefix + ".experts.down.weight");
    moe.shared.intermediate = index(experts_.shared_width());
    if (experts_.shared_width() > 0) {
      moe.shared.gate_up = values.at(prefix + ".shared_experts.gate_up.weight");
      moe.shared.down = values.at(prefix + ".shared_experts.down.weight");
    }
    if (experts_.shared.gate == SharedGate::sigmoid)
      moe.shared.gate = values.at(prefix + ".shared_experts.gate.weight");
    moe.mask = mask(prefix + ".experts", experts_.dropout, experts_.top_k).data;
    return moe;
  }
  Matrix mask(const std::string& site, double rate, std::int64_t copies) const {
    return masks_ && rate > 0 ? masks_("dropout " + site, rate, copies) : Matrix();
  }
  Weight pooling(std::int64_t number) {
    return weight(prefix_of(number) + ".attention.compression.weight", model_.hidden,
                  model_.mixer_of_layer(number).ratio * model_.hidden);
  }
  // `ratio` rows as one, as many as a sequence has whole ones.
  Matrix in_groups(std::int64_t number, const Matrix& x) {
    const std::int64_t ratio = model_.mixer_of_layer(number).ratio, groups = length_ / ratio;
    Matrix result(x.rows / length_ * groups, ratio * x.cols);
    for (std::int64_t g = 0; g < result.rows; ++g)
      for (std::int64_t i = 0; i < result.cols; ++i)
        result.at(g, i) = x.at(g / groups * length_ + g % groups * ratio + i / x.cols, i % x.cols);
    return result;
  }
  AttentionDims dims_with_groups(std::int64_t number) {
    AttentionDims with = dims(number);
    const MixerConfig mixer = model_.mixer_of_layer(number);
    if (mixer.compressed == 0) return with;
    with.groups = layers_[index(number)].groups;
    with.seen_groups = [mixer](std::int64_t query) {
      const std::int64_t end =
          std::max<std::int64_t>(query / mixer.length * mixer.length - mixer.memory, 0) /
          mixer.ratio;
      return std::pair{std::max<std::int64_t>(end - mixer.compressed, 0), end};
    };
    return with;
  }
  // By the reconstruction alone, which teaches nothing else.
  void teach_pooling(std::int64_t number, const Matrix& x, const AttentionDims& attended) {
    const MixerConfig& mixer = model_.mixer_of_layer(number);
    const Layer& layer = layers_[index(number)];
    const Matrix d_groups =
        reconstruction_gradient(layer.qkv, attended, mixer.length, mixer.memory, mixer.ratio);
    Weight held = qkv_weight(number);
    std::vector<double> unused(index(held.out * held.in));
    held.gradient = unused.data();
    const Matrix d_pooled = linear_backward(d_groups, layer.pooled, held);
    linear_backward(d_pooled, in_groups(number, x), pooling(number));
  }

  Matrix embed() {
    Matrix x(static_cast<std::int64_t>(tokens_.size()), model_.hidden);
    const std::vector<double>& table = values.at("embedding.weight");
    for (std::int64_t t = 0; t < x.rows; ++t)
      for (std::int64_t h = 0; h < model_.hidden; ++h)
        x.at(t, h) = table[index(tokens_[index(t)] * model_.hidden + h)];
    add_positions(x);
    multiply(x, mask("embedding", model_.embedding_dropout, 1));
    return x;
  }

  // Calls each(row, row of the tap, tap, index of its weight) for all taps that count.
  template <class Each>
  void for_each_tap(std::int64_t number, const Matrix& rows, Each&& each) {
    const std::int64_t taps = model_.mixer_of_layer(number).conv;
    for (std::int64_t t = 0; t < rows.rows; ++t)
      for (std::int64_t j = 0; j < taps && j <= t % length_; ++j)
        for (std::int64_t c = 0; c < rows.cols; ++c)
          each(t, t - j, c, index(c * taps + taps - 1 - j));
  }
  static std::string conv_name(std::int64_t number) {
    return prefix_of(number) + ".attention.conv.weight";
  }
  void convolve(std::int64_t number, const Matrix& from, Matrix& to) {
    if (model_.mixer_of_layer(number).conv == 0) return;
    to = Matrix(from.rows, from.cols);
    const std::vector<double>& weight = values.at(conv_name(number));
    for_each_tap(number, from,
                 [&](std::int64_t t, std::int64_t tap, std::int64_t c, std::size_t w) {
                   to.at(t, c) += weight[w] * from.at(tap, c);
                 });
  }
  Matrix convolve_backward(std::int64_t number, const Matrix& from, const Matrix& d_to) {
    if (model_.mixer_of_layer(number).conv == 0) return d_to;
    Matrix d_from(from.rows, from.cols);
    const std::vector<double>& weight = values.at(conv_name(number));
    std::vector<double>& gradient = gradients.at(conv_name(number));
    for_each_tap(number, from,
                 [&](std::int64_t t, std::int64_t tap, std::int64_t c, std::size_t w) {
                   d_from.at(tap, c) += weight[w] * d_to.at(t, c);
                   gradient[w] += d_to.at(t, c) * from.at(tap, c);
                 });
    return d_from;
  }

  void add_positions(Matrix& x) {
    for (std::int64_t t = 0; t < x.rows; ++t)
      for (std::int64_t h = 0; h < model_.hidden; ++h) {
        const std::int64_t half = model_.hidden / 2;
        const double angle =
            static_cast<double>(t % length_) *
            std::pow(10000.0, -2.0 * static_cast<double>(h % half) / static_cast<double>(2 * half));
        if (model_.position.kind == PositionKind::sinusoidal)
          x.at(t, h) += h < half ? std::cos(angle) : std::sin(angle);
        if (model_.position.kind == PositionKind::absolute)
          x.at(t, h) += values.at("position.weight")[index(t % length_ * model_.hidden + h)];
      }
  }

  bool has_feed_forward(std::int64_t number) const {
    return experts_.layer_has_experts(number) || model_.feed_forward == FeedForwardKind::dense;
  }

  void block_forward(std::int64_t number, Losses& losses) {
    const std::string prefix = prefix_of(number);
    Layer& layer = layers_[index(number)];
    layer.attention_stream = stream_;
    const Matrix x =
        rms_norm(stream_, norm(prefix + ".attention_norm.weight"), model_.norm_epsilon);
    layer.projected = layer.qkv = linear(x, qkv_weight(number));
    convolve(number, layer.projected, layer.qkv);
    layer.qkv = with_keys(number, layer.qkv);
    if (model_.turns_positions()) rotate(layer.qkv, dims(number), 1);
    make_keys(number, layer.qkv);
    if (model_.mixer_of_layer(number).compressed > 0) {
      layer.pooled = linear(in_groups(number, x), pooling(number));
      layer.groups = linear(layer.pooled, qkv_weight(number));
    }
    layer.attended = attend(number, x, layer.qkv, dims_with_groups(number));
    Matrix delta = linear(layer.attended, output_weight(number));
    if (attention_heads(number) < model_.num_heads) {
      layer.span = span_heads(number);
      add_to(delta, layer.span.forward(x));
    }
    multiply(delta, mask(prefix + ".attention", model_.residual_dropout, 1));
    add_to(stream_, delta);
    if (!has_feed_forward(number)) return;

    layer.feed_forward_stream = stream_;
    layer.normed =
        rms_norm(stream_, norm(prefix + ".feed_forward_norm.weight"), model_.norm_epsilon);
    if (experts_.layer_has_experts(number)) {
      layer.routed = moe(number).forward(layer.normed.data);
      delta.data = layer.routed.y;
      losses.balance += layer.routed.balance / static_cast<double>(num_moe_layers_);
      losses.z += layer.routed.z / static_cast<double>(num_moe_layers_);
      margin = std::min(margin, layer.routed.margin);
    } else {
      delta = feed_forward(layer.normed, dense_gate_up(prefix), dense_down(prefix));
    }
    multiply(delta, mask(prefix + ".feed_forward", model_.residual_dropout, 1));
    add_to(stream_, delta);
  }

  void backward_of_feed_forward(std::int64_t number, Matrix& d_stream) {
    const std::string prefix = prefix_of(number);
    Layer& layer = layers_[index(number)];
    Matrix dy = d_stream;
    multiply(dy, mask(prefix + ".feed_forward", model_.residual_dropout, 1));
    Matrix d_normed = dy;
    if (experts_.layer_has_experts(number)) {
      const auto g = moe(number).backward(layer.normed.data, dy.data, layer.routed);
      d_normed.data = g.x;
      add_to(gradients.at(prefix + ".router.weight"), g.router);
      add_to(gradients.at(prefix + ".experts.gate_up.weight"), g.gate_up);
      add_to(gradients.at(prefix + ".experts.down.weight"), g.down);
      if (experts_.shared_width() > 0) {
        add_to(gradients.at(prefix + ".shared_experts.gate_up.weight"), g.shared_gate_up);
        add_to(gradients.at(prefix + ".shared_experts.down.weight"), g.shared_down);
      }
      if (experts_.shared.gate == SharedGate::sigmoid)
        add_to(gradients.at(prefix + ".shared_experts.gate.weight"), g.shared_gate);
    } else {
      d_normed = feed_forward_backward(dy, layer.normed, dense_gate_up(prefix), dense_down(prefix));
    }
    add_to(d_stream,
           rms_norm_backward(d_normed, layer.feed_forward_stream,
                             norm(prefix + ".feed_forward_norm.weight"), model_.norm_epsilon));
  }

  void block_backward(std::int64_t number, Matrix& d_stream) {
    if (has_feed_forward(number)) backward_of_feed_forward(number, d_stream);
    const std::string prefix = prefix_of(number);
    Layer& layer = layers_[index(number)];
    Matrix dy = d_stream;
    multiply(dy, mask(prefix + ".attention", model_.residual_dropout, 1));
    const Matrix d_attended = linear_backward(dy, layer.attended, output_weight(number));
    Matrix d_stopped(layer.qkv.rows, layer.qkv.cols);
    const Weight gain = norm(prefix + ".attention_norm.weight");
    const Matrix x = rms_norm(layer.attention_stream, gain, model_.norm_epsilon);
    Matrix dx_of_gates(x.rows, x.cols);
    Matrix d_groups(layer.groups.rows, layer.groups.cols);
    AttentionDims attended = dims_with_groups(number);
    attended.d_groups = &d_groups;
    Matrix dqkv =
        attend_backward(number, x, layer.qkv, d_attended, attended, d_stopped, dx_of_gates);
    make_keys_backward(number, layer.qkv, dqkv);
    for (Matrix* each : {&dqkv, &d_stopped}) {
      if (model_.turns_positions()) rotate(*each, dims(number), -1);
      *each = convolve_backward(number, layer.projected, without_keys(number, *each));
    }
    linear_backward(d_stopped, x, qkv_weight(number));  // the rows learn nothing of it
    if (attended.seen_groups) {
      linear_backward(d_groups, layer.pooled, qkv_weight(number));  // nor of this
      teach_pooling(number, x, attended);
    }
    Matrix d_normed = linear_backward(dqkv, x, qkv_weight(number));
    add_to(d_normed, dx_of_gates);
    if (attention_heads(number) < model_.num_heads) add_to(d_normed, layer.span.backward(dy, x));
    add_to(d_stream,
           rms_norm_backward(d_normed, layer.attention_stream, gain, model_.norm_epsilon));
  }

  double log_sum_exp(std::int64_t t) const {
    double largest = logits.at(t, 0);
    for (std::int64_t c = 1; c < vocab_size_used_; ++c)
      largest = std::max(largest, logits.at(t, c));
    double sum = 0;
    for (std::int64_t c = 0; c < vocab_size_used_; ++c) sum += std::exp(logits.at(t, c) - largest);
    return largest + std::log(sum);
  }

  double cross_entropy() {
    token_losses.clear();
    for (std::int64_t t = 0; t < logits.rows; ++t)
      token_losses.push_back(log_sum_exp(t) - logits.at(t, targets_[index(t)]));
    return std::accumulate(token_losses.begin(), token_losses.end(), 0.0) /
           static_cast<double>(logits.rows);
  }

  Matrix cross_entropy_backward() const {
    Matrix dlogits(logits.rows, logits.cols);
    for (std::int64_t t = 0; t < logits.rows; ++t) {
      const double lse = log_sum_exp(t);
      for (std::int64_t c = 0; c < vocab_size_used_; ++c)
        dlogits.at(t, c) = (std::exp(logits.at(t, c) - lse) - (c == targets_[index(t)] ? 1 : 0)) /
                           static_cast<double>(logits.rows);
    }
    return dlogits;
  }

  ExpertsConfig experts_;
  std::int64_t vocab_size_used_;
  std::int64_t num_moe_layers_ = 0;
  Masks masks_;
  std::vector<std::int32_t> tokens_, targets_;
  Matrix stream_;  // after the blocks
  std::vector<Layer> layers_;
};

}  // namespace switchyard::reference_model
