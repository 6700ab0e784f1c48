// A layer of experts in double precision, dense and in one process: the oracle of routing, experts
// and auxiliary losses. Every token goes through its chosen experts one by one.
#pragma once

#include "experts/config.hpp"
#include "tests/support/reference_layers.hpp"

namespace switchyard::reference {

// What the router decided for one token.
struct Choice {
  std::vector<double> probs;          // [E]
  std::vector<std::int64_t> experts;  // [k], most probable first
  std::vector<double> weights;        // [k]
  double chosen_mass = 1;             // what the weights were divided by
  double lse = 0;
};

inline Choice choose(const Matrix& logits, std::int64_t t, const ExpertsConfig& config) {
  Choice choice;
  double largest = logits.at(t, 0);
  for (std::int64_t e = 1; e < logits.cols; ++e) largest = std::max(largest, logits.at(t, e));
  double sum = 0;
  for (std::int64_t e = 0; e < logits.cols; ++e) sum += std::exp(logits.at(t, e) - largest);
  choice.lse = largest + std::log(sum);
  std::vector<std::int64_t> order;
  for (std::int64_t e = 0; e < logits.cols; ++e) {
    choice.probs.push_back(std::exp(logits.at(t, e) - choice.lse));
    order.push_back(e);
  }
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return choice.probs[static_cast<std::size_t>(a)] > choice.probs[static_cast<std::size_t>(b)];
  });
  choice.experts.assign(order.begin(), order.begin() + config.top_k);
  for (const std::int64_t e : choice.experts)
    choice.weights.push_back(choice.probs[static_cast<std::size_t>(e)]);
  if (config.normalize_top_k) {
    choice.chosen_mass = std::accumulate(choice.weights.begin(), choice.weights.end(), 0.0);
    for (double& weight : choice.weights) weight /= choice.chosen_mass;
  }
  return choice;
}

class Experts {
 public:
  // gate_up [E, 2 I, H] and down [E, H, I]: Weight's out and in are those of one expert.
  Experts(const ExpertsConfig& config, std::int64_t length, Weight router, Weight gate_up,
          Weight down)
      : config_(config), length_(length), router_(router), gate_up_(gate_up), down_(down) {}

  // mask: [T k, H] of the expert outputs by slot, or empty.
  Matrix forward(const Matrix& x, const Matrix& mask) {
    choices_.clear();
    const Matrix logits = linear(x, router_);
    Matrix y(x.rows, x.cols);
    for (std::int64_t t = 0; t < x.rows; ++t) {
      choices_.push_back(choose(logits, t, config_));
      const Choice& choice = choices_.back();
      for (std::size_t j = 0; j < choice.experts.size(); ++j) {
        const Matrix out = output(x, mask, t, j);
        for (std::int64_t h = 0; h < x.cols; ++h) y.at(t, h) += choice.weights[j] * out.at(0, h);
      }
    }
    return y;
  }

  // Mean over the sequences of num_experts * sum_e f_e P_e.
  double balance() const {
    double sum = 0;
    for (std::size_t first = 0; first < choices_.size(); first += length())
      for (std::size_t e = 0; e < num_experts(); ++e)
        sum += static_cast<double>(num_experts()) * fraction(first, e) * mean_prob(first, e);
    return sum / num_sequences();
  }

  double z() const {
    double sum = 0;
    for (const Choice& choice : choices_) sum += choice.lse * choice.lse;
    return sum / static_cast<double>(choices_.size());
  }

  // Includes the gradients of balance_scale * balance() and z_scale * z().
  Matrix backward(const Matrix& dy, const Matrix& x, const Matrix& mask, double balance_scale,
                  double z_scale) {
    Matrix dx(x.rows, x.cols);
    Matrix dlogits(x.rows, router_.out);
    for (std::int64_t t = 0; t < x.rows; ++t) {
      const std::vector<double> dweights = experts_backward(dy, x, mask, t, dx);
      gate_backward(dweights, t, balance_scale, z_scale, dlogits);
    }
    add_to(dx, linear_backward(dlogits, x, router_));
    return dx;
  }

