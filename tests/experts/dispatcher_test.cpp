// Dispatch and its way back as linear maps: inverse and adjoint to each other, for every expert
// degree, uneven numbers of tokens and forced routings. Rows carry numbers that name their slot.
#include "experts/dispatch/dispatcher.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "kernels/routing/permute.hpp"
#include "parallel/mesh.hpp"
#include "tests/experts/numbers.hpp"
#include "tests/support/mpi_test.hpp"
#include "tests/support/tested_device.hpp"

namespace switchyard::test {
namespace {

constexpr std::int64_t hidden = 6;
constexpr std::int64_t max_tokens = 13;

enum class Choice { spread, all_to_first, none_to_last, some_dropped };

// Expert of choice j of the t-th token of a rank; different for the choices of a token. Where some
// are dropped (-1), rank 1 drops all.
std::int32_t chosen(Choice choice, std::int64_t num_experts, int rank, std::int64_t t,
                    std::int64_t j) {
  switch (choice) {
    case Choice::some_dropped:
      if (rank == 1 || (t * 5 + j) % 3 == 0) return -1;
      return chosen(Choice::spread, num_experts, rank, t, j);
    case Choice::spread:
      return static_cast<std::int32_t>((t * 7 + rank * 3 + j) % num_experts);
    case Choice::all_to_first:
      return static_cast<std::int32_t>(j);
    case Choice::none_to_last:
      break;
  }
  const std::int64_t others = std::max<std::int64_t>(num_experts - 1, 1);
  return static_cast<std::int32_t>((t + j) % others);
}

// Where experts live: in blocks, or dealt to the ranks in turn from the last one on.
enum class Places { in_order, dealt };

Placement placement_of(Places places, std::int64_t num_experts, int num_ranks) {
  if (places == Places::in_order) return Placement::contiguous(num_experts, num_ranks);
  std::vector<std::vector<std::int64_t>> experts_of_rank(static_cast<std::size_t>(num_ranks));
  for (std::int64_t expert = num_experts; expert-- > 0;)
    experts_of_rank[static_cast<std::size_t>(expert % num_ranks)].push_back(expert);
  return {num_experts, experts_of_rank};
}

double inner(const TensorView& a, const TensorView& b) {
  double sum = 0;
  for (std::int64_t i = 0; i < a.rows(); ++i)
    for (std::int64_t h = 0; h < a.cols(); ++h) sum += read(a, i, h) * read(b, i, h);
  return sum;
}

double over_ranks(Group& group, double value) {
  group.all_reduce_values({&value, 1}, ReduceOp::sum);
  return value;
}

// A dispatcher with a route of its own and buffers for the two sides.
struct Exchange {
  Exchange(Group& group, const Placement& placement, std::int64_t top_k, Choice choice, bool uneven,
           ContextSharing sharing)
      : config(make_config(placement.num_experts(), top_k)),
        dispatcher(group, placement, top_k, sharing),
        num_tokens(uneven ? (group.rank() * 5 + 4) % max_tokens : max_tokens),
        num_slots(num_tokens * top_k),
        device(make_tested_device()),
        scratch(*device, placement, config, hidden, DType::f32, max_tokens, capacity, sharing),
        route(dispatcher.make_route(*device, max_tokens)),
        indices(*device, Purpose::workspace, DType::i32, {num_tokens, top_k}),
        numbers(*device, Purpose::workspace, DType::i32, {num_tokens}) {
    if (!route.arrival_of_row.empty()) capacity.add(route.arrival_of_row);
    for (std::int64_t t = 0; t < num_tokens; ++t)
      for (std::int64_t j = 0; j < top_k; ++j)
        indices->row<std::int32_t>(t)[j] = chosen(choice, config.num_experts, group.rank(), t, j);
    for (std::int64_t t = 0; t < num_tokens; ++t)
      numbers->as<std::int32_t>()[t] = number_of(sharing, group.rank(), t);
    dispatcher.route({.indices = indices,
                      .token_numbers = sharing.num_ranks > 1 ? numbers.view() : TensorView{}},
                     route, scratch, capacity);
  }

  // The number of a token among those of the ranks that share sequences: each has every n-th.
  static std::int32_t number_of(ContextSharing sharing, int rank, std::int64_t t) {
    return static_cast<std::int32_t>(t * sharing.num_ranks +
                                     (sharing.first_rank + rank) % sharing.num_ranks);
  }

  static ExpertsConfig make_config(std::int64_t num_experts, std::int64_t top_k) {
    ExpertsConfig config;
    config.num_experts = num_experts;
    config.top_k = top_k;
    return config;
  }

