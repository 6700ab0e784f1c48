// What a machine attains, so that the record of a step (tensor/work_record.hpp) gets a time:
// measured there by `switchyard bench machine`, or put together from published figures
// (configs/clusters/). launch/pricing reads and writes it as YAML. Plain values; seconds, bytes,
// FLOP/s and bytes/s throughout.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/device.hpp"
#include "tensor/dtype.hpp"

namespace switchyard {

// Rates of one kind of kernel over a grid of sizes. What the axes are follows from the kind
// (axes_of): products by rows, out and in; attention by the keys of a query, head_dim and query
// heads of a kv head, with a window by its length and that of the sequence; all others by bytes.
// Rates are FLOP/s of the two former, bytes/s of the others.
struct RateTable {
  std::vector<std::vector<double>> axes;  // each ascending, above 0
  std::vector<double> rates;              // one for each point of the grid, the last axis fastest
};

// The shape of a kind's table.
struct RateAxes {
  std::vector<std::string_view> names;
  bool of_flops = false;  // else of bytes
};
RateAxes axes_of(std::string_view kind);

// Of one collective between the ranks of a group: a message takes `latency`, and a rank sends
// bytes_per_second (between hosts: a host does, for all its ranks).
struct LinkRate {
  double latency = 0;
  double bytes_per_second = 0;  // above 0
};

enum class LinkClass : std::uint8_t { within_host, between_hosts };
inline constexpr int num_link_classes = 2;
constexpr std::string_view name_of(LinkClass link) {
  return link == LinkClass::within_host ? "within_host" : "between_hosts";
}

// Of kernels without a table: the larger of FLOPs and bytes by these, and `latency` beside it.
struct PlainRates {
  std::map<DType, double> flops_per_second;  // of products and attention, sustained
  double bytes_per_second = 0;               // of memory
  double latency = 0;                        // of a kernel
};

// A machine with so many ranks at work on a host, of so many threads.
struct MachineSetting {
  std::int64_t ranks_per_host = 1;
  std::int64_t threads = 1;  // of a rank; of no meaning on cards
  std::map<std::string, std::map<DType, RateTable>, std::less<>> kernels;  // by kind
  PlainRates plain;                                                        // all 0: there are none
  // The most that products of a rank attain, of which utilisation is a share.
  std::map<DType, double> peak_flops_per_second;
  // By collective (all_reduce, ...); "any": of those that have no rate of their own.
  std::array<std::map<std::string, LinkRate, std::less<>>, num_link_classes> links;
  // k in max(Tc, Tm) + k min(Tc, Tm), of a computation beside an exchange: 0: both as if alone; 1:
  // one behind the other.
  double overlap_slowdown = 1;

  bool has_plain_rates() const { return plain.bytes_per_second > 0; }
};

struct MachineProfile {
  static constexpr std::int64_t format_version = 2;

  std::string path;  // where it was read from
  std::string name;
  DeviceKind device = DeviceKind::cpu;
  std::string processor;    // "AMD EPYC 9654"; of a measured machine as /proc/cpuinfo says
  std::string measured_by;  // the program's version; empty: published figures
  std::string time;         // of the measurement
  std::map<std::string, std::string> sources;  // of published figures: figure -> where it stands
  std::vector<std::string> not_measured;
  std::vector<MachineSetting> settings;
  // Of a host; 0: not told.
  std::int64_t memory_bytes_of_rank = 0;
  double disk_write_bytes_per_second = 0;  // of a host, into files that are synced
  double disk_read_bytes_per_second = 0;
  double watts_of_rank = 0;
  double hours_between_failures = 0;  // of one host
};

}  // namespace switchyard
