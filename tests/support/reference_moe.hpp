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

namespace switchyard::test {

using Doubles = std::vector<double>;

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
  struct Shared {
    std::size_t intermediate = 0;  // 0: there are none
    Doubles gate_up;               // [2 I, H]
    Doubles down;                  // [H, I]
    Doubles gate;                  // [H]; empty: none
  } shared;

  struct Forward {
    Doubles y;                         // [T, H]
    Doubles probs;                     // [T, E]
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
    Doubles x, router, gate_up, down, shared_gate_up, shared_down, shared_gate;
  };

  Forward forward(const Doubles& x) const {
    const std::size_t num_tokens = x.size() / hidden;
    Forward f;
    f.y.assign(num_tokens * hidden, 0);
    f.counts.assign(num_tokens / sequence_length * num_experts, 0);
    for (std::size_t t = 0; t < num_tokens; ++t) {
      route(&x[t * hidden], f);
      for (std::size_t j = 0; j < top_k; ++j) {
        if (is_dropped(t, j)) continue;
        const std::size_t e = f.indices[t * top_k + j];
        f.counts[t / sequence_length * num_experts + e] += 1;
        const Doubles out = expert(e, &x[t * hidden]).out;
        for (std::size_t h = 0; h < hidden; ++h)
          f.y[t * hidden + h] += f.weights[t * top_k + j] * masked(out[h], t, j, h);
      }
      if (shared.intermediate > 0) {
        const Doubles out = network(shared_network(), &x[t * hidden]).out;
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
    Gradients g{
        Doubles(x.size()),          Doubles(router.size()),         Doubles(gate_up.size()),
        Doubles(down.size()),       Doubles(shared.gate_up.size()), Doubles(shared.down.size()),
        Doubles(shared.gate.size())};
    for (std::size_t t = 0; t < num_tokens; ++t) {
      Doubles dprobs(num_experts);
      add_weight_gradients(x, dy, f, t, g, dprobs);
      if (shared.intermediate > 0) add_shared_gradients(&x[t * hidden], &dy[t * hidden], t, g);
      add_balance_gradient(f, t, num_tokens, dprobs);
      add_logit_gradients(x, f, t, num_tokens, dprobs, g);
    }
    return g;
  }

 private:
  struct Inner {
    Doubles gate, up, act, out;
  };
  // One SwiGLU network: gate_up [2 I, H], down [H, I].
  struct Network {
    std::size_t intermediate;
    const double *gate_up, *down;
  };

  Network expert_network(std::size_t e) const {
    return {intermediate, gate_up.data() + e * 2 * intermediate * hidden,
            down.data() + e * hidden * intermediate};
  }
  Network shared_network() const {
    return {shared.intermediate, shared.gate_up.data(), shared.down.data()};
  }
  double shared_factor(const double* x) const {
    if (shared.gate.empty()) return 1;
    return 1 / (1 + std::exp(-std::inner_product(x, x + hidden, shared.gate.begin(), 0.0)));
  }

  bool is_dropped(std::size_t t, std::size_t j) const {
    return !dropped.empty() && dropped[t * top_k + j];
  }

  double masked(double value, std::size_t t, std::size_t j, std::size_t h) const {
    return mask.empty() ? value : value * mask[(t * top_k + j) * hidden + h];
  }

  Inner expert(std::size_t e, const double* x) const { return network(expert_network(e), x); }

  Inner network(const Network& of, const double* x) const {
    Inner inner{Doubles(of.intermediate), Doubles(of.intermediate), Doubles(of.intermediate),
                Doubles(hidden)};
    const double* gate_row = of.gate_up;
    const double* up_row = gate_row + of.intermediate * hidden;
    for (std::size_t i = 0; i < of.intermediate; ++i) {
      inner.gate[i] = std::inner_product(x, x + hidden, gate_row + i * hidden, 0.0);
      inner.up[i] = std::inner_product(x, x + hidden, up_row + i * hidden, 0.0);
      inner.act[i] = inner.gate[i] / (1 + std::exp(-inner.gate[i])) * inner.up[i];
    }
    for (std::size_t h = 0; h < hidden; ++h)
      inner.out[h] = std::inner_product(inner.act.begin(), inner.act.end(),
                                        of.down + h * of.intermediate, 0.0);
    return inner;
  }

  void route(const double* x, Forward& f) const {
    Doubles logits(num_experts);
    for (std::size_t e = 0; e < num_experts; ++e)
      logits[e] = std::inner_product(x, x + hidden, &router[e * hidden], 0.0);
    const double largest = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const double logit : logits) sum += std::exp(logit - largest);
    const double lse = largest + std::log(sum);
    Doubles probs(num_experts);
    for (std::size_t e = 0; e < num_experts; ++e) probs[e] = std::exp(logits[e] - lse);
    std::vector<std::size_t> order(num_experts);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return probs[a] > probs[b]; });
    const std::size_t t = f.lse.size();
    double chosen = 0;
    for (std::size_t j = 0; j < top_k; ++j) {
      if (!is_dropped(t, j)) chosen += probs[order[j]];
      if (j + 1 < num_experts)
        f.margin = std::min(f.margin, 1 - probs[order[j + 1]] / probs[order[j]]);
    }
    for (std::size_t j = 0; j < top_k; ++j) {
      f.indices.push_back(order[j]);
      f.weights.push_back(is_dropped(t, j) ? 0 : probs[order[j]] / (normalize ? chosen : 1));
    }
    f.lse.push_back(lse);
    f.probs.insert(f.probs.end(), probs.begin(), probs.end());
  }

  // Of the choices that count with token t, those of expert e.
  double share(const Forward& f, std::size_t t, std::size_t e) const {
    const double count = f.counts[t / sequence_length * num_experts + e];
    const double num_choices = static_cast<double>(sequence_length * top_k);
    if (earlier.empty()) return count / num_choices;
    return (count + earlier[e]) / (num_choices + num_earlier);
  }

  double balance(const Forward& f, std::size_t num_tokens) const {
    const double length = static_cast<double>(sequence_length);
    double sum = 0;
    for (std::size_t t = 0; t < num_tokens; ++t)
      for (std::size_t e = 0; e < num_experts; ++e)
        sum += share(f, t, e) * f.probs[t * num_experts + e] / length;
    return static_cast<double>(num_experts) * sum * length / static_cast<double>(num_tokens);
  }

  // Through the experts of token t, and to the probabilities that weigh them.
  void add_weight_gradients(const Doubles& x, const Doubles& dy, const Forward& f, std::size_t t,
                            Gradients& g, Doubles& dprobs) const {
    double chosen = 0;
    for (std::size_t j = 0; j < top_k; ++j)
      if (!is_dropped(t, j)) chosen += f.probs[t * num_experts + f.indices[t * top_k + j]];
    Doubles dweights(top_k);
    double mean = 0;
    for (std::size_t j = 0; j < top_k; ++j) {
      if (is_dropped(t, j)) continue;
      const std::size_t e = f.indices[t * top_k + j];
      const Inner inner = expert(e, &x[t * hidden]);
      Doubles dout(hidden);
      for (std::size_t h = 0; h < hidden; ++h) {
        dweights[j] += dy[t * hidden + h] * masked(inner.out[h], t, j, h);
        dout[h] = masked(f.weights[t * top_k + j] * dy[t * hidden + h], t, j, h);
      }
      mean += dweights[j] * f.weights[t * top_k + j];
      add_network_gradients(expert_network(e), &x[t * hidden], inner, dout,
                            g.gate_up.data() + e * 2 * intermediate * hidden,
                            g.down.data() + e * hidden * intermediate, &g.x[t * hidden]);
    }
    for (std::size_t j = 0; j < top_k; ++j)
      if (!is_dropped(t, j))
        dprobs[f.indices[t * top_k + j]] += normalize ? (dweights[j] - mean) / chosen : dweights[j];
  }

  void add_shared_gradients(const double* x, const double* dy, std::size_t t, Gradients& g) const {
    const Inner inner = network(shared_network(), x);
    const double factor = shared_factor(x);
    Doubles dout(hidden);
    double dfactor = 0;
    for (std::size_t h = 0; h < hidden; ++h) {
      dout[h] = factor * dy[h];
      dfactor += inner.out[h] * dy[h];
    }
    double* dx = &g.x[t * hidden];
    add_network_gradients(shared_network(), x, inner, dout, g.shared_gate_up.data(),
                          g.shared_down.data(), dx);
    for (std::size_t h = 0; h < shared.gate.size(); ++h) {
      const double dlogit = dfactor * factor * (1 - factor);
      g.shared_gate[h] += dlogit * x[h];
      dx[h] += dlogit * shared.gate[h];
    }
  }

  void add_network_gradients(const Network& of, const double* x, const Inner& inner,
                             const Doubles& dout, double* d_gate_up, double* d_down,
                             double* dx) const {
    const std::size_t up_at = of.intermediate * hidden;
    for (std::size_t i = 0; i < of.intermediate; ++i) {
      double dact = 0;
      for (std::size_t h = 0; h < hidden; ++h) {
        const std::size_t at = h * of.intermediate + i;
        dact += dout[h] * of.down[at];
        d_down[at] += dout[h] * inner.act[i];
      }
      const double sigmoid = 1 / (1 + std::exp(-inner.gate[i]));
      const double dup = dact * inner.gate[i] * sigmoid;
      const double dgate = dact * inner.up[i] * sigmoid * (1 + inner.gate[i] * (1 - sigmoid));
      for (std::size_t h = 0; h < hidden; ++h) {
        d_gate_up[i * hidden + h] += dgate * x[h];
        d_gate_up[up_at + i * hidden + h] += dup * x[h];
        dx[h] += dgate * of.gate_up[i * hidden + h] + dup * of.gate_up[up_at + i * hidden + h];
      }
    }
  }

  void add_balance_gradient(const Forward& f, std::size_t t, std::size_t num_tokens,
                            Doubles& dprobs) const {
    for (std::size_t e = 0; e < num_experts; ++e)
      dprobs[e] += balance_weight * static_cast<double>(num_experts) * share(f, t, e) /
                   static_cast<double>(num_tokens);
  }

  void add_logit_gradients(const Doubles& x, const Forward& f, std::size_t t,
                           std::size_t num_tokens, const Doubles& dprobs, Gradients& g) const {
    const double* probs = &f.probs[t * num_experts];
    const double inner = std::inner_product(dprobs.begin(), dprobs.end(), probs, 0.0);
    for (std::size_t e = 0; e < num_experts; ++e) {
      const double dlogit = probs[e] * (dprobs[e] - inner) +
                            z_weight * 2 * f.lse[t] * probs[e] / static_cast<double>(num_tokens);
      for (std::size_t h = 0; h < hidden; ++h) {
        g.router[e * hidden + h] += dlogit * x[t * hidden + h];
        g.x[t * hidden + h] += dlogit * router[e * hidden + h];
      }
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
