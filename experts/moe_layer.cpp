#include "experts/moe_layer.hpp"

#include <algorithm>
#include <utility>

#include "experts/route_rows.hpp"
#include "kernels/routing/permute.hpp"
#include "kernels/rows/elementwise.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

// The experts at the places of `rank`, in this order.
BankSpec bank_spec(const std::string& prefix, const ExpertsConfig& config, std::int64_t hidden,
                   DType compute, const Placement& placement, int rank, float output_std,
                   float initial_std) {
  const std::span<const std::int64_t> experts = placement.experts_of(rank);
  return {.prefix = prefix + ".experts",
          .keys =
              "experts.num_experts, experts.every, experts.first_dense, experts.intermediate, "
              "experts.bias, model.hidden",
          .hidden = hidden,
          .intermediate = config.intermediate,
          .compute = compute,
          .num_experts = config.num_experts,
          .local_experts = {experts.begin(), experts.end()},
          .shared = placement.shared(),
          .moves = config.placement.every > 0,
          .replicas = Axis::expert_data,
          .initial_std = initial_std,
          .output_std = output_std,
          .clamp = config.swiglu_clamp(),
          .has_bias = config.bias};
}

}  // namespace

MoeLayer::Scratch::Scratch(Device& device, const ExpertsConfig& config, std::int64_t hidden,
                           DType compute, std::int64_t num_tokens, std::int64_t num_sequences,
                           const Placement& placement, RowCapacity& capacity,
                           const ContextSharing& sharing, std::int64_t num_whole_tokens,
                           const RowUnits& units)
    : router(device, config, hidden, compute, num_tokens, num_sequences, num_whole_tokens),
      dispatch(device, placement, config, config.width_of(hidden), compute, num_tokens, capacity,
               sharing, units, config.padded_rows(num_sequences, num_tokens / num_sequences)),
      bank(
          device,
          rows_at_once(config, placement,
                       max_rows_received(placement, sharing.most_tokens(num_tokens), config.top_k)),
          placement.most_places(), config.intermediate, compute, &capacity,
          BankUnits{.number = std::ssize(units.order)},
          config.dispatch.chunks > 1 && placement.num_ranks() > 1, config.bias),
      losses(device, Purpose::workspace, DType::f64, {2}) {
  if (config.has_pieces(placement.num_ranks()))
    add_pieces(device, placement, compute, units, capacity);
  if (config.shared_width() > 0)
    shared.emplace(device, config, hidden, compute, num_tokens, units.rows);
  if (config.latent > 0)
    latent = Tensor(device, Purpose::workspace, compute, {num_tokens, config.latent});
  if (config.dropout <= 0) return;
  by_slot = Tensor(device, Purpose::workspace, compute,
                   {num_tokens * config.top_k, config.width_of(hidden)});
  slot_numbers = Tensor(device, Purpose::workspace, DType::i32, {num_tokens, config.top_k});
  kernels::iota(slot_numbers);
}

void MoeLayer::Scratch::add_pieces(Device& device, const Placement& placement, DType compute,
                                   const RowUnits& units, RowCapacity& capacity) {
  const TensorView& arrival = dispatch.arrival;
  const std::int64_t width = arrival.cols(), places = placement.most_places();
  piece_offsets = Tensor(device, Purpose::workspace, DType::i32, {places + 1});
  if (units.rows > 0)
    piece_unit_offsets =
        Tensor(device, Purpose::workspace, DType::i32, {places * std::ssize(units.order) + 1});
  piece_rows = Tensor::growable(device, Purpose::communication, compute,
                                {dispatch.arrival.max_rows(), width});
  capacity.add(piece_rows);
}

