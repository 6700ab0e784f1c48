#include "kernels/recurrence/recurrence_problem.hpp"

#include <algorithm>

#include "support/reference_recurrence.hpp"

namespace switchyard::test {

namespace {

using reference::RecurrenceHead;
using Rows = RecurrenceHead::Rows;

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

}  // namespace

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
      const std::int64_t first = s * p.length(), key_cols = form.num_groups * form.key_width;
      const std::int64_t group = h / (num_heads / form.num_groups);
      RecurrenceHead head;
      head.scale = static_cast<double>(0.7f);
      head.delta = form.delta;
      head.segment = form.exclusive ? static_cast<std::size_t>(form.chunk) : 0;
      head.q = rows_of_head(p.q.values(), first, p.length(), key_cols, group * form.key_width,
                            form.key_width);
      head.k = rows_of_head(p.k.values(), first, p.length(), key_cols, group * form.key_width,
                            form.key_width);
      const Rows raw = rows_of_head(p.v.values(), first, p.length(), num_heads * form.value_width,
                                    h * form.value_width, form.value_width);
      const Rows dout =
          rows_of_head(p.dout.values(), first, p.length(), num_heads * form.value_width,
                       h * form.value_width, form.value_width);
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
      head.state.assign(static_cast<std::size_t>(form.key_width) * head.width(), 0.0);
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
      add_rows(out, first, num_heads * form.value_width, h * form.value_width, 1, r["out"]);
      add_rows(head.dq, first, key_cols, group * form.key_width, 1, r["dq"]);
      add_rows(head.dk, first, key_cols, group * form.key_width, 1, r["dk"]);
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
      add_rows(head.dv, first, num_heads * form.value_width, h * form.value_width, 1, r["dv"]);
    }
  return r;
}

Tensor workspace_of(const RecurrenceShape& shape) {
  return {tested(),
          Purpose::workspace,
          DType::u8,
          {kernels::recurrence_workspace_bytes(shape, tested().target())}};
}

namespace {

Operand blocks(std::int64_t num_runs, std::int64_t size, unsigned seed = 1) {
  return {DType::f32, num_runs * num_sequences * num_heads, size, seed};
}

}  // namespace

Results actual_of(const Problem& p, const std::vector<std::int64_t>& borders) {
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

namespace {

double error_of(const Doubles& actual, const Doubles& expected) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    difference += (actual[i] - expected[i]) * (actual[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  return std::sqrt(difference / std::max(norm, 1e-30));
}

double tolerance(const Form& form) {
  return form.dtype == DType::bf16 ? 5e-3 : 5e-6;
}

}  // namespace

void expect_results(const Problem& p, const Results& actual, const Results& expected) {
  for (const auto& [name, values] : actual)
    EXPECT_LT(error_of(values, expected.at(name)),
              tolerance(p.form()) * (name == "dgates" ? 10 : 1))
        << name;
}

std::vector<Form> recurrent_forms() {
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
      {.name = "wide",
       .gates = Gates::tokens,
       .delta = true,
       .key_width = 40,
       .value_width = 67,
       .chunk = 32},
      {.name = "wide_mean", .normalized = true, .key_width = 33, .value_width = 64, .chunk = 21},
      {.name = "bf16",
       .gates = Gates::tokens,
       .delta = true,
       .num_groups = 2,
       .dtype = DType::bf16}};
}

}  // namespace switchyard::test