 private:
  std::size_t num_experts() const { return static_cast<std::size_t>(config_.num_experts); }
  std::size_t length() const { return static_cast<std::size_t>(length_); }
  double num_sequences() const {
    return static_cast<double>(choices_.size()) / static_cast<double>(length_);
  }
  static Weight expert(const Weight& all, std::int64_t e) {
    const std::int64_t offset = e * all.out * all.in;
    return {all.value + offset, all.gradient + offset, all.out, all.in};
  }

  Matrix slot_mask(const Matrix& mask, std::int64_t t, std::size_t j) const {
    if (mask.data.empty()) return {};
    return row_of(mask, t * config_.top_k + static_cast<std::int64_t>(j));
  }

  Matrix output(const Matrix& x, const Matrix& mask, std::int64_t t, std::size_t j) const {
    const std::int64_t e = choices_[static_cast<std::size_t>(t)].experts[j];
    Matrix out = feed_forward(row_of(x, t), expert(gate_up_, e), expert(down_, e));
    multiply(out, slot_mask(mask, t, j));
    return out;
  }

  // Share of a sequence's slots that went to expert e, and the mean of its probabilities.
  double fraction(std::size_t first, std::size_t e) const {
    double count = 0;
    for (std::size_t t = first; t < first + length(); ++t)
      for (const std::int64_t chosen : choices_[t].experts)
        count += static_cast<std::size_t>(chosen) == e ? 1 : 0;
    return count / static_cast<double>(length_ * config_.top_k);
  }
  double mean_prob(std::size_t first, std::size_t e) const {
    double sum = 0;
    for (std::size_t t = first; t < first + length(); ++t) sum += choices_[t].probs[e];
    return sum / static_cast<double>(length_);
  }

  std::vector<double> experts_backward(const Matrix& dy, const Matrix& x, const Matrix& mask,
                                       std::int64_t t, Matrix& dx) {
    const Choice& choice = choices_[static_cast<std::size_t>(t)];
    std::vector<double> dweights(choice.experts.size());
    for (std::size_t j = 0; j < choice.experts.size(); ++j) {
      const Matrix out = output(x, mask, t, j);
      Matrix d_out = row_of(dy, t);
      for (std::int64_t h = 0; h < x.cols; ++h) {
        dweights[j] += dy.at(t, h) * out.at(0, h);
        d_out.at(0, h) *= choice.weights[j];
      }
      multiply(d_out, slot_mask(mask, t, j));
      const std::int64_t e = choice.experts[j];
      const Matrix d_row =
          feed_forward_backward(d_out, row_of(x, t), expert(gate_up_, e), expert(down_, e));
      for (std::int64_t h = 0; h < x.cols; ++h) dx.at(t, h) += d_row.at(0, h);
    }
    return dweights;
  }

  void gate_backward(const std::vector<double>& dweights, std::int64_t t, double balance_scale,
                     double z_scale, Matrix& dlogits) const {
    const Choice& choice = choices_[static_cast<std::size_t>(t)];
    const std::size_t first = static_cast<std::size_t>(t / length_) * length();
    std::vector<double> dprobs(num_experts());
    for (std::size_t e = 0; e < num_experts(); ++e)
      dprobs[e] = balance_scale * static_cast<double>(num_experts()) * fraction(first, e) /
                  (num_sequences() * static_cast<double>(length_));
    double mean = 0;  // of dweights under the weights, through their normalisation
    if (config_.normalize_top_k)
      for (std::size_t j = 0; j < dweights.size(); ++j) mean += dweights[j] * choice.weights[j];
    for (std::size_t j = 0; j < dweights.size(); ++j)
      dprobs[static_cast<std::size_t>(choice.experts[j])] +=
          (dweights[j] - mean) / choice.chosen_mass;
    double inner = 0;
    for (std::size_t e = 0; e < num_experts(); ++e) inner += dprobs[e] * choice.probs[e];
    const double z_slope = 2 * z_scale * choice.lse / static_cast<double>(choices_.size());
    for (std::size_t e = 0; e < num_experts(); ++e)
      dlogits.at(t, static_cast<std::int64_t>(e)) = choice.probs[e] * (dprobs[e] - inner + z_slope);
  }

  ExpertsConfig config_;
  std::int64_t length_;
  Weight router_, gate_up_, down_;
  std::vector<Choice> choices_;
};

}  // namespace switchyard::reference
