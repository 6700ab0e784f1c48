// One head of a gated linear recurrence (kernels/recurrence/linear_recurrence.hpp) token by token,
// in double: the state after each token, and the chain rule backwards through them. Plain loops.
#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

namespace switchyard::reference {

struct RecurrenceHead {
  using Row = std::vector<double>;
  using Rows = std::vector<Row>;

  // What goes in. k[t], v[t] ... of token t; of the state element (i, j) is at i * width + j.
  double scale = 1;
  bool delta = false;
  std::size_t segment = 0;  // tokens read the state before their segment; 0: that with their own
  Rows q, k, v;
  Row gates, betas;          // of each token; betas with the delta rule
  std::vector<bool> begins;  // a document: the state before is empty
  Row state;                 // before the first token
  // What comes out.
  Rows out;
  Row state_end;
  // Gradients: of out and state_end given, all others made.
  Rows dq, dk, dv;
  Row dgates, dbetas, d_state;

  std::size_t keys() const { return k.front().size(); }
  std::size_t width() const { return v.front().size(); }

  void forward() {
    out.clear();
    decayed_.clear();
    states_.clear();
    values_.clear();
    Row s = state, before_segment = state;
    for (std::size_t t = 0; t < k.size(); ++t) {
      for (double& x : s) x = begins[t] ? 0 : x * std::exp(gates[t]);
      decayed_.push_back(s);
      if (segment > 0 && (begins[t] || t % segment == 0)) before_segment = s;
      Row u = v[t];
      if (delta) {
        const Row seen = read(s, k[t]);
        for (std::size_t j = 0; j < u.size(); ++j) u[j] = betas[t] * (v[t][j] - seen[j]);
      }
      for (std::size_t i = 0; i < keys(); ++i)
        for (std::size_t j = 0; j < width(); ++j) s[i * width() + j] += k[t][i] * u[j];
      values_.push_back(u);
      states_.push_back(segment > 0 ? before_segment : s);
      Row o = read(states_.back(), q[t]);
      for (double& x : o) x *= scale;
      out.push_back(o);
    }
    state_end = s;
  }

  void backward(const Rows& dout, const Row& d_end) {
    const std::size_t n = k.size();
    dq.assign(n, Row(keys(), 0.0));
    dk = dq;
    dv.assign(n, Row(width(), 0.0));
    dgates.assign(n, 0.0);
    dbetas.assign(n, 0.0);
    Row ds = d_end, d_before_segment(d_end.size(), 0.0);
    for (std::size_t t = n; t-- > 0;) {
      backward_token(t, dout[t], ds, segment > 0 ? d_before_segment : ds);
      if (segment == 0 || (!begins[t] && t % segment > 0)) continue;
      for (std::size_t i = 0; i < ds.size(); ++i) {
        if (!begins[t]) ds[i] += d_before_segment[i];
        d_before_segment[i] = 0;
      }
    }
    d_state = ds;
  }

 private:
  Row read(const Row& s, const Row& key) const {
    Row o(width(), 0.0);
    for (std::size_t i = 0; i < keys(); ++i)
      for (std::size_t j = 0; j < width(); ++j) o[j] += s[i * width() + j] * key[i];
    return o;
  }

  // ds: of the state behind token t; becomes that of the state before it. d_read: of the state
  // that it reads, which may be ds.
  void backward_token(std::size_t t, const Row& dout, Row& ds, Row& d_read) {
    const std::size_t w = width();
    for (std::size_t i = 0; i < keys(); ++i)
      for (std::size_t j = 0; j < w; ++j) {
        d_read[i * w + j] += scale * q[t][i] * dout[j];
        dq[t][i] += scale * states_[t][i * w + j] * dout[j];
      }
    const Row du = read(ds, k[t]);
    for (std::size_t i = 0; i < keys(); ++i)
      for (std::size_t j = 0; j < w; ++j) dk[t][i] += ds[i * w + j] * values_[t][j];
    const Row seen = read(decayed_[t], k[t]);
    for (std::size_t j = 0; j < w; ++j) {
      dv[t][j] = delta ? betas[t] * du[j] : du[j];
      if (!delta) continue;
      dbetas[t] += du[j] * (v[t][j] - seen[j]);
      for (std::size_t i = 0; i < keys(); ++i) {
        dk[t][i] -= decayed_[t][i * w + j] * betas[t] * du[j];
        ds[i * w + j] -= k[t][i] * betas[t] * du[j];
      }
    }
    for (std::size_t i = 0; i < ds.size(); ++i) {
      dgates[t] += decayed_[t][i] * ds[i];
      ds[i] = begins[t] ? 0 : ds[i] * std::exp(gates[t]);
    }
  }

  Rows decayed_, states_, values_;  // states: as they are read
};

}  // namespace switchyard::reference
