// How recurrent mixers continue a sequence in generation.
#include <algorithm>

#include "kernels/rows/elementwise.hpp"
#include "model/mixers/recurrent.hpp"

namespace switchyard {

void RecurrentMixer::extend(const TensorView& x, const TensorView& y, std::int64_t num_cached,
                            MixerCache& any_cache, const LayerContext& context) const {
  auto& cache = dynamic_cast<Cache&>(any_cache);
  auto& scratch = dynamic_cast<ExtendScratch&>(context.scratch);
  const Derived& derived = scratch.derived;
  kernels::linear_forward(x, packed_in_, derived.projected);
  if (conv_)
    conv_->extend(mixed_in(derived.projected), derived.convolved, cache.rows(), scratch.rows,
                  num_cached);
  make_gates(derived);
  map(source_of(derived), scratch.mapped, scratch.workspace, context);
  if (local_) {
    extend_segments(x.rows(), num_cached, cache, context);
  } else {
    const PositionRange run{num_cached, x.rows()};
    kernels::recurrence_forward(recurrence_shape(form_, 1, {&run, 1}),
                                inputs_of(scratch.mapped, derived), cache.state(),
                                outputs_of(scratch.saved), cache.state(), scratch.workspace);
  }
  kernels::linear_forward(normed_of(scratch.saved, derived, scratch.normed), packed_output_, y);
}

// Segment by segment: its tokens read the memory as it was before, and a finished one joins it.
void RecurrentMixer::extend_segments(std::int64_t num_tokens, std::int64_t num_cached, Cache& cache,
                                     const LayerContext& context) const {
  const auto& scratch = dynamic_cast<ExtendScratch&>(context.scratch);
  const auto rows_of = [&](const TensorView& tensor, std::int64_t begin, std::int64_t end) {
    return tensor.empty() ? TensorView{} : tensor.slice_rows(begin, end);
  };
  for (std::int64_t begin = 0; begin < num_tokens;) {
    const std::int64_t offset = (num_cached + begin) % form_.segment;
    const std::int64_t end = std::min(num_tokens, begin + form_.segment - offset);
    const Mixed source = mixed_of(source_of(scratch.derived).slice_rows(begin, end));
    const Mixed mapped = mapped_of(scratch.mapped->slice_rows(begin, end));
    const PositionRange run{0, end - begin};
    kernels::recurrence_forward(recurrence_shape(form_, 1, {&run, 1}),
                                {.q = mapped.q, .k = mapped.k, .v = mapped.v}, cache.state(),
                                {.out = scratch.saved.out->slice_rows(begin, end),
                                 .denominators = rows_of(scratch.saved.denominators, begin, end)},
                                {}, scratch.workspace);
    local_->extend(local_rows(source), offset, cache.keys(), cache.values(),
                   scratch.saved.local->slice_rows(begin, end), *scratch.local, context,
                   context.pass.rotary_positions.slice_rows(begin, end));
    const std::int64_t known = offset + end - begin;
    kernels::copy(mapped.k, cache.features()->slice_rows(offset, known));
    if (known == form_.segment) {
      const PositionRange all{0, known};
      // The keys stand for queries, which nobody asks with.
      kernels::recurrence_forward(
          recurrence_shape(form_, 1, {&all, 1}),
          {.q = cache.features(), .k = cache.features(), .v = cache.values()}, cache.state(),
          {.out = scratch.segment.out, .denominators = scratch.segment.denominators}, cache.state(),
          scratch.workspace);
    }
    begin = end;
  }
}

}  // namespace switchyard