MoeLayer::MoeLayer(ParameterStore& store, const std::string& prefix, const ExpertsConfig& config,
                   RouterParts parts, std::int64_t hidden, DType compute,
                   const Placement& placement, std::int64_t num_layers, RandomKey dropout_key,
                   float output_std, float initial_std)
    : config_(config),
      width_(config.width_of(hidden)),
      compute_(compute),
      device_(store.device()),
      unit_rows_(store.exact() ? store.exact()->unit_rows : 0),
      dropout_key_(dropout_key),
      router_(store, prefix, config, std::move(parts), hidden, num_layers, initial_std),
      dispatcher_(store.mesh().group(Axis::expert), placement, config.top_k,
                  sharing_of(store.mesh()), config.dispatch, config.max_rows),
      bank_(store,
            bank_spec(prefix, config, width_, compute, placement, store.mesh().index(Axis::expert),
                      config.latent > 0 ? initial_std : output_std, initial_std)) {
  expect(placement.num_experts() == config.num_experts, "a placement of the layer's experts");
  expect(config.top_k >= 1 && config.top_k <= config.num_experts, "a top_k from 1 to num_experts");
  if (config.shared_width() > 0)
    shared_.emplace(store, prefix + ".shared_experts", config, hidden, compute, output_std,
                    initial_std);
  if (config.latent > 0)
    latent_.emplace(store, prefix + ".latent", hidden, config.latent, compute, output_std,
                    initial_std);
}

MoeLayer::Saved MoeLayer::make_saved(std::int64_t num_tokens, std::int64_t num_sequences) const {
  Saved saved;
  saved.gate = GateRecord(device_, config_, num_tokens, num_sequences, unit_rows_ > 0);
  saved.route =
      dispatcher_.make_route(device_, num_tokens, unit_rows_,
                             config_.padded_rows(num_sequences, num_tokens / num_sequences));
  return saved;
}

MoeLayer::Derived MoeLayer::make_derived(std::int64_t num_tokens, std::int64_t num_sequences,
                                         bool keep_gate_up) const {
  const std::int64_t max_rows =
      rows_at_once(config_, dispatcher_.placement(), dispatcher_.most_rows(num_tokens));
  Derived derived;
  derived.x_rows = Tensor::growable(device_, Purpose::activation, compute_, {max_rows, width_});
  if (keep_gate_up)
    derived.gate_up = Tensor::growable(device_, Purpose::activation, compute_,
                                       {max_rows, 2 * config_.intermediate});
  const std::int64_t returned =
      most_sorted_rows(dispatcher_.placement(), num_tokens * config_.top_k,
                       config_.padded_rows(num_sequences, num_tokens / num_sequences));
  if (dispatcher_.sums_returns())
    derived.expert_rows =
        Tensor::growable(device_, Purpose::activation, compute_, {max_rows, width_});
  else
    derived.expert_out = Tensor(device_, Purpose::activation, compute_, {returned, width_});
  if (shared_) derived.shared.emplace(shared_->make_derived(num_tokens, keep_gate_up));
  if (latent_)
    derived.combined = Tensor(device_, Purpose::activation, compute_, {num_tokens, width_});
  return derived;
}

void MoeLayer::Saved::for_each_tensor(const RecordVisitor& visit) {
  gate.for_each_tensor(with_prefix("gate", visit));
  route.for_each_tensor(with_prefix("route", visit));
}

void MoeLayer::Derived::for_each_tensor(std::int64_t num_rows, const RecordVisitor& visit) {
  visit_rows(visit, "x_rows", x_rows, num_rows);
  visit_rows(visit, "gate_up", gate_up, num_rows);
  visit_tensor(visit, "expert_out", expert_out);
  visit_rows(visit, "expert_rows", expert_rows, num_rows);
  if (shared) shared->for_each_tensor(with_prefix("shared", visit));
  visit_tensor(visit, "combined", combined);
}

void MoeLayer::pack_weights() {
  router_.pack_weights();
  bank_.pack_weights();
  if (shared_) shared_->pack_weights();
  if (latent_) latent_->pack_weights();
}

