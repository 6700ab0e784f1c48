// The chunked recurrence against the recurrence token by token in double: outputs, last states and
// every gradient, for each form of it, chunk lengths, documents, and sequences that are cut.
#include "kernels/recurrence/linear_recurrence.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>

#include "kernels/kernel_test.hpp"
#include "support/reference_recurrence.hpp"

namespace switchyard::test {
namespace {

using kernels::RecurrenceShape;
using reference::RecurrenceHead;
using Rows = RecurrenceHead::Rows;

constexpr std::int64_t num_sequences = 2, num_heads = 4, key_width = 5, value_width = 7;

enum class Gates { none, constant, tokens };

struct Form {
  std::string name;
  Gates gates = Gates::none;
  bool delta = false;
  bool normalized = false;
  bool exclusive = false;
  bool steps = false;  // steps and a skip
  std::int64_t num_groups = 4;
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
      Doubles unit = k.values();
      for (double& x : unit) x /= 2.7;
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
            .key_width = key_width,
            .value_width = value_width,
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
    return {form_.dtype, num_sequences * length_, form_.num_groups * key_width, seed, 3};
  }
  Operand values(unsigned seed) const {
    return {form_.dtype, num_sequences * length_, num_heads * value_width, seed, 2};
  }

  Form form_;
  std::int64_t length_;
  std::vector<std::vector<std::int32_t>> starts_;

