// Recurrent mixers in double, by plain loops from the formulas of docs/mixers.md: what a layer of
// the kind makes of the rows of its sequences. Gradients are its differences.
#pragma once

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "model/config.hpp"
#include "model/mixers/random_directions.hpp"
#include "tests/support/reference_recurrence.hpp"

namespace switchyard::reference_model {

class RecurrentMixer {
 public:
  using Row = std::vector<double>;
  using Rows = std::vector<Row>;

  RecurrentMixer(const ModelConfig& model, std::int64_t layer)
      : model_(model), mixer_(model.mixer_of_layer(layer)), layer_(layer) {
    heads_ = mixer_.heads > 0 ? mixer_.heads : model.num_heads;
    groups_ = mixer_.groups > 0 ? mixer_.groups : mixer_.kind == MixerKind::ssd ? 1 : heads_;
    keys_ = mixer_.key_width > 0 ? mixer_.key_width : model.effective_head_dim();
    width_ = mixer_.value_width > 0 ? mixer_.value_width : model.effective_head_dim();
    if (is_infini()) width_ = keys_;
    if (mixer_.features == LinearFeatures::performer)
      directions_ =
          random_directions(mixer_.num_features > 0 ? mixer_.num_features : 4 * keys_, keys_,
                            random_key(static_cast<std::uint64_t>(mixer_.feature_seed),
                                       "random features " + std::to_string(layer_)));
  }

  // Values of its parameters, by the last part of their names; row-major.
  std::map<std::string, Row> values;
  std::vector<bool> begins;  // of each token of a sequence: a document

  // x: the rows of one sequence.
  Rows forward(const Rows& x) const {
    const bool is_ssd = mixer_.kind == MixerKind::ssd;
    const std::int64_t k_begin = groups_ * keys_, v_begin = 2 * k_begin;
    const std::int64_t mixed = v_begin + heads_ * width_;
    const std::int64_t z_begin = mixed;
    const std::int64_t a_begin = z_begin + (has_gate() ? heads_ * width_ : 0);
    const std::int64_t b_begin = a_begin + (learns_decay() ? heads_ : 0);
    Rows in;
    for (const Row& row : x) in.push_back(product(values.at("in.weight"), row));
    const Rows source = convolved(in, mixed);
    std::vector<reference::RecurrenceHead> heads(at(heads_));
    Rows out(x.size(), Row(at(heads_ * width_)));
    for (std::int64_t h = 0; h < heads_; ++h) {
      reference::RecurrenceHead& head = heads[at(h)];
      const std::int64_t group = h / (heads_ / groups_);
      const bool is_plain = mixer_.kind == MixerKind::lightning || is_ssd;
      head.scale = is_plain ? 1 : 1 / std::sqrt(static_cast<double>(keys_));
      head.delta = mixer_.has_delta_rule();
      head.begins = begins;
      for (std::size_t t = 0; t < x.size(); ++t) {
        head.q.push_back(key_of(part(source[t], group * keys_, keys_), t));
        head.k.push_back(key_of(part(source[t], k_begin + group * keys_, keys_), t));
        Row v = part(source[t], v_begin + h * width_, width_);
        if (!is_mean() && mixer_.kind != MixerKind::retention)
          for (double& each : v) each = silu(each);
        const double step =
            learns_decay()
                ? std::log1p(std::exp(in[t][at(a_begin + h)] + values.at("decay.bias")[at(h)]))
                : 0;
        head.gates.push_back(learns_decay() ? -std::exp(values.at("decay.rate")[at(h)]) * step
                                            : decay_of(h));
        for (std::int64_t c = 0; is_ssd && c < width_; ++c) {
          out[t][at(h * width_ + c)] = values.at("skip")[at(h)] * v[at(c)];
          v[at(c)] *= step;
        }
        if (is_mean()) v.push_back(1);
        head.v.push_back(v);
        const double most = mixer_.negative_eigenvalues ? 2 : 1;
        head.betas.push_back(head.delta ? most * sigmoid(in[t][at(b_begin + h)]) : 0);
      }
      head.state.assign(head.k.front().size() * head.width(), 0.0);
      head.segment = at(mixer_.segment);
      head.forward();
      for (std::size_t t = 0; t < x.size(); ++t) {
        const double den = is_mean() ? head.out[t].back() : 1;  // 0: a mean over nothing
        for (std::int64_t c = 0; c < width_; ++c)
          out[t][at(h * width_ + c)] += den == 0 ? 0 : head.out[t][at(c)] / den;
      }
      if (is_infini()) mix_local(source, h, out);
    }
    Rows y;
    for (std::size_t t = 0; t < x.size(); ++t)
      y.push_back(
          product(values.at("output.weight"),
                  finished(out[t], part(in[t], z_begin, has_gate() ? heads_ * width_ : 0))));
    return y;
  }

