// The part of the layer between sending tokens and their sums, where what experts return is added
// up on its way back (experts/dispatch/token_return.hpp): all rows at once.
#include "experts/moe_layer.hpp"
#include "experts/route_rows.hpp"

namespace switchyard {

void MoeLayer::run_experts_summed(const TensorView& x, const Saved& saved, Derived& derived,
                                  Scratch& scratch, const Pass& pass,
                                  const RunShared& run_shared) const {
  Profile& profile = device_.profile();
  const Route& route = saved.route;
  const TensorView x_rows = used_rows(derived.x_rows, route);
  {
    const Profile::Scope scope(profile, Part::dispatch);
    MovingRows going = dispatcher_.start_dispatch(x, route, scratch.dispatch, x_rows);
    if (shared_) {
      const Profile::Scope shared(profile, Part::experts);
      run_shared(beside_exchange(pass));
    }
    going.finish();
  }
  const Profile::Scope scope(profile, Part::experts);
  bank_.forward(x_rows, route.offsets, used_rows(derived.gate_up, route),
                used_rows(derived.expert_rows, route), scratch.bank, pass);
}

void MoeLayer::backward_summed(const TensorView& dy, const TensorView& dx, const Saved& saved,
                               const Derived& derived, Scratch& scratch, const Pass& pass,
                               const RunShared& run_shared) const {
  Profile& profile = device_.profile();
  const Route& route = saved.route;
  const TokenReturn& back = dispatcher_.summed_return();
  const ReturnScratch& buffers = *scratch.dispatch.back;
  const TensorView dy_rows = used_rows(scratch.dispatch.rows, route);
  const TensorView dx_rows = used_rows(scratch.dispatch.arrival, route);
  {
    const Profile::Scope scope(profile, Part::combine);
    const TensorView dsums = dispatcher_.deliver(dy, route, scratch.dispatch, [&] {
      if (!shared_) return;
      const Profile::Scope shared(profile, Part::experts);
      run_shared(beside_exchange(pass));
    });
    back.backward(dsums, used_rows(derived.expert_rows, route), route, buffers, dy_rows,
                  used_tokens(scratch.router.dweights, route));
  }
  {
    const Profile::Scope scope(profile, Part::experts);
    bank_.backward(dy_rows, used_rows(derived.x_rows, route), route.offsets, route.unit_offsets,
                   used_rows(derived.gate_up, route), dx_rows, scratch.bank, pass);
  }
  const Profile::Scope scope(profile, Part::dispatch);
  back.sum(dx_rows, TokenReturn::Weights::one, route, buffers, dx);
}

}  // namespace switchyard
