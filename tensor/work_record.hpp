// What a step of a plan device does, in order: the kernels of its compute stream, the exchanges of
// its communication stream, and where the first waits for the second. The plan twins of the kernels
// and the plan's groups write it (Profile::keep_work_in); whoever prices a step reads it.
//
// Work is keyed by shape: what is alike (layers, micro-steps, sequences) has one entry in `works`,
// and `items` refer to it. An item that stands for several alike says how often (`times`).
//
// Dims by kind, all others have none and go by their bytes:
//   linear_forward, linear_backward_input, linear_backward_weight: rows, out, in
//   grouped_linear_... (the same three): groups, rows of all groups, out, in
//   attention_forward, attention_backward: rows of queries, mean keys of a query, heads, head_dim,
//     kv heads, queries of a sequence. By what a query sees: as named, those before it; with
//     ..._window, the last of those; with ..._all, (nearly) all keys
//
// Activations that go to their store and back (model/layer_records.hpp) are noted like exchanges,
// but are none: they have `bytes`, and follow each other beside both streams.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string_view>
#include <vector>

#include "tensor/dtype.hpp"
#include "tensor/profile.hpp"

namespace switchyard {

// Kinds of copies of activations: to a file and back, or between places in memory.
inline constexpr std::string_view spill_write = "spill_write", spill_read = "spill_read",
                                  spill_copy = "spill_copy";
constexpr bool is_spill(std::string_view kind) {
  return kind.starts_with("spill_");
}

using WorkDims = std::array<std::int64_t, 6>;  // those that a kind has not are 0

// Which ranks of the job take part in an exchange: first + i * stride, seen from one of them. All
// ranks of the job are in such groups, block after block of stride * size.
struct ExchangeRanks {
  int size = 1;
  int first = 0;
  int stride = 1;
  int rank = 0;  // of the job: whose record this is

  // The group of the same axis that another rank is in: ranks that are alike share a record.
  ExchangeRanks seen_from(int other) const {
    const int block = stride * size;
    return {size, other / block * block + other % stride, stride, other};
  }

  auto operator<=>(const ExchangeRanks&) const = default;
};

// One kernel call or one exchange.
struct WorkUnit {
  std::string_view kind;  // a literal: the plan twin's name, or the group's operation
  bool is_exchange = false;
  DType dtype = DType::f32;
  WorkDims dims{};
  double flops = 0;
  double bytes = 0;       // of memory; of copies of activations: that travel
  double wire_bytes = 0;  // of exchanges: sent by this rank
  ExchangeRanks ranks{};  // of exchanges

  auto operator<=>(const WorkUnit&) const = default;
};

struct WorkItem {
  enum class What : std::uint8_t {
    kernel,
    exchange,  // is put behind what the compute stream holds
    wait,      // of the compute stream for an exchange
  };
  What what = What::kernel;
  Part part = Part::other;
  bool backward = false;
  std::int32_t layer = -1;  // as in StepPlace; -1 unless the profile is published to a place
  // Of kernels and exchanges: an index into works. Of waits: the exchange's number.
  std::int64_t unit = 0;
  std::int64_t times = 1;
};

class WorkRecord {
 public:
  const std::vector<WorkUnit>& works() const { return works_; }
  const std::vector<WorkItem>& items() const { return items_; }
  std::int64_t num_exchanges() const { return num_exchanges_; }

  // item.unit is filled in. Returns the number of an exchange, counted from 0; 0 for kernels.
  std::int64_t add(const WorkUnit& unit, WorkItem item);
  void add_wait(std::int64_t exchange, WorkItem item);
  void clear();

 private:
  std::vector<WorkUnit> works_;
  std::map<WorkUnit, std::int64_t> index_;  // of each in works_
  std::vector<WorkItem> items_;
  std::int64_t num_exchanges_ = 0;
};

}  // namespace switchyard
