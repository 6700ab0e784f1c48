#include "experts/dispatch/token_delivery.hpp"

#include <algorithm>
#include <numeric>

#include "kernels/host_copy.hpp"
#include "kernels/routing/permute.hpp"
#include "kernels/rows/wire_rows.hpp"

namespace switchyard {

namespace {

// A mask has a bit for each rank of a node, so many in a word; as many words as an expert group of
// num_ranks can need.
constexpr std::int64_t bits_of_word = 62;

std::int64_t num_words(int num_ranks) {
  return (num_ranks + bits_of_word - 1) / bits_of_word;
}

// Rank `index` of its node in a mask.
struct Bit {
  std::size_t word;
  std::int64_t value;
  explicit Bit(std::int64_t index)
      : word(static_cast<std::size_t>(index / bits_of_word)),
        value(std::int64_t{1} << index % bits_of_word) {}
};

TensorView first_rows(const Tensor& buffer, std::int64_t num_rows) {
  return buffer->slice_rows(0, num_rows);
}

TensorView as_column(const TensorView& vector) {
  return vector.reshape({vector.numel(), 1});
}

TensorView as_bytes(const TensorView& rows) {
  return rows.reinterpret(DType::u8, {rows.rows(), rows.cols() * size_of(rows.dtype)});
}

void write_numbers(const TensorView& to, std::span<const std::int32_t> numbers) {
  kernels::write_from_host<std::int32_t>(
      to, [&](std::span<std::int32_t> written) { std::ranges::copy(numbers, written.begin()); });
}

RowRanges empty_ranges(int num_ranks) {
  const auto size = static_cast<std::size_t>(num_ranks);
  return {std::vector<std::int64_t>(size, 0), std::vector<std::int64_t>(size, 0)};
}

// Runs one behind the other, of `count` rows each; returns where the last one ends.
std::int64_t place_in_order(RowRanges& ranges) {
  std::int64_t row = 0;
  for (std::size_t p = 0; p < ranges.count.size(); ++p) {
    ranges.first[p] = row;
    row += ranges.count[p];
  }
  return row;
}

// Of a plan, whose buffers have a given number of rows: takes rows away until they fit.
std::int64_t fit_to_plan(RowRanges& ranges, std::int64_t num_rows, const RowCapacity& capacity) {
  std::int64_t excess = capacity.is_planned() ? num_rows - capacity.rows() : 0;
  for (std::size_t p = 0; p < ranges.count.size() && excess > 0; ++p) {
    const std::int64_t taken = std::min(excess, ranges.count[p]);
    ranges.count[p] -= taken;
    excess -= taken;
  }
  return place_in_order(ranges);
}

RankRows by_rank(const RowRanges& ranges) {
  return {ranges.first, ranges.count};
}

}  // namespace

TokenDelivery::TokenDelivery(Group& group, const Placement& placement, const DispatchConfig& config,
                             std::int64_t top_k)
    : group_(group),
      placement_(placement),
      config_(config),
      top_k_(top_k),
      nodes_(group, config.ranks_per_node) {}

DeliveryScratch::DeliveryScratch(Device& device, const ExpertsConfig& config, int num_ranks,
                                 std::int64_t width, DType compute, std::int64_t num_tokens,
                                 std::int64_t most_tokens, std::int64_t most_rows,
                                 RowCapacity& capacity) {
  const auto fixed = [&](DType dtype, std::int64_t rows, std::int64_t cols) {
    return Tensor(device, Purpose::communication, dtype, {rows, cols});
  };
  const auto grow = [&](Tensor& tensor, DType dtype, std::int64_t rows, std::int64_t cols) {
    tensor = Tensor::growable(device, Purpose::communication, dtype, {rows, cols});
    capacity.add(tensor);
  };
  const std::int64_t all_tokens = most_tokens * num_ranks;
  const auto held = [&](std::int64_t rows) {
    return config.max_rows > 0 ? std::min(rows, config.max_rows) : rows;
  };
  const bool is_hierarchical = config.dispatch.kind == DispatchKind::hierarchical;
  const DType unpacked_type = compute;
  const std::int64_t unpacked_width = width;
  const bool is_packed = kernels::is_packed(config.dispatch.wire, compute);
  if (is_packed) {
    format = config.dispatch.wire;
    width = kernels::wire_row_bytes(format, compute, width) / size_of(DType::i32);
    compute = DType::i32;
    packed = fixed(compute, num_tokens, width);
    if (is_hierarchical)
      grow(unpacked, unpacked_type, held(most_rows), unpacked_width);
    else
      unpacked = fixed(unpacked_type, all_tokens, unpacked_width);
  }
  slot_numbers = fixed(DType::i32, num_tokens * config.top_k, 1);
  own_numbers = fixed(DType::i32, num_tokens, 1);
  grow(row_numbers, DType::i32, most_rows, 1);
  if (!is_hierarchical) {
    delivered = fixed(compute, all_tokens, width);
    return;
  }
  const std::int64_t most_nodes = std::min<std::int64_t>(config.top_k, num_ranks);
  leaving = fixed(compute, num_tokens * most_nodes, width);
  leaving_masks = fixed(DType::i64, num_tokens * most_nodes, num_words(num_ranks));
  sent_sizes = fixed(DType::i32, num_ranks, 1);
  heard_sizes = fixed(DType::i32, num_ranks, 1);
  grow(delivered, compute, held(most_rows), width);
  grow(at_node, compute, held(all_tokens), width);
  grow(node_masks, DType::i64, all_tokens, num_words(num_ranks));
  grow(forwarded, compute, held(all_tokens * most_nodes), width);
}

void TokenDelivery::add_to(Route& route, Device& device, std::int64_t num_tokens,
                           std::int64_t most_tokens, std::int64_t most_rows) const {
  const auto growable = [&](std::int64_t rows) {
    return Tensor::growable(device, Purpose::activation, DType::i32, {rows});
  };
  route.delivered_row = growable(most_rows);
  if (!is_hierarchical()) return;
  const std::int64_t most_nodes = std::min<std::int64_t>(top_k_, group_.size());
  route.leaving_token = Tensor(device, Purpose::activation, DType::i32, {num_tokens * most_nodes});
  route.forwarded_row = growable(most_tokens * group_.size() * most_nodes);
}

bool TokenDelivery::route(Route& route, DeliveryScratch& scratch, RowCapacity& capacity,
                          std::int64_t max_held) const {
  route.delivery = {};
  const Profile::ControlScope control(route.offsets->device->profile());
  number_own_tokens(route, scratch);
  const TensorView row_numbers = exchange_numbers(route, scratch);
  if (is_hierarchical()) {
    const TokenLists tokens = tokens_by_rank(route);
    const std::vector<std::int64_t> own_masks = leave(route, scratch, tokens);
    const std::vector<std::int64_t> masks = arrive_at_node(route, scratch, capacity, own_masks);
    DeliveryCounts& counts = route.delivery;
    const std::vector<std::int32_t> forwarded = send_on(route, masks);
    if (!all_hold_at_most(max_held, route, tokens)) {
      counts = {};
      return false;
    }
    capacity.require(counts.num_forwarded);
    counts.num_forwarded = fit_to_plan(counts.forwarded, counts.num_forwarded, capacity);
    write_numbers(first_rows(route.forwarded_row, counts.num_forwarded), forwarded);
    receive(route, row_numbers, tokens);
    counts.num_delivered = fit_to_plan(counts.delivered, counts.num_delivered, capacity);
  } else if (!route.arrival_of_row.empty()) {
    kernels::gather_rows(row_numbers, first_rows(route.arrival_of_row, route.num_rows),
                         as_column(first_rows(route.delivered_row, route.num_rows)));
  }
  return true;
}

// What arrives for a node is for one of its ranks at least: so no fewer tokens are sent on.
bool TokenDelivery::all_hold_at_most(std::int64_t max_held, const Route& route,
                                     const TokenLists& own) const {
  if (max_held == 0) return true;
  std::int64_t most = route.delivery.num_forwarded;
  if (route.offsets->device->is_plan())
    for (int rank = 0; rank < group_.size(); ++rank) {
      std::int64_t forwarded = 0;
      for (const int of_node : nodes_.ranks_of(nodes_.node_of(rank)))
        forwarded += std::ssize(own[static_cast<std::size_t>(of_node)]);
      most = std::max(most, forwarded * std::ssize(nodes_.sources_of(rank)));
    }
  group_.all_reduce_values(std::span(&most, 1), ReduceOp::max);
  return most <= max_held;
}

// all_gather: among those of all ranks, which is where a token lies when it has arrived;
// hierarchical: among this rank's.
void TokenDelivery::number_own_tokens(Route& route, DeliveryScratch& scratch) const {
  DeliveryCounts& counts = route.delivery;
  std::int64_t first = 0;
  if (!is_hierarchical()) {
    const auto num_ranks = static_cast<std::size_t>(group_.size());
    counts.arriving = empty_ranges(group_.size());
    group_.all_gather_values(std::span(&route.num_tokens, 1), counts.arriving.count);
    counts.num_delivered = place_in_order(counts.arriving);
    counts.leaving = {std::vector<std::int64_t>(num_ranks, 0),
                      std::vector<std::int64_t>(num_ranks, route.num_tokens)};
    first = counts.arriving.first[static_cast<std::size_t>(group_.rank())];
  }
  std::vector<std::int32_t> numbers(static_cast<std::size_t>(route.num_tokens));
  std::iota(numbers.begin(), numbers.end(), static_cast<std::int32_t>(first));
  write_numbers(first_rows(scratch.own_numbers, route.num_tokens), numbers);
}

TensorView TokenDelivery::exchange_numbers(const Route& route, DeliveryScratch& scratch) const {
  const TensorView sent = first_rows(scratch.slot_numbers, route.num_sent);
  // Where rows arrive in expert order all_gather needs nothing else.
  const TensorView received = !is_hierarchical() && route.arrival_of_row.empty()
                                  ? as_column(first_rows(route.delivered_row, route.num_rows))
                                  : first_rows(scratch.row_numbers, route.num_rows);
  kernels::gather_rows(first_rows(scratch.own_numbers, route.num_tokens),
                       first_rows(route.token_of_row, route.num_sent), sent);
  group_.all_to_all_v(sent, rows_to_ranks(route, placement_, {}).count, received,
                      rows_from_ranks(route, group_.size(), {}).count);
  return received;
}

TokenDelivery::TokenLists TokenDelivery::tokens_by_rank(const Route& route) const {
  TokenLists tokens(static_cast<std::size_t>(group_.size()));
  if (route.offsets->device->is_plan()) {
    for (std::int64_t slot = 0; slot < route.num_tokens * top_k_; ++slot) {
      const std::int64_t expert = slot % placement_.num_experts();
      const std::span<const std::int32_t> places = placement_.places_of(expert);
      const std::int64_t place =
          places[static_cast<std::size_t>(slot / top_k_ * std::ssize(places) / route.num_tokens)];
      tokens[static_cast<std::size_t>(placement_.rank_of(place))].push_back(
          static_cast<std::int32_t>(slot / top_k_));
    }
  } else {
    const kernels::HostContents<std::int32_t> of_row(
        first_rows(route.token_of_row, route.num_sent));
    const RowRanges rows = switchyard::rows_to_ranks(route, placement_, {});
    for (std::size_t p = 0; p < tokens.size(); ++p) {
      const auto part = of_row.span().subspan(static_cast<std::size_t>(rows.first[p]),
                                              static_cast<std::size_t>(rows.count[p]));
      tokens[p].assign(part.begin(), part.end());
    }
  }
  for (std::vector<std::int32_t>& each : tokens) {
    std::ranges::sort(each);
    each.erase(std::unique(each.begin(), each.end()), each.end());
  }
  return tokens;
}

std::vector<std::int64_t> TokenDelivery::leave(Route& route, DeliveryScratch& scratch,
                                               const TokenLists& tokens) const {
  DeliveryCounts& counts = route.delivery;
  counts.leaving = empty_ranges(group_.size());
  const auto words = static_cast<std::size_t>(num_words(group_.size()));
  std::vector<std::int32_t> leaving;
  std::vector<std::int64_t> masks, own_masks;
  for (int node = 0; node < nodes_.num_nodes(); ++node) {
    std::vector<std::int64_t> of_token(static_cast<std::size_t>(route.num_tokens) * words, 0);
    const std::span<const int> ranks = nodes_.ranks_of(node);
    for (std::size_t i = 0; i < ranks.size(); ++i) {
      const Bit bit(static_cast<std::int64_t>(i));
      for (const std::int32_t token : tokens[static_cast<std::size_t>(ranks[i])])
        of_token[static_cast<std::size_t>(token) * words + bit.word] |= bit.value;
    }
    const auto proxy = static_cast<std::size_t>(nodes_.proxy(group_.rank(), node));
    counts.leaving.first[proxy] = std::ssize(leaving);
    for (std::int64_t token = 0; token < route.num_tokens; ++token) {
      const auto mask = std::span(of_token).subspan(static_cast<std::size_t>(token) * words, words);
      if (std::ranges::count(mask, 0) == std::ssize(mask)) continue;
      leaving.push_back(static_cast<std::int32_t>(token));
      masks.insert(masks.end(), mask.begin(), mask.end());
    }
    counts.leaving.count[proxy] = std::ssize(leaving) - counts.leaving.first[proxy];
    if (node == nodes_.node_of(group_.rank()))
      own_masks.assign(
          masks.begin() + counts.leaving.first[proxy] * static_cast<std::int64_t>(words),
          masks.end());
  }
  counts.num_leaving = std::ssize(leaving);
  write_numbers(first_rows(route.leaving_token, counts.num_leaving), leaving);
  kernels::write_from_host<std::int64_t>(
      first_rows(scratch.leaving_masks, counts.num_leaving),
      [&](std::span<std::int64_t> written) { std::ranges::copy(masks, written.begin()); });
  return own_masks;
}

std::vector<std::int64_t> TokenDelivery::arrive_at_node(
    Route& route, DeliveryScratch& scratch, RowCapacity& capacity,
    const std::vector<std::int64_t>& own_masks) const {
  DeliveryCounts& counts = route.delivery;
  const bool is_plan = route.offsets->device->is_plan();
  const std::int64_t words = num_words(group_.size());
  const std::vector<std::int32_t> sizes(counts.leaving.count.begin(), counts.leaving.count.end());
  write_numbers(scratch.sent_sizes->flat(), sizes);
  const std::vector<std::int64_t> one(static_cast<std::size_t>(group_.size()), 1);
  group_.all_to_all_v(scratch.sent_sizes, one, scratch.heard_sizes, one);
  counts.arriving = empty_ranges(group_.size());
  if (is_plan) {
    for (const int source : nodes_.sources_of(group_.rank()))
      counts.arriving.count[static_cast<std::size_t>(source)] = std::ssize(own_masks) / words;
  } else {
    const kernels::HostContents<std::int32_t> heard(scratch.heard_sizes->flat());
    std::ranges::copy(heard.span(), counts.arriving.count.begin());
  }
  counts.num_arriving = place_in_order(counts.arriving);
  capacity.require(counts.num_arriving);
  counts.num_arriving = fit_to_plan(counts.arriving, counts.num_arriving, capacity);
  const TensorView received = first_rows(scratch.node_masks, counts.num_arriving);
  group_
      .start_all_to_all_v(first_rows(scratch.leaving_masks, counts.num_leaving),
                          by_rank(counts.leaving), received, by_rank(counts.arriving))
      .wait(received.device->compute_stream());
  if (!is_plan) {
    const kernels::HostContents<std::int64_t> masks(received.flat());
    return {masks.span().begin(), masks.span().end()};
  }
  std::vector<std::int64_t> assumed;
  while (std::ssize(assumed) < counts.num_arriving * words)
    assumed.insert(assumed.end(), own_masks.begin(), own_masks.end());
  assumed.resize(static_cast<std::size_t>(counts.num_arriving * words));
  return assumed;
}

std::vector<std::int32_t> TokenDelivery::send_on(Route& route,
                                                 const std::vector<std::int64_t>& masks) const {
  DeliveryCounts& counts = route.delivery;
  counts.forwarded = empty_ranges(group_.size());
  const auto words = static_cast<std::size_t>(num_words(group_.size()));
  std::vector<std::int32_t> rows;
  const std::span<const int> ranks = nodes_.ranks_of(nodes_.node_of(group_.rank()));
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    const auto p = static_cast<std::size_t>(ranks[i]);
    const Bit bit(static_cast<std::int64_t>(i));
    counts.forwarded.first[p] = std::ssize(rows);
    for (std::size_t row = 0; row * words < masks.size(); ++row)
      if ((masks[row * words + bit.word] & bit.value) != 0)
        rows.push_back(static_cast<std::int32_t>(row));
    counts.forwarded.count[p] = std::ssize(rows) - counts.forwarded.first[p];
  }
  counts.num_forwarded = std::ssize(rows);
  return rows;
}