void MoeLayer::forward(const TensorView& x, const TensorView& y, Saved& saved, Derived& derived,
                       Scratch& scratch, RowCapacity& capacity, const Pass& pass) const {
  decide(x, saved, scratch, capacity, pass);
  TensorView shared_y;
  run_experts(sent_tokens(x, scratch), saved, derived, scratch, pass, [&](const Pass& meanwhile) {
    shared_y = shared_->forward(x, *derived.shared, *scratch.shared, meanwhile);
  });
  combine(y, saved, derived, scratch, pass);
  const Profile::Scope scope(device_.profile(), Part::combine);
  if (latent_) latent_->go_up(used_tokens(derived.combined, saved.route), y);
  if (shared_) kernels::add(y, shared_y, y);
}

void MoeLayer::rebuild(const TensorView& x, const Saved& saved, Derived& derived, Scratch& scratch,
                       const Pass& pass) const {
  run_experts(sent_tokens(x, scratch), saved, derived, scratch, pass, [&](const Pass& meanwhile) {
    shared_->rebuild(x, *derived.shared, *scratch.shared, meanwhile);
  });
  if (latent_) combine({}, saved, derived, scratch, pass);
}

TensorView MoeLayer::sent_tokens(const TensorView& x, const Scratch& scratch) const {
  if (!latent_) return x;
  const Profile::Scope scope(device_.profile(), Part::experts);
  const TensorView inner = scratch.latent->slice_rows(0, x.rows());
  latent_->go_down(x, inner);
  return inner;
}

void MoeLayer::combine(const TensorView& y, const Saved& saved, const Derived& derived,
                       const Scratch& scratch, const Pass& pass) const {
  const Profile::Scope scope(device_.profile(), Part::combine);
  const Route& route = saved.route;
  const TensorView sums = latent_ ? used_tokens(derived.combined, route) : y;
  if (dispatcher_.sums_returns())
    return dispatcher_.summed_return().sum(used_rows(derived.expert_rows, route),
                                           TokenReturn::Weights::of_choices, route,
                                           *scratch.dispatch.back, sums);
  kernels::combine_rows(returned_rows(saved, derived, pass), place_of_slot(saved, scratch, pass),
                        used_tokens(saved.gate.weights, route), sums);
}

void MoeLayer::decide(const TensorView& x, Saved& saved, Scratch& scratch, RowCapacity& capacity,
                      const Pass& pass) const {
  {
    const Profile::Scope scope(device_.profile(), Part::router);
    router_.forward(x, saved.gate, scratch.router, pass);
    router_.add_losses(saved.gate, x.rows(), pass, scratch.losses);
  }
  const Profile::Scope scope(device_.profile(), Part::dispatch);
  const TensorView token_numbers =
      pass.token_numbers.empty() ? TensorView{} : pass.token_numbers.slice_rows(0, x.rows());
  dispatcher_.route(
      {.indices = saved.gate.indices->slice_rows(0, x.rows()),
       .token_numbers = token_numbers,
       .by_unit = pass.training,
       .padded_rows = padded_rows(x.rows(), pass),
       .sequence_ids =
           dispatcher_.placement().has_replicas() ? sequence_ids_of(pass, x.rows()) : TensorView{},
       .sequences_of_share = sequences_of_share(pass)},
      saved.route, scratch.dispatch, capacity);
  if (dispatcher_.sums_returns())
    dispatcher_.summed_return().send_weights(used_tokens(saved.gate.weights, saved.route),
                                             saved.route, *scratch.dispatch.back);
}

// As many as a unit of exact sums has, whose terms one replica adds up.
std::int64_t MoeLayer::sequences_of_share(const Pass& pass) const {
  const std::int64_t length = std::max<std::int64_t>(1, pass.sequence_length);
  return std::max<std::int64_t>(1, unit_rows_ / length);
}

// Evaluation drops nothing, so that experts have no capacity there.
std::int64_t MoeLayer::padded_rows(std::int64_t num_tokens, const Pass& pass) const {
  if (!pass.training) return 0;
  return config_.padded_rows(num_tokens / pass.sequence_length, pass.sequence_length);
}