 public:
  Operand q, k, v, dout, gates, betas, steps, skip;
};

// Every result, by name; tensors' elements in their order.
using Results = std::map<std::string, Doubles>;

Rows rows_of_head(const Doubles& x, std::int64_t first, std::int64_t count, std::int64_t cols,
                  std::int64_t begin, std::int64_t width) {
  Rows rows;
  for (std::int64_t t = first; t < first + count; ++t)
    rows.emplace_back(x.begin() + t * cols + begin, x.begin() + t * cols + begin + width);
  return rows;
}

void add_rows(const Rows& rows, std::int64_t first, std::int64_t cols, std::int64_t begin,
              double factor, Doubles& to) {
  for (std::size_t t = 0; t < rows.size(); ++t)
    for (std::size_t j = 0; j < rows[t].size(); ++j)
      to[static_cast<std::size_t>((first + static_cast<std::int64_t>(t)) * cols + begin) + j] +=
          factor * rows[t][j];
}

Results expected_of(const Problem& p) {
  const Form& form = p.form();
  const auto n = static_cast<std::size_t>(p.length());
  Results r;
  r["out"] = r["dv"] = Doubles(p.v.values().size(), 0.0);
  r["dq"] = r["dk"] = Doubles(p.k.values().size(), 0.0);
  r["dgates"] = r["dbetas"] = r["dsteps"] =
      Doubles(static_cast<std::size_t>(num_sequences * p.length() * num_heads), 0.0);
  r["dskip"] = Doubles(num_heads, 0.0);
  for (std::int64_t s = 0; s < num_sequences; ++s)
    for (std::int64_t h = 0; h < num_heads; ++h) {
      const std::int64_t first = s * p.length(), key_cols = form.num_groups * key_width;
      const std::int64_t group = h / (num_heads / form.num_groups);
      RecurrenceHead head;
      head.scale = static_cast<double>(0.7f);
      head.delta = form.delta;
      head.segment = form.exclusive ? static_cast<std::size_t>(form.chunk) : 0;
      head.q =
          rows_of_head(p.q.values(), first, p.length(), key_cols, group * key_width, key_width);
      head.k =
          rows_of_head(p.k.values(), first, p.length(), key_cols, group * key_width, key_width);
      const Rows raw = rows_of_head(p.v.values(), first, p.length(), num_heads * value_width,
                                    h * value_width, value_width);
      const Rows dout = rows_of_head(p.dout.values(), first, p.length(), num_heads * value_width,
                                     h * value_width, value_width);
      const Doubles gates = p.gates.values(), betas = p.betas.values(), steps = p.steps.values();
      const double skip = form.steps ? p.skip.values()[static_cast<std::size_t>(h)] : 0;
      const auto of_token = [&](const Doubles& x, std::size_t t) {
        return x[(static_cast<std::size_t>(first) + t) * num_heads + static_cast<std::size_t>(h)];
      };
      for (std::size_t t = 0; t < n; ++t) {
        head.gates.push_back(form.gates == Gates::none       ? 0
                             : form.gates == Gates::constant ? gates[static_cast<std::size_t>(h)]
                                                             : of_token(gates, t));
        head.betas.push_back(of_token(betas, t));
        head.begins.push_back(false);
        head.v.push_back(raw[t]);
        if (form.steps)
          for (double& x : head.v.back()) x *= of_token(steps, t);
        if (form.normalized) head.v.back().push_back(1);
      }
      if (form.documents)
        for (const std::int32_t start : p.starts()[static_cast<std::size_t>(s)])
          head.begins[static_cast<std::size_t>(start)] = true;
      head.state.assign(static_cast<std::size_t>(key_width) * head.width(), 0.0);
      head.forward();
      Rows out, d_out;
      for (std::size_t t = 0; t < n; ++t) {
        Doubles o = head.out[t], d = dout[t];
        if (form.normalized) {
          const double inverse = o.back() == 0 ? 0 : 1 / o.back();  // a mean over nothing is 0
          o.pop_back();
          double sum = 0;
          for (std::size_t j = 0; j < o.size(); ++j) {
            o[j] *= inverse;
            d[j] *= inverse;
            sum -= d[j] * o[j];
          }
          d.push_back(sum);
        }
        for (std::size_t j = 0; j < o.size(); ++j) {
          o[j] += skip * raw[t][j];
          r["dskip"][static_cast<std::size_t>(h)] += form.steps ? dout[t][j] * raw[t][j] : 0;
        }
        out.push_back(o);
        d_out.push_back(d);
      }
      head.backward(d_out, Doubles(head.state.size(), 0.0));
      add_rows(out, first, num_heads * value_width, h * value_width, 1, r["out"]);
      add_rows(head.dq, first, key_cols, group * key_width, 1, r["dq"]);
      add_rows(head.dk, first, key_cols, group * key_width, 1, r["dk"]);
      for (std::size_t t = 0; t < n; ++t) {
        const std::size_t at =
            (static_cast<std::size_t>(first) + t) * num_heads + static_cast<std::size_t>(h);
        if (form.gates == Gates::tokens) r["dgates"][at] = head.dgates[t];
        if (form.delta) r["dbetas"][at] = head.dbetas[t];
        if (form.normalized) head.dv[t].pop_back();
        const double step = form.steps ? of_token(steps, t) : 1;
        for (std::size_t j = 0; j < raw[t].size(); ++j) {
          if (form.steps) r["dsteps"][at] += head.dv[t][j] * raw[t][j];
          head.dv[t][j] = step * head.dv[t][j] + skip * dout[t][j];
        }
      }
      add_rows(head.dv, first, num_heads * value_width, h * value_width, 1, r["dv"]);
    }
  return r;
}

Tensor workspace_of(const RecurrenceShape& shape) {
  return {tested(),
          Purpose::workspace,
          DType::u8,
          {kernels::recurrence_workspace_bytes(shape, tested().target())}};
}

Operand blocks(std::int64_t num_runs, std::int64_t size, unsigned seed = 1) {
  return {DType::f32, num_runs * num_sequences * num_heads, size, seed};
}

// Outputs and gradients of one call that sees all of the sequences, as `runs` that hand their
// states on through the summaries, each run being alone with its map: what ranks do.
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

// borders: where a sequence is cut into runs; none: one run, whose state is nobody's.
Results actual_of(const Problem& p, const std::vector<std::int64_t>& borders = {}) {
  const Form& form = p.form();
  std::vector<PositionRange> runs;
  std::vector<kernels::RunPlace> places;
  std::int64_t begin = 0;
  for (std::size_t i = 0; i <= borders.size(); ++i) {
    const std::int64_t end = i < borders.size() ? borders[i] : p.length();
    runs.push_back({begin, end - begin});
    places.push_back({.row = static_cast<std::int64_t>(i), .here = static_cast<std::int64_t>(i)});
    begin = end;
  }
  const RecurrenceShape shape = p.shape(runs);
  const Tensor workspace = workspace_of(shape);
  const Outputs o(p);
  const auto inputs = p.inputs();
  if (borders.empty()) {
    recurrence_forward(shape, inputs, {}, o.outputs(form), {}, workspace);
    recurrence_backward(shape, inputs, {}, o.outputs(form), p.dout, {}, o.gradients(form), {},
                        workspace);
    return o.results(form);
  }
  const std::int64_t size = shape.state_size(), moved = shape.transition_size();
  const Operand maps = blocks(shape.num_runs(), size + moved, 21);
  const Operand states = blocks(shape.num_runs(), size, 22), ends = blocks(shape.num_runs(), size);
  const Operand d_ends = blocks(shape.num_runs(), size, 23),
                d_states = blocks(shape.num_runs(), size);
  const Operand own = blocks(shape.num_runs(), size, 24);
  recurrence_summaries(shape, inputs, maps, workspace);
  recurrence_fold(shape, places, maps, states);
  recurrence_forward(shape, inputs, states, o.outputs(form), ends, workspace);
  recurrence_summary_gradients(shape, inputs, o.outputs(form), p.dout, own, workspace);
  recurrence_fold_backward(shape, places, own, maps.view().slice_cols(size, size + moved), d_ends);
  recurrence_backward(shape, inputs, states, o.outputs(form), p.dout, d_ends, o.gradients(form),
                      d_states, workspace);
  // The state behind a run is the one before the next, and so are their gradients.
  const std::size_t of_run = static_cast<std::size_t>(num_sequences * num_heads * size);
  const Doubles ends_now = ends.values(), states_now = states.values();
  const Doubles d_ends_now = d_ends.values(), d_states_now = d_states.values();
  double largest = 0, largest_d = 0;
  for (const double x : states_now) largest = std::max(largest, std::abs(x));
  for (const double x : d_ends_now) largest_d = std::max(largest_d, std::abs(x));
  for (std::size_t i = 0; i + of_run < states_now.size(); ++i) {
    EXPECT_NEAR(ends_now[i], states_now[i + of_run], 1e-5 * largest) << i;
    EXPECT_NEAR(d_ends_now[i], d_states_now[i + of_run], 2e-5 * largest_d) << i;
  }
  return o.results(form);
}

double error_of(const Doubles& actual, const Doubles& expected) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    difference += (actual[i] - expected[i]) * (actual[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  return std::sqrt(difference / std::max(norm, 1e-30));
}

// Relative to the norm: fp32 sums of a few hundred products, in bf16 also the rounding of results.
double tolerance(const Form& form) {
  return form.dtype == DType::bf16 ? 5e-3 : 5e-6;
}

void expect_results(const Problem& p, const Results& actual, const Results& expected) {
  for (const auto& [name, values] : actual)
    EXPECT_LT(error_of(values, expected.at(name)),
              tolerance(p.form()) * (name == "dgates" ? 10 : 1))
        << name;
}

std::vector<Form> forms() {
  return {
      {.name = "linear", .normalized = true},
      {.name = "retention", .gates = Gates::constant},
      {.name = "ssd", .gates = Gates::tokens, .steps = true, .num_groups = 1},
      {.name = "ssd_groups", .gates = Gates::tokens, .steps = true, .num_groups = 2, .chunk = 64},
      {.name = "delta", .delta = true},
      {.name = "gated_delta", .gates = Gates::tokens, .delta = true, .num_groups = 2},
      {.name = "chunk_of_one", .gates = Gates::tokens, .delta = true, .chunk = 1},
      {.name = "chunk_of_all", .gates = Gates::tokens, .delta = true, .chunk = 64},
      {.name = "documents", .gates = Gates::tokens, .steps = true, .documents = true},
      {.name = "delta_documents", .gates = Gates::tokens, .delta = true, .documents = true},
      {.name = "exclusive", .normalized = true, .exclusive = true},
      {.name = "exclusive_groups", .exclusive = true, .steps = true, .num_groups = 2, .chunk = 4},
      {.name = "exclusive_documents", .normalized = true, .exclusive = true, .documents = true},
      {.name = "forgets_all", .gates = Gates::tokens, .delta = true, .gate_scale = 50},
      {.name = "bf16",
       .gates = Gates::tokens,
       .delta = true,
       .num_groups = 2,
       .dtype = DType::bf16}};
}

class RecurrenceTest : public ::testing::TestWithParam<Form> {};

TEST_P(RecurrenceTest, ChunksGiveTheRecurrenceAndEveryGradient) {
  const Problem p(GetParam(), 37);
  expect_results(p, actual_of(p), expected_of(p));
}

// Runs know of each other by their maps alone; some are shorter than a chunk, or of one token.
TEST_P(RecurrenceTest, RunsThatHandTheirStatesOnGiveTheSame) {
  const Problem p(GetParam(), 37);
  const Results expected = expected_of(p);
  std::vector<std::vector<std::int64_t>> cuts = {{16}, {1, 9, 10, 30}, {20, 36}};
  if (p.form().exclusive) cuts = {{16}, {8, 24, 32}};  // where segments begin
  for (const std::vector<std::int64_t>& borders : cuts)
    expect_results(p, actual_of(p, borders), expected);
}

// Tokens from c on are changed: what comes out before has the same bits.
TEST_P(RecurrenceTest, NothingLeaksFromTheFuture) {
  const std::int64_t length = 37;
  const Problem before(GetParam(), length);
  const std::vector<std::int64_t> borders = {16};
  for (const std::vector<std::int64_t>& cut : {std::vector<std::int64_t>{}, borders}) {
    const Doubles expected = actual_of(before, cut).at("out");
    for (const std::int64_t c : {7, 8, 9, 15, 16, 17, 36}) {
      const Problem after(GetParam(), length);
      for (const Operand* each : {&after.q, &after.k, &after.v, &after.betas}) {
        Doubles values = each->values();
        const std::size_t cols = values.size() / static_cast<std::size_t>(num_sequences * length);
        for (std::size_t i = static_cast<std::size_t>(c) * cols;
             i < static_cast<std::size_t>(length) * cols; ++i)
          values[i] = std::abs(0.9 * values[i]);
        each->set(values);
      }
      const Doubles actual = actual_of(after, cut).at("out");
      const std::size_t cols = num_heads * value_width;
      for (std::size_t i = 0; i < static_cast<std::size_t>(c) * cols; ++i)
        ASSERT_EQ(actual[i], expected[i]) << "position " << i / cols << ", changed from " << c;
      // Nothing changes where the memory is empty, nor by a query's length in a mean.
      if (GetParam().exclusive && (GetParam().normalized || c < GetParam().chunk)) continue;
      EXPECT_NE(actual[static_cast<std::size_t>(c) * cols],
                expected[static_cast<std::size_t>(c) * cols]);
    }
  }
}

TEST_P(RecurrenceTest, ThreadsChangeNoBit) {
  expect_same_for_any_threads([] {
    const Problem p(GetParam(), 37);
    std::vector<Doubles> all;
    for (const auto& [name, values] : actual_of(p)) all.push_back(values);
    return all;
  });
}

INSTANTIATE_TEST_SUITE_P(Forms, RecurrenceTest, ::testing::ValuesIn(forms()),
                         [](const auto& each) { return each.param.name; });

// Cumulated gates of a long sequence would lose the small ones; those of a chunk do not.
TEST(Recurrence, ALongSequenceKeepsItsAccuracy) {
  const Form form{
      .name = "long", .gates = Gates::tokens, .delta = true, .chunk = 64, .gate_scale = 1};
  const Problem p(form, 3000);
  expect_results(p, actual_of(p), expected_of(p));
}

TEST(Recurrence, OperandsThatDoNotFitAreRefused) {
  const Problem p(forms().front(), 5);
  const PositionRange run{0, 5};
  const RecurrenceShape shape = p.shape({&run, 1});
  const Tensor workspace = workspace_of(shape);
  const Outputs o(p);
  expect_refused([&] { recurrence_forward(shape, p.inputs(), {}, {.out = o.out}, {}, workspace); });
  RecurrenceShape other = shape;
  other.num_groups = 3;
  expect_refused(
      [&] { recurrence_forward(other, p.inputs(), {}, o.outputs(p.form()), {}, workspace); });
  other = shape;
  other.exclusive = true;
  const PositionRange late{3, 5};  // within a segment
  other.runs = {&late, 1};
  expect_refused(
      [&] { recurrence_forward(other, p.inputs(), {}, o.outputs(p.form()), {}, workspace); });
  other = shape;
  other.delta = true;  // and no betas
  expect_refused(
      [&] { recurrence_forward(other, p.inputs(), {}, o.outputs(p.form()), {}, workspace); });
}

}  // namespace
}  // namespace switchyard::test