// From each proxy of the node, in the order of the sources it stands for, a source's tokens
// ascending.
void TokenDelivery::receive(Route& route, const TensorView& row_numbers,
                            const TokenLists& own) const {
  DeliveryCounts& counts = route.delivery;
  const bool is_plan = row_numbers.device->is_plan();
  const std::vector<std::int64_t> first = rows_from_ranks(route, group_.size(), {}).first;
  TokenLists from(first.size());  // by source, for this rank
  std::vector<std::int32_t> numbers;
  if (is_plan) {
    std::ranges::fill(from, own[static_cast<std::size_t>(group_.rank())]);
  } else {
    numbers.resize(static_cast<std::size_t>(route.num_rows));
    kernels::copy_to_host<std::int32_t>(row_numbers.flat(), numbers);
    for (std::size_t source = 0; source < from.size(); ++source) {
      const std::int64_t end = source + 1 < first.size() ? first[source + 1] : route.num_rows;
      from[source].assign(numbers.begin() + first[source], numbers.begin() + end);
      std::ranges::sort(from[source]);
      from[source].erase(std::unique(from[source].begin(), from[source].end()), from[source].end());
    }
  }
  counts.delivered = empty_ranges(group_.size());
  std::vector<std::int64_t> begin_of_source(first.size(), 0);
  std::int64_t row = 0;
  for (const int proxy : nodes_.ranks_of(nodes_.node_of(group_.rank()))) {
    counts.delivered.first[static_cast<std::size_t>(proxy)] = row;
    for (const int source : nodes_.sources_of(proxy)) {
      begin_of_source[static_cast<std::size_t>(source)] = row;
      row += std::ssize(from[static_cast<std::size_t>(source)]);
    }
    counts.delivered.count[static_cast<std::size_t>(proxy)] =
        row - counts.delivered.first[static_cast<std::size_t>(proxy)];
  }
  counts.num_delivered = row;
  if (is_plan) return;
  // Where the token of each row lies, by arrival, then in expert order.
  std::vector<std::int32_t> place(numbers.size());
  for (std::size_t source = 0; source < from.size(); ++source) {
    const std::int64_t end = source + 1 < first.size() ? first[source + 1] : route.num_rows;
    for (std::int64_t at = first[source]; at < end; ++at) {
      const auto i = static_cast<std::size_t>(at);
      const auto found = std::ranges::lower_bound(from[source], numbers[i]);
      place[i] =
          static_cast<std::int32_t>(begin_of_source[source] + (found - from[source].begin()));
    }
  }
  const TensorView delivered_row = first_rows(route.delivered_row, route.num_rows);
  if (route.arrival_of_row.empty()) return write_numbers(delivered_row, place);
  const kernels::HostContents<std::int32_t> arrival(
      first_rows(route.arrival_of_row, route.num_rows));
  std::vector<std::int32_t> in_order;
  for (const std::int32_t at : arrival.span())
    in_order.push_back(place[static_cast<std::size_t>(at)]);
  write_numbers(delivered_row, in_order);
}

