// The oracle of the experts' tests: a mixture-of-experts layer over all tokens and all experts in
// plain double-precision loops, one process, no sorting, no blocks. Gradients are written out by
// hand; reference_moe_test.cpp holds them against finite differences.
//   loss = <y, dy> + balance_weight * balance + z_weight * z
// Shared experts are one more network that all tokens go to, with a gate or without.
// Legend: T tokens, L of them in a sequence, E experts, k choices, H hidden, I intermediate.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "tests/support/reference_network.hpp"

namespace switchyard::test {

struct ReferenceMoe {
  std::size_t num_experts = 1, top_k = 1, hidden = 1, intermediate = 1, sequence_length = 1;
  bool normalize = true;
  double balance_weight = 0, z_weight = 0;
  // Choices of earlier tokens, [E], which the balance loss counts, too, and how many there were,
  // dropped ones included.
  Doubles earlier;
  double num_earlier = 0;
  Doubles router;             // [E, H]
  Doubles gate_up;            // [E, 2 I, H]
  Doubles down;               // [E, H, I]
  Doubles mask;               // [T, k, H] factors of the experts' outputs; empty: none
  std::vector<bool> dropped;  // [T, k]: choices that count for nothing; empty: none
  // Whether the scores of dropped choices stay in the sum that the others' are divided by.
  bool dropped_are_in_sums = false;
  bool dropped_are_counted = false;  // by the balance loss
  bool sigmoid = false;              // scores; else a softmax
  double scale = 1;                  // of the weights
  std::vector<std::int64_t> given;   // [T, k]: the choices, -1: none; empty: the largest scores
  Doubles jitter;                    // [T, H] factors of the router's input; empty: none
  Doubles noise_router;  // [E, H]: the logits have noise * softplus(this x); empty: none
  Doubles noise;         // [T, E]
  // The balance loss: of shares, or of how far importance or load of noisy top-k vary.
  bool importance = false, load = false;
  struct Shared {
    std::size_t intermediate = 0;  // 0: there are none
    Doubles gate_up;               // [2 I, H]
    Doubles down;                  // [H, I]
    Doubles gate;                  // [H]; empty: none
  } shared;

  struct Forward {
    Doubles y;                         // [T, H]
    Doubles logits;                    // [T, E]
    Doubles raw;                       // [T, E]: of the noise
    Doubles scores;                    // [T, E]
    Doubles probs;                     // [T, E]: the scores as shares of their sum
    Doubles lse;                       // [T]
    std::vector<std::size_t> indices;  // [T, k]
    Doubles weights;                   // [T, k]
    Doubles counts;                    // [T / L, E]
    double balance = 0;                // mean over sequences
    double z = 0;                      // mean over tokens
    // The least difference between a chosen and a passed-over probability: a routing that rounding
    // cannot change has a large one.
    double margin = std::numeric_limits<double>::infinity();
  };
  struct Gradients {
    Doubles x, router, gate_up, down, shared_gate_up, shared_down, shared_gate, noise_router;
  };

  Forward forward(const Doubles& x) const {
    const std::size_t num_tokens = x.size() / hidden;
    Forward f;
    f.y.assign(num_tokens * hidden, 0);
    f.counts.assign(num_tokens / sequence_length * num_experts, 0);
    for (std::size_t t = 0; t < num_tokens; ++t) {
      route(t, router_input(x, t), f);
      for (std::size_t j = 0; j < top_k; ++j) {
        if (is_dropped(t, j) && !dropped_are_counted) continue;
        const std::size_t e = f.indices[t * top_k + j];
        f.counts[t / sequence_length * num_experts + e] += 1;
        if (is_dropped(t, j)) continue;
        const Doubles out = expert_network(e).forward(&x[t * hidden]).out;
        for (std::size_t h = 0; h < hidden; ++h)
          f.y[t * hidden + h] += f.weights[t * top_k + j] * masked(out[h], t, j, h);
      }
      if (shared.intermediate > 0) {
        const Doubles out = shared_network().forward(&x[t * hidden]).out;
        for (std::size_t h = 0; h < hidden; ++h)
          f.y[t * hidden + h] += shared_factor(&x[t * hidden]) * out[h];
      }
      f.z += f.lse[t] * f.lse[t] / static_cast<double>(num_tokens);
    }
    f.balance = balance(f, num_tokens);
    return f;
  }

