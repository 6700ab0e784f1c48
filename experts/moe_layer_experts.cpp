// The part of the layer between gathering rows and adding up what returns: their way to the
// experts, through them and back, with what computes beside it.
#include <algorithm>
#include <vector>

#include "experts/moe_layer.hpp"
#include "experts/route_rows.hpp"
#include "kernels/host_copy.hpp"
#include "kernels/routing/permute.hpp"

namespace switchyard {

namespace {

// Of a tensor that may be none.
TensorView piece_of(const TensorView& buffer, const Route& route, Piece piece) {
  return buffer.device == nullptr ? buffer : rows_of(buffer, route, piece);
}

void finish_all(std::vector<MovingRows>& moving) {
  for (MovingRows& each : moving) each.finish();
}

}  // namespace

Pass MoeLayer::beside_exchange(const Pass& pass) const {
  Pass meanwhile = pass;
  meanwhile.exchanging = &dispatcher_.group();
  return meanwhile;
}

int MoeLayer::num_pieces(const Route& route) const {
  if (route.is_cut()) return route.cuts.num_parts();
  if (!dispatcher_.moves_rows()) return 1;
  const std::int64_t most = std::max<std::int64_t>(1, dispatcher_.placement().most_places());
  return static_cast<int>(std::min(config_.dispatch.chunks, most));
}

BankRows MoeLayer::bank_rows(const Route& route, Piece piece, Scratch& scratch,
                             bool with_units) const {
  const bool has_units = with_units && !route.unit_offsets.empty();
  if (!route.is_cut() && piece.count == 1)
    return {route.offsets, has_units ? route.unit_offsets.view() : TensorView{}, 0,
            bank_.num_local_experts()};
  const ExpertRange experts = experts_of(route, piece);
  const std::int64_t begin = first_row_of(route, piece), end = end_row_of(route, piece);
  const auto write = [&](const TensorView& to, std::int64_t first, const auto& offsets) {
    kernels::write_from_host<std::int32_t>(to, [&](std::span<std::int32_t> written) {
      for (std::size_t i = 0; i < written.size(); ++i) {
        const std::int64_t offset = offsets[static_cast<std::size_t>(first) + i];
        written[i] = static_cast<std::int32_t>(std::clamp(offset, begin, end) - begin);
      }
    });
  };
  BankRows rows{scratch.piece_offsets->slice_rows(0, experts.count() + 1),
                {},
                experts.begin,
                experts.count()};
  write(rows.offsets, experts.begin, route.expert_offsets);
  if (!has_units || experts.count() == 0) return rows;
  const std::int64_t units = (route.unit_offsets->numel() - 1) / bank_.num_local_experts();
  rows.unit_offsets = scratch.piece_unit_offsets->slice_rows(0, experts.count() * units + 1);
  if (device_.is_plan()) return rows;
  const kernels::HostContents<std::int32_t> offsets(route.unit_offsets);
  write(rows.unit_offsets, experts.begin * units, offsets.span());
  return rows;
}

void MoeLayer::run_experts(const TensorView& x, const Saved& saved, Derived& derived,
                           Scratch& scratch, const Pass& pass, const RunShared& run_shared) const {
  if (dispatcher_.sums_returns())
    return run_experts_summed(x, saved, derived, scratch, pass, run_shared);
  Profile& profile = device_.profile();
  const Route& route = saved.route;
  const int count = num_pieces(route);
  const bool overlaps = !route.is_cut();
  const Pass meanwhile = beside_exchange(pass);
  const TensorView x_rows = used_rows(derived.x_rows, route);
  const TensorView gate_up = overlaps ? used_rows(derived.gate_up, route) : TensorView{};
  const TensorView arrival = used_rows(scratch.dispatch.arrival, route);
  const TensorView expert_out = returned_rows(saved, derived, pass);
  const TensorView returned = drops(pass) ? sent_rows(scratch.dispatch.slots, route) : expert_out;
  const TensorView y_rows =
      dispatcher_.moves_rows() ? used_rows(scratch.dispatch.rows, route) : returned;
  const auto start = [&](int index) {
    const Profile::Scope scope(profile, Part::dispatch);
    return dispatcher_.start_dispatch(x, route, scratch.dispatch, x_rows, {index, count});
  };
  MovingRows going = start(0);
  if (shared_) {
    const Profile::Scope scope(profile, Part::experts);
    run_shared(meanwhile);
  }
  std::vector<MovingRows> returning;
  for (int i = 0; i < count; ++i) {
    const Piece piece{i, count};
    {
      const Profile::Scope scope(profile, Part::dispatch);
      going.finish();
    }
    if (overlaps && i + 1 < count) going = start(i + 1);
    {
      const Profile::Scope scope(profile, Part::experts);
      bank_.forward(bank_rows(route, piece, scratch, false), rows_of(x_rows, route, piece),
                    piece_of(gate_up, route, piece), rows_of(y_rows, route, piece), scratch.bank,
                    meanwhile);
    }
    const Profile::Scope scope(profile, Part::combine);
    returning.push_back(dispatcher_.start_from_experts(y_rows, route, arrival, returned, piece,
                                                       scratch.dispatch.wire_back()));
    if (overlaps) continue;
    returning.back().finish();
    returning.clear();
    if (i + 1 < count) going = start(i + 1);
  }
  const Profile::Scope scope(profile, Part::combine);
  finish_all(returning);
  if (!drops(pass)) return;
  kernels::gather_rows(returned, used_tokens(route.row_of_slot, route).flat(), expert_out);
  drop(expert_out, pass);
}

TensorView MoeLayer::run_experts_backward(const TensorView& x, const Saved& saved,
                                          const Derived& derived, Scratch& scratch,
                                          const Pass& pass, const RunShared& run_shared) const {
  const Pass meanwhile = beside_exchange(pass);
  if (saved.route.is_cut()) return backward_in_parts(x, saved, scratch, meanwhile, run_shared);
  if (num_pieces(saved.route) > 1)
    return backward_in_chunks(saved, derived, scratch, meanwhile, run_shared);
  return backward_at_once(saved, derived, scratch, meanwhile, run_shared);
}

TensorView MoeLayer::backward_at_once(const Saved& saved, const Derived& derived, Scratch& scratch,
                                      const Pass& pass, const RunShared& run_shared) const {
  Profile& profile = device_.profile();
  const Route& route = saved.route;
  const TensorView slots = sent_rows(scratch.dispatch.slots, route);
  const TensorView rows = used_rows(scratch.dispatch.rows, route);
  const TensorView arrival = used_rows(scratch.dispatch.arrival, route);
  TensorView dy_rows;
  {
    const Profile::Scope scope(profile, Part::combine);
    MovingRows going =
        dispatcher_.start_to_experts(slots, route, arrival, rows, {}, scratch.dispatch.wire_back());
    if (shared_) {
      const Profile::Scope shared(profile, Part::experts);
      run_shared(pass);
    }
    dy_rows = going.finish();
  }
  const TensorView dx_rows = arrival;
  {
    const Profile::Scope scope(profile, Part::experts);
    bank_.backward(dy_rows, used_rows(derived.x_rows, route), route.offsets, route.unit_offsets,
                   used_rows(derived.gate_up, route), dx_rows, scratch.bank, pass);
  }
  const Profile::Scope scope(profile, Part::dispatch);
  return dispatcher_
      .start_from_experts(dx_rows, route, rows, slots, {}, scratch.dispatch.wire_back())
      .finish();
}

// Rows of dy stay where they are until the gradients of weights are taken, so what goes back has
// room of its own.
TensorView MoeLayer::backward_in_chunks(const Saved& saved, const Derived& derived,
                                        Scratch& scratch, const Pass& pass,
                                        const RunShared& run_shared) const {
  Profile& profile = device_.profile();
  const Route& route = saved.route;
  const int count = num_pieces(route);
  const TensorView slots = sent_rows(scratch.dispatch.slots, route);
  const TensorView dy_rows = used_rows(scratch.dispatch.rows, route);
  const TensorView dx_rows = used_rows(scratch.piece_rows, route);
  const TensorView arrival = used_rows(scratch.dispatch.arrival, route);
  const TensorView x_rows = used_rows(derived.x_rows, route);
  const TensorView gate_up = used_rows(derived.gate_up, route);
  const auto start = [&](int index) {
    const Profile::Scope scope(profile, Part::combine);
    return dispatcher_.start_to_experts(slots, route, arrival, dy_rows, {index, count},
                                        scratch.dispatch.wire_back());
  };
  MovingRows going = start(0);
  if (shared_) {
    const Profile::Scope scope(profile, Part::experts);
    run_shared(pass);
  }
  std::vector<MovingRows> returning;
  for (int i = 0; i < count; ++i) {
    const Piece piece{i, count};
    {
      const Profile::Scope scope(profile, Part::combine);
      going.finish();
    }
    if (i + 1 < count) going = start(i + 1);
    {
      const Profile::Scope scope(profile, Part::experts);
      bank_.backward_input(bank_rows(route, piece, scratch, false), first_row_of(route, piece),
                           rows_of(dy_rows, route, piece), rows_of(x_rows, route, piece),
                           piece_of(gate_up, route, piece), rows_of(dx_rows, route, piece),
                           scratch.bank, pass);
    }
    const Profile::Scope scope(profile, Part::dispatch);
    returning.push_back(dispatcher_.start_from_experts(dx_rows, route, arrival, slots, piece,
                                                       scratch.dispatch.wire_back()));
  }
  {
    const Profile::Scope scope(profile, Part::experts);
    bank_.backward_weights(bank_rows(route, {}, scratch, true), dy_rows, x_rows, scratch.bank,
                           pass);
    bank_.report_gradients(pass);
  }
  const Profile::Scope scope(profile, Part::dispatch);
  finish_all(returning);
  return slots;
}

TensorView MoeLayer::backward_in_parts(const TensorView& x, const Saved& saved, Scratch& scratch,
                                       const Pass& pass, const RunShared& run_shared) const {
  Profile& profile = device_.profile();
  const Route& route = saved.route;
  const TensorView slots = sent_rows(scratch.dispatch.slots, route);
  const TensorView dy_rows = used_rows(scratch.dispatch.rows, route);
  const TensorView x_rows = used_rows(scratch.piece_rows, route);
  const TensorView arrival = used_rows(scratch.dispatch.arrival, route);
  const TensorView sent = sent_tokens(x, scratch);
  for (int i = 0; i < route.cuts.num_parts(); ++i) {
    const Piece piece{i, route.cuts.num_parts()};
    {
      const Profile::Scope scope(profile, Part::dispatch);
      MovingRows going =
          dispatcher_.start_dispatch(sent, route, scratch.dispatch, x_rows, piece, true);
      if (shared_ && i == 0) {
        const Profile::Scope shared(profile, Part::experts);
        run_shared(pass);
      }
      going.finish();
    }
    {
      const Profile::Scope scope(profile, Part::combine);
      dispatcher_
          .start_to_experts(slots, route, arrival, dy_rows, piece, scratch.dispatch.wire_back())
          .finish();
    }
    const TensorView dx_rows = arrival;
    {
      const Profile::Scope scope(profile, Part::experts);
      bank_.backward_part(bank_rows(route, piece, scratch, true), rows_of(dy_rows, route, piece),
                          rows_of(x_rows, route, piece), TensorView{},
                          rows_of(dx_rows, route, piece), scratch.bank, pass);
    }
    const Profile::Scope scope(profile, Part::dispatch);
    dispatcher_
        .start_from_experts(dx_rows, route, dy_rows, slots, piece, scratch.dispatch.wire_back())
        .finish();
  }
  bank_.report_gradients(pass);
  return slots;
}

}  // namespace switchyard