Event TokenDelivery::start(const TensorView& x, const Route& route,
                           DeliveryScratch& scratch) const {
  const DeliveryCounts& counts = route.delivery;
  TensorView sent = x;
  if (!scratch.packed.empty()) {
    sent = first_rows(scratch.packed, x.rows());
    kernels::pack_rows(x, scratch.format, as_bytes(sent));
  }
  if (!is_hierarchical())
    return group_.start_all_to_all_v(sent, by_rank(counts.leaving),
                                     first_rows(scratch.delivered, counts.num_delivered),
                                     by_rank(counts.arriving));
  const TensorView leaving = first_rows(scratch.leaving, counts.num_leaving);
  kernels::gather_rows(sent, first_rows(route.leaving_token, counts.num_leaving), leaving);
  return group_.start_all_to_all_v(leaving, by_rank(counts.leaving),
                                   first_rows(scratch.at_node, counts.num_arriving),
                                   by_rank(counts.arriving));
}

TensorView TokenDelivery::arrive(const Route& route, DeliveryScratch& scratch) const {
  const DeliveryCounts& counts = route.delivery;
  const TensorView delivered = first_rows(scratch.delivered, counts.num_delivered);
  if (is_hierarchical()) {
    const TensorView forwarded = first_rows(scratch.forwarded, counts.num_forwarded);
    kernels::gather_rows(first_rows(scratch.at_node, counts.num_arriving),
                         first_rows(route.forwarded_row, counts.num_forwarded), forwarded);
    group_
        .start_all_to_all_v(forwarded, by_rank(counts.forwarded), delivered,
                            by_rank(counts.delivered))
        .wait(delivered.device->compute_stream());
  }
  const TensorView tokens = scratch.tokens(counts.num_delivered);
  if (!scratch.packed.empty()) kernels::unpack_rows(as_bytes(delivered), scratch.format, tokens);
  return tokens;
}

}  // namespace switchyard