  double loss(const Doubles& x, const Doubles& dy) const {
    const Forward f = forward(x);
    return std::inner_product(f.y.begin(), f.y.end(), dy.begin(), 0.0) +
           balance_weight * f.balance + z_weight * f.z;
  }

  Gradients backward(const Doubles& x, const Doubles& dy, const Forward& f) const {
    const std::size_t num_tokens = x.size() / hidden;
    const Doubles importance_slopes = importance ? variation_slopes(importances(f)) : Doubles{};
    const Doubles load_slopes = load ? variation_slopes(loads(f)) : Doubles{};
    Gradients g{
        Doubles(x.size()),           Doubles(router.size()),         Doubles(gate_up.size()),
        Doubles(down.size()),        Doubles(shared.gate_up.size()), Doubles(shared.down.size()),
        Doubles(shared.gate.size()), Doubles(noise_router.size())};
    for (std::size_t t = 0; t < num_tokens; ++t) {
      Doubles dscores(num_experts);
      add_weight_gradients(x, dy, f, t, importance_slopes, g, dscores);
      if (shared.intermediate > 0) add_shared_gradients(&x[t * hidden], &dy[t * hidden], t, g);
      if (!importance && !load) add_balance_gradient(f, t, num_tokens, dscores);
      add_logit_gradients(x, f, t, num_tokens, dscores, g);
      if (load) add_load_gradients(x, f, t, load_slopes, g);
    }
    return g;
  }

 private:
  ReferenceNetwork expert_network(std::size_t e) const {
    return {hidden, intermediate, gate_up.data() + e * 2 * intermediate * hidden,
            down.data() + e * hidden * intermediate};
  }
  ReferenceNetwork shared_network() const {
    return {hidden, shared.intermediate, shared.gate_up.data(), shared.down.data()};
  }
  double shared_factor(const double* x) const {
    if (shared.gate.empty()) return 1;
    return sigmoid_of(std::inner_product(x, x + hidden, shared.gate.begin(), 0.0));
  }

  bool is_dropped(std::size_t t, std::size_t j) const {
    if (!given.empty() && given[t * top_k + j] < 0) return true;
    return !dropped.empty() && dropped[t * top_k + j];
  }
  bool is_in_sum(std::size_t t, std::size_t j) const {
    return !is_dropped(t, j) || dropped_are_in_sums;
  }

  Doubles router_input(const Doubles& x, std::size_t t) const {
    Doubles input(hidden);
    for (std::size_t h = 0; h < hidden; ++h)
      input[h] = x[t * hidden + h] * (jitter.empty() ? 1 : jitter[t * hidden + h]);
    return input;
  }

  double masked(double value, std::size_t t, std::size_t j, std::size_t h) const {
    return mask.empty() ? value : value * mask[(t * top_k + j) * hidden + h];
  }

  static double softplus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }

  Doubles logits_of(std::size_t t, const Doubles& input, Forward& f) const {
    Doubles logits(num_experts);
    for (std::size_t e = 0; e < num_experts; ++e) {
      logits[e] = std::inner_product(input.begin(), input.end(), &router[e * hidden], 0.0);
      if (noise_router.empty()) continue;
      f.raw.push_back(
          std::inner_product(input.begin(), input.end(), &noise_router[e * hidden], 0.0));
      logits[e] += noise[t * num_experts + e] * softplus(f.raw.back());
    }
    return logits;
  }

