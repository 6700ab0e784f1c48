// The streams of a step as an event simulation: kernels follow each other on the compute stream,
// exchanges on the communication stream beside it, copies of activations on one of their own, and
// the first waits for the others where the program does. While an exchange is at work beside a
// computation, each goes at 1 / (1 + k) of its speed, so that a computation Tc beside an exchange
// Tm takes max(Tc, Tm) + k min(Tc, Tm). Copies of activations slow nothing down.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "tensor/work_record.hpp"

namespace switchyard {

// Seconds of each unit of a record (WorkRecord::works), alone.
struct UnitPrices {
  std::vector<double> seconds;
  // How much longer the rank with the most rows takes, for which all others wait at their next
  // exchange. As many, or none.
  std::vector<double> lag;
  double overlap_slowdown = 0;  // k
};

struct StepTimes {
  double seconds = 0;
  // Of the compute stream, waits included; they add up to `seconds`.
  std::array<double, num_parts> parts{};
  std::array<double, num_parts> waits{};  // of them: for exchanges
  // Of exchanges alone, by the part that started them.
  std::array<double, num_parts> exchanges{};

  double wait_seconds() const;
  double exchange_seconds() const;
  // Seconds of exchanges that no one waited for.
  double hidden_seconds() const;
};

// What the simulated streams did, for a picture.
struct SimulatedSpan {
  bool is_exchange = false;
  std::int64_t item = 0;  // of the record
  double begin = 0;       // seconds
  double end = 0;
};

// An item that stands for `times` takes so many times its seconds. spans: may be null.
StepTimes simulate(const WorkRecord& record, const UnitPrices& prices,
                   std::vector<SimulatedSpan>* spans = nullptr);

}  // namespace switchyard