 private:
  static std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }
  static double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
  static double silu(double x) { return x * sigmoid(x); }
  static Row part(const Row& row, std::int64_t begin, std::int64_t count) {
    return {row.begin() + begin, row.begin() + begin + count};
  }
  static Row product(const Row& weight, const Row& x) {
    Row y(weight.size() / x.size(), 0.0);
    for (std::size_t i = 0; i < y.size(); ++i)
      for (std::size_t j = 0; j < x.size(); ++j) y[i] += weight[i * x.size() + j] * x[j];
    return y;
  }
  bool learns_decay() const {
    return mixer_.kind == MixerKind::ssd || mixer_.kind == MixerKind::gated_delta;
  }
  bool is_infini() const { return mixer_.kind == MixerKind::infini; }
  bool is_mean() const { return mixer_.kind == MixerKind::linear || is_infini(); }
  bool has_gate() const { return !is_mean() && mixer_.kind != MixerKind::delta; }

  // What head h of `out` has of the memory, mixed with softmax attention within segments.
  void mix_local(const Rows& source, std::int64_t h, Rows& out) const {
    const double share = sigmoid(values.at("memory_gate")[at(h)]);
    std::size_t first = 0;
    for (std::size_t t = 0; t < source.size(); ++t) {
      if (begins[t] || t % at(mixer_.segment) == 0) first = t;
      const Row q = turned(part(source[t], h * keys_, keys_), t);
      Row sum(at(width_), 0.0);
      double total = 0;
      for (std::size_t j = first; j <= t; ++j) {
        const Row k = turned(part(source[j], (heads_ + h) * keys_, keys_), j);
        double score = 0;
        for (std::size_t i = 0; i < q.size(); ++i) score += q[i] * k[i];
        const double weight = std::exp(score / std::sqrt(static_cast<double>(keys_)));
        total += weight;
        for (std::int64_t c = 0; c < width_; ++c)
          sum[at(c)] += weight * source[j][at((2 * heads_ + h) * keys_ + c)];
      }
      for (std::int64_t c = 0; c < width_; ++c) {
        double& each = out[t][at(h * width_ + c)];
        each = share * each + (1 - share) * sum[at(c)] / total;
      }
    }
  }
  double decay_of(std::int64_t h) const {
    if (mixer_.kind == MixerKind::retention)
      return std::log(1 - std::pow(2.0, -5.0 - static_cast<double>(h)));
    if (mixer_.kind != MixerKind::lightning) return 0;
    const double place =
        static_cast<double>(layer_) / (static_cast<double>(model_.num_layers - 1) + 1e-5);
    return -std::pow(2.0, -8.0 * static_cast<double>(h + 1) / static_cast<double>(heads_)) *
           (1 - place + 1e-5);
  }

  Rows convolved(const Rows& in, std::int64_t channels) const {
    Rows out;
    std::size_t document = 0;
    for (std::size_t t = 0; t < in.size(); ++t) {
      if (begins[t]) document = t;
      out.push_back(part(in[t], 0, channels));
      if (mixer_.conv == 0) continue;
      const Row& weight = values.at("conv.weight");
      for (std::int64_t c = 0; c < channels; ++c) {
        double sum = mixer_.kind == MixerKind::ssd ? values.at("conv.bias")[at(c)] : 0;
        for (std::int64_t j = 0; j < mixer_.conv && t >= document + at(j); ++j)
          sum += weight[at(c * mixer_.conv + mixer_.conv - 1 - j)] * in[t - at(j)][at(c)];
        out.back()[at(c)] = sum;
      }
    }
    return out;
  }

