// The keys of a call of attention in parts, one call each, merged, against one call.
#pragma once

#include "tests/kernels/attention/attention_support.hpp"

namespace switchyard::test {

// The keys of a case cut at `cuts`; calls visit(begin, end, ranges, merge) for each part, from the
// first or from the last one on. merge: onto the parts before.
template <class Visit>
void for_each_part(Device& device, const AttentionCase& c, const std::vector<std::int64_t>& cuts,
                   bool last_first, Visit&& visit) {
  const std::size_t num_parts = cuts.size() - 1;
  for (std::size_t n = 0; n < num_parts; ++n) {
    const std::size_t i = last_first ? num_parts - 1 - n : n;
    Visible part = c.visible;
    for (auto* ends : {&part.first, &part.end})
      for (std::int32_t& key : *ends)
        key = static_cast<std::int32_t>(std::clamp<std::int64_t>(key, cuts[i], cuts[i + 1]) -
                                        cuts[i]);
    const DeviceRanges ranges(device, part);
    visit(cuts[i], cuts[i + 1], ranges.ranges, n == 0 ? Merge::replace : Merge::with_before);
  }
}

// One sequence: its keys in parts, outputs and query gradients merged in fp32.
inline void expect_parts_equal_one_call(Device& device, AttentionCase& c,
                                        const std::vector<std::int64_t>& cuts, double forward_limit,
                                        double backward_limit, bool last_first = false) {
  c.forward();
  c.backward();
  const Tensor out(device, Purpose::activation, DType::f32, c.queries());
  const Tensor lse(device, Purpose::activation, DType::f32, c.values());
  const Tensor dq(device, Purpose::activation, DType::f32, c.queries());
  const Tensor dk(device, Purpose::activation, DType::f32, c.keys());
  const Tensor dv(device, Purpose::activation, DType::f32, c.keys());
  const auto shape = [&](std::int64_t begin, std::int64_t end) {
    return with_keys(c.shape, end - begin);
  };
  using kernels::KeyRanges;
  for_each_part(device, c, cuts, last_first,
                [&](std::int64_t begin, std::int64_t end, const KeyRanges& part, Merge merge) {
                  attention_forward(shape(begin, end), c.q, c.k->slice_rows(begin, end),
                                    c.v->slice_rows(begin, end), part, out, lse, merge,
                                    c.workspace);
                });
  EXPECT_LT(relative_error(doubles(out), doubles(c.out)), forward_limit);
  expect_lse(lse, doubles(c.lse));
  for_each_part(device, c, cuts, last_first,
                [&](std::int64_t begin, std::int64_t end, const KeyRanges& part, Merge merge) {
                  const kernels::AttentionGradients gradients{dq, dk->slice_rows(begin, end),
                                                              dv->slice_rows(begin, end), merge,
                                                              Merge::with_before};
                  attention_backward(shape(begin, end), c.q, c.k->slice_rows(begin, end),
                                     c.v->slice_rows(begin, end), part, c.lse, c.delta, c.dout,
                                     gradients, c.workspace);
                });
  EXPECT_LT(relative_error(doubles(dq), doubles(c.dq)), backward_limit);
  EXPECT_LT(relative_error(doubles(dk), doubles(c.dk)), backward_limit);
  EXPECT_LT(relative_error(doubles(dv), doubles(c.dv)), backward_limit);
}

}  // namespace switchyard::test
