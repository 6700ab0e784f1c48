#include "kernels/plan/linear_recurrence.hpp"

#include <algorithm>
#include <initializer_list>

#include "kernels/plan/record.hpp"

namespace switchyard::kernels::plan {

namespace {

double bytes_of(std::initializer_list<const TensorView*> views) {
  double bytes = 0;
  for (const TensorView* view : views)
    if (!view->empty()) bytes += static_cast<double>(view->num_bytes());
  return bytes;
}

double bytes_of(const RecurrenceInputs& in) {
  return bytes_of({&in.q, &in.k, &in.v, &in.gates, &in.betas, &in.steps});
}

struct Sizes {
  explicit Sizes(const RecurrenceShape& shape)
      : keys(static_cast<double>(shape.key_width)),
        values(static_cast<double>(shape.state_cols())),
        chunk(static_cast<double>(std::min(shape.chunk, shape.length()))),
        tokens(static_cast<double>(shape.num_sequences * shape.length() * shape.num_heads)) {}
  double state() const { return keys * values; }

  double keys, values, chunk;
  double tokens;  // of all heads
};

}  // namespace

void recurrence_forward(const RecurrenceShape& shape, const RecurrenceInputs& inputs,
                        const RecurrenceOutputs& outputs) {
  const Sizes s(shape);
  const double pairs = shape.exclusive ? 0 : s.chunk * (s.keys + s.values);
  const double delta = shape.delta ? 2 * s.state() + pairs + s.chunk * s.chunk / 3 : 0;
  record(inputs.q, s.tokens * (4 * s.state() + pairs + delta),
         bytes_of(inputs) + bytes_of({&outputs.out, &outputs.denominators}));
}

void recurrence_backward(const RecurrenceShape& shape, const RecurrenceInputs& inputs,
                         const RecurrenceOutputs& outputs, const TensorView& dout,
                         const RecurrenceGradients& g) {
  const Sizes s(shape);
  const double flops =
      shape.delta ? 16 * s.state() + 5.5 * s.chunk * (s.keys + s.values)
                  : 10 * s.state() + (shape.exclusive ? 0 : s.chunk * (3 * s.keys + 2 * s.values));
  record(inputs.q, s.tokens * flops,
         bytes_of(inputs) + bytes_of({&dout, &outputs.denominators, &g.dq, &g.dk, &g.dv, &g.dgates,
                                      &g.dbetas, &g.dsteps}));
}

void recurrence_summaries(const RecurrenceShape& shape, const RecurrenceInputs& inputs,
                          const TensorView& summaries) {
  const Sizes s(shape);
  // With the delta rule the state and the transition are both carried through every chunk.
  const double delta = 2 * s.keys * (s.values + 2 * s.keys) + s.chunk * (3 * s.keys + s.values);
  record(inputs.k, s.tokens * (2 * s.state() + (shape.delta ? delta : 0)),
         bytes_of({&inputs.k, &inputs.v, &inputs.gates, &inputs.betas, &inputs.steps, &summaries}));
}

void recurrence_summary_gradients(const RecurrenceShape& shape, const RecurrenceInputs& inputs,
                                  const TensorView& dout, const TensorView& d_states) {
  const Sizes s(shape);
  const double delta = 4 * s.state() + 2 * s.chunk * (s.keys + s.values);
  record(inputs.q, s.tokens * (2 * s.state() + (shape.delta ? delta : 0)),
         bytes_of({&inputs.q, &inputs.gates, &dout, &d_states}) +
             (shape.delta ? bytes_of({&inputs.k, &inputs.betas}) : 0));
}

void recurrence_fold(const RecurrenceShape& shape, const TensorView& maps,
                     const TensorView& states) {
  const double each = shape.delta ? 2 * static_cast<double>(shape.key_width) : 2;
  record(maps, each * static_cast<double>(maps.rows() * shape.state_size()),
         bytes_of({&maps, &states}));
}

}  // namespace switchyard::kernels::plan
