#include "parallel/shared_gradients.hpp"

#include <algorithm>

#include "kernels/routing/choice_counts.hpp"
#include "kernels/rows/elementwise.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

// Elements of one index of dim 0.
std::int64_t numel_of_index(const Parameter& parameter) {
  const Shape& shape = parameter.spec().global_shape;
  return shape.numel() / shape[0];
}

// Where this rank's local tensor has an index.
std::int64_t place_held(const Parameter& parameter, std::int64_t index) {
  const std::int64_t num_held = parameter.slice().num_held();
  for (std::int64_t held = 0; held < num_held; ++held)
    if (parameter.slice().index_of(held) == index) return held;
  throw InternalError("a rank that shares an index of " + parameter.name() + " to hold it");
}

// Indices that a rank may come to receive, if it receives so many now. Each place of another rank
// that it receives from is one of an expert that it holds itself.
std::int64_t most_received(const Parameter& parameter, std::int64_t num_received, int num_ranks) {
  if (!parameter.spec().moves) return num_received;
  return std::min(num_replicas_of(parameter.spec().shared),
                  parameter.slice().num_held() * (num_ranks - 1));
}

}  // namespace

SharedGradients::SharedGradients(ParameterStore& store)
    : store_(store), group_(store.mesh().group(Axis::expert)) {
  holders_changed();
  std::int64_t most = 0;
  for (const Parameter& parameter : store.parameters()) {
    if (parameter.spec().shared.empty()) continue;
    const Exchange& exchange = exchanges_[static_cast<std::size_t>(parameter.index())];
    most = std::max(most, most_received(parameter, exchange.num_received, group_.size()) *
                              numel_of_index(parameter));
  }
  if (most > 0)
    received_ = Tensor(store.device(), Purpose::communication,
                       store.exact() ? DType::i64 : DType::f32, {most});
}

void SharedGradients::holders_changed() {
  exchanges_.clear();
  for (const Parameter& parameter : store_.parameters())
    exchanges_.push_back(exchange_of(parameter, group_.rank(), group_.size()));
}

SharedGradients::Exchange SharedGradients::exchange_of(const Parameter& parameter, int rank,
                                                       int num_ranks) {
  Exchange exchange;
  const std::vector<SharedIndex>& shared = parameter.spec().shared;
  if (shared.empty()) return exchange;
  expect(parameter.slice().dim() == 0, "a shared index of a parameter's first dim");
  const auto is_held = [](const SharedIndex& each, int by) {
    return std::ranges::find(each.ranks, by) != each.ranks.end();
  };
  for (const SharedIndex& each : shared)
    if (is_held(each, rank))
      exchange.sums.push_back(
          {place_held(parameter, each.index), std::vector<std::int64_t>(each.ranks.size(), -1)});
  for (int other = 0; other < num_ranks; ++other) {
    auto sum = exchange.sums.begin();
    for (const SharedIndex& each : shared) {
      if (!is_held(each, rank)) continue;
      if (other != rank && is_held(each, other)) {
        exchange.sent_first.push_back(sum->held);
        exchange.sent_count.push_back(1);
        exchange.received_first.push_back(exchange.num_received);
        exchange.received_count.push_back(1);
        const auto term = std::ranges::find(each.ranks, other) - each.ranks.begin();
        sum->terms[static_cast<std::size_t>(term)] = exchange.num_received++;
      }
      ++sum;
    }
    exchange.ends.push_back(exchange.sent_first.size());
  }
  return exchange;
}

void SharedGradients::add_up(const Parameter& parameter) {
  if (parameter.spec().shared.empty()) return;
  const Exchange& exchange = exchanges_[static_cast<std::size_t>(parameter.index())];
  const std::int64_t numel = numel_of_index(parameter);
  const TensorView own = parameter.gradient().reshape({parameter.slice().num_held(), numel});
  // A rank that shares nothing receives nothing, in a tensor of no rows.
  const TensorView received = exchange.num_received == 0
                                  ? own.slice_rows(0, 0)
                                  : received_->slice_rows(0, exchange.num_received * numel)
                                        .reshape({exchange.num_received, numel});
  group_
      .start_all_to_all_v(own, {exchange.sent_first, exchange.sent_count, exchange.ends}, received,
                          {exchange.received_first, exchange.received_count, exchange.ends})
      .wait(own.device->compute_stream());
  for (const Sum& sum : exchange.sums) add_terms(sum, own, received);
}

// Whole numbers have no order; in fp32 the first term is that of the first rank on all of them.
void SharedGradients::add_terms(const Sum& sum, const TensorView& own,
                                const TensorView& received) const {
  const auto row = [](const TensorView& rows, std::int64_t i) {
    return rows.slice_rows(i, i + 1).flat();
  };
  const TensorView mine = row(own, sum.held);
  if (own.dtype == DType::i64) {
    for (const std::int64_t term : sum.terms)
      if (term >= 0) kernels::add_counts(row(received, term), mine);
    return;
  }
  const auto term_of = [&](std::size_t i) {
    return sum.terms[i] < 0 ? mine : row(received, sum.terms[i]);
  };
  const TensorView first = term_of(0);
  for (std::size_t i = 1; i < sum.terms.size(); ++i)
    kernels::add(first, term_of(i), i + 1 == sum.terms.size() ? mine : first);
}

}  // namespace switchyard
