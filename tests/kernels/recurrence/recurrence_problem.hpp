// A problem for kernels/recurrence/linear_recurrence.hpp, what its kernels make of it, and what the
// recurrence token by token makes of it in double (support/reference_recurrence.hpp).
#pragma once

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "kernels/kernel_test.hpp"
#include "kernels/recurrence/linear_recurrence.hpp"

namespace switchyard::test {

using kernels::RecurrenceShape;

inline constexpr std::int64_t num_sequences = 2, num_heads = 4;

enum class Gates { none, constant, tokens };

struct Form {
  std::string name;
  Gates gates = Gates::none;
  bool delta = false;
  bool normalized = false;
  bool exclusive = false;
  bool steps = false;  // steps and a skip
  std::int64_t num_groups = 4;
  std::int64_t key_width = 5;
  std::int64_t value_width = 7;
  std::int64_t chunk = 8;
  bool documents = false;
  DType dtype = DType::f32;
  double gate_scale = 0.3;
};

// A whole problem: operands of sequences of `length` tokens, and what is to come out.
class Problem {
 public:
  Problem(const Form& form, std::int64_t length)
      : form_(form),
        length_(length),
        q(keys(1)),
        k(keys(2)),
        v(values(3)),
        dout(values(4)),
        gates(DType::f32, form.gates == Gates::constant ? 1 : num_sequences * length, num_heads, 5),
        betas(DType::f32, num_sequences * length, num_heads, 6),
        steps(DType::f32, num_sequences * length, num_heads, 7),
        skip(vector_of(num_heads, 8)) {
    if (form.normalized) {  // features are positive
      q.set(absolute(q.values()));
      k.set(absolute(k.values()));
    }
    Doubles g = absolute(gates.values());
    for (double& x : g) x *= -form.gate_scale;
    gates.set(g);
    Doubles b = absolute(betas.values());
    for (double& x : b) x *= 0.5;
    betas.set(b);
    if (form.delta) {  // ||k|| = 1, nearly
      const double norm = std::sqrt(1.5 * static_cast<double>(form.key_width));
      Doubles unit = k.values();
      for (double& x : unit) x /= norm;
      k.set(unit);
    }
    if (form.documents) starts_ = {{3, 4, 20}, {9}};
  }

  const Form& form() const { return form_; }
  std::int64_t length() const { return length_; }
  kernels::DocumentStarts starts() const { return starts_; }

  RecurrenceShape shape(std::span<const PositionRange> runs) const {
    return {.num_sequences = num_sequences,
            .runs = runs,
            .num_heads = num_heads,
            .num_groups = form_.num_groups,
            .key_width = form_.key_width,
            .value_width = form_.value_width,
            .chunk = form_.chunk,
            .scale = 0.7f,
            .delta = form_.delta,
            .normalized = form_.normalized,
            .exclusive = form_.exclusive,
            .document_starts = starts_};
  }
  kernels::RecurrenceInputs inputs() const {
    return {.q = q,
            .k = k,
            .v = v,
            .gates = form_.gates == Gates::none ? TensorView{} : gates.view(),
            .betas = form_.delta ? betas.view() : TensorView{},
            .steps = form_.steps ? steps.view() : TensorView{},
            .skip = form_.steps ? skip.view().flat() : TensorView{}};
  }

 private:
  static Doubles absolute(Doubles x) {
    for (double& each : x) each = std::abs(each) + 0.01;
    return x;
  }
  Operand keys(unsigned seed) const {
    return {form_.dtype, num_sequences * length_, form_.num_groups * form_.key_width, seed, 3};
  }
  Operand values(unsigned seed) const {
    return {form_.dtype, num_sequences * length_, num_heads * form_.value_width, seed, 2};
  }

  Form form_;
  std::int64_t length_;
  std::vector<std::vector<std::int32_t>> starts_;

 public:
  Operand q, k, v, dout, gates, betas, steps, skip;
};

// Every result, by name; tensors' elements in their order.
using Results = std::map<std::string, Doubles>;

Results expected_of(const Problem& p);

// What a pass writes.
struct Outputs {
  explicit Outputs(const Problem& p)
      : out(p.form().dtype, p.v.view().rows(), p.v.view().cols(), 11, 2),
        dv(p.form().dtype, p.v.view().rows(), p.v.view().cols(), 12, 1),
        dq(p.form().dtype, p.k.view().rows(), p.k.view().cols(), 13, 2),
        dk(p.form().dtype, p.k.view().rows(), p.k.view().cols(), 14, 2),
        denominators(DType::f32, p.v.view().rows(), num_heads, 15),
        dgates(DType::f32, p.v.view().rows(), num_heads, 16),
        dbetas(DType::f32, p.v.view().rows(), num_heads, 17),
        dsteps(DType::f32, p.v.view().rows(), num_heads, 18),
        dskip(vector_of(num_heads, 19)) {
    dskip.set(Doubles(num_heads, 0.0));
  }
  kernels::RecurrenceOutputs outputs(const Form& form) const {
    return {.out = out, .denominators = form.normalized ? denominators.view() : TensorView{}};
  }
  kernels::RecurrenceGradients gradients(const Form& form) const {
    return {.dq = dq,
            .dk = dk,
            .dv = dv,
            .dgates = form.gates == Gates::tokens ? dgates.view() : TensorView{},
            .dbetas = form.delta ? dbetas.view() : TensorView{},
            .dsteps = form.steps ? dsteps.view() : TensorView{},
            .dskip = form.steps ? dskip.view().flat() : TensorView{}};
  }
  Results results(const Form& form) const {
    Results r{{"out", out.values()}, {"dq", dq.values()}, {"dk", dk.values()}, {"dv", dv.values()}};
    if (form.gates == Gates::tokens) r["dgates"] = dgates.values();
    if (form.delta) r["dbetas"] = dbetas.values();
    if (form.steps) {
      r["dsteps"] = dsteps.values();
      r["dskip"] = dskip.values();
    }
    return r;
  }
  Operand out, dv, dq, dk, denominators, dgates, dbetas, dsteps, dskip;
};

Tensor workspace_of(const RecurrenceShape& shape);

// Of calls that see all of the sequences, as runs that hand their states on through the summaries,
// each run being alone with its map: what ranks do. borders: where a sequence is cut into runs;
// none: one run, whose state is nobody's.
Results actual_of(const Problem& p, const std::vector<std::int64_t>& borders = {});

// Relative to the norm: fp32 sums of a few hundred products, in bf16 also the rounding of results.
void expect_results(const Problem& p, const Results& actual, const Results& expected);

// Every form that a mixer has, with chunks of all sorts.
std::vector<Form> recurrent_forms();

}  // namespace switchyard::test