TensorView MoeLayer::returned_rows(const Saved& saved, const Derived& derived,
                                   const Pass& pass) const {
  return drops(pass) ? used_slots(derived.expert_out, saved.route)
                     : sent_rows(derived.expert_out, saved.route);
}

TensorView MoeLayer::place_of_slot(const Saved& saved, const Scratch& scratch,
                                   const Pass& pass) const {
  return used_tokens(drops(pass) ? scratch.slot_numbers : saved.route.row_of_slot, saved.route);
}

void MoeLayer::drop(const TensorView& by_slot, const Pass& pass) const {
  const kernels::DropoutSite site{.key = dropout_key_,
                                  .step = pass.step,
                                  .sequence_length = pass.sequence_length,
                                  .positions = pass.positions,
                                  .copies = static_cast<int>(config_.top_k)};
  kernels::dropout(by_slot, static_cast<float>(config_.dropout), site, pass.sequence_ids);
}

void MoeLayer::backward(const TensorView& dy, const TensorView& x, const TensorView& dx,
                        const Saved& saved, const Derived& derived, Scratch& scratch,
                        const Pass& pass) const {
  Profile& profile = device_.profile();
  const Route& route = saved.route;
  TensorView shared_dx;
  const RunShared run_shared = [&](const Pass& meanwhile) {
    shared_dx = shared_->backward(dy, x, *derived.shared, *scratch.shared, meanwhile);
  };
  const TensorView inner = latent_ ? used_tokens(scratch.latent, route) : TensorView{};
  const TensorView dy_sums = latent_ ? inner : dy, dx_sent = latent_ ? inner : dx;
  if (latent_) {
    const Profile::Scope scope(profile, Part::combine);
    latent_->go_up_backward(dy, used_tokens(derived.combined, route), inner, pass);
  }
  if (dispatcher_.sums_returns()) {
    backward_summed(dy_sums, dx_sent, saved, derived, scratch, pass, run_shared);
  } else {
    combine_backward(dy_sums, saved, derived, scratch, pass);
    const TensorView dx_slots = run_experts_backward(x, saved, derived, scratch, pass, run_shared);
    const Profile::Scope scope(profile, Part::dispatch);
    kernels::sum_rows(dx_slots, used_tokens(route.row_of_slot, route), dx_sent);
  }
  {
    const Profile::Scope scope(profile, Part::dispatch);
    if (latent_) latent_->go_down_backward(dx_sent, x, dx, pass);
    if (shared_) kernels::add(dx, shared_dx, dx);
  }
  const Profile::Scope scope(profile, Part::router);
  router_.backward(x, saved.gate, scratch.router, dx, pass);
}

void MoeLayer::combine_backward(const TensorView& dy, const Saved& saved, const Derived& derived,
                                Scratch& scratch, const Pass& pass) const {
  const Profile::Scope scope(device_.profile(), Part::combine);
  const Route& route = saved.route;
  const TensorView expert_out = returned_rows(saved, derived, pass);
  const TensorView row_of_slot = used_tokens(route.row_of_slot, route);
  const TensorView weights = used_tokens(saved.gate.weights, route);
  const TensorView dweights = used_tokens(scratch.router.dweights, route);
  const TensorView slots = sent_rows(scratch.dispatch.slots, route);
  if (!drops(pass)) {
    kernels::combine_rows_backward(dy, expert_out, row_of_slot, weights, slots, dweights);
    return;
  }
  const TensorView by_slot = used_slots(scratch.by_slot, route);
  kernels::combine_rows_backward(dy, expert_out, place_of_slot(saved, scratch, pass), weights,
                                 by_slot, dweights);
  drop(by_slot, pass);
  kernels::scatter_rows(by_slot, row_of_slot.flat(), slots);
}

}  // namespace switchyard