  Tensor random(const std::string& name, std::int64_t rows) const {
    Tensor tensor(*device, Purpose::workspace, DType::f32, {rows, hidden});
    const std::string mine = name + std::to_string(world().rank());
    write(tensor, random_doubles(mine, static_cast<std::size_t>(rows * hidden), 1.0).data());
    return tensor;
  }
  Tensor zeros(std::int64_t rows) const {
    return Tensor(*device, Purpose::workspace, DType::f32, {rows, hidden});
  }
  TensorView row_of_slot() const { return route.row_of_slot->slice_rows(0, num_tokens); }

  ExpertsConfig config;
  Dispatcher dispatcher;
  std::int64_t num_tokens;
  std::int64_t num_slots;
  std::unique_ptr<Device> device;
  RowCapacity capacity;
  DispatchScratch scratch;
  Route route;
  Tensor indices;
  Tensor numbers;
};

void expect_all_rows_counted(Exchange& exchange, Group& group) {
  const Route& route = exchange.route;
  const auto indices = exchange.indices->span<std::int32_t>();
  const auto counts = exchange.scratch.counts->span<std::int32_t>();
  const std::int64_t num_in_use = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
  EXPECT_EQ(num_in_use, exchange.num_slots - std::count(indices.begin(), indices.end(), -1));
  const Placement& placement = exchange.dispatcher.placement();
  for (std::int64_t place = 0; place < placement.num_places(); ++place)
    EXPECT_EQ(counts[static_cast<std::size_t>(place)],
              std::count(indices.begin(), indices.end(), placement.expert_at(place)));
  EXPECT_EQ(exchange.capacity.rows(), route.num_rows);
  // The host knows what travels, and of one rank what may be.
  EXPECT_EQ(route.num_sent, group.size() > 1 ? num_in_use : exchange.num_slots);
  EXPECT_EQ(over_ranks(group, static_cast<double>(route.num_rows)),
            over_ranks(group, static_cast<double>(route.num_sent)));
  EXPECT_EQ(over_ranks(group, route.offsets->span<std::int32_t>().back()),
            over_ranks(group, static_cast<double>(num_in_use)));
}

// <to_experts(u), v> = <u, from_experts(v)>, and from_experts(to_experts(u)) = u bit for bit.
void expect_adjoint_exchanges(Exchange& exchange, Group& group) {
  const Route& route = exchange.route;
  const Tensor u = exchange.random("u", route.num_sent);
  const Tensor v = exchange.random("v", route.num_rows);
  const Tensor rows = exchange.zeros(route.num_rows), spare = exchange.zeros(route.num_rows);
  const Tensor back = exchange.zeros(route.num_sent);
  const TensorView moved = exchange.dispatcher.start_to_experts(u, route, spare, rows).finish();
  const double expert_side = over_ranks(group, inner(moved, v));
  const TensorView returned =
      exchange.dispatcher.start_from_experts(v, route, spare, back).finish();
  const double token_side = over_ranks(group, inner(u, returned));
  EXPECT_NEAR(expert_side, token_side, 1e-12 * (1 + std::abs(token_side)));
  const TensorView again =
      exchange.dispatcher.start_from_experts(moved, route, spare, back).finish();
  EXPECT_EQ(to_doubles(again), to_doubles(u));
}

// <dispatch(x), v> = <x, sum_rows(from_experts(v))>: fp32 sums of k terms.
void expect_adjoint_dispatch(Exchange& exchange, Group& group) {
  const Route& route = exchange.route;
  const Tensor x = exchange.random("x", exchange.num_tokens);
  const Tensor v = exchange.random("v", route.num_rows);
  const Tensor x_rows = exchange.zeros(route.num_rows), spare = exchange.zeros(route.num_rows);
  const Tensor slots = exchange.zeros(route.num_sent), dx = exchange.zeros(exchange.num_tokens);
  exchange.dispatcher.start_dispatch(x, route, exchange.scratch, x_rows).finish();
  const double expert_side = over_ranks(group, inner(x_rows, v));
  const TensorView returned =
      exchange.dispatcher.start_from_experts(v, route, spare, slots).finish();
  kernels::sum_rows(returned, exchange.row_of_slot(), dx);
  const double token_side = over_ranks(group, inner(x, dx));
  EXPECT_NEAR(expert_side, token_side, 1e-5);
}

// <combine(y), dout> = <y, combine_backward(dout)> with y on the expert side.
void expect_adjoint_combine(Exchange& exchange, Group& group) {
  const Route& route = exchange.route;
  const std::int64_t top_k = exchange.config.top_k;
  const Tensor y = exchange.random("y", route.num_rows);
  const Tensor dout = exchange.random("dout", exchange.num_tokens);
  const Tensor rows = exchange.zeros(route.num_rows), spare = exchange.zeros(route.num_rows);
  const Tensor slots = exchange.zeros(route.num_sent);
  const Tensor dslots = exchange.zeros(route.num_sent);
  const Tensor out = exchange.zeros(exchange.num_tokens);
  Tensor weights(*exchange.device, Purpose::workspace, DType::f32, {exchange.num_tokens, top_k});
  Tensor dweights(*exchange.device, Purpose::workspace, DType::f32, {exchange.num_tokens, top_k});
  write(weights, random_doubles("weights", static_cast<std::size_t>(exchange.num_slots), 1).data());
  const TensorView returned =
      exchange.dispatcher.start_from_experts(y, route, spare, slots).finish();
  kernels::combine_rows(returned, exchange.row_of_slot(), weights, out);
  const double token_side = over_ranks(group, inner(out, dout));
  kernels::combine_rows_backward(dout, returned, exchange.row_of_slot(), weights, dslots, dweights);
  const TensorView dy = exchange.dispatcher.start_to_experts(dslots, route, spare, rows).finish();
  const double expert_side = over_ranks(group, inner(y, dy));
  EXPECT_NEAR(expert_side, token_side, 1e-5);
}

// Each row tells its rank, token and choice; an expert sees them ascending and its own only.
void expect_identity_order(Exchange& exchange, Choice choice, ContextSharing sharing,
                           Group& group) {
  const Route& route = exchange.route;
  const Tensor slots = exchange.zeros(route.num_sent);
  const Tensor rows = exchange.zeros(route.num_rows), spare = exchange.zeros(route.num_rows);
  for (std::int64_t t = 0; t < exchange.num_tokens; ++t)
    for (std::int64_t j = 0; j < exchange.config.top_k; ++j) {
      if (exchange.row_of_slot().row<std::int32_t>(t)[j] < 0) continue;  // dropped
      float* row = slots->row<float>(exchange.row_of_slot().row<std::int32_t>(t)[j]);
      row[0] = static_cast<float>(group.rank());
      row[1] = static_cast<float>(t);
      row[2] = static_cast<float>(j);
    }
  const TensorView moved = exchange.dispatcher.start_to_experts(slots, route, spare, rows).finish();
  const auto experts = exchange.dispatcher.placement().experts_of(group.rank());
  const auto offsets = route.offsets->span<std::int32_t>();
  for (std::int64_t e = 0; e < exchange.dispatcher.num_local_places(); ++e) {
    std::int64_t last = -1;
    const auto at = static_cast<std::size_t>(e);
    for (std::int64_t r = offsets[at]; r < offsets[at + 1]; ++r) {
      const auto source = static_cast<int>(read(moved, r, 0));
      const auto t = static_cast<std::int64_t>(read(moved, r, 1));
      const auto j = static_cast<std::int64_t>(read(moved, r, 2));
      EXPECT_EQ(chosen(choice, exchange.config.num_experts, source, t, j), experts[at]);
      const std::int64_t sequences = (sharing.first_rank + source) / sharing.num_ranks;
      const std::int64_t identity =
          sequences * max_tokens * sharing.num_ranks + Exchange::number_of(sharing, source, t);
      EXPECT_GT(identity, last);
      last = identity;
    }
  }
}

// Rows of whole sequences arrive where their experts take them: nobody puts them there afterwards.
void expect_no_detour(Exchange& exchange, ContextSharing sharing) {
  if (sharing.num_ranks > 1) return;
  const Route& route = exchange.route;
  const Tensor u = exchange.random("u", route.num_sent);
  const Tensor rows = exchange.zeros(route.num_rows), back = exchange.zeros(route.num_sent);
  const TensorView nothing;
  const TensorView moved = exchange.dispatcher.start_to_experts(u, route, nothing, rows).finish();
  const TensorView returned =
      exchange.dispatcher.start_from_experts(moved, route, nothing, back).finish();
  EXPECT_EQ(to_doubles(returned), to_doubles(u));
}

// In pieces that are under way together, into buffers of NaN: the bits of the whole. There are none
// where nothing travels.
void expect_pieces_as_the_whole(Exchange& exchange) {
  if (!exchange.dispatcher.moves_rows()) return;
  const Route& route = exchange.route;
  const auto poisoned = [&](std::int64_t rows) {
    Tensor tensor = exchange.zeros(rows);
    std::ranges::fill(tensor->span<float>(), std::numeric_limits<float>::quiet_NaN());
    return tensor;
  };
  const Tensor x = exchange.random("x", exchange.num_tokens);
  const Tensor u = exchange.random("u", route.num_sent), v = exchange.random("v", route.num_rows);
  const Tensor x_rows = exchange.zeros(route.num_rows), rows = exchange.zeros(route.num_rows);
  const Tensor spare = exchange.zeros(route.num_rows), slots = exchange.zeros(route.num_sent);
  const Dispatcher& dispatcher = exchange.dispatcher;
  dispatcher.start_dispatch(x, route, exchange.scratch, x_rows).finish();
  const TensorView whole = dispatcher.start_to_experts(u, route, spare, rows).finish();
  const TensorView back = dispatcher.start_from_experts(v, route, spare, slots).finish();
  for (const int count : {2, 3}) {
    const Tensor x_parts = poisoned(route.num_rows), parts = poisoned(route.num_rows);
    const Tensor room = poisoned(route.num_rows), slot_parts = poisoned(route.num_sent);
    std::vector<MovingRows> moving;
    for (int i = count; i-- > 0;)
      moving.push_back(
          dispatcher.start_dispatch(x, route, exchange.scratch, x_parts, Piece{i, count}));
    for (MovingRows& each : moving) each.finish();
    EXPECT_EQ(to_doubles(x_parts), to_doubles(x_rows)) << count << " pieces";
    std::vector<double> taken;
    for (int i = 0; i < count; ++i) {
      const Piece piece{i, count};
      const TensorView part = dispatcher.start_to_experts(u, route, room, parts, piece).finish();
      const std::vector<double> values = to_doubles(part);
      taken.insert(taken.end(), values.begin(), values.end());
    }
    EXPECT_EQ(taken, to_doubles(whole)) << count << " pieces";
    moving.clear();
    TensorView returned;
    for (int i = 0; i < count; ++i)
      moving.push_back(dispatcher.start_from_experts(v, route, room, slot_parts, Piece{i, count}));
    for (MovingRows& each : moving) returned = each.finish();
    EXPECT_EQ(to_doubles(returned), to_doubles(back)) << count << " pieces";
  }
}

void expect_dispatch_and_back(Exchange& exchange, Choice choice, ContextSharing sharing,
                              Group& group) {
  expect_all_rows_counted(exchange, group);
  expect_adjoint_exchanges(exchange, group);
  expect_adjoint_dispatch(exchange, group);
  expect_adjoint_combine(exchange, group);
  expect_identity_order(exchange, choice, sharing, group);
  expect_no_detour(exchange, sharing);
  expect_pieces_as_the_whole(exchange);
}

class DispatcherTest : public ::testing::TestWithParam<std::int64_t> {};

TEST_P(DispatcherTest, moves_rows_there_and_back) {
  const std::int64_t num_experts = GetParam();
  for (std::int64_t degree = 1; degree <= world().size(); ++degree) {
    if (world().size() % degree != 0) continue;
    const Mesh mesh(world(), Mesh::resolved({.expert = degree}, world().size()));
    Group& group = mesh.group(Axis::expert);
    for (std::int64_t top_k = 1; top_k <= std::min<std::int64_t>(3, num_experts); ++top_k)
      for (const Choice choice :
           {Choice::spread, Choice::all_to_first, Choice::none_to_last, Choice::some_dropped})
        for (const bool uneven : {false, true}) {
          if (choice == Choice::none_to_last && top_k >= num_experts) continue;
          SCOPED_TRACE(::testing::Message()
                       << "degree " << degree << ", top " << top_k << ", choice "
                       << static_cast<int>(choice) << ", uneven " << uneven);
          for (int context = 1; context <= world().size(); ++context) {
            if (world().size() % context != 0) continue;
            SCOPED_TRACE(::testing::Message() << "context " << context);
            const ContextSharing sharing{context, world().rank() - group.rank()};
            for (const Places places : {Places::in_order, Places::dealt}) {
              SCOPED_TRACE(places == Places::dealt ? "experts dealt" : "experts in order");
              const Placement placement = placement_of(places, num_experts, group.size());
              Exchange exchange(group, placement, top_k, choice, uneven, sharing);
              expect_dispatch_and_back(exchange, choice, sharing, group);
            }
          }
        }
  }
}

INSTANTIATE_TEST_SUITE_P(experts, DispatcherTest, ::testing::Values(1, 3, 4, 5, 8));

}  // namespace
}  // namespace switchyard::test