  // Of a query or key at position t.
  Row key_of(Row x, std::size_t t) const {
    if (mixer_.kind == MixerKind::linear && mixer_.features == LinearFeatures::taylor) {
      const double root = std::pow(static_cast<double>(keys_), 0.25);
      Row features = {1};
      for (const double each : x) features.push_back(each / root);
      for (const double a : x)  // all pairs, as published
        for (const double b : x) features.push_back(a * b / (root * root * std::sqrt(2.0)));
      return features;
    }
    if (mixer_.kind == MixerKind::linear && mixer_.features == LinearFeatures::performer)
      return random_features(x);
    if (is_mean()) {
      for (double& each : x) each = each > 0 ? each + 1 : std::exp(each);
    } else if (mixer_.kind == MixerKind::retention) {
      return turned(x, t);
    } else {
      double squares = 0;
      for (double& each : x) {
        each = silu(each);
        squares += each * each;
      }
      if (mixer_.has_delta_rule())
        for (double& each : x) each /= std::sqrt(squares + 1e-6);
    }
    return x;
  }

  Row turned(Row x, std::size_t t) const {
    if (!model_.turns_positions()) return x;
    const std::size_t half = x.size() / 2;
    for (std::size_t i = 0; i < half; ++i) {
      const double angle =
          static_cast<double>(t) *
          std::pow(model_.rope_base, -2.0 * static_cast<double>(i) / static_cast<double>(x.size()));
      const double a = x[i], b = x[i + half];
      x[i] = a * std::cos(angle) - b * std::sin(angle);
      x[i + half] = b * std::cos(angle) + a * std::sin(angle);
    }
    return x;
  }

  // As published, without what keeps them within bounds.
  Row random_features(const Row& x) const {
    const double root = std::pow(static_cast<double>(keys_), 0.25);
    Row features;
    for (std::size_t r = 0; r < directions_.size(); r += x.size()) {
      double exponent = 0;
      for (std::size_t i = 0; i < x.size(); ++i)
        exponent +=
            static_cast<double>(directions_[r + i]) * x[i] / root - x[i] * x[i] / (2 * root * root);
      features.push_back(std::exp(exponent));
    }
    return features;
  }

  // Norm and gate.
  Row finished(const Row& o, const Row& z) const {
    if (is_mean()) return o;
    const bool is_ssd = mixer_.kind == MixerKind::ssd;
    const auto gate = [&](std::size_t i) {
      if (z.empty()) return 1.0;
      return mixer_.kind == MixerKind::lightning ? sigmoid(z[i]) : silu(z[i]);
    };
    const Row& weight = values.at("norm.weight");
    Row y(o.size());
    // Mamba-2 has a norm for the heads of a group, lightning attention one for all of them.
    const std::size_t width = is_ssd                                ? at(heads_ / groups_ * width_)
                              : mixer_.kind == MixerKind::lightning ? o.size()
                                                                    : at(width_);
    for (std::size_t begin = 0; begin < o.size(); begin += width) {
      double squares = 0;
      for (std::size_t i = begin; i < begin + width; ++i)
        squares += std::pow(o[i] * (is_ssd ? gate(i) : 1), 2);
      const double rms = std::sqrt(squares / static_cast<double>(width) + model_.norm_epsilon);
      for (std::size_t i = begin; i < begin + width; ++i)
        y[i] = o[i] * gate(i) * weight[i % weight.size()] / rms;
    }
    return y;
  }

  ModelConfig model_;
  MixerConfig mixer_;
  std::int64_t layer_;
  std::int64_t heads_ = 0, groups_ = 0, keys_ = 0, width_ = 0;
  std::vector<float> directions_;  // of random features
};

}  // namespace switchyard::reference_model