  void route(std::size_t t, const Doubles& input, Forward& f) const {
    const Doubles logits = logits_of(t, input, f);
    const double largest = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const double logit : logits) sum += std::exp(logit - largest);
    const double lse = largest + std::log(sum);
    Doubles scores(num_experts);
    for (std::size_t e = 0; e < num_experts; ++e)
      scores[e] = sigmoid ? sigmoid_of(logits[e]) : std::exp(logits[e] - lse);
    choose(t, scores, f);
    f.lse.push_back(lse);
    f.logits.insert(f.logits.end(), logits.begin(), logits.end());
    f.scores.insert(f.scores.end(), scores.begin(), scores.end());
    const double total = std::accumulate(scores.begin(), scores.end(), 0.0);
    for (const double score : scores) f.probs.push_back(score / total);
  }

  void choose(std::size_t t, const Doubles& scores, Forward& f) const {
    std::vector<std::size_t> order(num_experts);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return scores[a] > scores[b]; });
    for (std::size_t j = 0; j < top_k; ++j) {
      if (!given.empty())
        order[j] = static_cast<std::size_t>(std::max<std::int64_t>(0, given[t * top_k + j]));
      else if (j + 1 < num_experts)
        f.margin = std::min(f.margin, 1 - scores[order[j + 1]] / scores[order[j]]);
    }
    double chosen = 0;
    for (std::size_t j = 0; j < top_k; ++j)
      if (is_in_sum(t, j)) chosen += scores[order[j]];
    for (std::size_t j = 0; j < top_k; ++j) {
      f.indices.push_back(order[j]);
      f.weights.push_back(is_dropped(t, j) ? 0
                                           : scale * scores[order[j]] / (normalize ? chosen : 1));
    }
  }

  // Of the choices that count with token t, those of expert e.
  double share(const Forward& f, std::size_t t, std::size_t e) const {
    const double count = f.counts[t / sequence_length * num_experts + e];
    const double num_choices = static_cast<double>(sequence_length * top_k);
    if (earlier.empty()) return count / num_choices;
    return (count + earlier[e]) / (num_choices + num_earlier);
  }

  // Of each pool of sequence_length tokens, [T / L, E].
  Doubles importances(const Forward& f) const {
    Doubles sums(f.counts.size());
    for (std::size_t slot = 0; slot < f.indices.size(); ++slot)
      sums[slot / top_k / sequence_length * num_experts + f.indices[slot]] += f.weights[slot];
    return sums;
  }

  // How expert e is chosen: the expert whose logit it has to beat, and by how much it does.
  struct Ahead {
    std::size_t rival;
    double deviation, z;
  };
  Ahead ahead(const Forward& f, std::size_t t, std::size_t e) const {
    const double* logits = &f.logits[t * num_experts];
    std::vector<std::size_t> others;
    for (std::size_t other = 0; other < num_experts; ++other)
      if (other != e) others.push_back(other);
    std::stable_sort(others.begin(), others.end(),
                     [&](std::size_t a, std::size_t b) { return logits[a] > logits[b]; });
    const std::size_t rival = others.at(top_k - 1);
    const double deviation = softplus(f.raw[t * num_experts + e]);
    const double clean = logits[e] - noise[t * num_experts + e] * deviation;
    return {rival, deviation, (clean - logits[rival]) / deviation};
  }

  Doubles loads(const Forward& f) const {
    Doubles sums(f.counts.size());
    for (std::size_t t = 0; t < f.lse.size(); ++t)
      for (std::size_t e = 0; e < num_experts; ++e)
        sums[t / sequence_length * num_experts + e] +=
            num_experts > top_k ? (1 + std::erf(ahead(f, t, e).z / std::sqrt(2.0))) / 2 : 1;
    return sums;
  }

  // Mean over pools of the squared coefficient of variation, population variance.
  double variation(const Doubles& sums) const {
    double total = 0;
    for (std::size_t pool = 0; pool < sums.size(); pool += num_experts) {
      double mean = 0, variance = 0;
      for (std::size_t e = 0; e < num_experts; ++e)
        mean += sums[pool + e] / static_cast<double>(num_experts);
      for (std::size_t e = 0; e < num_experts; ++e)
        variance += (sums[pool + e] - mean) * (sums[pool + e] - mean);
      total += variance / static_cast<double>(num_experts) / (mean * mean);
    }
    return total * static_cast<double>(num_experts) / static_cast<double>(sums.size());
  }

  // Of balance_weight * variation.
  Doubles variation_slopes(const Doubles& sums) const {
    Doubles slopes(sums.size());
    const auto experts = static_cast<double>(num_experts);
    for (std::size_t pool = 0; pool < sums.size(); pool += num_experts) {
      double sum = 0, squares = 0;
      for (std::size_t e = 0; e < num_experts; ++e) {
        sum += sums[pool + e];
        squares += sums[pool + e] * sums[pool + e];
      }
      for (std::size_t e = 0; e < num_experts; ++e)
        slopes[pool + e] = balance_weight * experts / static_cast<double>(sums.size()) * 2 *
                           experts * (sums[pool + e] * sum - squares) / (sum * sum * sum);
    }
    return slopes;
  }

  double balance(const Forward& f, std::size_t num_tokens) const {
    if (importance || load)
      return (importance ? variation(importances(f)) : 0) + (load ? variation(loads(f)) : 0);
    const double length = static_cast<double>(sequence_length);
    double sum = 0;
    for (std::size_t t = 0; t < num_tokens; ++t)
      for (std::size_t e = 0; e < num_experts; ++e)
        sum += share(f, t, e) * f.probs[t * num_experts + e] / length;
    return static_cast<double>(num_experts) * sum * length / static_cast<double>(num_tokens);
  }

  // Through the experts of token t, and to the scores that weigh them.
  void add_weight_gradients(const Doubles& x, const Doubles& dy, const Forward& f, std::size_t t,
                            const Doubles& importance_slopes, Gradients& g,
                            Doubles& dscores) const {
    const double* scores = &f.scores[t * num_experts];
    const std::size_t* indices = &f.indices[t * top_k];
    double chosen = 0;
    for (std::size_t j = 0; j < top_k; ++j)
      if (is_in_sum(t, j)) chosen += scores[indices[j]];
    Doubles dweights(top_k);
    double mean = 0;
    for (std::size_t j = 0; j < top_k; ++j) {
      if (is_dropped(t, j)) continue;
      const std::size_t e = indices[j];
      const ReferenceNetwork network = expert_network(e);
      const ReferenceNetwork::Inner inner = network.forward(&x[t * hidden]);
      Doubles dout(hidden);
      if (importance) dweights[j] = importance_slopes[t / sequence_length * num_experts + e];
      for (std::size_t h = 0; h < hidden; ++h) {
        dweights[j] += dy[t * hidden + h] * masked(inner.out[h], t, j, h);
        dout[h] = masked(f.weights[t * top_k + j] * dy[t * hidden + h], t, j, h);
      }
      mean += dweights[j] * scores[e] / chosen;
      network.add_gradients(&x[t * hidden], inner, dout,
                            g.gate_up.data() + e * 2 * intermediate * hidden,
                            g.down.data() + e * hidden * intermediate, &g.x[t * hidden]);
    }
    for (std::size_t j = 0; j < top_k; ++j)
      if (is_in_sum(t, j))
        dscores[indices[j]] += scale * (normalize ? (dweights[j] - mean) / chosen : dweights[j]);
  }

  void add_shared_gradients(const double* x, const double* dy, std::size_t t, Gradients& g) const {
    const ReferenceNetwork::Inner inner = shared_network().forward(x);
    const double factor = shared_factor(x);
    Doubles dout(hidden);
    double dfactor = 0;
    for (std::size_t h = 0; h < hidden; ++h) {
      dout[h] = factor * dy[h];
      dfactor += inner.out[h] * dy[h];
    }
    double* dx = &g.x[t * hidden];
    shared_network().add_gradients(x, inner, dout, g.shared_gate_up.data(), g.shared_down.data(),
                                   dx);
    for (std::size_t h = 0; h < shared.gate.size(); ++h) {
      const double dlogit = dfactor * factor * (1 - factor);
      g.shared_gate[h] += dlogit * x[h];
      dx[h] += dlogit * shared.gate[h];
    }
  }

  // Of the shares, and through them to the scores.
  void add_balance_gradient(const Forward& f, std::size_t t, std::size_t num_tokens,
                            Doubles& dscores) const {
    const double* shares = &f.probs[t * num_experts];
    Doubles dshares(num_experts);
    for (std::size_t e = 0; e < num_experts; ++e)
      dshares[e] = balance_weight * static_cast<double>(num_experts) * share(f, t, e) /
                   static_cast<double>(num_tokens);
    const double inner = std::inner_product(dshares.begin(), dshares.end(), shares, 0.0);
    const double* scores = &f.scores[t * num_experts];
    const double total = std::accumulate(scores, scores + num_experts, 0.0);
    for (std::size_t e = 0; e < num_experts; ++e) dscores[e] += (dshares[e] - inner) / total;
  }

  void add_logit_gradients(const Doubles& x, const Forward& f, std::size_t t,
                           std::size_t num_tokens, const Doubles& dscores, Gradients& g) const {
    const double* scores = &f.scores[t * num_experts];
    const double inner = std::inner_product(dscores.begin(), dscores.end(), scores, 0.0);
    const Doubles input = router_input(x, t);
    for (std::size_t e = 0; e < num_experts; ++e) {
      const double through =
          sigmoid ? scores[e] * (1 - scores[e]) * dscores[e] : scores[e] * (dscores[e] - inner);
      const double prob = std::exp(f.logits[t * num_experts + e] - f.lse[t]);
      const double dlogit =
          through + z_weight * 2 * f.lse[t] * prob / static_cast<double>(num_tokens);
      add_projection_gradients(router, dlogit, e, t, input, g.router, g.x);
      if (noise_router.empty()) continue;
      const double draw =
          dlogit * noise[t * num_experts + e] * sigmoid_of(f.raw[t * num_experts + e]);
      add_projection_gradients(noise_router, draw, e, t, input, g.noise_router, g.x);
    }
  }

  // Through the clean logits, the deviations, and the rivals' noisy logits.
  void add_load_gradients(const Doubles& x, const Forward& f, std::size_t t, const Doubles& slopes,
                          Gradients& g) const {
    const Doubles input = router_input(x, t);
    const auto add = [&](std::size_t e, double dclean, double ddeviation) {
      add_projection_gradients(router, dclean, e, t, input, g.router, g.x);
      add_projection_gradients(noise_router, ddeviation * sigmoid_of(f.raw[t * num_experts + e]), e,
                               t, input, g.noise_router, g.x);
    };
    for (std::size_t e = 0; e < num_experts && num_experts > top_k; ++e) {
      const Ahead a = ahead(f, t, e);
      const double density = std::exp(-a.z * a.z / 2) / std::sqrt(2 * std::acos(-1.0));
      const double dz = slopes[t / sequence_length * num_experts + e] * density / a.deviation;
      add(e, dz, -dz * a.z);
      add(a.rival, -dz, -dz * noise[t * num_experts + a.rival]);
    }
  }

  void add_projection_gradients(const Doubles& weight, double dlogit, std::size_t e, std::size_t t,
                                const Doubles& input, Doubles& dweight, Doubles& dx) const {
    for (std::size_t h = 0; h < hidden; ++h) {
      dweight[e * hidden + h] += dlogit * input[h];
      dx[t * hidden + h] +=
          dlogit * weight[e * hidden + h] * (jitter.empty() ? 1 : jitter[t * hidden + h]);
    }
  }
};

// || actual - expected || / || expected ||; with nothing expected, || actual ||.
template <class Actual>
double relative_error(const Actual* actual, const double* expected, std::size_t size) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < size; ++i) {
    const double d = static_cast<double>(actual[i]) - expected[i];
    difference += d * d;
    norm += expected[i] * expected[i];
  }
  return norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
}

}  // namespace switchyard::test
